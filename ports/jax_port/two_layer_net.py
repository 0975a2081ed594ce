"""The net in JAX: predictions, loss, accuracy, and the derivative in closed form; the formulas are in the reference.

The first four functions check their arguments and run a compiled program; the programs are made of the others.
"""

import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ports.jax_port.functions import cross_entropy_error, matmul, sigmoid, sigmoids, softmax
from ports.jax_port.runtime import compiled, with_x64
from reference import validation
from reference.defaults import MEMORY
from reference.functions import DELTA
from reference.two_layer_net import Params
from reference.two_layer_net import max_abs as max_abs_on_host
from reference.validation import Magnitudes

# Not in JAX: `Params`: the reference's class holds the arrays of every port.
# Not in JAX: `init`: NumPy draws the net, so that a seed means the same one on every port.

MAX_ABS: dict[int, float] = {}
"""What `max_abs` has computed, by the id of an array that still exists."""


@with_x64
def predict(params: Params, x: Array) -> Array:
    """Compute the class probabilities of each sample, (B, O)."""
    validation.check_net(params, x, Array, max_abs)
    return compiled(probabilities)(params, x)


@with_x64
def loss(params: Params, x: Array, t: Any) -> Array:
    """Compute the mean cross entropy of the batch."""
    return compiled(loss_and_accuracy)(params, x, check_batch(params, x, t)[0])[0]


@with_x64
def accuracy(params: Params, x: Array, t: Any) -> Array:
    """Compute the share of samples whose most probable class is the right one."""
    return compiled(loss_and_accuracy)(params, x, check_batch(params, x, t)[0])[1]


@with_x64
def gradient(params: Params, x: Array, t: Any) -> Params:
    """Compute the derivative of the loss in closed form: the yardstick, not a way to train."""
    return compiled(closed_form, 1)(params, x, check_batch(params, x, t)[0])


def check_batch(params: Params, x: Array, t: Any, memory: float = MEMORY) -> tuple[Array, Magnitudes]:
    """Check a net, its batch and the memory budget; return the labels as class indices (B,), and the magnitudes."""
    validation.check_memory(memory)
    magnitudes = validation.check_net(params, x, Array, max_abs)
    return jax.device_put(validation.check_labels(t, len(x), len(params.b2)), x.device), magnitudes


def max_abs(array: Array) -> float:
    """Return max|array|, NaN if there is a NaN. An array of JAX never changes, so it is computed once for each."""
    key = id(array)
    if key not in MAX_ABS:
        on_host = all(device.platform == "cpu" for device in array.devices())  # NumPy need not compile for each shape
        MAX_ABS[key] = max_abs_on_host(np.asarray(array)) if on_host else float(compiled(compute_max_abs)(array))
        weakref.finalize(array, MAX_ABS.pop, key, None)
    return MAX_ABS[key]


# Only in JAX: training needs it as a part of its program, on the device.
def compute_max_abs(array: Array) -> Array:
    """Compute max|array|."""
    return jnp.abs(array).max()


# Only in JAX: a function that can be compiled without the checks of `predict`.
def probabilities(params: Params, x: Array) -> Array:
    """Compute the class probabilities, (B, O)."""
    return softmax(logits(params, x))


# Only in JAX: one program for both, since compiling a second one costs more than computing what is not asked for.
def loss_and_accuracy(params: Params, x: Array, labels: Array) -> tuple[Array, Array]:
    """Compute the loss and the accuracy for labels that are class indices; XLA computes the logits once."""
    right = logits(params, x).argmax(axis=1) == labels
    return loss_of_labels(params, x, labels), right.astype(x.dtype).mean()  # the mean of bools would be float32


# Only in JAX: over several devices, a sum stands here (ports/jax_port/mesh_programs.py).
def no_reduction(part: Array) -> Array:
    """Return the product of z1 and W2 as it is: one device has all hidden units."""
    return part


def logits(params: Params, x: Array, all_reduce: Callable[[Array], Array] = no_reduction) -> Array:
    """Compute a2, (B, O). `all_reduce` adds up the products of devices that have only some hidden units each."""
    a1 = matmul(x, params.W1) + params.b1  # (B, H)
    return all_reduce(matmul(sigmoid(a1), params.W2)) + params.b2


def loss_of_labels(params: Params, x: Array, labels: Array) -> Array:
    """Compute the loss for labels that are class indices."""
    return cross_entropy_error(softmax(logits(params, x)), labels)


def closed_form(
    params: Params, x: Array, labels: Array, all_reduce: Callable[[Array], Array] = no_reduction
) -> tuple[Array, Params]:
    """Compute the loss and its derivative for labels that are class indices."""
    z1, one_minus_z1 = sigmoids(matmul(x, params.W1) + params.b1)  # (B, H)
    y = softmax(all_reduce(matmul(z1, params.W2)) + params.b2)  # (B, O)
    right = labels[:, None] == jnp.arange(len(params.b2))
    y_t = jnp.where(right, y, 0).sum(axis=1, keepdims=True)  # (B, 1)
    others = jnp.where(right, 0, y)
    delta2 = jnp.where(right, -others.sum(axis=1, keepdims=True), y) * (y_t / (y_t + DELTA) / len(x))
    delta1 = matmul(delta2, params.W2.T) * z1 * one_minus_z1  # (B, H)
    derivative = Params(matmul(x.T, delta1), delta1.sum(axis=0), matmul(z1.T, delta2), delta2.sum(axis=0))
    return -jnp.log(y_t + DELTA).mean(), derivative
