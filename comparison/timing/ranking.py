"""From subjects to advice: the contenders that can be timed within the budget, and what their rounds say."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Outcome, Subject, disagreement_sentence
from comparison.timing.contenders import Candidate, MeasureStart, estimate, make_contender, plan_rounds
from comparison.timing.load import Load, LoadMeter
from comparison.timing.recommendation import Advice, Timing, advise, timings
from comparison.timing.rounds import Rounds, fewest_rounds, take_rounds
from comparison.timing.sentences import sentences
from comparison.timing.workloads import Contender, Task
from ports.registry import describe_error

Row = dict[str, Any]
Say = Callable[..., object]
"""Shows the current action: a text, its number, and how many there are."""


def _say_nothing(*_: object) -> None:
    pass


KEY = ("backend", "strategy", "dtype", "device")
"""Identifies a contender: its first four fields."""


class Field(NamedTuple):
    """The contenders that can be timed, and rows for all others."""

    contenders: list[Contender]
    excluded: list[Row]
    left_out: list[Row]
    task: Task
    comparisons: int  # intervals that shall hold together
    seconds: float  # that the rounds take at least, by the estimates
    preparation_s: float  # agreement, first calls, compilation and estimates
    data_only: Sequence[Row] = ()  # what was compared on the data only


def prepare(
    subjects: Iterable[Subject],
    strategies: Iterable[str],
    task: Task,
    budget: float,
    *,
    outcome: Outcome | None = None,
    start: MeasureStart | None = None,
    comparisons: int | None = None,
    say: Say = _say_nothing,
) -> Field:
    """Estimate one step of each contender that agrees, and set the clocks of those that fit into the budget.

    Parameters
    ----------
    subjects : iterable of Subject
    strategies : iterable of str
    task : Task
    budget : float
        Seconds of the rounds.
    outcome : Outcome, optional
        What disagrees in it is excluded.
    start : callable, optional
        Measures first calls; by default none are.
    comparisons : int, optional
        Intervals that shall hold together; by default those to the best.
    say : callable
        Shows the current action.
    """
    began = time.perf_counter()
    pairs = [(subject, strategy) for subject in subjects for strategy in strategies]
    excluded: list[Row] = []
    candidates: list[Candidate] = []
    for n, (subject, strategy) in enumerate(pairs, 1):
        key = (subject.name, strategy, subject.dtype, subject.device)
        say(f"first {task.call} of {subject.name} {subject.dtype} {strategy}, compilation included", n, len(pairs))
        if row := outcome and exclusion(key, outcome):
            excluded.append(row)
            continue
        try:
            candidates.append(estimate(subject, strategy, task, budget, start))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a port may fail in any way: it is excluded, and the exit code says so
            excluded.append(_excluded(key, f"crashed: {describe_error(error, subject.source)}"))
    comparisons = max(1, len(candidates) - 1) if comparisons is None else comparisons
    plan = plan_rounds(candidates, budget, comparisons)
    left_out = [{**dict(zip(KEY, c.key, strict=True)), "reason": reason} for c, reason in plan.left_out]
    contenders = []
    for n, planned in enumerate(plan.planned, 1):
        program = "gradient" if task.what == "gradient" else "train_steps"
        say(f"compiling {program} for {planned.candidate.name}", n, len(plan.planned))
        try:
            contenders.append(make_contender(planned, task, start))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # as above
            reason = f"crashed: {describe_error(error, planned.candidate.subject.source)}"
            excluded.append(_excluded(planned.candidate.key, reason))
    preparation_s = time.perf_counter() - began + (outcome.seconds if outcome else 0)
    data_only = outcome.data_only if outcome else ()
    return Field(contenders, excluded, left_out, task, comparisons, plan.seconds, preparation_s, data_only)


def _excluded(key: tuple[str, ...], reason: str, **more: Any) -> Row:
    return {**dict(zip(KEY, key, strict=True)), "quantity": None, "gap": None, "bound": None, "reason": reason, **more}


def exclusion(key: tuple[str, str, str, str], outcome: Outcome) -> Row | None:
    """Return the row that excludes the contender of this key: a crash, or its worst quantity that disagrees."""
    backend, strategy, dtype, device = key
    for crash in outcome.crashed:
        if (crash["backend"], crash["dtype"]) == (backend, dtype) and crash.get("strategy") in (None, strategy):
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
    """The timings, the contenders that were not timed, and the advice."""

    timings: list[Timing]
    excluded: list[Row]
    left_out: list[Row]
    not_run: list[dict[str, str]]
    advice: list[Advice]
    sentences: list[str]  # the advice on all dtypes together
    task: Task
    rounds: Rounds | None
    load: Load | None
    no_winner: str | None  # the reason, where none may be named
    seconds: float  # that the rounds took
    preparation_s: float
    data_only: Sequence[Row]  # what was compared on the data only

    def as_json(self) -> Row:
        """Return the ranking as JSON records it."""
        first, *others = [advice.as_json() for advice in self.advice] if self.advice else [None]
        sizes = sizes_of(self.task.problem)
        return {
            "speed": [timing.as_json(self.task.what) | {"sizes": sizes} for timing in self.timings],
            "excluded": self.excluded,
            "left_out": self.left_out,
            "not_run": self.not_run,
            "compared_on_data_only": list(self.data_only),
            "advice": first,
            "advice_for_other_dtypes": others,
            "sentences": self.sentences,
            "no_winner": self.no_winner,
            "load": self.load and self.load.as_json(),
            "timing_s": self.seconds,
            "preparation_s": self.preparation_s,
        }


def rank(field: Field, budget: float, seed: int, *, not_run: Sequence[dict[str, str]] = ()) -> Ranking:
    """Time the contenders for `budget` seconds, and rank them."""
    contenders, task = field.contenders, field.task
    began, meter = time.perf_counter(), LoadMeter()
    timed: list[Timing] = []
    rounds, load, no_winner = None, None, None
    if contenders:
        clocks, rng = [c.clock for c in contenders], np.random.default_rng(seed)
        rounds = take_rounds(clocks, budget, rng, comparisons=field.comparisons)
        load = meter.measure(rounds, [c.device.startswith("cpu") for c in contenders], one_process=task.what != "run")
        timed = timings(contenders, rounds)
        no_winner = _reason_for_no_winner(load, len(rounds.seconds), field.comparisons)
    sizes = sizes_in_words(task.problem)
    advice = advise(timed, task, sizes, no_winner)
    seconds = time.perf_counter() - began
    missing = (field.excluded, field.left_out, list(not_run))
    said = sentences(advice, timed, task, sizes)
    costs = (seconds, field.preparation_s)
    return Ranking(timed, *missing, advice, said, task, rounds, load, no_winner, *costs, field.data_only)


def _reason_for_no_winner(load: Load, rounds: int, comparisons: int) -> str | None:
    if load.is_busy:
        return load.sentence
    fewest = fewest_rounds(comparisons)
    if rounds < fewest:
        return (
            f"No winner is named: --budget was spent after {rounds} rounds, and it takes {fewest} to tell contenders "
            "apart. Give it more, or time fewer."
        )
    return None


def sizes_of(problem: Problem) -> dict[str, int]:
    """Return the sizes of a net and its batch."""
    inputs, hidden = problem.params.W1.shape
    return {"inputs": inputs, "hidden": hidden, "outputs": len(problem.params.b2), "batch": len(problem.t)}


def sizes_in_words(problem: Problem) -> str:
    """Return the same sizes in words, such as "64-50-10 and batches of 100"."""
    sizes = sizes_of(problem)
    return f"{sizes['inputs']}-{sizes['hidden']}-{sizes['outputs']} and batches of {sizes['batch']}"
