"""All backends, strategies and dtypes give the same numbers; and the comparison that says so is tested itself."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comparison.agreement import comparison
from comparison.agreement.bounds import Bounds, Problem
from comparison.agreement.comparison import (
    Agreement,
    check_forward,
    check_gradient,
    compare,
    random_problem,
    sample_entries,
)
from comparison.agreement.truth import is_comparable
from comparison.conformance.gradients import HANDS_OVER, digits
from comparison.conformance.nets import NUMPY
from comparison.conformance.problems import STEPS
from members import with_members
from reference import two_layer_net
from reference.defaults import STRATEGIES
from reference.two_layer_net import Params, init

BATCHES = np.array([[0, 1, 2, 3], [4, 5, 6, 0], [2, 2, 1, 5]])
pytestmark = pytest.mark.filterwarnings(HANDS_OVER)


def flat(problem: Problem) -> tuple[np.ndarray, ...]:
    return (*problem.params, problem.x, problem.t)


def test_a_gap_within_the_bound_agrees() -> None:
    row = compare(NUMPY, "q", np.array([1.0, 2.5]), [1.0, 2.0], 0.5)
    assert (row.agrees, row.gap, row.bound, row.ratio, row.worst_index) == (True, 0.5, 0.5, 1.0, (1,))


def test_a_gap_past_the_bound_does_not_agree() -> None:
    row = compare(NUMPY, "q", np.array([1.0, 2.5]), [1.0, 2.0], 0.4)
    assert (row.agrees, row.got, row.expected) == (False, 2.5, 2.0)


@pytest.mark.parametrize(
    "got", [np.zeros(3), np.zeros((2, 1)), np.zeros(2, np.float32), np.zeros(2, int), np.zeros(())]
)
def test_shape_and_dtype_come_before_values(got: np.ndarray) -> None:
    row = compare(NUMPY, "q", got, np.zeros(2), np.inf)
    assert not row.agrees
    assert (row.gap, row.bound, row.worst_index, row.ratio) == (None, None, None, math.inf)
    assert (row.got, row.expected) == (f"{got.dtype} {got.shape}", "float64 (2,)")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_agrees(value: float) -> None:
    row = compare(NUMPY, "q", np.array([0.0, value]), np.zeros(2), 1e300)
    assert (row.agrees, row.gap, row.worst_index, row.got, row.expected) == (False, None, (1,), str(value), "0.0")


@given(st.integers(0, 2**32 - 1), st.sampled_from([(1,), (5,), (3, 4)]))
def test_the_worst_index_is_the_worst_by_gap_over_bound(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    got, expected, bound = rng.standard_normal((3, *shape))
    bound = np.abs(bound) + 1e-3
    row = compare(NUMPY, "q", got, expected, bound)
    ratios = {at: abs(got[at] - expected[at]) / bound[at] for at in np.ndindex(shape)}
    assert row.worst_index is not None
    assert row.ratio == ratios[row.worst_index] == max(ratios.values())
    assert (row.got, row.expected) == (got[row.worst_index], expected[row.worst_index])
    assert row.agrees == (max(ratios.values()) <= 1)


def test_a_row_has_every_field_and_where_nothing_is_off_shows_the_entry_of_the_largest_bound() -> None:
    bounds = [[1.0, 3.0], [2.0, 1.0]]
    row = compare(NUMPY, "W2", np.zeros((2, 2)), np.zeros((2, 2)), bounds, strategy="loop", h=0.1, size=9)
    fields = ("numpy", "loop", "float64", "cpu", "W2", 0.1, 0.0, 3.0, True, (0, 1), 0.0, 0.0, 4, 9)
    assert row == Agreement(*fields)
    closed_form = compare(NUMPY, "W2", np.zeros(2), np.zeros(2), 1.0, strategy="closed form", h=0.1)
    assert (closed_form.h, closed_form.entries) == (None, 2)


def test_nothing_compared_agrees() -> None:
    row = compare(NUMPY, "q", np.zeros(0), np.zeros(0), 1.0)
    assert row == Agreement("numpy", None, "float64", "cpu", "q", None, 0.0, 0.0, True, None, "", "", 0, 0)
    assert row.ratio == 0


def test_one_wrong_entry_is_enough() -> None:
    got = np.zeros((30, 30))
    got[17, 4] = 1e-9
    row = compare(NUMPY, "q", got, np.zeros((30, 30)), 1e-10)
    assert (row.agrees, row.worst_index, row.checked) == (False, (17, 4), 900)


def test_only_float32_losses_at_a_small_h_are_not_comparable() -> None:
    problem = digits(hidden=50, samples=100)
    comparable = {
        (strategy, dtype, h): is_comparable(problem, strategy, dtype, h)
        for strategy in STRATEGIES
        for dtype in ("float64", "float32")
        for h in STEPS
    }
    assert {key for key, value in comparable.items() if not value} == {
        ("loop", "float32", 1e-4),
        ("batched", "float32", 1e-4),
    }


def test_an_h_that_is_large_enough_shows_a_saturated_unit() -> None:
    """For the one sample that shows W1 its input is 60, where the slope is 1e-26; 100 below, the unit is off."""
    params = Params(np.array([[0.6]]), np.zeros(1), np.array([[1.0, -1.0]]), np.zeros(2))
    problem = Problem(params, np.array([[100.0], [0.0]]), np.zeros(2, int))
    assert [is_comparable(problem, "loop", "float64", h) for h in (1e-4, 1.0)] == [False, True]


def test_all_entries_are_checked_where_that_is_cheap() -> None:
    assert sample_entries(digits().params, 20, seed=0) is None


def test_the_larger_a_member_the_more_of_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "FULL_COST", 2e10)
    params = init(784, 50, 10, seed=0)
    sample = sample_entries(params, 100, seed=0)
    assert sample is not None
    assert [len(at) for at in sample] == [pytest.approx(1232, rel=0.01), 50, 100, 10]
    for at, p in zip(sample, params, strict=True):
        assert len(np.unique(at)) == len(at)
        assert 0 <= at.min() <= at.max() < p.size
    operations = len(sample.W1) * 4 * 100 * (params.W1.size + params.W2.size)
    assert operations == pytest.approx(2e10, rel=0.05)


def test_the_sample_has_a_least_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "FULL_COST", 0)
    sample = sample_entries(init(784, 50, 10, seed=0), 100, seed=0)
    assert sample is not None
    assert len(sample.W1) == 100


def test_the_sample_is_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "FULL_COST", 0)
    params = init(784, 50, 10, seed=0)
    one, same, other = (sample_entries(params, 100, seed=seed) for seed in (1, 1, 2))
    assert one is not None
    assert same is not None
    assert other is not None
    np.testing.assert_array_equal(one.W1, same.W1)
    assert (one.W1 != other.W1).any()


def test_a_random_problem_is_reproducible_and_has_no_array_of_zeros() -> None:
    for one, same in zip(flat(digits()), flat(digits()), strict=True):
        np.testing.assert_array_equal(one, same)
        assert one.any()


@pytest.mark.parametrize(
    ("changes", "sentence"), [({"samples": 0}, "`batch`"), ({"samples": 9}, "`batch`"), ({"hidden": 0}, "`hidden`")]
)
def test_a_random_problem_of_no_size_is_refused(changes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence} must be .*, got {next(iter(changes.values()))}"):
        random_problem(
            np.zeros((8, 2)), np.zeros(8, int), **({"hidden": 2, "outputs": 2, "samples": 8, "seed": 0} | changes)
        )


# --- the rows, of right quantities and of wrong ones


def test_a_wrong_forward_quantity_is_named() -> None:
    for name in ("predict", "loss", "accuracy"):
        right = getattr(NUMPY.port, name)
        off = {"predict": 1e-12, "loss": 1e-12, "accuracy": 3 * 2.0**-53}[name]
        rows = list(check_forward(with_members(**{name: lambda *a, f=right, off=off: f(*a) + off}), digits()))
        assert [row.quantity for row in rows] == ["predictions", "loss", "accuracy"]
        assert [row.agrees for row in rows] == [name != function for function in ("predict", "loss", "accuracy")]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_port_is_held_to_the_problem_that_its_dtype_can_hold(dtype: str) -> None:
    subject = NUMPY._replace(dtype=dtype)
    rows = (*check_forward(subject, digits()), *check_gradient(subject, digits(), None, 1e-2))
    assert all(row.agrees for row in rows)
    rounded = digits().rounded(dtype)
    assert rows[1].expected == two_layer_net.loss(rounded.params, rounded.x, rounded.t)
    expected, bounds = two_layer_net.gradient(*rounded), Bounds(rounded, dtype).gradient(None, 0.0)
    for row, e, bound in zip(rows[3:], expected, bounds, strict=True):
        assert row.worst_index is not None
        assert (row.expected, row.bound) == (e[row.worst_index], bound[row.worst_index])


@pytest.mark.parametrize("strategy", [*STRATEGIES, None])
def test_a_wrong_gradient_is_named(strategy: str | None) -> None:
    def wrong(*arguments: Any, **options: Any) -> Params:
        right = NUMPY.port.GRADIENTS[strategy] if strategy else NUMPY.port.gradient
        return Params(*(1.001 * g for g in right(*arguments, **options)))

    gradients = {**NUMPY.port.GRADIENTS, **({strategy: wrong} if strategy else {})}
    subject = with_members(GRADIENTS=gradients, **({} if strategy else {"gradient": wrong}))
    rows = list(check_gradient(subject, digits(), strategy, 1e-2))
    assert [row.quantity for row in rows] == ["W1", "b1", "W2", "b2"]
    assert not any(row.agrees for row in rows)
    assert {(row.strategy, row.h) for row in rows} == {(strategy, 1e-2) if strategy else ("closed form", None)}
    assert [(row.checked, row.entries) for row in rows] == [(320, 320), (5, 5), (50, 50), (10, 10)]


@pytest.mark.parametrize(("h", "h_option"), [(1e-2, {"h": 1e-2}), (1e-4, {})])
def test_entries_and_options_reach_the_port_and_an_h_that_is_not_its_default(
    h: float, h_option: dict[str, float]
) -> None:
    calls: list[dict[str, Any]] = []

    def loop(*arguments: Any, **options: Any) -> Params:
        calls.append(options)
        return NUMPY.port.GRADIENTS["loop"](*arguments, **options)

    entries = Params(np.array([7, 3]), np.array([1]), np.array([0, 9, 49]), np.array([], int))
    subject = with_members(GRADIENTS={**NUMPY.port.GRADIENTS, "loop": loop})
    rows = list(check_gradient(subject, digits(), "loop", h, entries=entries, memory=1e6))
    assert calls == [h_option | {"entries": entries, "memory": 1e6}]
    assert [(row.checked, row.entries) for row in rows] == [(2, 320), (1, 5), (3, 50), (0, 10)]
    assert all(row.agrees for row in rows)


@pytest.mark.parametrize("name", ["W1", "b1", "W2", "b2", "x", "t"])
def test_an_argument_that_a_call_changes_is_named(name: str) -> None:
    def structured(params: Params, x: Any, t: Any, **options: Any) -> Params:
        gradient = NUMPY.port.GRADIENTS["structured"](params, x, t, **options)
        {**params._asdict(), "x": x, "t": t}[name].flat[-1] += 1
        return gradient

    subject = with_members(GRADIENTS={**NUMPY.port.GRADIENTS, "structured": structured})
    for row in check_gradient(subject, digits(), "structured", 1e-2):
        assert (row.agrees, row.gap, row.worst_index) == (False, None, None)
        assert (row.got, row.expected) == (f"computed by a call that changed `{name}`", "no change")


# --- problems


def test_all_entries_are_checked_where_the_cost_is_just_met(monkeypatch: pytest.MonkeyPatch) -> None:
    params = init(20, 5, 10, seed=0)
    cost = 4 * 100 * (params.W1.size + params.W2.size) * sum(p.size for p in params)
    monkeypatch.setattr(comparison, "FULL_COST", cost)
    assert sample_entries(params, 100, seed=0) is None


def test_a_random_problem_draws_no_sample_twice_and_weights_of_the_size_that_saturates_no_unit() -> None:
    x, t = np.arange(3000.0).reshape(10, 300), np.arange(10)
    params, drawn, labels = random_problem(x, t, hidden=400, samples=10, seed=0)
    assert sorted(labels.tolist()) == t.tolist()
    np.testing.assert_array_equal(drawn, x[labels])
    assert params.W2.shape == (400, 10)
    assert params.W1.std() == pytest.approx(2 / math.sqrt(300), rel=0.05)
    assert params.W2.std() == pytest.approx(2 / math.sqrt(400), rel=0.05)


def test_the_smallest_random_problem_has_one_sample_and_one_unit() -> None:
    problem = random_problem(np.ones((1, 2)), np.zeros(1, int), hidden=1, outputs=2, samples=1, seed=0)
    assert problem.params.W1.shape == (2, 1)
