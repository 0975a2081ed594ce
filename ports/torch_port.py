"""The net and its central differences in PyTorch, without autograd: the functions of the reference, in their order.

reference/difference.py derives the formulas and reference/collocation.py the numbers of nodes and terms. What differs here
is the idiom: large products laid out as `torch.nn.Linear` lays out its weights, `torch.func.vmap` over perturbed copies,
updates in place. Small operations cost microseconds each whatever their size, so formulas are put with as few as will do.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce, wraps
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from reference.collocation import Plan, chebyshev_transform, plan, positive_nodes, reach, warn_of_structured
from reference.functions import DELTA
from reference.two_layer_net import Params
from reference.validation import (
    MEMORY,
    Sizes,
    check_batches,
    check_device,
    check_dtype,
    check_entries,
    check_labels,
    check_memory,
    check_net,
    check_step,
    check_step_moves,
    dtype_name,
)

PAIRS = 4096
"""Pairs of sample and pixel that `structured` works on at a time: on a CPU they stay in the cache."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Step = Callable[[Params, Tensor, Tensor], tuple[Tensor, Params]]
"""From (params, x, labels) to the loss and the gradient."""


def _public(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let `function` run without autograd's bookkeeping, and multiply float32 in float32."""

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with torch.no_grad(), _true_float32():
            return function(*args, **kwargs)

    return run


@contextmanager
def _true_float32() -> Iterator[None]:
    """Take back, for a while, a permission to round float32 products to TF32 or bfloat16, on GPUs and CPUs."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    reduced = [(b, b.fp32_precision) for b in backends if b.fp32_precision not in ("none", "ieee")]
    for backend, _ in reduced:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in reduced:  # "none": inherited from the general setting
            backend.fp32_precision = "none" if precision == torch.backends.fp32_precision else precision


def from_numpy(array: np.ndarray, *, dtype: str, device: str) -> Tensor:
    """Return a copy of `array` as "float64" or "float32" on a device of `devices()`; "auto" is the first of them."""
    check_dtype(dtype)
    device = check_device(device, devices())
    if device == "mps" and dtype == "float64":
        raise ValueError("`dtype` must be float32 on mps, which has no float64, got 'float64'.")
    return torch.from_numpy(np.array(array, dtype, order="C")).to(device)  # of a copy: from_numpy itself aliases


def to_numpy(array: Tensor) -> np.ndarray:
    """Return a copy of `array` on the host."""
    return array.detach().cpu().numpy().copy()


def devices() -> tuple[str, ...]:
    """Return the names of the devices that can be used here, the default one first."""
    gpus = ["cuda", *(f"cuda:{n}" for n in range(1, torch.cuda.device_count()))] if torch.cuda.is_available() else []
    return (*gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu")


def synchronize(result: Any) -> Any:
    """Return `result`, a tensor or tuples of them, when its devices have finished it."""
    for device in _devices_of(result):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
    return result


def _devices_of(result: Any) -> set[torch.device]:
    if isinstance(result, Tensor):
        return {result.device}
    return set().union(*map(_devices_of, result)) if isinstance(result, (tuple, list)) else set()


@_public
def predict(params: Params, x: Tensor) -> Tensor:
    """Return the class probabilities of each sample, (B, O)."""
    check_net(params, x, Tensor, _largest)
    return torch.softmax(_logits(params, x), dim=0).T.contiguous()


@_public
def loss(params: Params, x: Tensor, t: Any) -> Tensor:
    """Return the mean cross entropy of the batch; `t` holds class indices (B,) or one-hot rows (B, O)."""
    return _loss(params, x, _checked_labels(params, x, t))


@_public
def accuracy(params: Params, x: Tensor, t: Any) -> Tensor:
    """Return the share of samples whose most probable class is the right one."""
    labels = _checked_labels(params, x, t)
    return (_logits(params, x).argmax(dim=0) == labels).to(x.dtype).mean()


@_public
def gradient(params: Params, x: Tensor, t: Any) -> Params:
    """Return the derivative of the loss in closed form: the yardstick, not a way to train."""
    return _loss_and_gradient(params, x, _checked_labels(params, x, t))[1]


def _loss_and_gradient(params: Params, x: Tensor, labels: Tensor) -> tuple[Tensor, Params]:
    z1, w1, y = _forward(params, x)
    right = labels[:, None]
    delta2, y_t = _delta(y, right)
    raised = y_t + DELTA
    delta2.mul_(y_t / (raised * len(x)))
    delta1 = (delta2 @ params.W2.T).mul_(z1).mul_(w1)  # (B, H)
    derivative = Params((delta1.T @ x).T, delta1.sum(0), z1.T @ delta2, delta2.sum(0))
    return raised.log_().mean().neg_(), derivative


def _forward(params: Params, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a1 = torch.addmm(params.b1, x, params.W1)
    z1 = torch.sigmoid(a1)
    a2 = torch.addmm(params.b2, z1, params.W2)
    return z1, a1.neg_().sigmoid_(), torch.softmax(a2.T, 0).T


def _delta(y: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    y_t = y.gather(1, right)
    delta = y.scatter(1, right, 0)
    return delta.scatter_(1, right, -delta.sum(1, keepdim=True)), y_t


def _checked_labels(params: Params, x: Tensor, t: Any) -> Tensor:
    check_net(params, x, Tensor, _largest)
    return _labels(t, x, len(params.b2))


def _labels(t: Any, x: Tensor, classes: int) -> Tensor:
    host = t.detach().cpu().numpy() if isinstance(t, Tensor) else t
    return torch.from_numpy(check_labels(host, len(x), classes)).to(x.device)


def _largest(array: Tensor) -> float:
    low, high = torch.aminmax(array)  # NaN if there is one
    return float(torch.maximum(high, -low))


def _logits(params: Params, x: Tensor) -> Tensor:
    """Return a2 (O, B), unchecked. Weights come first: over a vmapped W1, (P, H, I) in memory, that is one large product."""
    z1 = (params.W1.T @ x.T + params.b1[:, None]).sigmoid_()  # (H, B)
    return params.W2.T @ z1 + params.b2[:, None]


def _loss(params: Params, x: Tensor, labels: Tensor) -> Tensor:
    y_t = torch.softmax(_logits(params, x), dim=0).gather(0, labels[None])
    return -torch.log(y_t + DELTA).mean()


@_public
def loop(
    params: Params, x: Tensor, t: Any, *, h: float = 1e-4, memory: float = MEMORY, entries: Params | None = None
) -> Params:
    """Return the central differences one parameter at a time, as the chapter does: the definition."""
    labels, sizes = _checked(params, x, t, h, memory)
    check_step_moves(h, sizes, dtype_name(x))
    moved = Params(*(p.clone(memory_format=torch.contiguous_format) for p in params))
    at = check_entries(params, entries)
    return Params(*(_loop_member(moved, p, torch.from_numpy(a), x, labels, h) for p, a in zip(moved, at, strict=True)))


def _loop_member(moved: Params, p: Tensor, at: Tensor, x: Tensor, labels: Tensor, h: float) -> Tensor:
    losses = p.new_empty(2, at.numel())
    for n, entry in enumerate(at.flatten().tolist()):
        moving = p.view(-1)[entry]
        value = moving.clone()
        torch.add(value, h, out=moving)
        losses[0, n] = _loss(moved, x, labels)
        torch.sub(value, h, out=moving)
        losses[1, n] = _loss(moved, x, labels)
        moving.copy_(value)
    return ((losses[0] - losses[1]) / (2 * h)).view(at.shape)


@_public
def batched(
    params: Params, x: Tensor, t: Any, *, h: float = 1e-4, memory: float = MEMORY, entries: Params | None = None
) -> Params:
    """Return what `loop` returns, from full forward passes of many perturbed nets at a time."""
    labels, sizes = _checked(params, x, t, h, memory)
    check_step_moves(h, sizes, dtype_name(x))
    at = [torch.from_numpy(a).to(x.device) for a in check_entries(params, entries)]
    return Params(*(_batched_member(params, m, a, x, labels, h, memory) for m, a in enumerate(at)))


def _batched_member(
    params: Params, member: int, at: Tensor, x: Tensor, labels: Tensor, h: float, memory: float
) -> Tensor:
    p, name = params[member], Params._fields[member]
    size = max(1, min(at.numel(), int(memory // _perturbed_bytes(params, member, len(x)))))
    outputs_first = p.movedim(-1, 0)
    copies = outputs_first.repeat(size, *(1 for _ in p.shape)).movedim(1, -1)  # (P, ...)
    losses = torch.func.vmap(lambda copy: _loss(params._replace(**{name: copy}), x, labels))
    differences = p.new_empty(at.numel())
    for part in _slices(at.numel(), size):
        entry = torch.unravel_index(at.flatten()[part], p.shape)
        differences[part] = _differences(losses, copies, entry, p[entry], h)
    return differences.view(at.shape)


def _differences(
    losses: Callable[[Tensor], Tensor], copies: Tensor, entry: tuple[Tensor, ...], value: Tensor, h: float
) -> Tensor:
    moved = copies[: len(value)]
    one_each = (torch.arange(len(value), device=value.device), *entry)
    moved[one_each] = value + h
    above = losses(moved)
    moved[one_each] = value - h
    below = losses(moved)
    moved[one_each] = value
    return (above - below) / (2 * h)


def _perturbed_bytes(params: Params, member: int, samples: int) -> int:
    hidden, outputs = params.W2.shape
    units = 2 * hidden + 3 * outputs if member < 2 else 4 * outputs
    return (params[member].numel() + samples * units) * params.W1.itemsize


@_public
def structured(params: Params, x: Tensor, t: Any, *, h: float = 1e-4, memory: float = MEMORY) -> Params:
    """Return what `loop` returns, to a few roundings: only what a perturbation reaches, and without cancellation."""
    labels, sizes = _checked(params, x, t, h, memory)
    needs = plan(h, sizes["x"], _spread(params.W2, params.W2), dtype_name(x))
    return _structured(h, memory, needs)(params, x, labels)[1]


def _structured(h: float, memory: float, needs: Plan) -> Step:
    def step(params: Params, x: Tensor, labels: Tensor) -> tuple[Tensor, Params]:
        total, loss = Params(*map(torch.zeros_like, params)), x.new_zeros(())
        unit_bytes = x.itemsize * (8 + 8 * (needs.terms or len(params.b2)))
        pairs = max(1, min(PAIRS, int(memory // (unit_bytes * len(params.b1)))))
        size = max(1, int(memory // (unit_bytes * params.W2.numel())))
        shift = x.new_full((), h)
        for part, right in zip(x.split(size), labels.split(size), strict=True):
            net = _unperturbed(params, part, right, needs.terms)
            _add_by_pixel(total.W1, net, part, h, needs, pairs)
            total.b1.add_(_hidden_difference(net, shift, needs).sum(0))
            total.W2.add_(_output_difference(net, h * net.z1.T[:, :, None]).sum(1))  # (H, b, O)
            total.b2.add_(_output_difference(net, shift).sum(0))
            loss.add_(net.loss.sum())
        return loss / len(x), Params(*(g.div_(2 * h * len(x)) for g in total))

    return step


def _add_by_pixel(total: Tensor, net: "Unperturbed", x: Tensor, h: float, needs: Plan, size: int) -> None:
    for pairs in x.T.nonzero().split(size):
        pixel, sample = pairs.unbind(1)
        value = x[sample, pixel][:, None]
        differences = _hidden_difference(net.take(sample), h * value.abs(), needs).mul_(value.sign())  # (P, H)
        total.index_add_(0, pixel, differences)


@_public
def collocated(params: Params, x: Tensor, t: Any, *, h: float = 1e-4, memory: float = MEMORY) -> Params:
    """Return what `structured` returns, from differences at a few nodes and one product of the size of W1's gradient for each."""
    labels, sizes = _checked(params, x, t, h, memory)
    needs = plan(h, sizes["x"], _spread(params.W2, params.W2), dtype_name(x))
    if not needs.collocates:
        warn_of_structured(h, sizes["x"])
        return _structured(h, memory, needs)(params, x, labels)[1]
    return _collocated(h, memory, needs, sizes["x"], x)(params, x, labels)[1]


class Layer(NamedTuple):
    """The nodes of a layer and the constants of its interpolation, made once for many steps."""

    shifts: Tensor  # (m, 1, 1), the nodes
    transform: Tensor  # (m, m)
    scale: float
    bias: Tensor  # (m,)


def _layer(count: int, h: float, shift: float, divisor: float, like: Tensor) -> Layer:
    scale = h / shift
    bias = np.array(_odd_chebyshev(np.array(scale), count))
    arrays = (shift * positive_nodes(count)[:, None, None], chebyshev_transform(count) / divisor, bias)
    shifts, transform, bias = (torch.from_numpy(a).to(like) for a in arrays)
    return Layer(shifts, transform, scale, bias)


def _collocated(h: float, memory: float, needs: Plan, largest_input: float, like: Tensor) -> Step:
    hidden = _layer(needs.hidden_nodes, h, reach(h, largest_input), 2 * h, like)
    output = _layer(needs.output_nodes, h, h, 2 * h, like)

    def step(params: Params, x: Tensor, labels: Tensor) -> tuple[Tensor, Params]:
        size = max(1, int(memory // _row_bytes(params, needs)))
        parts = (
            _collocated_sums(params, part, right, needs, hidden, output, 1 / len(x))
            for part, right in zip(x.split(size), labels.split(size), strict=True)
        )
        return reduce(_add, parts)

    return step


def _add(one: tuple[Tensor, Params], other: tuple[Tensor, Params]) -> tuple[Tensor, Params]:
    return one[0] + other[0], Params(*(a.add_(b) for a, b in zip(one[1], other[1], strict=True)))


def _collocated_sums(
    params: Params, x: Tensor, labels: Tensor, needs: Plan, hidden: Layer, output: Layer, weight: float
) -> tuple[Tensor, Params]:
    net = _unperturbed(params, x, labels, needs.terms)
    W1, b1 = _interpolate(hidden, x, _hidden_difference(net, hidden.shifts, needs).mul_(weight))
    W2, b2 = _interpolate(output, net.z1, _output_difference(net, output.shifts).mul_(weight))
    return net.loss.sum().mul_(weight), Params(W1, b1, W2, b2)


def _interpolate(layer: Layer, inputs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    coefficients = (layer.transform @ values.flatten(1)).view_as(values)  # (m, B, H)
    v = inputs if layer.scale == 1 else inputs * layer.scale
    basis = _odd_chebyshev(v, len(values))
    weights = coefficients[0].T @ basis[0]  # (H, I)
    for c, b in zip(coefficients[1:], basis[1:], strict=True):
        weights.addmm_(c.T, b)
    return weights.T, layer.bias @ coefficients.sum(1)


def _odd_chebyshev(v: Any, count: int) -> list[Any]:
    basis = [v, v]
    twice_t2 = 4 * v * v - 2 if count > 1 else None
    while len(basis) <= count:
        basis.append(twice_t2 * basis[-1] - basis[-2])
    return basis[1:]


def _row_bytes(params: Params, needs: Plan) -> int:
    (inputs, hidden), outputs = params.W1.shape, len(params.b2)
    exponentials = 0 if needs.terms else 8 * outputs * needs.hidden_nodes
    units = (needs.terms + 3 * outputs + 8 * needs.hidden_nodes + exponentials) * hidden
    return params.W1.itemsize * (2 * needs.hidden_nodes * inputs + units + 10 * needs.output_nodes * outputs)


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _checked(params: Params, x: Tensor, t: Any, h: float, memory: float) -> tuple[Tensor, Sizes]:
    check_step(h)
    check_memory(memory)
    sizes = check_net(params, x, Tensor, _largest)
    return _labels(t, x, len(params.b2)), sizes


GRADIENTS: dict[str, Callable[..., Params]] = {
    "loop": loop,
    "batched": batched,
    "structured": structured,
    "collocated": collocated,
}
"""The strategies by name."""


@_public
def train_steps(
    params: Params,
    x: Tensor,
    t: Any,
    batches: np.ndarray,
    *,
    gradient: Callable[..., Params],
    learning_rate: float,
    h: float = 1e-4,
    memory: float = MEMORY,
) -> tuple[Params, Tensor]:
    check_step(h)
    check_memory(memory)
    sizes = check_net(params, x, Tensor, _largest)
    labels = _labels(t, x, len(params.b2))
    chosen = torch.from_numpy(check_batches(batches, len(x))).to(x.device)
    spread = _spread(params.W2, params.W2)
    while True:
        needs = plan(h, sizes["x"], spread, dtype_name(x))
        step = _step(gradient, h, memory, needs, sizes["x"], x)
        trained, losses, spread = _descend(step, params, x, labels, chosen, learning_rate)
        if not math.isfinite(spread) or needs.covers(plan(h, sizes["x"], spread, dtype_name(x))):
            return trained, losses


def _step(
    gradient_: Callable[..., Params], h: float, memory: float, needs: Plan, largest_input: float, x: Tensor
) -> Step:
    if gradient_ is gradient:
        return _loss_and_gradient
    if gradient_ is structured or gradient_ is collocated and not needs.collocates:
        return _structured(h, memory, needs)
    if gradient_ is collocated:
        return _collocated(h, memory, needs, largest_input, x)
    return lambda *net: (_loss(*net), gradient_(*net, h=h, memory=memory))


def _descend(
    step: Step, initial: Params, x: Tensor, labels: Tensor, batches: Tensor, learning_rate: float
) -> tuple[Params, Tensor, float]:
    W1, b1, W2, b2 = initial
    params = Params(W1.T.clone(memory_format=torch.contiguous_format).T, b1.clone(), W2.clone(), b2.clone())
    highest, lowest = W2.clone(), W2.clone()
    losses = x.new_empty(len(batches))
    for k, (batch, right) in enumerate(zip(batches, labels[batches], strict=True)):
        losses[k], slope = step(params, x.index_select(0, batch), right)
        for p, g in zip(params, slope, strict=True):
            p.sub_(g, alpha=learning_rate)
        torch.maximum(highest, params.W2, out=highest)
        torch.minimum(lowest, params.W2, out=lowest)
    return params, losses, _spread(highest, lowest)


def _spread(highest: Tensor, lowest: Tensor) -> float:
    return float((highest.amax(1) - lowest.amin(1)).max())


class Unperturbed(NamedTuple):
    a1: Tensor
    z1: Tensor  # (B, H)
    w1: Tensor
    slope: Tensor
    q: Tensor  # (B, 1)
    r: Tensor
    y: Tensor
    delta: Tensor  # (B, O)
    loss: Tensor  # (B, 1)
    sums: tuple[Tensor, ...]

    def take(self, samples: Tensor) -> Self:
        fields = (f[samples] if isinstance(f, Tensor) else tuple(s[samples] for s in f) for f in self)
        return type(self)(*fields)


def _unperturbed(params: Params, x: Tensor, labels: Tensor, terms: int) -> Unperturbed:
    a1 = torch.addmm(params.b1, x, params.W1)
    z1, w1 = torch.sigmoid(a1), torch.sigmoid(-a1)
    a2 = torch.addmm(params.b2, z1, params.W2)
    right = labels[:, None]
    y = torch.softmax(a2.T, 0).T
    y_t = y.gather(1, right)
    raised = y_t + DELTA
    delta, _ = _delta(y, right)
    q = y_t / raised
    if terms:
        sums = _power_sums(delta, params.W2, labels, terms)
    else:
        sums = (params.W2.T - params.W2.T[labels][:, None], a2 - a2.gather(1, right))
    return Unperturbed(a1, z1, w1, z1 * w1, q, DELTA / raised, delta.abs(), delta * q, -torch.log(raised), sums)


def _power_sums(delta: Tensor, W2: Tensor, labels: Tensor, terms: int) -> tuple[Tensor, ...]:
    c = (W2 - W2.mean(1, keepdim=True)).T
    powers = [c]
    for n in range(2, terms + 1):
        powers.append(powers[-1] * c / n)
    powers = torch.stack(powers)  # (n, O, H)
    q = (delta @ powers).unbind()
    e = powers[:-1, labels].unbind()
    sums = []
    for n in range(terms):
        total = q[n]
        for j in range(n):
            total = torch.addcmul(total, e[j], q[n - 1 - j], value=-1 if j % 2 == 0 else 1)
        sums.append(total)
    return tuple(sums)


def _hidden_difference(net: Unperturbed, s: Tensor, needs: Plan) -> Tensor:
    if needs.small_shifts:
        f = 1 / torch.expm1(s)
        up, down = net.slope / (net.z1 + f), net.slope / (net.w1 + f)
    else:
        e = -torch.expm1(-s)
        up, down = torch.sigmoid(net.a1 + s) * net.w1 * e, net.z1 * torch.sigmoid(s - net.a1) * e
    return _by_power_sums(net, up, down) if needs.terms else _by_exponentials(net, up, down)


def _by_power_sums(net: Unperturbed, up: Tensor, down: Tensor) -> Tensor:
    above, below = _polynomial(net.sums, up), _polynomial(net.sums, -down)
    den = (net.r * above).add_(1)
    den.addcmul_(den, below)
    return (above - below).mul_(net.q).div_(den).log1p_()


def _polynomial(sums: tuple[Tensor, ...], dz: Tensor) -> Tensor:
    total = sums[-1]
    for m in sums[-2::-1]:
        total = torch.addcmul(m, total, dz)
    return total * dz


def _by_exponentials(net: Unperturbed, up: Tensor, down: Tensor) -> Tensor:
    V, margin = net.sums
    margin = margin[..., None]
    cap = float(np.log(torch.finfo(V.dtype).max) - np.log(V.shape[1]) - 1)
    above = (margin + up[..., None, :] * V).clamp(max=cap)
    below = (margin - down[..., None, :] * V).clamp(max=cap)
    apart = (up + down)[..., None, :] * V
    change = -(apart.sign() * torch.maximum(above, below).exp() * torch.expm1(-apart.abs())).sum(-2)
    plus, minus = above.exp().sum(-2), below.exp().sum(-2)
    lesser, greater = torch.minimum(plus, minus), torch.maximum(plus, minus)
    return change.sign() * torch.log1p(change.abs() / lesser / (1 + DELTA * greater))


def _output_difference(net: Unperturbed, s: Tensor) -> Tensor:
    numerator = net.delta * (2 * torch.sinh(s))
    base = net.y * (1 + net.r - 2 * net.r * net.y)
    denominator = base * (torch.cosh(s) - 1) + 1
    return torch.log1p(numerator / denominator.sub_(numerator, alpha=0.5))
