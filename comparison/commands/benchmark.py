"""What the commands that time share: their options, the process that they run in, first calls, rounds and the table."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES, CRASHED, processes
from comparison.commands.options import add_threads
from comparison.commands.output import make_console, print_sentences, status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comparison.agreement.bounds import Problem
    from comparison.agreement.comparison import Outcome, Subject
    from comparison.commands.options import TimingOptions
    from comparison.timing.ranking import Field, Ranking
    from comparison.timing.workloads import Task
    from reference.datasets import Dataset

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def add_timing(parser: argparse.ArgumentParser, *, budget: float, peer: bool = False) -> None:
    """Add the options of a timing; with `peer`, the default of --what depends on that option."""
    add = parser.add_argument
    what, default = "a gradient, a training step, or a whole run from nothing, evaluation included", "step"
    if peer:
        what, default = f"{what} (default: step; gradient with --peer)", argparse.SUPPRESS
    add("--what", choices=("gradient", "step", "run"), default=default, help=what)
    add("--iterations", metavar="N", type=int, default=10_000, help="steps of the run that the advice is for")
    add_budget(parser, budget, "time of the timing; agreement, first calls and compilation come before it")


def add_budget(parser: argparse.ArgumentParser, seconds: float, help: str) -> None:
    """Add the options of how long a timing takes, and on how many cores."""
    parser.add_argument("--budget", metavar="SECONDS", type=float, default=seconds, help=help)
    add_threads(parser)


def check_timing(options: TimingOptions) -> None:
    """Raise ValueError for options that can't be timed."""
    check_budget(options.budget)
    check_iterations(options.iterations)
    if options.devices not in (None, 1) and options.what == "run":
        raise ValueError("`what` must be gradient or step with --devices, got run.")


def check_iterations(count: int) -> None:
    """Raise ValueError unless a run can have this number of steps."""
    from reference.training import MAX_ITERATIONS

    if count < 1:
        raise ValueError(f"`iterations` must be at least 1, got {count}.")
    if count > MAX_ITERATIONS:
        raise ValueError(f"`iterations` must be at most {MAX_ITERATIONS:,}, got {count}.")


def check_budget(seconds: float) -> None:
    """Raise ValueError unless this time is positive and finite."""
    if not 0 < seconds < float("inf"):
        raise ValueError(f"`budget` must be positive and finite, got {seconds}.")


def prepare_process(threads: int | None) -> None:
    """Set the environment that frameworks read as they are imported."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # other programs need the GPU's memory too
    if threads is not None and processes.count() > 1:
        raise ValueError(f"`threads` must be left to OMP_NUM_THREADS in ranks of torchrun, got {threads}.")
    if threads is not None:
        _limit_threads(threads)


class RestartNeeded(Exception):  # noqa: N818, no error
    """The command must run in a new process, with this environment."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment


def check_threads(count: int | None) -> None:
    """Raise ValueError unless this process has so many cores."""
    cores = len(_cores())
    if count is not None and not 1 <= count <= cores:
        raise ValueError(f"`threads` must be from 1 to {cores}, the cores of this process, got {count}.")


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _limit_threads(count: int) -> None:
    """Use `count` cores, in a process that began with this number: libraries count cores as they are loaded."""
    check_threads(count)
    if os.environ.get("FDNET_THREADS") != str(count):
        raise RestartNeeded(os.environ | dict.fromkeys((*THREAD_VARIABLES, "FDNET_THREADS"), str(count)))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, _cores()[:count])


def make_task(options: TimingOptions, problem: Problem, data: Dataset, *, redrawn: bool = False) -> Task:
    """Return the task of the options; `redrawn` tells that the data are not as they are loaded."""
    from comparison.commands.subjects import data_loader
    from comparison.timing.workloads import Task

    load, iterations, seed = data_loader(options), options.iterations, options.seed
    return Task(options.what, problem, data, load, options.h, options.memory, iterations, seed, redrawn)


def prepare(
    options: TimingOptions, subjects: Sequence[Subject], task: Task, outcome: Outcome | None, **more: Any
) -> Field:
    """Estimate and compile what agrees and fits into the budget; `more` goes to `comparison.timing.ranking.prepare`."""
    from comparison.timing import ranking

    with status("first steps", quiet=options.quiet) as say:
        return ranking.prepare(subjects, options.strategy, task, options.budget, outcome=outcome, say=say, **more)


def time_and_rank(options: TimingOptions, field: Field, not_run: Sequence[dict[str, str]] = ()) -> Ranking:
    """Time the contenders, and rank them; how long it will take is said before."""
    from comparison.timing.ranking import rank
    from comparison.timing.sentences import duration

    count = len(field.contenders)
    who = "1 contender" if count == 1 else f"{count} contenders in turns"
    most = duration(max(field.seconds, options.budget))
    with status(f"timing {who}, {most} at most", quiet=options.quiet):
        return rank(field, options.budget, options.seed, not_run=not_run)


def crash_code(field: Field) -> int:
    """Return the exit code of the first calls."""
    return CRASHED if any(row["quantity"] is None for row in field.excluded) else AGREES


def print_ranking(options: TimingOptions, ranking: Ranking) -> None:
    """Print the table and the advice."""
    from comparison.report.agreement_tables import headings
    from comparison.report.timing_tables import (
        break_even_table,
        data_only_notes,
        missing_notes,
        speed_notes,
        speed_table,
    )
    from comparison.timing.ranking import sizes_in_words
    from comparison.timing.sentences import duration

    console, timings = make_console(), ranking.timings
    steps = "1 step" if options.iterations == 1 else f"{options.iterations:,} steps"
    what = {"gradient": "a gradient", "step": "a training step", "run": f"a run of {steps}"}
    sizes, rounds = sizes_in_words(ranking.task.problem), timings[0].rounds if timings else 0
    print_sentences(console, f"{what[options.what]}, {options.data}, {sizes}, {rounds} rounds in random order")
    table = speed_table(timings, console.width)
    if timings:
        console.print(table)
    missing = missing_notes(ranking.excluded, ranking.not_run, ranking.left_out)
    took = (
        f"The timing took {duration(ranking.seconds)} of --budget {options.budget:g}, after "
        f"{duration(ranking.preparation_s)} for agreement, first calls and compilation."
    )
    notes = (*speed_notes(timings, headings(table)), *data_only_notes(ranking.data_only), *missing)
    print_sentences(console, *notes, took)
    print_sentences(console, "")
    print_sentences(console, *ranking.sentences, style="bold")
    if totals := break_even_table(advice.as_json() for advice in ranking.advice):
        print_sentences(console, "")
        console.print(totals)
