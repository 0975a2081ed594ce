"""The difference D(s) of one sample's loss between a shift by +s and by -s, in PyTorch.

reference/loss_difference.py derives it. With rho = y_t / DELTA, q = rho / (1 + rho) and r = 1 / (1 + rho), so that

    D(s) = 2 artanh( R / ((1 + S(-)) (1 + rho + S(+)) + R) ),    R = rho / 2 (S(+) - S(-)),

which takes fewer operations. Both signs of a shift are one tensor, (2, ...), and one operation.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor

from ports.torch_port.runtime import scalar
from ports.torch_port.two_layer_net import forward_pass, output_delta
from reference.collocation import Plan
from reference.functions import DELTA
from reference.two_layer_net import Params


class Base(NamedTuple):
    """The unperturbed pass: what the differences need to know of it, sample by sample."""

    a1: Tensor  # (B, H)
    z1: Tensor  # (B, H), sigmoid(a1)
    one_minus_z1: Tensor  # (B, H), sigmoid(-a1): nothing cancels
    slope: Tensor  # (B, H), z1 (1 - z1)
    y_t: Tensor  # (B, 1)
    half_rho: Tensor  # (B, 1)
    one_plus_rho: Tensor  # (B, 1)
    delta: Tensor  # (B, O), y, for the right class minus the sum of the others
    half_margin: Tensor  # (B, O), (a2 - a2[t]) / 2; with power sums (B, 0)
    half_spread: Tensor  # (B, O, H), scale V / 2; with power sums (B, 0, H)
    power_sums: tuple[Tensor, ...]  # n! P_n, (B, H) each; none where the exponentials are taken

    def take(self, samples: Tensor) -> Self:
        """Return the pass for `samples`, in their order."""
        *names, _ = self._fields
        fields = {name: getattr(self, name).index_select(0, samples) for name in names}
        return self._replace(**fields, power_sums=tuple(P.index_select(0, samples) for P in self.power_sums))


SumPowers = Callable[[Tensor, Tensor, Tensor, float, int], tuple[Tensor, ...]]
"""From (delta, W2, labels, scale, terms) to 1! P_1, ..., n! P_n: the factorials are brought by `polynomial`."""


def unperturbed_pass(
    params: Params, x: Tensor, labels: Tensor, scale: float, terms: int, power_sums: SumPowers
) -> Base:
    """Run the forward pass once. `terms` is n, the number of power sums; with 0 the exponentials are prepared."""
    a1, z1, one_minus_z1, a2, y = forward_pass(params, x)
    y_t, delta = output_delta(y, labels)
    half_rho = y_t * scalar(0.5 / DELTA, x)
    half = a2[:, :0] if terms else a2 / 2  # the difference of two finite numbers may be infinite, that of halves is not
    return Base(
        a1=a1,
        z1=z1,
        one_minus_z1=one_minus_z1,
        slope=z1 * one_minus_z1,
        y_t=y_t,
        half_rho=half_rho,
        one_plus_rho=torch.add(scalar(1, x), half_rho, alpha=2),
        delta=delta,
        half_margin=half if terms else half - half.gather(1, labels[:, None]),
        half_spread=half[:, :, None] if terms else scale * halved_spread(params.W2, labels),
        power_sums=power_sums(delta, params.W2, labels, scale, terms),
    )


def halved_spread(W2: Tensor, labels: Tensor) -> Tensor:
    """Compute V / 2, (B, O, H), which is finite wherever W2 is."""
    half = W2.T / 2
    return half - half.index_select(0, labels)[:, None]


# Other arguments: the sign of delta is that of the differences, so that nothing else has to bring it
def sum_powers(delta: Tensor, W2: Tensor, labels: Tensor, scale: float, terms: int) -> tuple[Tensor, ...]:
    """Compute 1! P_1, ..., n! P_n, (B, H) each, from V itself: to a few roundings, also where columns are alike."""
    if terms == 0:
        return ()
    V = W2.T - W2.T.index_select(0, labels)[:, None]  # (B, O, H), 0 for the right class
    power, power_sums, scaled = V, [], scale * V
    for _ in range(terms):
        power_sums.append((delta[:, None] @ power)[:, 0])
        power = power * scaled
    return tuple(power_sums)


# Other arguments: as in `sum_powers`
def multiply_powers(delta: Tensor, W2: Tensor, labels: Tensor, scale: float, terms: int) -> tuple[Tensor, ...]:
    """Compute 1! P_1, ..., n! P_n, (B, H) each, by products with powers of W2: no tensor is over (B, O, H)."""
    if terms == 0:
        return ()
    power = W2.T  # (O, H)
    Q = [delta @ power]  # (B, H)
    if terms == 1:
        return (Q[0],)
    scaled = W2.T * scale
    for _ in range(1, terms):
        power = power * scaled
        Q.append(delta @ power)
    c_t = scaled.index_select(0, labels)
    return (Q[0], *(binomial_sum(Q[:n], c_t) for n in range(2, terms + 1)))


# Other arguments: Q_r = r! R_r, and c has the other sign, which an operation takes in
def binomial_sum(Q: list[Tensor], c: Tensor) -> Tensor:
    """Compute sum_r binomial(n, r) Q_r (-c)^(n - r), r = 1, ..., n, by Horner's rule; n = len(Q)."""
    total, n = Q[0], len(Q)
    for r in range(2, n + 1):
        total = torch.addcmul(Q[r - 1], total, c, value=-r / (n - r + 1))
    return total


class Shift(NamedTuple):
    """Shifts by +scale v and by -scale v."""

    v: Tensor  # v >= 0
    e: Tensor  # (2, ...), expm1(+-scale v) / scale
    poles: Tensor  # 1 / e


def make_shift(v: Tensor, scale: float, terms: int) -> Shift:
    """Prepare the shifts by +-scale v, v of at least two axes."""
    e = scaled_expm1(torch.stack((v, -v)), scale, terms)
    return Shift(v, e, e.reciprocal())


def hidden_difference(base: Base, shift: Shift, scale: float, plan: Plan) -> Tensor:
    """Compute D / (2 scale) for the shift of each hidden unit's input.

    `shift` broadcasts against (B, H), and so does the result.
    """
    moves = unit_moves(base, shift, scale, plan)
    up, down = moves.unbind()
    if not plan.terms:
        return difference_by_exponentials(base, up, down, scale)
    if plan.linear:
        return (up - down).mul_(base.power_sums[0] * (base.half_rho / base.one_plus_rho))
    above, below = polynomial(base.power_sums, moves).unbind()
    half = (above - below).mul_(base.half_rho)
    total = torch.add(base.one_plus_rho, above, alpha=scale)
    total.addcmul_(total, below, value=scale).add_(half, alpha=scale)
    return scaled_arctanh(half.div_(total), scale, plan.arctanh_terms)


def unit_moves(base: Base, shift: Shift, scale: float, plan: Plan) -> Tensor:
    """Compute dz / scale for the shifts to either side, (2, ..., B, H)."""
    if plan.small_shifts:
        moves = torch.add(shift.poles, base.z1, alpha=scale)
        return torch.div(base.slope, moves, out=moves)
    s, e = scale * shift.v, shift.e[1]  # the denominators would cancel
    return torch.stack((-torch.sigmoid(base.a1 + s) * base.one_minus_z1 * e, base.z1 * torch.sigmoid(s - base.a1) * e))


def polynomial(power_sums: tuple[Tensor, ...], dz: Tensor) -> Tensor:
    """Compute sum_n P_n dz^n by Horner's rule, in the place of dz."""
    total = power_sums[-1]
    for n in range(len(power_sums) - 1, 0, -1):
        total = torch.addcmul(power_sums[n - 1], total, dz, value=1 / (n + 1))
    return dz.mul_(total)


def difference_by_exponentials(base: Base, up: Tensor, down: Tensor, scale: float) -> Tensor:
    """Compute D / (2 scale) for moves of any size, which are divided by `scale`."""
    above, below = cut_exponents(base, up, base.half_margin), cut_exponents(base, down, base.half_margin)
    apart, larger = cut_exponents(base, up - down, torch.zeros_like(base.half_margin)), torch.maximum(above, below)
    top = larger.amax(-2, keepdim=True)
    change = -((larger - top).exp_() * apart.abs().neg_().expm1_()).mul_(apart.sign_()).sum(-2)
    (plus, plus_sum), (minus, minus_sum) = scaled_exponential_sum(above), scaled_exponential_sum(below)
    rises = change > 0
    lesser, lesser_log = torch.where(rises, minus, plus), torch.where(rises, minus_sum, plus_sum).log_()
    greater = torch.where(rises, plus + plus_sum.log(), minus + minus_sum.log())
    exponent = (top[..., 0, :] - lesser) - lesser_log - torch.logaddexp(math.log(DELTA) + greater, top.new_zeros(()))
    return change.sign() * torch.log1p(change.abs() * exponent.exp_()) / (2 * scale)


def cut_exponents(base: Base, move: Tensor, half_margin: Tensor) -> Tensor:
    """Compute 2 half_margin + dz V, (..., B, O, H), and cut it to a quarter of the dtype's range."""
    most = torch.finfo(move.dtype).max / 8
    half = half_margin.clamp(-most, most)[:, :, None] + move[..., None, :] * base.half_spread
    return half.clamp_(-most, most).mul_(2)


def scaled_exponential_sum(exponents: Tensor) -> tuple[Tensor, Tensor]:
    """Return (m, s) with sum_k exp(exponents) = exp(m) s."""
    top = exponents.amax(-2, keepdim=True)
    return top[..., 0, :], (exponents - top).exp_().sum(-2)


# Only in PyTorch: what the shifts of the logits bring, so that a training computes it once
class OutputShift(NamedTuple):
    """Shifts of a logit, with e = expm1(h v) / h and f = expm1(-h v) / h."""

    rise: Tensor  # e - f
    mean: Tensor  # h (e + f) / 2
    product: Tensor  # h e h f


# Only in PyTorch: see `OutputShift`
def make_output_shift(v: Tensor, h: float, terms: int) -> OutputShift:
    """Prepare the shifts of logits by +-h v, v of at least two axes."""
    e, f = make_shift(v, h, terms).e.unbind()
    return OutputShift(e - f, (e + f) * (h / 2), h * e * (h * f))


def output_difference(base: Base, shift: OutputShift, h: float, plan: Plan) -> Tensor:
    """Compute D / (2 h) for the shift of each logit; `shift` broadcasts against (B, O), and so does the result."""
    if plan.output_linear:
        return base.delta * (base.half_rho / base.one_plus_rho * shift.rise)
    size = base.delta.abs()
    denominator = torch.addcmul(torch.addcmul(shift.mean, shift.mean, base.one_plus_rho), shift.product, size)
    denominator = torch.addcmul(base.one_plus_rho, denominator, size)
    ratio = (base.half_rho * shift.rise * base.delta).div_(denominator)
    return scaled_arctanh(ratio, h, plan.output_arctanh_terms)


def scaled_expm1(v: Tensor, scale: float, terms: int) -> Tensor:
    """Compute expm1(scale v) / scale by `terms` terms of its series; 0 stands for the function itself."""
    if terms == 0:
        return torch.expm1(scale * v).div_(scale)
    total = torch.ones_like(v)
    for n in range(terms, 1, -1):
        total = 1 + scale * v / n * total
    return v * total


def scaled_arctanh(v: Tensor, scale: float, terms: int) -> Tensor:
    """Compute arctanh(scale v) / scale by `terms` terms of its series; 0 stands for the function itself."""
    if terms == 0:
        return torch.atanh(scale * v).div_(scale)
    if terms == 1:
        return v
    square = (scale * v).square_()
    total = scalar(1 / (2 * terms - 1), v)
    for n in range(terms - 1, 1, -1):
        total = torch.addcmul(scalar(1 / (2 * n - 1), v), total, square)
    return torch.addcmul(v, v, square * total if terms > 2 else square, value=1 if terms > 2 else 1 / 3)
