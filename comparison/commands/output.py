"""The output that commands share: sentences and tables, JSON, and files that are whole or absent."""

from __future__ import annotations

import json
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from comparison.commands.options import settings

if TYPE_CHECKING:
    from rich.console import Console

    from comparison.commands.options import Selection


def write(path: str, text: str) -> None:
    """Write to stdout for "-", else to a file, which is either whole or absent."""
    if path == "-":
        sys.stdout.write(text)
        return
    from reference.files import write_atomically

    write_atomically(path, [text.encode("utf-8")])


def write_json(path: str, command: str, options: Selection, results: dict[str, Any]) -> None:
    """Write the results of a command, with its options, versions and machine, as JSON."""
    made_by = {"schema_version": 2, "environment": environment(), "command": command, "settings": settings(options)}
    write(path, json.dumps(made_by | results, indent=2, allow_nan=False) + "\n")


def environment() -> dict[str, Any]:
    """Return the versions of packages and the machine, without importing anything."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str | None] = {}
    for package in ("numpy", "torch", "jax", "jaxlib"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {"python": platform.python_version(), **versions, "platform": platform.platform(), "cpus": os.cpu_count()}


def make_console() -> Console:
    """Return a console for tables on stdout; a pipe is 160 columns wide, so that no line is cut."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    return console


def print_sentences(console: Console, *sentences: str) -> None:
    """Print sentences as they are; in a pipe each is one line."""
    for sentence in sentences:
        console.print(sentence, markup=False, soft_wrap=not console.is_terminal)


def status(text: str, *, quiet: bool) -> AbstractContextManager[object]:
    """Show what is under way, if stderr is a terminal."""
    from rich.console import Console

    stderr = Console(stderr=True)
    return stderr.status(text) if stderr.is_terminal and not quiet else nullcontext()
