"""The three functions: the book's values, at full relative accuracy, on any finite input."""

import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from reference.functions import DELTA, cross_entropy_error, sigmoid, sigmoids, softmax
from reference.validation import unit_roundoff

DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
BOOK_Y = np.array([[0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0]])


@pytest.mark.parametrize(("dtype", "largest"), [("float64", 700), ("float32", 85)])
def test_sigmoid_is_accurate_relative_to_its_value(dtype, largest):
    a = np.concatenate([np.linspace(-largest, largest, 701), np.linspace(-2, 2, 301)]).astype(dtype)
    with mp.workdps(40):
        exact = oracle.exactly(a)
        errors = [abs(mp.mpf(float(got)) / oracle.sigmoid(e) - 1) for got, e in zip(sigmoid(a), exact, strict=True)]
    assert max(errors) <= 5 * unit_roundoff(dtype)  # exp takes up to two, the sum and the quotient one each


@DTYPES
def test_sigmoids_are_those_of_an_argument_and_its_negative(dtype):
    a = np.linspace(-40, 40, 161).astype(dtype)
    for got, expected in zip(sigmoids(a), (sigmoid(a), sigmoid(-a)), strict=True):
        np.testing.assert_array_equal(got, expected)


@DTYPES
def test_functions_keep_the_dtype(dtype):
    a = np.ones((2, 3), dtype)
    assert sigmoid(a).dtype == softmax(a).dtype == cross_entropy_error(a, np.zeros(2, int)).dtype == dtype


@DTYPES
def test_extreme_inputs_neither_overflow_nor_warn(dtype):
    largest = np.finfo(dtype).max
    a = np.array([-largest, -1e4, 0, 1e4, largest], dtype)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        np.testing.assert_array_equal(sigmoid(a), np.array([0, 0, 0.5, 1, 1], dtype))
        np.testing.assert_array_equal(softmax(a[:4]), np.array([0, 0, 0, 1], dtype))
        np.testing.assert_array_equal(softmax(a[1:]), np.array([0, 0, 0, 1], dtype))


@DTYPES
def test_sigmoid_keeps_a_tiny_tail(dtype):
    assert 0 < sigmoid(np.array(-80, dtype)) < 2e-35


@DTYPES
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 1.0, 30.0, 1e30]))
def test_softmax_sums_to_1(dtype, seed, scale):
    a = (scale * np.random.default_rng(seed).standard_normal((4, 10))).astype(dtype)
    y = softmax(a)
    assert (y >= 0).all()
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=0, atol=10 * unit_roundoff(dtype))


def test_softmax_is_along_the_last_axis_and_blind_to_a_constant():
    a = np.array([[[1.0, 2.0, 4.0], [0.0, -1.0, 0.5]]])
    y = softmax(a)
    np.testing.assert_array_equal(y[0, 1], softmax(a[0, 1]))
    np.testing.assert_array_equal(y, softmax(a + 1024))


def test_the_book_values():
    np.testing.assert_allclose(sigmoid(np.array([-1.0, 1.0, 2.0])), [0.26894142, 0.73105858, 0.88079708], rtol=2e-8)
    np.testing.assert_allclose(softmax(np.array([0.3, 2.9, 4.0])), [0.01821127, 0.24519181, 0.73659691], rtol=3e-7)
    large = [9.99954600e-01, 4.53978686e-05, 2.06106005e-09]
    np.testing.assert_allclose(softmax(np.array([1010.0, 1000.0, 990.0])), large, rtol=2e-9)
    assert cross_entropy_error(BOOK_Y, np.array([2])) == pytest.approx(0.510825457099338, rel=1e-14)
    assert cross_entropy_error(BOOK_Y, np.array([0])) == pytest.approx(2.302584092994546, rel=1e-14)


@DTYPES
def test_the_loss_lies_between_minus_delta_and_16_118(dtype):
    certain = np.eye(2, dtype=dtype)
    best, worst = (float(cross_entropy_error(certain, np.array(t))) for t in ([0, 1], [1, 0]))
    assert best == pytest.approx(-1e-7, rel=1e-6 if dtype == "float64" else 0.2)
    assert worst == pytest.approx(16.118095650958319, rel=2 * unit_roundoff(dtype))


def test_the_loss_is_the_mean_over_the_samples_of_each_leading_index():
    y = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 4))
    t = np.array([0, 2, 1, 1])
    losses = cross_entropy_error(y, t)
    assert losses.shape == (2,)
    for got, rows in zip(losses, y, strict=True):
        terms = [math.log(row[k] + DELTA) for row, k in zip(rows, t, strict=True)]
        assert got == pytest.approx(-sum(terms) / 4, rel=1e-15)
