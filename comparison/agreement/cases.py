"""What a subject is put through: problems, steps and calls in which no part of a port is idle.

Images show neither the sign nor the scale of an input, a tame net nothing of what is lost where a unit or a probability
saturates or where exp overflows, and one large chunk nothing of the seams. So each gradient is taken of several
problems: of the data as they are; of stretched inputs; and of those before a net that is saturated, or whose logits are
shifted. All but the first share their shapes, so that JAX compiles but once for them; they are cut into several chunks,
and as their numbers are prime, the last chunk is shorter.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from comparison.agreement.bounds import Problem, curvature_bound, gradient_bound, loss_bound
from comparison.agreement.comparison import (
    DEFAULT_STEP,
    Agreement,
    NotCompared,
    Subject,
    changed_argument,
    check_forward,
    check_gradient,
    compare,
    informative,
    on_device,
    sample_entries,
    told,
    untouched,
)
from reference.numerical_gradient import structured
from reference.two_layer_net import Params, gradient, loss
from reference.validation import MEMORY, unit_roundoff

SECOND_STEP = 1e-2
"""Rounding of the losses weighs a hundredth of what it does at 1e-4, truncation ten thousand times as much."""
LITTLE_MEMORY = 2**20
"""Bytes that make each strategy cut the default problem into several chunks."""
LARGE_STEP = 1.0
"""Makes shifts of more than 1 of the stretched inputs, for which `structured` has other formulas."""
RATE = 0.01
"""Learning rate of the trial steps."""
BATCH = 37
"""Samples of a trial step, at most: a prime number, and more than LITTLE_MEMORY holds of the default problem."""


class Trial(NamedTuple):
    """A problem, and how it is to be differentiated."""

    name: str
    problem: Problem
    step: float
    entries: Params | None  # that `loop` and `batched` are checked at
    memory: float


def check(
    subject: Subject, problem: Problem, strategies: tuple[str, ...], *, h: float, memory: float, seed: int
) -> Iterator[Agreement | NotCompared]:
    """Compare all about one subject: arrays there and back, forward quantities, each gradient, and training by it.

    The data are differentiated at `h`, the other problems at SECOND_STEP. `loop` and `batched` are checked at a sample
    of entries beyond the data, or where all of them would take long.
    """
    problems = variations(problem, seed)
    trials = _trials(problems, subject.dtype, h, memory, seed)
    yield from check_copies(subject, problem.x)
    for name, each in problems.items():
        yield from _named(name, check_forward(subject, each))
    for name, each in problems.items():
        yield from _named(name, check_gradient(subject, each, None, h))
    yield from _named("stretched", check_training(subject, problems["stretched"], None, SECOND_STEP))
    for strategy in strategies:
        if informative(problem, strategy, subject.dtype, h):
            yield from _check_strategy(subject, strategy, trials)
        else:
            reason = f"rounding of two {subject.dtype} losses outweighs their difference."
            yield NotCompared(subject.name, strategy, subject.dtype, h, reason)
            yield from _check_trial(subject, strategy, trials[0]._replace(step=SECOND_STEP))


def check_data(
    subject: Subject, problem: Problem, strategies: tuple[str, ...], *, h: float, memory: float, seed: int
) -> Iterator[Agreement | NotCompared]:
    """Compare forward quantities and each gradient of the data alone: a short look at another size of net."""
    yield from check_forward(subject, problem)
    entries = sample_entries(problem.params, len(problem.x), seed)
    for strategy in strategies:
        step = h if informative(problem, strategy, subject.dtype, h) else SECOND_STEP
        yield from _check_trial(subject, strategy, Trial("data", problem, step, entries, memory))


def variations(problem: Problem, seed: int) -> dict[str, Problem]:
    """Return the problem and what is made of it, by name."""
    stretched = stretch(problem, seed)
    return {"data": problem, "stretched": stretched, "saturated": saturate(stretched), "shifted": shift(stretched)}


def _trials(problems: dict[str, Problem], dtype: str, h: float, memory: float, seed: int) -> list[Trial]:
    data = problems["data"]
    few = Params(*(np.unique(np.linspace(0, p.size - 1, 83).astype(int)) for p in data.params))
    little = min(memory, LITTLE_MEMORY) if dtype == "float64" else memory  # a matter of no dtype
    others = ((name, _prime(problem)) for name, problem in problems.items() if problem is not data)
    return [
        Trial("data", data, h, sample_entries(data.params, len(data.x), seed), memory),
        *(Trial(name, problem, SECOND_STEP, few, little) for name, problem in others),
    ]


def _check_strategy(subject: Subject, strategy: str, trials: list[Trial]) -> Iterator[Agreement]:
    """Compare a strategy in all trials, then training by it; its default step by one strategy alone."""
    for trial in trials:
        yield from _check_trial(subject, strategy, trial)
    data, stretched, *_ = trials
    if strategy == "structured" and subject.dtype == "float64":
        yield from _check_trial(subject, strategy, stretched._replace(step=LARGE_STEP))
    if strategy in ("loop", "batched") and data.entries is not None:
        return  # a step takes all entries
    for step in (SECOND_STEP, DEFAULT_STEP) if strategy == "collocated" else (SECOND_STEP,):
        yield from _named(
            stretched.name, check_training(subject, stretched.problem, strategy, step, memory=stretched.memory)
        )


def _prime(problem: Problem) -> Problem:
    """Return the problem with a prime number of samples, no chunk of which leaves nothing over."""
    params, x, t = problem
    samples = next(n for n in range(len(x), 0, -1) if all(n % divisor for divisor in range(2, math.isqrt(n) + 1)))
    return Problem(params, x[:samples], t[:samples])


def stretch(problem: Problem, seed: int) -> Problem:
    """Return the problem with inputs in [-3, 3], the first and last not 0."""
    x = problem.x / (np.abs(problem.x).max() or 1) * np.random.default_rng(seed).uniform(-3, 3, problem.x.shape)
    x[-1, -1], x[0, 0] = -3.0, 1.0
    return problem._replace(x=x)


def saturate(problem: Problem) -> Problem:
    """Return the problem with hidden units and probabilities near 0 and 1, where what is subtracted from 1 is lost."""
    (W1, b1, W2, b2), x, t = problem
    units = np.array([25, -25, 0])[np.arange(len(b1)) % 3]
    return Problem(Params(W1, b1 + units, W2, b2 + 25 * (np.arange(len(b2)) == 3 % len(b2))), x, t)


def shift(problem: Problem) -> Problem:
    """Return the problem with 1000 added to all logits, which changes nothing but what overflows."""
    return problem._replace(params=problem.params._replace(b2=problem.params.b2 + 1000))


def _named(name: str, rows: Iterator[Agreement]) -> Iterator[Agreement]:
    return (replace(row, problem=name) for row in rows)


def _check_trial(subject: Subject, strategy: str, trial: Trial) -> Iterator[Agreement]:
    name, problem, step, entries, memory = trial
    of_losses = {"entries": entries} if strategy in ("loop", "batched") else {}
    return _named(name, check_gradient(subject, problem, strategy, step, memory=memory, **of_losses))


def check_copies(subject: Subject, array: np.ndarray) -> Iterator[Agreement]:
    """Compare an array that went there and back, with its source and its first copy overwritten on the way."""
    port, dtype = subject.port, subject.dtype
    source = np.asfortranarray(array, dtype)
    expected, smallest = source.astype(np.float64), float(np.finfo(dtype).tiny)
    on_port = port.from_numpy(source, dtype=dtype, device=subject.device)
    source[...] = -1
    first = port.to_numpy(on_port)
    yield compare(subject, "array there and back", first.copy(), expected, smallest)
    first[...] = -1
    yield compare(subject, "array back once more", port.to_numpy(on_port), expected, smallest)


def check_training(
    subject: Subject, problem: Problem, strategy: str | None, h: float, *, memory: float = MEMORY
) -> Iterator[Agreement]:
    """Compare two steps of descent, from one-hot labels: the losses before each, and where they end."""
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
        gradient=port.GRADIENTS[strategy] if strategy else port.gradient,
        learning_rate=RATE,
        memory=memory,
        **told(h),
    )
    changed = changed_argument(subject, problem, params, x, t.argmax(axis=1))
    expected, bounds = trajectory(problem.rounded(subject.dtype), batches, strategy, h, subject.dtype)
    names = (*(f"trained {name}" for name in Params._fields), "losses")
    for name, got, e, bound in zip(names, (*trained, losses), expected, bounds, strict=True):
        row = compare(subject, name, port.to_numpy(got), e, bound, strategy=strategy or "closed form", step=h)
        yield untouched(row, changed)


def trajectory(
    problem: Problem, batches: np.ndarray, strategy: str | None, h: float, dtype: str
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the net after all steps and the losses before each, and to first order what rounding may do to them.

    A step adds RATE times the bound on the gradient, and three roundings: of the rate, the product and the sum. It is
    taken at a net that is off by `allowed`: that moves its slopes by the length of this times the curvature, and its
    loss by the slopes times it.
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
        params = Params(*(p - RATE * g for p, g in zip(params, slope, strict=True)))
        added = (
            RATE * (b + moved + 2 * u * np.abs(g)) + u * np.abs(p)
            for b, g, p in zip(bounds, slope, params, strict=True)
        )
        allowed = Params(*map(np.add, allowed, added))
    return [*params, np.array(losses)], [*allowed, np.array(loss_bounds)]
