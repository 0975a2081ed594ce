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

**Terms.** With tau = tanh(S/4), by which sigmoid changes at most over an interval of length S, no exponent dz V
exceeds theta = tau V. Cutting expm1(v) after n terms leaves at most |v|^(n+1) exp(|v|) / (n+1)!, which is relative to
|v| at most theta^n exp(theta) / (n+1)!. If n is odd, what is left is nearly even in v, and D is odd: D changes by
g(S(+)) E(+) - g(S(-)) E(-), with what is left, E(+-) = sum_k y_k E_n(dz(+-) V_k), and g(S) = q / ((1 + S) (1 + r S)).
That is g(S(+)) (E(+) - E(-)) + (g(S(+)) - g(S(-))) E(-). Up and down, a unit moves by a and b with |a - b| <=
tanh(S/2) (a + b), so that relative to the terms of the slope, q sum_k y_k |V_k| (a + b), the first part is at most
theta^n tanh(S/2) / n! + theta^(n+1) / (n+2)!, and the second, |g'| being at most 2 q, 2 theta^(n+1) / (n+1)!, but for
powers of exp(theta), no more than six of them together. The lesser of the two bounds is at most u for the n that is
taken. No net changes its loss faster than by V dz, so that |D| <= V tanh(S/2), and the argument of arctanh is at most
half of that; in the output layer |D| <= 2 h. Cutting artanh(w) after n terms leaves, relative to w, at most
w^(2n) / ((2n + 1) (1 - w^2)). Where one term of either is enough, the denominator of that argument may be 1 as well: it
is off by at most 2 theta tanh(S/2) + theta^2, in the output layer by 2 h^2.

**float32 where it can't show.** In float64 the second and later coefficients are so small that their products with the
inputs may be taken in float32. As |c_2| <= S^3 / 24 max|D^(3)|, and D^(3)(s) is at most 2 G exp(S + 2 theta)
(1 + 1.5 V + 0.28 V^2) (with F = q sum_k y_k |V_k|, the loss's second and third derivatives by z1 are at most 2 V F and
4.5 V^2 F; those of z1 by the shift no more than z1 (1 - z1) <= 1/4 each), the second coefficient is at most
S^2 / 24 exp(S + 2 theta) (1 + 1.5 V + 0.28 V^2) of the slope's terms; for a logit h^2 / 24
exp(2 h) 4.5. float32 is taken where its unit roundoff of that much is at most 4 u, which is what interpolation is
allowed. reference/interpolation.py watches its range.
"""

import contextlib
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from reference.validation import Magnitudes, unit_roundoff

Result = TypeVar("Result")

MAX_NODES = 8
"""With more nodes than these, `collocated` hands over to `structured`."""
MAX_TERMS = 12
"""With more terms than these, the functions are evaluated themselves."""
MAX_SPREAD = 1e100
"""A larger spread of W2 than this, at which no power sums apply, changes no plan."""


class Plan(NamedTuple):
    """What a gradient needs, decided before anything is compiled.

    Attributes
    ----------
    hidden_nodes, output_nodes : int
        m of the two layers; 0 where no m up to MAX_NODES is enough.
    terms : int
        n, the terms of expm1 in the power sums; 0 where the exponentials themselves are needed.
    shift_terms, output_shift_terms : int
        The terms of expm1 of a shift; 0 where no number of terms up to MAX_TERMS is enough.
    small_shifts : bool
        Whether no input of a hidden unit shifts by more than 1.
    arctanh_terms, output_arctanh_terms : int
        The terms of the logarithm, written as arctanh; 0 where no number of terms up to MAX_TERMS is enough.
    mixed, output_mixed : bool
        Whether float32 serves for the second and later coefficients.
    linear, output_linear : bool
        Whether D is to rounding what the logits' moves are, each times the slope of the loss.
    unit_inputs : bool
        Whether the nodes are those of a bias, whose input is 1, so that the inputs are not scaled.
    """

    hidden_nodes: int
    output_nodes: int
    terms: int
    shift_terms: int
    small_shifts: bool
    output_shift_terms: int = 0
    arctanh_terms: int = 0
    output_arctanh_terms: int = 0
    mixed: bool = False
    output_mixed: bool = False
    linear: bool = False
    output_linear: bool = False
    unit_inputs: bool = False

    @property
    def collocates(self) -> bool:
        """Whether MAX_NODES nodes are enough in both layers."""
        return self.hidden_nodes > 0 and self.output_nodes > 0

    def covers(self, other: "Plan") -> bool:
        """Whether this plan is exact to rounding wherever `other` is: 0 stands for a way that has no limit."""
        counts = ((getattr(self, name), getattr(other, name)) for name in _COUNTS)
        enough = all(own == 0 or own >= its > 0 for own, its in counts)
        return enough and self.mixed <= other.mixed and self.linear <= other.linear


_COUNTS = ("hidden_nodes", "output_nodes", "terms", "arctanh_terms")
"""What depends on W2, as `mixed` and `linear` do."""


def largest_shift(h: float, max_abs_x: float) -> float:
    """Return S, the largest shift of a hidden unit's input; a bias is a weight whose input is 1."""
    return h * max(1.0, max_abs_x)


def shift_scale(h: float, max_abs_x: float) -> float:
    """Return the unit of the hidden units' shifts: the largest of them, or 1 where that is larger."""
    return min(1.0, largest_shift(h, max_abs_x))


def make_plan(h: float, max_abs_x: float, max_abs_W2: float, dtype: str) -> Plan:
    """Plan the gradient at step `h` for inputs and weights W2 of at most these magnitudes."""
    shift, spread = largest_shift(h, max_abs_x), _round_up(min(2 * max_abs_W2, MAX_SPREAD))
    return _plan(float(h), float(shift), spread, unit_roundoff(dtype))


def run_within_plan(
    run: Callable[[Plan], tuple[Result, float]], strategy: str, h: float, magnitudes: Magnitudes, dtype: str
) -> Result:
    """Run a training under a plan, and again under a larger one for as long as the weights outgrow it.

    How many nodes and terms are needed depends on W2, which the training changes. To ask it at each step would keep
    the host waiting for the device.

    Parameters
    ----------
    run : callable
        From a plan to the result and the largest finite max|W2| before a step.
    strategy : str
    h : float
    magnitudes : Magnitudes
        Of the initial net and of the inputs.
    dtype : str
    """
    max_abs_W2 = magnitudes["W2"]
    while True:
        plan = make_plan(h, magnitudes["x"], max_abs_W2, dtype)
        if strategy == "collocated" and not plan.collocates:
            warn_of_structured(h, magnitudes["x"])
        result, max_abs_W2 = run(plan)
        planned = strategy in ("structured", "collocated")
        if not planned or plan.covers(make_plan(h, magnitudes["x"], max_abs_W2, dtype)):
            return result


_INTERNAL = (f"{Path(__file__).parent}{os.sep}", f"{Path(__file__).parents[1] / 'ports'}{os.sep}", contextlib.__file__)
"""Where the frames between a user's call and a warning lie."""


def warn_of_structured(h: float, max_abs_x: float) -> None:
    """Warn that `collocated` hands over to `structured`, at the caller's own line."""
    frame, stacklevel = sys._getframe(1), 2
    while frame.f_back and frame.f_code.co_filename.startswith(_INTERNAL):
        frame, stacklevel = frame.f_back, stacklevel + 1
    message = (
        f"`collocated` needs more than {MAX_NODES} nodes at h = {h:g} and inputs of up to {max_abs_x:g} with these "
        "weights: `structured` takes over."
    )
    warnings.warn(message, RuntimeWarning, stacklevel=stacklevel)


def slices(length: int, size: int) -> Iterator[slice]:
    """Cut range(length) into slices of `size`, at least 1; the last slice may be shorter."""
    size = max(1, size)
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def positive_nodes(count: int) -> np.ndarray:
    """Return the `count` positive zeros of the Chebyshev polynomial T_{2 count + 1}, in (0, 1)."""
    k = np.arange(1, count + 1)
    return np.cos((2 * k - 1) * math.pi / (4 * count + 2))


def chebyshev_transform(count: int) -> np.ndarray:
    """Return the matrix from an odd function's values at the nodes to its odd Chebyshev coefficients.

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


@lru_cache  # bounded: the shift may differ from batch to batch
def _plan(h: float, shift: float, spread: float, unit: float) -> Plan:
    radii = np.linspace(0, math.pi, 500)[1:-1]
    width = np.cos(radii / 2) ** 2
    hidden_growth = np.exp(radii) / width * _softmax_growth(radii * spread / (4 * width))
    theta = math.tanh(shift / 4) * spread
    terms = _terms_needed(lambda n: _cut_of_sums(theta, shift, n), unit) if shift <= 1 else 0
    arctanh_terms = _terms_needed(lambda n: _cut_of_arctanh(math.tanh(shift / 2) * spread / 2, n), unit)
    output_arctanh_terms = _terms_needed(lambda n: _cut_of_arctanh(h, n), unit)
    return Plan(
        hidden_nodes=_nodes_needed(shift, radii, hidden_growth, 4 * unit),
        output_nodes=_nodes_needed(h, radii, _softmax_growth(radii), 4 * unit),
        terms=terms,
        shift_terms=_terms_needed(lambda n: _cut_of_expm1(shift, n), unit),
        small_shifts=shift <= 1,
        output_shift_terms=_terms_needed(lambda n: _cut_of_expm1(h, n), unit),
        arctanh_terms=arctanh_terms,
        output_arctanh_terms=output_arctanh_terms,
        mixed=_second_coefficient(shift, theta, 1 + 1.5 * spread + 0.28 * spread**2) * _FLOAT32 <= 4 * unit < _FLOAT32,
        output_mixed=_second_coefficient(h, h / 2, 4.5) * _FLOAT32 <= 4 * unit < _FLOAT32,
        linear=terms == arctanh_terms == 1 and theta * (2 * math.tanh(shift / 2) + theta) <= unit,
        output_linear=output_arctanh_terms == 1 and 2 * h**2 <= unit,
        unit_inputs=shift == h,
    )


_FLOAT32 = unit_roundoff("float32")


def _softmax_growth(opening: np.ndarray) -> np.ndarray:
    """Bound p_k(s) q(s) / (p_k q) while the exponents of the softmax keep within `opening` of each other."""
    inside = np.minimum(opening, math.pi)
    return np.where(opening < math.pi, np.exp(2 * inside) / np.cos(inside / 2) ** 2, math.inf)


def _nodes_needed(shift: float, radii: np.ndarray, growth: np.ndarray, tolerance: float) -> int:
    usable = (radii > shift) & np.isfinite(growth)
    ratio, factor = shift / (2 * (radii[usable] - shift)), growth[usable]
    for count in range(1, MAX_NODES + 1):
        if len(ratio) and (factor * ratio ** (2 * count)).min() <= tolerance:
            return count
    return 0


def _terms_needed(cut: Callable[[int], float], unit: float) -> int:
    """Return the least number of terms, up to MAX_TERMS, that cut off no more than `unit`; 0 if there is none."""
    return next((terms for terms in range(1, MAX_TERMS + 1) if cut(terms) <= unit), 0)


def _cut_of_expm1(exponent: float, terms: int) -> float:
    """Bound what `terms` terms of expm1 leave out, relative to an exponent of at most this size."""
    return exponent**terms * math.exp(exponent) / math.factorial(terms + 1) if exponent <= 1 else math.inf


def _cut_of_sums(theta: float, shift: float, terms: int) -> float:
    """Bound what `terms` power sums leave out of D, relative to the terms of the slope."""
    if theta > 1 or terms % 2 == 0:
        return _cut_of_expm1(theta, terms)
    even = theta**terms * (math.tanh(shift / 2) + 3 * theta / (terms + 1)) / math.factorial(terms)
    return min(_cut_of_expm1(theta, terms), even * math.exp(6 * theta))


def _cut_of_arctanh(argument: float, terms: int) -> float:
    """Bound what `terms` terms of arctanh leave out, relative to an argument of at most this size."""
    return argument ** (2 * terms) / (2 * terms + 1) / (1 - argument**2) if argument < 1 else math.inf


def _second_coefficient(shift: float, theta: float, curvature: float) -> float:
    """Bound the second Chebyshev coefficient of D, relative to the terms of the slope."""
    growth = shift + 2 * theta
    return shift**2 / 24 * math.exp(growth) * curvature if growth <= 1 else math.inf
