"""All backends, strategies and dtypes give the same numbers; and the comparison that says so is tested itself."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import (
    Subject,
    check_forward,
    check_gradient,
    on_device,
    random_problem,
)
from comparison.agreement.training import check_training
from comparison.conformance.gradients import (
    HANDS_OVER,
    assert_agrees,
    assert_close,
    assert_same,
    bound_of,
    digits,
    gradient_of,
    gradients,
    moderate,
)
from comparison.conformance.nets import FEW, MAX_EXAMPLES, nets
from comparison.conformance.problems import STEPS, problems, subjects
from reference.collocation import make_plan
from reference.defaults import STRATEGIES
from reference.functions import DELTA, sigmoid, softmax
from reference.two_layer_net import Params
from reference.validation import unit_roundoff

MANY = settings(max_examples=max(1, MAX_EXAMPLES // 2))

BATCHES = np.array([[0, 1, 2, 3], [4, 5, 6, 0], [2, 2, 1, 5]])
pytestmark = pytest.mark.filterwarnings(HANDS_OVER)


# --- every backend beside the reference


@subjects()
@given(problem=problems())
def test_forward(subject: Subject, problem: Problem) -> None:
    assert_agrees(check_forward(subject, problem))


@gradients
@subjects()
@MANY
@given(problem=problems(), h=st.sampled_from(STEPS))
def test_gradient(subject: Subject, strategy: str | None, problem: Problem, h: float) -> None:
    assert_agrees(check_gradient(subject, problem, strategy, h))


# --- where digits are easily lost


@gradients
@subjects()
@FEW
@given(problem=nets)
def test_gradient_of_a_saturated_net(subject: Subject, strategy: str | None, problem: Problem) -> None:
    problem.params.b1[:] += [30, -30, 0]
    assert_agrees(check_gradient(subject, problem, strategy, 1e-2))


@subjects()
@FEW
@given(problem=nets)
def test_gradient_at_shifts_of_more_than_1(subject: Subject, problem: Problem) -> None:
    problem.x[:] *= 3
    problem.x.flat[0] = 3  # one plan for all
    assert_agrees(check_gradient(subject, problem, "structured", 0.5))


@subjects()
@pytest.mark.parametrize("strategy", ["structured", "collocated"])
def test_gradient_where_the_differences_themselves_underflow(subject: Subject, strategy: str) -> None:
    """The difference of a sample that the net is sure of is tiny; h = 1e-20 takes it out of the range of float32."""
    problem = digits()
    problem.params.W2[:] *= 100
    assert_agrees(check_gradient(subject, problem, strategy, 1e-20))


@subjects()
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradient_of_samples_of_most_unlike_logits(subject: Subject, strategy: str) -> None:
    """Some as far apart as 2,000 and some alike: each is scaled by its own largest exponential."""
    params = Params(
        np.array([[20.0, 18.0, 22.0]]), np.zeros(3), np.array([[1e3, -1e3], [1e3, -500], [1e3, 0]]), np.zeros(2)
    )
    problem = Problem(params, np.array([[-1.0], [1.0], [0.0]]), np.array([0, 1, 0]))
    assert_agrees(check_gradient(subject, problem, strategy, 0.1))


@subjects("float64")
@pytest.mark.parametrize("strategy", ["structured", "collocated"])
def test_gradient_where_no_term_is_to_spare(subject: Subject, strategy: str) -> None:
    """An even term all but cancels in a central difference: only an odd last one shows that it is there."""
    problem = moderate(0)
    assert make_plan(5e-5, 1.0, float(np.abs(problem.params.W2).max()), "float64").terms == 3
    assert_agrees(check_gradient(subject, problem, strategy, 5e-5))


@subjects("float64")
@pytest.mark.parametrize("strategy", ["structured", "collocated"])
def test_gradient_of_a_wide_net_with_saturated_samples(subject: Subject, strategy: str) -> None:
    """A port may save time by lower precision where the net is large: not on a sample beyond float32's range.

    Each sample has inputs of its own, so that no other hides what it lacks; the first classes are certain to 1e-43.
    """
    problem = random_problem(np.eye(160), np.arange(160) % 4, hidden=70, samples=160, seed=0, outputs=4)
    problem.params.b2[:2] += 100
    assert_agrees(check_gradient(subject, problem, strategy, 1e-4))
    problem.params.W1[:] = 0  # beside larger weights a step that is so small would not show
    assert_agrees(check_training(subject, problem, strategy, 1e-4, batches=np.arange(160)[None]))


@pytest.mark.parametrize("memory", [1, 900, 10_000])  # one at a time; several, with a last chunk that is shorter
@pytest.mark.parametrize("strategy", STRATEGIES)
@subjects("float64")
def test_the_size_of_chunks_does_not_matter(subject: Subject, strategy: str, memory: int) -> None:
    problem = moderate(0)
    got, expected = gradient_of(subject, problem, strategy, memory=memory), gradient_of(subject, problem, strategy)
    assert_close(strategy, got, expected, bound_of(subject, problem, strategy, 1e-2))


@pytest.mark.parametrize("strategy", ["loop", "batched"])
@subjects()
def test_entries_are_those_of_the_whole(subject: Subject, strategy: str) -> None:
    """Of any number, in any order and shape, and more than once."""
    problem = moderate(0)
    entries = Params(np.array([14, 0, 3, 3]), np.array([], int), np.array([[5, 1]]), np.array([0]))
    got, whole = gradient_of(subject, problem, strategy, entries=entries), gradient_of(subject, problem, strategy)
    expected, bounds = (
        Params(*(g.ravel()[at] for g, at in zip(params, entries, strict=True)))
        for params in (whole, bound_of(subject, problem, strategy, 1e-2))
    )
    assert [(g.shape, g.dtype) for g in got] == [(s, subject.dtype) for s in ((4,), (0,), (1, 2), (1,))]
    assert_close(strategy, got, expected, bounds)


@pytest.mark.parametrize("strategy", STRATEGIES)
@subjects("float64")
def test_the_default_h_is_the_chapters(subject: Subject, strategy: str) -> None:
    problem = moderate(0)
    params, x = on_device(subject, problem)
    by_default = map(subject.port.to_numpy, subject.port.GRADIENTS[strategy](params, x, problem.t))
    assert_same(by_default, gradient_of(subject, problem, strategy, h=1e-4))


@pytest.mark.parametrize("strategy", STRATEGIES)
@subjects("float64")
def test_half_of_h_has_a_quarter_of_the_truncation(subject: Subject, strategy: str) -> None:
    problem = moderate(0)
    derivative = np.concatenate([g.ravel() for g in gradient_of(subject, problem, None)])
    distances = [
        np.linalg.norm(np.concatenate([g.ravel() for g in gradient_of(subject, problem, strategy, h=h)]) - derivative)
        for h in (1e-2, 5e-3)
    ]
    assert distances[0] / distances[1] == pytest.approx(4, rel=1e-3)


# --- collocated beside structured of the same backend


def sums_of_magnitudes(problem: Problem) -> Params:
    """Sum the magnitudes of the terms of each entry of the gradient."""
    (W1, b1, W2, b2), x, t = problem
    z, w = sigmoid(x @ W1 + b1), sigmoid(-(x @ W1 + b1))
    y, right = softmax(z @ W2 + b2), t[:, None] == np.arange(len(b2))
    others = np.where(right, 0, y) * (y[right] / (y[right] + DELTA) / len(x))[:, None]
    V = np.abs(W2.T - W2.T[t][:, None])  # (B, O, H)
    hidden = z * w * np.einsum("bk,bkh->bh", others, V)
    output = np.where(right, others.sum(axis=1, keepdims=True), others)
    return Params(np.abs(x).T @ hidden, hidden.sum(axis=0), z.T @ output, output.sum(axis=0))


@pytest.mark.parametrize(("h", "max_abs_x"), [(1e-6, 255.0), (1e-4, 255.0), (0.2, 1.0), (0.3, 1.0)])
@subjects()
def test_interpolation_is_exact_to_rounding(subject: Subject, h: float, max_abs_x: float) -> None:
    """A backend's two strategies share the forward pass: they differ only by the rounding of D and by interpolation.

    Each D carries r = 16 roundings at most. At m nodes v_k the coefficients are off by 4 / (2m + 1) sum_k v_k r, less
    than 4 r / pi, times D's slope; the slope of T_{2n-1} is 2n - 1 at most, in total m^2. That is 1.3 r m^2; to this
    come the structured D itself and an interpolation error of 4. The slope grows with the shift as in bounds.py.
    The largest gap / bound seen on 300 nets is 0.16.
    """
    for seed in range(3):
        problem = moderate(seed, max_abs_x)
        u, spread = unit_roundoff(subject.dtype), float(np.ptp(problem.params.W2, axis=1).max())
        shift = h * max(1.0, float(problem.x.max()))
        plan = make_plan(h, float(problem.x.max()), float(np.abs(problem.params.W2).max()), subject.dtype)
        assert plan.collocates or h == 0.3
        growth = math.exp(shift + 2 * (math.tanh(shift / 4) * spread + h))
        factor = u * growth * (16 * (1.3 * max(plan.hidden_nodes, plan.output_nodes) ** 2 + 1) + 4)
        one, two = (gradient_of(subject, problem, strategy, h=h) for strategy in ("structured", "collocated"))
        assert_close(
            "collocated",
            two,
            one,
            Params(*(factor * total for total in sums_of_magnitudes(problem.rounded(subject.dtype)))),
        )


@subjects("float64")
def test_past_the_nodes_structured_takes_over_and_says_so(subject: Subject) -> None:
    problem = moderate(0, 255.0)
    with pytest.warns(
        RuntimeWarning, match="`collocated` needs more than 8 nodes at h = 0.3 .*: `structured` takes over"
    ):
        got = gradient_of(subject, problem, "collocated", h=0.3)
    assert_close(
        "collocated",
        got,
        gradient_of(subject, problem, "structured", h=0.3),
        bound_of(subject, problem, "structured", 0.3),
    )
