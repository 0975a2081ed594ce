"""Find a port by its name and load it. Importing this module imports no framework; `load` imports the one it needs."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from ports.protocol import NotRunError, Port, PortError, check_port

BUILT_IN = ("numpy", "torch", "jax")
"""From the simplest to the one that compiles: the order in every table, and of preference in a tie."""


def names() -> tuple[str, ...]:
    """Return the names of the backends: the built-in ones, then those of installed packages (group `fdnet.ports`)."""
    installed = {entry.name for entry in entry_points(group="fdnet.ports")}
    return (*BUILT_IN, *sorted(installed - set(BUILT_IN)))


def load(name: str) -> Port:
    """Load the port of that name.

    Parameters
    ----------
    name : str
        One of `names()`, the path of a Python file (`path/to/file.py`), or the dotted name of a module.

    Raises
    ------
    NotRunError
        If its framework is not installed or does not work here.
    PortError
        If there is no such port, it can't be imported, or it lacks something that a port must have. PortError is a
        ValueError.
    """
    module, import_port = _importer(name)
    with _import_errors(name, module):
        return check_port(import_port())


def _importer(name: str) -> tuple[str, Callable[[], Any]]:
    """Return the name of the module that holds a port, and the function that imports it."""
    if name in BUILT_IN:
        return f"ports.{name}_port", lambda: importlib.import_module(f"ports.{name}_port")
    for entry in entry_points(group="fdnet.ports", name=name):
        return entry.module, entry.load
    if name.endswith(".py"):
        return name, lambda: _import_file(Path(name))
    if all(part.isidentifier() for part in name.split(".")):
        return name, lambda: importlib.import_module(name)
    raise _no_such_port(name)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PortError(f"A port's file must exist, got {str(path)!r}.")
    name = f"fdnet_port_{path.stem}"  # a file jax.py is not to stand in for jax
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _import_errors(port: str, module: str) -> Iterator[None]:
    """Raise NotRunError for a missing framework, and PortError for any other error of the import."""
    try:
        yield
    except (NotRunError, PortError):
        raise
    except (Exception, SystemExit) as error:
        missing = _missing_module(error)
        if missing and f"{module}.".startswith(f"{missing}."):
            raise _no_such_port(port) from error
        if missing and importlib.util.find_spec(missing.partition(".")[0]) is None:
            raise NotRunError(f"{missing} is not installed.") from error
        raise PortError(f"The port {port!r} must be importable, got {describe_error(error)}.") from error


def _missing_module(error: BaseException | None) -> str | None:
    """Return the name of the module that is missing, if the error or its cause says so (jax does without jaxlib)."""
    while isinstance(error, ModuleNotFoundError) and error.name is None:
        error = error.__cause__
    return error.name if isinstance(error, ModuleNotFoundError) else None


def _no_such_port(name: str) -> PortError:
    return PortError(f"A backend must be one of {', '.join(names())}, a module or a .py file, got {name!r}.")


def describe_error(error: BaseException) -> str:
    """Describe an error and where it was raised, as part of a sentence."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    file, line, message = frame.filename, frame.lineno, str(error)
    if isinstance(error, SyntaxError) and error.filename:
        file, line, message = error.filename, error.lineno, error.msg
    return f"{type(error).__name__} at {Path(file).name}:{line}: {' '.join(message.split())}".rstrip(".: ")
