"""How a command is interrupted: by Ctrl-C, and by signals that would otherwise end the process at once."""

from __future__ import annotations

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
"""Signals that end a process unless it handles them; Windows has no SIGHUP."""

_received: list[int] = []
"""The signals that have interrupted the command."""


@contextmanager
def signals_as_ctrl_c() -> Iterator[None]:
    """Let a signal that would end this process interrupt the block first, as Ctrl-C does, and then end the process.

    So the processes that a command has started end with it, temporary files are removed, and a training writes its
    checkpoint. Ranks handle signals themselves, and a signal that the caller ignores or handles is left to the caller.
    """
    ours = [] if processes.count() > 1 else [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    _received.clear()
    try:
        with _handled(ours, _interrupt):
            yield
    finally:
        if _received:
            from multiprocessing import util  # only now: --help answers without it

            # A process that a signal ends does not remove the folder and the semaphores that its workers share.
            util._run_finalizers()  # type: ignore[attr-defined]
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            signal.raise_signal(_received[0])


def _interrupt(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    signal.default_int_handler(number, frame)


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Let the first Ctrl-C, or signal that acts like it, request a stop, and the second one stop at once."""
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
def delayed_signals() -> Iterator[None]:
    """Let the first Ctrl-C, or signal that acts like it, interrupt only after the block, and the second one at once.

    Raised in the native code of a framework that is being imported, an exception may be lost, or end the process.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)}
    ours = [n for n, handler in handlers.items() if handler in (signal.default_int_handler, _interrupt)]
    received: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        received.append(number)
        for other in ours:
            signal.signal(other, handlers[other])

    try:
        with _handled(ours, remember):
            yield
    finally:
        if received:
            signal.raise_signal(received[0])


@contextmanager
def _handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals with `handler` in the block; not outside the main thread, where Python forbids it."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in numbers if in_main_thread}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)
