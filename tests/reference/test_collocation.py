"""The plan is derived, so the derivation is put to the test: on random nets, in 80 digits."""

import linecache
import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from oracle import Logit, Unit
from reference.chapter import TwoLayerNet
from reference.collocation import (
    MAX_NODES,
    MAX_TERMS,
    Plan,
    chebyshev_transform,
    largest_shift,
    make_plan,
    positive_nodes,
    run_within_plan,
    slices,
    warn_of_structured,
)
from reference.descent import train_steps
from reference.numerical_gradient import GRADIENTS, collocated, structured
from reference.two_layer_net import init
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


def test_float32_serves_at_the_chapters_step_and_not_where_shifts_or_weights_are_large():
    assert make_plan(1e-4, 1.0, 1.0, "float64")[8:10] == (True, True)
    assert not make_plan(1e-4, 1.0, 30.0, "float64").mixed
    assert not make_plan(1e-4, 100.0, 1.0, "float64").mixed
    assert make_plan(0.1, 1.0, 1.0, "float64")[8:10] == (False, False)
    assert not any(make_plan(h, 1.0, 1.0, "float32").mixed for h in (1e-8, 1e-4, 0.1))


@DTYPES
def test_weights_up_to_the_end_of_the_range_are_planned_for(dtype):
    largest = float(np.finfo(dtype).max)
    for h in (1e-20, 1e-4, 1.0):
        assert make_plan(h, 1.0, largest, dtype).terms == 0


@given(a=st.floats(-40, 40), s=st.floats(0, 80))
def test_a_unit_moves_by_at_most_tanh_of_a_quarter_of_the_shift(a, s):
    with mp.workdps(60):
        assert oracle.sigmoid(mp.mpf(a) + s) - oracle.sigmoid(mp.mpf(a)) <= mp.tanh(mp.mpf(s) / 4) + 1e-50


# --- the plan


def test_the_chapters_net_takes_one_node_in_float32_and_two_in_float64():
    for weight in (0.0, 0.5, 2.0):
        assert make_plan(1e-4, 1.0, weight, "float32")[:2] == (1, 1)
        assert make_plan(1e-4, 1.0, weight, "float64")[:2] == (2, 2)
    assert [make_plan(1e-4, 1.0, 2.0, dtype).terms for dtype in ("float32", "float64")] == [1, 3]


@DTYPES
@given(
    h=SHIFTS,
    max_abs_x=st.floats(0, 60),
    max_abs_W2=st.floats(0, 20),
    factor=st.floats(1, 10),
    which=st.integers(0, 2),
)
def test_more_of_anything_never_takes_less(dtype, h, max_abs_x, max_abs_W2, factor, which):
    more = [h, max_abs_x, max_abs_W2]
    more[which] *= factor
    plan = make_plan(h, max_abs_x, max_abs_W2, dtype)
    assert make_plan(min(more[0], 1.0), *more[1:], dtype).covers(plan)


@given(h=SHIFTS, max_abs_x=st.floats(0, 300), max_abs_W2=st.floats(0, 50))
def test_float64_never_takes_less_than_float32(h, max_abs_x, max_abs_W2):
    double, single = (make_plan(h, max_abs_x, max_abs_W2, dtype) for dtype in ("float64", "float32"))
    nodes_and_terms = ((own, its) for own, its in zip(double[:8], single[:8], strict=True) if not isinstance(own, bool))
    assert all(own == 0 or own >= its > 0 for own, its in nodes_and_terms)
    assert single.linear or not double.linear


@pytest.mark.parametrize(
    ("own", "its", "covers"),
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
def test_a_plan_covers_what_takes_no_more(own, its, covers):
    assert Plan(*own, 1, True).covers(Plan(*its, 1, True)) is covers


@pytest.mark.parametrize(("nodes", "collocates"), [((1, 1), True), ((8, 8), True), ((0, 1), False), ((1, 0), False)])
def test_a_plan_collocates_if_both_layers_have_nodes(nodes, collocates):
    assert Plan(*nodes, 1, 1, True).collocates is collocates


def test_shifts_beyond_1_take_the_exponentials():
    within, beyond = (make_plan(0.1, max_abs_x, 1e-3, "float64") for max_abs_x in (10.0, 10.1))
    assert within.small_shifts
    assert within.terms > 0
    assert not beyond.small_shifts
    assert beyond.terms == 0


def test_no_terms_are_taken_of_exponents_beyond_1():
    assert make_plan(0.5, 2.0, 1e-3, "float32").shift_terms > 0
    assert make_plan(0.5, 2.01, 1e-3, "float32").shift_terms == 0


def test_the_plan_goes_up_to_8_nodes_and_12_terms():
    hs, weights = np.geomspace(1e-6, 1, 100), np.geomspace(1, 1e4, 20)
    plans = [make_plan(h, 1.0, weight, "float64") for h in hs for weight in weights]
    assert max(plan.hidden_nodes for plan in plans) == max(plan.output_nodes for plan in plans) == MAX_NODES
    assert max(plan.terms for plan in plans) == max(plan.shift_terms for plan in plans) == MAX_TERMS


def test_a_small_growth_of_the_weights_seldom_asks_for_a_new_plan():
    for h in np.geomspace(1e-6, 0.1, 100):
        assert make_plan(h, 1.0, 0.71, "float64") == make_plan(h, 1.0, 1.0, "float64")


def test_the_largest_shift_counts_a_bias_as_an_input_of_1():
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


# --- training within a plan


def trained(strategy, max_abs_W2, *, grown=(), h=1e-2, max_abs_x=1.0, dtype="float64"):
    """Run a training whose runs end at the weights `grown`, one after the other; return its result and its plans."""
    plans, ends = [], iter(grown)

    def run(plan):
        plans.append(plan)
        return f"result {len(plans)}", next(ends)

    result = run_within_plan(run, strategy, h, {"W2": max_abs_W2, "x": max_abs_x}, dtype)
    return result, plans


PLANNED = pytest.mark.parametrize("strategy", ["structured", "collocated"])


@DTYPES
@PLANNED
def test_training_is_planned_from_its_first_weights_and_inputs(dtype, strategy):
    result, plans = trained(strategy, 0.5, grown=[0.5], h=1e-3, max_abs_x=3.0, dtype=dtype)
    assert (result, plans) == ("result 1", [make_plan(1e-3, 3.0, 0.5, dtype)])


@DTYPES
@PLANNED
def test_training_is_run_again_for_as_long_as_the_weights_outgrow_the_plan(dtype, strategy):
    result, plans = trained(strategy, 0.5, grown=[8.0, 1.0, 16.0, 16.0], dtype=dtype)
    assert plans == [make_plan(1e-2, 1.0, weight, dtype) for weight in (0.5, 8.0)]  # which covers that of 1.0
    assert result == "result 2"
    result, plans = trained(strategy, 0.5, grown=[8.0, 16.0, 16.0], dtype=dtype)
    assert plans == [make_plan(1e-2, 1.0, weight, dtype) for weight in (0.5, 8.0, 16.0)]
    assert result == "result 3"
    assert len(set(plans)) == 3


@PLANNED
def test_training_keeps_a_plan_that_covers_the_weights_at_the_end(strategy):
    grown = 0.7  # by less than what the plan rounds up to
    assert trained(strategy, 0.6, grown=[grown])[0] == "result 1"
    assert trained(strategy, 4.0, grown=[0.5])[0] == "result 1"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("strategy", ["loop", "batched", "closed form"])
def test_training_by_what_needs_no_plan_is_run_once(strategy):
    assert trained(strategy, 0.5, grown=[1e3])[0] == "result 1"
    assert trained(strategy, 0.5, grown=[1e3], h=0.1, max_abs_x=255.0)[0] == "result 1"


def test_training_warns_once_for_each_plan_that_does_not_collocate():
    with pytest.warns(RuntimeWarning, match=r"more than 8 nodes at h = 0\.1 and inputs of up to 255 ") as caught:
        trained("collocated", 0.5, grown=[0.5], h=0.1, max_abs_x=255.0)
    assert len(caught) == 1
    with pytest.warns(RuntimeWarning, match=r"more than 8 nodes at h = 0\.01 and inputs of up to 1 ") as caught:
        _, plans = trained("collocated", 0.5, grown=[1e3, 1e3])
    assert [plan.collocates for plan in plans] == [True, False]
    assert len(caught) == 1


@pytest.mark.filterwarnings("error")
def test_training_by_structured_warns_of_nothing():
    assert trained("structured", 0.5, grown=[0.5], h=0.1, max_abs_x=255.0)[0] == "result 1"


# --- slices


@pytest.mark.parametrize(
    ("length", "size", "stops"),
    [
        (10, 4, [4, 8, 10]),
        (8, 4, [4, 8]),
        (3, 4, [3]),
        (3, 1, [1, 2, 3]),
        (3, 0, [1, 2, 3]),
        (2, -5, [1, 2]),
        (0, 4, []),
    ],
)
def test_slices_cover_the_length_and_hold_one_at_least(length, size, stops):
    assert list(slices(length, size)) == [slice(*ends) for ends in zip([0, *stops[:-1]], stops, strict=False)]


# --- where `structured` takes over


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


def network_past_8_nodes():
    params, x, t = past_8_nodes()
    network = TwoLayerNet(3, 4, 2, h=0.01)
    network.params = params._asdict()
    return network, x, t


def by_the_class():
    network, x, t = network_past_8_nodes()
    network.numerical_gradient(x, t)


def in_training():
    options = {"strategy": "collocated", "learning_rate": 0.1, "h": 0.01}
    train_steps(*past_8_nodes(), np.array([[0, 1], [2, 3]]), **options)


CALLERS = {
    "a gradient": lambda: collocated(*past_8_nodes(), h=0.01),
    "a gradient by name": lambda: GRADIENTS["collocated"](*past_8_nodes(), h=0.01),
    "the class": by_the_class,
    "training": in_training,
    "the function itself": lambda: warn_of_structured(0.01, 255.0),
}


@pytest.mark.parametrize("call", CALLERS.values(), ids=CALLERS)
def test_the_warning_points_at_the_caller(call):
    with pytest.warns(RuntimeWarning, match="^`collocated` needs more than 8 nodes") as caught:
        call()
    (warning,) = caught
    line = linecache.getline(warning.filename, warning.lineno)
    assert warning.filename == __file__
    assert any(name in line for name in ("collocated", "numerical_gradient(", "train_steps(", "warn_of_structured("))
