"""What the port needs of JAX itself: its devices, its dtypes and its compiler.

Importing it computes nothing, so that several processes can still join (ports/jax_port/processes.py).
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jax import Array
from jax.extend.core import get_opaque_trace_state

from ports.protocol import NotRunError
from reference import validation
from reference.surroundings import default_arithmetic

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PLATFORMS = {"cuda": "gpu"}
"""JAX's name of a platform, where the port takes PyTorch's instead."""
STATIC = frozenset({"strategy", "memory", "plan", "guarded"})
"""Arguments that decide what a program does, or its shapes: another value is another program."""


SETTINGS: dict[str, tuple[Callable[[Any], AbstractContextManager[Any]], Any]] = {
    "jax_enable_x64": (jax.enable_x64, True),  # so that arrays keep their dtype
    "jax_numpy_rank_promotion": (jax.numpy_rank_promotion, "allow"),
    "jax_numpy_dtype_promotion": (jax.numpy_dtype_promotion, "standard"),
    "jax_default_matmul_precision": (jax.default_matmul_precision, None),
    "jax_default_device": (jax.default_device, None),
    "jax_disable_jit": (jax.disable_jit, False),
    "jax_debug_nans": (jax.debug_nans, False),
    "jax_debug_infs": (jax.debug_infs, False),
    "jax_transfer_guard_host_to_device": (jax.transfer_guard_host_to_device, "allow"),
    "jax_transfer_guard_device_to_device": (jax.transfer_guard_device_to_device, "allow"),
    "jax_transfer_guard_device_to_host": (jax.transfer_guard_device_to_host, "allow"),
}
"""JAX's settings that a call of the port makes, by JAX's name: the context that makes one, and its value."""
_TOP_LEVEL = get_opaque_trace_state()


def with_x64(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run `function` with 64-bit types and with JAX's other defaults, whatever the caller has set.

    Each call enters contexts of its own: one that threads share would mix up the settings that it restores. Within a
    program that is being traced the call is computed at once, of arrays that are known; a tracer is a ValueError.
    """
    names = tuple(inspect.signature(function).parameters)

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        for name, value in validation.named_arguments(names, args, kwargs):
            if isinstance(value, Array):
                _check_concrete(name, value)
        with ExitStack() as stack:
            for name, (context, wanted) in SETTINGS.items():
                if getattr(jax.config, name) not in (wanted, None):
                    stack.enter_context(context(wanted))
            if get_opaque_trace_state() != _TOP_LEVEL:
                stack.enter_context(jax.core.eval_context())
            if not jax.sharding.get_abstract_mesh().empty:
                stack.enter_context(jax.set_mesh(None))  # or arrays off that mesh are refused
            with default_arithmetic():
                return function(*args, **kwargs)

    return run


def _check_concrete(name: str, array: Array) -> None:
    if isinstance(array, jax.core.Tracer):
        raise ValueError(f"`{name}` must hold numbers, got a tracer of jax.jit or another transform: call it outside.")
    if array.is_deleted():
        raise ValueError(f"`{name}` must hold numbers, got an array that was deleted or donated.")


@with_x64
def from_numpy(array: np.ndarray, *, dtype: str, device: str) -> Array:
    """Copy `array` to a device of `devices()`."""
    name, _, index = validation.check_device(device, devices()).partition(":")
    copy = np.array(validation.check_numbers(array), dtype=validation.check_dtype(dtype))  # device_put may alias it
    return jax.device_put(copy, devices_of_kind(name)[int(index or 0)])


@with_x64
def to_numpy(array: Array) -> np.ndarray:
    """Copy `array` to the host."""
    return np.array(array)


def devices() -> tuple[str, ...]:
    """Return the devices that can be used here, the default one first: "cpu", "cuda", "cuda:1", ...

    Raises
    ------
    NotRunError
        If no platform works, or XLA compiles wrongly here. `ports.load` asks for the devices, so that such a build is
        never loaded.
    """
    names = {platform: name for name, platform in PLATFORMS.items()}
    try:
        platforms = dict.fromkeys((jax.default_backend(), "cpu"))
    except AssertionError as error:  # JAX says no more where the plugin of a platform that it knows is missing
        raise NotRunError(f"jax finds no device of the platforms {jax.config.values['jax_platforms']!r}.") from error
    kinds = [(names.get(platform, platform), n) for platform in platforms for n, _ in enumerate(jax.devices(platform))]
    compiler_options()  # only now: where no platform works, a compilation would fail in other words
    return tuple(kind if n == 0 else f"{kind}:{n}" for kind, n in kinds)


def devices_of_kind(kind: str) -> list[jax.Device]:
    """Return JAX's devices of a kind, such as "cpu" or "cuda"."""
    return jax.devices(PLATFORMS.get(kind, kind))


def synchronize(result: Any) -> Any:
    """Wait until `result` has been computed, and return it."""
    return jax.block_until_ready(result)


@cache
def compiled(function: Callable[..., Any], part: int | None = None) -> Callable[..., Any]:
    """Compile `function` when it is called; it is compiled anew for other shapes and for other STATIC arguments.

    With `part` the program returns that part of the result, and computes nothing for the others.
    """

    @wraps(function)
    def one_part(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)[part]

    static = sorted(STATIC & set(inspect.signature(function).parameters))
    program = function if part is None else one_part
    return jax.jit(program, static_argnames=static, compiler_options=compiler_options())


@cache
@with_x64
def compiler_options() -> dict[str, str]:
    """Return the options for every program, with which XLA compiles rightly: the canary checks it.

    With XLA's YNN fusion on the CPU, (expm1(d) - expm1(-d)).sum(0) is exactly 0 from 5,000 columns on: seen in jaxlib
    0.10.2, 0.11.2 and 0.12.0; jax issue 39103.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": ""}
    try:
        jax.jit(jnp.negative, compiler_options=options)(0.0)
    except jax.errors.JaxRuntimeError:  # an XLA without that option
        options = {}
    run_canary(options)
    return options


def run_canary(options: dict[str, str]) -> None:
    """Raise NotRunError if this build of XLA compiles the heart of the port wrongly."""
    for dtype in ("float32", "float64"):
        d = np.linspace(1e-6, 1e-4, 3 * 20_000).reshape(3, -1).astype(dtype)
        got = np.asarray(jax.jit(canary_sum, compiler_options=options)(d), np.float64)
        error = float(np.abs(got / (2 * np.sinh(d.astype(np.float64))).sum(axis=0) - 1).max())
        if not error < 100 * validation.unit_roundoff(dtype):
            raise NotRunError(
                f"this build of jaxlib ({jaxlib.version.__version__}) miscompiles expm1: it is off by {error:.2g}."
            )


def canary_sum(d: Array) -> Array:
    """Compute the sum that XLA has been seen to compile wrongly."""
    return (jnp.expm1(d) - jnp.expm1(-d)).sum(axis=0)
