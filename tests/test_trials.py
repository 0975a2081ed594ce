"""The trials leave no part of a port idle, and the bound on training holds and is no larger than it must be."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given

import ports
from ports.agreement import Agreement, Subject
from ports.bounds import Problem, curvature_bound
from ports.protocol import STRATEGIES
from ports.trials import (
    RATE,
    SECOND_STEP,
    _prime,
    check,
    check_training,
    saturate,
    shift,
    stretch,
    trajectory,
    variations,
)
from problems import problems, subjects
from reference.functions import sigmoid
from reference.two_layer_net import Params, gradient, predict
from reference.validation import DTYPES
from test_agreement import FEW, nets

pytestmark = pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning")
NUMPY = Subject("numpy", ports.load("numpy"), "float64", "cpu")


def plain(samples: int = 12) -> Problem:
    rng = np.random.default_rng(0)
    shapes = ((5, 6), (6,), (6, 4), (4,))
    params = Params(*(rng.standard_normal(shape) for shape in shapes))
    return Problem(params, rng.integers(0, 17, (samples, 5)) / 16, rng.integers(0, 4, samples))


@given(problem=problems())
def test_inputs_that_are_not_0_are_stretched_to_3_at_most(problem: Problem) -> None:
    x = stretch(problem, 0).x
    assert np.abs(x).max() <= 3
    assert x.flat[0] == 1
    assert ((x == 0) == (problem.x == 0)).ravel()[1:-1].all()


def test_stretched_inputs_are_of_both_signs() -> None:
    x = stretch(plain(), 0).x
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


def test_shifted_logits_overflow_where_the_largest_is_not_taken_out() -> None:
    params, x, _ = shift(plain())
    np.testing.assert_allclose(predict(params, x), predict(plain().params, x), rtol=1e-10)
    with np.errstate(over="ignore"):
        assert np.isinf(np.exp(sigmoid(x @ params.W1 + params.b1) @ params.W2 + params.b2)).all()


def test_each_variation_is_what_its_name_says() -> None:
    data = plain()
    found, stretched = variations(data, 0), stretch(data, 0)
    assert list(found) == ["data", "stretched", "saturated", "shifted"]
    for name, expected in (("data", data), ("stretched", stretched)):
        np.testing.assert_array_equal(found[name].x, expected.x)
    np.testing.assert_array_equal(found["saturated"].params.b1, saturate(stretched).params.b1)
    np.testing.assert_array_equal(found["shifted"].params.b2, shift(stretched).params.b2)
    assert not np.array_equal(found["saturated"].params.b1, data.params.b1)


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
    for row in check_training(subject, problem, strategy, SECOND_STEP):
        assert row.agrees, row


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bound_on_training_is_a_few_roundings(dtype: str) -> None:
    """It is no excuse for a wrong step: a thousandth of a step is far outside."""
    problem, batches = plain(), np.arange(12).reshape(2, 6)
    expected, bounds = trajectory(problem.rounded(dtype), batches, "collocated", 1e-4, dtype)
    for p, e, b in zip(problem.params, expected, bounds, strict=False):
        assert (b <= 8 * np.finfo(dtype).eps * (1 + np.abs(p))).all()
        assert np.abs(e - p).max() > 1e-3 * RATE > 10 * b.max()


def names(h: float = 1e-4, strategies: Any = STRATEGIES, **changes: Any) -> set[tuple[str, str | None, float | None]]:
    rows = check(NUMPY._replace(**changes), plain(), strategies, h=h, memory=2**28, seed=0)
    return {(row.problem, row.strategy, row.step) for row in rows if isinstance(row, Agreement)}


def test_each_strategy_is_tried_on_each_problem_at_both_steps() -> None:
    assert {(name, strategy) for name, strategy, _ in names()} == {
        (name, strategy)
        for name in ("data", "stretched", "saturated", "shifted")
        for strategy in (None, "closed form", *STRATEGIES)
    }
    for strategy in STRATEGIES:
        assert {step for _, name, step in names(strategies=(strategy,)) if name == strategy} >= {1e-4, 1e-2}


def test_where_rounding_hides_the_difference_the_data_alone_are_tried_at_the_larger_step() -> None:
    found = {(name, step) for name, strategy, step in names(h=1e-6, dtype="float32") if strategy == "loop"}
    assert found == {("data", 1e-2)}
