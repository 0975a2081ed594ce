"""The error of a gradient: its distance from the central differences in extended precision."""

import math
from collections.abc import Sequence

import numpy as np

from comparison.agreement.bounds import Problem
from reference.collocation import make_plan
from reference.numerical_gradient import structured_gradient
from reference.two_layer_net import Params, max_abs


def extended_gradient(problem: Problem, h: float) -> Params:
    """Compute the central differences in NumPy's longest precision: 64 bits of mantissa on x86, 53 on others."""
    *members, x = (array.astype(np.longdouble) for array in (*problem.params, problem.x))
    params = Params(*members)
    plan = make_plan(h, max_abs(x), max_abs(params.W2), str(x.dtype))
    return structured_gradient(params, x, problem.t, h, 2**28, plan, max_abs(x))[1]


def at_entries(gradient: Params, entries: Params) -> Params:
    """Return the entries at these flat indices."""
    return Params(*(g.ravel()[at] for g, at in zip(gradient, entries, strict=True)))


def relative_error(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Compute |got - expected| / |expected|, by the Frobenius norm over all arrays together."""
    gap = _norm([g - e for g, e in zip(got, expected, strict=True)])
    size = _norm(expected)
    return gap / size if size else math.inf if gap else 0.0


def _norm(arrays: Sequence[np.ndarray]) -> float:
    return math.sqrt(sum(float((np.asarray(array, np.longdouble) ** 2).sum()) for array in arrays))
