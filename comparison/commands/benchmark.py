"""What the commands that time share: their options, the process that they run in, first calls, rounds and the table."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from comparison.commands import AGREES, CRASHED
from comparison.commands.output import make_console, print_sentences, status

if TYPE_CHECKING:
    from comparison.agreement.bounds import Problem
    from comparison.agreement.comparison import Outcome, Subject
    from comparison.commands.options import TimingOptions
    from comparison.timing.ranking import FirstCalls, Ranking
    from comparison.timing.workloads import Task
    from reference.datasets import Dataset

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def add_timing(parser: argparse.ArgumentParser, *, budget: float, peer: bool = False) -> None:
    """Add the options of a timing; with `peer`, the default of --what depends on that option."""
    add = parser.add_argument
    what, default = "a gradient, a training step, or a whole run, compilation included", "step"
    if peer:
        what, default = f"{what} (default: step; gradient with --peer)", argparse.SUPPRESS
    add("--what", choices=("gradient", "step", "run"), default=default, help=what)
    add("--iterations", metavar="N", type=int, default=10_000, help="steps of a run")
    add_budget(parser, budget, "time of the rounds, without first calls")


def add_budget(parser: argparse.ArgumentParser, seconds: float, help: str) -> None:
    """Add the options of how long a timing takes, and on how many cores."""
    add = parser.add_argument
    add("--budget", metavar="SECONDS", type=float, default=seconds, help=help)
    add("--threads", metavar="N", type=int, help="cores for each backend (default: all that the process may use)")


def check_timing(options: TimingOptions) -> None:
    """Raise ValueError for options that can't be timed."""
    from reference.training import MAX_ITERATIONS

    check_budget(options.budget)
    if options.iterations < 1:
        raise ValueError(f"`iterations` must be at least 1, got {options.iterations}.")
    if options.iterations > MAX_ITERATIONS:
        raise ValueError(f"`iterations` must be at most {MAX_ITERATIONS:,}, got {options.iterations}.")
    if options.devices not in (None, 1) and options.what == "run":
        raise ValueError("`what` must be gradient or step with --devices, got run.")


def check_budget(seconds: float) -> None:
    """Raise ValueError unless this time is positive and finite."""
    if not 0 < seconds < float("inf"):
        raise ValueError(f"`budget` must be positive and finite, got {seconds}.")


def prepare_process(threads: int | None) -> None:
    """Set the environment that frameworks read as they are imported."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # other programs need the GPU's memory too
    if threads is not None:
        _limit_threads(threads)


class RestartNeeded(Exception):  # noqa: N818, no error
    """The command must run in a new process, with this environment."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment


def _limit_threads(count: int) -> None:
    """Use `count` cores, in a process that began with this number: libraries count cores as they are loaded."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if not 1 <= count <= len(cores):
        raise ValueError(f"`threads` must be from 1 to {len(cores)}, the cores of this process, got {count}.")
    if os.environ.get("FDNET_THREADS") != str(count):
        raise RestartNeeded(os.environ | dict.fromkeys((*THREAD_VARIABLES, "FDNET_THREADS"), str(count)))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores[:count])


def make_task(options: TimingOptions, problem: Problem, data: Dataset) -> Task:
    """Return the task of the options."""
    from comparison.timing.workloads import Task

    source, iterations, seed = options.data, options.iterations, options.seed
    return Task(options.what, problem, data, source, options.h, options.memory, iterations, seed)


def make_first_calls(options: TimingOptions, subjects: list[Subject], task: Task, *, peer: bool = False) -> FirstCalls:
    """Make the first call of each subject and strategy; with `peer`, also of other libraries."""
    from comparison.timing import ranking
    from comparison.timing.other_libraries import make_library_contenders

    with status("first calls", quiet=options.quiet):
        calls = ranking.make_first_calls(subjects, options.strategy, task)
        contenders, not_run = make_library_contenders(task, options.budget / 5) if peer else ([], [])
    return calls._replace(contenders=calls.contenders + contenders, not_run=calls.not_run + not_run)


def rank_agreeing(options: TimingOptions, calls: FirstCalls, outcome: Outcome) -> Ranking:
    """Time the contenders that agree with the reference, and rank them."""
    from comparison.timing.ranking import exclude_wrong, rank

    calls = exclude_wrong(calls, outcome)
    text = f"timing {len(calls.contenders)} contenders for up to {options.budget:g} s"
    with status(text, quiet=options.quiet):
        return rank(calls, options.budget, options.seed)


def crash_code(calls: FirstCalls) -> int:
    """Return the exit code of the first calls."""
    return CRASHED if calls.excluded else AGREES


def print_ranking(options: TimingOptions, ranking: Ranking) -> None:
    """Print the table and the advice."""
    from comparison.report.timing_tables import break_even_table, missing_notes, speed_notes, speed_table
    from comparison.timing.ranking import sizes_in_words

    console, timings = make_console(), ranking.timings
    what = {"gradient": "a gradient", "step": "a training step", "run": f"a run of {options.iterations:,} steps"}
    sizes, rounds = sizes_in_words(ranking.task.problem), timings[0].rounds if timings else 0
    print_sentences(console, f"{what[options.what]}, {options.data}, {sizes}, {rounds} rounds in random order")
    if timings:
        console.print(speed_table(timings, console.width))
    print_sentences(console, *speed_notes(timings), *missing_notes(ranking.excluded, ranking.not_run))
    print_sentences(console, *(f"\n{advice.sentence}" for advice in ranking.advice))
    if table := break_even_table(advice.as_json() for advice in ranking.advice):
        console.print(table)
