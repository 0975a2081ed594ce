"""The cases leave no part of a port idle, and the bound on training holds and is no larger than it must be."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given

import ports
from comparison.agreement import comparison
from comparison.agreement.bounds import Bounds, Problem, curvature_bound
from comparison.agreement.cases import SECOND_H, check_copies, check_data_only, check_subject
from comparison.agreement.comparison import (
    Agreement,
    NotCompared,
    Subject,
    check_forward,
    check_gradient,
    disagreement_sentence,
    sample_entries,
)
from comparison.agreement.training import LEARNING_RATE, TRAININGS, check_training, expected_training, halves
from comparison.agreement.trials import TRIALS
from comparison.conformance.nets import FEW, nets
from comparison.conformance.problems import problems, subjects
from members import with_members
from reference.defaults import DTYPES, STRATEGIES
from reference.two_layer_net import Params, gradient, loss

pytestmark = pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning")
NUMPY = Subject("numpy", ports.load("numpy"), "float64", "cpu")


def plain(samples: int = 12, inputs: int = 5) -> Problem:
    rng = np.random.default_rng(0)
    shapes = ((inputs, 6), (6,), (6, 4), (4,))
    params = Params(*(rng.standard_normal(shape) for shape in shapes))
    return Problem(params, rng.integers(0, 17, (samples, inputs)) / 16, rng.integers(0, 4, samples))


@given(problem=problems())
def test_no_eigenvalue_of_the_second_derivative_is_above_the_bound(problem: Problem) -> None:
    sizes = np.cumsum([p.size for p in problem.params])[:-1]
    at = np.concatenate([p.ravel() for p in problem.params])

    def slope(moved: np.ndarray) -> np.ndarray:
        parts = np.split(moved, sizes)
        params = Params(*(part.reshape(p.shape) for part, p in zip(parts, problem.params, strict=True)))
        return np.concatenate([g.ravel() for g in gradient(params, problem.x, problem.t)])

    for direction in np.random.default_rng(0).standard_normal((5, at.size)):
        along = 1e-5 * direction / np.linalg.norm(direction)
        assert np.linalg.norm(slope(at + along) - slope(at - along)) / 2e-5 <= 1.01 * curvature_bound(problem) + 1e-9


@pytest.mark.parametrize("strategy", [*STRATEGIES, None])
@subjects()
@FEW
@given(problem=nets)
def test_right_ports_train_within_the_bound(subject: Subject, strategy: str | None, problem: Problem) -> None:
    for row in check_training(subject, problem, strategy, SECOND_H):
        assert row.agrees, disagreement_sentence(row)


@pytest.mark.parametrize("strategy", ["collocated", None])
def test_one_step_is_off_by_its_gradient_and_three_roundings(strategy: str | None) -> None:
    problem, u = plain(), 2.0**-53
    expected, bounds = expected_training(problem, np.arange(12)[None], strategy, 1e-4, "float64", LEARNING_RATE)
    (*members, losses), (*member_bounds, loss_bounds) = expected, bounds
    slope = NUMPY.port.GRADIENTS[strategy](*problem) if strategy else gradient(*problem)
    slope_bounds = Bounds(problem, "float64").gradient(strategy, 1e-4 if strategy else 0.0)
    for p, start, g, bound, b in zip(members, problem.params, slope, member_bounds, slope_bounds, strict=True):
        np.testing.assert_allclose(p, start - LEARNING_RATE * g, rtol=1e-13)
        np.testing.assert_allclose(bound, LEARNING_RATE * (b + 2 * u * np.abs(g)) + u * np.abs(p), rtol=1e-6)
    assert losses[0] == loss(*problem)
    assert loss_bounds[0] == Bounds(problem, "float64").loss()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bound_on_training_is_a_few_roundings(dtype: str) -> None:
    """It is no excuse for a wrong step: a thousandth of a step is far outside."""
    problem, batches = plain(), np.arange(12).reshape(2, 6)
    expected, bounds = expected_training(problem.rounded(dtype), batches, "collocated", 1e-4, dtype, LEARNING_RATE)
    for p, e, b in zip(problem.params, expected, bounds, strict=False):
        assert (b <= 8 * np.finfo(dtype).eps * (1 + np.abs(p))).all()
        assert np.abs(e - p).max() > 1e-3 * LEARNING_RATE > 10 * b.max()


def names(h: float = 1e-4, strategies: Any = STRATEGIES, **changes: Any) -> set[tuple[str, str | None, float | None]]:
    rows = check_subject(NUMPY._replace(**changes), plain(), strategies, h=h, memory=2**28, seed=0)
    return {(row.problem, row.strategy, row.h) for row in rows if isinstance(row, Agreement)}


@pytest.mark.slow
def test_each_strategy_is_compared_on_the_data_and_on_other_nets_at_many_values_of_h() -> None:
    compared = names()
    assert {strategy for name, strategy, _ in compared if name == "data"} == {None, "closed form", *STRATEGIES}
    for strategy in STRATEGIES:
        assert ("data", strategy, 1e-4) in compared
        assert len({h for _, name, h in compared if name == strategy}) > 10


@pytest.mark.slow
def test_where_rounding_hides_the_difference_the_data_are_compared_at_the_larger_h() -> None:
    compared = {(name, h) for name, strategy, h in names(h=1e-6, dtype="float32") if strategy == "loop"}
    assert {h for name, h in compared if name == "data"} == {1e-2}
    assert min(h for _, h in compared if h) > 1e-4


# --- the calls of a port


class PortCall(NamedTuple):
    """A call of a port."""

    strategy: str | None  # None for training
    params: Params
    x: np.ndarray
    t: np.ndarray
    options: dict[str, Any]


def recording(calls: list[PortCall], **changes: Any) -> Subject:
    """Return NumPy's port, which records the calls of its gradients and of its training in `calls`."""
    port = NUMPY.port

    def gradient_of(name: str) -> Any:
        def call(params: Params, x: np.ndarray, t: np.ndarray, **options: Any) -> Params:
            calls.append(PortCall(name, params, x, t, options))
            return port.GRADIENTS[name](params, x, t, **options)

        return call

    gradients = {name: gradient_of(name) for name in STRATEGIES}

    def train_steps(params: Params, x: np.ndarray, t: np.ndarray, batches: np.ndarray, **options: Any) -> Any:
        calls.append(PortCall(None, params, x, t, options | {"batches": batches}))
        return port.train_steps(params, x, t, batches, **options)

    return with_members(GRADIENTS=gradients, train_steps=train_steps)._replace(**changes)


def calls_for(problem: Problem, strategy: str, dtype: str = "float64", memory: float = 2**28) -> list[PortCall]:
    """Check a right port by one strategy, and return the calls that are given the data."""
    calls: list[PortCall] = []
    for row in check_subject(recording(calls, dtype=dtype), problem, (strategy,), h=1e-4, memory=memory, seed=0):
        assert isinstance(row, Agreement)
        assert row.agrees, disagreement_sentence(row)
    return [call for call in calls if call.strategy and call.x.shape == problem.x.shape and call.x.dtype == dtype]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_is_called_for_all_data_with_the_users_memory(strategy: str) -> None:
    (call,) = calls_for(plain(), strategy, memory=1000)
    assert (call.options.get("h"), call.options["memory"]) == (None, 1000)
    np.testing.assert_array_equal(call.x, plain().x)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_where_all_entries_would_take_long_a_sample_is_compared(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "FULL_COST", 0)
    problem = plain(inputs=40)
    (call,) = calls_for(problem, strategy)
    of_losses, entries = strategy in ("loop", "batched"), call.options.get("entries")
    expected = sample_entries(problem.params, 12, seed=0)
    assert expected is not None
    assert (entries is None) != of_losses
    if of_losses:
        for at, e in zip(entries, expected, strict=True):
            np.testing.assert_array_equal(at, e)


def test_the_port_is_called_in_the_other_dtype_first() -> None:
    calls: list[PortCall] = []
    next(row for row in check_subject(recording(calls), plain(), STRATEGIES, h=1e-4, memory=2**28, seed=0) if row.h)
    assert calls[0].x.dtype == np.float32
    assert calls[0].x.shape == TRIALS[0].shape[:2]


@pytest.mark.parametrize(("samples", "batch"), [(1, 1), (2, 1), (7, 4), (12, 6), (100, 37)])
def test_each_sample_is_in_a_batch_and_all_batches_are_of_one_size(samples: int, batch: int) -> None:
    calls: list[PortCall] = []
    assert all(row.agrees for row in check_training(recording(calls), plain(samples), "collocated", 1e-2))
    (call,) = calls
    assert call.options["batches"].shape == halves(samples).shape == (2, batch)
    assert set(call.options["batches"].ravel()) == set(range(min(samples, 74)))
    np.testing.assert_array_equal(call.t, np.eye(4)[plain(samples).t])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_trains_with_repeated_samples_in_no_order(strategy: str) -> None:
    calls: list[PortCall] = []
    list(check_subject(recording(calls), plain(), STRATEGIES, h=1e-4, memory=2**28, seed=0))
    trained = [c for c in calls if c.options.get("strategy") == strategy]
    assert len(trained) == sum(strategy in training.strategies for training in TRAININGS)
    for batches in (call.options["batches"] for call in trained):
        assert all(len(set(batch)) < len(batch) for batch in batches)
        assert batches[0, 0] == len(next(c for c in trained if c.options["batches"] is batches).x) - 1


# --- the rows


@pytest.mark.parametrize("strategy", ["collocated", None])
def test_each_row_of_training_has_its_strategy_and_h(strategy: str | None) -> None:
    subject = NUMPY._replace(dtype="float32")
    rows = list(check_training(subject, plain(), strategy, 1e-2))
    strategy_and_h = (strategy, 1e-2) if strategy else ("closed form", None)
    assert [row.quantity for row in rows] == ["trained W1", "trained b1", "trained W2", "trained b2", "losses"]
    assert {(row.strategy, row.h) for row in rows} == {strategy_and_h}
    problem, batches = plain().rounded("float32"), np.arange(12).reshape(2, 6)
    expected, bounds = expected_training(problem, batches, strategy, 1e-2, "float32", LEARNING_RATE)
    for row, e, b in zip(rows, expected, bounds, strict=True):
        assert row.worst_index is not None
        assert (row.expected, row.bound) == (e[row.worst_index], b[row.worst_index])


@pytest.mark.parametrize("name", [*Params._fields, "x", "t"])
def test_an_argument_that_training_changes_is_named(name: str) -> None:
    def train_steps(params: Params, x: Any, t: Any, batches: Any, **options: Any) -> Any:
        result = NUMPY.port.train_steps(params, x, t, batches, **options)
        changed = {**params._asdict(), "x": x, "t": t}[name]
        changed[...] = np.roll(changed, 1) if name == "t" else changed + 1
        return result

    rows = list(check_training(with_members(train_steps=train_steps), plain(), "collocated", 1e-2))
    assert {row.got for row in rows} == {f"computed by a call that changed `{name}`"}


@pytest.mark.slow
def test_a_gradient_that_is_not_compared_has_a_row_with_the_reason() -> None:
    subject = NUMPY._replace(dtype="float32")
    rows = check_subject(subject, plain(), STRATEGIES, h=1e-6, memory=2**28, seed=0)
    reason = "rounding of two float32 losses outweighs their difference."
    expected = [NotCompared("numpy", strategy, "float32", 1e-6, reason) for strategy in ("loop", "batched")]
    assert [row for row in rows if isinstance(row, NotCompared)] == expected


@pytest.mark.parametrize(("dtype", "comparable_h"), [("float64", 1e-6), ("float32", SECOND_H)])
@pytest.mark.parametrize("cost", [0, 1e11])
def test_of_another_size_only_the_data_are_compared(
    dtype: str, comparable_h: float, cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "FULL_COST", cost)
    problem, calls = plain(inputs=40), list[PortCall]()
    subject = recording(calls, dtype=dtype)
    rows = list(check_data_only(subject, problem, STRATEGIES, h=1e-6, memory=2**20, seed=0))
    assert {call.options["memory"] for call in calls} == {2**20}
    expected = list(check_forward(subject, problem))
    for strategy in STRATEGIES:
        of_losses = strategy in ("loop", "batched")
        entries = sample_entries(problem.params, 12, seed=0) if of_losses else None
        expected += check_gradient(subject, problem, strategy, comparable_h if of_losses else 1e-6, entries=entries)
    assert rows == expected


# --- copies


def copied(**members: Any) -> dict[str, bool]:
    rows = check_copies(with_members(**members)._replace(dtype="float32"), np.arange(6.0).reshape(2, 3) / 3)
    return {row.quantity: row.agrees for row in rows}


def test_a_copy_is_a_copy_each_way() -> None:
    there, again = "copy to the port and back", "second copy back"
    port = NUMPY.port
    assert copied() == {there: True, again: True}
    alias = copied(from_numpy=lambda array, *, dtype, device: array)
    assert alias == {there: False, again: False}
    assert copied(to_numpy=lambda array: array) == {there: True, again: False}
    by_memory = copied(from_numpy=lambda array, **_: array.ravel(order="K").reshape(array.shape))
    assert by_memory == {there: False, again: False}
    assert copied(to_numpy=lambda array: port.to_numpy(array) + 1e-37) == {there: False, again: False}
    assert copied(to_numpy=lambda array: port.to_numpy(array) * 1.0000002) == {there: False, again: False}
