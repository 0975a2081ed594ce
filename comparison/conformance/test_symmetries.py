"""All backends, strategies and dtypes give the same numbers; and the comparison that says so is tested itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import (
    Subject,
    on_device,
)
from comparison.conformance.gradients import (
    HANDS_OVER,
    assert_close,
    assert_same,
    bound_of,
    gradient_of,
    gradients,
    moderate,
    of_both,
)
from comparison.conformance.nets import FEW, nets
from comparison.conformance.problems import subjects
from reference.defaults import CLOSED_FORM, STRATEGIES
from reference.two_layer_net import Params

BATCHES = np.array([[0, 1, 2, 3], [4, 5, 6, 0], [2, 2, 1, 5]])
pytestmark = pytest.mark.filterwarnings(HANDS_OVER)


# --- metamorphic properties: what must come out again, exactly


@gradients
@subjects()
@FEW
@given(problem=nets)
def test_a_repeated_call_gives_the_same_bits(subject: Subject, strategy: str | None, problem: Problem) -> None:
    assert_same(gradient_of(subject, problem, strategy), gradient_of(subject, problem, strategy))


def scaled(problem: Problem) -> tuple[Problem, Problem]:
    """Return two problems that are the same but for 8 x and W1 / 8; the largest input of the first is 1."""
    problem.x.flat[0] = 1.0
    params = problem.params._replace(W1=problem.params.W1 / 8)
    return problem, Problem(params, problem.x * 8, problem.t)


@subjects()
@FEW
@given(problem=nets)
def test_a_power_of_two_moved_from_weights_to_inputs_changes_no_bit(subject: Subject, problem: Problem) -> None:
    port, results = subject.port, []
    for twin in scaled(problem):
        params, x = on_device(subject, twin)
        results.append([port.predict(params, x), port.loss(params, x, twin.t), port.accuracy(params, x, twin.t)])
    assert_same(*([port.to_numpy(r) for r in result] for result in results))


@gradients
@subjects()
@FEW
@given(problem=nets)
def test_a_power_of_two_moved_scales_the_gradient_exactly(
    subject: Subject, strategy: str | None, problem: Problem
) -> None:
    one, other = scaled(problem)
    expected, got = gradient_of(subject, one, strategy), gradient_of(subject, other, strategy, h=1e-2 / 8)
    np.testing.assert_array_equal(got.W1, 8 * expected.W1, strict=True)
    if strategy is None:  # the other members' step is not the same
        assert_same(got[1:], expected[1:])


@subjects("float64")
def test_no_call_changes_an_argument(subject: Subject) -> None:
    problem, port = moderate(0), subject.port
    params, x = on_device(subject, problem)
    labels, batches = problem.t.copy(), BATCHES.copy()
    before = [port.to_numpy(array).tobytes() for array in (*params, x)]
    for function in (port.loss, port.accuracy, port.gradient, *port.GRADIENTS.values()):
        function(params, x, labels)
    port.predict(params, x)
    for strategy in (*STRATEGIES, CLOSED_FORM):
        port.train_steps(params, x, labels, batches, strategy=strategy, learning_rate=0.5, h=1e-2)
    assert [port.to_numpy(array).tobytes() for array in (*params, x)] == before
    np.testing.assert_array_equal(labels, problem.t)
    np.testing.assert_array_equal(batches, BATCHES)


@pytest.mark.parametrize("strategy", ["structured", "collocated", None], ids=str)
@subjects()
@FEW
@given(problem=nets, index=st.integers(0, 4))
def test_an_input_of_zeros_gives_a_row_of_zeros(
    subject: Subject, strategy: str | None, problem: Problem, index: int
) -> None:
    problem.x[:, index] = 0
    assert not gradient_of(subject, problem, strategy).W1[index].any()


# --- metamorphic properties: what must come out again but for rounding


@gradients
@subjects()
@FEW
@given(problem=nets, order=st.permutations(range(7)))
def test_the_order_of_samples_does_not_matter(
    subject: Subject, strategy: str | None, problem: Problem, order: list[int]
) -> None:
    other = Problem(problem.params, problem.x[order], problem.t[order])
    assert_close(strategy, *of_both(subject, problem, other, strategy))


@gradients
@subjects()
@FEW
@given(problem=nets, order=st.permutations(range(3)))
def test_permuted_hidden_units_permute_the_gradient(
    subject: Subject, strategy: str | None, problem: Problem, order: list[int]
) -> None:
    def permuted(p: Params) -> Params:
        return Params(p.W1[:, order], p.b1[order], p.W2[order], p.b2)

    other = problem._replace(params=permuted(problem.params))
    one, two, *bounds = of_both(subject, problem, other, strategy)
    assert_close(strategy, two, permuted(one), permuted(bounds[0]), bounds[1])


@gradients
@subjects()
@FEW
@given(problem=nets)
def test_swapped_classes_swap_the_gradient(subject: Subject, strategy: str | None, problem: Problem) -> None:
    def swapped(p: Params) -> Params:
        return p._replace(W2=p.W2[:, ::-1], b2=p.b2[::-1])

    other = Problem(swapped(problem.params), problem.x, 1 - problem.t)
    one, two, *bounds = of_both(subject, problem, other, strategy)
    assert_close(strategy, two, swapped(one), swapped(bounds[0]), bounds[1])


@pytest.mark.parametrize("strategy", ["batched", "structured", "collocated", None], ids=str)
@subjects()
@FEW
@given(problem=nets)
def test_a_batch_given_twice_has_the_same_gradient(subject: Subject, strategy: str | None, problem: Problem) -> None:
    other = Problem(problem.params, np.tile(problem.x, (2, 1)), np.tile(problem.t, 2))
    assert_close(strategy, *of_both(subject, problem, other, strategy))


@gradients
@subjects()
@FEW
@given(problem=nets, constant=st.integers(-50, 50))
def test_a_constant_on_all_logits_changes_nothing(
    subject: Subject, strategy: str | None, problem: Problem, constant: int
) -> None:
    problem.params.b2[:] = np.round(problem.params.b2 * 256) / 256  # so that the sum is exact, in float32 too
    other = problem._replace(params=problem.params._replace(b2=problem.params.b2 + constant))
    assert_close(strategy, *of_both(subject, problem, other, strategy))


@pytest.mark.parametrize("strategy", ["batched", "structured", "collocated", None], ids=str)
@subjects()
@FEW
@given(problem=nets)
def test_the_gradient_is_the_mean_of_the_samples(subject: Subject, strategy: str | None, problem: Problem) -> None:
    singles = [Problem(problem.params, problem.x[b : b + 1], problem.t[b : b + 1]) for b in range(7)]
    gradients = [gradient_of(subject, single, strategy) for single in singles]
    bounds = [bound_of(subject, single, strategy, 1e-2) for single in singles]
    mean, mean_bound = (
        Params(*(np.mean(member, axis=0, dtype=np.float64) for member in zip(*of_samples, strict=True)))
        for of_samples in (gradients, bounds)
    )
    got = gradient_of(subject, problem, strategy)
    assert_close(strategy, got, mean, mean_bound, bound_of(subject, problem, strategy, 1e-2))


@gradients
@subjects()
@FEW
@given(problem=nets)
def test_the_gradient_of_b2_sums_to_zero(subject: Subject, strategy: str | None, problem: Problem) -> None:
    """But for truncation: along one logit a loss is the difference of two softplus, of third derivative <= 0.0963."""
    b2 = gradient_of(subject, problem, strategy).b2.astype(np.float64)
    truncation = len(b2) * 1e-2**2 / 6 * 2 * 0.0963
    assert abs(b2.sum()) <= truncation + bound_of(subject, problem, strategy, 1e-2).b2.sum()
