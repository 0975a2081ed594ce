"""Functions called in a process of their own: ports may have been imported there, but nothing has been compiled."""

import os
import sys
import tempfile
from collections.abc import Callable
from typing import TypeVar

from comparison.worker_processes import worker_process

Result = TypeVar("Result")


def call_in_fresh_process(function: Callable[..., Result], *args: object) -> Result:
    """Call a function of a module in a process that ends after it, and return its result; its arguments are pickled."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        worker_process(_leave_caches, folder) as submit,
    ):
        result: Result = submit(function, *args).result()
        return result


def _leave_caches(folder: str) -> None:
    """Let no framework find what earlier processes have compiled."""
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    if "jax" in sys.modules:  # it has read the variable
        sys.modules["jax"].config.update("jax_enable_compilation_cache", False)
    # PyTorch reads the folder at each compilation, and Numba, which no built-in port imports, when it is imported.
    os.environ |= dict.fromkeys(("TORCHINDUCTOR_CACHE_DIR", "NUMBA_CACHE_DIR"), folder)
