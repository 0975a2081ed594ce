"""The net as functions: predictions, loss, accuracy, the closed form, and the initial net."""

import re

import numpy as np
import pytest
from hypothesis import given

import oracle
from comparison.agreement.bounds import Bounds
from comparison.conformance.problems import SHAPES, problems
from reference.two_layer_net import Params, accuracy, closed_form, gradient, init, loss, max_abs, predict

SMALL = tuple(shape for shape in SHAPES if max(shape) < 8)
RNG = np.random.default_rng(0)
X, T = RNG.random((6, 5)), np.array([0, 2, 1, 1, 0, 2])


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
    for g, e, bound in zip(got, exact, Bounds(problem, "float64").gradient(None, 0.0), strict=True):
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


@pytest.mark.parametrize(("values", "magnitude"), [([-3, 2], 3), ([1, 4], 4), ([-2, -1], 2), ([0, 0], 0)])
def test_the_largest_magnitude_is_of_either_sign(values, magnitude):
    assert max_abs(np.array(values, float)) == magnitude
    assert np.isnan(max_abs(np.array([*values, np.nan])))


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


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_no_array_has_is_refused(name):
    with pytest.raises(ValueError, match=rf"^`{name}` must be at most 536,870,912, got 4611686018427387904\.$"):
        init(**(SIZES | {name: 2**62}))


@pytest.mark.parametrize("std", [-0.01, float("nan"), float("inf"), "0.01", None, True])
def test_a_standard_deviation_that_is_no_number_is_refused(std):
    with pytest.raises(ValueError, match=rf"^`weight_init_std` must be a finite number, at least 0, got {std!r}\.$"):
        init(**SIZES, weight_init_std=std)


@pytest.mark.parametrize("seed", [0.5, "0", True])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(ValueError, match=rf"^`seed` must be a whole number or None, got {seed!r}\.$"):
        init(**SIZES, seed=seed)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match=r"^`seed` must not be negative, got -1\.$"):
        init(**SIZES, seed=-1)


def test_another_dtype_is_refused():
    with pytest.raises(ValueError, match=r"^`dtype` must be one of float64, float32, got 'float16'\.$"):
        init(3, 2, 2, dtype="float16")
