"""What each device of a mesh computes: the port's own functions on its part, and sums over the devices.

`structured`, `collocated` and the closed form divide the batch and the hidden units: given the logits, the differences
of a unit need no other unit. So only two sums pass between devices: the logits' over "hidden", before the differences,
and the gradient's over "batch", after them. `loop` and `batched` divide the list of parameters to perturb. A step of
training sends nothing else, and nothing to the host.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ports.jax_port.collectives import all_gather, all_reduce_max, all_reduce_sum
from ports.jax_port.descent import LossAndGradient, descend
from ports.jax_port.functions import softmax
from ports.jax_port.layout import AXES
from ports.jax_port.loss_difference import NO_SAMPLE
from ports.jax_port.numerical_gradient import (
    batched_differences,
    collocated_gradient,
    loop_differences,
    structured_gradient,
)
from ports.jax_port.two_layer_net import closed_form, logits, loss_of_labels
from reference.collocation import Plan
from reference.defaults import CLOSED_FORM
from reference.functions import DELTA
from reference.two_layer_net import Params
from reference.validation import Entries, check_entries


def sum_units(part: Array) -> Array:
    """Add up the parts of the logits that the hidden units of the devices contribute."""
    return all_reduce_sum(part, "hidden")


def sample_losses(params: Params, x: Array, labels: Array) -> Array:
    """Compute the loss of each of the device's samples, 0 where there is none."""
    y = softmax(logits(params, x, sum_units))
    y_t = jnp.where(labels[:, None] == jnp.arange(y.shape[1]), y, 0).sum(axis=1)
    return jnp.where(labels == NO_SAMPLE, 0, -jnp.log(y_t + DELTA))


def mesh_closed_form(params: Params, x: Array, labels: Array) -> tuple[Array, Params]:
    """Compute the loss and its derivative; a row that is no sample has neither."""
    return sample_losses(params, x, labels).mean(), closed_form(params, x, labels, sum_units)[1]


def mesh_probabilities(params: Params, x: Array) -> Array:
    """Compute the class probabilities of the device's samples."""
    return softmax(logits(params, x, sum_units))


def mesh_loss(params: Params, x: Array, labels: Array, *, samples: int) -> Array:
    """Compute the loss of the whole batch."""
    return all_reduce_sum(sample_losses(params, x, labels).sum(), "batch") / samples


def mesh_accuracy(params: Params, x: Array, labels: Array, *, samples: int) -> Array:
    """Compute the accuracy of the whole batch."""
    right = logits(params, x, sum_units).argmax(axis=1) == labels
    return all_reduce_sum(right.astype(x.dtype).sum(), "batch") / samples


def mesh_gradient(
    params: Params,
    x: Array,
    labels: Array,
    scalars: dict[str, Array],
    *,
    strategy: str,
    samples: int,
    **options: Any,
) -> Params:
    """Compute the gradient of the whole batch by a strategy that divides it."""
    return differentiate_batch_by(strategy, samples, **scalars, **options)(params, x, labels)[1]


def differentiate_batch_by(strategy: str, samples: int, **options: Any) -> LossAndGradient:
    """Return the function from a device's net and samples to the loss and the gradient of the whole batch.

    `options` are those of the strategy's own function on one device: h, memory, plan, max_abs_x.
    """
    functions: dict[str, Callable[..., tuple[Array, Params]]] = {
        CLOSED_FORM: mesh_closed_form,
        "structured": partial(structured_gradient, all_reduce=sum_units),
        "collocated": partial(collocated_gradient, all_reduce=sum_units),
    }

    def loss_and_gradient(params: Params, x: Array, labels: Array) -> tuple[Array, Params]:
        means = functions[strategy](params, x, labels, **options)
        return all_reduce_sum(jax.tree.map(lambda mean: len(x) / samples * mean, means), "batch")

    return loss_and_gradient


def mesh_differences(
    params: Params,
    x: Array,
    labels: Array,
    h: Array,
    entries: Entries,
    *,
    strategy: str,
    memory: int,
    shapes: tuple[tuple[int, ...], ...],
) -> Params:
    """Compute the differences of `loop` or `batched` at `entries`: each device its share, and all receive all.

    `entries` come from `equal_shares`; `shapes` are those of the result.
    """
    sizes = [len(at) // lax.axis_size(AXES) for at in entries]
    start = [lax.axis_index(AXES) * size for size in sizes]
    share: Any = tuple(map(lax.dynamic_slice_in_dim, entries, start, sizes))
    if strategy == "loop":
        differences = loop_differences(params, x, labels, h, share)
    else:
        differences = batched_differences(params, x, labels, h, memory, share)
    gathered = all_gather(jnp.concatenate(differences), AXES)  # (devices, the shares of all members)
    members = jnp.split(gathered, np.cumsum(sizes)[:-1], axis=1)
    return Params(*(g.ravel()[: math.prod(shape)].reshape(shape) for g, shape in zip(members, shapes, strict=True)))


def equal_shares(entries: Entries, devices: int) -> Entries:
    """Pad the flat indices of each member so that all devices have the same number: some repeat the last one."""
    return tuple(np.pad(at.ravel(), (0, -at.size % devices), mode="edge" if at.size else "constant") for at in entries)


def mesh_descent(
    params: Params,
    x: Array,
    labels: Array,
    batches: Array,
    learning_rate: Array,
    h: Array,
    max_abs_x: Array,
    *,
    strategy: str,
    samples: int,
    memory: int,
    plan: Plan,
) -> tuple[tuple[Params, Array], Array]:
    """Take the steps of a training; return what `descend` returns. `samples` is B, the size of a mini-batch."""
    if strategy in ("loop", "batched"):
        loss_and_gradient = all_differences(strategy, h, memory)
    elif strategy == CLOSED_FORM:
        loss_and_gradient = differentiate_batch_by(strategy, samples)
    else:
        options = {"h": h, "memory": memory, "plan": plan, "max_abs_x": max_abs_x}
        loss_and_gradient = differentiate_batch_by(strategy, samples, **options)
    result, max_abs_W2 = descend(loss_and_gradient, params, x, labels, batches, learning_rate)
    return result, all_reduce_max(max_abs_W2, "hidden")


def all_differences(strategy: str, h: Array, memory: int) -> LossAndGradient:
    """Return the function that computes the loss and the gradient of `loop` or `batched`."""

    def loss_and_gradient(params: Params, x: Array, labels: Array) -> tuple[Array, Params]:
        entries = equal_shares(check_entries(params, None), lax.axis_size(AXES))
        shapes = tuple(p.shape for p in params)
        options: Any = {"strategy": strategy, "memory": memory, "shapes": shapes}
        slope = mesh_differences(params, x, labels, h, entries, **options)
        return loss_of_labels(params, x, labels), slope

    return loss_and_gradient
