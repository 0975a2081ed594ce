"""K steps of descent are K gradients, one after the other."""

import tracemalloc

import numpy as np
import pytest

from reference import datasets, two_layer_net
from reference.defaults import CLOSED_FORM
from reference.descent import descend, train_steps
from reference.numerical_gradient import GRADIENTS
from reference.two_layer_net import Params, init, loss
from reference.validation import shown

FUNCTIONS = {CLOSED_FORM: two_layer_net.gradient, **GRADIENTS}
EACH_STRATEGY = pytest.mark.parametrize("strategy", FUNCTIONS)
DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
RNG = np.random.default_rng(0)
X, T = RNG.random((20, 6)), RNG.integers(0, 3, 20)
BATCHES = RNG.integers(0, 20, (5, 4))
NET = init(6, 4, 3, 1.0, seed=0)


def cast(dtype):
    return Params(*(p.astype(dtype) for p in NET)), X.astype(dtype)


def plain_loop(params, x, t, batches, strategy, learning_rate, **options):
    losses = []
    for batch in batches:
        losses.append(loss(params, x[batch], t[batch]))
        slope = FUNCTIONS[strategy](params, x[batch], t[batch], **options)
        params = Params(*(p - learning_rate * g for p, g in zip(params, slope, strict=True)))
    return params, np.array(losses)


@EACH_STRATEGY
@DTYPES
def test_steps_are_a_plain_loop_of_gradients(strategy, dtype):
    params, x = cast(dtype)
    options = {} if strategy == CLOSED_FORM else {"h": 1e-2}
    got, losses = train_steps(params, x, T, BATCHES, strategy=strategy, learning_rate=0.5, h=1e-2)
    expected, expected_losses = plain_loop(params, x, T, BATCHES, strategy, 0.5, **options)
    for g, e in zip(got, expected, strict=True):
        assert g.dtype == dtype
        np.testing.assert_array_equal(g, e)
    assert losses.dtype == dtype
    np.testing.assert_allclose(losses, expected_losses, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize(("strategy", "h"), [("structured", 0.3), ("collocated", 1e-3)])
def test_inputs_above_1_are_planned_for_once(strategy, h):
    net, x = NET._replace(W1=NET.W1 / 30), 30 * X
    x[T == 0] /= 100  # a batch may hold only small inputs
    batches = np.stack([np.flatnonzero(label == T)[:3] for label in (0, 1, 2)])
    got, _ = train_steps(net, x, T, batches, strategy=strategy, learning_rate=0.5, h=h)
    expected, _ = plain_loop(net, x, T, batches, "structured", 0.5, h=h)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=0, atol=2e-13)


@EACH_STRATEGY
def test_losses_are_those_before_the_step(strategy):
    batches = np.array([[0, 1, 2], [0, 1, 2]])
    params, losses = train_steps(NET, X, T, batches, strategy=strategy, learning_rate=0.5)
    assert losses[0] == pytest.approx(loss(NET, X[:3], T[:3]), rel=1e-15)
    assert losses[0] > losses[1] > loss(params, X[:3], T[:3])


@pytest.mark.parametrize("strategy", ["structured", "collocated"])
def test_losses_are_those_of_the_whole_batch(strategy):
    _, losses = train_steps(NET, X, T, BATCHES, strategy=strategy, learning_rate=0.5, memory=1)
    _, expected = train_steps(NET, X, T, BATCHES, strategy=strategy, learning_rate=0.5)
    np.testing.assert_allclose(losses, expected, rtol=1e-14)


@EACH_STRATEGY
def test_the_step_and_the_rate_are_those_that_were_asked_for(strategy):
    nets = [
        train_steps(NET, X, T, BATCHES, strategy=strategy, learning_rate=rate, h=h)[0]
        for rate, h in ((0.5, 1e-4), (0.5, 0.1), (0.0, 1e-4))
    ]
    apart = np.linalg.norm(nets[0].W1 - nets[1].W1)
    assert (apart == 0) if strategy == CLOSED_FORM else (apart > 1e-5)
    np.testing.assert_array_equal(nets[2].W1, NET.W1)


@EACH_STRATEGY
def test_arguments_are_left_as_they_are(strategy):
    params, x, t, batches = Params(*(p.copy() for p in NET)), X.copy(), T.copy(), BATCHES.copy()
    train_steps(params, x, t, batches, strategy=strategy, learning_rate=0.5)
    for array, before in zip((*params, x, t, batches), (*NET, X, T, BATCHES), strict=True):
        np.testing.assert_array_equal(array, before)


def test_one_hot_labels_and_lists_of_batches_train_the_same():
    options = {"strategy": "collocated", "learning_rate": 0.5}
    expected, _ = train_steps(NET, X, T, BATCHES, **options)
    got, _ = train_steps(NET, X, np.eye(3)[T], BATCHES.tolist(), **options)
    np.testing.assert_array_equal(got.W1, expected.W1)


@pytest.mark.parametrize("strategy", ["batched", "structured", "collocated"])
def test_memory_reaches_the_gradient(strategy):
    x, t = RNG.random((500, 30)), RNG.integers(0, 5, 500)
    net, batches = init(30, 2, 5, seed=0), np.arange(500)[None]
    peaks = []
    for memory in (1e8, 1e8, 50_000):  # what a first call leaves behind is not its work
        tracemalloc.start()
        train_steps(net, x, t, batches, strategy=strategy, learning_rate=0.5, memory=memory)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 0.7 * peaks[1]


@pytest.mark.parametrize(("last", "steps"), [(np.inf, 3), (np.nan, 3), (1.0, 5)])
def test_no_step_is_taken_from_weights_that_are_not_finite(last, steps):
    """The largest finite weight is what the training is planned again for."""
    moves = iter((-2.0, 3.0, last, 0.0, 0.0))

    def loss_and_gradient(params, x, labels):
        return x.sum() + labels.sum(), Params(
            *map(np.zeros_like, params[:2]), next(moves) * np.ones((4, 3)), np.ones(3)
        )

    net = NET._replace(W2=np.ones((4, 3)))
    (params, losses), max_abs_W2 = descend(loss_and_gradient, net, X, T, BATCHES, 2.0)
    assert max_abs_W2 == 5
    assert np.isfinite(params.W2).all() == (steps == 5)
    np.testing.assert_array_equal(params.b2, NET.b2 - 2.0 * steps)
    np.testing.assert_array_equal(losses[:steps], [X[batch].sum() + T[batch].sum() for batch in BATCHES[:steps]])
    assert np.isnan(losses[steps:]).all()


@pytest.mark.parametrize(("batches", "got"), [([0, 1], "int64 (2,)"), ([[]], "float64 (1, 0)")])
def test_bad_batches_are_refused(batches, got):
    with pytest.raises(ValueError, match=r"^`batches` must be a non-empty \(K, B\) array") as caught:
        train_steps(NET, X, T, batches, strategy="collocated", learning_rate=0.5)
    assert str(caught.value).endswith(f"got {got}.")


def test_a_learning_rate_past_the_dtype_is_refused():
    net, x = init(2, 2, 2, seed=0, dtype="float32"), np.ones((1, 2), np.float32)
    with pytest.raises(ValueError, match=r"^`learning_rate` must be a number of float32, got 1e\+39\.$"):
        train_steps(net, x, [0], [[0]], strategy="collocated", learning_rate=1e39)


@pytest.mark.parametrize("strategy", ["fast", "Loop", "", "closed_form", None, 0, GRADIENTS["loop"], ["loop"]])
def test_another_strategy_is_refused(strategy):
    known = "loop, batched, structured, collocated, closed form"
    with pytest.raises(ValueError, match=rf"^`strategy` must be one of {known}, got .+\.$") as caught:
        train_steps(NET, X, T, BATCHES, strategy=strategy, learning_rate=0.5)
    assert str(caught.value).endswith(f"got {shown(strategy)}.")


@pytest.mark.parametrize("strategy", GRADIENTS)
@pytest.mark.parametrize(("dtype", "h"), [("float64", 1e-17), ("float32", 1e-9)])
def test_steps_that_move_no_parameter_are_refused_where_one_is_moved(strategy, dtype, h):
    params, x = cast(dtype)
    options = {"strategy": strategy, "learning_rate": 0.5, "h": h}
    if strategy in ("loop", "batched"):
        with pytest.raises(ValueError, match=rf"^`h` must be above .*, half the spacing of {dtype} "):
            train_steps(params, x, T, BATCHES, **options)
    else:
        assert train_steps(params, x, T, BATCHES, **options)[1].dtype == dtype


@pytest.mark.slow
@DTYPES
def test_1000_steps_on_digits_grow_apart_only_by_rounding(dtype):
    data = datasets.load("digits", dtype=dtype)
    batches = np.random.default_rng(0).integers(0, len(data.x_train), (1000, 20))
    options = {"learning_rate": 0.3}
    net = init(64, 10, 10, 0.3, seed=0, dtype=dtype)
    (expected, losses), (got, other_losses) = (
        train_steps(net, data.x_train, data.t_train, batches, strategy=strategy, **options)
        for strategy in ("structured", "collocated")
    )
    # Each step rounds the weights once on either side, as often up as down: about sqrt(1000) = 32 roundings. Measured:
    # at most 15 of weights and 8 of losses, and as many between two runs of `structured` on reordered mini-batches.
    rounding = np.finfo(dtype).eps / 2
    for g, e in zip(got, expected, strict=True):
        assert 0 < np.linalg.norm(g - e) <= 64 * rounding * np.linalg.norm(e)
    np.testing.assert_allclose(other_losses, losses, rtol=0, atol=64 * rounding)
    assert losses[-50:].mean() < 0.3 < 2 < losses[0]
