"""A process that waits for the one that does the work, and says in a sentence why JAX has aborted it.

Where the coordinator or another process is lost, or never found, JAX's client ends its own process, with a trace of its
frames and no way to tell it otherwise. So the work is done by a child, whose native code has no terminal, and the
parent speaks for it.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, TextIO

from comparison.commands import BAD_INPUT, CRASHED

if TYPE_CHECKING:
    from collections.abc import Callable


def child(never_met: str, left_alone: str) -> Callable[[], object]:
    """Go on in a child process, and return what it is to call when it has met the others.

    Parameters
    ----------
    never_met, left_alone : str
        What the parent says, on stderr, if the child is aborted before and after that call.
    """
    news, told = os.pipe()
    life, held = os.pipe()
    if pid := os.fork():
        os.close(told)
        os.close(life)
        _end_as(pid, news, never_met, left_alone)
    os.close(news)
    os.close(held)
    Thread(target=_end_with_parent, args=(life,), daemon=True).start()
    sys.stdout, sys.stderr = _taken(1), _taken(2)
    sys.__stderr__ = sys.stderr  # type: ignore[assignment,misc]
    return partial(os.write, told, b"met")


def _taken(number: int) -> TextIO:
    """Return the stream, and leave what native code prints nowhere to go: Gloo counts on stdout how many have met."""
    stream = open(os.dup(number), "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return stream


def _end_with_parent(life: int) -> None:
    os.read(life, 1)  # nothing is ever written: it ends when the parent has
    os._exit(CRASHED)


def _end_as(pid: int, news: int, never_met: str, left_alone: str) -> None:
    """End the parent as the child ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the child as well
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == -signal.SIGABRT:
        met = os.read(news, 3)
        print(f"compare.py: {left_alone if met else never_met}", file=sys.stderr, flush=True)
        code = CRASHED if met else BAD_INPUT
    os._exit(code if code >= 0 else 128 - code)
