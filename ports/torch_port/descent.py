"""Mini-batch gradient descent in PyTorch, which never waits for the device between two steps."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ports.torch_port.interpolation import make_nodes
from ports.torch_port.numerical_gradient import GRADIENTS, collocated_gradient, structured_gradient
from ports.torch_port.runtime import isolated, scalar
from ports.torch_port.two_layer_net import check_batch, closed_form, cross_entropy, probabilities_of_labels
from reference import validation
from reference.collocation import Plan, run_within_plan
from reference.defaults import CLOSED_FORM, MEMORY, H
from reference.two_layer_net import Params
from reference.validation import Magnitudes

LossAndGradient = Callable[[Params, Tensor, Tensor], tuple[Tensor, Params]]
"""From (params, x, labels) to y_t (B, 1) and the gradient; the losses of all steps follow from y_t at once."""
TakeStep = Callable[[LossAndGradient, Params, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""`take_step`, or its compiled form."""
PLANNED = ("structured", "collocated")
"""The strategies whose plan depends on the weights."""


@isolated
def train_steps(
    params: Params,
    x: Tensor,
    t: Any,
    batches: np.ndarray,
    *,
    strategy: str,
    learning_rate: float,
    h: float = H,
    memory: float = MEMORY,
) -> tuple[Params, Tensor]:
    """Take K steps of gradient descent, one for each mini-batch; see `reference.descent.train_steps`."""
    return train_by(lambda strategy, plan: take_step, params, x, t, batches, strategy, learning_rate, h, memory)


# Only in PyTorch: the backend `torch-compiled` compiles the step where the plan allows it
def train_by(
    choose_step: Callable[[str, Plan], TakeStep],
    params: Params,
    x: Tensor,
    t: Any,
    batches: np.ndarray,
    strategy: str,
    learning_rate: float,
    h: float,
    memory: float,
) -> tuple[Params, Tensor]:
    """Do what `train_steps` does, by the step that `choose_step` returns for a strategy and a plan."""
    checked = check_training(params, x, t, batches, strategy, learning_rate, h, memory)
    h, labels, magnitudes, indices, learning_rate = checked
    params, x = Params(*(p.resolve_neg() for p in params)), x.resolve_neg()  # a graph ignores that a view is negated

    def run(plan: Plan) -> tuple[tuple[Params, Tensor], float]:
        loss_and_gradient = differentiate_by(strategy, h, memory, plan, magnitudes, indices.shape[1], params)
        step, planned = choose_step(strategy, plan), strategy in PLANNED
        descent = descend(loss_and_gradient, params, x, labels, indices, learning_rate, planned, step)
        (trained, y_t), max_abs_W2 = descent
        return (trained, cross_entropy(y_t)), max_abs_W2

    return run_within_plan(run, strategy, h, magnitudes, validation.dtype_name(x))


# Only in PyTorch: the ranks check the same arguments, and then take the steps in another way
def check_training(
    params: Params,
    x: Tensor,
    t: Any,
    batches: np.ndarray,
    strategy: str,
    learning_rate: float,
    h: float,
    memory: float,
) -> tuple[float, Tensor, Magnitudes, Tensor, float]:
    """Check the arguments of `train_steps`; return h, the labels, the magnitudes, the batches and the learning rate.

    Labels and batches are class indices and sample indices on the device of `x`.
    """
    h = validation.check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    indices = torch.from_numpy(validation.check_batches(batches, len(x))).to(x.device)
    validation.check_strategy(strategy, GRADIENTS)
    dtype = validation.dtype_name(x)
    if strategy in ("loop", "batched"):
        validation.check_h_moves(h, magnitudes, dtype)
    return h, labels, magnitudes, indices, validation.check_learning_rate(learning_rate, dtype)


def differentiate_by(
    strategy: str,
    h: float,
    memory: float,
    plan: Plan,
    magnitudes: Magnitudes,
    samples: int,
    params: Params,
    gradients: Mapping[str, Callable[..., Params]] = GRADIENTS,
) -> LossAndGradient:
    """Return the function that computes y_t and the gradient from one forward pass, for batches of `samples`.

    `params` tells shapes, dtype and device. `gradients` has `loop` and `batched`: ranks have functions of their own.
    """
    if strategy == CLOSED_FORM:
        return partial(closed_form, samples=samples)
    if strategy == "structured":
        return partial(structured_gradient, h=h, memory=memory, plan=plan, max_abs_x=magnitudes["x"], samples=samples)
    if strategy == "collocated":
        nodes = make_nodes(h, magnitudes["x"], plan, samples, params)
        return partial(
            collocated_gradient,
            h=h,
            memory=memory,
            plan=plan,
            max_abs_x=magnitudes["x"],
            nodes=nodes,
            samples=samples,
        )
    return lambda *net: (probabilities_of_labels(*net), gradients[strategy](*net, h=h, memory=memory))


def descend(
    loss_and_gradient: LossAndGradient,
    params: Params,
    x: Tensor,
    labels: Tensor,
    batches: Tensor,
    learning_rate: float,
    planned: bool,
    step: TakeStep | None = None,
) -> tuple[tuple[Params, Tensor], float]:
    """Take the steps; return the net, y_t before each step (K, B), and the largest finite max|W2| before a step.

    The last is 0 unless the steps are `planned`: it costs an operation, and nothing else depends on it.
    """
    W1 = params.W1.T.clone(memory_format=torch.contiguous_format).T  # as the gradient of W1 lies in memory
    params, step = Params(W1, *(p.clone() for p in params[1:])), step or take_step
    # Made once. If each step kept an array of its own instead, the heap would be fragmented, and the large arrays of
    # every step would lie in new pages of memory: these cost more than the step.
    inputs, rate = x.new_empty(batches.shape[1], x.shape[1]), scalar(learning_rate, x)
    y_t, max_abs_W2 = x.new_empty(batches.shape), x.new_zeros(len(batches))
    for batch, targets, kept_y_t, kept_max in zip(batches, labels[batches], y_t, max_abs_W2, strict=True):
        if planned:
            torch.max(params.W2.abs(), out=kept_max)
        kept_y_t.copy_(step(loss_and_gradient, params, x, batch, targets, rate, inputs).view(-1))
    finite = torch.where(max_abs_W2.isfinite(), max_abs_W2, 0)
    return (params._replace(W1=W1.contiguous()), y_t), float(finite.max())


# Only in PyTorch: what `torch-compiled` compiles
def take_step(
    loss_and_gradient: LossAndGradient,
    params: Params,
    x: Tensor,
    batch: Tensor,
    targets: Tensor,
    rate: Tensor,
    inputs: Tensor,
) -> Tensor:
    """Move `params` by the gradient of a mini-batch, which is gathered in `inputs`, and return y_t (B, 1) before."""
    y_t, slope = loss_and_gradient(params, torch.index_select(x, 0, batch, out=inputs), targets)
    for p, g in zip(params, slope, strict=True):
        p.addcmul_(g, rate, value=-1)
    return y_t
