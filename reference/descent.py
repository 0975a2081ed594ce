"""Mini-batch gradient descent, the chapter's 4.5.2."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from reference import validation
from reference.collocation import Plan, run_within_plan
from reference.defaults import CLOSED_FORM, MEMORY, H
from reference.numerical_gradient import GRADIENTS, collocated_gradient, structured_gradient
from reference.two_layer_net import Params, check_batch, closed_form, loss_of_labels, max_abs
from reference.validation import Magnitudes

LossAndGradient = Callable[[Params, np.ndarray, np.ndarray], tuple[Any, Params]]
"""From (params, x, labels) to the loss and its gradient."""


def train_steps(
    params: Params,
    x: np.ndarray,
    t: np.ndarray,
    batches: np.ndarray,
    *,
    strategy: str,
    learning_rate: float,
    h: float = H,
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
    strategy : str
        A name of `GRADIENTS`, or "closed form".
    learning_rate : float
        The factor of the gradient in a step.
    h : float
        The step of the differences, in [1e-20, 1].
    memory : float
        Bytes that one gradient may take.

    Returns
    -------
    Params
        The net after the last step.
    (K,) array
        The loss of each mini-batch before its step.

    Raises
    ------
    ValueError
        If an argument breaks a rule, or `loop` or `batched` would add h to a parameter so large that p + h = p.
    """
    h = validation.check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    batches = validation.check_batches(batches, len(x))
    validation.check_strategy(strategy, GRADIENTS)
    dtype = validation.dtype_name(x)
    if strategy in ("loop", "batched"):
        validation.check_h_moves(h, magnitudes, dtype)
    learning_rate = validation.check_learning_rate(learning_rate, dtype)

    def run(plan: Plan) -> tuple[tuple[Params, np.ndarray], float]:
        loss_and_gradient = differentiate_by(strategy, h, memory, plan, magnitudes)
        return descend(loss_and_gradient, params, x, labels, batches, learning_rate)

    return run_within_plan(run, strategy, h, magnitudes, dtype)


def differentiate_by(strategy: str, h: float, memory: float, plan: Plan, magnitudes: Magnitudes) -> LossAndGradient:
    """Return the function that computes the loss and the gradient from one forward pass."""
    if strategy == CLOSED_FORM:
        return closed_form
    if strategy == "structured":
        return partial(structured_gradient, h=h, memory=memory, plan=plan, max_abs_x=magnitudes["x"])
    if strategy == "collocated":
        return partial(collocated_gradient, h=h, memory=memory, plan=plan, max_abs_x=magnitudes["x"])
    return lambda *net: (loss_of_labels(*net), GRADIENTS[strategy](*net, h=h, memory=memory))


def descend(
    loss_and_gradient: LossAndGradient,
    params: Params,
    x: np.ndarray,
    labels: np.ndarray,
    batches: np.ndarray,
    learning_rate: float,
) -> tuple[tuple[Params, np.ndarray], float]:
    """Take the steps; return the net and the losses (K,), and the largest finite max|W2| before a step."""
    losses, max_abs_W2 = np.full(len(batches), np.nan, x.dtype), 0.0
    params, inputs = Params(*(p.copy() for p in params)), np.empty((batches.shape[1], x.shape[1]), x.dtype)
    for k, batch in enumerate(batches):  # no large array is made anew in a step: new pages cost more than the sums
        if not math.isfinite(now := max_abs(params.W2)):  # nothing finite follows
            break
        max_abs_W2 = max(max_abs_W2, now)
        np.take(x, batch, axis=0, out=inputs, mode="clip")  # which, unlike "raise", needs no copy
        losses[k], slope = loss_and_gradient(params, inputs, labels[batch])
        for p, g in zip(params, slope, strict=True):
            g *= learning_rate
            p -= g
    return (params, losses), max_abs_W2
