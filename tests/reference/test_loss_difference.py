"""One difference against 150 digits, with units and classes as sure or as wrong of themselves as they get."""

import math
from dataclasses import replace

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from oracle import Logit, Unit
from reference.collocation import Plan, make_plan
from reference.loss_difference import (
    hidden_difference,
    make_shift,
    multiply_powers,
    output_difference,
    scaled_arctanh,
    scaled_expm1,
    sum_powers,
    unperturbed_pass,
)
from reference.two_layer_net import Params, loss
from reference.validation import unit_roundoff

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
INPUTS = st.sampled_from([0.0, 60.0, -60.0]) | st.floats(-60, 60)
POWERS = pytest.mark.parametrize("power_sums", [sum_powers, multiply_powers])
SHIFTS = st.floats(-9, 1.9).map(lambda power: 10.0**power)  # 1e-9 to 80


@st.composite
def nets(draw):
    """Draw logits in eighths, up to 30, and weights that are powers of 2, up to 512: no rounding spoils them."""
    classes = draw(st.integers(2, 5))
    scale = draw(st.sampled_from([1, 30]))
    a2 = draw(st.lists(st.integers(-8 * scale, 8 * scale).map(lambda n: n / 8), min_size=classes, max_size=classes))
    powers = st.integers(-6, draw(st.sampled_from([1, 9]))).map(lambda n: 2.0**n)
    weights = st.tuples(st.sampled_from([1, -1]), powers).map(lambda pair: pair[0] * pair[1])
    W2 = draw(st.lists(weights, min_size=classes, max_size=classes))
    return np.array(a2), np.array(W2), draw(st.integers(0, classes - 1))


def base_of(a, a2, weights, label, dtype, terms, scale=1.0, power_sums=sum_powers):
    """Run the unperturbed pass of one sample; unit 0 has the input `a`, and unit 1 cancels its effect on the logits."""
    params = Params(np.ones((1, 2)), np.zeros(2), np.stack([weights, -weights]), a2)
    params = Params(*(p.astype(dtype) for p in params))
    base = unperturbed_pass(params, np.array([[a]], dtype), np.array([label]), scale, terms, power_sums)
    assert (2 * base.half_margin == a2 - a2[label]).all()  # so the oracle's logits are the very same
    return base


def hidden(base, s, plan, scale=1.0):
    """Compute D(s) from the difference in units of `scale`."""
    shift = make_shift(np.atleast_2d(s) / base.z1.dtype.type(scale), scale, plan.shift_terms)
    return 2 * scale * hidden_difference(base, shift, scale, plan)


def output(base, s, plan, h=1.0):
    shift = make_shift(np.atleast_2d(s) / base.z1.dtype.type(h), h, plan.output_shift_terms)
    return 2 * h * output_difference(base, shift, h, plan)


def exact_unit(a, a2, weights, label):
    return Unit(mp.mpf(float(a)), [*map(mp.mpf, a2)], [*map(mp.mpf, weights)], label)


def assert_close(got, exact, dtype, size, roundings):
    lost = max(float(np.finfo(dtype).tiny) / oracle.DELTA, 1e-140)  # by underflow, or for want of digits in the oracle
    assert abs(mp.mpf(float(got)) - exact) <= roundings * unit_roundoff(dtype) * size + lost


@DTYPES
@POWERS
@given(net=nets(), a=INPUTS, s=SHIFTS.filter(lambda s: s <= 1))
def test_power_sums_are_good_to_14_roundings(power_sums, dtype, net, a, s):
    a, s = np.array([a, s], dtype)
    plan = make_plan(float(s), 1.0, float(np.abs(net[1]).max()), dtype)
    if not plan.terms:
        return
    got = hidden(base_of(a, *net, dtype, plan.terms, float(s), power_sums), s, plan, float(s))[0, 0]
    with mp.workdps(oracle.DIGITS):
        unit, exact_s = exact_unit(a, *net), mp.mpf(float(s))
        # A difference of two weights counts as their sum: the sums over k are taken of the weights themselves.
        own = unit.weights[unit.label]
        sums = [abs(w) + abs(own) if k != unit.label else mp.mpf(0) for k, w in enumerate(unit.weights)]
        size = replace(unit, weights=sums).scale(exact_s)
        assert_close(got, unit.difference(exact_s), dtype, size, 14)


@DTYPES
@pytest.mark.parametrize("terms", [1, 2, 3])
def test_the_sums_over_all_classes_keep_all_digits_where_columns_are_alike(dtype, terms):
    near = 1 + 8 * np.finfo(dtype).eps
    base = base_of(0.3, np.array([1.0, 2.0, 4.0]), np.array([1.0, near, near]), 0, dtype, terms)
    got = hidden(base, np.array(1e-3, dtype), Plan(0, 0, terms, 0, True))[0, 0]
    with mp.workdps(oracle.DIGITS):
        unit = exact_unit(np.array(0.3, dtype), np.array([1.0, 2.0, 4.0]), np.array([1.0, near, near]), 0)
        exact = unit.difference(mp.mpf(float(np.array(1e-3, dtype))))
        assert_close(got, exact, dtype, abs(exact), 14)


@DTYPES
@given(net=nets(), a=INPUTS, s=SHIFTS)
def test_exponentials_are_good_to_10_roundings_of_their_exponents(dtype, net, a, s):
    a, s = np.array([a, s], dtype)
    a2, weights, label = net
    scale = min(1.0, float(s))
    got = hidden(base_of(a, *net, dtype, 0, scale), s, Plan(0, 0, 0, 0, bool(s <= 1)), scale)[0, 0]
    exponents = np.abs(a2 - a2[label]).max() + np.tanh(s / 4) * np.ptp(weights) + (abs(a) if s > 1 else 0)
    with mp.workdps(oracle.DIGITS):
        unit, exact_s = exact_unit(a, *net), mp.mpf(float(s))
        assert_close(got, unit.difference(exact_s), dtype, unit.scale(exact_s), 10 * (1 + float(exponents)))


@DTYPES
@given(net=nets(), s=SHIFTS.filter(lambda s: s <= 1))
def test_output_differences_are_good_to_16_roundings(dtype, net, s):
    s = np.array(s, dtype)
    plan = make_plan(float(s), 1.0, 1.0, dtype)
    got = output(base_of(0, *net, dtype, 1), s, plan, float(s))[0]
    with mp.workdps(oracle.DIGITS):
        for k, g in enumerate(got):
            exact = Logit(**vars(exact_unit(0, *net)), moved=k).difference(mp.mpf(float(s)))
            assert_close(g, exact, dtype, abs(exact), 16)


@pytest.mark.parametrize("terms", [0, 4])
def test_the_sign_is_that_of_the_slope(terms):
    for sign in (1, -1):
        base = base_of(0.3, np.zeros(3), sign * np.array([1.0, 2.0, 4.0]), 0, "float64", terms)
        above, below = hidden(base, np.array(1e-3), Plan(0, 0, terms, 0, True))[0]
        assert sign * above > 0
        assert sign * below < 0
    assert np.sign(output(base, np.array(1e-3), Plan(0, 0, terms, 0, True))).tolist() == [[-1, 1, 1]]


@pytest.mark.parametrize("terms", [0, 4])
def test_no_shift_makes_no_difference(terms):
    base = base_of(0.3, np.zeros(3), np.array([1.0, 2.0, 4.0]), 0, "float64", terms)
    assert not hidden(base, np.array(0.0), Plan(0, 0, terms, 0, True)).any()
    assert not output(base, np.array(0.0), Plan(0, 0, terms, 0, True)).any()


@pytest.mark.parametrize("terms", [0, 4])
def test_equal_weights_make_no_difference(terms):
    base = base_of(0.3, np.array([1.0, 2.0, 4.0]), np.full(3, 8.0), 1, "float64", terms)
    assert not hidden(base, np.array(1e-3), Plan(0, 0, terms, 0, True)).any()


@pytest.mark.parametrize(("s", "small_shifts"), [(1e-3, True), (1e-3, False), (0.5, True), (0.5, False)])
def test_both_ways_to_the_moves_agree(s, small_shifts):
    base = base_of(-2.0, np.array([1.0, 2.0, 4.0]), np.array([1.0, 0.25, -1.0]), 1, "float64", 0)
    got = hidden(base, np.array(s), Plan(0, 0, 0, 0, small_shifts))
    np.testing.assert_allclose(got, hidden(base, np.array(s), Plan(0, 0, 0, 0, True)), rtol=2e-15)


@DTYPES
@pytest.mark.parametrize("terms", [0, 4])
def test_shifts_broadcast_and_samples_are_taken(dtype, terms):
    rng = np.random.default_rng(0)
    params = Params(*(rng.standard_normal(shape).astype(dtype) for shape in ((2, 4), 4, (4, 3), 3)))
    base = unperturbed_pass(params, rng.random((5, 2)).astype(dtype), np.array([0, 1, 2, 1, 0]), 1.0, terms, sum_powers)
    plan, shifts = Plan(0, 0, terms, 0, True), np.array([1e-3, 1e-4], dtype)
    units = hidden(base, shifts[:, None, None], plan)
    logits = output(base, shifts[:, None, None], plan)
    assert (units.shape, logits.shape) == ((2, 5, 4), (2, 5, 3))
    assert units.dtype == logits.dtype == dtype
    np.testing.assert_array_equal(units[1], hidden(base, shifts[1], plan))
    np.testing.assert_array_equal(units[0, [3, 0]], hidden(base.take(np.array([3, 0])), shifts[0], plan))


def test_q_and_r_add_up_to_1_and_neither_cancels():
    base = base_of(0.0, np.array([40.0, 0.0]), np.ones(2), 1, "float64", 1)
    assert base.q == pytest.approx(np.exp(-40) / 1e-7, rel=1e-10)
    sure = base_of(0.0, np.array([40.0, 0.0]), np.ones(2), 0, "float64", 1)
    assert sure.r == pytest.approx(1e-7, rel=1e-6)
    assert sure.abs_delta[0, 0] == sure.abs_delta[0, 1] == pytest.approx(np.exp(-40), rel=1e-14)
    assert sure.loss == pytest.approx(-1e-7, rel=1e-8)


@pytest.mark.parametrize("terms", [0, 4])
def test_the_other_samples_of_a_batch_change_nothing(terms):
    rng = np.random.default_rng(0)
    params = Params(*(rng.standard_normal(shape) for shape in ((2, 4), 4, (4, 3), 3)))
    x, t = rng.random((5, 2)), np.array([0, 1, 2, 1, 0])
    base = unperturbed_pass(params, x, t, 1.0, terms, sum_powers)
    for b in range(5):
        sample = slice(b, b + 1)
        single = unperturbed_pass(params, x[sample], t[sample], 1.0, terms, sum_powers)
        assert single.loss == pytest.approx(loss(params, x[sample], t[sample]), rel=1e-14)
        for got, expected in zip(base.take(np.array([b])), single, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("terms", range(1, 6))
def test_terms_leave_what_they_leave_of_expm1(terms):
    """At most v^n exp(v) / (n + 1)! of each sum, v the largest move, and no sum is below -1/2: so twice that of D."""
    a2, weights, s = np.zeros(3), np.array([1.0, 2.0, 4.0]), np.array(0.5)
    got, exact = (
        hidden(base_of(0.3, a2, weights, 0, "float64", n), s, Plan(0, 0, n, 0, True))[0, 0] for n in (terms, 0)
    )
    v = math.tanh(s / 4) * 3
    assert abs(got / exact - 1) <= 2 * v**terms * math.exp(v) / math.factorial(terms + 1)


@DTYPES
@pytest.mark.parametrize("scale", [1e-20, 1e-3, 0.3])
def test_the_series_are_the_functions_whatever_the_unit(dtype, scale):
    v = np.array([-1, -0.25, 1e-30, 0.5, 1], dtype)
    terms = 14
    for series, function in ((scaled_expm1, mp.expm1), (scaled_arctanh, mp.atanh)):
        exact = [float(function(scale * mp.mpf(float(x))) / scale) for x in v]
        np.testing.assert_allclose(series(v, scale, terms), exact, rtol=6 * unit_roundoff(dtype), atol=0)
    assert scaled_expm1(v, scale, terms).dtype == scaled_arctanh(v, scale, terms).dtype == dtype


def test_the_functions_themselves_are_taken_where_there_are_no_terms():
    v = np.array([0.5, 1.0])
    np.testing.assert_allclose(scaled_expm1(v, 0.5, 0), np.expm1(0.5 * v) / 0.5, rtol=1e-15)
    np.testing.assert_allclose(scaled_arctanh(v, 0.5, 0), np.arctanh(0.5 * v) / 0.5, rtol=1e-15)
