"""Comparisons of subjects, side by side in processes where there are cores for it; a crash is recorded."""

from __future__ import annotations

import gc
import os
import sys
from collections import deque
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing import Pipe, parent_process
from typing import TYPE_CHECKING, Any

import ports
from comparison.commands import processes
from comparison.commands.compilation_cache import ignore_cache_errors
from comparison.timing.load import usable_cores
from comparison.worker_processes import NoProcessError, worker_process
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
    Say = Callable[[str], object]  # what is being compared
    Show = Callable[[int, str], object]  # how many subjects have been, and what is being compared
    Attempt = Callable[[tuple[str, ...]], tuple[list[Row], str | None]]  # from strategies

MOST_PROCESSES = 3
"""More would gain nothing: JAX in one dtype takes as long as NumPy and PyTorch in both."""
QUICK = ("numpy", "torch")
"""Backends that are compared last: what may take longest is started first."""
SHOW_SECONDS = 0.1
"""Seconds between two updates of what is shown."""
ENDED = "its process ended (a segmentation fault, an exit, or too little memory)"


class NotLoadedError(Exception):
    """A port can't be loaded in a worker, although the command has loaded it."""


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

    With `side_by_side` each is compared in a process of its own, several at once. They are compared here, one after the
    other, if processes can't be started, in ranks, which act together, on a GPU, which they would share, and in a
    process that was itself started by another.
    """
    count = min(len(subjects), MOST_PROCESSES, usable_cores())
    shared = processes.count() > 1 or {subject.device for subject in subjects} != {"cpu"}
    if side_by_side and count > 1 and not shared and parent_process() is None:
        with suppress(NoProcessError):
            return _compare_side_by_side(count, check, subjects, problem, strategies, show)
    return [_compare_here(partial(show, n), check, subject, problem, strategies) for n, subject in enumerate(subjects)]


def _compare_here(
    say: Say, check: Check, subject: Subject, problem: Problem, strategies: tuple[str, ...]
) -> list[Row | Crash]:
    with undisturbed():
        return _compare(partial(_shown, say, check), subject, problem, strategies)


def _compare(check: Check, subject: Subject, problem: Problem, strategies: tuple[str, ...]) -> list[Row | Crash]:
    return _isolate_crashes(partial(_rows_and_reason, check, subject, problem), subject, strategies)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep from a comparison what would only cost it time.

    PyTorch, if it is loaded, uses one thread: for small nets its threads only wait, on the processor. The garbage
    collector skips what the imports have left behind: it would go through that again and again while JAX traces. What
    the caller has frozen stays so.
    """
    torch = sys.modules.get("torch")
    before, frozen = torch.get_num_threads() if torch else 0, gc.get_freeze_count()
    if not frozen:
        gc.freeze()
    try:
        if torch:
            torch.set_num_threads(1)
        yield
    finally:
        if torch:
            torch.set_num_threads(before)
        if not frozen:
            gc.unfreeze()


def _isolate_crashes(attempt: Attempt, subject: Subject, strategies: tuple[str, ...]) -> list[Row | Crash]:
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


def _rows_and_reason(
    check: Check, subject: Subject, problem: Problem, strategies: tuple[str, ...]
) -> tuple[list[Row], str | None]:
    """Compare a subject; return its rows up to an error, and the error's description, None if there is none."""
    rows: list[Row] = []
    try:
        rows.extend(check(subject, problem, strategies))
    except BaseException as error:  # a port may fail in any way: it is reported, and the exit code says so
        if processes.ends_all(error):
            raise
        return rows, describe_error(error, subject.source)
    return rows, None


def _shown(say: Say, check: Check, subject: Subject, *args: Any) -> Iterator[Row]:
    """Compare a subject, and show whose quantities are being compared."""
    name = f"{subject.name} {subject.dtype}"
    say(name)
    for row in check(subject, *args):
        say(f"{name} {row.strategy or 'forward'}")
        yield row


# --- in several processes


def _compare_side_by_side(
    count: int, check: Check, subjects: Sequence[Subject], problem: Problem, strategies: tuple[str, ...], show: Show
) -> list[list[Row | Crash]]:
    """Compare the subjects, up to `count` at once, and then those that have no result.

    Where a process has ended, each attempt has one of its own. A port that loads only here is compared here.
    """
    order = sorted(range(len(subjects)), key=lambda n: subjects[n].name in QUICK)
    calls = [(_compare, check, subjects[n], problem, strategies) for n in order]
    futures = dict(zip(order, _call_in_workers(count, calls, show), strict=True))
    results = []
    for n, subject in enumerate(subjects):
        try:
            rows: list[Row | Crash] = futures[n].result()
        except NotLoadedError:
            rows = _compare_here(partial(show, n), check, subject, problem, strategies)
        except BrokenProcessPool:
            alone = partial(_attempt_in_a_process, partial(show, n), check, subject, problem)
            rows = _isolate_crashes(alone, subject, strategies)
        results.append(rows)
    return results


def _attempt_in_a_process(
    say: Say, check: Check, subject: Subject, problem: Problem, strategies: tuple[str, ...]
) -> tuple[list[Row], str | None]:
    call = _rows_and_reason, check, subject, problem, strategies
    [future] = _call_in_workers(1, [call], lambda _, what: say(what))
    try:
        result: tuple[list[Row], str | None] = future.result()
    except BrokenProcessPool:
        return [], ENDED
    return result


def _call_in_workers(count: int, calls: Sequence[tuple[Any, ...]], show: Show) -> list[Future[Any]]:
    """Call functions of a subject, each in a process of its own, up to `count` at once; show what is being compared.

    The processes share a pipe for that: what they send is so short that a pipe takes it as a whole.
    """
    updates, writer = Pipe(duplex=False)
    waiting = deque(enumerate(calls))
    futures: list[Future[Any]] = []
    running: dict[Future[Any], tuple[int, ExitStack]] = {}
    texts: dict[int, str] = {}  # by the number of a call
    with updates, writer, ExitStack() as begun:
        while waiting or running:
            while waiting and len(running) < count:
                number, (call, check, subject, *rest) = waiting.popleft()
                process = begun.enter_context(ExitStack())
                submit = process.enter_context(worker_process(_prepare_worker, writer, number))
                # A port can't be pickled.
                future = submit(_call_with_port, call, check, subject._replace(port=None), *rest)
                running[future] = number, process
                futures.append(future)
            done = wait(running, SHOW_SECONDS, FIRST_COMPLETED).done
            while updates.poll():
                texts.update([updates.recv()])
            for future in done:
                number, process = running.pop(future)
                texts.pop(number, None)
                process.close()
            show(len(futures) - len(running), "; ".join(texts.values()))
    return futures


_updates: Connection
_number: int
"""Where a worker sends what it is comparing, and the number of its call."""


def _prepare_worker(updates: Connection, number: int) -> None:
    global _updates, _number
    _updates, _number = updates, number
    with suppress(OSError):
        os.dup2(2, 1)  # stdout is the command's
    ignore_cache_errors()


def _say(text: str) -> None:
    with suppress(OSError):  # a port may have closed the pipe
        _updates.send((_number, text))


def _call_with_port(function: Callable[..., Any], check: Check, subject: Subject, *args: Any) -> Any:
    """Load the port of the subject in this worker, and call the function."""
    try:
        loaded = subject._replace(port=ports.load(subject.source or subject.name))
    except BaseException as error:
        raise NotLoadedError(str(error)) from None
    with undisturbed():
        return function(partial(_shown, _say, check), loaded, *args)
