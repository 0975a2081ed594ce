"""Ports with one fault each, made from right ones: what agreement and the property tests must catch.

A fault is planted in the source of a port as it is imported (faults_in_numpy.py, faults_in_torch.py and
faults_in_jax.py have the edits), or in what goes into and comes out of a right port's functions.
"""

import ast
import importlib
import sys
from collections.abc import Callable
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

import ports
from ports.protocol import check_port
from reference.defaults import STRATEGIES
from reference.two_layer_net import Params

ROOT = Path(ports.__file__).parents[1]

# --- faults in the source


class Edit(NamedTuple):
    """One change of the source."""

    function: str  # or class, at the top level of the module; "" for all of it
    old: str  # stands there once
    new: str
    module: str | None = None  # by default the module of the port that defines the function


def edit(*parts: str) -> tuple[Edit]:
    return (Edit(*parts),)


def changed(source: str, edits: list[Edit], module: str) -> str:
    """Return the source with all edits made; each must find its place, once."""
    for function, old, new, _ in edits:
        start, stop = _span(source, function)
        found = source[start:stop].count(old)
        assert found == 1, f"{module}.{function} has {found} times {old!r}: fix the catalogue"
        source = source[:start] + source[start:stop].replace(old, new) + source[stop:]
    return source


def _span(source: str, function: str) -> tuple[int, int]:
    if not function:
        return 0, len(source)
    nodes = (node for node in ast.parse(source).body if getattr(node, "name", None) == function)
    node: Any = next(nodes)
    lines = source.splitlines(keepends=True)
    return len("".join(lines[: node.lineno - 1])), len("".join(lines[: node.end_lineno]))


class _Editor(SourceFileLoader):
    """Finds and loads modules as they are, but for the edits."""

    def __init__(self, edits: dict[str, list[Edit]]) -> None:
        self.edits = edits

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in self.edits else None
        if spec is None:
            return None
        assert spec.origin is not None
        self.name, self.path = name, spec.origin
        spec.loader = self
        return spec

    def get_code(self, name: str) -> Any:
        return compile(changed(self.get_data(self.path).decode(), self.edits[name], name), self.path, "exec")


def by_module(port: str, edits: tuple[Edit, ...]) -> dict[str, list[Edit]]:
    """Return the edits of each module."""
    grouped: dict[str, list[Edit]] = {}
    for change in edits:
        grouped.setdefault(change.module or defining_module(port, change.function), []).append(change)
    return grouped


@cache
def defining_module(port: str, function: str) -> str:
    """Return the name of the module of a port that defines a function: the port may be a module or a package."""
    paths = [ROOT / f"ports/{port}_port.py"]
    if not paths[0].exists():
        paths = sorted((ROOT / f"ports/{port}_port").glob("*.py"))
    modules = [path for path in paths if not function or function in top_level_names(path)]
    assert len(modules) == 1, f"{function!r} is defined in {modules}: fix the catalogue"
    return ".".join(modules[0].relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def top_level_names(path: Path) -> set[str | None]:
    return {getattr(node, "name", None) for node in ast.parse(path.read_text(encoding="utf-8")).body}


def edited(port: str, edits: tuple[Edit, ...]) -> Any:
    """Import a port anew, with edits, and the reference if it has some; what others have imported stays as it is."""
    module, wanted = f"ports.{port}_port", by_module(port, edits)
    anew = {name.split(".")[0] for name in wanted} & {"reference"}  # Params, for one, stay one class otherwise

    def imported_anew(name: str) -> bool:
        return name.split(".")[0] in anew or f"{name}.".startswith(f"{module}.")

    kept = {name: m for name, m in sys.modules.items() if imported_anew(name)}
    for name in kept:
        del sys.modules[name]
    editor = _Editor(wanted)
    sys.meta_path.insert(0, editor)
    try:
        return check_port(importlib.import_module(module))
    finally:
        sys.meta_path.remove(editor)
        for name in [name for name in sys.modules if imported_anew(name)]:
            del sys.modules[name]
        sys.modules.update(kept)
        if module in kept:
            setattr(ports, f"{port}_port", kept[module])


# --- faults in what goes in and comes out, on any backend


class Arguments(NamedTuple):
    """What a gradient is called with, as NumPy arrays."""

    params: Params
    x: np.ndarray
    t: np.ndarray
    h: float


def with_calls(port: Any, change: Callable[[Arguments], Arguments]) -> Any:
    """Return a port whose gradients are called with something else."""

    def instead(function: Any) -> Any:
        def call(params: Params, x: Any, t: Any, *, h: float = 1e-4, **options: Any) -> Params:
            dtype = str(port.to_numpy(x).dtype)
            new = change(Arguments(Params(*map(port.to_numpy, params)), port.to_numpy(x), t, h))
            *own, x = (port.from_numpy(a, dtype=dtype, device="cpu") for a in (*new.params, new.x))
            return function(Params(*own), x, new.t, h=new.h, **options)

        return call

    return altered(port, GRADIENTS={name: instead(port.GRADIENTS[name]) for name in STRATEGIES})


def with_results(port: Any, change: Callable[[Params], Params]) -> Any:
    """Return a port whose gradients, the closed form among them, come out as something else."""

    def instead(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Params:
            new = change(Params(*map(port.to_numpy, function(*arguments, **options))))
            return Params(*(port.from_numpy(g, dtype=str(g.dtype), device="cpu") for g in new))

        return call

    gradients = {name: instead(port.GRADIENTS[name]) for name in STRATEGIES}
    return altered(port, gradient=instead(port.gradient), GRADIENTS=gradients)


def with_forward(port: Any, change: tuple[str, Callable[[np.ndarray], np.ndarray]]) -> Any:
    """Return a port of which predict, loss or accuracy comes out as something else."""
    name, becomes = change

    def call(*arguments: Any) -> Any:
        new = becomes(port.to_numpy(getattr(port, name)(*arguments)))
        return port.from_numpy(new, dtype=str(new.dtype), device="cpu")

    return altered(port, **{name: call})


def altered(port: Any, **changes: Any) -> Any:
    """Replace members of a port; it still trains by its own gradients."""
    members = {name: getattr(port, name) for name in dir(port) if name[0] != "_"}
    return SimpleNamespace(**members | changes)


def closed_form_as_differences(port: Any) -> Any:
    def call(params: Params, x: Any, t: Any, *, h: float = 1e-4, entries: Any = None, **options: Any) -> Params:
        found = port.gradient(params, x, t)
        if entries is None:
            return found
        taken = (port.to_numpy(g).ravel()[at] for g, at in zip(found, entries, strict=True))
        return Params(*(port.from_numpy(g, dtype=str(g.dtype), device="cpu") for g in taken))

    return altered(port, GRADIENTS=dict.fromkeys(STRATEGIES, call))


def single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32).astype(array.dtype)


def last(array: np.ndarray, value: float) -> np.ndarray:
    array.flat[-1] = value
    return array


def twice_the_last(call: Arguments) -> Arguments:
    rows = [*range(len(call.x)), -1]
    return call._replace(x=call.x[rows], t=call.t[rows])


def larger(name: str) -> Callable[[Params], Params]:
    return lambda g: g._replace(**{name: getattr(g, name) * 1.001})


def not_a_number(name: str) -> Callable[[Params], Params]:
    return lambda g: g._replace(**{name: last(getattr(g, name), np.nan)})


CALLS: dict[str, Callable[[Arguments], Arguments]] = {
    "h is doubled": lambda call: call._replace(h=2 * call.h),
    "h is halved": lambda call: call._replace(h=call.h / 2),
    "h is ten times": lambda call: call._replace(h=10 * call.h),
    "h is a tenth": lambda call: call._replace(h=call.h / 10),
    "x is rounded to float32": lambda call: call._replace(x=single(call.x / 3) * 3),
    "the parameters are rounded to float32": lambda call: call._replace(params=Params(*map(single, call.params))),
    "labels are one too large": lambda call: call._replace(t=(call.t + 1) % len(call.params.b2)),
    "b1 is left out": lambda call: call._replace(params=call.params._replace(b1=0 * call.params.b1)),
    "the last sample is left out": lambda call: call._replace(x=call.x[:-1], t=call.t[:-1]),
    "the last sample is taken twice": twice_the_last,
    "x is scaled by 1 + 1e-9": lambda call: call._replace(x=call.x * (1 + 1e-9)),
}
RESULTS: dict[str, Callable[[Params], Params]] = {
    **{f"{name} is 0.1% too large": larger(name) for name in Params._fields},
    "it is negated": lambda g: Params(*(-member for member in g)),
    "it is half as large": lambda g: Params(*(member / 2 for member in g)),
    "W1 is transposed": lambda g: g._replace(W1=g.W1.T.copy() if g.W1.ndim == 2 else g.W1[:-1]),
    **{f"{name} has a NaN": not_a_number(name) for name in Params._fields},
    "b2 has an infinity": lambda g: g._replace(b2=last(g.b2, np.inf)),
    "b1 is zero": lambda g: g._replace(b1=0 * g.b1),
    "the last entry is left out": lambda g: g._replace(b2=last(g.b2, 0.0)),
    "the last entry is missing": lambda g: g._replace(b2=g.b2[:-1]),
    "classes are reversed": lambda g: g._replace(W2=g.W2[..., ::-1].copy()),
    "it is float32": lambda g: Params(*(member.astype(np.float32) for member in g)),
    "it is rounded to float32": lambda g: Params(*map(single, g)),
    "all is zero": lambda g: Params(*(0 * member for member in g)),
}
FORWARDS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "predictions are rounded to float32": ("predict", single),
    "predictions have a NaN": ("predict", lambda y: last(y, np.nan)),
    "predictions are transposed": ("predict", lambda y: y.T.copy()),
    "predictions are logarithms": ("predict", np.log),
    "the loss is a NaN": ("loss", lambda loss: loss * np.nan),
    "the loss is an array": ("loss", lambda loss: loss[None]),
    "the loss is off by 1e-12": ("loss", lambda loss: np.asarray(loss + 1e-12)),
    "the loss is infinite": ("loss", lambda loss: loss + np.inf),
    "accuracy is a count": ("accuracy", lambda share: share * 100),
    "accuracy is float32": ("accuracy", lambda share: share.astype(np.float32)),
    "accuracy is a NaN": ("accuracy", lambda share: share * np.nan),
    "accuracy is off by a sample": ("accuracy", lambda share: np.asarray(share + 0.01)),
}


def around(port: Any) -> dict[str, Callable[[], Any]]:
    """Return the makers of ports with a fault planted around a right one."""

    def each(plant: Callable[..., Any], changes: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        return {name: lambda change=change: plant(port, change) for name, change in changes.items()}

    faults = each(with_calls, CALLS) | each(with_results, RESULTS) | each(with_forward, FORWARDS)
    return faults | {"the closed form as a difference": lambda: closed_form_as_differences(port)}
