"""Functions run in a process of their own, where a port is imported and nothing has been compiled or computed yet.

Where the system can fork, it starts within a tenth of a second: it is a copy of one that has imported the ports, and
done nothing else.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, get_all_start_methods, get_context
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from reference.defaults import BUILT_IN

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Result = TypeVar("Result")

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
        with _only_our_modules():
            forkserver.ensure_running()


def call_in_fresh_process(function: Callable[..., Result], *args: object) -> Result:
    """Call a function of a module in a process that ends after it, and return its result; its arguments are pickled.

    The process also ends as soon as this one does, or does not wait for the result any longer.
    """
    context = get_context(start_method())
    reader, writer = context.Pipe(duplex=False)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        _only_our_modules(),
        writer,
        ProcessPoolExecutor(1, context, _prepare, (folder, reader)) as process,
        ThreadPoolExecutor(1) as starter,  # Ctrl-C must not leave a process half started, which would complain
    ):
        try:
            return starter.submit(process.submit, function, *args).result().result()
        except BaseException:
            writer.close()
            raise


def _prepare(folder: str, reader: Connection) -> None:
    """Let no framework find what earlier processes have compiled, and end this process once nobody waits for it."""
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    if "jax" in sys.modules:  # it has read the variable
        sys.modules["jax"].config.update("jax_enable_compilation_cache", False)
    # PyTorch reads the folder at each compilation, and Numba, which no built-in port imports, when it is imported.
    os.environ |= dict.fromkeys(("TORCHINDUCTOR_CACHE_DIR", "NUMBA_CACHE_DIR"), folder)
    Thread(target=_end_with_writer, args=(reader,), daemon=True).start()


def _end_with_writer(reader: Connection) -> None:
    with suppress(EOFError):
        reader.recv()  # nothing is ever sent
    os._exit(0)


@contextmanager
def _only_our_modules() -> Iterator[None]:
    """Keep a new process from running the caller's script again, which may be one that came through stdin.

    It searches this project's folder first: the caller's may have packages of the same names.
    """
    main, home = sys.modules["__main__"], str(Path(__file__).parents[2])
    sys.modules["__main__"] = ModuleType("__main__")
    sys.path.insert(0, home)
    try:
        yield
    finally:
        sys.path.remove(home)
        sys.modules["__main__"] = main
