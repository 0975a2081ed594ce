"""Processes that work for a command, and end as soon as it does, however that ends.

Where the system can fork, one starts within a tenth of a second: it is a copy of a process that has imported the ports,
and done nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Container, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, get_all_start_methods, get_context, resource_tracker
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import TYPE_CHECKING, Any

from reference.defaults import BUILT_IN

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SOCKET = "/pymp-12345678/listener-12345678"
"""What Python adds to the folder of temporary files: the name of the socket by which it reaches the forkserver."""
LONGEST_SOCKET = 103
"""The bytes that the name of a socket may have on every system."""


def start_method() -> str:
    """Return "forkserver" where the system has it, and the name of its socket is short enough; else "spawn"."""
    fits = len(os.fsencode(tempfile.gettempdir() + SOCKET)) <= LONGEST_SOCKET
    return "forkserver" if fits and "forkserver" in get_all_start_methods() else "spawn"


def preload(backends: Container[str]) -> None:
    """Let processes that start later be copies of one that imports these ports meanwhile, where the system can fork."""
    if start_method() == "forkserver":
        modules = [f"ports.{name}_port" for name in BUILT_IN if name in backends]
        get_context("forkserver").set_forkserver_preload(modules)
        resource_tracker.ensure_running()  # it unblocks what is blocked
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a terminal's Ctrl-C goes to all processes
        try:
            with _only_our_modules():
                forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def worker_processes(count: int, prepare: Callable[..., object], *args: object) -> Iterator[Callable[..., Future[Any]]]:
    """Call functions of modules in up to `count` processes, each of which first calls `prepare(*args)`.

    Yields a function that submits a call, with its arguments, which are pickled. The processes end with the block, at
    once where it is left by an exception; should one end before, the calls that have no result yet raise
    BrokenProcessPool.
    """
    context = get_context(start_method())
    reader, writer = context.Pipe(duplex=False)
    with (
        writer,
        ProcessPoolExecutor(count, context, _begin, (reader, dict(os.environ), prepare, args)) as pool,
        ThreadPoolExecutor(1) as starter,  # Ctrl-C must not leave a process half started, which would complain
    ):
        try:
            yield lambda *call: starter.submit(_submit, pool, *call).result()
        except BaseException:
            writer.close()
            raise


def _submit(pool: ProcessPoolExecutor, *call: Any) -> Future[Any]:
    try:
        with _only_our_modules():  # it may start a process
            return pool.submit(*call)
    except BrokenProcessPool as error:
        failed = Future[Any]()
        failed.set_exception(error)
        return failed


def _begin(
    reader: Connection, environment: dict[str, str], prepare: Callable[..., object], args: tuple[object, ...]
) -> None:
    """Let this process end once nobody waits for it, but not by Ctrl-C, which the command gets as well; prepare it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_writer, args=(reader,), daemon=True).start()
    os.environ.clear()  # of the time when the process that this one is a copy of began
    os.environ.update(environment)
    prepare(*args)


def _end_with_writer(reader: Connection) -> None:
    with suppress(EOFError):
        reader.recv()  # nothing is ever sent
    os._exit(0)


@contextmanager
def _only_our_modules() -> Iterator[None]:
    """Keep a new process from running the caller's script again, which may be one that came through stdin.

    It searches this project's folder first: the caller's may have packages of the same names.
    """
    main, home = sys.modules["__main__"], str(Path(__file__).parents[1])
    sys.modules["__main__"] = ModuleType("__main__")
    sys.path.insert(0, home)
    try:
        yield
    finally:
        sys.path.remove(home)
        sys.modules["__main__"] = main
