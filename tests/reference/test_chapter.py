"""The chapter's class: in NumPy, and on each backend."""

import functools
import inspect
from types import SimpleNamespace

import numpy as np
import pytest

import oracle
import ports
from comparison.conformance.problems import subjects
from ports import numpy_port
from reference import chapter, datasets
from reference.two_layer_net import Params, init

RNG = np.random.default_rng(0)
X, T = RNG.random((6, 5)), np.array([0, 2, 1, 1, 0, 2])
ONE_HOT = np.eye(3)[T]


@pytest.fixture(params=[chapter.TwoLayerNet, ports.TwoLayerNet], ids=["reference", "ports"])
def network_class(request):
    return request.param


def net_of(network_class, **options):
    return network_class(5, 4, 3, 1.0, seed=1, **options)


def on_backend(backend, **options):
    return net_of(ports.TwoLayerNet, backend=backend, **options)


def numpy_with(**members):
    """Replace members of NumPy's port."""
    return SimpleNamespace(**vars(numpy_port) | members)


# --- what both classes promise


def test_the_signatures_are_the_chapters(network_class):
    parameters = inspect.signature(network_class).parameters
    books = {name: p.default for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    empty = inspect.Parameter.empty
    assert books == {"input_size": empty, "hidden_size": empty, "output_size": empty, "weight_init_std": 0.01}
    assert {p.kind for name, p in parameters.items() if name not in books} == {inspect.Parameter.KEYWORD_ONLY}
    for method in ("loss", "accuracy", "numerical_gradient", "gradient"):
        assert list(inspect.signature(getattr(network_class, method)).parameters) == ["self", "x", "t"]
    assert list(inspect.signature(network_class.predict).parameters) == ["self", "x"]


def test_params_and_gradients_are_dicts_of_the_chapters_keys_and_shapes(network_class):
    network = net_of(network_class)
    shapes = {"W1": (5, 4), "b1": (4,), "W2": (4, 3), "b2": (3,)}
    for arrays in (network.params, network.numerical_gradient(X, T), network.gradient(X, T)):
        assert {name: array.shape for name, array in arrays.items()} == shapes
        assert list(arrays) == list(shapes)


def test_a_batch_gives_rows_of_probabilities_and_python_floats(network_class):
    network = net_of(network_class)
    y = network.predict(X)
    assert y.shape == (6, 3)
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-15)
    assert isinstance(network.loss(X, T), float)
    assert network.accuracy(X, T) == np.mean(y.argmax(axis=1) == T)
    assert network.accuracy(X, y.argmax(axis=1)) == 1


@pytest.mark.parametrize("key", ["W1", "b1", "W2", "b2"])
def test_an_update_in_place_takes_effect(network_class, key):
    network = net_of(network_class)
    before = network.loss(X, T)
    network.params[key] -= 0.1 * network.numerical_gradient(X, T)[key]
    assert network.loss(X, T) < before


def test_the_order_of_the_keys_is_arbitrary(network_class):
    network = net_of(network_class)
    before = network.loss(X, T)
    network.params = {key: network.params[key] for key in ("b2", "W2", "b1", "W1")}
    assert network.loss(X, T) == before


def test_one_hot_labels_mean_the_same_bits(network_class):
    network = net_of(network_class)
    assert network.loss(X, ONE_HOT) == network.loss(X, T)
    assert network.accuracy(X, ONE_HOT) == network.accuracy(X, T)
    for method in (network.numerical_gradient, network.gradient):
        for a, b in zip(method(X, ONE_HOT).values(), method(X, T).values(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("strategy", ["loop", "batched", "structured", "collocated"])
def test_the_numerical_gradient_is_close_to_the_closed_form(network_class, strategy):
    network = net_of(network_class, strategy=strategy)
    exact = network.gradient(X, T)
    for name, numerical in network.numerical_gradient(X, T).items():
        np.testing.assert_allclose(numerical, exact[name], rtol=0, atol=1e-9)


def test_the_step_is_the_one_that_was_asked_for(network_class):
    network = net_of(network_class, h=0.3, strategy="structured")
    exact = oracle.central_differences(Params(**network.params), X, T, 0.3)
    for g, e in zip(network.numerical_gradient(X, T).values(), exact, strict=True):
        np.testing.assert_allclose(g, e, rtol=0, atol=1e-15)


def test_float32_inputs_are_accepted_and_count_as_what_they_are(network_class):
    network, x = net_of(network_class), X.astype(np.float32)
    assert network.loss(x, T) == network.loss(x.astype(np.float64), T)
    assert network.numerical_gradient(x, T)["W1"].dtype == np.float64


def test_a_seed_is_reproducible_and_leaves_numpys_generator_alone(network_class):
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    first, second, unseeded = net_of(network_class), net_of(network_class), network_class(5, 4, 3, 1.0)
    np.testing.assert_array_equal(state, np.random.get_state()[1])
    np.testing.assert_array_equal(first.params["W1"], second.params["W1"])
    assert not np.array_equal(unseeded.params["W1"], network_class(5, 4, 3, 1.0).params["W1"])
    with pytest.raises(TypeError):
        network_class(5, 4, 3, 0.01, 1)


def test_the_initial_net_is_that_of_init(network_class):
    network = network_class(5, 4, 3, 0.5, seed=1)
    for got, expected in zip(network.params.values(), init(5, 4, 3, 0.5, seed=1), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_an_unknown_strategy_is_refused(network_class):
    rule = r"^`strategy` must be one of loop, batched, structured, collocated, got 'backprop'\.$"
    with pytest.raises(ValueError, match=rule):
        net_of(network_class, strategy="backprop")


@pytest.mark.parametrize("strategy", ["x", ["loop"], None])
def test_a_strategy_that_is_assigned_is_checked(network_class, strategy):
    net = net_of(network_class)
    net.strategy = strategy
    with pytest.raises(ValueError, match=r"^`strategy` must be one of loop, .*, got .*\.$"):
        net.numerical_gradient(X, T)


@pytest.mark.parametrize("change", [lambda p: {"W1": p["W1"]}, lambda p: Params(**p), lambda p: None])
def test_params_that_are_assigned_are_checked(network_class, change):
    net = net_of(network_class)
    net.params = change(net.params)
    for method in (net.loss, net.gradient, net.numerical_gradient):
        with pytest.raises(ValueError, match=r"^`params` must be a dict of W1, b1, W2, b2, got .*\.$"):
            method(X, T)


def test_a_step_that_is_no_step_is_refused(network_class):
    with pytest.raises(ValueError, match=r"^`h` must be from 1e-20 to 1, got 0\.$"):
        net_of(network_class, h=0).numerical_gradient(X, T)


def test_inputs_that_are_no_real_numbers_are_refused(network_class):
    with pytest.raises(ValueError, match=r"^`x` must hold real numbers, got complex128\.$"):
        net_of(network_class).loss(X.astype(complex), T)
    with pytest.raises(ValueError, match=r"^`x` must have no mask, got a numpy\.ma\.MaskedArray\.$"):
        net_of(network_class).predict(np.ma.array(X, mask=X > 0.5))


def test_a_single_sample_is_a_batch_of_one(network_class):
    network = net_of(network_class)
    np.testing.assert_array_equal(network.predict(X[0]), network.predict(X[:1])[0])
    for label in (T[0], ONE_HOT[0]):
        assert network.loss(X[0], label) == network.loss(X[:1], T[:1])
        assert network.accuracy(X[0], label) == network.accuracy(X[:1], T[:1])
        for name, gradient in network.numerical_gradient(X[0], label).items():
            np.testing.assert_array_equal(gradient, network.numerical_gradient(X[:1], T[:1])[name])


# --- on a backend


def test_on_numpy_it_is_the_references_class():
    reference, port = net_of(chapter.TwoLayerNet), on_backend("numpy")
    assert isinstance(port, chapter.TwoLayerNet)
    assert (port.loss(X, T), port.accuracy(X, T)) == (reference.loss(X, T), reference.accuracy(X, T))
    np.testing.assert_array_equal(port.predict(X), reference.predict(X))
    for name, gradient in reference.gradient(X, T).items():
        np.testing.assert_array_equal(port.gradient(X, T)[name], gradient)
    for name, gradient in reference.numerical_gradient(X, T).items():
        np.testing.assert_array_equal(port.numerical_gradient(X, T)[name], gradient)


def test_a_backend_is_a_name_or_a_module():
    np.testing.assert_array_equal(on_backend("numpy").predict(X), on_backend(numpy_port).predict(X))
    blind = numpy_with(predict=lambda params, x: np.zeros((len(x), 3)))
    assert not on_backend(blind).predict(X).any()


@pytest.mark.parametrize(("devices", "device"), [(("gpu", "cpu"), "cpu"), (("gpu",), "auto")])
def test_arrays_are_on_the_host_or_the_first_device(devices, device):
    asked = []

    def from_numpy(array, *, dtype, device):
        asked.append(device)
        return array

    on_backend(numpy_with(devices=lambda: devices, from_numpy=from_numpy)).predict(X)
    assert set(asked) == {device}


def differences_of_h(params, x, t, *, h=1e-4, memory=2**28):
    return Params(*(np.full_like(p, h) for p in params))


def test_each_strategy_is_the_backends():
    gradients = {**numpy_port.GRADIENTS, "collocated": differences_of_h}
    gradient = on_backend(numpy_with(GRADIENTS=gradients), h=0.25).numerical_gradient(X, T)
    assert all((g == 0.25).all() for g in gradient.values())


def test_a_backend_may_have_a_strategy_of_its_own():
    gradients = {**numpy_port.GRADIENTS, "its own": differences_of_h}
    gradient = on_backend(numpy_with(GRADIENTS=gradients), strategy="its own", h=0.25).numerical_gradient(X, T)
    assert all((g == 0.25).all() for g in gradient.values())


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match=r"^A backend must be one of numpy.*, got 'nope'\.$"):
        on_backend("nope")


# --- the chapter's listing


def test_the_chapters_listing_learns_digits():
    run_listing(chapter.TwoLayerNet)


@subjects("float64")
def test_the_chapters_listing_learns_digits_on_each_backend(subject):
    run_listing(functools.partial(ports.TwoLayerNet, backend=subject.port))


def run_listing(network_class):
    x_train, t_train, x_test, t_test = datasets.load("digits", dtype="float32")
    t_train, t_test = np.eye(10)[t_train], np.eye(10)[t_test]
    np.random.seed(0)

    train_loss_list, train_acc_list, test_acc_list = [], [], []
    iters_num, train_size, batch_size, learning_rate = 100, x_train.shape[0], 100, 2.0
    iter_per_epoch = max(train_size // batch_size, 1)
    network = network_class(input_size=64, hidden_size=20, output_size=10, seed=0)
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
