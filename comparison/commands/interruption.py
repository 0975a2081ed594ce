"""What ends a command before its time: Ctrl-C, and signals that would end the process and leave its work as it is."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from comparison.commands import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

SIGNALS = [signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that end a process which does not handle them; Windows has no SIGHUP."""

_received: list[int] = []
"""Those that have interrupted the command."""


@contextmanager
def signals_as_ctrl_c() -> Iterator[None]:
    """Let a signal that would end this process interrupt the block as Ctrl-C does, and end the process only then.

    So the processes that a command has started end with it, temporary files are removed, and a training writes its
    checkpoint. Ranks handle signals by themselves, and what is ignored or handled by the caller stays so.
    """
    ours = [] if processes.count() > 1 else [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    _received.clear()
    try:
        with _handled(ours, _interrupt):
            yield
    finally:
        if _received:
            gc.collect()  # a signal runs no finalizers, as of the semaphores between processes
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            signal.raise_signal(_received[0])


def _interrupt(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    signal.default_int_handler(number, frame)


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Let the first Ctrl-C, or signal that acts as one, request a stop; the next one stops at once."""
    requested = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        requested.set()
        for other in ours:
            signal.signal(other, signal.default_int_handler if other == signal.SIGINT else _interrupt)
        if number != signal.SIGINT:
            with suppress(KeyboardInterrupt):
                _interrupt(number, frame)
        if processes.is_first():
            with suppress(OSError):  # the terminal may be closed
                os.write(2, b"\nfinishing the step; Ctrl-C once more stops at once\n")  # `print` may be interrupted

    ignored = signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None)  # as by nohup, or a shell in the background
    ours = [*([] if ignored else [signal.SIGINT]), *(n for n in SIGNALS if signal.getsignal(n) is _interrupt)]
    with _handled(ours, request):
        yield requested


@contextmanager
def _handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals so in the block, unless this is another thread than the main one: Python forbids it there."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in numbers if in_main_thread}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)
