"""The plan is derived, so the derivation is put to the test: on random nets, in 80 digits."""

import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from oracle import Logit, Unit
from reference.collocation import MAX_NODES, make_plan
from reference.validation import unit_roundoff

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
SPREADS = (1.0, 4.0, 32.0)  # powers of sqrt(2), which the plan does not round up
SEEDS = st.integers(0, 2**32 - 1)
SHIFTS = st.floats(1e-9, 1.0)


def slope(unit):
    """Return G = q sum_{k != t} p_k |V_k| z (1 - z), or for a logit |D'(0)| / 2."""
    if isinstance(unit, Logit):
        return abs(mp.diff(unit.loss, 0))
    exponentials, weight = [mp.exp(a) for a in unit.a2], unit.weights[unit.label]
    total = mp.fsum(exponentials)
    y_t = exponentials[unit.label] / total
    moved = mp.fsum(e * abs(w - weight) for e, w in zip(exponentials, unit.weights, strict=True)) / total
    return y_t / (y_t + oracle.DELTA) * moved * oracle.sigmoid(unit.a) * oracle.sigmoid(-unit.a)


def units(seed, spread, count):
    """Yield random units whose weights differ by `spread`: some of them sure of their class, some saturated."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        outputs = int(rng.integers(2, 5))
        weights = rng.random(outputs)
        weights = (weights - weights.min()) / np.ptp(weights) * spread
        a2 = rng.standard_normal(outputs) * rng.choice([0.3, 3, 10])
        yield Unit(mp.mpf(rng.normal(0, 2)), [*map(mp.mpf, a2)], [*map(mp.mpf, weights)], int(rng.integers(outputs)))


def interpolated(difference, nodes, s):
    """Return the odd interpolant through `nodes` and the origin at s, by Lagrange's formula."""
    total = mp.mpf(0)
    for node in nodes:
        others = [other for other in nodes if other != node]
        ratios = [(s * s - other * other) / (node * node - other * other) for other in others]
        total += difference(node) * s / node * mp.fprod(ratios)
    return total


def interpolation_error(unit, shift, count):
    """Return the largest |error| / |2 s G| of `count` nodes in (0, shift], at a few s."""
    nodes = [shift * mp.cos((2 * k - 1) * mp.pi / (4 * count + 2)) for k in range(1, count + 1)]
    inputs = [shift * mp.mpf(f) for f in (0.01, 0.4, 0.8, 1)]
    errors = [abs(interpolated(unit.difference, nodes, s) - unit.difference(s)) / s for s in inputs]
    return max(errors) / (2 * slope(unit))


def limit(count, dtype, spread):
    """Return the largest shift, to a part in 1000, of which `plan` says that `count` nodes are enough."""
    low, high = 1e-12, 1.0
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        enough = 0 < make_plan(middle, 1.0, spread / 2, dtype).hidden_nodes <= count
        low, high = (middle, high) if enough else (low, middle)
    return low


# --- nodes


@given(seed=SEEDS, spread=st.sampled_from(SPREADS), radius=st.floats(0.05, 3.0), angle=st.floats(0, 2 * math.pi))
def test_the_slope_grows_no_faster_than_derived(seed, spread, radius, angle):
    opening = radius * spread / (4 * math.cos(radius / 2) ** 2)
    if opening >= math.pi:
        return
    growth = math.exp(radius + 2 * opening) / (math.cos(radius / 2) * math.cos(opening / 2)) ** 2
    with mp.workdps(80):
        for unit in units(seed, spread, 2):
            slope_there = mp.diff(unit.loss, radius * mp.expj(angle), h=mp.mpf(10) ** -12)
            assert abs(slope_there) <= growth * slope(unit)


@given(seed=SEEDS, spread=st.sampled_from(SPREADS), count=st.integers(1, 5), share=st.floats(0.01, 0.9))
def test_the_interpolation_error_stays_within_the_derived_bound(seed, spread, count, share):
    radius = min(1.0, 4 / spread)
    shift, opening = share * radius, radius * spread / (4 * math.cos(radius / 2) ** 2)
    growth = math.exp(radius + 2 * opening) / (math.cos(radius / 2) * math.cos(opening / 2)) ** 2
    bound = growth * (shift / (2 * (radius - shift))) ** (2 * count)
    with mp.workdps(80):
        assert all(interpolation_error(unit, mp.mpf(shift), count) <= bound for unit in units(seed, spread, 2))


@DTYPES
@given(seed=SEEDS, spread=st.sampled_from(SPREADS), shift=st.floats(-9, 0).map(lambda power: 10.0**power))
def test_the_planned_nodes_leave_less_than_4_roundings(dtype, seed, spread, shift):
    plan = make_plan(shift, 1.0, spread / 2, dtype)
    with mp.workdps(80):
        if plan.hidden_nodes:
            for unit in units(seed, spread, 2):
                assert interpolation_error(unit, mp.mpf(shift), plan.hidden_nodes) <= 4 * unit_roundoff(dtype)
        if plan.output_nodes:
            for unit in units(seed, spread, 2):
                logit = Logit(**vars(unit), moved=seed % len(unit.a2))
                assert interpolation_error(logit, mp.mpf(shift), plan.output_nodes) <= 4 * unit_roundoff(dtype)


@DTYPES
@pytest.mark.parametrize("spread", SPREADS)
def test_the_plan_takes_the_least_nodes_of_which_the_bound_is_below_4_roundings(dtype, spread):
    for shift in np.geomspace(1e-9, 1, 300):
        plan = make_plan(shift, 1.0, spread / 2, dtype)
        for layer, count in ((1, plan.hidden_nodes), (0, plan.output_nodes)):
            if count:
                assert derived_bound(shift, spread, count, layer) <= 1.001 * 4 * unit_roundoff(dtype)
            fewer = (count or MAX_NODES + 1) - 1
            if fewer:
                assert derived_bound(shift, spread, fewer, layer) > 0.95 * 4 * unit_roundoff(dtype)


def derived_bound(shift, spread, count, hidden):
    """Return the least C(R) (S / (2 (R - S)))^(2m) over all R; the layer is the hidden one or that of the outputs."""
    radius = np.geomspace(shift, math.pi, 4000)[1:-1]
    opening = radius * spread / (4 * np.cos(radius / 2) ** 2) if hidden else radius
    radius, opening = radius[opening < math.pi], opening[opening < math.pi]
    growth = np.exp(2 * opening) / np.cos(opening / 2) ** 2
    if hidden:
        growth *= np.exp(radius) / np.cos(radius / 2) ** 2
    return min(growth * (shift / (2 * (radius - shift))) ** (2 * count), default=math.inf)


@DTYPES
@pytest.mark.parametrize("spread", [1.0, 4.0])
@pytest.mark.parametrize("count", [1, 2])
def test_a_node_fewer_would_not_do(dtype, spread, count):
    shift = limit(count + 1, dtype, spread)
    with mp.workdps(80):
        errors = (interpolation_error(unit, mp.mpf(shift), count) for unit in units(0, spread, 20))
        assert any(error > unit_roundoff(dtype) for error in errors)


@DTYPES
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_the_plan_falls_no_more_than_8_times_short_of_the_possible(dtype, spread, count):
    shift = 8 * mp.mpf(limit(count, dtype, spread))
    with mp.workdps(80):
        errors = (interpolation_error(unit, shift, count) for unit in units(1, spread, 40))
        assert any(error > 4 * unit_roundoff(dtype) for error in errors)


# --- terms


@DTYPES
@given(shift=SHIFTS)
def test_the_planned_terms_cut_expm1_of_a_shift_below_rounding_and_a_term_fewer_does_not(dtype, shift):
    terms = make_plan(shift, 1.0, 1.0, dtype).shift_terms
    with mp.workdps(80):
        if terms:
            assert cut(shift, terms) <= unit_roundoff(dtype)
        if terms > 1:
            assert cut(shift, terms - 1) > 0.2 * unit_roundoff(dtype)


def cut(v, terms):
    """Return the largest relative error of `terms` terms of expm1 at +-v."""
    sums = ((sign * v, mp.fsum((sign * v) ** n / mp.factorial(n) for n in range(1, terms + 1))) for sign in (1, -1))
    return max(abs((mp.expm1(w) - total) / v) for w, total in sums)


def difference_of_sums(unit, s, terms, linear=False):
    """Compute D(s) from `terms` power sums, without the denominator where the loss counts as `linear`."""
    exponentials, own = [mp.exp(a) for a in unit.a2], unit.weights[unit.label]
    total = mp.fsum(exponentials)
    y_t = exponentials[unit.label] / total
    q, r = y_t / (y_t + oracle.DELTA), oracle.DELTA / (y_t + oracle.DELTA)
    moves = [oracle.sigmoid(unit.a + by) - oracle.sigmoid(unit.a) for by in (s, -s)]
    above, below = (
        mp.fsum(
            e / total * mp.fsum((dz * (w - own)) ** n / mp.factorial(n) for n in range(1, terms + 1))
            for e, w in zip(exponentials, unit.weights, strict=True)
        )
        for dz in moves
    )
    if linear:
        return q * (above - below)
    return mp.log((1 + above) * (1 + r * below) / ((1 + below) * (1 + r * above)))


@DTYPES
@given(seed=SEEDS, spread=st.sampled_from(SPREADS), shift=st.floats(-9, 0).map(lambda power: 10.0**power))
def test_the_planned_power_sums_leave_less_than_a_rounding(dtype, seed, spread, shift):
    plan, s = make_plan(shift, 1.0, spread / 2, dtype), mp.mpf(shift)
    if not plan.terms:
        return
    with mp.workdps(80):
        for unit in units(seed, spread, 4):
            growth = math.exp(shift + 2 * math.tanh(shift / 4) * spread)
            exact, size = unit.difference(s), 2 * s * slope(unit) * growth
            assert abs(difference_of_sums(unit, s, plan.terms) - exact) <= unit_roundoff(dtype) * size
            if plan.linear:
                assert abs(difference_of_sums(unit, s, 1, linear=True) - exact) <= 3 * unit_roundoff(dtype) * size


@DTYPES
@pytest.mark.parametrize("spread", SPREADS)
def test_with_fewer_power_sums_more_than_half_a_rounding_is_left(dtype, spread):
    for shift in np.geomspace(1e-7, 0.03, 12):
        plan, s = make_plan(float(shift), 1.0, spread / 2, dtype), mp.mpf(float(shift))
        if plan.terms < 2:
            continue
        fewer = plan.terms - (1 if plan.terms % 2 == 0 else 2)
        with mp.workdps(80):
            errors = (
                abs(difference_of_sums(unit, s, fewer) - unit.difference(s)) / (2 * s * slope(unit))
                for unit in units(2, spread, 30)
            )
            assert max(errors) > 0.02 * unit_roundoff(dtype)


@DTYPES
@given(seed=SEEDS, spread=st.sampled_from(SPREADS), shift=st.floats(-9, 0).map(lambda power: 10.0**power))
def test_the_planned_terms_of_arctanh_leave_less_than_a_rounding(dtype, seed, spread, shift):
    plan = make_plan(shift, 1.0, spread / 2, dtype)
    with mp.workdps(80):
        for unit in units(seed, spread, 2):
            logit = Logit(**vars(unit), moved=seed % len(unit.a2))
            for moved, terms in ((unit, plan.arctanh_terms), (logit, plan.output_arctanh_terms)):
                argument = mp.tanh(moved.difference(mp.mpf(shift)) / 2)
                if terms and argument:
                    series = mp.fsum(argument ** (2 * n + 1) / (2 * n + 1) for n in range(terms))
                    assert abs(series / mp.atanh(argument) - 1) <= unit_roundoff(dtype)


@given(seed=SEEDS, spread=st.sampled_from(SPREADS), shift=st.floats(-6, 0).map(lambda power: 10.0**power))
def test_the_second_coefficient_is_as_small_as_derived(seed, spread, shift):
    theta = math.tanh(shift / 4) * spread
    if shift + 2 * theta > 1:
        return
    curvature = math.exp(shift + 2 * theta) * (1 + 1.5 * spread + 0.28 * spread**2)
    with mp.workdps(80):
        for unit in units(seed, spread, 3):
            logit = Logit(**vars(unit), moved=seed % len(unit.a2))
            for moved, bound in ((unit, curvature), (logit, 4.5 * math.exp(2 * shift))):
                nodes = [shift * mp.cos((2 * k - 1) * mp.pi / 18) for k in range(1, 5)]
                second = (
                    4
                    * mp.fsum(
                        moved.difference(s) * mp.cos(3 * (2 * k - 1) * mp.pi / 18) for k, s in enumerate(nodes, 1)
                    )
                    / 9
                )
                assert abs(second) <= shift**2 / 24 * bound * 2 * shift * slope(moved) * (1 + 1e-6)


@given(a=st.floats(-40, 40), s=st.floats(0, 80))
def test_a_unit_moves_by_at_most_tanh_of_a_quarter_of_the_shift(a, s):
    with mp.workdps(60):
        assert oracle.sigmoid(mp.mpf(a) + s) - oracle.sigmoid(mp.mpf(a)) <= mp.tanh(mp.mpf(s) / 4) + 1e-50
