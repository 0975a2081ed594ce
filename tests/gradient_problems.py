"""Random nets for the tests of the gradient, and what two gradients of them may differ by."""

import numpy as np

from comparison.agreement.bounds import Bounds, Problem
from reference.numerical_gradient import GRADIENTS
from reference.two_layer_net import Params


def draw_problem(shape=(7, 13, 5, 4), *, seed=0, scale=1.0):
    samples, inputs, hidden, outputs = shape
    rng = np.random.default_rng(seed)
    params = Params(*(scale * rng.standard_normal(s) for s in ((inputs, hidden), hidden, (hidden, outputs), outputs)))
    x = rng.random((samples, inputs)) * (rng.random((samples, inputs)) < 0.6)
    return Problem(params, x, rng.integers(0, outputs, samples))


def cast(problem, dtype):
    params, x, t = problem
    return Params(*(p.astype(dtype) for p in params)), x.astype(dtype), t


def assert_same_bits(got, expected):
    for g, e in zip(got, expected, strict=True):
        assert g.dtype == e.dtype
        assert g.tobytes() == e.tobytes()


def assert_within(got, expected, bounds, lost=1e-150):
    """`lost` is what the squares in the bounds, or the digits of the oracle, can't resolve."""
    for g, e, bound in zip(got, expected, bounds, strict=True):
        assert (np.abs(g - e) <= bound + lost).all()


def twice_bound(problem, strategy, h):
    """Bound the gap between two results that are both rounded."""
    name = next(name for name, function in GRADIENTS.items() if function is strategy)
    return Params(*(2 * bound for bound in Bounds(problem, "float64").gradient(name, h)))
