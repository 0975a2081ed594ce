"""Nets of all sizes, in the trials of `agree` and in more, each by every strategy in both dtypes."""

import numpy as np
import pytest

from comparison.agreement.comparison import Subject, check_gradient
from comparison.agreement.kinds import Shape, draw
from comparison.agreement.trials import TRIALS, Trial, check_trial
from comparison.conformance.gradients import HANDS_OVER, assert_agrees, skip_by_turns
from comparison.conformance.problems import subjects
from reference.defaults import STRATEGIES
from reference.two_layer_net import Params

pytestmark = pytest.mark.filterwarnings(HANDS_OVER)

SHAPES: tuple[Shape, ...] = (  # pairs of equal sizes, and others that no trial has
    (4, 3, 4, 7),
    (4, 3, 6, 3),
    (3, 4, 5, 3),
    (2, 2, 2, 2),
    (129, 5, 2, 4),
    (67, 67, 3, 2),
    (5, 6, 3, 128),
)


def name(trial: Trial) -> str:
    return "x".join(map(str, trial.shape))


@pytest.mark.parametrize("trial", TRIALS, ids=name)
@subjects()
def test_a_trial(subject: Subject, trial: Trial) -> None:
    skip_by_turns(subject, TRIALS.index(trial))
    assert_agrees(check_trial(subject, trial, STRATEGIES, False, 1))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@subjects()
def test_another_size(subject: Subject, shape: Shape) -> None:
    skip_by_turns(subject, SHAPES.index(shape))
    large = max(shape) > 64
    trial = Trial(shape, 5e-3, 2**18 if large else 3000, values=("drawn",), sampled=large)
    assert_agrees(check_trial(subject, trial, STRATEGIES, False, 2))


@pytest.mark.parametrize("strategy", [None, "structured", "collocated"], ids=str)
@subjects("float64")
def test_thousands_of_samples(subject: Subject, strategy: str | None) -> None:
    assert_agrees(check_gradient(subject, draw((5003, 2, 2, 2), 0), strategy, 5e-3))


@pytest.mark.parametrize("strategy", ["loop", "batched"])
@subjects("float64")
def test_entries_beyond_16_bits(subject: Subject, strategy: str) -> None:
    entries = Params(np.array([0]), np.array([299]), np.array([89_999, 65_536, 7]), np.array([0]))
    assert_agrees(check_gradient(subject, draw((2, 2, 300, 300), 0), strategy, 5e-3, entries=entries))


@subjects()
def test_every_device(subject: Subject) -> None:
    for device in subject.port.devices():
        trial = TRIALS[0]._replace(values=("drawn", "W1 reversed"))
        assert_agrees(check_trial(subject._replace(device=device), trial, STRATEGIES, False, 3))
