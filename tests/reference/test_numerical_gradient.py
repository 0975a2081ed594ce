"""Four strategies, one gradient: with each other, with 150 digits, and on real data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from comparison.agreement.bounds import Bounds, Problem
from comparison.conformance.problems import SHAPES, STEPS, problems
from gradient_problems import assert_same_bits, assert_within, cast, draw_problem
from reference import datasets, two_layer_net
from reference.collocation import make_plan
from reference.numerical_gradient import (
    GRADIENTS,
    batched,
    collocated,
    collocated_gradient,
    loop,
    structured,
    structured_gradient,
)
from reference.two_layer_net import Params, init
from reference.validation import unit_roundoff

SMALL = tuple(shape for shape in SHAPES if max(shape) < 8)
DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
EACH_STRATEGY = pytest.mark.parametrize("strategy", GRADIENTS.values(), ids=GRADIENTS)
EXACT = pytest.mark.parametrize("strategy", [structured, collocated])
LARGE_STEPS = (0.1, 0.3)
pytestmark = pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning")


# --- structured and collocated are the same


def assert_collocated_is_structured(problem, dtype, h, roundings):
    """Compare norms, relative to the samples' gradients: their sum may cancel, and with it the digits of both."""
    params, x, t = cast(problem, dtype)
    got, expected = collocated(params, x, t, h=h), structured(params, x, t, h=h)
    singles = [structured(params, x[b : b + 1], t[b : b + 1], h=h) for b in range(len(x))]
    for g, e, *terms in zip(got, expected, *singles, strict=True):
        size = np.linalg.norm(np.abs(terms).mean(axis=0).astype(np.float64))
        underflow = float(np.finfo(dtype).tiny) / oracle.DELTA
        assert np.linalg.norm((g - e).astype(np.float64)) <= roundings * unit_roundoff(dtype) * size + underflow


@DTYPES
@given(problem=problems())
def test_collocated_is_structured_at_the_chapters_step(dtype, problem):
    assert_collocated_is_structured(problem, dtype, 1e-4, 20)


@DTYPES
@pytest.mark.parametrize("scale", [1, -1, 255])
@given(problem=problems(), h=st.sampled_from((1e-6, *STEPS, *LARGE_STEPS)))
def test_collocated_is_structured_at_any_step_and_input(dtype, scale, problem, h):
    params, x, t = problem
    x = np.round(x * scale) if scale == 255 else scale * np.abs(x)
    plan = make_plan(h, float(np.abs(x).max()), float(np.abs(params.W2).max()), dtype)
    nodes = max(plan.hidden_nodes, plan.output_nodes)
    # An error of c_n counts (2n - 1)-fold at small inputs, where T_{2n-1}(v) is (2n - 1) v: m^2 all together.
    assert_collocated_is_structured(Problem(params, x, t), dtype, h, 20 + 10 * nodes**2)


# --- and they are the central differences


@pytest.mark.slow
@EXACT
@given(problem=problems(shapes=SMALL), h=st.sampled_from((1e-6, *STEPS, *LARGE_STEPS)))
def test_extreme_nets_stay_within_the_bound_of_150_digits(strategy, problem, h):
    expected = oracle.central_differences(*problem, h)
    bounds = Bounds(problem, "float64").gradient(strategy.__name__, h)
    assert_within(strategy(*problem, h=h), expected, bounds, lost=1e-120)
    single = problem.rounded("float32")
    expected = oracle.central_differences(*single, h)
    bounds = Bounds(single, "float32").gradient(strategy.__name__, h)
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
@DTYPES
@pytest.mark.parametrize("case", SATURATED.values(), ids=SATURATED)
def test_saturated_nets_lose_no_more_than_the_dtype_does(strategy, dtype, case):
    params, x, t = draw_problem((3, 5, 4, 3), seed=0)
    params = Params(*(p.round(1) + np.array(case.get(name, 0)) for name, p in params._asdict().items()))
    problem = Problem(params, case.get("x", 1) * x, t).rounded(dtype)
    a1 = problem.x @ problem.params.W1 + problem.params.b1
    a2 = two_layer_net.logits(problem.params, problem.x)
    # An input of size a is held to u a, an absolute error that its exponential turns into a relative one.
    error = unit_roundoff(dtype) * (8 + np.abs(a1).max() + np.abs(a2).max())
    got = strategy(*cast(problem, dtype), h=1e-4)
    for g, e in zip(got, oracle.central_differences(*problem, 1e-4), strict=True):
        assert np.linalg.norm(g - e) <= error * np.linalg.norm(e)


# --- it is the difference, not the derivative


@pytest.mark.parametrize("strategy", [batched, structured, collocated])
@pytest.mark.parametrize("h", LARGE_STEPS)
def test_truncation_is_loops_digit_for_digit(strategy, h):
    problem = draw_problem()
    closed_form = two_layer_net.gradient(*problem)
    for g, e, c in zip(strategy(*problem, h=h), loop(*problem, h=h), closed_form, strict=True):
        truncation = np.linalg.norm(c - e)
        assert truncation > 1e-4 * np.linalg.norm(e)
        assert np.linalg.norm(g - e) < 1e-9 * truncation


@EACH_STRATEGY
def test_half_the_step_quarters_the_distance_to_the_derivative(strategy):
    problem = draw_problem()
    derivative = two_layer_net.gradient(*problem)
    whole, half = (strategy(*problem, h=h) for h in (2e-3, 1e-3))
    for w, e, d in zip(whole, half, derivative, strict=True):
        assert np.linalg.norm(w - d) / np.linalg.norm(e - d) == pytest.approx(4, rel=1e-4)


@EACH_STRATEGY
def test_large_inputs_take_large_shifts(strategy):
    params, x, t = draw_problem((3, 4, 3, 2))
    problem = Problem(params._replace(W1=params.W1 / 255), np.round(255 * x), t)
    expected = oracle.central_differences(*problem, 0.01)
    for g, e in zip(strategy(*problem, h=0.01), expected, strict=True):
        assert np.linalg.norm(g - e) < 1e-12 * np.linalg.norm(e)


# --- the loss that comes with the gradient


@DTYPES
@pytest.mark.parametrize("strategy", ["structured", "collocated"])
@pytest.mark.parametrize("memory", [1, 10_000, 2**28])
def test_the_loss_that_comes_with_the_gradient_is_that_of_all_slices(strategy, memory, dtype):
    params, x, t = cast(draw_problem((23, 13, 5, 4)), dtype)
    got, _ = loss_and_gradient(strategy, params, x, t, memory=memory)
    expected = two_layer_net.loss(params, x, t)
    assert got.dtype == dtype
    assert got == pytest.approx(expected, rel=23 * unit_roundoff(dtype))


def loss_and_gradient(strategy, params, x, t, *, memory=2**28, plan=None):
    """Compute both at the chapter's step, by default under the plan of this net."""
    plan = plan or make_plan(1e-4, 1.0, float(np.abs(params.W2).max()), str(x.dtype))
    if strategy == "structured":
        return structured_gradient(params, x, t, 1e-4, memory, plan, 1.0)
    return collocated_gradient(params, x, t, 1e-4, memory, plan, 1.0)


@DTYPES
@pytest.mark.parametrize("strategy", ["structured", "collocated"])
def test_the_gradient_that_comes_with_the_loss_is_the_strategys(strategy, dtype):
    params, x, t = cast(draw_problem(), dtype)
    x[0, 0] = 1.0  # the largest input that is planned for
    assert_same_bits(loss_and_gradient(strategy, params, x, t)[1], GRADIENTS[strategy](params, x, t))


@pytest.mark.filterwarnings("error")
def test_under_a_plan_that_does_not_collocate_the_gradient_is_structureds():
    params, x, t = draw_problem()
    plan = make_plan(1e-4, 1.0, 1.0, "float64")._replace(hidden_nodes=0)
    got, expected = (loss_and_gradient(name, params, x, t, plan=plan) for name in ("collocated", "structured"))
    assert got[0] == expected[0]
    assert_same_bits(got[1], expected[1])


# --- on real data


@EXACT
@DTYPES
def test_digits_agree_with_loop(strategy, dtype):
    data = datasets.load("digits")
    problem = Problem(init(64, 12, 10, 0.5, seed=0), data.x_train[:50], data.t_train[:50]).rounded(dtype)
    bounds = Bounds(problem, dtype).gradient(strategy.__name__, 1e-2)
    rounding = Bounds(problem, "float64").gradient("loop", 1e-2)
    assert_within(strategy(*cast(problem, dtype), h=1e-2), batched(*problem, h=1e-2), map(np.add, bounds, rounding))
