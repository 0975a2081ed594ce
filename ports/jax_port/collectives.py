"""What devices send each other in a program of JAX, counted in its jaxpr, and how to do without it."""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax.numpy as jnp
from jax import Array, lax

from ports.messages import Sent, total

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

SENDING = ("psum", "pmax", "all_gather")
"""The primitives that send something."""
_muted = ContextVar("muted", default=False)


def sum_over(parts: Any, axis: str) -> Any:
    """Return the sum over an axis of the mesh, as one message; XLA would send it to the device itself where it is 1."""
    return lax.psum(parts, axis) if _speaks(axis) else parts


def largest_over(array: Array, axis: str) -> Array:
    """Return the largest over an axis of the mesh, entry by entry."""
    return lax.pmax(array, axis) if _speaks(axis) else array


def gather(part: Array, axes: tuple[str, ...]) -> Array:
    """Return the parts of all devices, along a new first axis."""
    shape = (lax.axis_size(axes), *part.shape)
    return lax.all_gather(part, axes) if _speaks(axes) else jnp.broadcast_to(part, shape)


def _speaks(axes: str | tuple[str, ...]) -> bool:
    return lax.axis_size(axes) > 1 and not _muted.get()


def muted(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a function that is traced send nothing: each device takes its own part for that of all."""

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        token = _muted.set(True)
        try:
            return function(*args, **kwargs)
        finally:
            _muted.reset(token)

    return run


def sent_by(jaxpr: Any) -> Sent:
    """Return what each device sends in a program.

    Arrays that are summed side by side are one message: XLA combines them.
    """
    over = [None, *map(_axes, jaxpr.eqns)]
    return total(
        _within(equation) if axes is None else Sent(int(axes != before), _bytes(equation))
        for equation, axes, before in zip(jaxpr.eqns, over[1:], over, strict=False)
    )


def _axes(equation: Any) -> Any:
    """Return over which axes an equation sends something, or None if it does not."""
    name, params = equation.primitive.name, equation.params
    return (name, params.get("axes") or params["axis_name"]) if name.startswith(SENDING) else None


def _bytes(equation: Any) -> int:
    return sum(variable.aval.size * variable.aval.dtype.itemsize for variable in equation.invars)


def _within(equation: Any) -> Sent:
    name = equation.primitive.name
    inner = total(map(sent_by, _jaxprs(equation.params)))
    if inner.messages and name in ("while", "cond"):
        raise NotImplementedError(f"How often a message within `{name}` is sent can't be counted beforehand.")
    times = equation.params["length"] if name == "scan" else 1
    return Sent(times * inner.messages, times * inner.payload)


def _jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """Yield the programs within an equation."""
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if hasattr(each, "eqns") or hasattr(each, "jaxpr"):
                yield getattr(each, "jaxpr", each)
