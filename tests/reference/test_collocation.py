"""The plan of a collocation, its nodes and its slices, and what is said where `structured` takes over."""

import linecache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.chapter import TwoLayerNet
from reference.collocation import (
    MAX_NODES,
    MAX_TERMS,
    Plan,
    chebyshev_transform,
    largest_shift,
    make_plan,
    positive_nodes,
    slices,
    warn_of_structured,
)
from reference.descent import train_steps
from reference.numerical_gradient import GRADIENTS, collocated, structured
from reference.two_layer_net import init

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
SHIFTS = st.floats(1e-9, 1.0)


# --- the plan


def test_the_chapters_net_takes_one_node_in_float32_and_two_in_float64():
    for weight in (0.0, 0.5, 2.0):
        assert make_plan(1e-4, 1.0, weight, "float32")[:2] == (1, 1)
        assert make_plan(1e-4, 1.0, weight, "float64")[:2] == (2, 2)
    assert [make_plan(1e-4, 1.0, 2.0, dtype).terms for dtype in ("float32", "float64")] == [1, 3]


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


@DTYPES
@pytest.mark.parametrize(("max_abs_x", "unit"), [(0.0, True), (0.3, True), (1.0, True), (1.001, False), (255.0, False)])
def test_inputs_are_scaled_where_one_is_larger_than_a_bias_input(max_abs_x, unit, dtype):
    assert make_plan(1e-4, max_abs_x, 1.0, dtype).unit_inputs is unit


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
