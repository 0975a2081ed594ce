"""Mini-batch gradient descent: all steps of one call are one compiled program, a scan over the mini-batches."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ports.jax_port.numerical_gradient import (
    GRADIENTS,
    batched_differences,
    collocated_gradient,
    loop_differences,
    structured_gradient,
)
from ports.jax_port.runtime import compiled, with_x64
from ports.jax_port.two_layer_net import check_batch, closed_form, compute_max_abs, loss_of_labels
from reference import validation
from reference.collocation import Plan, run_within_plan
from reference.defaults import CLOSED_FORM, MEMORY, H
from reference.two_layer_net import Params

LossAndGradient = Callable[[Params, Array, Array], tuple[Array, Params]]
"""From (params, x, labels) to the loss and its gradient."""


@with_x64
def train_steps(
    params: Params,
    x: Array,
    t: Any,
    batches: np.ndarray,
    *,
    strategy: str,
    learning_rate: float,
    h: float = H,
    memory: float = MEMORY,
) -> tuple[Params, Array]:
    """Take K steps of gradient descent, one for each mini-batch; see `reference.descent.train_steps`."""
    h = validation.check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    batches = jax.device_put(validation.check_batches(batches, len(x)), x.device)
    validation.check_strategy(strategy, GRADIENTS)
    dtype, scalar = validation.dtype_name(x), x.dtype.type
    if strategy in ("loop", "batched"):
        validation.check_h_moves(h, magnitudes, dtype)
    rate = scalar(validation.check_learning_rate(learning_rate, dtype))
    of_x = {"x": scalar(magnitudes["x"])}

    def run(plan: Plan) -> tuple[tuple[Params, Array], float]:
        program, settings = compiled(differentiate_and_descend), (strategy, scalar(h), int(memory), plan)
        guarded = strategy != "collocated" or not plan.mixed
        result, max_abs_W2, finite = program(*settings, guarded, of_x, params, x, labels, batches, rate)
        if not guarded and not finite:  # float32 did not hold something, or the training diverges
            result, max_abs_W2, _ = program(*settings, True, of_x, params, x, labels, batches, rate)
        return result, largest_finite(max_abs_W2)

    return run_within_plan(run, strategy, h, magnitudes, dtype)


# Only in JAX: the program that `train_steps` compiles.
def differentiate_and_descend(
    strategy: str, h: Array, memory: int, plan: Plan, guarded: bool, magnitudes: dict[str, Array], *descent: Any
) -> tuple[tuple[Params, Array], Array, Array]:
    """Run `descend`, with the arguments `descent`, on the function that `differentiate_by` returns.

    The last result says whether all weights of the trained net are finite; if `guarded`, where nobody asks, it is True.
    """
    result, max_abs_W2 = descend(differentiate_by(strategy, h, memory, plan, magnitudes, guarded), *descent)
    if guarded:
        return result, max_abs_W2, jnp.array(True)
    (W1, _, W2, _), _ = result
    return result, max_abs_W2, jnp.isfinite(W1).all() & jnp.isfinite(W2).all()


# Only in JAX: the scan has no maximum of its own that leaves out what is not finite.
def largest_finite(max_abs_W2: Array) -> float:
    """Return the largest finite one of the max|W2| before each step."""
    values = np.asarray(max_abs_W2)
    return float(values.max(initial=0, where=np.isfinite(values)))


# Other arguments: `guarded` is that of `interpolation.interpolate`
def differentiate_by(
    strategy: str, h: Array, memory: int, plan: Plan, magnitudes: dict[str, Array], guarded: bool
) -> LossAndGradient:
    """Return the function that computes the loss and the gradient from one forward pass."""
    if strategy == CLOSED_FORM:
        return closed_form
    if strategy == "structured":
        return partial(structured_gradient, h=h, memory=memory, plan=plan, max_abs_x=magnitudes["x"])
    if strategy == "collocated":
        compute = partial(collocated_gradient, guarded=guarded)
        return partial(compute, h=h, memory=memory, plan=plan, max_abs_x=magnitudes["x"])
    return partial(loss_and_differences, h=h, memory=memory, strategy=strategy)


# Only in JAX: the functions of GRADIENTS check numbers, which a program does not have when it is compiled.
def loss_and_differences(
    params: Params, x: Array, labels: Array, h: Array, memory: int, strategy: str
) -> tuple[Array, Params]:
    """Compute the loss, and the gradient of `loop` or `batched`."""
    entries = validation.check_entries(params, None)
    if strategy == "loop":
        differences = loop_differences(params, x, labels, h, entries)
    else:
        differences = batched_differences(params, x, labels, h, memory, entries)
    return loss_of_labels(params, x, labels), differences


def descend(
    loss_and_gradient: LossAndGradient,
    params: Params,
    x: Array,
    labels: Array,
    batches: Array,
    learning_rate: Array,
) -> tuple[tuple[Params, Array], Array]:
    """Take the steps; return the net and the losses (K,), and max|W2| before each step (K,)."""

    def step(params: Params, batch: Array) -> tuple[Params, tuple[Array, Array]]:
        loss, slope = loss_and_gradient(params, x[batch], labels[batch])
        moved = jax.tree.map(lambda p, g: p - learning_rate * g, params, slope)
        return moved, (loss, compute_max_abs(params.W2))

    trained, (losses, max_abs_W2) = lax.scan(step, params, batches)
    return (trained, losses), max_abs_W2
