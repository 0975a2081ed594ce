"""Ports with one fault each, made from right ones: what agreement must catch.

A fault is planted in the source of the reference or of the JAX port as it is imported, or in what goes into and comes
out of a right port's functions.
"""

import importlib
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

import ports
from ports.protocol import STRATEGIES, check_port
from reference.two_layer_net import Params

FORWARD = "forward"
CLOSED_FORM = None
LOSSES = ("loop", "batched")
DIRECT = ("structured", "collocated")
EVERYWHERE = (FORWARD, CLOSED_FORM, *DIRECT, *LOSSES)


class Fault(NamedTuple):
    """A wrong port, and where to look for its fault."""

    make: Callable[[], Any]
    where: tuple[str | None, ...]


# --- faults in the source

Edit = tuple[str, str, str]
"""Module, what to replace, what to put there."""


class _Editor(SourceFileLoader):
    """Finds and loads modules as they are, but for the edits."""

    def __init__(self, edits: tuple[Edit, ...]) -> None:
        self.edits = edits

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path)
        if spec is None or name not in {module for module, _, _ in self.edits}:
            return None
        assert spec.origin is not None
        self.name, self.path = name, spec.origin
        spec.loader = self
        return spec

    def get_code(self, name: str) -> Any:
        source = self.get_data(self.path).decode()
        for _, old, new in (edit for edit in self.edits if edit[0] == name):
            assert source.count(old) == 1, f"{name} has {source.count(old)} times {old!r}: mend the catalogue"
            source = source.replace(old, new)
        return compile(source, self.path, "exec")


def edited(port: str, *edits: Edit) -> Any:
    """Import a port anew, with edits, and the reference if it has some; what others have imported stays as it is."""
    module = f"ports.{port}_port"
    anew = {module.split(".")[0] for module, _, _ in edits} & {"reference"}  # Params, for one, stay one class otherwise
    kept = {name: m for name, m in sys.modules.items() if name.split(".")[0] in anew or name == module}
    for name in kept:
        del sys.modules[name]
    editor = _Editor(edits)
    sys.meta_path.insert(0, editor)
    try:
        return check_port(importlib.import_module(module))
    finally:
        sys.meta_path.remove(editor)
        for name in [name for name in sys.modules if name.split(".")[0] in anew or name == module]:
            del sys.modules[name]
        sys.modules.update(kept)
        if module in kept:
            setattr(ports, f"{port}_port", kept[module])


def in_numpy(module: str, *edits: tuple[str, str], where: tuple[str | None, ...]) -> Fault:
    return Fault(lambda: edited("numpy", *((f"reference.{module}", *edit) for edit in edits)), where)


def in_jax(*edits: tuple[str, str], where: tuple[str | None, ...]) -> Fault:
    return Fault(lambda: edited("jax", *(("ports.jax_port", *edit) for edit in edits)), where)


IN_NUMPY = {
    "half is dropped in loop": in_numpy(
        "gradient", ("] = (above - below) / (2 * h)", "] = (above - below) / h"), where=("loop",)
    ),
    "half is dropped in batched": in_numpy(
        "gradient", ("return (above - below) / (2 * h)", "return (above - below) / h"), where=("batched",)
    ),
    "loop takes forward differences": in_numpy(
        "gradient",
        ("p.flat[entry] = value - h", "p.flat[entry] = value"),
        ("] = (above - below) / (2 * h)", "] = (above - below) / h"),
        where=("loop",),
    ),
    "batched takes backward differences": in_numpy(
        "gradient",
        ("moved[nth, entry] = value + h", "pass"),
        ("return (above - below) / (2 * h)", "return (above - below) / h"),
        where=("batched",),
    ),
    "loop divides by a float32 step": in_numpy(
        "gradient",
        ("] = (above - below) / (2 * h)", "] = (above - below) / (2 * float(np.float32(h)))"),
        where=("loop",),
    ),
    "loop moves by a float32 step": in_numpy(
        "gradient", ("p.flat[entry] = value + h", "p.flat[entry] = value + float(np.float32(h))"), where=("loop",)
    ),
    "loop leaves a parameter moved": in_numpy("gradient", ("        p.flat[entry] = value\n", ""), where=("loop",)),
    "batched leaves a parameter moved": in_numpy(
        "gradient", ("    moved[nth, entry] = value\n", ""), where=("batched",)
    ),
    "loop moves the caller's parameters": in_numpy(
        "gradient",
        ("Params(*(p.copy() for p in params))", "params"),
        ("        p.flat[entry] = value\n", ""),
        where=("loop",),
    ),
    "batched loses its last chunk": in_numpy(
        "gradient",
        ("differences = np.empty(flat.shape, p.dtype)", "differences = np.zeros(flat.shape, p.dtype)"),
        ("in _slices(len(flat), size):", "in list(_slices(len(flat), size))[:-1]:"),
        where=("batched",),
    ),
    "structured loses its last chunk": in_numpy(
        "gradient", ("in _slices(len(pixel), size):", "in list(_slices(len(pixel), size))[:-1]:"), where=("structured",)
    ),
    "structured forgets the sign of an input": in_numpy(
        "gradient", ("np.sign(value) * hidden", "hidden"), where=("structured",)
    ),
    "a bias has the largest input": in_numpy("gradient", ("h / shift, hidden", "1.0, hidden"), where=("collocated",)),
    "a node is missing": in_numpy(
        "collocation", ("return count\n", "return max(1, count - 1)\n"), where=("collocated",)
    ),
    "two terms are missing": in_numpy("collocation", ("return terms\n", "return max(1, terms - 2)\n"), where=DIRECT),
    "nodes of another polynomial": in_numpy(
        "collocation",
        (
            "return np.cos((2 * k - 1) * math.pi / (4 * count + 2))",
            "return np.cos((2 * k - 1) * math.pi / (4 * count + 1))",
        ),
        where=("collocated",),
    ),
    "the shift of an output is squared": in_numpy(
        "difference", ("e, f = np.expm1(s)", "e, f = np.expm1(s * s)"), where=DIRECT
    ),
    "the others are 1 - y_t": in_numpy(
        "difference",
        ("y=np.where(right, others.sum(axis=1, keepdims=True), y)", "y=np.where(right, 1 - y_t, y)"),
        where=DIRECT,
    ),
    "w is 1 - z": in_numpy("difference", ("w1=sigmoid(-a1)", "w1=1 - z1"), where=DIRECT),
    "expm1 is exp - 1": in_numpy("difference", ("e = np.expm1(-s)", "e = np.exp(-s) - 1"), where=DIRECT),
    "expm1 is float32": in_numpy(
        "difference", ("e = np.expm1(-s)", "e = np.expm1(np.float32(-s)).astype(s.dtype)"), where=DIRECT
    ),
    "log1p is log(1 +)": in_numpy("difference", ("return np.log1p(net.q", "return np.log(1 + net.q"), where=DIRECT),
    "sigmoid is made of tanh": in_numpy(
        "functions",
        ("return np.where(a >= 0, 1, tail) / (1 + tail)", "return (1 + np.tanh(a / 2)) / 2"),
        where=(CLOSED_FORM, *DIRECT),
    ),
    "the closed form has 1 - z": in_numpy("two_layer_net", ("* sigmoid(-a1)", "* (1 - z1)"), where=(CLOSED_FORM,)),
    "the closed form has y - 1": in_numpy(
        "two_layer_net",
        ("delta2[rows, labels] = -delta2.sum(axis=1)", "delta2[rows, labels] = y_t - 1"),
        where=(CLOSED_FORM,),
    ),
    "q is left out of the difference": in_numpy(
        "difference", ("np.log1p(net.q * (above", "np.log1p((above"), where=DIRECT
    ),
    "r is left out of the difference": in_numpy("difference", ("(1 + net.r * above)", "1"), where=DIRECT),
    "DELTA is left out of the loss": in_numpy(
        "functions", ("np.log(right + DELTA)", "np.log(right)"), where=(FORWARD, *LOSSES)
    ),
    "DELTA is 1e-8": in_numpy("functions", ("DELTA = 1e-7", "DELTA = 1e-8"), where=EVERYWHERE),
    "q is left out of the closed form": in_numpy(
        "two_layer_net", ("(y_t / (y_t + DELTA) / len(x))", "(y_t / y_t / len(x))"), where=(CLOSED_FORM,)
    ),
    "the loss is a sum": in_numpy("functions", (".mean(axis=-1)", ".sum(axis=-1)"), where=(FORWARD, *LOSSES)),
    "the logarithm has base 2": in_numpy("functions", ("-np.log(right", "-np.log2(right"), where=(FORWARD, *LOSSES)),
    "softmax sums over the samples": in_numpy(
        "functions", ("exponentials.sum(axis=-1", "exponentials.sum(axis=-2"), where=EVERYWHERE
    ),
    "b1 is left out of the net": in_numpy(
        "two_layer_net", ("x @ params.W1 + params.b1[..., None, :]", "x @ params.W1"), where=(FORWARD, *LOSSES)
    ),
    "b2 is left out of the closed form": in_numpy(
        "two_layer_net", ("softmax(z1 @ params.W2 + params.b2)", "softmax(z1 @ params.W2)"), where=(CLOSED_FORM,)
    ),
}

IN_JAX = {
    "half is dropped": in_jax(("return (above - below) / (2 * h)", "return (above - below) / h"), where=("batched",)),
    "differences are one-sided": in_jax(("for by in (h, -h)", "for by in (2 * h, 0 * h)"), where=("batched",)),
    "the last chunk is lost": in_jax(
        ("(differences(flat[whole:]))", "(0 * differences(flat[whole:]))"), where=("batched",)
    ),
    "structured loses its last chunk": in_jax(
        ("lax.fori_loop(0, -(-count // size)", "lax.fori_loop(0, count // size"), where=("structured",)
    ),
    "structured counts its padding": in_jax(
        ("jnp.where(n * size + jnp.arange(size) < count, x[b, i], 0)", "x[b, i]"), where=("structured",)
    ),
    "DELTA is 1e-8": in_jax(("from reference.functions import DELTA\n", "DELTA = 1e-8\n"), where=(FORWARD,)),
    "b1 is left out of the net": in_jax(
        ("_sigmoid(_matmul(x, params.W1) + params.b1)", "_sigmoid(_matmul(x, params.W1))"), where=(FORWARD,)
    ),
    "accuracy is float32": in_jax(("== labels).astype(x.dtype).mean()", "== labels).mean()"), where=(FORWARD,)),
    "a node is missing": in_jax(
        ("positive_nodes(needs.hidden_nodes)", "positive_nodes(needs.hidden_nodes - 1)"), where=("collocated",)
    ),
    "a term is missing": in_jax(
        ("for n in range(sums.shape[1] - 2, -1, -1)", "for n in range(sums.shape[1] - 3, -1, -1)"),
        where=("collocated",),
    ),
}

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
    return SimpleNamespace(**{name: getattr(port, name) for name in dir(port) if name[0] != "_"} | changes)


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


def on_any_backend(backend: str, *, gradients: tuple[str, ...]) -> dict[str, Fault]:
    """Return the faults that can be planted around a right port; `gradients` are the strategies to look at."""

    def each(plant: Callable[..., Any], changes: dict[str, Any], where: tuple[str | None, ...]) -> dict[str, Fault]:
        return {name: Fault(lambda c=change: plant(ports.load(backend), c), where) for name, change in changes.items()}

    return (
        {"the closed form as a difference": Fault(lambda: closed_form_as_differences(ports.load(backend)), gradients)}
        | each(with_calls, CALLS, gradients)
        | each(with_results, RESULTS, (CLOSED_FORM, *gradients))
        | each(with_forward, FORWARDS, (FORWARD,))
    )
