"""Run the command in a child process, while this one waits for it and says in a sentence why JAX has aborted it.

Where the coordinator or another process is lost, or never found, JAX's client ends its own process, with a trace of its
frames and no way to handle it. So a child process does the work, and its native code has no terminal; the parent
prints the error.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, TextIO

from comparison import PROGRAM
from comparison.commands import BAD_INPUT, CRASHED

if TYPE_CHECKING:
    from collections.abc import Callable


def continue_in_child(never_joined: str, lost_others: str) -> Callable[[], object]:
    """Continue in a child process, and return the function that it calls once it has joined the others.

    Parameters
    ----------
    never_joined, lost_others : str
        The errors that the parent prints on stderr if the child is aborted before and after that call.
    """
    joined_end, report_end = os.pipe()
    child_end, parent_end = os.pipe()
    if pid := os.fork():
        os.close(report_end)
        os.close(child_end)
        _wait_and_exit(pid, joined_end, never_joined, lost_others)
    os.close(joined_end)
    os.close(parent_end)
    Thread(target=_exit_with_parent, args=(child_end,), daemon=True).start()
    sys.stdout, sys.stderr = _take_over(1), _take_over(2)
    sys.__stderr__ = sys.stderr  # type: ignore[assignment,misc]
    return partial(os.write, report_end, b"joined")


def _take_over(number: int) -> TextIO:
    """Open the stream anew for Python only: what native code prints is dropped, as Gloo prints on stdout."""
    stream = open(os.dup(number), "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return stream


def _exit_with_parent(child_end: int) -> None:
    os.read(child_end, 1)  # nothing is ever written: it returns when the parent has ended
    os._exit(CRASHED)


def _wait_and_exit(pid: int, joined_end: int, never_joined: str, lost_others: str) -> None:
    """Wait for the child, and exit with its code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the child as well
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == -signal.SIGABRT:
        joined = os.read(joined_end, 6)
        print(f"{PROGRAM}: {lost_others if joined else never_joined}", file=sys.stderr, flush=True)
        code = CRASHED if joined else BAD_INPUT
    os._exit(code if code >= 0 else 128 - code)
