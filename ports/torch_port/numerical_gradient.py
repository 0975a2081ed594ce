"""The gradient as central differences, (loss(p + h) - loss(p - h)) / (2 h) for every parameter p: four strategies.

reference/numerical_gradient.py says how they work. PyTorch's own are `torch.func.vmap` over perturbed copies, gradients
that lie in memory as their products make them, and the constants of collocation (`Nodes`), which a training computes
once.

Some functions return y_t, the probabilities of the right classes, in place of the loss. Their last argument is the
number of samples of the whole batch, of which theirs may be a part, such as one rank's.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ports.torch_port.loss_difference import (
    Base,
    hidden_difference,
    make_shift,
    output_difference,
    output_factors,
    unperturbed_pass,
)
from ports.torch_port.nodes import Interpolation, Nodes, make_nodes
from ports.torch_port.runtime import isolated
from ports.torch_port.two_layer_net import check_batch, loss_of_labels
from reference.collocation import Plan, make_plan, slices, warn_of_structured
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
    on_device = (torch.from_numpy(at).to(x.device) for at in entries)
    return Params(*(batched_member(params, m, at, x, labels, h, memory) for m, at in enumerate(on_device)))


def batched_member(
    params: Params, member: int, at: Tensor, x: Tensor, labels: Tensor, h: float, memory: float
) -> Tensor:
    """Compute the differences of one member, by its index, at the flat indices `at`."""
    p, name = params[member], Params._fields[member]
    size = max(1, min(at.numel(), NETS, int(memory // perturbed_bytes(params, member, len(x)))))
    copies = p.movedim(-1, 0).repeat(size, *[1] * p.ndim).movedim(1, -1)  # (P, I, H), in memory (P, H, I)
    losses = torch.func.vmap(lambda copy: loss_of_labels(params._replace(**{name: copy}), x, labels))
    differences = p.new_empty(at.numel())
    for part in slices(at.numel(), size):
        entry = torch.unravel_index(at.flatten()[part], p.shape)
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
    return structured_gradient(params, x, labels, h, memory, plan, len(x))[1]


def structured_gradient(
    params: Params, x: Tensor, labels: Tensor, h: float, memory: float, plan: Plan, samples: int
) -> tuple[Tensor, Params]:
    """Compute y_t (B, 1), and the share of these samples in the gradient for a batch of `samples`, unchecked."""
    total, y_t = Params(*map(torch.zeros_like, params)), []
    shift, classes = make_shift(x.new_full((1, 1), h)), torch.arange(len(params.b2), device=x.device)
    pairs = max(1, min(PAIRS, int(memory // (unit_bytes(params, plan) * len(params.b1)))))
    for rows in slices(len(x), int(memory // structured_row_bytes(params, plan))):
        base = unperturbed_pass(params, x[rows], labels[rows], plan.terms)
        add_input_differences(total.W1, base, x[rows], h, plan, pairs)
        total.b1.add_(hidden_difference(base, shift, plan).sum(0))
        right = labels[rows][:, None] == classes
        factors = output_factors(h * base.z1.T[:, :, None], right)  # (2, H, b, O)
        total.W2.add_(output_difference(base, factors).sum(1))
        total.b2.add_(output_difference(base, output_factors(shift.size, right)).sum(0))
        y_t.append(base.y_t)
    return torch.cat(y_t), Params(*(differences.div_(2 * h * samples) for differences in total))


def unit_bytes(params: Params, plan: Plan) -> int:
    """Return the bytes of one sample, or one pair of sample and input, for each hidden unit in `structured`."""
    return params.W1.itemsize * (12 + 10 * (plan.terms or len(params.b2)))


def structured_row_bytes(params: Params, plan: Plan) -> int:
    """Return the bytes of one sample in `structured`."""
    return unit_bytes(params, plan) * params.W2.numel()


def add_input_differences(total: Tensor, base: Base, x: Tensor, h: float, plan: Plan, pairs: int) -> None:
    """Add the differences of W1 to `total` (I, H), from the pairs of input and sample that are not 0."""
    for part in x.T.nonzero().split(pairs):
        i, b = part.T
        value = x[b, i][:, None]
        differences = hidden_difference(base.take(b), make_shift(h * value.abs()), plan)  # (P, H)
        total.index_add_(0, i, differences.mul_(value.sign()))


@isolated
def collocated(params: Params, x: Tensor, t: Any, *, h: float = H, memory: float = MEMORY) -> Params:
    """Compute what `structured` computes, from differences at a few nodes and as many matrix products."""
    h = check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    plan = make_plan(h, magnitudes["x"], magnitudes["W2"], dtype_name(x))
    if not plan.collocates:
        warn_of_structured(h, magnitudes["x"])
    nodes = make_nodes(h, magnitudes["x"], plan, len(x), params)
    return collocated_gradient(params, x, labels, h, memory, plan, nodes, len(x))[1]


# Other arguments: a training computes `nodes`, for which max|x| is needed, once
def collocated_gradient(
    params: Params,
    x: Tensor,
    labels: Tensor,
    h: float,
    memory: float,
    plan: Plan,
    nodes: Nodes | None,
    samples: int,
) -> tuple[Tensor, Params]:
    """Compute y_t (B, 1), and the share of these samples in the gradient for a batch of `samples`, unchecked.

    `samples` are those that `nodes` were made for. Where there are no nodes, compute `structured`'s.
    """
    if nodes is None:
        return structured_gradient(params, x, labels, h, memory, plan, samples)
    y_t, total = [], None
    for rows in slices(len(x), int(memory // collocated_row_bytes(params, plan))):
        inputs, targets = x[rows], labels[rows]
        base = unperturbed_pass(params, inputs, targets, plan.terms)
        part = collocated_sums(base, inputs, targets, plan, nodes)
        total = part if total is None else Params(*map(torch.add, total, part))
        y_t.append(base.y_t)
    assert total is not None  # no batch is empty
    return torch.cat(y_t) if len(y_t) > 1 else y_t[0], total


# Other arguments: `nodes` hold the step, the largest shift and the divisor
def collocated_sums(base: Base, x: Tensor, labels: Tensor, plan: Plan, nodes: Nodes) -> Params:
    """Compute the share of the samples of `base` in the gradient."""
    W1, b1 = interpolate(x, nodes.hidden_interpolation, hidden_difference(base, nodes.hidden, plan))
    factors = nodes.output.index_select(3, labels).mT  # (2, m, B, O)
    W2, b2 = interpolate(base.z1, nodes.output_interpolation, output_difference(base, factors))
    return Params(W1, b1, W2, b2)


# Other arguments: `by` holds the scale, and the weights of the transform
def interpolate(inputs: Tensor, by: Interpolation, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the interpolated differences over the samples; see the reference for the shapes."""
    first, *others = values.unbind()
    if not others and by.scale == 1:  # as in float32 at the chapter's step: spares a tenth of the whole
        coefficient = first.mul_(by.first[0])
        return (coefficient.T @ inputs).T, coefficient.sum(0)
    coefficients = [weighted_sum(first, others, row).mul_(w) for row, w in zip(by.others, by.first, strict=True)]
    basis = odd_chebyshev(inputs, by.scale, len(values))  # (B, I) each
    weights = coefficients[0].T @ next(basis)  # (H, I): faster than (I, H)
    for c, b in zip(coefficients[1:], basis, strict=True):
        weights.addmm_(c.T, b)
    first_of_bias, *others_of_bias = odd_chebyshev(1.0, by.scale, len(values))
    bias = coefficients[0] if by.scale == 1 else coefficients[0] * first_of_bias
    return weights.T, weighted_sum(bias, coefficients[1:], others_of_bias).sum(0)


# Only in PyTorch: m is so small that m additions, each of them fused with its weight, beat a product by the transform
def weighted_sum(total: Tensor, arrays: list[Tensor], weights: list[float]) -> Tensor:
    """Add to `total` the arrays, each times its weight."""
    for array, weight in zip(arrays, weights, strict=True):
        total = torch.add(total, array, alpha=weight)
    return total


def odd_chebyshev(v: Any, scale: float, count: int) -> Iterator[Any]:
    """Yield T_1(scale v), (scale v)^3, T_5(scale v), ...: the cube costs less than T_3, and leads to the same sums."""
    first = v if scale == 1 else v * scale
    yield first
    if count > 1:
        cube = first**3
        yield cube
    if count > 2:
        before, now, twice_t2 = first, 4 * cube - 3 * first, 4 * first * first - 2
        for _ in range(2, count):  # T_{n+2} = 2 T_2 T_n - T_{n-2}
            before, now = now, twice_t2 * now - before
            yield now


def collocated_row_bytes(params: Params, plan: Plan) -> int:
    """Return the bytes that one sample takes in `collocated`."""
    (inputs, hidden), outputs = params.W1.shape, len(params.b2)
    exponentials = 0 if plan.terms else 8 * outputs * plan.hidden_nodes
    units = (2 * plan.terms + 2 * outputs + 8 * plan.hidden_nodes + exponentials + 8) * hidden
    return params.W1.itemsize * ((2 * plan.hidden_nodes + 2) * inputs + units + 10 * plan.output_nodes * outputs)


GRADIENTS: dict[str, Callable[..., Params]] = {
    "loop": loop,
    "batched": batched,
    "structured": structured,
    "collocated": collocated,
}
"""The strategies by name."""
