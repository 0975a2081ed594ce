"""The files that options name: one that is written belongs to one option, or another's content would be lost."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

WRITTEN = ("json", "checkpoint", "save", "plot", "history")
READ = ("data", "params", "baseline", "backend", "port", "xfails")

File = tuple[str, str]
"""An option and a path."""


def check_files_differ(options: Any, more: Iterable[File] = ()) -> None:
    """Raise ValueError, before any work, for a file that an option writes and another one reads or writes.

    `more` are written besides those that the options name.
    """
    from reference.files import is_special

    users = {_identity(path): option for option, path in _files(options, READ) if _is_read(option, path)}
    for option, path in (*_files(options, WRITTEN), *more):
        if path == "-" or is_special(path):  # a device or a pipe takes all, one after the other
            continue
        if other := users.get(_identity(path)):
            raise ValueError(f"`--{option}` must name a file of its own, got {path!r}, which is --{other}'s too.")
        users[_identity(path)] = option


def _files(options: Any, names: Iterable[str]) -> Iterator[File]:
    for name in names:
        value = getattr(options, name, None)
        yield from ((name, path) for path in (value if isinstance(value, tuple) else (value,)) if path)


def _is_read(option: str, path: str) -> bool:
    """Whether it is a file, and neither the name of a data set nor of a backend."""
    from reference.datasets import NAMES

    known = path not in NAMES if option == "data" else path.endswith(".py") or option not in ("backend", "port")
    return known and os.path.isfile(path)


def _identity(path: str) -> object:
    """Identify a file by any of its names."""
    try:
        there = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return there.st_dev, there.st_ino
