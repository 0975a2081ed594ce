"""What must not change the gradient, to the bit or but for rounding: memory, the form of the arguments, the order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comparison.agreement.bounds import Bounds, Problem
from comparison.conformance.problems import STEPS, problems
from gradient_problems import assert_same_bits, assert_within, cast, draw_problem, twice_bound
from reference import numerical_gradient
from reference.numerical_gradient import GRADIENTS, batched, collocated, loop, structured
from reference.two_layer_net import Params

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
EACH_STRATEGY = pytest.mark.parametrize("strategy", GRADIENTS.values(), ids=GRADIENTS)
EXACT = pytest.mark.parametrize("strategy", [structured, collocated])
pytestmark = pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning")


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
