"""The difference of one sample's loss between a shift by +s and by -s, without ever subtracting two losses.

With y = softmax(a2) of the unperturbed net, q = y_t / (y_t + DELTA), r = 1 - q = DELTA / (y_t + DELTA) and logits
that move by d_k, put S = sum_{k != t} y_k expm1(d_k - d_t). Then y_t becomes y_t / (1 + S), and the loss changes by
-log1p(-q S / (1 + S)). Joined in one logarithm, loss(+s) - loss(-s) is

    D(s) = log1p( q (S(+) - S(-)) / ((1 + S(-)) (1 + r S(+))) ).

The sum leaves out k = t: summed over all k it would cancel wherever y_t is near 1.

* A weight W1[i, j] shifts the input of hidden unit j by s = h x[b, i]. With z = sigmoid(a1), w = sigmoid(-a1) and
  e = expm1(-s) the unit's output moves up by -z w e / (1 + w e) and down by -z w e / (1 + z e); the logits follow by
  d_k = dz W2[j, k].
* A weight W2[j, k] shifts logit k itself, by s = h z1[b, j]: S(+-) = y_k expm1(+-s) for k != t. For k = t it is
  (sum_{k != t} y_k) expm1(-+s): the same with the sum of the others in place of y_k and, D being odd, the sign turned.
* A bias is a weight whose input is 1.

While every |dz V| is small, V = W2[j, k] - W2[j, t], expm1 is a polynomial and S = sum_n dz^n M_n with the power sums
M_n[b, j] = sum_k y_k V^n / n!, shared by all shifts of a unit. reference/collocation.py says how many terms are exact
to rounding; where none are, the exponentials are taken themselves.
"""

import math
from typing import NamedTuple, Self

import numpy as np

from reference.collocation import Plan
from reference.functions import DELTA, sigmoid, softmax
from reference.two_layer_net import Params


class Base(NamedTuple):
    """The unperturbed pass: what the differences need to know of it, sample by sample."""

    a1: np.ndarray  # (B, H)
    z1: np.ndarray  # (B, H), sigmoid(a1)
    one_minus_z1: np.ndarray  # (B, H), sigmoid(-a1): nothing cancels
    q: np.ndarray  # (B, 1)
    r: np.ndarray  # (B, 1), 1 - q without cancellation
    abs_delta: np.ndarray  # (B, O), y, for the right class the sum of the others
    sign: np.ndarray  # (B, O), -1 for the right class and 1 for the others
    loss: np.ndarray  # (B, 1), of each sample
    margin: np.ndarray  # (B, O), a2 - a2[t]
    power_sums: np.ndarray  # (B, n, H), M_n; with no terms V itself, (B, O, H)

    def take(self, samples: np.ndarray) -> Self:
        """Return the pass for `samples`, in their order."""
        return type(self)(*(field[samples] for field in self))


def unperturbed_pass(params: Params, x: np.ndarray, labels: np.ndarray, terms: int) -> Base:
    """Run the forward pass once. `terms` is n, the number of power sums; 0 stands for V itself."""
    a1 = x @ params.W1 + params.b1
    z1 = sigmoid(a1)
    a2 = z1 @ params.W2 + params.b2
    y = softmax(a2)
    right = labels[:, None] == np.arange(len(params.b2))
    y_t = y[right][:, None]
    others = np.where(right, 0, y)
    V = params.W2.T - params.W2.T[labels][:, None]  # (B, O, H)
    return Base(
        a1=a1,
        z1=z1,
        one_minus_z1=sigmoid(-a1),
        q=y_t / (y_t + DELTA),
        r=DELTA / (y_t + DELTA),
        abs_delta=np.where(right, others.sum(axis=1, keepdims=True), y),
        sign=np.where(right, -1, 1).astype(y.dtype),
        loss=-np.log(y_t + DELTA),
        margin=a2 - a2[right][:, None],
        power_sums=sum_powers(others, V, terms) if terms else V,
    )


def sum_powers(others: np.ndarray, V: np.ndarray, terms: int) -> np.ndarray:
    """Compute M_1 .. M_n, (B, n, H), from V itself: products with powers of W2 would cancel where columns are alike."""
    power_sums = np.empty((len(V), terms, V.shape[2]), V.dtype)
    power = V.copy()
    for n in range(terms):
        np.matmul(others[:, None], power, out=power_sums[:, n : n + 1])
        power_sums[:, n] /= math.factorial(n + 1)
        power *= V
    return power_sums


def hidden_difference(base: Base, s: np.ndarray, plan: Plan) -> np.ndarray:
    """Compute D(s), s >= 0 the shift of each hidden unit's input; s broadcasts against (B, H), as the result does."""
    e = np.expm1(-s)
    if plan.small_shifts:
        slope = -base.z1 * base.one_minus_z1 * e
        up, down = slope / (1 + base.one_minus_z1 * e), slope / (1 + base.z1 * e)
    else:  # the denominators would cancel
        up, down = -sigmoid(base.a1 + s) * base.one_minus_z1 * e, -base.z1 * sigmoid(s - base.a1) * e
    return difference_by_power_sums(base, up, down) if plan.terms else difference_by_exponentials(base, up, down)


def difference_by_power_sums(base: Base, up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Compute D(s) for moves `up` and `down` of the units' outputs that the power sums are exact for."""
    above, below = polynomial(base.power_sums, up), polynomial(base.power_sums, -down)
    return np.log1p(base.q * (above - below) / ((1 + below) * (1 + base.r * above)))


def polynomial(power_sums: np.ndarray, dz: np.ndarray) -> np.ndarray:
    """Compute S = sum_n M_n dz^n by Horner's rule."""
    total = power_sums[:, -1] * dz
    for n in range(power_sums.shape[1] - 2, -1, -1):
        total = (total + power_sums[:, n]) * dz
    return total


def difference_by_exponentials(base: Base, up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Compute D(s) for moves of any size.

    With A(+-) = sum_k exp(a2_k - a2_t + dz(+-) V), y_t becomes 1 / A and D is the signed log1p(|A(+) - A(-)| /
    (A(lesser) (1 + DELTA A(greater)))). The terms of A(+) - A(-) are exp(the larger exponent) times
    -expm1(-|difference of the exponents|). Nothing overflows: from each sum its largest exponent is taken out.
    """
    V, margin = base.power_sums, base.margin[:, :, None]  # (B, O, H), (B, O, 1)
    above, below = margin + up[..., None, :] * V, margin - down[..., None, :] * V
    apart, larger = (up + down)[..., None, :] * V, np.maximum(above, below)
    top = larger.max(axis=-2, keepdims=True)
    change = -(np.sign(apart) * np.exp(larger - top) * np.expm1(-np.abs(apart))).sum(axis=-2)
    (plus, plus_sum), (minus, minus_sum) = scaled_exponential_sum(above), scaled_exponential_sum(below)
    rises = change > 0
    lesser, lesser_log = np.where(rises, minus, plus), np.log(np.where(rises, minus_sum, plus_sum))
    greater = np.where(rises, plus + np.log(plus_sum), minus + np.log(minus_sum))
    exponent = (top[..., 0, :] - lesser) - lesser_log - np.logaddexp(math.log(DELTA) + greater, 0)
    return np.sign(change) * np.log1p(np.abs(change) * np.exp(exponent))


def scaled_exponential_sum(exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (m, s) with sum_k exp(exponents) = exp(m) s."""
    top = exponents.max(axis=-2, keepdims=True)
    return top[..., 0, :], np.exp(exponents - top).sum(axis=-2)


def output_difference(base: Base, s: np.ndarray) -> np.ndarray:
    """Compute D(s) for the shift s >= 0 of each logit; s broadcasts against (B, O), and so does the result."""
    e, f = np.expm1(s), np.expm1(-s)
    above, below = base.abs_delta * e, base.abs_delta * f
    return base.sign * np.log1p(base.q * base.abs_delta * (e - f) / ((1 + below) * (1 + base.r * above)))
