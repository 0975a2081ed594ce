"""The trials of a port: nets of a few sizes, chosen so that each kind of size, value and argument is met.

Sizes, memory, steps h and kinds of arguments are spread over the trials as in a covering array: each once at least, not
each with each other. Within a trial the problem changes one member at a time (kinds.py), in the same arrays where the
backend lets them be written to. What a port has returned is read again at the end, or overwritten at once: a buffer
that two results share shows either way.

JAX compiles a program of seconds for each shape, strategy and dtype: there a trial is of those that it names.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import (
    Agreement,
    Arguments,
    Subject,
    check_forward,
    check_gradient,
    compare,
)
from comparison.agreement.kinds import (
    LABELS,
    VALUES,
    Shape,
    check_forward_values,
    draw,
    forward_truths,
    place,
    recording,
    spoil,
)
from comparison.agreement.truth import Truth
from reference.defaults import DTYPES, MEMORY
from reference.two_layer_net import Params


class Trial(NamedTuple):
    """A size of net, and what it is tried with."""

    shape: Shape
    h: Any  # a number of Python or of NumPy, as memory is
    memory: Any = MEMORY
    labels: str = "int64"  # of LABELS
    layout: str = "rows"  # of LAYOUTS
    values: tuple[str, ...] = tuple(VALUES)
    max_abs_x: float = 1.0
    sampled: bool = False  # `loop` and `batched` are compared at a few entries of the first net, too
    compiled: tuple[tuple[str, str], ...] = ()  # (dtype, strategy) where each is a program to be compiled


NEW_NET, FURTHER = ("drawn", "W1 reversed"), ("drawn", "inputs negative", "W2 negative", "units saturated")
ANOTHER_H = 0.97
"""The factor on a trial's h with which its first net is compared once more: JAX need not compile for it again."""

TRIALS = (
    # Small: odd, 1, 2, and equal to each other; in several chunks, the last of them shorter.
    Trial(
        (7, 5, 5, 3), 3e-3, 20_000, "uint8", "columns", compiled=(("float64", "structured"), ("float32", "collocated"))
    ),
    Trial((4, 4, 3, 7), np.float32(0.0173), 4096, "one-hot floats", "reversed", compiled=(("float64", "collocated"),)),
    Trial((6, 2, 7, 2), np.float64(0.7), 1, "bools", "offset", FURTHER, compiled=(("float32", "structured"),)),
    # Shifts of more than 1, where no interpolant and no series applies.
    Trial(
        (7, 2, 1, 2),
        0.15,
        np.float32(2500),
        "one-hot bools",
        "every other",
        (*FURTHER, "logits far apart"),
        16.0,
        compiled=(("float64", "structured"),),
    ),
    Trial((2, 1, 2, 3), 0.045, np.int64(500), "whole floats", "columns", NEW_NET),
    Trial((1, 3, 6, 3), 2e-3, 700, "list", "every other", NEW_NET),
    Trial((3, 3, 2, 1), 2e-5, 600, "int64", "columns", NEW_NET),
    Trial((5, 7, 4, 5), 3e-7, 3000, "big-endian", "offset", NEW_NET),
    Trial(
        (8, 6, 2, 2),
        3e-4,
        2**33,
        "one-hot columns",
        "columns",
        ("drawn", "inputs negative"),
        255.0,
        compiled=(("float64", "collocated"),),
    ),
    Trial((6, 6, 6, 6), 0.11, 5000, "reversed", "reversed", NEW_NET),
    # Large: over 64, 128, 256 and 1,024.
    Trial((131, 5, 67, 3), 4e-3, 2**18, "tuple", "columns", NEW_NET, 1.0, True, (("float32", "collocated"),)),
    Trial((3, 131, 300, 2), 2e-4, 2**20, "int64", "every other", ("drawn", "logits far apart"), sampled=True),
    Trial((300, 3, 2, 67), 6e-3, 2**22, "int64", "rows", ("drawn",), sampled=True),
    Trial((2, 67, 131, 131), 0.04, 2**20, "uint8", "offset", NEW_NET, 1.0, True, (("float64", "collocated"),)),
    Trial((5, 3, 1031, 3), 5e-3, 2**20, "int32", "rows", ("drawn",), sampled=True),
    Trial((3, 1031, 3, 300), 3e-3, 2**20, "whole floats", "columns", ("drawn",), sampled=True),
    Trial((1031, 2, 5, 3), 0.013, 2**16, "one-hot bools", "rows", ("drawn",), sampled=True),
    Trial((3, 5, 2, 1031), 2e-3, 2**20, "one-hot integers", "reversed", ("drawn",), sampled=True),
    # More weights, and more inputs of a batch that are not 0, than 16 bits count.
    Trial((2, 784, 84, 3), 9e-3, 2**24, "list", "every other", ("drawn",), sampled=True),
    Trial((131, 784, 3, 2), 6e-3, 2**26, "bools", "columns", ("drawn",), 1.0, True, (("float32", "structured"),)),
)
MANY_SAMPLES = (70_001, 2, 1, 2)
"""As many as a data set has, for predictions, loss and accuracy."""


def compiles_each_shape(subject: Subject) -> bool:
    """Whether the port is on JAX: each shape costs it a compilation."""
    array = subject.port.from_numpy(np.zeros(1), dtype=subject.dtype, device=subject.device)
    return type(array).__module__.partition(".")[0] in ("jax", "jaxlib")


def other_dtype(subject: Subject) -> Subject:
    """Return the same port in the dtype that it is not compared in."""
    return subject._replace(dtype=next(dtype for dtype in DTYPES if dtype != subject.dtype))


def call_in_other_dtype(subject: Subject, strategies: tuple[str, ...], seed: int) -> None:
    """Call a port in the dtype that it is not compared in: a constant that it makes once would be of that."""
    first = TRIALS[0]._replace(values=("drawn",))
    for _ in check_trial(other_dtype(subject), first, strategies, compiles_each_shape(subject), seed):
        pass


def check_trials(subject: Subject, strategies: tuple[str, ...], seed: int) -> Iterator[Agreement]:
    """Compare a port in all trials."""
    compiles = compiles_each_shape(subject)
    for trial in TRIALS:
        if not compiles or subject.dtype in dict(trial.compiled):
            yield from check_trial(subject, trial, strategies, compiles, seed)
    yield from check_many_samples(subject, seed)


def check_many_samples(subject: Subject, seed: int) -> Iterator[Agreement]:
    """Compare predictions, loss and accuracy of a whole data set."""
    problem, truth = _many_samples(subject.dtype, seed)
    shape = "x".join(map(str, MANY_SAMPLES))
    yield from (replace(row, problem=f"{shape}, drawn") for row in check_forward(subject, problem, truth=truth))


@cache
def _many_samples(dtype: str, seed: int) -> tuple[Problem, Truth]:
    problem = draw(MANY_SAMPLES, seed)
    return problem, Truth(problem, dtype)


def check_trial(
    subject: Subject, trial: Trial, strategies: tuple[str, ...], compiles: bool, seed: int
) -> Iterator[Agreement]:
    """Compare a port in one trial: the worst row of each quantity over all values."""
    if compiles:
        strategies = tuple(s for s in strategies if (subject.dtype, s) in trial.compiled)
    results: list[Any] = []
    kept: list[Any] = []
    worst: dict[Any, Agreement] = {}
    recorded = subject._replace(port=recording(subject.port, results))
    arguments, shape = None, "x".join(map(str, trial.shape))
    for n, (problem, h, value, truth) in enumerate(truths_of(trial, subject.dtype, seed)):
        arguments = place(recorded, problem, trial.layout, arguments)
        labels = LABELS[trial.labels](problem.t, trial.shape[3])
        at = odd_entries(problem.params, seed + n) if n or trial.sampled else None
        given = arguments._replace(t=labels)
        for row in _check_problem(recorded, problem, h, truth, given, trial.memory, strategies, at):
            key = row.strategy, row.quantity
            if key not in worst or (not row.agrees, row.ratio) > (not worst[key].agrees, worst[key].ratio):
                worst[key] = replace(row, problem=f"{shape}, {value}")
        if n % 2:
            spoil(results)
        else:
            kept += [(array, subject.port.to_numpy(array)) for array in results]
        results.clear()
    yield from worst.values()
    for row in check_forward_values(subject, forward_truths_of(trial, subject.dtype, seed)):
        yield replace(row, problem=f"{shape}, {row.problem}")
    yield replace(_check_kept(subject, kept), problem=shape)


@cache
def draw_problems(trial: Trial, seed: int) -> tuple[Problem, ...]:
    """Draw the problems of a trial: the first, and what the kinds of values make of it one after the other."""
    first = draw(trial.shape, seed, trial.max_abs_x)
    return tuple(accumulate(trial.values, lambda problem, kind: VALUES[kind](problem), initial=first))[1:]


@cache
def truths_of(trial: Trial, dtype: str, seed: int) -> tuple[tuple[Problem, Any, str, Truth], ...]:
    """Compute the results that every port must have in a trial, each with problem, h and the name of its values."""
    problems = draw_problems(trial, seed)
    tried = [(problem, trial.h, value) for problem, value in zip(problems, trial.values, strict=True)]
    if len(problems) > 1:
        tried.append((problems[0], ANOTHER_H * trial.h, "another h"))
    return tuple((*one, Truth(one[0], dtype, one[1])) for one in tried)


@cache
def forward_truths_of(trial: Trial, dtype: str, seed: int) -> tuple[tuple[Problem, str, Truth], ...]:
    """Compute the predictions, losses and accuracies of a trial's last net with further values."""
    return forward_truths(draw_problems(trial, seed)[-1], dtype)


def _check_problem(
    subject: Subject,
    problem: Problem,
    h: Any,
    truth: Truth,
    arguments: Arguments,
    memory: Any,
    strategies: tuple[str, ...],
    entries: Params | None,
) -> Iterator[Agreement]:
    yield from check_forward(subject, problem, arguments=arguments, truth=truth)
    yield from check_gradient(subject, problem, None, h, arguments=arguments, truth=truth)
    for strategy in strategies:
        if truth.is_comparable(strategy) and not (strategy == "collocated" and truth.is_handed_over):
            at = entries if strategy in ("loop", "batched") else None
            options: dict[str, Any] = {"arguments": arguments, "truth": truth, "memory": memory}
            yield from check_gradient(subject, problem, strategy, h, entries=at, **options)


def odd_entries(params: Params, seed: int) -> Params:
    """Choose a few entries, in no order, some of them twice, in two axes; none of b1."""
    rng = np.random.default_rng(seed)
    W1, _, W2, b2 = (rng.integers(0, p.size, (2, 9)) for p in params)
    W1[1, 0] = params.W1.size - 1
    return Params(W1, np.array([], np.int64), W2.astype(np.int32), b2[0, :3])


def _check_kept(subject: Subject, kept: list[Any]) -> Agreement:
    """Compare results with copies that were made when they were returned."""
    now = np.concatenate([subject.port.to_numpy(array).ravel() for array, _ in kept])
    before = np.concatenate([copy.ravel() for _, copy in kept])
    smallest = float(np.finfo(subject.dtype).tiny)
    return compare(subject, "results kept", now, before.astype(np.float64), smallest)
