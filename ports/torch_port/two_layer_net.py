"""The net in PyTorch, as pure functions of `Params`: predictions, loss, accuracy, and the derivative in closed form.

The formulas are those of reference/two_layer_net.py. An operation takes some microseconds however small it is: they are
written with as few as possible, and update in place.
"""

from typing import Any

import torch
from torch import Tensor

from ports.torch_port.runtime import isolated, scalar
from reference import validation
from reference.defaults import MEMORY
from reference.functions import DELTA
from reference.two_layer_net import Params
from reference.validation import Magnitudes

# Not in PyTorch: `Params`: all ports share the reference's
# Not in PyTorch: `init`: the reference draws the initial net of every port


@isolated
def predict(params: Params, x: Tensor) -> Tensor:
    """Compute the class probabilities of each sample, (B, O)."""
    validation.check_net(params, x, Tensor, max_abs)
    return torch.softmax(logits(params, x), dim=0).T.contiguous()


@isolated
def loss(params: Params, x: Tensor, t: Any) -> Tensor:
    """Compute the mean cross entropy of the batch; `t` holds class indices (B,) or one-hot rows (B, O)."""
    return loss_of_labels(params, x, check_batch(params, x, t)[0])


@isolated
def accuracy(params: Params, x: Tensor, t: Any) -> Tensor:
    """Compute the share of samples whose most probable class is the right one."""
    labels, _ = check_batch(params, x, t)
    return (logits(params, x).argmax(dim=0) == labels).to(x.dtype).mean()  # bools have no mean


@isolated
def gradient(params: Params, x: Tensor, t: Any) -> Params:
    """Compute the derivative of the loss in closed form: the yardstick, not a way to train."""
    return closed_form(params, x, check_batch(params, x, t)[0], len(x))[1]


def check_batch(params: Params, x: Tensor, t: Any, memory: float = MEMORY) -> tuple[Tensor, Magnitudes]:
    """Check a net, its batch and the memory budget; return the labels as class indices (B,), and the magnitudes."""
    validation.check_memory(memory)
    magnitudes = validation.check_net(params, x, Tensor, max_abs)
    on_host = t.detach().cpu() if isinstance(t, Tensor) else t
    labels = validation.check_labels(on_host, len(x), len(params.b2))
    return torch.from_numpy(labels).to(x.device), magnitudes


def max_abs(array: Tensor) -> float:
    """Return max|array|, NaN if there is a NaN."""
    low, high = torch.aminmax(array)  # both NaN if there is one
    return float(torch.maximum(high, -low))


def logits(params: Params, x: Tensor) -> Tensor:
    """Compute a2, transposed: (O, B), since over copies of W1, (P, H, I) in memory, vmap then makes one product."""
    z1 = (params.W1.T @ x.T + params.b1[:, None]).sigmoid_()  # (H, B)
    return params.W2.T @ z1 + params.b2[:, None]


# Only in PyTorch: a training takes the logarithms of all its steps at once, and ranks send y_t in place of losses
def probabilities_of_labels(params: Params, x: Tensor, labels: Tensor) -> Tensor:
    """Compute y_t, (1, B)."""
    return torch.softmax(logits(params, x), dim=0).gather(0, labels[None])


# Only in PyTorch: the reference's stands in functions.py and takes all probabilities
def cross_entropy(y_t: Tensor) -> Tensor:
    """Compute the losses (...) from the probabilities of the right classes, (..., B)."""
    return -torch.log(y_t + DELTA).mean(dim=-1)


def loss_of_labels(params: Params, x: Tensor, labels: Tensor) -> Tensor:
    """Compute the loss for labels that are class indices."""
    return cross_entropy(probabilities_of_labels(params, x, labels))[0]


def closed_form(params: Params, x: Tensor, labels: Tensor, samples: int) -> tuple[Tensor, Params]:
    """Compute y_t (B, 1), and the share of these samples in the derivative for a batch of `samples`."""
    _, z1, one_minus_z1, _, y = forward_pass(params, x)
    y_t, delta2 = output_delta(y, labels)
    delta2.mul_(y_t / ((y_t + scalar(DELTA, x)) * samples))
    delta1 = (delta2 @ params.W2.T).mul_(z1).mul_(one_minus_z1)  # (B, H)
    return y_t, Params((delta1.T @ x).T, delta1.sum(0), z1.T @ delta2, delta2.sum(0))


# Only in PyTorch: the closed form and the differences share it
def forward_pass(params: Params, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute a1, z1, 1 - z1 without cancellation, a2 and y."""
    a1 = torch.addmm(params.b1, x, params.W1)
    z1 = torch.sigmoid(a1)
    a2 = torch.addmm(params.b2, z1, params.W2)
    return a1, z1, torch.sigmoid(-a1), a2, torch.softmax(a2.T, dim=0).T  # along the outer axis: in half the time


# Only in PyTorch: the closed form and the differences share it
def output_delta(y: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return y_t (B, 1), and y - onehot(t) without cancellation: for the right class minus the sum of the others."""
    column = labels.unsqueeze(1)
    y_t = y.gather(1, column)
    others = y.scatter(1, column, 0)
    return y_t, others.scatter_(1, column, others.sum(1, keepdim=True).neg_())
