"""The cases leave no part of a port idle, and the bound on training holds and is no larger than it must be."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given

import ports
from comparison.agreement import comparison
from comparison.agreement.bounds import Problem, curvature_bound, gradient_bound, loss_bound
from comparison.agreement.cases import (
    LARGE_H,
    LEARNING_RATE,
    SECOND_H,
    SMALL_MEMORY,
    _prime,
    check_copies,
    check_data_only,
    check_subject,
    check_training,
    expected_training,
    saturate,
    shift,
    stretch,
    variations,
)
from comparison.agreement.comparison import (
    Agreement,
    NotCompared,
    Subject,
    check_forward,
    check_gradient,
    disagreement_sentence,
    sample_entries,
)
from comparison.conformance.nets import FEW, nets
from comparison.conformance.problems import problems, subjects
from members import with_members
from reference.defaults import CLOSED_FORM, DTYPES, STRATEGIES
from reference.functions import sigmoid
from reference.two_layer_net import Params, gradient, loss, predict

pytestmark = pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning")
NUMPY = Subject("numpy", ports.load("numpy"), "float64", "cpu")


def plain(samples: int = 12, inputs: int = 5) -> Problem:
    rng = np.random.default_rng(0)
    shapes = ((inputs, 6), (6,), (6, 4), (4,))
    params = Params(*(rng.standard_normal(shape) for shape in shapes))
    return Problem(params, rng.integers(0, 17, (samples, inputs)) / 16, rng.integers(0, 4, samples))


@given(problem=problems())
def test_inputs_that_are_not_0_are_stretched_to_3_at_most(problem: Problem) -> None:
    x = stretch(problem, 0).x
    assert np.abs(x).max() <= 3
    assert x.flat[0] == 1
    assert ((x == 0) == (problem.x == 0)).ravel()[1:-1].all()


def test_stretched_inputs_are_of_both_signs_and_of_one_size() -> None:
    x = stretch(plain(), 0).x
    assert x[-1, -1] == -3
    np.testing.assert_allclose(stretch(plain()._replace(x=100 * plain().x), 0).x, x)
    assert (x > 0).sum() > 10
    assert (x < 0).sum() > 10
    assert (x != x.astype(np.float32)).sum() > 20


def test_a_saturated_net_has_units_and_probabilities_at_either_end() -> None:
    params, x, _ = saturate(plain())
    z, y = sigmoid(x @ params.W1 + params.b1), predict(params, x)
    assert (z < 1e-6).any()
    assert (1 - z < 1e-6).any()
    assert ((z > 0.01) & (z < 0.99)).any()
    assert (1 - y[:, 3] < 1e-6).all()
    np.testing.assert_array_equal(params.b1[2::3], plain().params.b1[2::3])


def test_shifted_logits_overflow_where_the_largest_is_not_taken_out() -> None:
    params, x, _ = shift(plain())
    np.testing.assert_allclose(predict(params, x), predict(plain().params, x), rtol=1e-10)
    with np.errstate(over="ignore"):
        assert np.isinf(np.exp(sigmoid(x @ params.W1 + params.b1) @ params.W2 + params.b2)).all()


def test_each_variation_is_what_its_name_says() -> None:
    data = plain()
    varied, stretched = variations(data, 0), stretch(data, 0)
    assert list(varied) == ["data", "stretched", "saturated", "shifted"]
    for name, expected in (("data", data), ("stretched", stretched)):
        np.testing.assert_array_equal(varied[name].x, expected.x)
    np.testing.assert_array_equal(varied["saturated"].params.b1, saturate(stretched).params.b1)
    np.testing.assert_array_equal(varied["shifted"].params.b2, shift(stretched).params.b2)
    assert not np.array_equal(varied["saturated"].params.b1, data.params.b1)


@pytest.mark.parametrize(("samples", "prime"), [(1, 1), (2, 2), (4, 3), (12, 11), (100, 97), (101, 101)])
def test_the_number_of_samples_is_made_prime(samples: int, prime: int) -> None:
    assert len(_prime(plain(samples)).x) == len(_prime(plain(samples)).t) == prime


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
    expected, bounds = expected_training(problem, np.arange(12)[None], strategy, 1e-4, "float64")
    (*members, losses), (*member_bounds, loss_bounds) = expected, bounds
    slope = NUMPY.port.GRADIENTS[strategy](*problem) if strategy else gradient(*problem)
    slope_bounds = gradient_bound(problem, "float64", strategy, 1e-4 if strategy else 0.0)
    for p, start, g, bound, b in zip(members, problem.params, slope, member_bounds, slope_bounds, strict=True):
        np.testing.assert_allclose(p, start - LEARNING_RATE * g, rtol=1e-13)
        np.testing.assert_allclose(bound, LEARNING_RATE * (b + 2 * u * np.abs(g)) + u * np.abs(p), rtol=1e-6)
    assert losses[0] == loss(*problem)
    assert loss_bounds[0] == loss_bound(problem, "float64")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bound_on_training_is_a_few_roundings(dtype: str) -> None:
    """It is no excuse for a wrong step: a thousandth of a step is far outside."""
    problem, batches = plain(), np.arange(12).reshape(2, 6)
    expected, bounds = expected_training(problem.rounded(dtype), batches, "collocated", 1e-4, dtype)
    for p, e, b in zip(problem.params, expected, bounds, strict=False):
        assert (b <= 8 * np.finfo(dtype).eps * (1 + np.abs(p))).all()
        assert np.abs(e - p).max() > 1e-3 * LEARNING_RATE > 10 * b.max()


def names(h: float = 1e-4, strategies: Any = STRATEGIES, **changes: Any) -> set[tuple[str, str | None, float | None]]:
    rows = check_subject(NUMPY._replace(**changes), plain(), strategies, h=h, memory=2**28, seed=0)
    return {(row.problem, row.strategy, row.h) for row in rows if isinstance(row, Agreement)}


def test_each_strategy_is_compared_on_each_problem_at_two_values_of_h() -> None:
    assert {(name, strategy) for name, strategy, _ in names()} == {
        (name, strategy)
        for name in ("data", "stretched", "saturated", "shifted")
        for strategy in (None, "closed form", *STRATEGIES)
    }
    for strategy in STRATEGIES:
        assert {h for _, name, h in names(strategies=(strategy,)) if name == strategy} >= {1e-4, 1e-2}


def test_where_rounding_hides_the_difference_only_the_data_are_compared_at_the_larger_h() -> None:
    compared = {(name, h) for name, strategy, h in names(h=1e-6, dtype="float32") if strategy == "loop"}
    assert compared == {("data", 1e-2)}


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
    """Check a right port by one strategy, and return all calls; training by the closed form is one of them."""
    calls: list[PortCall] = []
    for row in check_subject(recording(calls, dtype=dtype), problem, (strategy,), h=1e-4, memory=memory, seed=0):
        assert isinstance(row, Agreement)
        assert row.agrees, disagreement_sentence(row)
    return calls


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_is_called_for_all_data_then_for_problems_in_chunks_then_for_training(strategy: str) -> None:
    """In float64 memory is small; large shifts are for `structured`, training at the default h for `collocated`."""
    calls = calls_for(plain(), strategy)
    gradients = [(len(call.x), call.options.get("h"), call.options["memory"]) for call in calls if call.strategy]
    large = [(11, LARGE_H, SMALL_MEMORY)] if strategy == "structured" else []
    assert gradients == [(12, None, 2**28), *[(11, SECOND_H, SMALL_MEMORY)] * 3, *large]
    trained = [
        tuple(call.options.get(name) for name in ("strategy", "h", "learning_rate", "memory"))
        for call in calls
        if not call.strategy
    ]
    closed_form = (CLOSED_FORM, SECOND_H, LEARNING_RATE, 2**28)
    by_strategy = [(strategy, SECOND_H, LEARNING_RATE, SMALL_MEMORY)]
    if strategy == "collocated":
        by_strategy.append((strategy, None, LEARNING_RATE, SMALL_MEMORY))
    assert trained == [closed_form, *by_strategy]


def test_in_float32_memory_is_not_reduced_and_no_shift_is_large() -> None:
    calls = [call for call in calls_for(plain(), "structured", "float32") if call.strategy]
    assert [(call.options.get("h"), call.options["memory"]) for call in calls] == [
        (None, 2**28),
        *[(SECOND_H, 2**28)] * 3,
    ]


def test_memory_is_never_more_than_the_users() -> None:
    assert {call.options["memory"] for call in calls_for(plain(), "batched", memory=1000) if call.strategy} == {1000}


@pytest.mark.parametrize("strategy", ["loop", "batched"])
def test_of_differences_of_losses_few_entries_are_compared_beyond_the_data(strategy: str) -> None:
    """They spread from the first entry to the last."""
    problem = plain(inputs=40)
    whole, *others = [call.options.get("entries") for call in calls_for(problem, strategy) if call.strategy]
    assert whole is None
    for entries in others:
        assert [len(at) for at in entries] == [83, 6, 24, 4]
        for at, p in zip(entries, problem.params, strict=True):
            assert (at[0], at[-1]) == (0, p.size - 1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_where_all_entries_would_take_long_a_sample_is_compared_and_no_training(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "FULL_COST", 0)
    problem = plain(inputs=40)
    calls, of_losses = calls_for(problem, strategy), strategy in ("loop", "batched")
    trained = {call.options["strategy"] for call in calls if not call.strategy}
    assert trained == ({CLOSED_FORM} if of_losses else {CLOSED_FORM, strategy})
    entries = next(call.options.get("entries") for call in calls if call.strategy)
    expected = sample_entries(problem.params, 12, seed=0)
    assert expected is not None
    assert (entries is None) != of_losses
    if of_losses:
        for at, e in zip(entries, expected, strict=True):
            np.testing.assert_array_equal(at, e)


def test_the_problems_are_the_same_every_time() -> None:
    data, *others = [call.x for call in calls_for(plain(), "collocated") if call.strategy]
    np.testing.assert_array_equal(data, plain().x)
    for x in others:
        np.testing.assert_array_equal(x, stretch(plain(), 0).x[:11])


@pytest.mark.parametrize(("samples", "batch"), [(1, 1), (2, 1), (7, 4), (12, 6), (100, 37)])
def test_each_sample_is_in_a_batch_and_all_batches_are_of_one_size(samples: int, batch: int) -> None:
    calls: list[PortCall] = []
    assert all(row.agrees for row in check_training(recording(calls), plain(samples), "collocated", 1e-2))
    (call,) = calls
    assert call.options["batches"].shape == (2, batch)
    assert set(call.options["batches"].ravel()) == set(range(min(samples, 74)))
    np.testing.assert_array_equal(call.t, np.eye(4)[plain(samples).t])


# --- the rows


@pytest.mark.parametrize("strategy", ["collocated", None])
def test_each_row_of_training_has_its_strategy_and_h(strategy: str | None) -> None:
    subject = NUMPY._replace(dtype="float32")
    rows = list(check_training(subject, plain(), strategy, 1e-2))
    strategy_and_h = (strategy, 1e-2) if strategy else ("closed form", None)
    assert [row.quantity for row in rows] == ["trained W1", "trained b1", "trained W2", "trained b2", "losses"]
    assert {(row.strategy, row.h) for row in rows} == {strategy_and_h}
    problem, batches = plain().rounded("float32"), np.arange(12).reshape(2, 6)
    expected, bounds = expected_training(problem, batches, strategy, 1e-2, "float32")
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
