"""What JAX has compiled is kept on disk: the second time, a command starts in a fraction of the time.

The folder is the processor's own, in the user's cache folder: programs use the instructions of the processor that they
are compiled for. JAX's key has all else, from its version to the program.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

MAX_BYTES = 256 * 2**20
"""Beyond it JAX deletes what was not used for longest; an `agree` fills some 5 MiB."""
OWN = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
"""The variables of JAX by which a user decides; nothing is changed where one is set."""


def use_compilation_cache() -> None:
    """Let JAX, which must not have been imported yet, keep what it compiles, where the folder can be written."""
    if any(name in os.environ for name in OWN):
        return
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        return
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(MAX_BYTES),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA would write a line for each program that it loads
    ignore_cache_errors()


def ignore_cache_errors() -> None:
    """Say nothing of a program that can't be read or kept: it is compiled again."""
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def cache_folder() -> Path:
    """Return the folder for this processor: FDNET_CACHE/jax or that of the system, such as ~/.cache/fdnet/jax."""
    from platformdirs import user_cache_path

    from comparison.commands.output import processor

    root = os.environ.get("FDNET_CACHE")
    home = Path(root).expanduser() if root else user_cache_path("fdnet", appauthor=False)
    return home / "jax" / hashlib.sha256(str(processor()).encode()).hexdigest()[:12]
