"""The cases that a subject is compared in: problems, steps and calls in which no part of a port is idle.

Images show neither the sign nor the scale of an input, a tame net nothing of the digits lost where a unit or a
probability saturates or where exp overflows, and one large chunk nothing of the seams. So each gradient is taken of
several problems: of the data as they are; of stretched inputs; and of those before a net that is saturated, or whose
logits are shifted. All but the first share their shapes, so that JAX compiles but once for them; they are cut into
several chunks, and as their numbers are prime, the last chunk is shorter.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from comparison.agreement.bounds import Problem, curvature_bound, gradient_bound, loss_bound
from comparison.agreement.comparison import (
    Agreement,
    NotCompared,
    Subject,
    changed_argument,
    check_forward,
    check_gradient,
    compare,
    h_option,
    is_comparable,
    on_device,
    refuse_change,
    sample_entries,
)
from reference.defaults import CLOSED_FORM, MEMORY, H
from reference.numerical_gradient import structured
from reference.two_layer_net import Params, gradient, loss
from reference.validation import unit_roundoff

SECOND_H = 1e-2
"""Rounding of the losses weighs a hundredth of what it does at 1e-4, truncation ten thousand times as much."""
SMALL_MEMORY = 2**20
"""Bytes that make each strategy cut the default problem into several chunks."""
LARGE_H = 1.0
"""Makes shifts of more than 1 of the stretched inputs, for which `structured` has other formulas."""
LEARNING_RATE = 0.01
"""Of the training steps."""
BATCH = 37
"""Most samples of a training step: a prime number, and more than SMALL_MEMORY holds of the default problem."""


class Case(NamedTuple):
    """A problem, and how it is differentiated."""

    name: str
    problem: Problem
    h: float
    entries: Params | None  # that `loop` and `batched` are compared at
    memory: float


def check_subject(
    subject: Subject, problem: Problem, strategies: tuple[str, ...], *, h: float, memory: float, seed: int
) -> Iterator[Agreement | NotCompared]:
    """Compare everything about one subject: copies, forward quantities, each gradient, and training by it.

    The data are differentiated at `h`, the other problems at SECOND_H. `loop` and `batched` are compared at a
    sample of entries except on the data, and there too where all of them would take long.
    """
    problems = variations(problem, seed)
    cases = _cases(problems, subject.dtype, h, memory, seed)
    yield from check_copies(subject, problem.x)
    for name, each in problems.items():
        yield from _named(name, check_forward(subject, each))
    for name, each in problems.items():
        yield from _named(name, check_gradient(subject, each, None, h))
    yield from _named("stretched", check_training(subject, problems["stretched"], None, SECOND_H))
    for strategy in strategies:
        if is_comparable(problem, strategy, subject.dtype, h):
            yield from _check_strategy(subject, strategy, cases)
        else:
            reason = f"rounding of two {subject.dtype} losses outweighs their difference."
            yield NotCompared(subject.name, strategy, subject.dtype, h, reason)
            yield from _check_case(subject, strategy, cases[0]._replace(h=SECOND_H))


def check_data_only(
    subject: Subject, problem: Problem, strategies: tuple[str, ...], *, h: float, memory: float, seed: int
) -> Iterator[Agreement | NotCompared]:
    """Compare forward quantities and each gradient on the data only: a short look at another size of net."""
    yield from check_forward(subject, problem)
    entries = sample_entries(problem.params, len(problem.x), seed)
    for strategy in strategies:
        comparable = is_comparable(problem, strategy, subject.dtype, h)
        case = Case("data", problem, h if comparable else SECOND_H, entries, memory)
        yield from _check_case(subject, strategy, case)


def variations(problem: Problem, seed: int) -> dict[str, Problem]:
    """Return the problem and its variations, by name."""
    stretched = stretch(problem, seed)
    return {"data": problem, "stretched": stretched, "saturated": saturate(stretched), "shifted": shift(stretched)}


def _cases(problems: dict[str, Problem], dtype: str, h: float, memory: float, seed: int) -> list[Case]:
    data = problems["data"]
    few = Params(*(np.unique(np.linspace(0, p.size - 1, 83).astype(int)) for p in data.params))
    small = min(memory, SMALL_MEMORY) if dtype == "float64" else memory  # chunks do not depend on the dtype
    others = ((name, _prime(problem)) for name, problem in problems.items() if problem is not data)
    return [
        Case("data", data, h, sample_entries(data.params, len(data.x), seed), memory),
        *(Case(name, problem, SECOND_H, few, small) for name, problem in others),
    ]


def _check_strategy(subject: Subject, strategy: str, cases: list[Case]) -> Iterator[Agreement]:
    """Compare a strategy in all cases, then training by it; the default step by `collocated` only."""
    for case in cases:
        yield from _check_case(subject, strategy, case)
    data, stretched, *_ = cases
    if strategy == "structured" and subject.dtype == "float64":
        yield from _check_case(subject, strategy, stretched._replace(h=LARGE_H))
    if strategy in ("loop", "batched") and data.entries is not None:
        return  # a step takes all entries
    for h in (SECOND_H, H) if strategy == "collocated" else (SECOND_H,):
        rows = check_training(subject, stretched.problem, strategy, h, memory=stretched.memory)
        yield from _named(stretched.name, rows)


def _prime(problem: Problem) -> Problem:
    """Reduce the problem to a prime number of samples, which chunks never divide."""
    params, x, t = problem
    samples = next(n for n in range(len(x), 0, -1) if all(n % divisor for divisor in range(2, math.isqrt(n) + 1)))
    return Problem(params, x[:samples], t[:samples])


def stretch(problem: Problem, seed: int) -> Problem:
    """Stretch the inputs to [-3, 3], the first and last not 0."""
    x = problem.x / (np.abs(problem.x).max() or 1) * np.random.default_rng(seed).uniform(-3, 3, problem.x.shape)
    x[-1, -1], x[0, 0] = -3.0, 1.0
    return problem._replace(x=x)


def saturate(problem: Problem) -> Problem:
    """Saturate hidden units and probabilities near 0 and 1, where 1 - z and 1 - y would cancel."""
    (W1, b1, W2, b2), x, t = problem
    units = np.array([25, -25, 0])[np.arange(len(b1)) % 3]
    return Problem(Params(W1, b1 + units, W2, b2 + 25 * (np.arange(len(b2)) == 3 % len(b2))), x, t)


def shift(problem: Problem) -> Problem:
    """Add 1000 to all logits, which changes nothing unless something overflows."""
    return problem._replace(params=problem.params._replace(b2=problem.params.b2 + 1000))


def _named(name: str, rows: Iterator[Agreement]) -> Iterator[Agreement]:
    return (replace(row, problem=name) for row in rows)


def _check_case(subject: Subject, strategy: str, case: Case) -> Iterator[Agreement]:
    name, problem, h, entries, memory = case
    sampled = {"entries": entries} if strategy in ("loop", "batched") else {}
    return _named(name, check_gradient(subject, problem, strategy, h, memory=memory, **sampled))


def check_copies(subject: Subject, array: np.ndarray) -> Iterator[Agreement]:
    """Compare an array copied to the port and back, its source and its first copy overwritten in between."""
    port, dtype = subject.port, subject.dtype
    source = np.asfortranarray(array, dtype)
    expected, smallest = source.astype(np.float64), float(np.finfo(dtype).tiny)
    on_port = port.from_numpy(source, dtype=dtype, device=subject.device)
    source[...] = -1
    first = port.to_numpy(on_port)
    yield compare(subject, "copy to the port and back", first.copy(), expected, smallest)
    first[...] = -1
    yield compare(subject, "second copy back", port.to_numpy(on_port), expected, smallest)


def check_training(
    subject: Subject, problem: Problem, strategy: str | None, h: float, *, memory: float = MEMORY
) -> Iterator[Agreement]:
    """Compare two steps of descent, with one-hot labels: the losses before each, and the net after both."""
    port, (params, x) = subject.port, on_device(subject, problem)
    count = len(problem.t)
    samples = min(BATCH, -(-count // 2))
    batches = np.arange(2 * samples).reshape(2, samples) % count
    t = np.eye(problem.params.b2.size)[problem.t]
    trained, losses = port.train_steps(
        params,
        x,
        t,
        batches,
        strategy=strategy or CLOSED_FORM,
        learning_rate=LEARNING_RATE,
        memory=memory,
        **h_option(h),
    )
    changed = changed_argument(subject, problem, params, x, t.argmax(axis=1))
    expected, bounds = expected_training(problem.rounded(subject.dtype), batches, strategy, h, subject.dtype)
    names = (*(f"trained {name}" for name in Params._fields), "losses")
    for name, got, e, bound in zip(names, (*trained, losses), expected, bounds, strict=True):
        row = compare(subject, name, port.to_numpy(got), e, bound, strategy=strategy or CLOSED_FORM, h=h)
        yield refuse_change(row, changed)


def expected_training(
    problem: Problem, batches: np.ndarray, strategy: str | None, h: float, dtype: str
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Compute the net after all steps and the losses before each, and to first order the bounds on their rounding.

    A step adds LEARNING_RATE times the bound on the gradient, and three roundings: of the rate, the product and the
    sum. It starts from a net that is off by `allowed`: that moves its slopes by the length of this times the curvature,
    and its loss by the slopes times it.
    """
    u, params, allowed = unit_roundoff(dtype), problem.params, Params(*map(np.zeros_like, problem.params))
    losses, loss_bounds = [], []
    for batch in batches:
        part = Problem(params, problem.x[batch], problem.t[batch])
        slope = structured(*part, h=h) if strategy else gradient(*part)
        carried = sum(float((np.abs(g) * a).sum()) for g, a in zip(slope, allowed, strict=True))
        losses.append(loss(*part))
        loss_bounds.append(loss_bound(part, dtype) + carried)
        moved = curvature_bound(part) * math.hypot(*(float(np.linalg.norm(a)) for a in allowed))
        bounds = gradient_bound(part, dtype, strategy, h if strategy else 0.0)
        params = Params(*(p - LEARNING_RATE * g for p, g in zip(params, slope, strict=True)))
        added = (
            LEARNING_RATE * (b + moved + 2 * u * np.abs(g)) + u * np.abs(p)
            for b, g, p in zip(bounds, slope, params, strict=True)
        )
        allowed = Params(*map(np.add, allowed, added))
    return [*params, np.array(losses)], [*allowed, np.array(loss_bounds)]
