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
from reference.loss_difference import hidden_difference, output_difference, unperturbed_pass
from reference.two_layer_net import Params, loss
from reference.validation import unit_roundoff

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
INPUTS = st.sampled_from([0.0, 60.0, -60.0]) | st.floats(-60, 60)
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


def base_of(a, a2, weights, label, dtype, terms):
    """Run the unperturbed pass of one sample; unit 0 has the input `a`, and unit 1 cancels its effect on the logits."""
    params = Params(np.ones((1, 2)), np.zeros(2), np.stack([weights, -weights]), a2)
    params = Params(*(p.astype(dtype) for p in params))
    base = unperturbed_pass(params, np.array([[a]], dtype), np.array([label]), terms)
    assert (base.margin == a2 - a2[label]).all()  # so the oracle's logits are the very same
    return base


def exact_unit(a, a2, weights, label):
    return Unit(mp.mpf(float(a)), [*map(mp.mpf, a2)], [*map(mp.mpf, weights)], label)


def assert_close(got, exact, dtype, size, roundings):
    lost = max(float(np.finfo(dtype).tiny) / oracle.DELTA, 1e-140)  # by underflow, or for want of digits in the oracle
    assert abs(mp.mpf(float(got)) - exact) <= roundings * unit_roundoff(dtype) * size + lost


@DTYPES
@given(net=nets(), a=INPUTS, s=SHIFTS.filter(lambda s: s <= 1))
def test_power_sums_are_good_to_12_roundings(dtype, net, a, s):
    a, s = np.array([a, s], dtype)
    terms = make_plan(float(s), 1.0, float(np.abs(net[1]).max()), dtype).terms
    if not terms:
        return
    got = hidden_difference(base_of(a, *net, dtype, terms), s, Plan(0, 0, terms, 0, True))[0, 0]
    with mp.workdps(oracle.DIGITS):
        unit, exact_s = exact_unit(a, *net), mp.mpf(float(s))
        # A difference of two weights counts as their sum: the sums over k are taken of the weights themselves.
        own = unit.weights[unit.label]
        sums = [abs(w) + abs(own) if k != unit.label else mp.mpf(0) for k, w in enumerate(unit.weights)]
        size = replace(unit, weights=sums).scale(exact_s)
        assert_close(got, unit.difference(exact_s), dtype, size, 12)


@DTYPES
@given(net=nets(), a=INPUTS, s=SHIFTS)
def test_exponentials_are_good_to_10_roundings_of_their_exponents(dtype, net, a, s):
    a, s = np.array([a, s], dtype)
    a2, weights, label = net
    got = hidden_difference(base_of(a, *net, dtype, 0), s, Plan(0, 0, 0, 0, bool(s <= 1)))[0, 0]
    exponents = np.abs(a2 - a2[label]).max() + np.tanh(s / 4) * np.ptp(weights) + (abs(a) if s > 1 else 0)
    with mp.workdps(oracle.DIGITS):
        unit, exact_s = exact_unit(a, *net), mp.mpf(float(s))
        assert_close(got, unit.difference(exact_s), dtype, unit.scale(exact_s), 10 * (1 + float(exponents)))


@DTYPES
@given(net=nets(), s=SHIFTS.filter(lambda s: s <= 1))
def test_output_differences_are_good_to_16_roundings(dtype, net, s):
    s = np.array(s, dtype)
    got = output_difference(base_of(0, *net, dtype, 1), s)[0]
    with mp.workdps(oracle.DIGITS):
        for k, g in enumerate(got):
            exact = Logit(**vars(exact_unit(0, *net)), moved=k).difference(mp.mpf(float(s)))
            assert_close(g, exact, dtype, abs(exact), 16)


@pytest.mark.parametrize("terms", [0, 4])
def test_the_sign_is_that_of_the_slope(terms):
    for sign in (1, -1):
        base = base_of(0.3, np.zeros(3), sign * np.array([1.0, 2.0, 4.0]), 0, "float64", terms)
        above, below = hidden_difference(base, np.array(1e-3), Plan(0, 0, terms, 0, True))[0]
        assert sign * above > 0
        assert sign * below < 0
    assert np.sign(output_difference(base, np.array(1e-3))).tolist() == [[-1, 1, 1]]


@pytest.mark.parametrize("terms", [0, 4])
def test_no_shift_makes_no_difference(terms):
    base = base_of(0.3, np.zeros(3), np.array([1.0, 2.0, 4.0]), 0, "float64", terms)
    assert not hidden_difference(base, np.array(0.0), Plan(0, 0, terms, 0, True)).any()
    assert not output_difference(base, np.array(0.0)).any()


@pytest.mark.parametrize("terms", [0, 4])
def test_equal_weights_make_no_difference(terms):
    base = base_of(0.3, np.array([1.0, 2.0, 4.0]), np.full(3, 8.0), 1, "float64", terms)
    assert not hidden_difference(base, np.array(1e-3), Plan(0, 0, terms, 0, True)).any()


@pytest.mark.parametrize(("s", "small_shifts"), [(1e-3, True), (1e-3, False), (0.5, True), (0.5, False)])
def test_both_ways_to_the_moves_agree(s, small_shifts):
    base = base_of(-2.0, np.array([1.0, 2.0, 4.0]), np.array([1.0, 0.25, -1.0]), 1, "float64", 0)
    got = hidden_difference(base, np.array(s), Plan(0, 0, 0, 0, small_shifts))
    np.testing.assert_allclose(got, hidden_difference(base, np.array(s), Plan(0, 0, 0, 0, True)), rtol=2e-15)


@DTYPES
@pytest.mark.parametrize("terms", [0, 4])
def test_shifts_broadcast_and_samples_are_taken(dtype, terms):
    rng = np.random.default_rng(0)
    params = Params(*(rng.standard_normal(shape).astype(dtype) for shape in ((2, 4), 4, (4, 3), 3)))
    base = unperturbed_pass(params, rng.random((5, 2)).astype(dtype), np.array([0, 1, 2, 1, 0]), terms)
    plan, shifts = Plan(0, 0, terms, 0, True), np.array([1e-3, 1e-4], dtype)
    hidden = hidden_difference(base, shifts[:, None, None], plan)
    output = output_difference(base, shifts[:, None, None])
    assert (hidden.shape, output.shape) == ((2, 5, 4), (2, 5, 3))
    assert hidden.dtype == output.dtype == dtype
    np.testing.assert_array_equal(hidden[1], hidden_difference(base, shifts[1], plan))
    np.testing.assert_array_equal(hidden[0, [3, 0]], hidden_difference(base.take(np.array([3, 0])), shifts[0], plan))


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
    base = unperturbed_pass(params, x, t, terms)
    for b in range(5):
        sample = slice(b, b + 1)
        single = unperturbed_pass(params, x[sample], t[sample], terms)
        assert single.loss == pytest.approx(loss(params, x[sample], t[sample]), rel=1e-14)
        for got, expected in zip(base.take(np.array([b])), single, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("terms", range(1, 6))
def test_terms_leave_what_they_leave_of_expm1(terms):
    """At most v^n exp(v) / (n + 1)! of each sum, v the largest move, and no sum is below -1/2: so twice that of D."""
    a2, weights, s = np.zeros(3), np.array([1.0, 2.0, 4.0]), np.array(0.5)
    got, exact = (
        hidden_difference(base_of(0.3, a2, weights, 0, "float64", n), s, Plan(0, 0, n, 0, True))[0, 0]
        for n in (terms, 0)
    )
    v = math.tanh(s / 4) * 3
    assert abs(got / exact - 1) <= 2 * v**terms * math.exp(v) / math.factorial(terms + 1)
