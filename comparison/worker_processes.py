"""Processes that work for a command, and end as soon as it does, however that ends.

Where the system can fork, one starts within a tenth of a second: it is a copy of the fork server, a process that has
imported the ports and done nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import current_process, forkserver, get_all_start_methods, get_context, resource_tracker
from pathlib import Path
from threading import Lock, Thread, Timer
from types import ModuleType
from typing import TYPE_CHECKING, Any

from comparison import preloading
from reference.defaults import BUILT_IN

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

HOME = str(Path(__file__).parents[1])
SOCKET = "/pymp-12345678/listener-12345678"
"""What Python adds to the folder of temporary files: the name of the socket by which it reaches the fork server."""
LONGEST_SOCKET = 103
"""The bytes that the name of a socket may have on every system."""
PATIENCE = 5.0
"""Seconds that a process has to end by itself once its calls are done: a thread of a port may never end."""


class NoProcessError(OSError):
    """No process can be started."""


def start_method() -> str:
    """Return "forkserver" where the system has it, and the name of its socket is short enough; else "spawn"."""
    fits = len(os.fsencode(tempfile.gettempdir() + SOCKET)) <= LONGEST_SOCKET
    return "forkserver" if fits and "forkserver" in get_all_start_methods() else "spawn"


def preload(backends: Container[str]) -> None:
    """Let processes that start later be copies of one that imports these ports meanwhile, where the system can fork."""
    with suppress(OSError):  # what keeps it from starting is reported when a process is needed
        if start_method() == "forkserver":
            _ensure_fork_server([name for name in BUILT_IN if name in backends])


def _ensure_fork_server(names: Sequence[str] = ()) -> None:
    """Start the fork server, unless it is running, and let it import the ports of these names.

    It must import the same files as this process, and learns where they are from the environment alone: where Python
    has been started to ignore that (-E), it imports none.
    """
    names = () if sys.flags.ignore_environment else names
    get_context("forkserver").set_forkserver_preload([preloading.__name__] if names else [])
    folders = os.pathsep.join([HOME, *(folder or os.getcwd() for folder in sys.path)])
    environment = {"PYTHONPATH": folders, "PYTHONSAFEPATH": "1"}
    if names:
        environment[preloading.VARIABLE] = ",".join(names)
    with _blocked(signal.SIGHUP):  # a closed terminal would end it before those whose resources it tracks
        resource_tracker.ensure_running()  # first: as it starts, it unblocks SIGINT
    with _without_the_script(), _environment(environment), _blocked(signal.SIGINT):
        forkserver.ensure_running()


@contextmanager
def worker_process(prepare: Callable[..., object], *args: object) -> Iterator[Callable[..., Future[Any]]]:
    """Call functions of modules in another process, which first calls `prepare(*args)`.

    Yields a function that submits a call, with its arguments, which are pickled. The process ends with the block, at
    once where it is left by an exception. If it ends earlier, calls without a result raise BrokenProcessPool.

    Raises
    ------
    NoProcessError
        If this process can't start others: the system refuses, or it is daemonic.
    """
    with _starting():
        context = get_context(method := start_method())
        if method == "forkserver":
            _ensure_fork_server()
        reader, writer = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(1, context, _begin, (reader, dict(os.environ), prepare, args))
    # Signals are handled in the main thread: a process that another thread starts is never left half started.
    with pool, ThreadPoolExecutor(1) as starter:
        end = Timer(PATIENCE, writer.close)
        try:
            yield lambda *call: starter.submit(_submit, pool, *call).result()
            end.start()
            pool.shutdown()
        finally:
            end.cancel()
            if end.is_alive():
                end.join()  # it may be closing the pipe now, which two threads must not do at once
            writer.close()


def _submit(pool: ProcessPoolExecutor, *call: Any) -> Future[Any]:
    try:
        with _starting(), _without_the_script():
            return pool.submit(*call)
    except BrokenProcessPool as error:
        failed = Future[Any]()
        failed.set_exception(error)
        return failed


@contextmanager
def _starting() -> Iterator[None]:
    """Raise NoProcessError for what goes wrong where a process is started."""
    if current_process().daemon:  # as in a multiprocessing.Pool
        raise NoProcessError("No process can be started by a daemonic one")
    try:
        yield
    except (OSError, ImportError) as error:  # ImportError: the system has no semaphores
        raise NoProcessError(f"No process can be started: {error}") from error


def _begin(
    reader: Connection, environment: dict[str, str], prepare: Callable[..., object], args: tuple[object, ...]
) -> None:
    """Prepare this process, and let it end once nobody waits for it: not by Ctrl-C, which the command receives too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_writer, args=(reader,), daemon=True).start()
    os.environ.clear()  # it is the fork server's, which may have been started long ago
    os.environ.update(environment)
    prepare(*args)


def _end_with_writer(reader: Connection) -> None:
    with suppress(EOFError):
        reader.recv()  # nothing is ever sent
    os._exit(0)


_lock = Lock()
"""Held while `__main__`, the path or the environment, which all threads share, are others."""


@contextmanager
def _without_the_script() -> Iterator[None]:
    """Keep a new process from running the caller's script again, which may be one that came through stdin.

    It searches this project's folder first: the caller's may have packages of the same names.
    """
    with _lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        sys.path.insert(0, HOME)
        try:
            yield
        finally:
            sys.path.remove(HOME)
            sys.modules["__main__"] = main


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment for the processes that the block starts."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _blocked(number: int) -> Iterator[None]:
    """Let the processes that the block starts never receive a signal: a terminal's Ctrl-C goes to all processes."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
