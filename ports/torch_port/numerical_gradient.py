"""The gradient as central differences, (loss(p + h) - loss(p - h)) / (2 h) for every parameter p: four strategies.

reference/numerical_gradient.py says how they work. PyTorch's own are `torch.func.vmap` over perturbed copies, gradients
that lie in memory as their products make them, and the constants of collocation (`Nodes`), which a training computes
once.

Some functions return y_t, the probabilities of the right classes, in place of the loss. Their last argument is the
number of samples of the whole batch, of which theirs may be a part, such as one rank's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ports.torch_port.interpolation import Nodes, interpolate, make_nodes
from ports.torch_port.loss_difference import (
    Base,
    hidden_difference,
    make_output_shift,
    make_shift,
    multiply_powers,
    output_difference,
    sum_powers,
    unperturbed_pass,
)
from ports.torch_port.runtime import isolated
from ports.torch_port.two_layer_net import check_batch, loss_of_labels
from reference.collocation import Plan, make_plan, shift_scale, slices, warn_of_structured
from reference.defaults import MEMORY, H
from reference.two_layer_net import Params
from reference.validation import Entries, check_entries, check_h, check_h_moves, dtype_name

PAIRS = 2048
"""Pairs of sample and input that `structured` works on at a time: with 50 hidden units they stay in a core's cache."""
NETS = 128
"""Perturbed nets that `batched` works on at a time, at most: more would only leave the cache."""


@isolated
def loop(
    params: Params,
    x: Tensor,
    t: Any,
    *,
    h: float = H,
    memory: float = MEMORY,
    entries: Params | None = None,
) -> Params:
    """Compute the central differences one parameter at a time, as the chapter does: the definition."""
    h = check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    check_h_moves(h, magnitudes, dtype_name(x))
    return loop_differences(params, x, labels, h, check_entries(params, entries))


def loop_differences(params: Params, x: Tensor, labels: Tensor, h: float, entries: Entries) -> Params:
    """Compute the differences at the flat indices `entries` of each member."""
    moved = Params(*(p.clone(memory_format=torch.contiguous_format) for p in params))
    return Params(*(loop_member(moved, p, at, x, labels, h) for p, at in zip(moved, entries, strict=True)))


def loop_member(moved: Params, p: Tensor, at: np.ndarray, x: Tensor, labels: Tensor, h: float) -> Tensor:
    """Compute the differences of one member; `p`, a member of `moved`, is moved in place and restored."""
    above, below = p.new_empty(at.size), p.new_empty(at.size)
    for n, entry in enumerate(at.flat):
        parameter = p.view(-1)[entry]
        value = parameter.clone()
        torch.add(value, h, out=parameter)
        above[n] = loss_of_labels(moved, x, labels)
        torch.sub(value, h, out=parameter)
        below[n] = loss_of_labels(moved, x, labels)
        parameter.copy_(value)
    return above.sub_(below).div_(2 * h).view(at.shape)


@isolated
def batched(
    params: Params,
    x: Tensor,
    t: Any,
    *,
    h: float = H,
    memory: float = MEMORY,
    entries: Params | None = None,
) -> Params:
    """Compute what `loop` computes, from forward passes of many perturbed nets at a time, in chunks within `memory`."""
    h = check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    check_h_moves(h, magnitudes, dtype_name(x))
    return batched_differences(params, x, labels, h, memory, check_entries(params, entries))


def batched_differences(params: Params, x: Tensor, labels: Tensor, h: float, memory: float, entries: Entries) -> Params:
    """Compute the differences at the flat indices `entries` of each member."""
    return Params(*(batched_member(params, m, at, x, labels, h, memory) for m, at in enumerate(entries)))


def batched_member(
    params: Params, member: int, at: np.ndarray, x: Tensor, labels: Tensor, h: float, memory: float
) -> Tensor:
    """Compute the differences of one member, by its index, at the flat indices `at`."""
    p, name = params[member], Params._fields[member]
    size = max(1, min(at.size, NETS, int(memory) // perturbed_bytes(params, member, len(x))))
    copies = p.movedim(-1, 0).repeat(size, *[1] * p.ndim).movedim(1, -1)  # (P, I, H), in memory (P, H, I)
    losses = torch.func.vmap(lambda copy: loss_of_labels(params._replace(**{name: copy}), x, labels))
    differences = p.new_empty(at.size)
    for part in slices(at.size, size):
        indices = np.unravel_index(at.flat[part], p.shape)  # torch's own imports sympy
        entry = tuple(torch.from_numpy(index).to(x.device) for index in indices)
        differences[part] = copies_differences(losses, copies, entry, p[entry], h)
    return differences.view(at.shape)


# Other arguments: `losses` holds the rest of the net, the inputs and the labels, as vmap wants it
def copies_differences(
    losses: Callable[[Tensor], Tensor], copies: Tensor, entry: tuple[Tensor, ...], value: Tensor, h: float
) -> Tensor:
    """Move one entry of each copy to either side and restore it: to make the copies again would cost more."""
    moved = copies[: len(value)]
    nth = (torch.arange(len(value), device=value.device), *entry)
    moved[nth] = value + h
    above = losses(moved)  # (P,)
    moved[nth] = value - h
    below = losses(moved)
    moved[nth] = value
    return above.sub_(below).div_(2 * h)


def perturbed_bytes(params: Params, member: int, samples: int) -> int:
    """Return the bytes of one perturbed copy and its forward pass."""
    hidden, outputs = params.W2.shape
    units = 2 * hidden + 3 * outputs if member < 2 else 4 * outputs
    return (params[member].numel() + samples * units) * params.W1.itemsize


@isolated
def structured(params: Params, x: Tensor, t: Any, *, h: float = H, memory: float = MEMORY) -> Params:
    """Compute what `loop` computes, to a few roundings: only what a perturbation reaches, and without cancellation."""
    h = check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    plan = make_plan(h, magnitudes["x"], magnitudes["W2"], dtype_name(x))
    return structured_gradient(params, x, labels, h, memory, plan, magnitudes["x"], len(x))[1]


def structured_gradient(
    params: Params,
    x: Tensor,
    labels: Tensor,
    h: float,
    memory: float,
    plan: Plan,
    max_abs_x: float,
    samples: int,
) -> tuple[Tensor, Params]:
    """Compute y_t (B, 1), and the share of these samples in the gradient for a batch of `samples`, unchecked."""
    (inputs, units), outputs = params.W1.shape, len(params.b2)
    hidden, output, y_t = x.new_zeros(inputs + 1, units), x.new_zeros(units + 1, outputs), []
    pairs = max(1, min(PAIRS, int(memory) // (unit_bytes(params, plan) * units)))
    scale = shift_scale(h, max_abs_x)
    for rows in slices(len(x), int(memory) // structured_row_bytes(params, plan)):
        base = unperturbed_pass(params, x[rows], labels[rows], scale, plan.terms, sum_powers)
        add_input_differences(hidden, base, with_bias(x[rows]), h / scale, scale, plan, pairs)
        z1_shift = make_output_shift(with_bias(base.z1).T[:, :, None], h, plan.output_shift_terms)  # (H + 1, b, 1)
        output.add_(output_difference(base, z1_shift, h, plan).sum(1))  # of (H + 1, b, O)
        y_t.append(base.y_t)
    shift, logit = scale / h / samples, 1 / samples
    differences = Params(hidden[:-1] * shift, hidden[-1] * shift, output[:-1] * logit, output[-1] * logit)
    return torch.cat(y_t), differences


def unit_bytes(params: Params, plan: Plan) -> int:
    """Return the bytes of one sample, or one pair of sample and input, for each hidden unit in `structured`."""
    return params.W1.itemsize * (12 + 10 * (plan.terms or len(params.b2)))


def structured_row_bytes(params: Params, plan: Plan) -> int:
    """Return the bytes of one sample in `structured`, those for its inputs and the indices of its pairs included."""
    return unit_bytes(params, plan) * params.W2.numel() + 40 * (len(params.W1) + 1)


def with_bias(inputs: Tensor) -> Tensor:
    """Append a column of ones, (B, I + 1): a bias is a weight whose input is 1."""
    return torch.nn.functional.pad(inputs, (0, 1), value=1)


def add_input_differences(
    total: Tensor, base: Base, x: Tensor, factor: float, scale: float, plan: Plan, pairs: int
) -> None:
    """Add each input's differences to its row of `total` (I, H), from the pairs of input and sample that are not 0."""
    for part in x.T.nonzero().split(pairs):
        i, b = part.T
        value = x[b, i][:, None]
        shift = make_shift(factor * value.abs(), scale, plan.shift_terms)
        differences = hidden_difference(base.take(b), shift, scale, plan)  # (P, H)
        add_rows(total, i, differences.mul_(value.sign()))


# Only in PyTorch: on a GPU `index_add_` adds by atomics, in any order.
def add_rows(total: Tensor, i: Tensor, rows: Tensor) -> None:
    """Add `rows` to the rows `i` of `total` in a fixed order, so that a repeated call gives the same bits."""
    if total.is_cpu:
        total.index_add_(0, i, rows)
    else:
        total.index_put_((i,), rows, accumulate=True)


@isolated
def collocated(params: Params, x: Tensor, t: Any, *, h: float = H, memory: float = MEMORY) -> Params:
    """Compute what `structured` computes, from differences at a few nodes and as many matrix products."""
    h = check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    plan = make_plan(h, magnitudes["x"], magnitudes["W2"], dtype_name(x))
    if not plan.collocates:
        warn_of_structured(h, magnitudes["x"])
    nodes = make_nodes(h, magnitudes["x"], plan, len(x), params)
    return collocated_gradient(params, x, labels, h, memory, plan, magnitudes["x"], nodes, len(x))[1]


def collocated_gradient(
    params: Params,
    x: Tensor,
    labels: Tensor,
    h: float,
    memory: float,
    plan: Plan,
    max_abs_x: float,
    nodes: Nodes | None,
    samples: int,
) -> tuple[Tensor, Params]:
    """Compute y_t (B, 1), and the share of these samples in the gradient for a batch of `samples`, unchecked.

    `samples` are those that `nodes` were made for. Where there are no nodes, compute `structured`'s.
    """
    if nodes is None:
        return structured_gradient(params, x, labels, h, memory, plan, max_abs_x, samples)
    y_t, total, size = [], None, int(memory) // collocated_row_bytes(params, plan)
    chunks = [(x, labels)] if size >= len(x) else [(x[rows], labels[rows]) for rows in slices(len(x), size)]
    for inputs, targets in chunks:
        base = unperturbed_pass(params, inputs, targets, nodes.scale, plan.terms, multiply_powers)
        part = collocated_sums(base, inputs, h, nodes, plan)
        total = part if total is None else Params(*map(torch.add, total, part))
        y_t.append(base.y_t)
    assert total is not None  # no batch is empty
    return torch.cat(y_t) if len(y_t) > 1 else y_t[0], total


# Other arguments: `nodes` hold the number of samples
def collocated_sums(base: Base, x: Tensor, h: float, nodes: Nodes, plan: Plan) -> Params:
    """Compute the share of the samples of `base` in the gradient."""
    hidden = hidden_difference(base, nodes.hidden, nodes.scale, plan)  # (m, B, H)
    output = output_difference(base, nodes.output, h, plan)  # (m, B, O)
    W1, b1 = interpolate(x, nodes.input_factor, hidden, nodes.hidden_matrix, plan.mixed)
    W2, b2 = interpolate(base.z1, 1.0, output, nodes.output_matrix, plan.output_mixed)
    return Params(W1, b1, W2, b2)


def collocated_row_bytes(params: Params, plan: Plan) -> int:
    """Return the bytes that one sample takes in `collocated`."""
    (inputs, hidden), outputs = params.W1.shape, len(params.b2)
    per_node = 10 if plan.terms else 12 + 24 * outputs
    units = (10 + 3 * plan.terms + per_node * plan.hidden_nodes) * hidden
    per_class = 8 + 8 * plan.output_nodes
    return params.W1.itemsize * ((2 + 2 * plan.hidden_nodes) * inputs + units + per_class * outputs)


GRADIENTS: dict[str, Callable[..., Params]] = {
    "loop": loop,
    "batched": batched,
    "structured": structured,
    "collocated": collocated,
}
"""The strategies by name."""
