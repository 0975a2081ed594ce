"""The difference of one sample's loss between a shift by +s and by -s, without ever subtracting two losses.

With y = softmax(a2) of the unperturbed net, q = y_t / (y_t + DELTA), r = 1 - q = DELTA / (y_t + DELTA) and logits
that move by d_k, put S = sum_{k != t} y_k expm1(d_k - d_t). Then y_t becomes y_t / (1 + S), and the loss grows by
log((1 + S) / (1 + r S)). Joined in one logarithm, loss(+s) - loss(-s) is

    D(s) = log( (1 + S(+)) (1 + r S(-)) / ((1 + S(-)) (1 + r S(+))) )
         = 2 artanh( q (S(+) - S(-)) / 2 / (1 + (1 + r) (S(+) + S(-)) / 2 + r S(+) S(-)) ).

The sum leaves out k = t: summed over all k it would cancel wherever y_t is near 1.

* A weight W1[i, j] shifts the input of hidden unit j by s = h x[b, i]. With z = sigmoid(a1) the unit's output moves by
  dz = z (1 - z) / (z + 1 / expm1(+-s)); the logits follow by d_k = dz W2[j, k].
* A weight W2[j, k] shifts logit k itself, by s = h z1[b, j]: S(+-) = y_k expm1(+-s) for k != t. For k = t it is
  (sum_{k != t} y_k) expm1(-+s): the same with the sum of the others in place of y_k and, D being odd, the sign turned.
* A bias is a weight whose input is 1.

**Units.** Shifts come as multiples v of a `scale`, the largest shift (for the output layer h), and moves, sums and
differences are divided by it: D(scale v) / (2 scale) is as large as the slope, however small h is. So nothing leaves
the range of the dtype where the result lies in it, and products with `scale` may underflow without harm.

**Power sums.** While every |dz V| is small, V = W2[j, k] - W2[j, t], expm1 is a polynomial and S / scale =
sum_n P_n (dz / scale)^n with P_n[b, j] = sum_{k != t} y_k V (scale V)^(n-1) / n!, shared by all shifts of a unit.
reference/collocation.py says how many terms are exact to rounding; where none are, the exponentials are taken
themselves.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np

from reference.collocation import Plan
from reference.functions import DELTA, sigmoid, sigmoids, softmax
from reference.two_layer_net import Params


class Base(NamedTuple):
    """The unperturbed pass: what the differences need to know of it, sample by sample."""

    a1: np.ndarray  # (B, H)
    z1: np.ndarray  # (B, H), sigmoid(a1)
    one_minus_z1: np.ndarray  # (B, H), sigmoid(-a1): nothing cancels
    q: np.ndarray  # (B, 1)
    r: np.ndarray  # (B, 1), 1 - q without cancellation
    abs_delta: np.ndarray  # (B, O), y, for the right class the sum of the others
    labels: np.ndarray  # (B,)
    loss: np.ndarray  # (B, 1), of each sample
    half_margin: np.ndarray  # (B, O), (a2 - a2[t]) / 2
    half_spread: np.ndarray  # (B, O, H), scale V / 2; with power sums (B, 0, H)
    power_sums: np.ndarray  # (n, B, H), P_n; none where the exponentials are taken

    def take(self, samples: np.ndarray) -> Self:
        """Return the pass for `samples`, in their order."""
        fields = {name: field[samples] for name, field in self._asdict().items() if name != "power_sums"}
        return self._replace(**fields, power_sums=self.power_sums[:, samples])


SumPowers = Callable[[np.ndarray, np.ndarray, np.ndarray, float, int], np.ndarray]
"""From (abs_delta, W2, labels, scale, terms) to P_1, ..., P_n."""


def unperturbed_pass(
    params: Params, x: np.ndarray, labels: np.ndarray, scale: float, terms: int, power_sums: SumPowers
) -> Base:
    """Run the forward pass once. `terms` is n, the number of power sums; with 0 the exponentials are prepared."""
    rows = np.arange(len(x))
    z1, one_minus_z1 = sigmoids(a1 := x @ params.W1 + params.b1)
    half = (a2 := z1 @ params.W2 + params.b2) / 2  # the difference of two halves is finite wherever they are
    y = softmax(a2)
    y_t = y[rows, labels][:, None]
    y[rows, labels] = 0
    y[rows, labels] = y.sum(axis=1)
    return Base(
        a1=a1,
        z1=z1,
        one_minus_z1=one_minus_z1,
        q=y_t / (y_t + DELTA),
        r=DELTA / (y_t + DELTA),
        abs_delta=y,
        labels=labels,
        loss=-np.log(y_t + DELTA),
        half_margin=half - half[rows, labels][:, None],
        half_spread=scale * halved_spread(params.W2, labels) if terms == 0 else np.empty((len(x), 0, len(params.b1))),
        power_sums=power_sums(y, params.W2, labels, scale, terms),
    )


def halved_spread(W2: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute V / 2, (B, O, H), which is finite wherever W2 is."""
    half = W2.T / 2
    return half - half[labels][:, None]


def sum_powers(abs_delta: np.ndarray, W2: np.ndarray, labels: np.ndarray, scale: float, terms: int) -> np.ndarray:
    """Compute P_1, ..., P_n, (n, B, H), from V itself, to a few roundings also where columns of W2 are alike."""
    power_sums = np.empty((terms, len(labels), len(W2)), W2.dtype)
    if terms:
        V = W2.T - W2.T[labels][:, None]  # (B, O, H), 0 for the right class
        power = V.copy()
        for n in range(terms):
            np.matmul(abs_delta[:, None], power, out=power_sums[n, :, None])
            power *= scale / (n + 2) * V
    return power_sums


def multiply_powers(abs_delta: np.ndarray, W2: np.ndarray, labels: np.ndarray, scale: float, terms: int) -> np.ndarray:
    """Compute P_1, ..., P_n, (n, B, H), by matrix products with powers of W2: there is no array over (B, O, H).

    With delta_k = y_k for k != t and delta_t = -sum_{k != t} y_k, which sum to 0, and c = W2[j, :],

        P_n = sum_r R_r (-scale c_t)^(n - r) / (n - r)!,    R_r = sum_k delta_k c_k (scale c_k)^(r - 1) / r!,

    by the binomial theorem. The rounding errors are relative to sum_k |delta_k| |c_k|, as those of the closed form are:
    where columns of W2 are alike, these sums cancel.
    """
    delta = abs_delta.copy()
    delta[np.arange(len(labels)), labels] *= -1
    R = np.empty((terms, len(labels), len(W2)), W2.dtype)
    power, scaled = W2.T, scale * W2.T  # (O, H)
    for r in range(terms):
        np.matmul(delta, power, out=R[r])
        power = power * (scaled / (r + 2)) if r + 1 < terms else power
    minus_c_t = -scaled[labels] if terms > 1 else scaled
    for n in range(terms, 1, -1):  # R_n is needed for P_n and beyond only
        R[n - 1] = binomial_sum(R[:n], minus_c_t)
    return R


def binomial_sum(R: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Compute sum_r R_r c^(n - r) / (n - r)!, r = 1, ..., n, by Horner's rule; n = len(R)."""
    total = R[0]
    for r in range(1, len(R)):
        total = total * c
        total /= len(R) - r
        total += R[r]
    return total


class Shift(NamedTuple):
    """Shifts by +scale v and by -scale v."""

    v: np.ndarray  # v >= 0
    e: np.ndarray  # (2, ...), expm1(+-scale v) / scale


def make_shift(v: np.ndarray, scale: float, terms: int) -> Shift:
    """Prepare the shifts by +-scale v, v of at least two axes."""
    return Shift(v, scaled_expm1(np.stack((v, -v)), scale, terms))


def hidden_difference(base: Base, shift: Shift, scale: float, plan: Plan) -> np.ndarray:
    """Compute D / (2 scale) for the shift of each hidden unit's input.

    `shift` broadcasts against (B, H), and so does the result.
    """
    moves = unit_moves(base, shift, scale, plan)
    if not plan.terms:
        return difference_by_exponentials(base, moves[0], moves[1], scale)
    if plan.linear:
        return base.q / 2 * base.power_sums[0] * (moves[0] - moves[1])
    above, below = polynomial(base.power_sums, moves)
    mean = above + below
    mean *= (1 + base.r) / 2
    product = scale * base.r * above
    product *= below
    mean += product
    mean *= scale
    mean += 1
    ratio = above - below
    ratio *= base.q / 2
    ratio /= mean
    return scaled_arctanh(ratio, scale, plan.arctanh_terms)


def unit_moves(base: Base, shift: Shift, scale: float, plan: Plan) -> np.ndarray:
    """Compute dz / scale for the shifts to either side, (2, ..., B, H)."""
    if plan.small_shifts:
        with np.errstate(divide="ignore", over="ignore"):  # infinite where a shift is too small to move anything
            poles = 1 / shift.e
        return base.z1 * base.one_minus_z1 / (scale * base.z1 + poles)
    s, e = scale * shift.v, shift.e[1]  # the denominators would cancel
    return np.stack((-sigmoid(base.a1 + s) * base.one_minus_z1 * e, base.z1 * sigmoid(s - base.a1) * e))


def polynomial(power_sums: np.ndarray, dz: np.ndarray) -> np.ndarray:
    """Compute sum_n P_n dz^n by Horner's rule."""
    total = power_sums[-1] * dz
    for P in power_sums[-2::-1]:
        total += P
        total *= dz
    return total


def difference_by_exponentials(base: Base, up: np.ndarray, down: np.ndarray, scale: float) -> np.ndarray:
    """Compute D / (2 scale) for moves of any size, which are divided by `scale`.

    With A(+-) = sum_k exp(a2_k - a2_t + dz(+-) V), y_t becomes 1 / A and D is the signed log1p(|A(+) - A(-)| /
    (A(lesser) (1 + DELTA A(greater)))). The terms of A(+) - A(-) are exp(the larger exponent) times
    -expm1(-|difference of the exponents|). Nothing overflows: from each sum its largest exponent is taken out, and
    exponents are cut where exp has long reached 0 or infinity.
    """
    above, below = cut_exponents(base, up, base.half_margin), cut_exponents(base, down, base.half_margin)
    apart, larger = cut_exponents(base, up - down, np.zeros_like(base.half_margin)), np.maximum(above, below)
    top = larger.max(axis=-2, keepdims=True)
    change = -(np.sign(apart) * np.exp(larger - top) * np.expm1(-np.abs(apart))).sum(axis=-2)
    (plus, plus_sum), (minus, minus_sum) = scaled_exponential_sum(above), scaled_exponential_sum(below)
    rises = change > 0
    lesser, lesser_log = np.where(rises, minus, plus), np.log(np.where(rises, minus_sum, plus_sum))
    greater = np.where(rises, plus + np.log(plus_sum), minus + np.log(minus_sum))
    exponent = (top[..., 0, :] - lesser) - lesser_log - np.logaddexp(math.log(DELTA) + greater, 0)
    return np.sign(change) * np.log1p(np.abs(change) * np.exp(exponent)) / (2 * scale)


def cut_exponents(base: Base, move: np.ndarray, half_margin: np.ndarray) -> np.ndarray:
    """Compute 2 half_margin + dz V, (..., B, O, H), and cut it to a quarter of the dtype's range."""
    most = np.finfo(move.dtype).max / 8
    half = np.clip(half_margin, -most, most)[:, :, None] + move[..., None, :] * base.half_spread
    return 2 * np.clip(half, -most, most)


def scaled_exponential_sum(exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (m, s) with sum_k exp(exponents) = exp(m) s."""
    top = exponents.max(axis=-2, keepdims=True)
    return top[..., 0, :], np.exp(exponents - top).sum(axis=-2)


def output_difference(base: Base, shift: Shift, h: float, plan: Plan) -> np.ndarray:
    """Compute D / (2 h) for the shift of each logit; `shift` broadcasts against (B, O), and so does the result."""
    e, f = shift.e
    ratio = (e - f) * (base.q / 2) * base.abs_delta
    if not plan.output_linear:
        denominator = base.r * (h * e) * (h * f) * base.abs_delta
        denominator += h * (e + f) * ((1 + base.r) / 2)
        denominator *= base.abs_delta
        denominator += 1
        ratio /= denominator
    differences = scaled_arctanh(ratio, h, plan.output_arctanh_terms)
    differences[..., np.arange(len(base.labels)), base.labels] *= -1
    return differences


def scaled_expm1(v: np.ndarray, scale: float, terms: int) -> np.ndarray:
    """Compute expm1(scale v) / scale by `terms` terms of its series; 0 stands for the function itself."""
    if terms == 0:
        return np.expm1(scale * v) / scale
    total = np.ones_like(v)
    for n in range(terms, 1, -1):
        total = 1 + scale * v / n * total
    return v * total


def scaled_arctanh(v: np.ndarray, scale: float, terms: int) -> np.ndarray:
    """Compute arctanh(scale v) / scale by `terms` terms of its series; 0 stands for the function itself."""
    if terms == 0:
        return np.arctanh(scale * v) / scale
    if terms == 1:
        return v
    square = (scale * v) ** 2
    total = square / (2 * terms - 1)
    for n in range(terms - 1, 1, -1):
        total += 1 / (2 * n - 1)
        total *= square
    total += 1
    return v * total
