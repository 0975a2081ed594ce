"""What a subject is compared in: the user's data, then trials and trainings of nets of other sizes."""

from collections.abc import Iterator

import numpy as np

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import (
    Agreement,
    NotCompared,
    Subject,
    check_forward,
    check_gradient,
    compare,
    sample_entries,
)
from comparison.agreement.slow_ports import DataOnly, check_data_training, seconds_of_other_nets
from comparison.agreement.training import check_trainings
from comparison.agreement.trials import call_in_other_dtype, check_trials
from comparison.agreement.truth import Truth
from reference.defaults import CLOSED_FORM

SECOND_H = 1e-2
"""Rounding of the losses weighs a hundredth of what it does at 1e-4, truncation ten thousand times as much."""


def check_subject(
    subject: Subject, problem: Problem, strategies: tuple[str, ...], *, h: float, memory: float, seed: int
) -> Iterator[Agreement | NotCompared]:
    """Compare everything about one subject: copies, the data, then trials and trainings of other nets."""
    yield from check_copies(subject, problem.x)
    call_in_other_dtype(subject, strategies, seed)
    yield from check_data(subject, problem, strategies, h=h, memory=memory, seed=seed)
    yield from check_trials(subject, strategies, seed)
    yield from check_trainings(subject, strategies, seed)


def check_subject_in_time(
    subject: Subject,
    problem: Problem,
    strategies: tuple[str, ...],
    *,
    limit: float,
    h: float,
    memory: float,
    seed: int,
) -> Iterator[Agreement | NotCompared | DataOnly]:
    """Compare everything, or only copies and the data where the port would take over `limit` seconds on other nets."""
    seconds = seconds_of_other_nets(subject, strategies, seed, limit)
    if seconds <= limit:
        yield from check_subject(subject, problem, strategies, h=h, memory=memory, seed=seed)
        return
    yield DataOnly(subject.name, subject.dtype, seconds)
    yield from check_copies(subject, problem.x)
    yield from check_data(subject, problem, strategies, h=h, memory=memory, seed=seed)
    yield from check_data_training(subject, problem, strategies, h=h, memory=memory)


def check_data(
    subject: Subject, problem: Problem, strategies: tuple[str, ...], *, h: float, memory: float, seed: int
) -> Iterator[Agreement | NotCompared]:
    """Compare forward quantities and each gradient on the data, `loop` and `batched` at a sample of entries.

    Where rounding outweighs their difference, SECOND_H takes the place of `h`.
    """
    entries, truth = sample_entries(problem.params, len(problem.x), seed), Truth(problem, subject.dtype, h)
    yield from check_forward(subject, problem, truth=truth)
    yield from check_gradient(subject, problem, None, h, truth=truth)
    for strategy in strategies:
        at = entries if strategy in ("loop", "batched") else None
        if truth.is_comparable(strategy):
            yield from check_gradient(subject, problem, strategy, h, truth=truth, memory=memory, entries=at)
        else:
            reason = f"rounding of two {subject.dtype} losses outweighs their difference."
            yield NotCompared(subject.name, strategy, subject.dtype, h, reason)
            yield from check_gradient(subject, problem, strategy, SECOND_H, memory=memory, entries=at)


def check_data_only(
    subject: Subject, problem: Problem, strategies: tuple[str, ...], *, h: float, memory: float, seed: int
) -> Iterator[Agreement | NotCompared]:
    """Compare the data only: a short look at another size of net, which leaves out what can't be compared at `h`."""
    rows = check_data(subject, problem, strategies, h=h, memory=memory, seed=seed)
    return (row for row in rows if isinstance(row, Agreement) and row.strategy != CLOSED_FORM)


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
