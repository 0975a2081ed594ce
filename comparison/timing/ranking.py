"""From subjects to advice: first calls, the contenders that are excluded from timing, and what the timings say."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Outcome, Subject, disagreement_sentence
from comparison.timing.recommendation import Advice, Timing, advise, timings
from comparison.timing.rounds import take_rounds
from comparison.timing.workloads import Contender, Task, make_contender
from ports.registry import describe_error

Row = dict[str, Any]
KEY = ("backend", "strategy", "dtype", "device")
"""Identifies a contender: its first four fields."""


class FirstCalls(NamedTuple):
    """The contenders whose first call was made, and rows for those that can't be timed."""

    contenders: list[Contender]
    excluded: list[Row]
    not_run: list[dict[str, str]]
    task: Task


def make_first_calls(subjects: Iterable[Subject], strategies: Iterable[str], task: Task) -> FirstCalls:
    """Make the first call of each: it must come before anything else has compiled the same."""
    calls = FirstCalls([], [], [], task)
    strategies = tuple(strategies)
    for subject in subjects:
        for strategy in strategies:
            try:
                calls.contenders.append(make_contender(subject, strategy, task))
            except Exception as error:  # a port may fail in any way: it is excluded, and the exit code says so
                key = (subject.name, strategy, subject.dtype, subject.device)
                calls.excluded.append(_excluded(key, f"crashed: {describe_error(error, subject.source)}"))
    return calls


def _excluded(key: tuple[str, ...], reason: str, **more: Any) -> Row:
    return {**dict(zip(KEY, key, strict=True)), "quantity": None, "gap": None, "bound": None, "reason": reason, **more}


def exclude_wrong(calls: FirstCalls, outcome: Outcome) -> FirstCalls:
    """Exclude the contenders that disagree with the reference, or crashed in the comparison."""
    wrong = [row for c in calls.contenders if (row := exclusion(c[:4], outcome))]
    keys = {tuple(row[name] for name in KEY) for row in wrong}
    return calls._replace(
        contenders=[c for c in calls.contenders if c[:4] not in keys],
        excluded=calls.excluded + wrong,
        not_run=outcome.not_run + calls.not_run,
    )


def exclusion(key: tuple[str, str, str, str], outcome: Outcome) -> Row | None:
    """Return the row that excludes the contender of this key: a crash, or its worst quantity that disagrees."""
    backend, strategy, dtype, device = key
    for crash in outcome.crashed:
        if (crash["backend"], crash["dtype"]) == (backend, dtype):
            return _excluded(key, f"crashed: {crash['reason']}")
    wrong = [
        row
        for row in outcome.rows
        if not row.agrees
        and (row.backend, row.dtype, row.device) == (backend, dtype, device)
        and row.strategy in (None, strategy)
    ]
    if not wrong:
        return None
    worst = max(wrong, key=lambda row: row.ratio)
    more = {"quantity": worst.quantity, "gap": worst.gap, "bound": worst.bound}
    return _excluded(key, disagreement_sentence(worst).split(": ", 1)[1], **more)


class Ranking(NamedTuple):
    """The timings, the contenders that were excluded, and the advice."""

    timings: list[Timing]
    excluded: list[Row]
    not_run: list[dict[str, str]]
    advice: list[Advice]
    task: Task

    def as_json(self) -> Row:
        """Return the ranking as JSON records it."""
        first, *others = [advice.as_json() for advice in self.advice] if self.advice else [None]
        sizes = sizes_of(self.task.problem)
        return {
            "speed": [timing.as_json(self.task.what) | {"sizes": sizes} for timing in self.timings],
            "excluded": self.excluded,
            "not_run": self.not_run,
            "advice": first,
            "advice_for_other_dtypes": others,
        }


def rank(calls: FirstCalls, budget: float, seed: int) -> Ranking:
    """Time the contenders for `budget` seconds, and rank them."""
    contenders, task = calls.contenders, calls.task
    timed: list[Timing] = []
    if contenders:
        rounds = take_rounds([c.clock for c in contenders], budget, np.random.default_rng(seed))
        timed = timings(contenders, rounds)
    advice = advise(timed, task.what, sizes_in_words(task.problem))
    return Ranking(timed, calls.excluded, calls.not_run, advice, task)


def sizes_of(problem: Problem) -> dict[str, int]:
    """Return the sizes of a net and its batch."""
    inputs, hidden = problem.params.W1.shape
    return {"inputs": inputs, "hidden": hidden, "outputs": len(problem.params.b2), "batch": len(problem.t)}


def sizes_in_words(problem: Problem) -> str:
    """Return the same sizes in words, such as "64-50-10 and batches of 100"."""
    sizes = sizes_of(problem)
    return f"{sizes['inputs']}-{sizes['hidden']}-{sizes['outputs']} and batches of {sizes['batch']}"
