"""The backends. Importing this package imports no framework; `load` does, for the one that is asked for."""

import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from ports.protocol import NotRunError, Port, PortError, check_port

__all__ = ["BUILT_IN", "NotRunError", "Port", "PortError", "load", "names"]

BUILT_IN = ("numpy", "torch", "jax")
"""From the simplest to the one that compiles: the order of every table, and how a tie is broken."""


def names() -> tuple[str, ...]:
    """Return the names of the backends: those built in, then those of installed packages (group `fdnet.ports`)."""
    installed = sorted(entry.name for entry in entry_points(group="fdnet.ports"))
    return (*BUILT_IN, *(name for name in installed if name not in BUILT_IN))


def load(name: str) -> Port:
    """Return the port of that name.

    Parameters
    ----------
    name : str
        One of `names()`, the path of a Python file (`path/to/file.py`), or the dotted name of a module.

    Raises
    ------
    NotRunError
        If its framework is not installed or does not work here.
    PortError
        If there is no such port, or it lacks something that a port must have. PortError is a ValueError.
    """
    if name in BUILT_IN:
        return check_port(_import(f"ports.{name}_port"))
    for entry in entry_points(group="fdnet.ports", name=name):
        return check_port(_import(entry.module))
    if name.endswith(".py"):
        return check_port(_import_file(Path(name)))
    if "." in name or importlib.util.find_spec(name) is not None:
        return check_port(_import(name))
    raise PortError(f"A backend must be one of {', '.join(names())}, a module or a .py file, got {name!r}.")


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        _refuse(error)


def _refuse(error: ModuleNotFoundError) -> NoReturn:
    """Turn an absent framework into the reason not to run; a port that can't find a part of itself is broken."""
    if error.name is None or error.name.split(".")[0] in {"ports", "reference"}:
        raise error
    raise NotRunError(f"{error.name} is not installed.") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PortError(f"A port's file must exist, got {str(path)!r}.")
    name = f"fdnet_port_{path.stem}"  # a file jax.py is not to stand in for jax
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        _refuse(error)
    return module
