"""All backends, strategies and dtypes give the same numbers; and the comparison that says so is tested itself."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comparison.agreement import comparison
from comparison.agreement.bounds import Problem, gradient_bound, loss_bound
from comparison.agreement.comparison import (
    Agreement,
    Subject,
    check_forward,
    check_gradient,
    compare,
    disagreement_sentence,
    is_comparable,
    on_device,
    random_problem,
    sample_entries,
)
from nets import FEW, NUMPY, SHAPE, nets, with_members
from problems import STEPS, problems, subjects
from reference import datasets, two_layer_net
from reference.collocation import make_plan
from reference.defaults import CLOSED_FORM, STRATEGIES
from reference.functions import DELTA, sigmoid, softmax
from reference.two_layer_net import Params, init
from reference.validation import unit_roundoff

MANY = settings(max_examples=max(1, settings.default.max_examples // 2))
HANDS_OVER = "ignore:`collocated` needs more than:RuntimeWarning"

BATCHES = np.array([[0, 1, 2, 3], [4, 5, 6, 0], [2, 2, 1, 5]])
gradients = pytest.mark.parametrize("strategy", [*STRATEGIES, None], ids=str)
pytestmark = pytest.mark.filterwarnings(HANDS_OVER)

# --- every backend beside the reference


@subjects()
@given(problem=problems())
def test_forward(subject: Subject, problem: Problem) -> None:
    for row in check_forward(subject, problem):
        assert row.agrees, disagreement_sentence(row)


@gradients
@subjects()
@MANY
@given(problem=problems(), h=st.sampled_from(STEPS))
def test_gradient(subject: Subject, strategy: str | None, problem: Problem, h: float) -> None:
    for row in check_gradient(subject, problem, strategy, h):
        assert row.agrees, disagreement_sentence(row)


# --- the comparison itself


def digits(hidden: int = 5, samples: int = 20) -> Problem:
    data = datasets.load("digits")
    return random_problem(data.x_train, data.t_train, hidden=hidden, outputs=10, samples=samples, seed=0)


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


def test_only_w1_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "FULL_COST", 2e10)
    params = init(784, 50, 10, seed=0)
    sample = sample_entries(params, 100, seed=0)
    assert sample is not None
    for at, p in zip(sample[1:], params[1:], strict=True):
        np.testing.assert_array_equal(at, np.arange(p.size))
    assert 100 < len(sample.W1) < params.W1.size
    assert len(np.unique(sample.W1)) == len(sample.W1)
    assert (sample.W1.min(), sample.W1.max()) >= (0, 1)
    assert sample.W1.max() < params.W1.size
    operations = sum(len(at) for at in sample) * 4 * 100 * (params.W1.size + params.W2.size)
    assert operations == pytest.approx(2e10, rel=0.01)


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
    expected, bounds = two_layer_net.gradient(*rounded), gradient_bound(rounded, dtype, None, 0.0)
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


# --- metamorphic properties: what must come out again, exactly


def flat(problem: Problem) -> tuple[np.ndarray, ...]:
    return (*problem.params, problem.x, problem.t)


def gradient_of(subject: Subject, problem: Problem, strategy: str | None, t: Any = None, **options: Any) -> Params:
    """Return a gradient as NumPy arrays, by default at h = 1e-2; the closed form has no options."""
    port, (params, x) = subject.port, on_device(subject, problem)
    labels = problem.t if t is None else t
    if strategy is None:
        return Params(*map(port.to_numpy, port.gradient(params, x, labels)))
    return Params(*map(port.to_numpy, port.GRADIENTS[strategy](params, x, labels, **({"h": 1e-2} | options))))


def assert_same(got: Any, expected: Any) -> None:
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_array_equal(g, e, strict=True)


@gradients
@subjects()
@FEW
@given(problem=nets)
def test_a_repeated_call_gives_the_same_bits(subject: Subject, strategy: str | None, problem: Problem) -> None:
    assert_same(gradient_of(subject, problem, strategy), gradient_of(subject, problem, strategy))


LABELS: dict[str, Callable[[np.ndarray], Any]] = {
    "int32": lambda t: t.astype(np.int32),
    "uint8": lambda t: t.astype(np.uint8),
    "whole floats": lambda t: t.astype(np.float32),
    "list": lambda t: t.tolist(),
    "tuple": lambda t: tuple(t.tolist()),
    "one-hot floats": lambda t: np.eye(2)[t],
    "one-hot integers": lambda t: np.eye(2, dtype=int)[t],
    "one-hot bools": lambda t: np.eye(2, dtype=bool)[t],
    "one-hot lists": lambda t: np.eye(2, dtype=int)[t].tolist(),
}


@pytest.mark.parametrize("kind", LABELS)
@subjects("float64")
def test_labels_of_every_kind_are_the_same_labels(subject: Subject, kind: str) -> None:
    problem = moderate(0)
    labels, port, (params, x) = LABELS[kind](problem.t), subject.port, on_device(subject, problem)
    for function in (port.loss, port.accuracy):
        assert_same([port.to_numpy(function(params, x, labels))], [port.to_numpy(function(params, x, problem.t))])
    for strategy in (*STRATEGIES, None):
        assert_same(gradient_of(subject, problem, strategy, labels), gradient_of(subject, problem, strategy))


@subjects("float64", "float32")
def test_labels_may_be_the_backends_own(subject: Subject) -> None:
    problem = moderate(0)
    own = subject.port.from_numpy(np.eye(2)[problem.t], dtype=subject.dtype, device=subject.device)
    assert_same(gradient_of(subject, problem, "structured", own), gradient_of(subject, problem, "structured"))


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


# --- where digits are easily lost


@gradients
@subjects()
@FEW
@given(problem=nets)
def test_gradient_of_a_saturated_net(subject: Subject, strategy: str | None, problem: Problem) -> None:
    problem.params.b1[:] += [30, -30, 0]
    for row in check_gradient(subject, problem, strategy, 1e-2):
        assert row.agrees, disagreement_sentence(row)


@subjects()
@FEW
@given(problem=nets)
def test_gradient_at_shifts_of_more_than_1(subject: Subject, problem: Problem) -> None:
    problem.x[:] *= 3
    problem.x.flat[0] = 3  # one plan for all
    for row in check_gradient(subject, problem, "structured", 0.5):
        assert row.agrees, disagreement_sentence(row)


@subjects()
@pytest.mark.parametrize("strategy", ["structured", "collocated"])
def test_gradient_where_the_differences_themselves_underflow(subject: Subject, strategy: str) -> None:
    """The difference of a sample that the net is sure of is tiny; h = 1e-20 takes it out of the range of float32."""
    problem = digits()
    problem.params.W2[:] *= 100
    for row in check_gradient(subject, problem, strategy, 1e-20):
        assert row.agrees, disagreement_sentence(row)


@subjects()
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradient_of_samples_of_most_unlike_logits(subject: Subject, strategy: str) -> None:
    """Some as far apart as 2,000 and some alike: each is scaled by its own largest exponential."""
    params = Params(
        np.array([[20.0, 18.0, 22.0]]), np.zeros(3), np.array([[1e3, -1e3], [1e3, -500], [1e3, 0]]), np.zeros(2)
    )
    problem = Problem(params, np.array([[-1.0], [1.0], [0.0]]), np.array([0, 1, 0]))
    for row in check_gradient(subject, problem, strategy, 0.1):
        assert row.agrees, disagreement_sentence(row)


@subjects("float64")
@pytest.mark.parametrize("strategy", ["structured", "collocated"])
def test_gradient_where_no_term_is_to_spare(subject: Subject, strategy: str) -> None:
    """An even term all but cancels in a central difference: only an odd last one shows that it is there."""
    problem = moderate(0)
    assert make_plan(5e-5, 1.0, float(np.abs(problem.params.W2).max()), "float64").terms == 3
    for row in check_gradient(subject, problem, strategy, 5e-5):
        assert row.agrees, disagreement_sentence(row)


# --- metamorphic properties: what must come out again but for rounding


def assert_close(got: Params, expected: Params, *bounds: Params) -> None:
    """Both are off by their own bound at most, so that their distance is within the sum."""
    for name, g, e, *b in zip(Params._fields, got, expected, *bounds, strict=True):
        assert (np.abs(g.astype(np.float64) - e) <= sum(b)).all(), name


def bound_of(subject: Subject, problem: Problem, strategy: str | None, h: float) -> Params:
    return gradient_bound(problem.rounded(subject.dtype), subject.dtype, strategy, h if strategy else 0.0)


def of_both(subject: Subject, one: Problem, other: Problem, strategy: str | None) -> list[Params]:
    """Return the two gradients, then their bounds."""
    gradients = [gradient_of(subject, problem, strategy) for problem in (one, other)]
    return gradients + [bound_of(subject, problem, strategy, 1e-2) for problem in (one, other)]


@gradients
@subjects()
@FEW
@given(problem=nets, order=st.permutations(range(7)))
def test_the_order_of_samples_does_not_matter(
    subject: Subject, strategy: str | None, problem: Problem, order: list[int]
) -> None:
    other = Problem(problem.params, problem.x[order], problem.t[order])
    assert_close(*of_both(subject, problem, other, strategy))


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
    assert_close(two, permuted(one), permuted(bounds[0]), bounds[1])


@gradients
@subjects()
@FEW
@given(problem=nets)
def test_swapped_classes_swap_the_gradient(subject: Subject, strategy: str | None, problem: Problem) -> None:
    def swapped(p: Params) -> Params:
        return p._replace(W2=p.W2[:, ::-1], b2=p.b2[::-1])

    other = Problem(swapped(problem.params), problem.x, 1 - problem.t)
    one, two, *bounds = of_both(subject, problem, other, strategy)
    assert_close(two, swapped(one), swapped(bounds[0]), bounds[1])


@pytest.mark.parametrize("strategy", ["batched", "structured", "collocated", None], ids=str)
@subjects()
@FEW
@given(problem=nets)
def test_a_batch_given_twice_has_the_same_gradient(subject: Subject, strategy: str | None, problem: Problem) -> None:
    other = Problem(problem.params, np.tile(problem.x, (2, 1)), np.tile(problem.t, 2))
    assert_close(*of_both(subject, problem, other, strategy))


@gradients
@subjects()
@FEW
@given(problem=nets, constant=st.integers(-50, 50))
def test_a_constant_on_all_logits_changes_nothing(
    subject: Subject, strategy: str | None, problem: Problem, constant: int
) -> None:
    problem.params.b2[:] = np.round(problem.params.b2 * 256) / 256  # so that the sum is exact, in float32 too
    other = problem._replace(params=problem.params._replace(b2=problem.params.b2 + constant))
    assert_close(*of_both(subject, problem, other, strategy))


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
    assert_close(got, mean, mean_bound, bound_of(subject, problem, strategy, 1e-2))


@gradients
@subjects()
@FEW
@given(problem=nets)
def test_the_gradient_of_b2_sums_to_zero(subject: Subject, strategy: str | None, problem: Problem) -> None:
    """But for truncation: along one logit a loss is the difference of two softplus, of third derivative <= 0.0963."""
    b2 = gradient_of(subject, problem, strategy).b2.astype(np.float64)
    truncation = len(b2) * 1e-2**2 / 6 * 2 * 0.0963
    assert abs(b2.sum()) <= truncation + bound_of(subject, problem, strategy, 1e-2).b2.sum()


@pytest.mark.parametrize("memory", [1, 900, 10_000])  # one at a time; several, with a last chunk that is shorter
@pytest.mark.parametrize("strategy", STRATEGIES)
@subjects("float64")
def test_the_size_of_chunks_does_not_matter(subject: Subject, strategy: str, memory: int) -> None:
    problem = moderate(0)
    got, expected = gradient_of(subject, problem, strategy, memory=memory), gradient_of(subject, problem, strategy)
    assert_close(got, expected, bound_of(subject, problem, strategy, 1e-2))


@pytest.mark.parametrize("memory", [1, 900, 15_000])  # JAX's `structured`: seven chunks of one, or two of three and one
@pytest.mark.parametrize("strategy", STRATEGIES)
@subjects("float64")
def test_the_size_of_chunks_does_not_matter_in_training(subject: Subject, strategy: str, memory: int) -> None:
    problem, batches = moderate(0), np.array([[0, 1, 2, 3, 4, 5, 6], [6, 4, 2, 0, 1, 3, 5]])
    got = train(subject, problem, batches, strategy, learning_rate=0.3, h=1e-2, memory=memory)
    expected, allowed = step_by_step(subject, problem, batches, strategy, 0.3, 1e-2)
    assert_within(got, expected, allowed)


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
    assert_close(got, expected, bounds)


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


def moderate(seed: int, max_abs_x: float = 1.0) -> Problem:
    """Return a net of the one shape with inputs in [0, max_abs_x], no unit of which is saturated."""
    samples, inputs, hidden, outputs = SHAPE[0]
    rng = np.random.default_rng(seed)
    params = Params(
        W1=rng.standard_normal((inputs, hidden)) / max_abs_x,
        b1=rng.standard_normal(hidden),
        W2=rng.uniform(-0.5, 0.5, (hidden, outputs)),  # whatever the seed, JAX compiles for one plan
        b2=rng.standard_normal(outputs),
    )
    x = max_abs_x * rng.random((samples, inputs)) * (rng.random((samples, inputs)) < 0.7)
    return Problem(params, x, rng.integers(0, outputs, samples))


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
            two, one, Params(*(factor * total for total in sums_of_magnitudes(problem.rounded(subject.dtype))))
        )


@subjects("float64")
def test_past_the_nodes_structured_takes_over_and_says_so(subject: Subject) -> None:
    problem = moderate(0, 255.0)
    with pytest.warns(
        RuntimeWarning, match="`collocated` needs more than 8 nodes at h = 0.3 .*: `structured` takes over"
    ):
        got = gradient_of(subject, problem, "collocated", h=0.3)
    assert_close(got, gradient_of(subject, problem, "structured", h=0.3), bound_of(subject, problem, "structured", 0.3))


# --- training


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
        loss_allowed.append(2 * loss_bound(part, subject.dtype) + sum(a.sum() for a in allowed))
        slope, bounds = gradient_of(subject, part, strategy, h=h), bound_of(subject, part, strategy, h)
        allowed = [a + 2 * rate * b + 2 * u * np.abs(p) for a, b, p in zip(allowed, bounds, params, strict=True)]
        params = Params(*(p.astype(dtype) - dtype.type(rate) * g for p, g in zip(params, slope, strict=True)))
    return [*params, np.array(losses)], [*allowed, np.array(loss_allowed)]


def assert_within(got: list[np.ndarray], expected: list[np.ndarray], allowed: list[np.ndarray]) -> None:
    for g, e, a in zip(got, expected, allowed, strict=True):
        assert (np.abs(g - e) <= a).all()


@gradients
@subjects("float64")
def test_training_is_steps_of_descent(subject: Subject, strategy: str | None) -> None:
    problem = moderate(0)
    got = train(subject, problem, BATCHES, strategy, learning_rate=0.3, h=1e-2)
    expected, allowed = step_by_step(subject, problem, BATCHES, strategy, 0.3, 1e-2)
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


@subjects()
def test_all_backends_train_alike(subject: Subject) -> None:
    """1,000 steps on real digits, from a loss of 2.3 to 0.07: two runs differ by what rounding adds in each step.

    That is at most rate * (bound of the gradient) + u max|p|, taken at the end, where it is largest. Steps round
    independently: K of them add up like sqrt(K). What was added on the way grows or shrinks with the descent: measured,
    from step 500 on by 0.97 (L2), from step 100 by 10, from the start by 70. But what the early steps add is smaller by
    as much, as the weights are: they begin at 0.03 and end at 2.8. So nothing is charged for growth; the largest
    gap / bound seen is 0.19.
    """
    steps, rate = 1000, 0.5
    data, rng = datasets.load("digits"), np.random.default_rng(0)
    start = init(64, 20, 10, seed=0, dtype=subject.dtype)
    problem = Problem(Params(*(p.astype(np.float64) for p in start)), data.x_train, data.t_train)
    batches = np.stack([rng.choice(len(data.x_train), 20, replace=False) for _ in range(steps)])
    expected = train(NUMPY._replace(dtype=subject.dtype), problem, batches, "collocated", learning_rate=rate)
    assert expected[4][0] > 2.2
    assert expected[4][-1] < 0.1
    end = Problem(Params(*expected[:4]), problem.x[batches[-1]], problem.t[batches[-1]])
    max_abs = max(float(np.abs(p).max()) for p in end.params)
    gradient_error = max(float(b.max()) for b in bound_of(subject, end, "collocated", 1e-4))
    allowed = 2 * math.sqrt(steps) * (rate * gradient_error + unit_roundoff(subject.dtype) * max_abs)
    for got, e in zip(train(subject, problem, batches, "collocated", learning_rate=rate), expected, strict=True):
        assert np.abs(got - e).max() <= allowed
