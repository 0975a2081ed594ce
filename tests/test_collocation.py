"""The plan is derived, so the derivation is put to the test: on random nets, in 80 digits."""

import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from oracle import Logit, Unit
from reference.collocation import MAX_NODES, MAX_TERMS, Plan, chebyshev_transform, plan, positive_nodes, reach
from reference.numerical_gradient import collocated, structured
from reference.two_layer_net import init
from reference.validation import unit_roundoff

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
SPREADS = (1.0, 4.0, 32.0)  # powers of sqrt(2), which the plan does not round up
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.floats(1e-9, 1.0)


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
        enough = 0 < plan(middle, 1.0, spread / 2, dtype).hidden_nodes <= count
        low, high = (middle, high) if enough else (low, middle)
    return low


# --- the derivation


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
    needs = plan(shift, 1.0, spread / 2, dtype)
    with mp.workdps(80):
        if needs.hidden_nodes:
            for unit in units(seed, spread, 2):
                assert interpolation_error(unit, mp.mpf(shift), needs.hidden_nodes) <= 4 * unit_roundoff(dtype)
        if needs.output_nodes:
            for unit in units(seed, spread, 2):
                logit = Logit(**vars(unit), moved=seed % len(unit.a2))
                assert interpolation_error(logit, mp.mpf(shift), needs.output_nodes) <= 4 * unit_roundoff(dtype)


@DTYPES
@pytest.mark.parametrize("spread", SPREADS)
def test_the_plan_takes_the_least_nodes_of_which_the_bound_is_below_4_roundings(dtype, spread):
    for shift in np.geomspace(1e-9, 1, 300):
        needs = plan(shift, 1.0, spread / 2, dtype)
        for layer, count in ((1, needs.hidden_nodes), (0, needs.output_nodes)):
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
@given(shift=SIZES, spread=st.sampled_from((1.0, 8.0, 64.0)))
def test_the_planned_terms_cut_expm1_below_rounding_and_a_term_fewer_does_not(dtype, shift, spread):
    needs = plan(shift, 1.0, spread / 2, dtype)
    with mp.workdps(80):
        for terms, largest in ((needs.terms, math.tanh(shift / 4) * spread), (needs.shift_terms, shift)):
            if terms:
                assert cut(largest, terms) <= unit_roundoff(dtype)
            if terms > 1:
                assert cut(largest, terms - 1) > 0.2 * unit_roundoff(dtype)


def cut(v, terms):
    """Return the largest relative error of `terms` terms of expm1 at +-v."""
    sums = ((sign * v, mp.fsum((sign * v) ** n / mp.factorial(n) for n in range(1, terms + 1))) for sign in (1, -1))
    return max(abs((mp.expm1(w) - total) / v) for w, total in sums)


@given(a=st.floats(-40, 40), s=st.floats(0, 80))
def test_a_unit_moves_by_at_most_tanh_of_a_quarter_of_the_shift(a, s):
    with mp.workdps(60):
        assert oracle.sigmoid(mp.mpf(a) + s) - oracle.sigmoid(mp.mpf(a)) <= mp.tanh(mp.mpf(s) / 4) + 1e-50


# --- the plan


def test_the_chapters_net_takes_one_node_in_float32_and_two_in_float64():
    for weight in (0.0, 0.5, 2.0):
        assert plan(1e-4, 1.0, weight, "float32")[:2] == (1, 1)
        assert plan(1e-4, 1.0, weight, "float64")[:2] == (2, 2)
    assert [plan(1e-4, 1.0, 2.0, dtype).terms for dtype in ("float32", "float64")] == [2, 4]


@DTYPES
@given(h=SIZES, max_abs=st.floats(0, 60), weight=st.floats(0, 20), factor=st.floats(1, 10), which=st.integers(0, 2))
def test_more_of_anything_never_takes_less(dtype, h, largest, weight, factor, which):
    sizes = [h, largest, weight]
    sizes[which] *= factor
    assert plan(min(sizes[0], 1.0), *sizes[1:], dtype).covers(plan(h, largest, weight, dtype))


@given(h=SIZES, max_abs=st.floats(0, 300), weight=st.floats(0, 50))
def test_float64_never_takes_less_than_float32(h, largest, weight):
    assert plan(h, largest, weight, "float64").covers(plan(h, largest, weight, "float32"))


@pytest.mark.parametrize(
    ("mine", "its", "covers"),
    [
        ((2, 2, 4), (2, 2, 4), True),
        ((2, 2, 4), (1, 2, 3), True),
        ((2, 2, 4), (3, 2, 4), False),
        ((2, 2, 4), (2, 3, 4), False),
        ((2, 2, 4), (2, 2, 5), False),
        ((2, 2, 4), (2, 2, 0), False),
        ((2, 2, 4), (0, 2, 4), False),
        ((2, 2, 0), (2, 2, 12), True),
        ((0, 2, 4), (8, 2, 4), True),
        ((0, 0, 0), (0, 0, 0), True),
    ],
)
def test_a_plan_covers_what_takes_no_more(mine, its, covers):
    assert Plan(*mine, 1, True).covers(Plan(*its, 1, True)) is covers


@pytest.mark.parametrize(("nodes", "collocates"), [((1, 1), True), ((8, 8), True), ((0, 1), False), ((1, 0), False)])
def test_a_plan_collocates_if_both_layers_have_nodes(nodes, collocates):
    assert Plan(*nodes, 1, 1, True).collocates is collocates


def test_shifts_beyond_1_take_the_exponentials():
    last = plan(0.1, 10.0, 1e-3, "float64")
    assert last.small_shifts
    assert last.terms > 0
    needs = plan(0.1, 10.1, 1e-3, "float64")
    assert not needs.small_shifts
    assert needs.terms == 0


def test_no_terms_are_taken_of_exponents_beyond_1():
    assert plan(0.5, 2.0, 1e-3, "float32").shift_terms > 0
    assert plan(0.5, 2.01, 1e-3, "float32").shift_terms == 0


def test_the_plan_goes_up_to_8_nodes_and_12_terms():
    plans = [plan(h, 1.0, weight, "float64") for h in np.geomspace(1e-6, 1, 100) for weight in np.geomspace(1, 1e4, 20)]
    assert max(needs.hidden_nodes for needs in plans) == max(needs.output_nodes for needs in plans) == MAX_NODES
    assert max(needs.terms for needs in plans) == max(needs.shift_terms for needs in plans) == MAX_TERMS


def test_a_small_growth_of_the_weights_seldom_asks_for_a_new_plan():
    for h in np.geomspace(1e-6, 0.1, 100):
        assert plan(h, 1.0, 0.71, "float64") == plan(h, 1.0, 1.0, "float64")


def test_the_reach_counts_a_bias_as_an_input_of_1():
    assert largest_shift(0.01, 0.5) == 0.01
    assert largest_shift(0.01, 255.0) == 0.01 * 255


# --- nodes and interpolation


@pytest.mark.parametrize("count", range(1, MAX_NODES + 1))
def test_the_nodes_are_the_positive_zeros_of_a_chebyshev_polynomial(count):
    nodes = positive_nodes(count)
    zeros = np.polynomial.Chebyshev.basis(2 * count + 1).roots()
    np.testing.assert_allclose(nodes[::-1], zeros[zeros > 1e-9], rtol=0, atol=1e-14)


@pytest.mark.parametrize("count", range(1, MAX_NODES + 1))
def test_the_transform_is_exact_for_odd_polynomials_of_degree_below_2m(count):
    nodes, transform = positive_nodes(count), chebyshev_transform(count)
    for n in range(count):
        odd = np.polynomial.Chebyshev.basis(2 * n + 1)
        np.testing.assert_allclose(transform @ odd(nodes), np.eye(count)[n], rtol=0, atol=1e-14)


def past_8_nodes():
    params, rng = init(3, 4, 2, 1.0, seed=0), np.random.default_rng(0)
    return params, 255 * rng.random((5, 3)), np.array([0, 1, 1, 0, 1])


def test_past_8_nodes_structured_takes_over_and_says_so():
    params, x, t = past_8_nodes()
    message = (
        rf"^`collocated` needs more than 8 nodes at h = 0\.01 and inputs of up to {x.max():g} with these weights: "
        "`structured` takes over.$"
    )
    with pytest.warns(RuntimeWarning, match=message):
        got = collocated(params, x, t, h=0.01)
    for g, e in zip(got, structured(params, x, t, h=0.01), strict=True):
        np.testing.assert_array_equal(g, e)


def test_the_warning_points_at_the_caller():
    with pytest.warns(RuntimeWarning) as caught:
        collocated(*past_8_nodes(), h=0.01)
    assert caught[0].filename == __file__
