"""The net in PyTorch, without autograd; the reference's functions in the reference's order.

`reference.loss_difference` derives the formulas, `reference.collocation` the numbers of nodes and terms. What differs
here is the idiom: products laid out as `torch.nn.Linear` lays out its weights, `torch.func.vmap` over perturbed copies,
updates in place. An operation takes some microseconds however small it is: formulas have the form that needs fewest.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial, reduce, wraps
from itertools import islice
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from ports.protocol import Port
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
    check_numbers,
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
    copy = np.array(check_numbers(array), dtype=check_dtype(dtype), order="C")
    return torch.from_numpy(copy).to(name)  # it aliases what it is given


@_public
def to_numpy(array: Tensor) -> np.ndarray:
    """Return a copy of `array`."""
    return array.cpu().numpy().copy()


def devices() -> tuple[str, ...]:
    """Return the devices that can be used here, the default one first: "cuda", "cuda:1", ..., "mps", "cpu"."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = tuple(f"cuda:{n}" if n else "cuda" for n in range(gpus))
    return (*cuda, "mps", "cpu") if torch.backends.mps.is_available() else (*cuda, "cpu")


def spread(devices: int | str) -> Port:
    """Return the port over the ranks that torchrun started, of which there must be `devices`, or "all"."""
    import ports.torch_ranks

    return ports.torch_ranks.spread(devices)


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
    return _closed_form(params, x, _checked(params, x, t)[0], len(x))[1]


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
    return _structured(params, x, labels, h, memory, needs, len(x))[1]


@_public
def collocated(params: Params, x: Tensor, t: Any, *, h: float = 1e-4, memory: float = MEMORY) -> Params:
    """Return what `structured` returns, from differences at a few nodes and one matrix product for each."""
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    needs = plan(h, sizes["x"], sizes["W2"], dtype_name(x))
    if not needs.collocates:
        warn_of_structured(h, sizes["x"])
        return _structured(params, x, labels, h, memory, needs, len(x))[1]
    return _collocated(params, x, labels, memory, needs, _nodes(h, sizes, needs, len(x), params))[1]


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
    """Take K steps of gradient descent without waiting for the device; see `reference.training.train_steps`."""
    return _train_steps(_scan, params, x, t, batches, gradient, learning_rate, h, memory)


def _train_steps(
    scan: Callable[..., tuple[Params, Tensor, float]],
    params: Params,
    x: Tensor,
    t: Any,
    batches: np.ndarray,
    gradient_: Callable[..., Params],
    learning_rate: float,
    h: float,
    memory: float,
) -> tuple[Params, Tensor]:
    """Take the steps by `scan`, which is `_scan` or has its arguments and results.

    How many nodes and terms are needed depends on the weights, and they move. The largest weight that was met is looked
    at when all steps are taken; where the plan did not cover it, they are taken again with one that does.
    """
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    chosen = torch.from_numpy(check_batches(batches, len(x))).to(x.device)
    check_gradient(gradient_, TRAINABLE)
    if gradient_ in (loop, batched):
        check_step_moves(h, sizes, dtype_name(x))
    learning_rate = check_learning_rate(learning_rate, dtype_name(x))
    largest_weight = sizes["W2"]
    while True:
        needs = plan(h, sizes["x"], largest_weight, dtype_name(x))
        if gradient_ is collocated and not needs.collocates:
            warn_of_structured(h, sizes["x"], stacklevel=5)
        step = _loss_and(gradient_, h, memory, needs, sizes, chosen.shape[1], params)
        planned = gradient_ is not gradient
        trained, y_t, largest_weight = scan(step, params, x, labels, chosen, learning_rate, planned)
        if not math.isfinite(largest_weight) or needs.covers(plan(h, sizes["x"], largest_weight, dtype_name(x))):
            return trained, _cross_entropy(y_t)


def _largest(array: Tensor) -> float:
    low, high = torch.aminmax(array)  # both NaN if there is one
    return float(torch.maximum(high, -low))


def _checked(params: Params, x: Tensor, t: Any, memory: float = MEMORY) -> tuple[Tensor, Sizes]:
    check_memory(memory)
    sizes = check_net(params, x, Tensor, _largest)
    on_host = t.detach().cpu() if isinstance(t, Tensor) else t
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


def _closed_form(params: Params, x: Tensor, labels: Tensor, samples: int) -> tuple[Tensor, Params]:
    """Return y_t, and the share of these samples in the gradient of a batch of `samples`."""
    _, z1, w1, _, y = _forward(params, x)
    y_t, delta2 = _apart(y, labels)
    delta2.mul_(y_t / ((y_t + _scalar(DELTA, x)) * samples))
    delta1 = (delta2 @ params.W2.T).mul_(z1).mul_(w1)  # (B, H)
    return y_t, Params((delta1.T @ x).T, delta1.sum(0), z1.T @ delta2, delta2.sum(0))


def _forward(params: Params, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return a1, z1, 1 - z1 without cancellation, a2 and y."""
    a1 = torch.addmm(params.b1, x, params.W1)
    z1 = torch.sigmoid(a1)
    a2 = torch.addmm(params.b2, z1, params.W2)
    return a1, z1, torch.sigmoid(-a1), a2, torch.softmax(a2.T, dim=0).T  # along the outer axis: it takes half the time


def _apart(y: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return y_t (B, 1), and y - onehot(t) without cancellation: for the right class minus the sum of the others."""
    column = labels.unsqueeze(1)
    y_t = y.gather(1, column)
    others = y.scatter(1, column, 0)
    return y_t, others.scatter_(1, column, others.sum(1, keepdim=True).neg_())


@cache
def _scalar_on(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=dtype, device=device)


def _scalar(value: float, like: Tensor) -> Tensor:
    """Return `value` as a tensor: in float32 a small operation with a Python number takes twice as long."""
    return _scalar_on(value, like.dtype, like.device)


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
    sums: tuple[Tensor, ...]  # n! M_n (B, H) for n = 1, 2, ...; or with no terms V (B, O, H) and a2 - a2[t] (B, O, 1)

    def take(self, samples: Tensor) -> Self:
        """Return the same for `samples`, in their order."""
        *names, _ = self._fields
        fields = {name: getattr(self, name).index_select(0, samples) for name in names}
        return self._replace(**fields, sums=tuple(array.index_select(0, samples) for array in self.sums))


def _unperturbed(params: Params, x: Tensor, labels: Tensor, terms: int) -> Unperturbed:
    a1, z1, w1, a2, y = _forward(params, x)
    y_t, delta = _apart(y, labels)
    rho = y_t / _scalar(DELTA, x)
    sums = _power_sums(delta, params.W2, labels, terms) if terms else _exponents(a2, params.W2, labels)
    return Unperturbed(a1, z1, w1, z1 * w1, y_t, rho, rho + _scalar(1, x), delta, sums)


def _power_sums(delta: Tensor, W2: Tensor, labels: Tensor, terms: int) -> tuple[Tensor, ...]:
    """Return the sums over k != t of y_k (c_k - c_t)^n, n = 1, 2, ..., with c = W2[j, :].

    They follow from Q_r = sum_k delta_k c_k^r by the binomial theorem: delta sums to 0, and k = t adds nothing. Where
    the columns of W2 are alike they cancel as the closed form does, relative to sum_k y_k |W2[j, k]|.
    """
    c = power = W2.T  # (O, H)
    Q = [delta @ c]  # (B, H)
    for _ in range(1, terms):
        power = power * c
        Q.append(delta @ power)
    return tuple(Q) if terms == 1 else (Q[0], *_binomial_sums(Q, c.index_select(0, labels)))


def _binomial_sums(Q: list[Tensor], c_t: Tensor) -> list[Tensor]:
    """Return sum_r binomial(n, r) Q_r (-c_t)^(n - r), r = 1, ..., n, by Horner's rule, for n = 2, 3, ..."""
    sums = []
    for n in range(2, len(Q) + 1):
        total = Q[0]
        for r in range(2, n + 1):
            total = torch.addcmul(Q[r - 1], total, c_t, value=-r / (n - r + 1))
        sums.append(total)
    return sums


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
    """Return D(s) for moves of any size; `reference.loss_difference` derives it."""
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


def _output_difference(net: Unperturbed, factors: Tensor) -> Tensor:
    """Return D(s) for the shift of each logit, from `_output_factors(s, right)`; (..., B, O)."""
    return _log_ratio(net, net.delta * factors)


def _output_factors(s: Tensor, right: Tensor) -> Tensor:
    """Return S(+) / delta and S(-) / delta, (2, ...): expm1(+-s), and -expm1(-+s) for the right class."""
    e = torch.stack((s, -s)).expm1_()
    return torch.where(right, -e.flip(0), e)


def _structured(
    params: Params, x: Tensor, labels: Tensor, h: float, memory: float, needs: Plan, samples: int
) -> tuple[Tensor, Params]:
    """Return y_t, and the share of these samples in the gradient of a batch of `samples`."""
    unit_bytes = _unit_bytes(params, needs)
    pairs = max(1, min(PAIRS, int(memory // (unit_bytes * len(params.b1)))))
    total, y_t, shift = Params(*map(torch.zeros_like, params)), [], _shift(x.new_full((1, 1), h))
    classes = torch.arange(len(params.b2), device=x.device)
    for rows in _slices(len(x), int(memory // (unit_bytes * params.W2.numel()))):
        net = _unperturbed(params, x[rows], labels[rows], needs.terms)
        _add_by_pixel(total.W1, net, x[rows], h, needs, pairs)
        total.b1.add_(_hidden_difference(net, shift, needs).sum(0))
        right = labels[rows][:, None] == classes
        factors = _output_factors(h * net.z1.T[:, :, None], right)  # (2, H, b, O)
        total.W2.add_(_output_difference(net, factors).sum(1))
        total.b2.add_(_output_difference(net, _output_factors(shift.s, right)).sum(0))
        y_t.append(net.y_t)
    return torch.cat(y_t), Params(*(g.div_(2 * h * samples) for g in total))


def _unit_bytes(params: Params, needs: Plan) -> int:
    """Return the bytes of one sample, or one pair of sample and pixel, for each hidden unit in `structured`."""
    return params.W1.itemsize * (12 + 10 * (needs.terms or len(params.b2)))


def _add_by_pixel(total: Tensor, net: Unperturbed, x: Tensor, h: float, needs: Plan, size: int) -> None:
    """Add the differences of W1 to `total` (I, H), from the pairs of pixel and sample that are not 0 alone."""
    for pairs in x.T.nonzero().split(size):
        pixel, sample = pairs.T
        value = x[sample, pixel][:, None]
        differences = _hidden_difference(net.take(sample), _shift(h * value.abs()), needs)  # (P, H)
        total.index_add_(0, pixel, differences.mul_(value.sign()))


class Interpolation(NamedTuple):
    """What leads from the differences at the nodes to the gradient."""

    first: tuple[Tensor, ...]  # m scalars, weights of the first node in each coefficient
    others: list[list[float]]  # (m, m - 1), those of the other nodes, relative to the first's
    scale: float  # of the inputs
    bias: list[float]  # the basis at the bias's input


class Nodes(NamedTuple):
    """What collocation takes, made once for many steps."""

    hidden: Shift  # (m, 1, 1)
    output: Tensor  # (2, m, O, O), `_output_factors` for each class and each right class
    hidden_weights: Interpolation
    output_weights: Interpolation


def _nodes(h: float, sizes: Sizes, needs: Plan, samples: int, params: Params) -> Nodes:
    """Return the nodes for batches of `samples`."""
    shift, like, classes = reach(h, sizes["x"]), params.W1, len(params.b2)
    hidden = torch.from_numpy(shift * positive_nodes(needs.hidden_nodes)[:, None, None]).to(like)
    output = torch.from_numpy(h * positive_nodes(needs.output_nodes)[:, None, None]).to(like)
    factors = _output_factors(output, torch.eye(classes, dtype=torch.bool, device=like.device))
    weights = (
        _interpolation(count, scale, 2 * h * samples, like)
        for count, scale in ((needs.hidden_nodes, h / shift), (needs.output_nodes, 1.0))
    )
    return Nodes(_shift(hidden), factors, *weights)


def _interpolation(count: int, scale: float, divisor: float, like: Tensor) -> Interpolation:
    transform = chebyshev_transform(count) / divisor
    if count > 1:  # T_3 = 4 v^3 - 3 v
        transform[0] -= 3 * transform[1]
        transform[1] *= 4
    first = torch.from_numpy(transform[:, 0]).to(like).unbind()
    others = transform[:, 1:] / transform[:, :1]
    return Interpolation(first, others.tolist(), scale, list(islice(_odd_basis(scale), count)))


def _collocated(
    params: Params, x: Tensor, labels: Tensor, memory: float, needs: Plan, nodes: Nodes
) -> tuple[Tensor, Params]:
    """Return y_t, and the share of these samples in the gradient of the batch that the nodes are for."""
    size = int(memory // _row_bytes(params, needs))
    if size >= len(x):
        return _collocated_sums(params, x, labels, needs, nodes)
    chunks = _slices(len(x), size)
    return reduce(_joined, (_collocated_sums(params, x[rows], labels[rows], needs, nodes) for rows in chunks))


def _joined(one: tuple[Tensor, Params], other: tuple[Tensor, Params]) -> tuple[Tensor, Params]:
    return torch.cat((one[0], other[0])), Params(*map(torch.add, one[1], other[1]))


def _collocated_sums(params: Params, x: Tensor, labels: Tensor, needs: Plan, nodes: Nodes) -> tuple[Tensor, Params]:
    """Return y_t, and the share of these samples in the gradient."""
    net = _unperturbed(params, x, labels, needs.terms)
    W1, b1 = _interpolate(nodes.hidden_weights, x, _hidden_difference(net, nodes.hidden, needs))
    factors = nodes.output.index_select(3, labels).mT  # (2, m, B, O)
    W2, b2 = _interpolate(nodes.output_weights, net.z1, _output_difference(net, factors))
    return net.y_t, Params(W1, b1, W2, b2)


def _interpolate(by: Interpolation, inputs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the interpolated differences over the samples; see the reference for the shapes."""
    first, *others = values.unbind()
    if not others and by.scale == 1:  # as in float32 at the chapter's step: spares a tenth of the whole
        coefficient = first.mul_(by.first[0])
        return (coefficient.T @ inputs).T, coefficient.sum(0)
    coefficients = [_combined(first, others, row).mul_(w) for row, w in zip(by.others, by.first, strict=True)]
    basis = _odd_basis(inputs if by.scale == 1 else inputs * by.scale)  # (B, I)
    weights = coefficients[0].T @ next(basis)  # (H, I): faster than (I, H)
    for c, b in zip(coefficients[1:], basis, strict=False):
        weights.addmm_(c.T, b)
    bias = coefficients[0] if by.scale == 1 else coefficients[0] * by.bias[0]
    return weights.T, _combined(bias, coefficients[1:], by.bias[1:]).sum(0)


def _combined(total: Tensor, arrays: list[Tensor], weights: list[float]) -> Tensor:
    for array, weight in zip(arrays, weights, strict=True):
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
    return params.W1.itemsize * ((2 * needs.hidden_nodes + 2) * inputs + units + 10 * needs.output_nodes * outputs)


def _slices(length: int, size: int) -> Iterator[slice]:
    """Cut range(length) into slices of `size`, the last one shorter where it must be."""
    size = max(1, size)
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _loss_and(
    gradient_: Callable[..., Params], h: float, memory: float, needs: Plan, sizes: Sizes, samples: int, params: Params
) -> Step:
    """Return the function that gives y_t and that gradient from one forward pass."""
    if gradient_ is gradient:
        return partial(_closed_form, samples=samples)
    if gradient_ is structured or (gradient_ is collocated and not needs.collocates):
        return partial(_structured, h=h, memory=memory, needs=needs, samples=samples)
    if gradient_ is collocated:
        return partial(_collocated, memory=memory, needs=needs, nodes=_nodes(h, sizes, needs, samples, params))
    return lambda *net: (_right(*net), gradient_(*net, h=h, memory=memory))


def _scan(
    step: Step, initial: Params, x: Tensor, labels: Tensor, batches: Tensor, learning_rate: float, planned: bool
) -> tuple[Params, Tensor, float]:
    """Return the net after all steps, y_t before each (K, B), and the largest of W2 that a planned step met, or 0."""
    W1 = initial.W1.T.clone(memory_format=torch.contiguous_format).T  # as the gradient of W1 lies in memory
    params = Params(W1, *(p.clone() for p in initial[1:]))
    # Made once. If each step kept an array of its own instead, the heap would fall to pieces, and the large arrays of
    # every step would lie in new pages of memory: these cost more than the step.
    inputs = x.new_empty(batches.shape[1], x.shape[1])
    right, largest = x.new_empty(batches.shape), torch.zeros_like(params.W2)
    for batch, batch_labels, kept in zip(batches, labels[batches], right, strict=True):
        if planned:
            torch.maximum(largest, params.W2.abs(), out=largest)
        y_t, slope = step(params, torch.index_select(x, 0, batch, out=inputs), batch_labels)
        for p, g in zip(params, slope, strict=True):
            p.sub_(g, alpha=learning_rate)
        kept.copy_(y_t.view(-1))
    return params._replace(W1=W1.contiguous()), right, float(largest.max())
