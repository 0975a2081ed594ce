"""The difference D(s) of one sample's loss between a shift by +s and by -s, in PyTorch.

reference/loss_difference.py derives it. With rho = y_t / DELTA, q = rho / (1 + rho) and r = 1 / (1 + rho), so that

    D(s) = log1p( rho (S(+) - S(-)) / ((1 + S(-)) (1 + rho + S(+))) ),

which takes two operations less. Both signs of a shift are one tensor, (2, ...), and one operation.
"""

import math
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
    rho: Tensor  # (B, 1)
    one_plus_rho: Tensor  # (B, 1)
    delta: Tensor  # (B, O), y, for the right class minus the sum of the others
    power_sums: tuple[Tensor, ...]  # n! M_n (B, H) for each n; with no terms V (B, O, H) and a2 - a2[t] (B, O, 1)

    def take(self, samples: Tensor) -> Self:
        """Return the pass for `samples`, in their order."""
        *names, _ = self._fields
        fields = {name: getattr(self, name).index_select(0, samples) for name in names}
        return self._replace(**fields, power_sums=tuple(part.index_select(0, samples) for part in self.power_sums))


def unperturbed_pass(params: Params, x: Tensor, labels: Tensor, terms: int) -> Base:
    """Run the forward pass once. `terms` is n, the number of power sums; 0 stands for V itself."""
    a1, z1, one_minus_z1, a2, y = forward_pass(params, x)
    y_t, delta = output_delta(y, labels)
    rho = y_t / scalar(DELTA, x)
    power_sums = sum_powers(delta, params.W2, labels, terms) if terms else exponent_terms(a2, params.W2, labels)
    return Base(a1, z1, one_minus_z1, z1 * one_minus_z1, y_t, rho, rho + scalar(1, x), delta, power_sums)


# Other arguments: V, (B, O, H), is not needed
def sum_powers(delta: Tensor, W2: Tensor, labels: Tensor, terms: int) -> tuple[Tensor, ...]:
    """Compute the sums over k != t of y_k (c_k - c_t)^n, n = 1, 2, ..., with c = W2[j, :], by products without V.

    They follow from Q_r = sum_k delta_k c_k^r by the binomial theorem: delta sums to 0, and k = t adds nothing. Where
    the columns of W2 are alike they cancel as the closed form does, relative to sum_k y_k |W2[j, k]|.
    """
    c = power = W2.T  # (O, H)
    Q = [delta @ c]  # (B, H)
    for _ in range(1, terms):
        power = power * c
        Q.append(delta @ power)
    return tuple(Q) if terms == 1 else (Q[0], *binomial_sums(Q, c.index_select(0, labels)))


# Only in PyTorch: the reference sums the powers of V itself
def binomial_sums(Q: list[Tensor], c_t: Tensor) -> list[Tensor]:
    """Compute sum_r binomial(n, r) Q_r (-c_t)^(n - r), r = 1, ..., n, by Horner's rule, for n = 2, 3, ..."""
    sums = []
    for n in range(2, len(Q) + 1):
        total = Q[0]
        for r in range(2, n + 1):
            total = torch.addcmul(Q[r - 1], total, c_t, value=-r / (n - r + 1))
        sums.append(total)
    return sums


# Only in PyTorch: V and the margins are computed only where the exponentials need them
def exponent_terms(a2: Tensor, W2: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute V (B, O, H) and a2 - a2[t] (B, O, 1)."""
    V = W2.T - W2.T.index_select(0, labels)[:, None]
    return V, (a2 - a2.gather(1, labels[:, None]))[:, :, None]


# Only in PyTorch: a training computes the poles of its nodes once
class Shift(NamedTuple):
    """Shifts of the hidden units' inputs by +s and by -s."""

    size: Tensor  # s >= 0
    poles: Tensor  # 1 / expm1(s) and 1 / expm1(-s), (2, ...)


# Only in PyTorch: see `Shift`
def make_shift(s: Tensor) -> Shift:
    """Return the shifts by +s and by -s, s >= 0."""
    return Shift(s, torch.stack((s, -s)).expm1_().reciprocal_())


def hidden_difference(base: Base, s: Shift, plan: Plan) -> Tensor:
    """Compute D(s), s the shift of each hidden unit's input; s broadcasts against (B, H), as the result does.

    The unit's output moves by z (1 - z) / (z + 1 / expm1(+-s)): the same as in the reference.
    """
    if plan.small_shifts:
        moves = base.z1 + s.poles  # (2, ..., B, H)
        torch.div(base.slope, moves, out=moves)
    else:  # the denominators would cancel
        e = torch.expm1(-s.size)
        up, down = -torch.sigmoid(base.a1 + s.size) * base.one_minus_z1, base.z1 * torch.sigmoid(s.size - base.a1)
        moves = torch.stack((up * e, down * e))
    return difference_by_power_sums(base, moves) if plan.terms else difference_by_exponentials(base, moves)


# Other arguments: both moves are one tensor
def difference_by_power_sums(base: Base, moves: Tensor) -> Tensor:
    """Compute D(s) for moves (2, ..., B, H) of the units' outputs that the power sums are exact for."""
    return log_ratio(base, polynomial(base.power_sums, moves))


# Only in PyTorch: both layers share it
def log_ratio(base: Base, S: Tensor) -> Tensor:
    """Compute D from S(+) and S(-), (2, ...)."""
    above, below = S.unbind()
    denominator = above + base.one_plus_rho
    denominator.addcmul_(denominator, below)
    return (above - below).mul_(base.rho).div_(denominator).log1p_()


def polynomial(power_sums: tuple[Tensor, ...], dz: Tensor) -> Tensor:
    """Compute S = sum_n M_n dz^n by Horner's rule, in the place of dz."""
    total = power_sums[-1]
    for n in range(len(power_sums) - 1, 0, -1):
        total = torch.addcmul(power_sums[n - 1], total, dz, value=1 / (n + 1))
    return dz.mul_(total)


# Other arguments: both moves are one tensor
def difference_by_exponentials(base: Base, moves: Tensor) -> Tensor:
    """Compute D(s) for moves (2, ..., B, H) of any size."""
    up, down = moves.unbind()
    V, margin = base.power_sums  # (B, O, H), (B, O, 1)
    above, below = margin + up[..., None, :] * V, margin + down[..., None, :] * V
    apart, larger = (up - down)[..., None, :] * V, torch.maximum(above, below)
    top = larger.amax(-2, keepdim=True)
    change = -((larger - top).exp_() * apart.abs().neg_().expm1_()).mul_(apart.sign_()).sum(-2)
    (plus, plus_sum), (minus, minus_sum) = scaled_exponential_sum(above), scaled_exponential_sum(below)
    rises = change > 0
    lesser, lesser_log = torch.where(rises, minus, plus), torch.where(rises, minus_sum, plus_sum).log_()
    greater = torch.where(rises, plus + plus_sum.log(), minus + minus_sum.log())
    exponent = (top[..., 0, :] - lesser) - lesser_log - torch.logaddexp(math.log(DELTA) + greater, top.new_zeros(()))
    return change.sign() * torch.log1p(change.abs() * exponent.exp_())


def scaled_exponential_sum(exponents: Tensor) -> tuple[Tensor, Tensor]:
    """Return (m, s) with sum_k exp(exponents) = exp(m) s."""
    top = exponents.amax(-2, keepdim=True)
    return top[..., 0, :], (exponents - top).exp_().sum(-2)


# Other arguments: a training computes the factors of its shifts once
def output_difference(base: Base, factors: Tensor) -> Tensor:
    """Compute D(s), (..., B, O), for the shift of each logit; `output_factors` makes the factors (2, ..., B, O)."""
    return log_ratio(base, base.delta * factors)


# Only in PyTorch: a training computes the factors of its nodes once, for each right class
def output_factors(s: Tensor, right: Tensor) -> Tensor:
    """Compute S(+) / delta and S(-) / delta, (2, ...): expm1(+-s), and -expm1(-+s) for the right class."""
    e = torch.stack((s, -s)).expm1_()
    return torch.where(right, -e.flip(0), e)
