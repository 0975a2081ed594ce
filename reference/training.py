"""Mini-batch gradient descent, the chapter's 4.5.2."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from reference import gradient as differences
from reference.two_layer_net import Params, largest, loss_and_gradient, loss_of_labels
from reference.two_layer_net import gradient as closed_form
from reference.validation import (
    MEMORY,
    check_batches,
    check_gradient,
    check_labels,
    check_learning_rate,
    check_memory,
    check_net,
    check_step,
    check_step_moves,
)

TRAINABLE = (closed_form, *differences.GRADIENTS.values())
"""What `train_steps` can follow."""


def train_steps(
    params: Params,
    x: np.ndarray,
    t: np.ndarray,
    batches: np.ndarray,
    *,
    gradient: Callable[..., Params],
    learning_rate: float,
    h: float = 1e-4,
    memory: float = MEMORY,
) -> tuple[Params, np.ndarray]:
    """Take K steps of gradient descent, one for each mini-batch.

    Parameters
    ----------
    params : Params
        The initial net; left as it is.
    x : (N, I) array
        All inputs.
    t : (N,) or (N, O) array
        All labels.
    batches : (K, B) int array
        The samples of each mini-batch, as indices into x and t.
    gradient : callable
        The closed form `gradient`, or one of `GRADIENTS`.
    learning_rate : float
        The step of the descent.
    h : float
        The step of the differences.
    memory : float
        Bytes that one gradient may take.

    Returns
    -------
    Params
        The net after the last step.
    (K,) array
        The loss of each mini-batch before its step.
    """
    h, learning_rate = check_step(h), check_learning_rate(learning_rate)
    check_memory(memory)
    sizes = check_net(params, x, np.ndarray, largest)
    labels, batches = check_labels(t, len(x), len(params.b2)), check_batches(batches, len(x))
    check_gradient(gradient, TRAINABLE)
    if gradient in (differences.loop, differences.batched):
        check_step_moves(h, sizes, str(x.dtype))
    step = _loss_and(gradient, h, memory, sizes["x"])
    losses = np.empty(len(batches), x.dtype)
    for k, batch in enumerate(batches):
        losses[k], slope = step(params, x[batch], labels[batch])
        params = Params(*(p - learning_rate * g for p, g in zip(params, slope, strict=True)))
    return params, losses


def _loss_and(gradient: Callable[..., Params], h: float, memory: float, largest_input: float) -> Callable[..., Any]:
    """Return the function of (params, x, labels) that gives the loss and that gradient from one forward pass."""
    if gradient is closed_form:
        return loss_and_gradient
    if gradient is differences.structured:
        return partial(differences.structured_step, h=h, memory=memory, largest_input=largest_input)
    if gradient is differences.collocated:
        return partial(differences.collocated_step, h=h, memory=memory, largest_input=largest_input)
    return lambda *net: (loss_of_labels(*net), gradient(*net, h=h, memory=memory))
