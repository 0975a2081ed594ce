"""How many nodes, and how many terms of the exponential, keep the difference of the loss exact to rounding.

The difference D(s) = loss(shift by +s) - loss(shift by -s) of one sample is an odd, analytic function of the shift s.
`collocated` evaluates it at m nodes in (0, S] and interpolates by odd polynomials. This module derives m from what is
known before anything is compiled: the largest shift S, the unit roundoff u of the dtype, and 2 max|W2|, which the
spread V = max over j, k, l of |W2[j, k] - W2[j, l]| can't exceed. The same for the number n of terms of expm1 in the
sums of `structured` and `collocated`.

**Interpolation.** With the nodes s_k = S cos((2k - 1) pi / (4m + 2)), the positive zeros of the Chebyshev polynomial
T_{2m+1}, the error at s is D^(2m+1)(xi) / (2m+1)! * s prod(s^2 - s_k^2), and the last product is at most
(2m + 1) (S/2)^(2m), its value at 0. Cauchy's estimate on a circle of radius R - S around xi bounds the derivative, so

    |error| <= 2 |s| G * C(R) * (S / (2 (R - S)))^(2m)      for each R > S,

where G = q sum_{k != t} p_k |V_k| z (1 - z) is the size of the slope at 0 and C(R) bounds |loss'(s)| / G in the disc
|s| <= R. C has three factors:

* sigmoid'(a + s) / sigmoid'(a), at most exp(R) / cos(R/2)^2, since |cosh(x + iy)| >= cosh(x) cos(y);
* p_k(s) / p_k, at most exp(theta) / cos(theta/2): the output z moves by at most R / (4 cos(R/2)^2), so that the logits'
  exponents keep within a spread theta = R V / (4 cos(R/2)^2) of each other, and terms in a cone of opening theta < pi
  can't sum to less than cos(theta/2) of their moduli;
* q(s) / q, at most the same again.

R is free, so the least bound over a grid is taken. For a weight of the output layer the shift moves one logit by s
itself: theta = R, and there is no first factor. The nodes suffice when the relative error is at most 4 u: a single D,
even at a node, carries more than four roundings (of p, of the sum over k, of dz, of the quotient).

**Terms.** Cutting expm1(v) after n terms leaves at most |v|^(n+1) exp(|v|) / (n+1)!, relative to |v| no more than u for
the n that is taken. |v| <= tanh(S/4) V, since sigmoid changes by at most tanh(s/4) over an interval of length s.
"""

import math
import warnings
from functools import cache
from typing import NamedTuple

import numpy as np

from reference.validation import unit_roundoff

MAX_NODES = 8
"""Past this `collocated` hands over to `structured`."""
MAX_TERMS = 12
"""Past this the exponentials are taken themselves."""


class Plan(NamedTuple):
    """What a gradient takes, decided before anything is compiled.

    Attributes
    ----------
    hidden_nodes, output_nodes : int
        m of the two layers; 0 where no m up to MAX_NODES is enough.
    terms : int
        n, the terms of expm1 in the power sums; 0 where the exponentials themselves must be taken.
    shift_terms : int
        The terms that expm1 of a shift itself takes; 0 where there is no such number.
    small_shifts : bool
        Whether no input of a hidden unit shifts by more than 1.
    """

    hidden_nodes: int
    output_nodes: int
    terms: int
    shift_terms: int
    small_shifts: bool

    @property
    def collocates(self) -> bool:
        """Whether MAX_NODES nodes are enough in both layers."""
        return self.hidden_nodes > 0 and self.output_nodes > 0

    def covers(self, other: "Plan") -> bool:
        """Whether this plan is exact to rounding wherever `other` is: 0 stands for a way that has no limit."""
        return all(mine == 0 or mine >= its > 0 for mine, its in zip(self[:3], other[:3], strict=True))


def reach(h: float, largest_input: float) -> float:
    """Return S, the largest shift of a hidden unit's input; a bias is a weight whose input is 1."""
    return h * max(1.0, largest_input)


def plan(h: float, largest_input: float, largest_weight: float, dtype: str) -> Plan:
    """Return the plan for step `h`, inputs of at most `largest_input` and weights W2 of `largest_weight` in size."""
    return _plan(h, reach(h, largest_input), _round_up(2 * largest_weight), unit_roundoff(dtype))


def warn_of_structured(h: float, largest_input: float, *, stacklevel: int = 4) -> None:
    """Say that `collocated` hands over to `structured`; `stacklevel` is the distance to the caller's own line."""
    message = (
        f"`collocated` needs more than {MAX_NODES} nodes at h = {h:g} and inputs of up to {largest_input:g} with these "
        "weights: `structured` takes over."
    )
    warnings.warn(message, RuntimeWarning, stacklevel=stacklevel)


def positive_nodes(count: int) -> np.ndarray:
    """Return the `count` positive zeros of the Chebyshev polynomial T_{2 count + 1}, in (0, 1)."""
    k = np.arange(1, count + 1)
    return np.cos((2 * k - 1) * math.pi / (4 * count + 2))


def chebyshev_transform(count: int) -> np.ndarray:
    """Return the matrix that takes an odd function's values at the nodes to its odd Chebyshev coefficients.

    By the discrete orthogonality of T_1, T_3, ... on the zeros of T_{2m+1}: c_n = 4 / (2m + 1) sum_k D(s_k)
    T_{2n-1}(v_k). The interpolant is the one of the odd Lagrange basis; in this form it is well conditioned at any m.

    Returns
    -------
    (count, count) float64 array
        Row n holds the weights of c_n, the coefficient of T_{2n-1}.
    """
    odd = 2 * np.arange(1, count + 1) - 1
    quarters = odd[:, None] * odd % (8 * count + 4)  # the angle in units of pi / (4m + 2), within one turn
    return 4 / (2 * count + 1) * np.cos(quarters * math.pi / (4 * count + 2))


def _round_up(spread: float) -> float:
    """Round up to a power of sqrt(2), at least 1, so that a growing net seldom asks for a new plan."""
    return 2.0 ** (math.ceil(2 * math.log2(max(spread, 1.0))) / 2)


@cache
def _plan(h: float, shift: float, spread: float, unit: float) -> Plan:
    radii = np.linspace(0, math.pi, 500)[1:-1]
    width = np.cos(radii / 2) ** 2
    hidden_growth = np.exp(radii) / width * _softmax_growth(radii * spread / (4 * width))
    return Plan(
        hidden_nodes=_nodes_needed(shift, radii, hidden_growth, 4 * unit),
        output_nodes=_nodes_needed(h, radii, _softmax_growth(radii), 4 * unit),
        terms=_terms_needed(math.tanh(shift / 4) * spread, unit) if shift <= 1 else 0,
        shift_terms=_terms_needed(shift, unit),
        small_shifts=shift <= 1,
    )


def _softmax_growth(opening: np.ndarray) -> np.ndarray:
    """Bound p_k(s) q(s) / (p_k q) while the exponents of the softmax keep within `opening` of each other."""
    inside = np.minimum(opening, math.pi)
    return np.where(opening < math.pi, np.exp(2 * inside) / np.cos(inside / 2) ** 2, math.inf)


def _nodes_needed(reach: float, radii: np.ndarray, growth: np.ndarray, tolerance: float) -> int:
    usable = (radii > reach) & np.isfinite(growth)
    ratio, factor = reach / (2 * (radii[usable] - reach)), growth[usable]
    for count in range(1, MAX_NODES + 1):
        if len(ratio) and (factor * ratio ** (2 * count)).min() <= tolerance:
            return count
    return 0


def _terms_needed(exponent: float, unit: float) -> int:
    if exponent > 1:
        return 0
    for terms in range(1, MAX_TERMS + 1):
        if exponent**terms * math.exp(exponent) / math.factorial(terms + 1) <= unit:
            return terms
    return 0
