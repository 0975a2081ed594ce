"""The net as functions, and the chapter's class as the chapter uses it."""

import functools
import inspect
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given

import oracle
from comparison.agreement.bounds import gradient_bound
from ports import numpy_port
from problems import SHAPES, problems, subjects
from reference import datasets
from reference.two_layer_net import (
    Params,
    TwoLayerNet,
    accuracy,
    gradient,
    init,
    largest,
    loss,
    closed_form,
    predict,
)

SMALL = tuple(shape for shape in SHAPES if max(shape) < 8)
RNG = np.random.default_rng(0)
X, T = RNG.random((6, 5)), np.array([0, 2, 1, 1, 0, 2])
ONE_HOT = np.eye(3)[T]


def net(**options):
    return TwoLayerNet(5, 4, 3, 1.0, seed=1, **options)


# --- the functions


@pytest.mark.parametrize("seed", range(5))
def test_the_closed_form_is_the_derivative(seed):
    rng = np.random.default_rng(seed)
    params = Params(*(rng.standard_normal(shape) for shape in ((5, 4), 4, (4, 3), 3)))
    got, exact = gradient(params, X, T), oracle.derivative(params, X, T)
    for g, e in zip(got, exact, strict=True):
        assert np.linalg.norm(g - e) <= 1e-14 * np.linalg.norm(e)


@given(problem=problems(shapes=SMALL))
def test_the_closed_form_is_the_derivative_of_extreme_nets(problem):
    got, exact = gradient(*problem), oracle.derivative(*problem)
    for g, e, bound in zip(got, exact, gradient_bound(problem, "float64", None, 0.0), strict=True):
        assert (np.abs(g - e) <= bound + 1e-60).all()  # of a derivative below that the oracle has too few digits


@pytest.mark.parametrize("b2", [[30, 0, -30], [-30, 0, 30]])
def test_the_closed_form_of_sure_nets_keeps_its_digits(b2):
    params, t = init(5, 4, 3, seed=0)._replace(b2=np.array(b2, float)), np.zeros(6, int)
    for g, e in zip(gradient(params, X, t), oracle.derivative(params, X, t), strict=True):
        assert np.linalg.norm(g - e) <= 1e-14 * np.linalg.norm(e)


def test_the_loss_is_the_definition():
    params = init(5, 4, 3, 1.0, seed=2)
    exact = float(oracle.loss(Params(*map(oracle.exactly, params)), oracle.exactly(X), T))
    assert loss(params, X, T) == pytest.approx(exact, rel=1e-15)


def test_the_loss_that_comes_with_the_gradient_is_the_loss():
    params = init(5, 4, 3, 1.0, seed=2)
    assert closed_form(params, X, T)[0] == pytest.approx(loss(params, X, T), rel=1e-15)


@pytest.mark.parametrize(("values", "size"), [([-3, 2], 3), ([1, 4], 4), ([-2, -1], 2), ([0, 0], 0)])
def test_the_largest_size_is_of_either_sign(values, size):
    assert largest(np.array(values, float)) == size
    assert np.isnan(largest(np.array([*values, np.nan])))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_everything_has_the_dtype_of_the_net(dtype):
    params, x = init(5, 4, 3, seed=0, dtype=dtype), X.astype(dtype)
    results = (predict(params, x), loss(params, x, T), accuracy(params, x, T), *gradient(params, x, T))
    assert {str(result.dtype) for result in results} == {dtype}


def test_a_seed_means_the_same_net_rounded_in_float32():
    for double, single in zip(init(5, 4, 3, seed=3), init(5, 4, 3, seed=3, dtype="float32"), strict=True):
        np.testing.assert_array_equal(double.astype("float32"), single)


def test_the_initial_net_is_the_chapters():
    W1, b1, W2, b2 = init(200, 100, 50, seed=0)
    assert (W1.shape, b1.shape, W2.shape, b2.shape) == ((200, 100), (100,), (100, 50), (50,))
    assert not b1.any()
    assert not b2.any()
    for weights in (W1, W2):
        assert weights.std() == pytest.approx(0.01, rel=0.05)
        assert abs(weights.mean()) < 0.0005


SIZES = {"input_size": 3, "hidden_size": 2, "output_size": 2}


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "3", None, np.array([3])])
@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_is_no_number_of_units_is_refused(name, size):
    with pytest.raises(
        ValueError, match=rf"^`{name}` must be a whole number, at least 1, got {re.escape(repr(size))}\.$"
    ):
        init(**(SIZES | {name: size}))


@pytest.mark.parametrize("std", [-0.01, float("nan"), float("inf"), "0.01", None, True])
def test_a_spread_that_is_no_number_is_refused(std):
    with pytest.raises(ValueError, match=rf"^`weight_init_std` must be a finite number, at least 0, got {std!r}\.$"):
        init(**SIZES, weight_init_std=std)


@pytest.mark.parametrize("seed", [-1, 0.5, "0", True])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(ValueError, match=rf"^`seed` must be a whole number, at least 0, or None, got {seed!r}\.$"):
        init(**SIZES, seed=seed)


def test_another_dtype_is_refused():
    with pytest.raises(ValueError, match=r"^`dtype` must be one of float64, float32, got 'float16'\.$"):
        init(3, 2, 2, dtype="float16")


# --- the chapter's class


def test_the_signatures_are_the_chapters():
    parameters = inspect.signature(TwoLayerNet).parameters
    chapter = {name: p.default for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    empty = inspect.Parameter.empty
    assert chapter == {"input_size": empty, "hidden_size": empty, "output_size": empty, "weight_init_std": 0.01}
    assert {p.kind for name, p in parameters.items() if name not in chapter} == {inspect.Parameter.KEYWORD_ONLY}
    for method in ("loss", "accuracy", "numerical_gradient", "gradient"):
        assert list(inspect.signature(getattr(TwoLayerNet, method)).parameters) == ["self", "x", "t"]
    assert list(inspect.signature(TwoLayerNet.predict).parameters) == ["self", "x"]


def test_params_and_gradients_are_dicts_of_the_chapters_keys_and_shapes():
    network = net()
    shapes = {"W1": (5, 4), "b1": (4,), "W2": (4, 3), "b2": (3,)}
    for arrays in (network.params, network.numerical_gradient(X, T), network.gradient(X, T)):
        assert {name: array.shape for name, array in arrays.items()} == shapes
        assert list(arrays) == list(shapes)


def test_a_batch_gives_rows_of_probabilities_and_python_floats():
    network = net()
    y = network.predict(X)
    assert y.shape == (6, 3)
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-15)
    assert isinstance(network.loss(X, T), float)
    assert network.accuracy(X, T) == np.mean(y.argmax(axis=1) == T)
    assert network.accuracy(X, y.argmax(axis=1)) == 1


@pytest.mark.parametrize("key", ["W1", "b1", "W2", "b2"])
def test_an_update_in_place_takes_effect(key):
    network = net()
    before = network.loss(X, T)
    network.params[key] -= 0.1 * network.numerical_gradient(X, T)[key]
    assert network.loss(X, T) < before


def test_the_order_of_the_keys_is_arbitrary():
    network = net()
    before = network.loss(X, T)
    network.params = {key: network.params[key] for key in ("b2", "W2", "b1", "W1")}
    assert network.loss(X, T) == before


def test_one_hot_labels_mean_the_same_bits():
    network = net()
    assert network.loss(X, ONE_HOT) == network.loss(X, T)
    assert network.accuracy(X, ONE_HOT) == network.accuracy(X, T)
    for method in (network.numerical_gradient, network.gradient):
        for a, b in zip(method(X, ONE_HOT).values(), method(X, T).values(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("strategy", ["loop", "batched", "structured", "collocated"])
def test_the_numerical_gradient_is_close_to_the_closed_form(strategy):
    network = net(strategy=strategy)
    exact = network.gradient(X, T)
    for name, numerical in network.numerical_gradient(X, T).items():
        np.testing.assert_allclose(numerical, exact[name], rtol=0, atol=1e-9)


def test_the_step_is_the_one_that_was_asked_for():
    network = net(h=0.3, strategy="structured")
    exact = oracle.central_differences(Params(**network.params), X, T, 0.3)
    for g, e in zip(network.numerical_gradient(X, T).values(), exact, strict=True):
        np.testing.assert_allclose(g, e, rtol=0, atol=1e-15)


def test_float32_inputs_are_accepted_and_count_as_what_they_are():
    network, x = net(), X.astype(np.float32)
    assert network.loss(x, T) == network.loss(x.astype(np.float64), T)
    assert network.numerical_gradient(x, T)["W1"].dtype == np.float64


def test_a_seed_is_reproducible_and_leaves_numpys_generator_alone():
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    first, second, unseeded = net(), net(), TwoLayerNet(5, 4, 3, 1.0)
    np.testing.assert_array_equal(state, np.random.get_state()[1])
    np.testing.assert_array_equal(first.params["W1"], second.params["W1"])
    assert not np.array_equal(unseeded.params["W1"], TwoLayerNet(5, 4, 3, 1.0).params["W1"])
    with pytest.raises(TypeError):
        TwoLayerNet(5, 4, 3, 0.01, 1)


def test_a_backend_is_a_name_or_a_module():
    np.testing.assert_array_equal(net(backend="numpy").predict(X), net(backend=numpy_port).predict(X))
    blind = SimpleNamespace(**{**vars(numpy_port), "predict": lambda params, x: np.zeros((len(x), 3))})
    assert not net(backend=blind).predict(X).any()


def test_the_initial_net_is_that_of_init():
    network = TwoLayerNet(5, 4, 3, 0.5, seed=1)
    for got, expected in zip(network.params.values(), init(5, 4, 3, 0.5, seed=1), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("devices", "device"), [(("gpu", "cpu"), "cpu"), (("gpu",), "auto")])
def test_arrays_are_on_the_host_or_the_first_device(devices, device):
    asked = []

    def from_numpy(array, *, dtype, device):
        asked.append(device)
        return array

    port = SimpleNamespace(**{**vars(numpy_port), "devices": lambda: devices, "from_numpy": from_numpy})
    net(backend=port).predict(X)
    assert set(asked) == {device}


def test_each_strategy_is_the_backends():
    def differences(params, x, t, *, h):
        return Params(*(np.full_like(p, h) for p in params))

    port = SimpleNamespace(**{**vars(numpy_port), "GRADIENTS": {"mine": differences}})
    assert (net(backend=port, strategy="mine", h=0.25).numerical_gradient(X, T)["b2"] == 0.25).all()


def test_an_unknown_strategy_is_refused():
    rule = r"^`strategy` must be one of loop, batched, structured, collocated, got 'backprop'\.$"
    with pytest.raises(ValueError, match=rule):
        net(strategy="backprop")


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match=r"^A backend must be one of numpy.*, got 'nope'\.$"):
        net(backend="nope")


def test_a_step_that_is_no_step_is_refused():
    with pytest.raises(ValueError, match=r"^`h` must be from 1e-20 to 1, got 0\.$"):
        net(h=0).numerical_gradient(X, T)


# --- the chapter's listing


@subjects("float64")
def test_the_chapters_listing_learns_digits(subject):
    network_class = functools.partial(TwoLayerNet, backend=subject.port, seed=0)
    x_train, t_train, x_test, t_test = datasets.load("digits", dtype="float32")
    t_train, t_test = np.eye(10)[t_train], np.eye(10)[t_test]
    np.random.seed(0)

    train_loss_list, train_acc_list, test_acc_list = [], [], []
    iters_num, train_size, batch_size, learning_rate = 100, x_train.shape[0], 100, 2.0
    iter_per_epoch = max(train_size // batch_size, 1)
    network = network_class(input_size=64, hidden_size=20, output_size=10)
    for i in range(iters_num):
        batch_mask = np.random.choice(train_size, batch_size)
        x_batch, t_batch = x_train[batch_mask], t_train[batch_mask]
        grad = network.numerical_gradient(x_batch, t_batch)
        for key in ("W1", "b1", "W2", "b2"):
            network.params[key] -= learning_rate * grad[key]
        train_loss_list.append(network.loss(x_batch, t_batch))
        if i % iter_per_epoch == 0:
            train_acc_list.append(network.accuracy(x_train, t_train))
            test_acc_list.append(network.accuracy(x_test, t_test))

    assert len(train_loss_list) == iters_num
    assert train_loss_list[0] == pytest.approx(np.log(10), abs=0.1)
    assert train_loss_list[-1] < 1.0
    assert len(train_acc_list) == len(test_acc_list) == 8
    assert min(train_acc_list[-1], test_acc_list[-1]) > 0.7
