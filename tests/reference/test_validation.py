"""Each broken rule is one sentence with the value, raised before anything is touched."""

import math
import re
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from ports import numpy_port
from reference.defaults import CLOSED_FORM
from reference.descent import train_steps
from reference.numerical_gradient import GRADIENTS, batched, loop
from reference.two_layer_net import Params, accuracy, gradient, init, loss, max_abs, predict
from reference.validation import (
    check_batches,
    check_device,
    check_dtype,
    check_entries,
    check_h,
    check_h_moves,
    check_labels,
    check_learning_rate,
    check_memory,
    check_net,
    check_numbers,
    check_seed,
    check_size,
    check_strategy,
    check_weight_init_std,
    dtype_name,
    shown,
    unit_roundoff,
)

NET = init(3, 5, 2, 1.0, seed=0)
ARRAYS = {**NET._asdict(), "x": np.random.default_rng(0).random((4, 3))}
X, T = ARRAYS["x"], np.array([0, 1, 1, 0])
FUNCTIONS = {"loss": loss, "accuracy": accuracy, "gradient": gradient, **GRADIENTS}

EACH_STRATEGY = pytest.mark.parametrize("strategy", GRADIENTS.values(), ids=GRADIENTS)
EACH_ARRAY = pytest.mark.parametrize("name", ARRAYS)


def refuses(sentence):
    return pytest.raises(ValueError, match=f"^{re.escape(sentence)}$")


def net_with(name, array):
    """Return the net and the batch, one array of which is another."""
    *params, x = {**ARRAYS, name: array}.values()
    return Params(*params), x


# --- the net and the batch


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("W1", (4, 5), "`x` must have shape (4, 4) to fit W1 (4, 5) and W2 (5, 2), got (4, 3)."),
        ("b1", (4,), "`b1` must have shape (5,) to fit W1 (3, 5) and W2 (5, 2), got (4,)."),
        ("W2", (4, 2), "`W2` must have shape (5, 2) to fit W1 (3, 5) and W2 (4, 2), got (4, 2)."),
        ("b2", (1,), "`b2` must have shape (2,) to fit W1 (3, 5) and W2 (5, 2), got (1,)."),
        ("x", (4, 2), "`x` must have shape (4, 3) to fit W1 (3, 5) and W2 (5, 2), got (4, 2)."),
    ],
)
def test_shapes_fit_the_weights(name, shape, sentence):
    with refuses(sentence):
        loss(*net_with(name, np.zeros(shape)), T)


@pytest.mark.parametrize(
    ("name", "shape", "axes"),
    [("W1", (3,), 2), ("b1", (1, 5), 1), ("W2", (5, 2, 1), 2), ("b2", (), 1), ("x", (3,), 2), ("x", (0, 3), 2)],
)
def test_arrays_have_their_axes_and_are_not_empty(name, shape, axes):
    with refuses(f"`{name}` must have {axes} axes, none of them empty, got shape {shape}."):
        loss(*net_with(name, np.zeros(shape)), T)


@pytest.mark.parametrize("name", ["b1", "W2", "b2", "x"])
def test_mixed_dtypes_are_refused(name):
    sentence = (
        f"`{name}` must have the dtype of W1 (float64), got float32: mixed dtypes are refused, "
        "since the backends promote them differently."
    )
    with refuses(sentence):
        loss(*net_with(name, ARRAYS[name].astype("float32")), T)


@EACH_ARRAY
@pytest.mark.parametrize("dtype", ["float16", "int64", "complex128", "bool"])
def test_other_dtypes_are_refused(name, dtype):
    with refuses(f"`{name}` must be float32 or float64, got {dtype}."):
        loss(*net_with(name, ARRAYS[name].astype(dtype)), T)


@EACH_ARRAY
def test_what_is_no_array_is_refused(name):
    with refuses(f"`{name}` must be a numpy.ndarray (the port's from_numpy makes one), got builtins.list."):
        loss(*net_with(name, ARRAYS[name].tolist()), T)


@EACH_ARRAY
@pytest.mark.parametrize(("value", "shown"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "inf")])
def test_what_is_not_finite_is_refused(name, value, shown):
    array = ARRAYS[name].copy()
    array.flat[-1] = value
    with refuses(f"`{name}` must be finite, but holds {shown}."):
        loss(*net_with(name, array), T)


def test_an_array_type_is_named_by_its_package():
    own, other = (type("Array", (), {"__module__": f"{package}.parts.arrays"}) for package in ("own", "other"))
    with refuses("`W1` must be a own.Array (the port's from_numpy makes one), got other.Array."):
        check_net(Params(*(other() for _ in NET)), other(), own, lambda array: 1.0)


def test_arrays_are_on_one_device():
    class Array(NamedTuple):
        shape: tuple[int, ...]
        device: str = "cpu"
        dtype: str = "float64"

    params, x = Params(*(Array(p.shape) for p in NET)), Array(X.shape)
    check_net(params, x, Array, lambda array: 1.0)
    with refuses("`b2` must be on the device of W1 (cpu), got cuda."):
        check_net(params._replace(b2=params.b2._replace(device="cuda")), x, Array, lambda array: 1.0)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_each_function_checks_the_net_and_the_labels(function):
    with refuses("`x` must be finite, but holds nan."):
        function(NET, np.full_like(X, math.nan), T)
    with refuses("`t` must have shape (4,) or (4, 2), got (3,)."):
        function(NET, X, T[:3])


def test_predict_checks_the_net():
    with refuses("`x` must be finite, but holds nan."):
        predict(NET, np.full_like(X, math.nan))


def test_the_magnitude_of_zero_has_no_sign():
    """A warning may show it."""
    magnitudes = check_net(init(2, 2, 2, seed=0), -np.zeros((1, 2)), np.ndarray, max_abs)
    assert f"{magnitudes['x']:g}" == "0"


def test_the_magnitudes_are_returned():
    arrays = Params(-2 * np.ones((3, 5)), np.zeros(5), 3 * np.ones((5, 2)), np.array([-7.0, 6.0]))
    magnitudes = check_net(arrays, np.array([[1.0, 0.0, -4.0]]), np.ndarray, lambda array: np.abs(array).max())
    assert magnitudes == {"W1": 2, "b1": 0, "W2": 3, "b2": 7, "x": 4}


# --- labels


@pytest.mark.parametrize(("label", "shown"), [(2, "2"), (-1, "-1"), (2**62, str(2**62)), (0.5, "0.5"), (-0.5, "-0.5")])
def test_labels_are_class_numbers(label, shown):
    with refuses(f"`t` must hold whole class numbers from 0 to 1, got {shown} at 2."):
        loss(NET, X, [0, 1, label, 0])


@pytest.mark.parametrize("label", [math.nan, math.inf, 1j, "1", None])
def test_labels_are_finite_numbers(label):
    t = np.array([0, label, 0, 0])
    with refuses(f"`t` must hold class numbers or one-hot rows, got {t.dtype} with a value that is neither."):
        loss(NET, X, t)


@pytest.mark.parametrize(
    ("row", "shown"), [([1, 1], "[1, 1]"), ([0, 0], "[0, 0]"), ([2, -1], "[2, -1]"), ([0.5, 0.5], "[0.5, 0.5]")]
)
def test_one_hot_rows_hold_a_single_1(row, shown):
    t = np.eye(2, dtype=np.asarray(row).dtype)[T]
    t[3] = row
    with refuses(f"`t` must hold one-hot rows (a single 1 among 0s), got {shown} at 3."):
        loss(NET, X, t)


@pytest.mark.parametrize("shape", [(3,), (5,), (3, 2), (4, 3), (4, 1), (), (4, 2, 1)])
def test_there_is_one_label_for_each_sample(shape):
    with refuses(f"`t` must have shape (4,) or (4, 2), got {shape}."):
        loss(NET, X, np.zeros(shape, int))


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32", "bool"])
def test_labels_become_class_indices(dtype):
    for t in (T, np.eye(2)[T]):
        labels = check_labels(t.astype(dtype), 4, 2)
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, T)


def test_a_single_class_has_one_hot_rows_too():
    np.testing.assert_array_equal(check_labels(np.ones((3, 1)), 3, 1), [0, 0, 0])


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


# --- arguments that are no arrays, and how they are shown


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (check_numbers, "array"),
        (lambda t: check_labels(t, 2, 2), "t"),
        (lambda batches: check_batches(batches, 4), "batches"),
        (lambda at: check_entries(NET, [at, [], [], []]), "entries"),
    ],
)
def test_masks_and_ragged_lists_are_refused(check, name):
    with refuses(f"`{name}` must have no mask, got a numpy.ma.MaskedArray."):
        check(np.ma.array([0, 1], mask=[0, 1]))
    with refuses(f"`{name}` must be an array, got [[1], [1, 2]]."):
        check([[1], [1, 2]])


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "float32"])
def test_numbers_are_real(dtype):
    assert check_numbers(np.ones(2, dtype)).tolist() == [1, 1]
    with refuses("`array` must hold real numbers, got complex128."):
        check_numbers(np.ones(2, complex))
    with refuses("`array` must hold real numbers, got <U1."):
        check_numbers(["1"])


def test_what_is_shown_is_one_line_of_60_characters_at_most():
    assert shown("a" * 58) == repr("a" * 58)
    assert shown("a" * 59) == "'" + "a" * 56 + "..."
    assert shown(np.eye(2)) == "array([[1., 0.], [0., 1.]])"
    assert shown(10**5000) == "a value of type int"  # of more digits than Python prints


# --- names


def test_dtypes_have_the_same_name_on_each_backend():
    assert dtype_name(X) == "float64"
    assert dtype_name(SimpleNamespace(dtype="torch.float32")) == "float32"
    assert (unit_roundoff("float64"), unit_roundoff("float32")) == (2.0**-53, 2.0**-24)


def test_dtypes_are_float64_or_float32():
    assert [check_dtype(dtype) for dtype in ("float64", "float32")] == ["float64", "float32"]
    with refuses("`dtype` must be one of float64, float32, got 'float16'."):
        check_dtype("float16")


def test_devices_are_those_there_are():
    assert check_device("auto", ("cuda", "cpu")) == "cuda"
    assert check_device("cpu", ("cuda", "cpu")) == "cpu"
    with refuses("`device` must be auto or one of cuda, cpu here, got 'tpu'."):
        check_device("tpu", ("cuda", "cpu"))
    with refuses("`device` must be auto or one of cpu here, got 'cuda'."):
        numpy_port.from_numpy(X, dtype="float64", device="cuda")


# --- what a failure leaves behind


def bits(*arrays):
    return [array.tobytes() for array in arrays]


@EACH_STRATEGY
@pytest.mark.parametrize("wrong", [{"h": 0}, {"memory": 0}, {"t": T + 1}])
def test_a_refusal_changes_no_argument(strategy, wrong):
    arguments = {"params": Params(*(p.copy() for p in NET)), "x": X.copy(), "t": T.copy(), **wrong}
    before = bits(*arguments["params"], arguments["x"], arguments["t"])
    with pytest.raises(ValueError, match="must"):
        strategy(**arguments)
    assert bits(*arguments["params"], arguments["x"], arguments["t"]) == before


@pytest.mark.parametrize("strategy", [loop, batched])
def test_a_refused_step_moves_no_parameter(strategy):
    params = Params(*(p.copy() for p in NET))
    with pytest.raises(ValueError, match="so that p"):
        strategy(params, X, T, h=1e-17)
    assert bits(*params) == bits(*NET)
