"""Training of every length, rate and kind of mini-batch."""

import math

import numpy as np
import pytest

from comparison.agreement.bounds import Problem, curvature_bound
from comparison.agreement.comparison import Subject
from comparison.agreement.kinds import draw, place
from comparison.agreement.training import TRAININGS, Training, check_training, shuffled
from comparison.conformance.gradients import HANDS_OVER, assert_agrees, bound_of, skip_by_turns
from comparison.conformance.nets import NUMPY
from comparison.conformance.problems import subjects
from comparison.conformance.test_descent import assert_within, train
from reference.defaults import STRATEGIES
from reference.two_layer_net import Params
from reference.validation import unit_roundoff

pytestmark = pytest.mark.filterwarnings(HANDS_OVER)

FEW = Training((12, 4, 3, 3), (1, 5), 0.0125, 6e-3, 1000, "whole floats")
FURTHER = (
    FEW,
    FEW._replace(batches=(2, 1), learning_rate=-0.5, labels="one-hot integers", layout="columns"),
    FEW._replace(batches=(3, 12), learning_rate=np.float32(1.7), labels="list", layout="every other"),
    FEW._replace(batches=(4, 13), learning_rate=30.0, labels="one-hot columns", layout="offset"),
    FEW._replace(batches=(9, 2), learning_rate=0.0, labels="big-endian", layout="reversed"),
)


@pytest.mark.parametrize("strategy", [None, *STRATEGIES], ids=str)
@pytest.mark.parametrize("training", [*TRAININGS, *FURTHER], ids=lambda t: f"{t.batches}, rate {t.learning_rate:g}")
@subjects()
def test_steps_are_the_references(subject: Subject, training: Training, strategy: str | None) -> None:
    skip_by_turns(subject, training.batches[0])
    count, problem = training.shape[0], draw(training.shape, 1, training.max_abs_x)
    if strategy in ("loop", "batched") and (training.batches[0] > 9 or subject.dtype == "float32"):
        pytest.skip("in few steps, and where rounding does not outweigh their difference")
    assert_agrees(
        check_training(
            subject,
            problem,
            strategy,
            training.h,
            batches=shuffled(count, *training.batches, 1),
            learning_rate=training.learning_rate,
            labels=training.labels,
            arguments=place(subject, problem, training.layout, None),
            memory=training.memory,
        )
    )


@pytest.mark.parametrize("strategy", ["collocated", None], ids=str)
@subjects("float64")
def test_more_than_a_thousand_steps(subject: Subject, strategy: str | None) -> None:
    """Each adds rate E + u |p| at most, and what is added grows by 1 + rate L in a step at most: see training.py.

    E and L are those of the first and of the last net, the larger. In between they are hardly larger: a factor of 2.
    """
    steps, rate, samples = 1030, 0.004, 40
    problem = draw((samples, 2, 2, 3), 0)
    batches = shuffled(samples, steps, 3, 0)
    expected = train(NUMPY._replace(dtype=subject.dtype), problem, batches, strategy, learning_rate=rate)
    got = train(subject, problem, batches, strategy, learning_rate=rate)
    added = growth = 0.0
    for params in (problem.params, Params(*expected[:4])):
        now = Problem(params, problem.x, problem.t)
        error = max(float(b.max()) for b in bound_of(subject, now, strategy, 1e-4))
        largest = max(float(np.abs(p).max()) for p in params)
        added = max(added, rate * error + unit_roundoff(subject.dtype) * largest)
        growth = max(growth, rate * curvature_bound(now))
    allowed = 2 * 2 * steps * added * math.exp(growth * steps)
    assert_within(got, expected, [allowed] * 4 + [4 * allowed])
    for e, p in zip(expected[:4], problem.params, strict=True):
        assert np.abs(e - p).max() > 100 * allowed  # so that a step too few, or a shorter one, would show
