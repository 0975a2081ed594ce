"""Find a port by its name and load it. Importing this module imports no framework; `load` imports the one it needs."""

import importlib
import importlib.util
import os
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ports.protocol import FUNCTIONS, NotRunError, Port, PortError, check_port
from reference.defaults import BUILT_IN, OPTIONAL
from reference.validation import shown

_OWN = (*BUILT_IN, *OPTIONAL)
_HOME = Path(__file__).parents[1]
_OF_A_FILE = "fdnet_port_"
"""The names of modules that are loaded from files begin with it."""
_helpers: dict[str, str] = {}
"""The modules that ports' files have imported from beside them, each with its folder."""


def names(*, optional: bool = False) -> tuple[str, ...]:
    """Return the names of the backends: the built-in ones, then those of installed packages (group `fdnet.ports`).

    With `optional`, also those that run only where they are asked for.
    """
    installed = {entry.name for entry in entry_points(group="fdnet.ports")}
    return (*(_OWN if optional else BUILT_IN), *sorted(installed - set(_OWN)))


def load(name: str | os.PathLike[str]) -> Port:
    """Load the port of that name.

    Parameters
    ----------
    name : str or path
        One of `names(optional=True)`, the path of a Python file (`path/to/file.py`), or the dotted name of a module.

    Raises
    ------
    NotRunError
        If its framework is not installed or does not work here.
    PortError
        If there is no such port, it can't be imported, or it lacks something that a port must have. PortError is a
        ValueError.
    """
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(name, str):
        raise _no_such_port(name)
    _, import_port = _importer(name)
    with _surroundings_kept(), loading_errors(name):
        return check_port(import_port())


def resolve(backend: str | os.PathLike[str] | Port) -> Port:
    """Return the port of that name, or the port itself; PortError if it is neither."""
    if isinstance(backend, (str, os.PathLike)):
        return load(backend)
    if not any(callable(getattr(backend, name, None)) for name in FUNCTIONS):
        raise PortError(f"`backend` must be the name of a backend or a port itself, got {shown(backend)}.")
    return check_port(backend)


def reloadable(backend: str | os.PathLike[str] | Port, port: Port) -> str | os.PathLike[str] | Port:
    """Return the argument by which `resolve` finds a port again: the absolute path of its file, its name, or itself."""
    if not isinstance(port, ModuleType):
        return backend
    if port.__name__.startswith(_OF_A_FILE):
        return str(port.__file__)
    return backend if isinstance(backend, str) else port.__name__


def _importer(name: str) -> tuple[str, Callable[[], Any]]:
    """Return the name of the module that holds a port, and the function that imports it."""
    if name in _OWN:
        module = f"ports.{name.replace('-', '_')}_port"
        return module, lambda: importlib.import_module(module)
    for entry in entry_points(group="fdnet.ports", name=name):
        return entry.module, entry.load
    if name.endswith(".py"):
        check_exists(name)
        return name, lambda: _import_file(Path(name))
    if all(part.isidentifier() for part in name.split(".")):
        return name, lambda: importlib.import_module(name)
    raise _no_such_port(name)


def check_exists(name: str) -> None:
    """Raise PortError, before anything is imported, for a port's file that does not exist."""
    if name.endswith(".py") and not os.path.isfile(name):
        raise PortError(f"A port's file must exist, got {name!r}.")


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    name = f"{_OF_A_FILE}{path.stem}"  # a file jax.py is not to stand in for jax
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with _last_on_path(str(path.parent)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _last_on_path(folder: str) -> Iterator[None]:
    """Let modules of a folder be imported unless others of their names are installed.

    Those of the same names that an earlier port has imported from another folder are forgotten.
    """
    if folder in sys.path:
        yield
        return
    for name, other in _helpers.items():
        if other != folder and _holds(folder, name):
            for module in [module for module in sys.modules if module.partition(".")[0] == name]:
                del sys.modules[module]
    before = set(sys.modules)
    sys.path.append(folder)
    try:
        yield
    finally:
        with suppress(ValueError):  # the port may have removed it
            sys.path.remove(folder)
        new = [name for name in sys.modules.keys() - before if _holds(folder, name)]
        _helpers.update((name, folder) for name in new if PathFinder.find_spec(name) is None)  # it is not installed


def _holds(folder: str, name: str) -> bool:
    """Whether a module or a package of that name lies in a folder."""
    return Path(folder, f"{name}.py").exists() or Path(folder, name).is_dir()


@contextmanager
def loading_errors(port: str) -> Iterator[None]:
    """Raise NotRunError for a framework that is missing or does not work, and PortError for any other error."""
    try:
        yield
    except (NotRunError, PortError, KeyboardInterrupt):
        raise
    except BaseException as error:
        missing, (module, _) = _missing_module(error), _importer(port)
        if missing and f"{module}.".startswith(f"{missing}."):
            raise _no_such_module(port, module) from error
        if missing and importlib.util.find_spec(missing.partition(".")[0]) is None:
            raise NotRunError(f"{missing} is not installed.") from error
        if framework := _unusable_framework(port, error):
            words = " ".join(f"{type(error).__name__}: {_message(error)}".split()).rstrip(":")
            raise NotRunError(f"{framework} does not work here: {words}") from error
        raise PortError(f"The port {port!r} must be importable, got {describe_error(error)}.") from error


def _missing_module(error: BaseException | None) -> str | None:
    """Return the name of the module that is missing, if the error or its cause says so (jax does without jaxlib)."""
    while isinstance(error, ModuleNotFoundError) and error.name is None:
        error = error.__cause__
    return error.name if isinstance(error, ModuleNotFoundError) else None


def _unusable_framework(port: str, error: BaseException) -> str | None:
    """Return the name of the package that an error comes from, if it is that package that does not work.

    Of a port from outside only the import of a package counts: the port may have caused what else is raised there.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = max((n for n, frame in enumerate(frames) if _is_own(port, frame.filename)), default=-1)
    beyond = frames[own + 1 :]
    if not beyond and port in _OWN:
        return port.partition("-")[0] if _blames_framework(error) else None
    if not beyond or (port not in _OWN and beyond[0].name != "<module>"):
        return None
    paths = [Path(frame.filename) for frame in beyond if not frame.filename.startswith("<")]
    parts = next((path.parts for path in paths if "site-packages" in path.parts), ())
    return parts[parts.index("site-packages") + 1] if parts else port if port in _OWN else None


def _blames_framework(error: BaseException) -> bool:
    """Whether an error raised by our own line says that a framework lacks something, is damaged, or has failed itself.

    JAX removes its frames from the errors of its compiler: they are known by their class.
    """
    if isinstance(error, SyntaxError):
        return not _is_own(_OWN[0], error.filename or __file__)
    if isinstance(error, ImportError):
        module = error.name
    elif isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        module = error.obj.__name__
    else:
        module = type(error).__module__
    return (module or "ports").partition(".")[0] not in ("builtins", "ports", "reference")


def _is_own(port: str, file: str) -> bool:
    """Whether a file is this project's, or the port's."""
    folders = (_HOME / "ports", _HOME / "reference") if port in _OWN else (Path(port).absolute().parent,)
    path = Path(file)
    return path == Path(__file__) or any(
        folder in path.parents and "site-packages" not in path.relative_to(folder).parts for folder in folders
    )


@contextmanager
def _surroundings_kept() -> Iterator[None]:
    """Leave the global generators, and what NumPy's errors do, as they are: an import may draw, or call np.seterr."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with np.errstate():
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _no_such_module(port: str, module: str) -> PortError:
    if port == module:
        return _no_such_port(port)
    return PortError(f"The module of the installed port {port!r} must exist, got {module!r}.")


def _no_such_port(name: Any) -> PortError:
    return PortError(
        f"A backend must be one of {', '.join(names(optional=True))}, a module or a .py file, got {shown(name)}."
    )


def _home_of(source: str) -> Path | None:
    """Return the file of a loaded port, or the folder of one that is a package; None if there is no such port."""
    if source.endswith(".py"):
        return Path(source).resolve()
    file = getattr(sys.modules.get(_importer(source)[0]), "__file__", None) if source else None
    return (Path(file).parent if Path(file).name == "__init__.py" else Path(file)) if file else None


def describe_error(error: BaseException, source: str = "") -> str:
    """Describe an error and where it was raised, as part of a sentence.

    `source` is what the port was loaded by: the place is then the innermost one in its own file or package.
    """
    frames = traceback.extract_tb(error.__traceback__)
    home = _home_of(source)
    own = [frame for frame in frames if home and home in (Path(frame.filename), Path(frame.filename).parent)]
    frame = (own or frames)[-1]
    file, line, message = frame.filename, frame.lineno, _message(error)
    if isinstance(error, SyntaxError) and error.filename:
        file, line, message = error.filename, error.lineno, error.msg
    return f"{type(error).__name__} at {Path(file).name}:{line}: {' '.join(message.split())}".rstrip(".: ")


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a port's own kind of error may fail to describe itself
        return ""
