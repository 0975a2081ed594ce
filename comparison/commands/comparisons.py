"""Comparisons of subjects, side by side in processes where there are cores for it; a crash is recorded."""

from __future__ import annotations

import os
import sys
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any

import ports
from comparison.commands import processes
from comparison.commands.compilation_cache import ignore_cache_errors
from comparison.worker_processes import worker_processes
from ports.registry import describe_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from multiprocessing.connection import Connection

    from comparison.agreement.bounds import Problem
    from comparison.agreement.comparison import Agreement, NotCompared, Subject
    from comparison.agreement.slow_ports import DataOnly

    Row = Agreement | NotCompared | DataOnly
    Crash = dict[str, Any]
    Check = Callable[[Subject, Problem, tuple[str, ...]], Iterable[Row]]
    Show = Callable[[int, str], object]  # how many subjects have been compared, and what is being compared
    Attempt = Callable[[tuple[str, ...]], tuple[list[Row], str | None]]

MOST_PROCESSES = 3
"""More would gain nothing: JAX in one dtype takes as long as NumPy and PyTorch in both."""
QUICK = ("numpy", "torch")
"""Backends that are compared last: what may take longest begins first."""
ENDED = "its process ended, as by a segmentation fault, an exit or a lack of memory"


def compare_subjects(
    check: Check,
    subjects: Sequence[Subject],
    problem: Problem,
    strategies: tuple[str, ...],
    show: Show,
    *,
    side_by_side: bool,
) -> list[list[Row | Crash]]:
    """Return the rows of each subject, in their order; an error that `check` raises is recorded as a crash.

    With `side_by_side` each is compared in a process of its own, several at once, unless they are ranks, which act
    together, or share a GPU.
    """
    count = min(len(subjects), MOST_PROCESSES, _cores())
    if side_by_side and count > 1 and processes.count() == 1 and {subject.device for subject in subjects} == {"cpu"}:
        return _compare_side_by_side(count, check, subjects, problem, strategies, show)
    results = []
    for n, subject in enumerate(subjects):
        shown = partial(_shown, partial(show, n), check)
        with one_thread():
            results.append(compare_subject(partial(attempt, shown, subject, problem), subject, strategies))
    return results


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch, if it is loaded, use one thread: for small nets its threads only wait, on the processor."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    try:
        if torch:
            torch.set_num_threads(1)
        yield
    finally:
        if torch:
            torch.set_num_threads(before)


def compare_subject(attempt: Attempt, subject: Subject, strategies: tuple[str, ...]) -> list[Row | Crash]:
    """Compare a subject; if it crashes, compare once more without strategies, and then each strategy by itself.

    So a crash costs the rows of one strategy and no others. Where several ranks take part they would lose each other.
    """
    rows, reason = attempt(strategies)
    if reason is None:
        return [*rows]
    if processes.count() > 1:
        return [*rows, _crash(subject, None, reason)]
    rows, forward_reason = attempt(())
    if forward_reason is not None:  # each strategy would crash by it
        return [*rows, _crash(subject, None, forward_reason)]
    crashes = 0
    results: list[Row | Crash] = [*rows]
    for strategy in strategies:
        own, own_reason = attempt((strategy,))
        results += [row for row in own if row.strategy == strategy]
        if own_reason is not None:
            results.append(_crash(subject, strategy, own_reason))
            crashes += 1
    return results if crashes else [*results, _crash(subject, None, reason)]  # only all together: still a crash


def _crash(subject: Subject, strategy: str | None, reason: str) -> Crash:
    return {"backend": subject.name, "dtype": subject.dtype, "strategy": strategy, "reason": reason}


def attempt(
    check: Check, subject: Subject, problem: Problem, strategies: tuple[str, ...]
) -> tuple[list[Row], str | None]:
    """Return the rows of a subject up to an error, and its description, None if there is none."""
    rows: list[Row] = []
    try:
        rows.extend(check(subject, problem, strategies))
    except BaseException as error:  # a port may fail in any way: it is reported, and the exit code says so
        if processes.ends_all(error):
            raise
        return rows, describe_error(error, subject.source)
    return rows, None


def _shown(say: Callable[[str], object], check: Check, subject: Subject, *args: Any) -> Iterator[Row]:
    """Compare a subject, and show whose quantities are being compared."""
    name = f"{subject.name} {subject.dtype}"
    say(name)
    for row in check(subject, *args):
        say(f"{name} {row.strategy or 'forward'}")
        yield row


# --- in several processes


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _compare_side_by_side(
    count: int, check: Check, subjects: Sequence[Subject], problem: Problem, strategies: tuple[str, ...], show: Show
) -> list[list[Row | Crash]]:
    """Compare the subjects in `count` processes, then those whose process ended, each attempt in one of its own."""
    last_quick = sorted(range(len(subjects)), key=lambda n: subjects[n].name in QUICK)
    calls = [(_compare_in_worker, check, _portable(subjects[n]), problem, strategies) for n in last_quick]
    futures = dict(zip(last_quick, _call_in_workers(count, calls, show), strict=True))
    results = []
    for n, subject in enumerate(subjects):
        try:
            results.append(futures[n].result())
        except BrokenProcessPool:
            alone = partial(_attempt_in_a_process, partial(show, n), check, subject, problem)
            results.append(compare_subject(alone, subject, strategies))
    return results


def _attempt_in_a_process(
    say: Callable[[str], object], check: Check, subject: Subject, problem: Problem, strategies: tuple[str, ...]
) -> tuple[list[Row], str | None]:
    call = _attempt_in_worker, check, _portable(subject), problem, strategies
    [future] = _call_in_workers(1, [call], lambda _, what: say(what))
    try:
        result: tuple[list[Row], str | None] = future.result()
    except BrokenProcessPool:
        return [], ENDED
    return result


def _portable(subject: Subject) -> Subject:
    """Return the subject without its port, which can't be pickled."""
    return subject._replace(port=None)  # type: ignore[arg-type]


def _call_in_workers(count: int, calls: Sequence[tuple[Any, ...]], show: Show) -> list[Future[Any]]:
    """Call functions in up to `count` processes, and show what these do until all calls have ended."""
    updates, writer = Pipe(duplex=False)
    with updates, writer, worker_processes(count, _prepare_worker, writer) as submit:
        futures = [submit(*call) for call in calls]
        unfinished, running = set(futures), dict[int, str]()
        while unfinished:
            _, unfinished = wait(unfinished, 0.1, FIRST_COMPLETED)
            while updates.poll():
                process, text = updates.recv()
                running[process] = text
            show(len(calls) - len(unfinished), "; ".join(filter(None, running.values())))
    return futures


_updates: Connection
"""Where a worker sends what it does."""


def _prepare_worker(updates: Connection) -> None:
    global _updates
    _updates = updates
    with suppress(OSError):
        os.dup2(2, 1)  # stdout is the command's
    ignore_cache_errors()


def _say(text: str) -> None:
    _updates.send((os.getpid(), text))  # so short that a pipe takes it whole, though several processes send


def _compare_in_worker(
    check: Check, subject: Subject, problem: Problem, strategies: tuple[str, ...]
) -> list[Row | Crash]:
    with _loaded(subject) as loaded:
        return compare_subject(partial(attempt, partial(_shown, _say, check), loaded, problem), loaded, strategies)


def _attempt_in_worker(
    check: Check, subject: Subject, problem: Problem, strategies: tuple[str, ...]
) -> tuple[list[Row], str | None]:
    with _loaded(subject) as loaded:
        return attempt(partial(_shown, _say, check), loaded, problem, strategies)


@contextmanager
def _loaded(subject: Subject) -> Iterator[Subject]:
    """Load the port of a subject, and let it use one thread."""
    loaded = subject._replace(port=ports.load(subject.source or subject.name))
    with one_thread():
        yield loaded
    _say("")
