"""Four strategies, one gradient: with each other, with 150 digits, and under what must not change it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from comparison.agreement.bounds import Bounds, Problem
from comparison.conformance.problems import SHAPES, STEPS, problems
from reference import datasets, numerical_gradient, two_layer_net
from reference.collocation import make_plan
from reference.numerical_gradient import (
    GRADIENTS,
    batched,
    collocated,
    collocated_gradient,
    loop,
    structured,
    structured_gradient,
)
from reference.two_layer_net import Params, init
from reference.validation import unit_roundoff

SMALL = tuple(shape for shape in SHAPES if max(shape) < 8)
DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
EACH_STRATEGY = pytest.mark.parametrize("strategy", GRADIENTS.values(), ids=GRADIENTS)
EXACT = pytest.mark.parametrize("strategy", [structured, collocated])
LARGE_STEPS = (0.1, 0.3)
pytestmark = pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning")


def draw_problem(shape=(7, 13, 5, 4), *, seed=0, scale=1.0):
    samples, inputs, hidden, outputs = shape
    rng = np.random.default_rng(seed)
    params = Params(*(scale * rng.standard_normal(s) for s in ((inputs, hidden), hidden, (hidden, outputs), outputs)))
    x = rng.random((samples, inputs)) * (rng.random((samples, inputs)) < 0.6)
    return Problem(params, x, rng.integers(0, outputs, samples))


def cast(problem, dtype):
    params, x, t = problem
    return Params(*(p.astype(dtype) for p in params)), x.astype(dtype), t


def assert_same_bits(got, expected):
    for g, e in zip(got, expected, strict=True):
        assert g.dtype == e.dtype
        assert g.tobytes() == e.tobytes()


def assert_within(got, expected, bounds, lost=1e-150):
    """`lost` is what the squares in the bounds, or the digits of the oracle, can't resolve."""
    for g, e, bound in zip(got, expected, bounds, strict=True):
        assert (np.abs(g - e) <= bound + lost).all()


def twice_bound(problem, strategy, h):
    """Bound the gap between two results that are both rounded."""
    name = next(name for name, function in GRADIENTS.items() if function is strategy)
    return Params(*(2 * bound for bound in Bounds(problem, "float64").gradient(name, h)))


# --- structured and collocated are the same


def assert_collocated_is_structured(problem, dtype, h, roundings):
    """Compare norms, relative to the samples' gradients: their sum may cancel, and with it the digits of both."""
    params, x, t = cast(problem, dtype)
    got, expected = collocated(params, x, t, h=h), structured(params, x, t, h=h)
    singles = [structured(params, x[b : b + 1], t[b : b + 1], h=h) for b in range(len(x))]
    for g, e, *terms in zip(got, expected, *singles, strict=True):
        size = np.linalg.norm(np.abs(terms).mean(axis=0).astype(np.float64))
        underflow = float(np.finfo(dtype).tiny) / oracle.DELTA
        assert np.linalg.norm((g - e).astype(np.float64)) <= roundings * unit_roundoff(dtype) * size + underflow


@DTYPES
@given(problem=problems())
def test_collocated_is_structured_at_the_chapters_step(dtype, problem):
    assert_collocated_is_structured(problem, dtype, 1e-4, 20)


@DTYPES
@pytest.mark.parametrize("scale", [1, -1, 255])
@given(problem=problems(), h=st.sampled_from((1e-6, *STEPS, *LARGE_STEPS)))
def test_collocated_is_structured_at_any_step_and_input(dtype, scale, problem, h):
    params, x, t = problem
    x = np.round(x * scale) if scale == 255 else scale * np.abs(x)
    plan = make_plan(h, float(np.abs(x).max()), float(np.abs(params.W2).max()), dtype)
    nodes = max(plan.hidden_nodes, plan.output_nodes)
    # An error of c_n counts (2n - 1)-fold at small inputs, where T_{2n-1}(v) is (2n - 1) v: m^2 all together.
    assert_collocated_is_structured(Problem(params, x, t), dtype, h, 20 + 10 * nodes**2)


# --- and they are the central differences


@EXACT
@given(problem=problems(shapes=SMALL), h=st.sampled_from((1e-6, *STEPS, *LARGE_STEPS)))
def test_extreme_nets_stay_within_the_bound_of_150_digits(strategy, problem, h):
    expected = oracle.central_differences(*problem, h)
    bounds = Bounds(problem, "float64").gradient(strategy.__name__, h)
    assert_within(strategy(*problem, h=h), expected, bounds, lost=1e-120)
    single = problem.rounded("float32")
    expected = oracle.central_differences(*single, h)
    bounds = Bounds(single, "float32").gradient(strategy.__name__, h)
    assert_within(strategy(*cast(single, "float32"), h=h), expected, bounds, lost=1e-120)


SATURATED = {
    "plain": {},
    "units off and on": {"b1": [-30, 30, 0, -60]},
    "sure and right": {"b2": [30, 0, -30]},
    "sure and wrong": {"b2": [-30, -15, 30]},
    "all at once": {"b1": [-20, 20, 0, 1], "b2": [-30, 0, 30]},
    "no input": {"x": 0},
    "negative input": {"x": -1},
}


@EXACT
@DTYPES
@pytest.mark.parametrize("case", SATURATED.values(), ids=SATURATED)
def test_saturated_nets_lose_no_more_than_the_dtype_does(strategy, dtype, case):
    params, x, t = draw_problem((3, 5, 4, 3), seed=0)
    params = Params(*(p.round(1) + np.array(case.get(name, 0)) for name, p in params._asdict().items()))
    problem = Problem(params, case.get("x", 1) * x, t).rounded(dtype)
    a1 = problem.x @ problem.params.W1 + problem.params.b1
    a2 = two_layer_net.logits(problem.params, problem.x)
    # An input of size a is held to u a, an absolute error that its exponential turns into a relative one.
    error = unit_roundoff(dtype) * (8 + np.abs(a1).max() + np.abs(a2).max())
    got = strategy(*cast(problem, dtype), h=1e-4)
    for g, e in zip(got, oracle.central_differences(*problem, 1e-4), strict=True):
        assert np.linalg.norm(g - e) <= error * np.linalg.norm(e)


# --- it is the difference, not the derivative


@pytest.mark.parametrize("strategy", [batched, structured, collocated])
@pytest.mark.parametrize("h", LARGE_STEPS)
def test_truncation_is_loops_digit_for_digit(strategy, h):
    problem = draw_problem()
    closed_form = two_layer_net.gradient(*problem)
    for g, e, c in zip(strategy(*problem, h=h), loop(*problem, h=h), closed_form, strict=True):
        truncation = np.linalg.norm(c - e)
        assert truncation > 1e-4 * np.linalg.norm(e)
        assert np.linalg.norm(g - e) < 1e-9 * truncation


@EACH_STRATEGY
def test_half_the_step_quarters_the_distance_to_the_derivative(strategy):
    problem = draw_problem()
    derivative = two_layer_net.gradient(*problem)
    whole, half = (strategy(*problem, h=h) for h in (2e-3, 1e-3))
    for w, e, d in zip(whole, half, derivative, strict=True):
        assert np.linalg.norm(w - d) / np.linalg.norm(e - d) == pytest.approx(4, rel=1e-4)


@EACH_STRATEGY
def test_large_inputs_take_large_shifts(strategy):
    params, x, t = draw_problem((3, 4, 3, 2))
    problem = Problem(params._replace(W1=params.W1 / 255), np.round(255 * x), t)
    expected = oracle.central_differences(*problem, 0.01)
    for g, e in zip(strategy(*problem, h=0.01), expected, strict=True):
        assert np.linalg.norm(g - e) < 1e-12 * np.linalg.norm(e)


# --- memory is part of the algorithm


@pytest.mark.parametrize("memory", [1, 3000, 10_000, 17_000, 2**28])
def test_batched_is_loop_whatever_the_chunks(memory):
    problem = draw_problem((7, 5, 3, 2))
    got, expected = batched(*problem, h=1e-2, memory=memory), loop(*problem, h=1e-2)
    assert_within(got, expected, twice_bound(problem, batched, 1e-2))


def test_batched_passes_32_nets_at_a_time(monkeypatch):
    passes, pass_through = [], numerical_gradient.loss_of_labels

    def counted(perturbed, x, labels):
        losses = pass_through(perturbed, x, labels)
        passes.append(len(losses))
        return losses

    monkeypatch.setattr(numerical_gradient, "loss_of_labels", counted)
    batched(*draw_problem((7, 13, 5, 4)))
    assert passes == [32, 32, 32, 32, 1, 1, 5, 5, 20, 20, 4, 4]  # above and below; of W1, b1, W2, b2


@EXACT
@pytest.mark.parametrize("h", [1e-4, 0.1])
@pytest.mark.parametrize("memory", [1, 10_000, 30_000])
def test_slices_of_the_batch_change_nothing_but_rounding(strategy, h, memory):
    problem = draw_problem((23, 13, 5, 4))
    got, expected = strategy(*problem, h=h, memory=memory), strategy(*problem, h=h)
    assert_within(got, expected, twice_bound(problem, strategy, h))


@DTYPES
@pytest.mark.parametrize("strategy", ["structured", "collocated"])
@pytest.mark.parametrize("memory", [1, 10_000, 2**28])
def test_the_loss_that_comes_with_the_gradient_is_that_of_all_slices(strategy, memory, dtype):
    params, x, t = cast(draw_problem((23, 13, 5, 4)), dtype)
    got, _ = loss_and_gradient(strategy, params, x, t, memory=memory)
    expected = two_layer_net.loss(params, x, t)
    assert got.dtype == dtype
    assert got == pytest.approx(expected, rel=23 * unit_roundoff(dtype))


def loss_and_gradient(strategy, params, x, t, *, memory=2**28, plan=None):
    """Compute both at the chapter's step, by default under the plan of this net."""
    plan = plan or make_plan(1e-4, 1.0, float(np.abs(params.W2).max()), str(x.dtype))
    if strategy == "structured":
        return structured_gradient(params, x, t, 1e-4, memory, plan, 1.0)
    return collocated_gradient(params, x, t, 1e-4, memory, plan, 1.0)


@DTYPES
@pytest.mark.parametrize("strategy", ["structured", "collocated"])
def test_the_gradient_that_comes_with_the_loss_is_the_strategys(strategy, dtype):
    params, x, t = cast(draw_problem(), dtype)
    x[0, 0] = 1.0  # the largest input that is planned for
    assert_same_bits(loss_and_gradient(strategy, params, x, t)[1], GRADIENTS[strategy](params, x, t))


@pytest.mark.filterwarnings("error")
def test_under_a_plan_that_does_not_collocate_the_gradient_is_structureds():
    params, x, t = draw_problem()
    plan = make_plan(1e-4, 1.0, 1.0, "float64")._replace(hidden_nodes=0)
    got, expected = (loss_and_gradient(name, params, x, t, plan=plan) for name in ("collocated", "structured"))
    assert got[0] == expected[0]
    assert_same_bits(got[1], expected[1])


@pytest.mark.parametrize("strategy", [loop, batched])
@pytest.mark.parametrize("memory", [1, 3000, 2**28])
def test_entries_are_those_of_the_whole(strategy, memory):
    problem = draw_problem((7, 5, 3, 2))
    entries = Params(np.array([14, 0, 3, 3]), np.array([], int), np.array([[5, 1]]), np.array([0]))
    got, whole = strategy(*problem, entries=entries, memory=memory), strategy(*problem)
    assert [g.shape for g in got] == [(4,), (0,), (1, 2), (1,)]
    expected = [g.flat[at.ravel()].reshape(at.shape) for g, at in zip(whole, entries, strict=True)]
    assert_within(got, expected, [2 * b.max() for b in Bounds(problem, "float64").gradient("loop", 1e-4)])


# --- what must not change a bit


@EACH_STRATEGY
def test_a_repeated_call_gives_the_same_bits(strategy):
    problem = draw_problem()
    assert_same_bits(strategy(*problem), strategy(*problem))


@EACH_STRATEGY
@DTYPES
def test_one_hot_labels_give_the_same_bits(strategy, dtype):
    params, x, t = cast(draw_problem(), dtype)
    assert_same_bits(strategy(params, x, np.eye(4)[t]), strategy(params, x, t))


@EACH_STRATEGY
@pytest.mark.parametrize("power", [-3, 3])
def test_inputs_and_weights_scaled_inversely_give_the_same_bits(strategy, power):
    params, x, t = draw_problem()
    scaled = strategy(params._replace(W1=params.W1 * 2.0**-power), x * 2.0**power, t)
    expected = strategy(params, x, t)
    # A larger largest input makes for another plan, and other roundings, of the hidden layer's differences.
    same = slice(1, None) if power < 0 or strategy in (loop, batched) else slice(2, None)
    assert_same_bits(scaled[same], expected[same])


@DTYPES
def test_a_bias_is_a_weight_whose_input_is_1(dtype):
    params, x, t = cast(draw_problem((1, 3, 5, 20)), dtype)
    x[:] = 1
    params.b1[2] = 100  # makes an output of exactly 1
    got = structured(params, x, t)
    assert_same_bits((got.W1[1], got.W2[2]), (got.b1, got.b2))


@EXACT
@given(problem=problems(), h=st.sampled_from(STEPS))
def test_an_input_that_is_always_0_has_a_gradient_of_exactly_0(strategy, problem, h):
    params, x, t = problem
    x[:, 0] = 0
    assert not strategy(params, x, t, h=h).W1[0].any()


@EACH_STRATEGY
@DTYPES
def test_arguments_are_left_as_they_are(strategy, dtype):
    params, x, t = cast(draw_problem(), dtype)
    before = [array.tobytes() for array in (*params, x, t)]
    strategy(params, x, t, memory=5000)
    assert [array.tobytes() for array in (*params, x, t)] == before


@EACH_STRATEGY
@DTYPES
def test_the_gradient_is_like_the_net(strategy, dtype):
    params, x, t = cast(draw_problem((3, 5, 1, 4)), dtype)
    gradient = strategy(params, x, t)
    assert isinstance(gradient, Params)
    assert [(g.shape, g.dtype) for g in gradient] == [(p.shape, p.dtype) for p in params]


@EACH_STRATEGY
def test_arrays_may_be_read_only_or_strided(strategy):
    problem = draw_problem()
    strided = Params(*(np.repeat(p, 2, axis=-1)[..., ::2] for p in problem.params))
    for array in strided:
        array.flags.writeable = False
    got = strategy(strided, np.asfortranarray(problem.x), problem.t)
    assert_within(got, strategy(*problem), twice_bound(problem, strategy, 1e-4))


# --- what changes nothing but rounding


@EACH_STRATEGY
@given(problem=problems(shapes=((7, 5, 3, 2), (8, 13, 7, 10))), h=st.sampled_from(STEPS), seed=st.integers(0, 99))
def test_the_order_of_samples_units_and_classes_is_arbitrary(strategy, problem, h, seed):
    rng = np.random.default_rng(seed)
    (W1, b1, W2, b2), x, t = problem
    b, j, k = (rng.permutation(size) for size in (len(x), *W2.shape))
    permuted = Params(W1[:, j], b1[j], W2[j][:, k], b2[k])
    got = strategy(permuted, x[b], np.argsort(k)[t[b]], h=h)
    W1, b1, W2, b2 = strategy(*problem, h=h)
    expected = Params(W1[:, j], b1[j], W2[j][:, k], b2[k])
    bounds = twice_bound(Problem(permuted, x[b], np.argsort(k)[t[b]]), strategy, h)
    assert_within(got, expected, bounds)


@EACH_STRATEGY
@given(problem=problems(), h=st.sampled_from(STEPS))
def test_the_gradient_is_the_mean_of_the_samples(strategy, problem, h):
    params, x, t = problem
    singles = [strategy(params, x[b : b + 1], t[b : b + 1], h=h) for b in range(len(x))]
    mean = [np.mean(member, axis=0) for member in zip(*singles, strict=True)]
    assert_within(strategy(*problem, h=h), mean, _bound_of_mean(problem, strategy, h))


def _bound_of_mean(problem, strategy, h):
    params, x, t = problem
    bounds = [twice_bound(Problem(params, x[b : b + 1], t[b : b + 1]), strategy, h) for b in range(len(x))]
    return [np.mean(member, axis=0) for member in zip(*bounds, strict=True)]


@EACH_STRATEGY
@given(problem=problems(), h=st.sampled_from(STEPS))
def test_a_batch_twice_over_has_the_same_gradient(strategy, problem, h):
    params, x, t = problem
    got = strategy(params, np.concatenate([x, x]), np.concatenate([t, t]), h=h)
    assert_within(got, strategy(*problem, h=h), twice_bound(problem, strategy, h))


@EACH_STRATEGY
@given(problem=problems(), h=st.sampled_from(STEPS), constant=st.sampled_from([-3.0, 0.1, 20.0]))
def test_a_constant_added_to_b2_changes_nothing(strategy, problem, h, constant):
    params, x, t = problem
    moved = Problem(params._replace(b2=params.b2 + constant), x, t)
    bounds = map(np.add, twice_bound(moved, strategy, h), twice_bound(problem, strategy, h))
    assert_within(strategy(*moved, h=h), strategy(*problem, h=h), bounds)


@EACH_STRATEGY
@given(problem=problems(), h=st.sampled_from(STEPS))
def test_b2s_gradient_sums_to_0_up_to_truncation(strategy, problem, h):
    total = strategy(*problem, h=h).b2.sum()
    rounding = twice_bound(problem, strategy, h).b2.sum()
    # A third derivative of the loss by a logit is q p (1 - p) (1 - 2 p) and the like, below 1/6 for each class.
    assert abs(total) <= rounding + h**2 * len(problem.params.b2) / 6


# --- on real data


@EXACT
@DTYPES
def test_digits_agree_with_loop(strategy, dtype):
    data = datasets.load("digits")
    problem = Problem(init(64, 12, 10, 0.5, seed=0), data.x_train[:50], data.t_train[:50]).rounded(dtype)
    bounds = Bounds(problem, dtype).gradient(strategy.__name__, 1e-2)
    rounding = Bounds(problem, "float64").gradient("loop", 1e-2)
    assert_within(strategy(*cast(problem, dtype), h=1e-2), batched(*problem, h=1e-2), map(np.add, bounds, rounding))
