"""Values that the reference is right for, and that a port might not be: on their own, beside each other, and at steps h
of every size.
"""

from collections.abc import Callable

import numpy as np
import pytest

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject, check_forward, check_gradient
from comparison.agreement.kinds import VALUES, check_forward_values, draw, forward_truths
from comparison.agreement.truth import Truth
from comparison.conformance.gradients import HANDS_OVER, assert_agrees, gradients
from comparison.conformance.problems import subjects
from reference.defaults import STRATEGIES
from reference.two_layer_net import Params

pytestmark = pytest.mark.filterwarnings(HANDS_OVER)

SHAPE = (6, 5, 4, 3)


def scaled(by: float) -> Callable[[Problem], Problem]:
    """Return the function that scales inputs, and weights the other way."""
    return lambda p: Problem(p.params._replace(W1=p.params.W1 / by), p.x * by, p.t)


def of_class(label: int) -> Callable[[Problem], Problem]:
    return lambda p: p._replace(t=np.full_like(p.t, label))


def with_params(**changes: Callable[[np.ndarray], np.ndarray]) -> Callable[[Problem], Problem]:
    """Return the function that changes members of the net."""
    return lambda p: p._replace(
        params=p.params._replace(**{n: f(getattr(p.params, n).copy()) for n, f in changes.items()})
    )


KINDS: dict[str, Callable[[Problem], Problem]] = {
    **VALUES,
    "inputs up to 40": scaled(40.0),
    "inputs up to 1e-6": lambda p: p._replace(x=p.x * 1e-6),
    "inputs positive": lambda p: p._replace(x=np.abs(p.x) + 0.01),
    "inputs of -0": lambda p: p._replace(x=np.where(p.x == 0, -0.0, p.x)),
    "inputs all alike": lambda p: p._replace(x=np.full_like(p.x, -0.7)),
    "samples alike": lambda p: Problem(p.params, np.tile(p.x[:1], (len(p.x), 1)), p.t),
    "all of class 0": of_class(0),
    "all of class 1": of_class(1),
    "all of class 2": of_class(2),
    "W1 negative": with_params(W1=lambda W1: -np.abs(W1)),
    "W1 is 0": with_params(W1=lambda W1: 0 * W1),
    "biases are 0": with_params(b1=lambda b1: 0 * b1, b2=lambda b2: 0 * b2),
    "b2 negative": with_params(b2=lambda b2: -np.abs(b2) - 40),
    "units alike": with_params(
        W2=lambda W2: np.tile(W2[:1], (len(W2), 1)), W1=lambda W1: np.tile(W1[:, :1], W1.shape[1])
    ),
    "classes alike": with_params(W2=lambda W2: np.tile(W2[:, :1], W2.shape[1]), b2=lambda b2: 0 * b2 + b2[0]),
    "the last logit 300 ahead": with_params(b2=lambda b2: b2 + 300 * (np.arange(len(b2)) == 2)),
    "the last logit 300 behind": with_params(b2=lambda b2: b2 - 300 * (np.arange(len(b2)) == 2)),
}


@pytest.mark.parametrize("kind", KINDS)
@subjects()
def test_values_of_a_kind(subject: Subject, kind: str) -> None:
    problem, h = KINDS[kind](draw(SHAPE, 0)), 7e-3
    truth = Truth(problem, subject.dtype, h)
    assert_agrees(check_forward(subject, problem))
    for strategy in (None, *STRATEGIES):
        assert_agrees(check_gradient(subject, problem, strategy, h, truth=truth))


@subjects()
def test_logits_alike_and_unlike_those_of_other_samples(subject: Subject) -> None:
    assert_agrees(check_forward_values(subject, forward_truths(draw(SHAPE, 0), subject.dtype)))


@pytest.mark.parametrize(
    "b2", [[0, 0, 0], [-1, 2, 2], [5, -5, 5], [-3, -3, -9]], ids=["all", "the last two", "first and last", "first two"]
)
@subjects()
def test_of_equal_logits_the_first_is_predicted(subject: Subject, b2: list[float]) -> None:
    """Nothing is rounded where W2 is 0."""
    problem = draw(SHAPE, 0)
    (W1, b1, W2, _), x, _ = problem
    for label in range(3):
        tied = Problem(Params(W1, b1, 0 * W2, np.array(b2, float)), x, np.full(len(x), label))
        params = Params(*(subject.port.from_numpy(p, dtype=subject.dtype, device=subject.device) for p in tied.params))
        own = subject.port.from_numpy(x, dtype=subject.dtype, device=subject.device)
        share = subject.port.to_numpy(subject.port.accuracy(params, own, tied.t))
        assert float(share) == float(np.argmax(b2) == label), "of equal logits the first is the prediction"


@gradients
@pytest.mark.parametrize("max_abs_x", [30.0, 255.0])
@subjects()
def test_pixels_beside_images_in_0_to_1(subject: Subject, strategy: str | None, max_abs_x: float) -> None:
    for largest in (1.0, max_abs_x, 1.0):
        assert_agrees(check_gradient(subject, draw(SHAPE, 1, largest), strategy, 1e-4 if largest > 1 else 6e-3))
    assert_agrees(check_forward(subject, draw(SHAPE, 1, max_abs_x)))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@subjects()
def test_overflow_raises_nothing(subject: Subject) -> None:
    (params, x, t), port, large = draw(SHAPE, 0), subject.port, float(np.finfo(subject.dtype).max) / 4
    params = params._replace(W1=params.W1 / np.abs(params.W1).max() * large)
    *own, x = (port.from_numpy(a, dtype=subject.dtype, device=subject.device) for a in (*params, x * 1e10))
    for function in (port.loss, port.accuracy, port.gradient):
        function(Params(*own), x, t)
    port.predict(Params(*own), x)


H = (3e-8, 2.5e-6, 4e-5, 7e-4, 3e-3, 0.06, 0.3, 0.9)
"""None is a power of ten; at the smallest some strategies can't be compared in some dtypes."""


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("h", H)
@subjects()
def test_every_step(subject: Subject, strategy: str, h: float) -> None:
    problem = draw(SHAPE, 2)
    truth = Truth(problem, subject.dtype, h)
    if not truth.is_comparable(strategy):
        pytest.skip("rounding outweighs the difference")
    assert_agrees(check_gradient(subject, problem, strategy, h, truth=truth))
