"""The net in PyTorch, without autograd; the reference's functions in the reference's order.

`reference.difference` derives the formulas and `reference.collocation` the numbers of nodes and terms. What differs
here is the idiom: products laid out as `torch.nn.Linear` lays out its weights, `torch.func.vmap` over perturbed copies,
updates in place. An operation takes some microseconds however small it is: formulas have the form that needs fewest.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce, wraps
from itertools import islice
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from reference.collocation import Plan, chebyshev_transform, plan, positive_nodes, reach, warn_of_structured
from reference.functions import DELTA
from reference.two_layer_net import Params
from reference.validation import (
    MEMORY,
    Entries,
    Sizes,
    check_batches,
    check_device,
    check_dtype,
    check_entries,
    check_gradient,
    check_labels,
    check_learning_rate,
    check_memory,
    check_net,
    check_step,
    check_step_moves,
    dtype_name,
)

PAIRS = 2048
"""Pairs of sample and pixel that `structured` works on at a time: with 50 hidden units they stay in a core's cache."""
NETS = 128
"""Perturbed nets that `batched` works on at a time, at most: more would only leave the cache."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Step = Callable[[Params, Tensor, Tensor], tuple[Tensor, Params]]
"""From (params, x, labels) to y_t (B, 1), the probabilities of the right classes, and the gradient."""


@contextmanager
def _true_float32() -> Iterator[None]:
    """Take back for a while what lets float32 products be rounded to TF32 or bfloat16, on GPUs and on CPUs."""
    backends: Any = torch.backends
    settings = (backends.cuda.matmul, backends.mkldnn.matmul)
    reduced = [(s, s.fp32_precision) for s in settings if s.fp32_precision not in ("none", "ieee")]
    for setting, _ in reduced:
        setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        for setting, precision in reduced:  # "none" where it was inherited
            setting.fp32_precision = "none" if precision == backends.fp32_precision else precision


def _public(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let `function` run without autograd's records and with float32 products that are float32."""

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with torch.no_grad(), _true_float32():
            return function(*args, **kwargs)

    return run


@_public
def from_numpy(array: np.ndarray, *, dtype: str, device: str) -> Tensor:
    """Return a copy of `array` on a device of `devices()`."""
    name = check_device(device, devices())
    if name == "mps" and check_dtype(dtype) == "float64":
        raise ValueError("`dtype` must be float32 on mps, which has no float64, got 'float64'.")
    copy = np.array(array, dtype=check_dtype(dtype), order="C")  # torch.from_numpy aliases what it is given
    return torch.from_numpy(copy).to(name)


@_public
def to_numpy(array: Tensor) -> np.ndarray:
    """Return a copy of `array`."""
    return array.cpu().numpy().copy()


def devices() -> tuple[str, ...]:
    """Return the devices that can be used here, the default one first: "cuda", "cuda:1", ..., "mps", "cpu"."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = tuple(f"cuda:{n}" if n else "cuda" for n in range(gpus))
    return (*cuda, "mps", "cpu") if torch.backends.mps.is_available() else (*cuda, "cpu")


def synchronize(result: Any) -> Any:
    """Return `result`, a tensor or tuples of them, when it has been computed."""
    if isinstance(result, (tuple, list)):
        for part in result:
            synchronize(part)
    elif isinstance(result, Tensor) and result.device.type == "cuda":
        torch.cuda.synchronize(result.device)
    elif isinstance(result, Tensor) and result.device.type == "mps":
        torch.mps.synchronize()
    return result


@_public
def predict(params: Params, x: Tensor) -> Tensor:
    """Return the class probabilities of each sample, (B, O)."""
    check_net(params, x, Tensor, _largest)
    return torch.softmax(_logits(params, x), dim=0).T.contiguous()


@_public
def loss(params: Params, x: Tensor, t: Any) -> Tensor:
    """Return the mean cross entropy of the batch."""
    return _loss(params, x, _checked(params, x, t)[0])


@_public
def accuracy(params: Params, x: Tensor, t: Any) -> Tensor:
    """Return the share of samples whose most probable class is the right one."""
    labels, _ = _checked(params, x, t)
    return (_logits(params, x).argmax(dim=0) == labels).to(x.dtype).mean()  # bools have no mean


@_public
def gradient(params: Params, x: Tensor, t: Any) -> Params:
    """Return the derivative of the loss in closed form: the yardstick, not a way to train."""
    return _closed_form(params, x, _checked(params, x, t)[0])[1]


@_public
def loop(
    params: Params, x: Tensor, t: Any, *, h: float = 1e-4, memory: float = MEMORY, entries: Params | None = None
) -> Params:
    """Return the central differences one parameter at a time, as the chapter does: the definition."""
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    check_step_moves(h, sizes, dtype_name(x))
    return _loop(params, x, labels, h, check_entries(params, entries))


@_public
def batched(
    params: Params, x: Tensor, t: Any, *, h: float = 1e-4, memory: float = MEMORY, entries: Params | None = None
) -> Params:
    """Return what `loop` returns, from forward passes of many perturbed nets at a time, in chunks that fit `memory`."""
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    check_step_moves(h, sizes, dtype_name(x))
    return _batched(params, x, labels, h, memory, check_entries(params, entries))


@_public
def structured(params: Params, x: Tensor, t: Any, *, h: float = 1e-4, memory: float = MEMORY) -> Params:
    """Return what `loop` returns, to a few roundings: only what a perturbation reaches, and without cancellation."""
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    needs = plan(h, sizes["x"], sizes["W2"], dtype_name(x))
    return _structured(params, x, labels, h, memory, needs)[1]


@_public
def collocated(params: Params, x: Tensor, t: Any, *, h: float = 1e-4, memory: float = MEMORY) -> Params:
    """Return what `structured` returns, from differences at a few nodes and one matrix product for each."""
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    needs = plan(h, sizes["x"], sizes["W2"], dtype_name(x))
    if not needs.collocates:
        warn_of_structured(h, sizes["x"])
        return _structured(params, x, labels, h, memory, needs)[1]
    return _collocated(params, x, labels, memory, needs, _layers(h, sizes, needs, len(x), x))[1]


GRADIENTS: dict[str, Callable[..., Params]] = {
    "loop": loop,
    "batched": batched,
    "structured": structured,
    "collocated": collocated,
}
"""The strategies by name."""
TRAINABLE = (gradient, *GRADIENTS.values())
"""What `train_steps` can follow."""


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
    """Take K steps of gradient descent without waiting for the device; see `reference.training.train_steps`.

    How many nodes and terms are needed depends on the weights, and they move. The largest weight that was met is looked
    at when all steps are taken; where the plan did not cover it, they are taken again with one that does.
    """
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    chosen = torch.from_numpy(check_batches(batches, len(x))).to(x.device)
    check_gradient(gradient, TRAINABLE)
    learning_rate = check_learning_rate(learning_rate)
    largest_weight = sizes["W2"]
    while True:
        needs = plan(h, sizes["x"], largest_weight, dtype_name(x))
        if gradient is collocated and not needs.collocates:
            warn_of_structured(h, sizes["x"])
        step = _loss_and(gradient, h, memory, needs, sizes, chosen.shape[1], x)
        trained, losses, largest_weight = _scan(step, params, x, labels, chosen, learning_rate)
        if not math.isfinite(largest_weight) or needs.covers(plan(h, sizes["x"], largest_weight, dtype_name(x))):
            return trained, losses


def _largest(array: Tensor) -> float:
    low, high = torch.aminmax(array)  # both NaN if there is one
    return float(torch.maximum(high, -low))


def _checked(params: Params, x: Tensor, t: Any, memory: float = MEMORY) -> tuple[Tensor, Sizes]:
    check_memory(memory)
    sizes = check_net(params, x, Tensor, _largest)
    on_host = t.cpu().numpy() if isinstance(t, Tensor) else t
    return torch.from_numpy(check_labels(on_host, len(x), len(params.b2))).to(x.device), sizes


def _logits(params: Params, x: Tensor) -> Tensor:
    """Return a2, (O, B). Weights come first: over copies of W1, (P, H, I) in memory, vmap makes one large product."""
    z1 = (params.W1.T @ x.T + params.b1[:, None]).sigmoid_()  # (H, B)
    return params.W2.T @ z1 + params.b2[:, None]


def _right(params: Params, x: Tensor, labels: Tensor) -> Tensor:
    return torch.softmax(_logits(params, x), dim=0).gather(0, labels[None])  # (1, B)


def _cross_entropy(y_t: Tensor) -> Tensor:
    return -torch.log(y_t + DELTA).mean(dim=-1)


def _loss(params: Params, x: Tensor, labels: Tensor) -> Tensor:
    return _cross_entropy(_right(params, x, labels))[0]


def _closed_form(params: Params, x: Tensor, labels: Tensor) -> tuple[Tensor, Params]:
    """Return y_t and the gradient."""
    _, z1, w1, _, y = _forward(params, x)
    y_t, delta2 = _apart(y, labels[:, None])
    delta2.mul_(y_t / ((y_t + DELTA) * len(x)))
    delta1 = (delta2 @ params.W2.T).mul_(z1).mul_(w1)  # (B, H)
    return y_t, Params((delta1.T @ x).T, delta1.sum(0), z1.T @ delta2, delta2.sum(0))


def _forward(params: Params, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return a1, z1, 1 - z1 without cancellation, a2 and y."""
    a1 = torch.addmm(params.b1, x, params.W1)
    z1 = torch.sigmoid(a1)
    a2 = torch.addmm(params.b2, z1, params.W2)
    return a1, z1, torch.sigmoid(-a1), a2, torch.softmax(a2.T, dim=0).T  # along the outer axis: it takes half the time


def _apart(y: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Return y_t (B, 1), and y - onehot(t) without cancellation: for the right class minus the sum of the others."""
    y_t = y.gather(1, column)
    others = y.scatter(1, column, 0)
    return y_t, others.scatter_(1, column, -others.sum(1, keepdim=True))


def _loop(params: Params, x: Tensor, labels: Tensor, h: float, entries: Entries) -> Params:
    moved = Params(*(p.clone(memory_format=torch.contiguous_format) for p in params))
    return Params(*(_loop_member(moved, p, at, x, labels, h) for p, at in zip(moved, entries, strict=True)))


def _loop_member(moved: Params, p: Tensor, at: np.ndarray, x: Tensor, labels: Tensor, h: float) -> Tensor:
    above, below = p.new_empty(at.size), p.new_empty(at.size)
    for n, entry in enumerate(at.flat):
        parameter = p.view(-1)[entry]
        value = parameter.clone()
        torch.add(value, h, out=parameter)
        above[n] = _loss(moved, x, labels)
        torch.sub(value, h, out=parameter)
        below[n] = _loss(moved, x, labels)
        parameter.copy_(value)
    return above.sub_(below).div_(2 * h).view(at.shape)


def _batched(params: Params, x: Tensor, labels: Tensor, h: float, memory: float, entries: Entries) -> Params:
    at = (torch.from_numpy(a).to(x.device) for a in entries)
    return Params(*(_batched_member(params, m, a, x, labels, h, memory) for m, a in enumerate(at)))


def _batched_member(
    params: Params, member: int, at: Tensor, x: Tensor, labels: Tensor, h: float, memory: float
) -> Tensor:
    p, name = params[member], Params._fields[member]
    size = max(1, min(at.numel(), NETS, int(memory // _perturbed_bytes(params, member, len(x)))))
    copies = p.movedim(-1, 0).repeat(size, *[1] * p.ndim).movedim(1, -1)  # (P, I, H), in memory (P, H, I)
    losses = torch.func.vmap(lambda copy: _loss(params._replace(**{name: copy}), x, labels))
    differences = p.new_empty(at.numel())
    for part in _slices(at.numel(), size):
        entry = torch.unravel_index(at.flatten()[part], p.shape)
        differences[part] = _differences(losses, copies, entry, p[entry], h)
    return differences.view(at.shape)


def _differences(
    losses: Callable[[Tensor], Tensor], copies: Tensor, entry: tuple[Tensor, ...], value: Tensor, h: float
) -> Tensor:
    """Move one entry of each copy to either side and put it back: making the copies anew would cost more."""
    moved = copies[: len(value)]
    nth = (torch.arange(len(value), device=value.device), *entry)
    moved[nth] = value + h
    above = losses(moved)  # (P,)
    moved[nth] = value - h
    below = losses(moved)
    moved[nth] = value
    return above.sub_(below).div_(2 * h)


def _perturbed_bytes(params: Params, member: int, samples: int) -> int:
    """Return the bytes of one perturbed copy and its forward pass."""
    hidden, outputs = params.W2.shape
    units = 2 * hidden + 3 * outputs if member < 2 else 4 * outputs
    return (params[member].numel() + samples * units) * params.W1.itemsize


class Unperturbed(NamedTuple):
    """What the differences need to know of the unperturbed net, sample by sample.

    With rho = y_t / DELTA, q = rho / (1 + rho) and r = 1 / (1 + rho): the difference becomes
    log1p(rho (S(+) - S(-)) / ((1 + S(-)) (1 + rho + S(+)))), which spares two operations.
    """

    a1: Tensor  # (B, H)
    z1: Tensor  # (B, H), sigmoid(a1)
    w1: Tensor  # (B, H), sigmoid(-a1): 1 - z1 without cancellation
    slope: Tensor  # (B, H), z1 w1
    y_t: Tensor  # (B, 1)
    rho: Tensor  # (B, 1)
    above_rho: Tensor  # (B, 1), 1 + rho
    delta: Tensor  # (B, O), y, for the right class minus the sum of the others
    right: Tensor  # (B, O), one-hot
    sums: tuple[Tensor, ...]  # n! M_n (B, H) for n = 1, 2, ...; or with no terms V (B, O, H) and a2 - a2[t] (B, O, 1)

    def take(self, samples: Tensor) -> Self:
        """Return the same for `samples`, in their order."""
        *names, _ = self._fields
        fields = {name: getattr(self, name).index_select(0, samples) for name in names}
        return self._replace(**fields, sums=tuple(array.index_select(0, samples) for array in self.sums))


def _unperturbed(params: Params, x: Tensor, labels: Tensor, terms: int) -> Unperturbed:
    a1, z1, w1, a2, y = _forward(params, x)
    column = labels[:, None]
    y_t, delta = _apart(y, column)
    rho = y_t * (1 / DELTA)
    right = torch.zeros_like(delta).scatter_(1, column, 1)
    sums = _power_sums(delta, params.W2, labels, terms) if terms else _exponents(a2, params.W2, labels)
    return Unperturbed(a1, z1, w1, z1 * w1, y_t, rho, rho + 1, delta, right, sums)


def _power_sums(delta: Tensor, W2: Tensor, labels: Tensor, terms: int) -> tuple[Tensor, ...]:
    """Return the sums over k != t of y_k (c_k - c_t)^n, n = 1, 2, ..., with c = W2[j, :].

    They follow from Q_r = sum_k delta_k c_k^r by the binomial theorem: delta sums to 0, and k = t adds nothing. Where
    the columns of W2 are alike they cancel as the closed form does, relative to sum_k y_k |W2[j, k]|.
    """
    c = W2.T  # (O, H)
    powers = [c]
    for _ in range(1, terms):
        powers.append(powers[-1] * c)
    Q = [delta @ power for power in powers]  # (B, H)
    c_t = c.index_select(0, labels) if terms > 1 else c
    return tuple(_binomial(Q[:n], c_t) for n in range(1, terms + 1))


def _binomial(Q: list[Tensor], c_t: Tensor) -> Tensor:
    """Return sum_r binomial(n, r) Q_r (-c_t)^(n - r), r = 1, ..., n, by Horner's rule."""
    n, total = len(Q), Q[0]
    for r in range(2, n + 1):
        total = torch.addcmul(Q[r - 1], total, c_t, value=-r / (n - r + 1))
    return total


def _exponents(a2: Tensor, W2: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    V = W2.T - W2.T.index_select(0, labels)[:, None]  # (B, O, H)
    return V, (a2 - a2.gather(1, labels[:, None]))[:, :, None]


class Shift(NamedTuple):
    """The shifts of something by +s and by -s."""

    s: Tensor  # s >= 0
    poles: Tensor  # 1 / expm1(s) and 1 / expm1(-s), (2, ...)


def _shift(s: Tensor) -> Shift:
    return Shift(s, torch.stack((s, -s)).expm1_().reciprocal_())


def _hidden_difference(net: Unperturbed, shift: Shift, needs: Plan) -> Tensor:
    """Return D(s) for the shift of each hidden unit's input; s broadcasts against (B, H), and so does the result.

    The unit's output moves by z w / (z + 1 / expm1(+-s)): the same as in the reference.
    """
    if needs.small_shifts:
        moves = net.z1 + shift.poles  # (2, ..., B, H)
        torch.div(net.slope, moves, out=moves)
    else:  # the denominators would cancel
        s, e = shift.s, torch.expm1(-shift.s)
        moves = torch.stack((-torch.sigmoid(net.a1 + s) * net.w1 * e, net.z1 * torch.sigmoid(s - net.a1) * e))
    return _log_ratio(net, _polynomial(net.sums, moves)) if needs.terms else _by_exponentials(net, *moves.unbind())


def _log_ratio(net: Unperturbed, sums: Tensor) -> Tensor:
    """Return D from S(+) and S(-), (2, ...)."""
    above, below = sums.unbind()
    denominator = above + net.above_rho
    denominator.addcmul_(denominator, below)
    return (above - below).mul_(net.rho).div_(denominator).log1p_()


def _polynomial(sums: tuple[Tensor, ...], dz: Tensor) -> Tensor:
    """Return S = sum_n M_n dz^n by Horner's rule, in the place of dz."""
    total = sums[-1]
    for n in range(len(sums) - 1, 0, -1):
        total = torch.addcmul(sums[n - 1], total, dz, value=1 / (n + 1))
    return dz.mul_(total)


def _by_exponentials(net: Unperturbed, up: Tensor, down: Tensor) -> Tensor:
    """Return D(s) for moves of any size; `reference.difference` derives it."""
    V, margin = net.sums  # (B, O, H), (B, O, 1)
    above, below = margin + up[..., None, :] * V, margin + down[..., None, :] * V
    apart, larger = (up - down)[..., None, :] * V, torch.maximum(above, below)
    top = larger.amax(-2, keepdim=True)
    change = -((larger - top).exp_() * apart.abs().neg_().expm1_()).mul_(apart.sign_()).sum(-2)
    (plus, plus_sum), (minus, minus_sum) = _scaled_sum(above), _scaled_sum(below)
    rises = change > 0
    lesser, lesser_log = torch.where(rises, minus, plus), torch.where(rises, minus_sum, plus_sum).log_()
    greater = torch.where(rises, plus + plus_sum.log(), minus + minus_sum.log())
    exponent = (top[..., 0, :] - lesser) - lesser_log - torch.logaddexp(math.log(DELTA) + greater, top.new_zeros(()))
    return change.sign() * torch.log1p(change.abs() * exponent.exp_())


def _scaled_sum(exponents: Tensor) -> tuple[Tensor, Tensor]:
    """Return (m, s) with sum_k exp(exponents) = exp(m) s."""
    top = exponents.amax(-2, keepdim=True)
    return top[..., 0, :], (exponents - top).exp_().sum(-2)


def _output_difference(net: Unperturbed, shift: Shift) -> Tensor:
    """Return D(s) for the shift of each logit; s broadcasts against (B, O), and so does the result.

    A logit is a unit with z = 1 for the right class, and z = 0 for the others.
    """
    return _log_ratio(net, net.delta / (net.right + shift.poles))


def _structured(
    params: Params, x: Tensor, labels: Tensor, h: float, memory: float, needs: Plan
) -> tuple[Tensor, Params]:
    """Return y_t and the gradient."""
    unit_bytes = x.itemsize * (8 + 8 * (needs.terms or len(params.b2)))  # of one pair and hidden unit
    pairs = max(1, min(PAIRS, int(memory // (unit_bytes * len(params.b1)))))
    total, y_t, shift = Params(*map(torch.zeros_like, params)), [], _shift(x.new_full((1, 1), h))
    for rows in _slices(len(x), int(memory // (unit_bytes * params.W2.numel()))):
        net = _unperturbed(params, x[rows], labels[rows], needs.terms)
        _add_by_pixel(total.W1, net, x[rows], h, needs, pairs)
        total.b1.add_(_hidden_difference(net, shift, needs).sum(0))
        total.W2.add_(_output_difference(net, _shift(h * net.z1.T[:, :, None])).sum(1))  # (H, b, O)
        total.b2.add_(_output_difference(net, shift).sum(0))
        y_t.append(net.y_t)
    return torch.cat(y_t), Params(*(g.div_(2 * h * len(x)) for g in total))


def _add_by_pixel(total: Tensor, net: Unperturbed, x: Tensor, h: float, needs: Plan, size: int) -> None:
    """Add the differences of W1 to `total` (I, H), from the pairs of pixel and sample that are not 0 alone."""
    for pairs in x.T.nonzero().split(size):
        pixel, sample = pairs.T
        value = x[sample, pixel][:, None]
        differences = _hidden_difference(net.take(sample), _shift(h * value.abs()), needs)  # (P, H)
        total.index_add_(0, pixel, differences.mul_(value.sign()))


class Layer(NamedTuple):
    """The nodes of a layer and what its interpolation takes, made once for many steps."""

    nodes: Shift  # (m, 1, 1)
    transform: list[list[float]]  # (m, m), from the differences at the nodes to the coefficients
    scale: float  # of the inputs
    bias: list[float]  # the basis at the bias's input


def _layers(h: float, sizes: Sizes, needs: Plan, samples: int, like: Tensor) -> tuple[Layer, Layer]:
    """Return the hidden and the output layer, for batches of `samples`."""
    hidden = _layer(needs.hidden_nodes, h, reach(h, sizes["x"]), samples, like)
    return hidden, _layer(needs.output_nodes, h, h, samples, like)


def _layer(count: int, h: float, shift: float, samples: int, like: Tensor) -> Layer:
    nodes = torch.from_numpy(shift * positive_nodes(count)[:, None, None]).to(like)
    transform = chebyshev_transform(count) / (2 * h * samples)
    if count > 1:  # T_3 = 4 v^3 - 3 v
        transform[0] -= 3 * transform[1]
        transform[1] *= 4
    return Layer(_shift(nodes), transform.tolist(), h / shift, list(islice(_odd_basis(h / shift), count)))


def _collocated(
    params: Params, x: Tensor, labels: Tensor, memory: float, needs: Plan, layers: tuple[Layer, Layer]
) -> tuple[Tensor, Params]:
    """Return y_t and the gradient."""
    size = int(memory // _row_bytes(params, needs))
    if size >= len(x):
        return _collocated_sums(params, x, labels, needs, layers)
    chunks = _slices(len(x), size)
    return reduce(_joined, (_collocated_sums(params, x[rows], labels[rows], needs, layers) for rows in chunks))


def _joined(one: tuple[Tensor, Params], other: tuple[Tensor, Params]) -> tuple[Tensor, Params]:
    return torch.cat((one[0], other[0])), Params(*map(torch.add, one[1], other[1]))


def _collocated_sums(
    params: Params, x: Tensor, labels: Tensor, needs: Plan, layers: tuple[Layer, Layer]
) -> tuple[Tensor, Params]:
    """Return y_t, and the share of these samples in the gradient."""
    net, (hidden, output) = _unperturbed(params, x, labels, needs.terms), layers
    W1, b1 = _interpolate(hidden, x, _hidden_difference(net, hidden.nodes, needs))
    W2, b2 = _interpolate(output, net.z1, _output_difference(net, output.nodes))
    return net.y_t, Params(W1, b1, W2, b2)


def _interpolate(layer: Layer, inputs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the interpolated differences over the samples; see the reference for the shapes."""
    at_nodes = values.unbind()
    coefficients = [_combined(row, at_nodes) for row in layer.transform]  # (B, H)
    basis = _odd_basis(inputs if layer.scale == 1 else inputs * layer.scale)  # (B, I)
    weights = coefficients[0].T @ next(basis)  # (H, I): faster than (I, H)
    for c, b in zip(coefficients[1:], basis, strict=False):
        weights.addmm_(c.T, b)
    return weights.T, _combined(layer.bias, coefficients).sum(0)


def _combined(weights: list[float], arrays: Sequence[Tensor]) -> Tensor:
    total = arrays[0] if weights[0] == 1 else arrays[0] * weights[0]
    for weight, array in zip(weights[1:], arrays[1:], strict=True):
        total = torch.add(total, array, alpha=weight)
    return total


def _odd_basis(v: Any) -> Iterator[Any]:
    """Yield v, v^3 (which costs less than T_3), then T_5(v), T_7(v), ... by T_{n+2} = 2 T_2 T_n - T_{n-2}."""
    yield v
    cube = v**3
    yield cube
    before, now, twice_t2 = v, 4 * cube - 3 * v, 4 * v * v - 2
    while True:
        before, now = now, twice_t2 * now - before
        yield now


def _row_bytes(params: Params, needs: Plan) -> int:
    """Return the bytes that one sample takes in `collocated`."""
    (inputs, hidden), outputs = params.W1.shape, len(params.b2)
    exponentials = 0 if needs.terms else 8 * outputs * needs.hidden_nodes
    units = (2 * needs.terms + 2 * outputs + 8 * needs.hidden_nodes + exponentials + 8) * hidden
    return params.W1.itemsize * (2 * needs.hidden_nodes * inputs + units + 10 * needs.output_nodes * outputs)


def _slices(length: int, size: int) -> Iterator[slice]:
    """Cut range(length) into slices of `size`, the last one shorter where it must be."""
    size = max(1, size)
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _scan(
    step: Step, initial: Params, x: Tensor, labels: Tensor, batches: Tensor, learning_rate: float
) -> tuple[Params, Tensor, float]:
    """Return the net after all steps, the loss before each, and the largest of W2 that a difference met, or 0."""
    W1 = initial.W1.T.clone(memory_format=torch.contiguous_format).T  # as the gradient of W1 lies in memory
    params = Params(W1, *(p.clone() for p in initial[1:]))
    right, largest = [], [x.new_zeros(())]
    for batch, batch_labels in zip(batches, labels[batches], strict=True):
        if step is not _closed_form:
            largest.append(torch.linalg.vector_norm(params.W2, math.inf))
        y_t, slope = step(params, x.index_select(0, batch), batch_labels)
        for p, g in zip(params, slope, strict=True):
            p.sub_(g, alpha=learning_rate)
        right.append(y_t)
    return params, _cross_entropy(torch.stack(right).flatten(1)), float(torch.stack(largest).max())


def _loss_and(
    gradient_: Callable[..., Params], h: float, memory: float, needs: Plan, sizes: Sizes, samples: int, like: Tensor
) -> Step:
    """Return the function that gives y_t and that gradient from one forward pass."""
    if gradient_ is gradient:
        return _closed_form
    if gradient_ is structured or (gradient_ is collocated and not needs.collocates):
        return partial(_structured, h=h, memory=memory, needs=needs)
    if gradient_ is collocated:
        return partial(_collocated, memory=memory, needs=needs, layers=_layers(h, sizes, needs, samples, like))
    return lambda *net: (_right(*net), gradient_(*net, h=h, memory=memory))
