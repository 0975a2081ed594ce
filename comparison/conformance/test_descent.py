"""All backends, strategies and dtypes give the same numbers; and the comparison that says so is tested itself."""

import math
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.bounds import Bounds, Problem
from comparison.agreement.comparison import (
    Subject,
    on_device,
)
from comparison.conformance.gradients import (
    HANDS_OVER,
    bound_of,
    gradient_of,
    gradients,
    moderate,
)
from comparison.conformance.nets import NUMPY
from comparison.conformance.problems import subjects
from reference import datasets
from reference.collocation import make_plan
from reference.defaults import CLOSED_FORM, STRATEGIES
from reference.two_layer_net import Params, init
from reference.validation import unit_roundoff

BATCHES = np.array([[0, 1, 2, 3], [4, 5, 6, 0], [2, 2, 1, 5]])
pytestmark = pytest.mark.filterwarnings(HANDS_OVER)


def train(
    subject: Subject, problem: Problem, batches: np.ndarray, strategy: str | None, **options: Any
) -> list[np.ndarray]:
    """Train; return the members of the net, then the losses, as NumPy arrays in float64."""
    port, (params, x) = subject.port, on_device(subject, problem)
    trained, losses = port.train_steps(params, x, problem.t, batches, strategy=strategy or CLOSED_FORM, **options)
    return [port.to_numpy(array).astype(np.float64) for array in (*trained, losses)]


def step_by_step(
    subject: Subject, problem: Problem, batches: np.ndarray, strategy: str | None, rate: float, h: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Compute the result of `train` by single calls of the port, and the bound on the rounding of each number."""
    dtype, u, params, losses = np.dtype(subject.dtype), unit_roundoff(subject.dtype), problem.params, []
    allowed, loss_allowed = [np.zeros(p.shape) for p in params], []
    for batch in batches:
        part = Problem(
            Params(*(p.astype(dtype).astype(np.float64) for p in params)), problem.x[batch], problem.t[batch]
        )
        on, x = on_device(subject, part)
        losses.append(float(subject.port.loss(on, x, part.t)))
        loss_allowed.append(2 * Bounds(part, subject.dtype).loss() + sum(a.sum() for a in allowed))
        slope, bounds = gradient_of(subject, part, strategy, h=h), bound_of(subject, part, strategy, h)
        allowed = [a + 2 * rate * b + 2 * u * np.abs(p) for a, b, p in zip(allowed, bounds, params, strict=True)]
        params = Params(*(p.astype(dtype) - dtype.type(rate) * g for p, g in zip(params, slope, strict=True)))
    return [*params, np.array(losses)], [*allowed, np.array(loss_allowed)]


def assert_within(got: list[np.ndarray], expected: list[np.ndarray], allowed: list[Any]) -> None:
    """Fail with a sentence unless each number of a trained net, and of the losses, lies within what is allowed."""
    names = (*(f"trained {name}" for name in Params._fields), "losses")
    for name, g, e, a in zip(names, got, expected, allowed, strict=True):
        excess = np.abs(g - e) - a
        worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), g.shape)
        bound = float(np.broadcast_to(a, g.shape)[worst])
        assert excess[worst] <= 0, (
            f"{name}{[int(i) for i in worst]} is {float(g[worst])!r}, expected {float(e[worst])!r}, within {bound:.2g}"
        )


@gradients
@subjects("float64")
def test_training_is_steps_of_descent(subject: Subject, strategy: str | None) -> None:
    problem = moderate(0)
    got = train(subject, problem, BATCHES, strategy, learning_rate=0.3, h=1e-2)
    expected, allowed = step_by_step(subject, problem, BATCHES, strategy, 0.3, 1e-2)
    assert_within(got, expected, allowed)


@pytest.mark.parametrize("memory", [1, 900, 15_000])  # JAX's `structured`: seven chunks of one, or two of three and one
@pytest.mark.parametrize("strategy", STRATEGIES)
@subjects("float64")
def test_the_size_of_chunks_does_not_matter_in_training(subject: Subject, strategy: str, memory: int) -> None:
    problem, batches = moderate(0), np.array([[0, 1, 2, 3, 4, 5, 6], [6, 4, 2, 0, 1, 3, 5]])
    got = train(subject, problem, batches, strategy, learning_rate=0.3, h=1e-2, memory=memory)
    expected, allowed = step_by_step(subject, problem, batches, strategy, 0.3, 1e-2)
    assert_within(got, expected, allowed)


@pytest.mark.parametrize("strategy", ["structured", "collocated"])
@subjects("float64")
def test_training_plans_again_where_the_weights_outgrow_the_plan(subject: Subject, strategy: str) -> None:
    """With the nodes and terms that the start plan, the steps after the first would be off by 5,000 bounds."""
    problem, rate, h = moderate(2), 60.0, 0.1
    problem.params.W2[:] *= 1e-3
    got = train(subject, problem, BATCHES, strategy, learning_rate=rate, h=h)
    expected, allowed = step_by_step(subject, problem, BATCHES, strategy, rate, h)
    start, end = (make_plan(h, 1.0, float(np.abs(W2).max()), subject.dtype) for W2 in (problem.params.W2, expected[2]))
    assert not start.covers(end)
    assert_within(got, expected, allowed)


@pytest.mark.parametrize("strategy", ["structured", "collocated"])
@subjects()
@pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")
def test_training_plans_again_from_the_last_weights_that_were_finite(subject: Subject, strategy: str) -> None:
    """A step under a plan that is too small for its weights may overflow; under a larger one it does not."""
    start = init(2, 2, 3, 1.0, seed=0, dtype=subject.dtype)
    problem = Problem(Params(*(p.astype(np.float64) for p in start)), np.eye(2), np.array([0, 1]))
    batches, rate = np.array([[0, 1], [0, 0], [1, 1], [0, 1]]), 1e78 if subject.dtype == "float64" else 1e20
    expected = train(NUMPY._replace(dtype=subject.dtype), problem, batches, strategy, learning_rate=rate)
    got = train(subject, problem, batches, strategy, learning_rate=rate)
    assert np.abs(expected[2]).max() > rate / 10
    assert all(np.isfinite(array).all() for array in (*expected, *got))


@pytest.mark.slow
@subjects()
def test_all_backends_train_alike(subject: Subject) -> None:
    """Steps on real digits, in 1,000 from a loss of 2.3 to 0.07: two runs differ by what rounding adds in each step.

    That is at most rate * (bound of the gradient) + u max|p|, taken at the end, where it is largest. Steps round
    independently: K of them add up like sqrt(K). What was added on the way grows or shrinks with the descent: measured,
    from step 500 on by 0.97 (L2), from step 100 by 10, from the start by 70. But what the early steps add is smaller by
    as much, as the weights are: they begin at 0.03 and end at 2.8. So nothing is charged for growth; the largest
    gap / bound seen is 0.19.
    """
    steps, std, rate = (1000, 0.01, 0.5) if subject.name in ports.BUILT_IN else (60, 0.3, 0.5)
    data, rng = datasets.load("digits"), np.random.default_rng(0)
    start = init(64, 20, 10, std, seed=0, dtype=subject.dtype)
    problem = Problem(Params(*(p.astype(np.float64) for p in start)), data.x_train, data.t_train)
    batches = np.stack([rng.choice(len(data.x_train), 20, replace=False) for _ in range(steps)])
    expected = train(NUMPY._replace(dtype=subject.dtype), problem, batches, "collocated", learning_rate=rate)
    assert expected[4][0] > 2.2
    assert expected[4][-1] < (0.1 if steps == 1000 else 1.5)
    end = Problem(Params(*expected[:4]), problem.x[batches[-1]], problem.t[batches[-1]])
    max_abs = max(float(np.abs(p).max()) for p in end.params)
    gradient_error = max(float(b.max()) for b in bound_of(subject, end, "collocated", 1e-4))
    allowed = 2 * math.sqrt(steps) * (rate * gradient_error + unit_roundoff(subject.dtype) * max_abs)
    assert_within(train(subject, problem, batches, "collocated", learning_rate=rate), expected, [allowed] * 5)
