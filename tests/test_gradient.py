"""Four strategies, one gradient: with each other, with 150 digits, and under what must not change it."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from ports.bounds import Problem, gradient_bound
from problems import SHAPES, STEPS, problems
from reference import datasets, two_layer_net
from reference.collocation import plan
from reference.gradient import GRADIENTS, batched, collocated, loop, structured
from reference.two_layer_net import Params, init
from reference.validation import unit_roundoff

SMALL = tuple(shape for shape in SHAPES if max(shape) < 8)
DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
EACH = pytest.mark.parametrize("strategy", GRADIENTS.values(), ids=GRADIENTS)
EXACT = pytest.mark.parametrize("strategy", [structured, collocated])
LARGE_STEPS = (0.1, 0.3)
pytestmark = pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning")


def net(shape=(7, 13, 5, 4), *, seed=0, scale=1.0):
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


def assert_within(got, expected, bounds, lost=0.0):
    for g, e, bound in zip(got, expected, bounds, strict=True):
        assert (np.abs(g - e) <= bound + lost).all()


def twice_bound(problem, strategy, h):
    """Return the bound on the gap of two results that are both off."""
    name = next(name for name, function in GRADIENTS.items() if function is strategy)
    return Params(*(2 * bound for bound in gradient_bound(problem, "float64", name, h)))


# --- structured and collocated are the same


def assert_collocated_is_structured(problem, dtype, h, roundings):
    """Compare norms, relative to the samples' gradients: their sum may cancel, and with it the digits of both."""
    params, x, t = cast(problem, dtype)
    got, expected = collocated(params, x, t, h=h), structured(params, x, t, h=h)
    alone = [structured(params, x[b : b + 1], t[b : b + 1], h=h) for b in range(len(x))]
    for g, e, *terms in zip(got, expected, *alone, strict=True):
        size = np.linalg.norm(np.abs(terms).mean(axis=0).astype(np.float64))
        underflow = float(np.finfo(dtype).tiny) / oracle.DELTA
        assert np.linalg.norm((g - e).astype(np.float64)) <= roundings * unit_roundoff(dtype) * size + underflow


@DTYPES
@given(problem=problems())
def test_collocated_is_structured_at_the_chapters_step(dtype, problem):
    assert_collocated_is_structured(problem, dtype, 1e-4, 20)


@DTYPES
@pytest.mark.parametrize("pixels", [1, -1, 255])
@given(problem=problems(), h=st.sampled_from((1e-6, *STEPS, *LARGE_STEPS)))
def test_collocated_is_structured_at_any_step_and_input(dtype, pixels, problem, h):
    params, x, t = problem
    x = np.round(x * pixels) if pixels == 255 else pixels * np.abs(x)
    needs = plan(h, float(np.abs(x).max()), float(np.ptp(params.W2, axis=1).max()), dtype)
    nodes = max(needs.hidden_nodes, needs.output_nodes)
    # An error of c_n counts (2n - 1)-fold at small inputs, where T_{2n-1}(v) is (2n - 1) v: m^2 all together.
    assert_collocated_is_structured(Problem(params, x, t), dtype, h, 20 + 10 * nodes**2)


# --- and they are the central differences


@EXACT
@given(problem=problems(shapes=SMALL), h=st.sampled_from((1e-6, *STEPS, *LARGE_STEPS)))
def test_extreme_nets_stay_within_the_bound_of_150_digits(strategy, problem, h):
    expected = oracle.central_differences(*problem, h)
    bounds = gradient_bound(problem, "float64", strategy.__name__, h)
    assert_within(strategy(*problem, h=h), expected, bounds, lost=1e-120)
    single = problem.rounded("float32")
    expected = oracle.central_differences(*single, h)
    bounds = gradient_bound(single, "float32", strategy.__name__, h)
    assert_within(strategy(*cast(single, "float32"), h=h), expected, bounds, lost=1e-120)


SATURATED = {
    "plain": {},
    "units off and on": {"b1": [-30, 30, 0, -60]},
    "sure and right": {"b2": [30, 0, -30]},
    "sure and wrong": {"b2": [-30, -15, 30]},
    "all at once": {"b1": [-20, 20, 0, 1], "b2": [-30, 0, 30]},
    "no input": {"x": 0},
    "negative input": {"x": -1},
}


@EXACT
@pytest.mark.parametrize(("dtype", "error"), [("float64", 1e-15), ("float32", 2e-7)])
@pytest.mark.parametrize("case", SATURATED.values(), ids=SATURATED)
def test_saturated_nets_keep_all_digits(strategy, dtype, error, case):
    params, x, t = net((3, 5, 4, 3), seed=1)
    params = Params(*(p.round(1) + np.array(case.get(name, 0)) for name, p in params._asdict().items()))
    problem = Problem(params, case.get("x", 1) * x, t).rounded(dtype)
    got = strategy(*cast(problem, dtype), h=1e-4)
    for g, e in zip(got, oracle.central_differences(*problem, 1e-4), strict=True):
        print(np.linalg.norm(g - e) / np.linalg.norm(e))
        assert np.linalg.norm(g - e) <= error * np.linalg.norm(e)
