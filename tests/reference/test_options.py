"""The options of a gradient and of training: each has its range, and what lies beyond is refused in a sentence."""

import math

import numpy as np
import pytest

from net_and_batch import ARRAYS, NET, T, X, net_with, refuses
from reference.defaults import CLOSED_FORM
from reference.descent import train_steps
from reference.numerical_gradient import GRADIENTS, batched, loop
from reference.two_layer_net import Params
from reference.validation import (
    check_batches,
    check_entries,
    check_h,
    check_h_moves,
    check_learning_rate,
    check_memory,
    check_seed,
    check_size,
    check_strategy,
    check_weight_init_std,
    shown,
)

EACH_STRATEGY = pytest.mark.parametrize("strategy", GRADIENTS.values(), ids=GRADIENTS)


# --- steps and budgets


@EACH_STRATEGY
@pytest.mark.parametrize("h", [0, -1e-4, math.nan, math.inf, 1.5, True, "1e-4", None])
def test_the_step_is_above_0_and_at_most_1(strategy, h):
    with refuses(f"`h` must be from 1e-20 to 1, got {h!r}."):
        strategy(NET, X, T, h=h)


@pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning")
@EACH_STRATEGY
@pytest.mark.parametrize("h", [1, 1.0, np.float64(0.5), np.float32(0.5)])
def test_a_step_of_1_and_numpys_floats_are_steps(strategy, h):
    for g, e in zip(strategy(NET, X, T, h=h), strategy(NET, X, T, h=float(h)), strict=True):
        np.testing.assert_array_equal(g, e)


@pytest.mark.parametrize("strategy", [loop, batched])
@pytest.mark.parametrize(("name", "value"), [("W1", 1e13), ("b1", -1e13), ("W2", 1e13), ("b2", -1e13)])
def test_the_step_moves_the_largest_parameter(strategy, name, value):
    array = ARRAYS[name].copy()
    array.flat[0] = value
    sentence = (
        f"`h` must be above 0.000977, half the spacing of float64 at the largest parameter (1e+13 in `{name}`), "
        "so that p + h is not p, got 0.0001."
    )
    with refuses(sentence):
        strategy(*net_with(name, array), T)


@pytest.mark.parametrize("strategy", [loop, batched])
def test_the_step_moves_the_largest_parameter_in_its_own_dtype(strategy):
    params = Params(*(p.astype("float32") for p in NET))
    params.b1[0] = 1e4
    with pytest.raises(ValueError, match=r"^`h` must be above 0\.000488, half the spacing of float32 at .* `b1`\)"):
        strategy(params, X.astype("float32"), T)
    strategy(params, X.astype("float32"), T, h=1e-3)


@pytest.mark.parametrize("strategy", ["structured", "collocated"])
def test_what_moves_no_parameter_takes_any_size_of_it(strategy):
    params = NET._replace(b1=np.array([1e13, *NET.b1[1:]]))
    slopes = GRADIENTS[strategy](params, X, T)
    assert slopes.b1[0] == 0
    assert slopes.b1[1] != 0


@EACH_STRATEGY
@pytest.mark.parametrize("memory", [0, -1, math.nan, math.inf, "1", None])
def test_memory_is_a_positive_number_of_bytes(strategy, memory):
    with refuses(f"`memory` must be a positive number of bytes, got {memory!r}."):
        strategy(NET, X, T, memory=memory)


@pytest.mark.parametrize("strategy", [loop, batched])
@pytest.mark.parametrize(
    ("name", "at", "last"), [("W1", [0, 15], 14), ("b1", [-1], 4), ("W2", [1.0], 9), ("b2", [True], 1)]
)
def test_entries_are_flat_indices(strategy, name, at, last):
    entries = Params([], [], [], [])._replace(**{name: np.array(at)})
    with refuses(f"`entries` must be whole numbers from 0 to {last} for `{name}`, got {np.array(at).tolist()}."):
        strategy(NET, X, T, entries=entries)


def test_entries_are_indices_of_each_member():
    entries = check_entries(NET, [[0, 14], np.array([[0, 4]]), (9,), []])
    assert [at.dtype for at in entries] == [np.int64] * 4
    assert [at.tolist() for at in entries] == [[0, 14], [[0, 4]], [9], []]
    for at, p in zip(check_entries(NET, None), NET, strict=True):
        np.testing.assert_array_equal(at, np.arange(p.size).reshape(p.shape))


@pytest.mark.parametrize("entries", [3, "abcd", {}, [[0], [0], [0]], [[0]] * 5])
def test_entries_are_one_array_for_each_member(entries):
    with refuses(f"`entries` must hold an array for each of W1, b1, W2, b2, got {entries!r}."):
        check_entries(NET, entries)


def test_the_ends_of_a_range_belong_to_it_or_do_not():
    assert check_h(1e-20) == 1e-20
    assert check_memory(0.5) == 0
    assert check_size("hidden_size", 1) == 1
    assert check_weight_init_std(0) == 0
    assert check_seed(0) == 0
    magnitudes = {"W1": 1.0, "b1": 0.5, "W2": 0.5, "b2": 0.5}
    with refuses(
        "`h` must be above 1.11e-16, half the spacing of float64 at the largest parameter (1 in `W1`), "
        f"so that p + h is not p, got {2.0**-53!r}."
    ):
        check_h_moves(2.0**-53, magnitudes, "float64")
    check_h_moves(2.0**-53 * 1.01, magnitudes, "float64")


@pytest.mark.parametrize("check", [check_h, check_learning_rate, check_memory, check_weight_init_std])
@pytest.mark.parametrize("number", [10**400, -(10**400), 10**5000], ids=["10^400", "-10^400", "10^5000"])
def test_a_number_that_no_float_holds_is_refused(check, number):
    with pytest.raises(ValueError, match=r"^`\w+` must be .*, got (-?1000.*|a value of type int)\.$"):
        check(number)


@EACH_STRATEGY
def test_memory_may_be_a_small_int_of_numpys(strategy):
    for got, expected in zip(strategy(NET, X, T, memory=np.int8(100)), strategy(NET, X, T, memory=100), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("rate", [math.nan, math.inf, "0.1", None, True])
def test_the_learning_rate_is_finite(rate):
    with refuses(f"`learning_rate` must be a finite number, got {rate!r}."):
        check_learning_rate(rate)


@pytest.mark.parametrize(("rate", "dtype"), [(3.5e38, "float32"), (-1e39, "float32")])
def test_the_learning_rate_is_one_that_the_dtype_can_hold(rate, dtype):
    with refuses(f"`learning_rate` must be a number of {dtype}, got {rate!r}."):
        check_learning_rate(rate, dtype)
    largest = float(np.finfo(dtype).max)
    assert check_learning_rate(largest, dtype) == largest
    assert check_learning_rate(1e300) == 1e300  # float64 by default


# --- training


def steps(batches, **options):
    options = {"strategy": CLOSED_FORM, "learning_rate": 0.1, **options}
    return train_steps(NET, X, T, batches, **options)


@pytest.mark.parametrize(
    ("batches", "got"),
    [
        ([0, 1], "int64 (2,)"),
        ([[0.0]], "float64 (1, 1)"),
        ([[True]], "bool (1, 1)"),
        ([[]], "float64 (1, 0)"),
        (np.zeros((0, 4), int), "int64 (0, 4)"),
    ],
)
def test_batches_are_rows_of_indices(batches, got):
    with refuses(f"`batches` must be a non-empty (K, B) array of whole numbers, got {got}."):
        steps(batches)


@pytest.mark.parametrize(("batches", "got"), [([[0, 4]], "0 to 4"), ([[0, 1], [-1, 0]], "-1 to 1")])
def test_batches_stay_within_the_data(batches, got):
    with refuses(f"`batches` must hold sample indices from 0 to 3, got {got}."):
        steps(batches)


def test_batches_become_indices():
    batches = check_batches([[0, 3], [1, 2]], 4)
    assert batches.dtype == np.int64
    assert batches.tolist() == [[0, 3], [1, 2]]


def test_a_strategy_is_a_name_of_the_ports_or_the_closed_form():
    assert [check_strategy(name, ("loop", "fast")) for name in ("loop", "fast", "closed form")] == [
        "loop",
        "fast",
        CLOSED_FORM,
    ]
    assert check_strategy("loop", GRADIENTS) == "loop"


@pytest.mark.parametrize("strategy", ["batched", "Loop", "", None, 1, True, loop, ["loop"], {}, np.array("loop")])
def test_another_strategy_is_refused(strategy):
    with refuses(f"`strategy` must be one of loop, fast, closed form, got {shown(strategy)}."):
        check_strategy(strategy, ("loop", "fast"))


def test_training_checks_all_its_arguments():
    with refuses("`strategy` must be one of loop, batched, structured, collocated, closed form, got 'fast'."):
        steps([[0]], strategy="fast")
    with refuses("`h` must be from 1e-20 to 1, got 0."):
        steps([[0]], h=0)
    with refuses("`memory` must be a positive number of bytes, got 0."):
        steps([[0]], memory=0)
    with refuses("`x` must be finite, but holds nan."):
        train_steps(NET, X * math.nan, T, [[0]], strategy=CLOSED_FORM, learning_rate=0.1)
    with refuses("`t` must hold whole class numbers from 0 to 1, got 2 at 0."):
        train_steps(NET, X, T + 2, [[1]], strategy=CLOSED_FORM, learning_rate=0.1)
