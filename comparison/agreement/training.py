"""Compare training by a port with the reference's, within a bound on what rounding adds in each step."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from comparison.agreement.bounds import Bounds, Problem, curvature_bound
from comparison.agreement.comparison import (
    Agreement,
    Arguments,
    Subject,
    changed_argument,
    compare,
    h_option,
    new_arguments,
    refuse_change,
)
from comparison.agreement.kinds import LABELS, Shape, draw, place
from comparison.agreement.trials import compiles_each_shape
from comparison.agreement.truth import BOUNDED_ALIKE, is_comparable
from reference.defaults import CLOSED_FORM, MEMORY, H
from reference.numerical_gradient import structured
from reference.two_layer_net import Params, gradient, loss
from reference.validation import unit_roundoff

LEARNING_RATE = 0.01
"""Where none is given."""
BATCH = 37
"""Most samples of a mini-batch, where none is given: a prime number."""


Expected = tuple[list[np.ndarray], list[np.ndarray]]
"""The members of the trained net and the losses, and the bounds on them."""


class Training(NamedTuple):
    """A training that ports are tried with."""

    shape: Shape  # N, I, H, O: of all samples
    batches: tuple[int, int]  # K, B
    learning_rate: Any
    h: float = H
    memory: float = MEMORY
    labels: str = "int64"  # of LABELS
    max_abs_x: float = 1.0
    strategies: tuple[str, ...] = ()
    compiled: tuple[tuple[str, str], ...] = ()  # (dtype, strategy) where each is a program to be compiled
    layout: str = "rows"  # of LAYOUTS


TRAININGS = (
    # More samples than 16 bits count, and so large a rate that a step shows as clearly as a gradient does.
    Training(
        (70_001, 2, 7, 2),
        (1, 7),
        1.7,
        3e-3,
        1500,
        "int32",
        strategies=("loop", "structured"),
        compiled=(("float64", "loop"), ("float32", CLOSED_FORM)),
        layout="every other",
    ),
    Training(
        (11, 4, 3, 7),
        (2, 6),
        np.float32(30.0),
        0.02,
        2000,
        "one-hot bools",
        strategies=("batched", "collocated"),
        compiled=(("float32", "batched"), ("float64", CLOSED_FORM)),
        layout="columns",
    ),
    Training(
        (9, 5, 5, 3),
        (5, 3),
        0.3,
        4e-5,
        20_000,
        "uint8",
        max_abs_x=255.0,
        strategies=("structured", "collocated"),
        compiled=(("float64", "structured"), ("float32", "collocated")),
        layout="columns",
    ),
    Training(
        (20, 4, 3, 7),
        (37, 5),
        np.float64(0.0125),
        strategies=("collocated",),
        compiled=(("float64", "collocated"),),
        layout="offset",
    ),
)
"""Of the closed form, too."""


def check_trainings(subject: Subject, strategies: tuple[str, ...], seed: int) -> Iterator[Agreement]:
    """Compare a port in all trainings, by the closed form and by differences."""
    compiles = compiles_each_shape(subject)
    for training in TRAININGS:
        problem, batches = draw_training(training, seed)
        options = {
            "batches": batches,
            "learning_rate": training.learning_rate,
            "labels": training.labels,
            "memory": training.memory,
            "arguments": place(subject, problem, training.layout, None),
        }
        for strategy in (None, *(s for s in strategies if s in training.strategies)):
            if compiles and (subject.dtype, strategy or CLOSED_FORM) not in training.compiled:
                continue
            expected = expected_of(training, BOUNDED_ALIKE.get(strategy or "", strategy), subject.dtype, seed)
            if expected is None:
                continue
            rows = check_training(subject, problem, strategy, training.h, expected=expected, **options)
            yield from (replace(row, problem="x".join(map(str, training.shape))) for row in rows)


@cache
def draw_training(training: Training, seed: int) -> tuple[Problem, np.ndarray]:
    """Draw the net and the samples of a training, and its mini-batches."""
    problem = draw(training.shape, seed, training.max_abs_x)
    return problem, shuffled(training.shape[0], *training.batches, seed)


@cache
def expected_of(training: Training, strategy: str | None, dtype: str, seed: int) -> Expected | None:
    """Compute the result that every port must have, with its bounds; None where rounding outweighs differences."""
    problem, batches = draw_training(training, seed)
    first = Problem(problem.params, problem.x[batches[0]], problem.t[batches[0]])
    if strategy and not is_comparable(first, strategy, dtype, training.h):
        return None
    rate = float(training.learning_rate)
    return expected_training(problem.rounded(dtype), batches, strategy, training.h, dtype, rate)


def shuffled(samples: int, steps: int, size: int, seed: int) -> np.ndarray:
    """Draw mini-batches (K, B) of samples in no order; each has one twice, and the first has the first and the last."""
    batches = np.random.default_rng(seed).integers(0, samples, (steps, size))
    batches[0, :2] = (samples - 1, 0)[:size]
    batches[:, -1] = batches[:, 0]
    return batches


def halves(samples: int) -> np.ndarray:
    """Return two mini-batches that hold all samples, of at most BATCH."""
    size = min(BATCH, -(-samples // 2))
    return np.arange(2 * size).reshape(2, size) % samples


def check_training(
    subject: Subject,
    problem: Problem,
    strategy: str | None,
    h: float,
    *,
    batches: np.ndarray | None = None,
    learning_rate: Any = LEARNING_RATE,
    labels: str = "one-hot floats",
    memory: float = MEMORY,
    arguments: Arguments | None = None,
    expected: Expected | None = None,
) -> Iterator[Agreement]:
    """Compare steps of descent, by default two: the losses before each, and the net after all.

    The net and the inputs of `arguments` are by default new arrays.
    """
    batches = halves(len(problem.t)) if batches is None else batches
    port, (params, x, _) = subject.port, arguments or new_arguments(subject, problem)
    t, rate = LABELS[labels](problem.t, problem.params.b2.size), float(learning_rate)
    named = strategy or CLOSED_FORM
    trained, losses = port.train_steps(
        params, x, t, batches.copy(), strategy=named, learning_rate=learning_rate, memory=memory, **h_option(h)
    )
    changed = changed_argument(subject, problem, params, x, t)
    exact = problem.rounded(subject.dtype)
    values, bounds = expected or expected_training(exact, batches, strategy, h, subject.dtype, rate)
    names = (*(f"trained {name}" for name in Params._fields), "losses")
    for name, got, e, bound in zip(names, (*trained, losses), values, bounds, strict=True):
        row = compare(subject, name, port.to_numpy(got), e, bound, strategy=named, h=h)
        yield refuse_change(row, changed)


def expected_training(
    problem: Problem, batches: np.ndarray, strategy: str | None, h: float, dtype: str, learning_rate: float
) -> Expected:
    """Compute the net after all steps and the losses before each, and to first order the bounds on their rounding.

    A step adds the rate times the bound on the gradient, and three roundings: of the rate, the product and the
    sum. It starts from a net that is off by `allowed`: that moves its slopes by the length of this times the curvature,
    and its loss by the slopes times it.
    """
    u, params, allowed = unit_roundoff(dtype), problem.params, Params(*map(np.zeros_like, problem.params))
    losses, loss_bounds = [], []
    for batch in batches:
        part = Problem(params, problem.x[batch], problem.t[batch])
        slope = structured(*part, h=h) if strategy else gradient(*part)
        carried = sum(float((np.abs(g) * a).sum()) for g, a in zip(slope, allowed, strict=True))
        bounds = Bounds(part, dtype)
        losses.append(loss(*part))
        loss_bounds.append(bounds.loss() + carried)
        moved = curvature_bound(part) * math.hypot(*(float(np.linalg.norm(a)) for a in allowed))
        of_slope = bounds.gradient(strategy, h if strategy else 0.0)
        params = Params(*(p - learning_rate * g for p, g in zip(params, slope, strict=True)))
        added = (
            abs(learning_rate) * (b + moved + 2 * u * np.abs(g)) + u * np.abs(p)
            for b, g, p in zip(of_slope, slope, params, strict=True)
        )
        allowed = Params(*map(np.add, allowed, added))
    return [*params, np.array(losses)], [*allowed, np.array(loss_bounds)]
