"""What commands share of their output: files that are whole or absent, and what a result was made with."""

from __future__ import annotations

import json
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def write(path: str, text: str) -> None:
    """Write to stdout for "-", else to a file that is either there as a whole or not at all."""
    if path == "-":
        sys.stdout.write(text)
        return
    from reference.files import write_atomically

    write_atomically(path, [text.encode("utf-8")])


def write_json(path: str, result: dict[str, Any]) -> None:
    """Write a result, with what it was made with, as JSON."""
    result = {"schema_version": 1, "environment": environment(), **result}
    write(path, json.dumps(result, indent=2, allow_nan=False) + "\n")


def environment() -> dict[str, Any]:
    """Return versions and machine, without importing anything."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str | None] = {}
    for package in ("numpy", "torch", "jax", "jaxlib"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {"python": platform.python_version(), **versions, "platform": platform.platform(), "cpus": os.cpu_count()}


def console() -> Console:
    """Return where tables are printed: nobody cuts a pipe's lines."""
    from rich.console import Console

    found = Console(highlight=False)
    if not found.is_terminal:
        found.width = 160
    return found


def say(out: Console, *sentences: str) -> None:
    """Print sentences as they are; a pipe gets each in one line."""
    for sentence in sentences:
        out.print(sentence, markup=False, soft_wrap=not out.is_terminal)


def waiting(text: str, quiet: bool) -> AbstractContextManager[object]:
    """Show on a terminal what goes on meanwhile."""
    from rich.console import Console

    stderr = Console(stderr=True)
    return stderr.status(text) if stderr.is_terminal and not quiet else nullcontext()


def where(error: Exception) -> str:
    """Return a sentence with what was raised and where."""
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split()) or "no message."
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {message}"
