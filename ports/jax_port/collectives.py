"""Messages between the devices of a mesh: how a program sends them, how they are counted, how to leave them out."""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax.numpy as jnp
from jax import Array, lax

from ports.distributed import Sent, total_sent

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PRIMITIVES = ("psum", "pmax", "all_gather")
"""The primitives of JAX that send something."""
_silent = ContextVar("silent", default=False)


def all_reduce_sum(parts: Any, axis: str) -> Any:
    """Sum over an axis of the mesh, in one message; of one device, which XLA would have send to itself, nothing."""
    return lax.psum(parts, axis) if _sends(axis) else parts


def all_reduce_max(array: Array, axis: str) -> Array:
    """Take the maximum over an axis of the mesh, entry by entry."""
    return lax.pmax(array, axis) if _sends(axis) else array


def all_gather(part: Array, axes: tuple[str, ...]) -> Array:
    """Return the parts of all devices, along a new first axis."""
    shape = (lax.axis_size(axes), *part.shape)
    return lax.all_gather(part, axes) if _sends(axes) else jnp.broadcast_to(part, shape)


def _sends(axes: str | tuple[str, ...]) -> bool:
    return lax.axis_size(axes) > 1 and not _silent.get()


def silent(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Send nothing in a function that is traced: each device takes its own part for the whole."""

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        token = _silent.set(True)
        try:
            return function(*args, **kwargs)
        finally:
            _silent.reset(token)

    return run


def sent_by(jaxpr: Any) -> Sent:
    """Count what each device sends in a program.

    Arrays that are summed one after the other are one message: XLA combines them.
    """
    axes = [None, *map(_axes, jaxpr.eqns)]
    return total_sent(
        _sent_within(equation) if over is None else Sent(int(over != before), _payload(equation))
        for equation, over, before in zip(jaxpr.eqns, axes[1:], axes, strict=False)
    )


def _axes(equation: Any) -> Any:
    """Return the primitive and the axes over which an equation sends something, or None if it sends nothing."""
    name, params = equation.primitive.name, equation.params
    return (name, params.get("axes") or params["axis_name"]) if name.startswith(PRIMITIVES) else None


def _payload(equation: Any) -> int:
    return sum(variable.aval.size * variable.aval.dtype.itemsize for variable in equation.invars)


def _sent_within(equation: Any) -> Sent:
    name = equation.primitive.name
    inner = total_sent(map(sent_by, _inner_programs(equation.params)))
    if inner.messages and name in ("while", "cond"):
        raise NotImplementedError(f"How often a message within `{name}` is sent can't be counted beforehand.")
    times = equation.params["length"] if name == "scan" else 1
    return Sent(times * inner.messages, times * inner.payload)


def _inner_programs(params: dict[str, Any]) -> Iterator[Any]:
    """Yield the programs within an equation."""
    for value in params.values():
        for candidate in value if isinstance(value, tuple | list) else (value,):
            if hasattr(candidate, "eqns") or hasattr(candidate, "jaxpr"):
                yield getattr(candidate, "jaxpr", candidate)
