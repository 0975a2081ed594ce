"""From subjects to advice: the contenders, what bars them from being timed, and what the timings say."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

from comparison.commands import AGREES, CRASHED
from comparison.commands.options import STRATEGIES
from comparison.commands.output import waiting, where

if TYPE_CHECKING:
    from comparison.agreement.comparison import Outcome, Problem, Subject
    from comparison.timing.recommendation import Advice, Timing
    from comparison.timing.workloads import Contender, Task
    from reference.datasets import Dataset


class Made(NamedTuple):
    """The contenders, and what could not be one."""

    contenders: list[Contender]
    barred: list[dict[str, Any]]
    not_run: list[dict[str, str]]
    task: Task

    @property
    def exit_code(self) -> int:
        """Return what crashed first calls end with."""
        return CRASHED if self.barred else AGREES


def contenders(args: argparse.Namespace, data: Dataset, net: Problem, found: list[Subject]) -> Made:
    """Make the first call of each: it must come before anything else has compiled the same."""
    from comparison.timing.other_libraries import peers
    from comparison.timing.workloads import Task, contender

    task = Task(args.what, net, data, args.data, args.step, args.chunk_memory, args.iterations, args.seed)
    made = Made([], [], [], task)
    with waiting("first calls", args.quiet):
        for subject in found:
            for strategy in args.strategy:
                try:
                    made.contenders.append(contender(subject, strategy, task))
                except Exception as error:  # a port may fail in any way: it is barred, and the exit code says so
                    key = (subject.name, strategy, subject.dtype, subject.device)
                    made.barred.append(_barred(key, f"crashed: {where(error)}"))
        if getattr(args, "peer", False):
            more, not_run = peers(task, args.budget / 5)
            made.contenders.extend(more)
            made.not_run.extend(not_run)
    return made


KEY = ("backend", "strategy", "dtype", "device")
"""What tells contenders apart: their first four fields."""


def _barred(key: tuple[str, ...], reason: str, **more: Any) -> dict[str, Any]:
    return {**dict(zip(KEY, key, strict=True)), "quantity": None, "gap": None, "bound": None, "reason": reason, **more}


def agreeing(args: argparse.Namespace) -> argparse.Namespace:
    """Return the options for the comparison."""
    return argparse.Namespace(**vars(args) | {"strategy": tuple(s for s in STRATEGIES if s in args.strategy)})


class Ranking(NamedTuple):
    """The timings, what was barred from them, and the advice drawn."""

    timings: list[Timing]
    barred: list[dict[str, Any]]
    not_run: list[dict[str, str]]
    advice: list[Advice]

    def as_json(self, args: argparse.Namespace, net: Problem) -> dict[str, Any]:
        """Return what JSON records."""
        first, *others = [advice.as_json() for advice in self.advice] if self.advice else [None]
        return {
            "speed": [timing.as_json(args.what) | {"sizes": sizes_of(net)} for timing in self.timings],
            "barred": self.barred,
            "not_run": self.not_run,
            "advice": first,
            "advice_for_other_dtypes": others,
        }


def rank(args: argparse.Namespace, made: Made, outcome: Outcome) -> Ranking:
    """Time those that agree."""
    import numpy as np

    from comparison.timing.recommendation import advise, timings
    from comparison.timing.rounds import take_rounds

    barred = made.barred + [row for c in made.contenders if (row := disagreement(c[:4], outcome))]
    out = {tuple(row[key] for key in KEY) for row in barred}
    running = [c for c in made.contenders if c[:4] not in out]
    found: list[Timing] = []
    if running:
        with waiting(f"timing {len(running)} contenders for up to {args.budget:g} s", args.quiet):
            rounds = take_rounds([c.clock for c in running], args.budget, np.random.default_rng(args.seed))
        found = timings(running, rounds)
    advice = advise(found, args.what, sizes_in_words(made.task.problem))
    return Ranking(found, barred, outcome.not_run + made.not_run, advice)


def disagreement(key: tuple[str, str, str, str], outcome: Outcome) -> dict[str, Any] | None:
    """Return the row that bars what `key` names from being timed: its worst quantity that disagrees, or a crash."""
    backend, strategy, dtype, device = key
    for crash in outcome.crashed:
        if (crash["backend"], crash["dtype"]) == (backend, dtype):
            return _barred(key, f"crashed: {crash['reason']}")
    wrong = [
        row
        for row in outcome.rows
        if not row.agrees
        and (row.backend, row.dtype, row.device) == (backend, dtype, device)
        and row.strategy in (None, strategy)
    ]
    if not wrong:
        return None
    from comparison.report.agreement_tables import disagreement_sentence

    worst = max(wrong, key=lambda row: row.ratio)
    more = {"quantity": worst.quantity, "gap": worst.gap, "bound": worst.bound}
    return _barred(key, disagreement_sentence(worst).split(": ", 1)[1], **more)


def sizes_of(net: Problem) -> dict[str, int]:
    """Return the sizes of a net and its batch."""
    inputs, hidden = net.params.W1.shape
    return {"inputs": inputs, "hidden": hidden, "outputs": len(net.params.b2), "batch": len(net.t)}


def sizes_in_words(net: Problem) -> str:
    """Return the same as a user says it."""
    found = sizes_of(net)
    return f"{found['inputs']}-{found['hidden']}-{found['outputs']} and batches of {found['batch']}"
