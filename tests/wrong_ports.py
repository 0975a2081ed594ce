"""Ports with one fault each, made from right ones, which agreement and the property tests must catch.

A fault is an edit of a port's source as it is imported (faults_in_numpy.py, faults_in_torch.py, faults_in_jax.py), or a
change of the arguments or the results of a right port's functions.
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
    old: str  # occurs once
    new: str  # replaces it
    module: str | None = None  # by default the module of the port that defines the function


def edit(*parts: str) -> tuple[Edit]:
    return (Edit(*parts),)


def apply_edits(source: str, edits: list[Edit], module: str) -> str:
    """Make all edits of a source; what each replaces must occur once."""
    for function, old, new, _ in edits:
        start, stop = _span(source, function)
        count = source[start:stop].count(old)
        assert count == 1, f"{old!r} occurs {count} times in {module}.{function}: fix the catalogue"
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
    """Finds modules as usual, and loads them with the edits."""

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
        return compile(apply_edits(self.get_data(self.path).decode(), self.edits[name], name), self.path, "exec")


def by_module(port: str, edits: tuple[Edit, ...]) -> dict[str, list[Edit]]:
    """Group the edits by the module that they change."""
    grouped: dict[str, list[Edit]] = {}
    for change in edits:
        grouped.setdefault(change.module or defining_module(port, change.function), []).append(change)
    return grouped


@cache
def defining_module(port: str, function: str) -> str:
    """Find the module of a port that defines a function; the port may be a module or a package."""
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
    """Import a port again, with edits, and the reference if it has some; modules that are already imported stay."""
    module, grouped = f"ports.{port}_port", by_module(port, edits)
    packages = {name.split(".")[0] for name in grouped} & {"reference"}  # otherwise Params stays one class

    def is_reimported(name: str) -> bool:
        return name.split(".")[0] in packages or f"{name}.".startswith(f"{module}.")

    before = {name: m for name, m in sys.modules.items() if is_reimported(name)}
    for name in before:
        del sys.modules[name]
    editor = _Editor(grouped)
    sys.meta_path.insert(0, editor)
    try:
        return check_port(importlib.import_module(module))
    finally:
        sys.meta_path.remove(editor)
        for name in [name for name in sys.modules if is_reimported(name)]:
            del sys.modules[name]
        sys.modules.update(before)
        if module in before:
            setattr(ports, f"{port}_port", before[module])


# --- faults in arguments and results, on any backend


class Arguments(NamedTuple):
    """The arguments of a gradient, as NumPy arrays."""

    params: Params
    x: np.ndarray
    t: np.ndarray
    h: float


def with_calls(port: Any, change: Callable[[Arguments], Arguments]) -> Any:
    """Change the arguments of a port's gradients."""

    def changed(function: Any) -> Any:
        def call(params: Params, x: Any, t: Any, *, h: float = 1e-4, **options: Any) -> Params:
            dtype = str(port.to_numpy(x).dtype)
            new = change(Arguments(Params(*map(port.to_numpy, params)), port.to_numpy(x), t, h))
            *own, x = (port.from_numpy(a, dtype=dtype, device="cpu") for a in (*new.params, new.x))
            return function(Params(*own), x, new.t, h=new.h, **options)

        return call

    return altered(port, GRADIENTS={name: changed(port.GRADIENTS[name]) for name in STRATEGIES})


def with_results(port: Any, change: Callable[[Params], Params]) -> Any:
    """Change the results of a port's gradients, the closed form's included."""

    def changed(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Params:
            new = change(Params(*map(port.to_numpy, function(*arguments, **options))))
            return Params(*(port.from_numpy(g, dtype=str(g.dtype), device="cpu") for g in new))

        return call

    gradients = {name: changed(port.GRADIENTS[name]) for name in STRATEGIES}
    return altered(port, gradient=changed(port.gradient), GRADIENTS=gradients)


def with_forward(port: Any, change: tuple[str, Callable[[np.ndarray], np.ndarray]]) -> Any:
    """Change the result of a port's predict, loss or accuracy."""
    name, change_result = change

    def call(*arguments: Any) -> Any:
        new = change_result(port.to_numpy(getattr(port, name)(*arguments)))
        return port.from_numpy(new, dtype=str(new.dtype), device="cpu")

    return altered(port, **{name: call})


def altered(port: Any, **changes: Any) -> Any:
    """Replace members of a port; it still trains by its own gradients."""
    members = {name: getattr(port, name) for name in dir(port) if name[0] != "_"}
    return SimpleNamespace(**members | changes)


def closed_form_as_differences(port: Any) -> Any:
    def call(params: Params, x: Any, t: Any, *, h: float = 1e-4, entries: Any = None, **options: Any) -> Params:
        derivative = port.gradient(params, x, t)
        if entries is None:
            return derivative
        taken = (port.to_numpy(g).ravel()[at] for g, at in zip(derivative, entries, strict=True))
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
    """Return functions that make a wrong port of a right one by changing arguments or results."""

    def makers(wrap: Callable[..., Any], changes: dict[str, Any]) -> dict[str, Callable[[], Any]]:
        return {name: lambda change=change: wrap(port, change) for name, change in changes.items()}

    faults = makers(with_calls, CALLS) | makers(with_results, RESULTS) | makers(with_forward, FORWARDS)
    return faults | {"the closed form as a difference": lambda: closed_form_as_differences(port)}
