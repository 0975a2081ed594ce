"""Each broken rule is one sentence with the value, raised before anything is touched."""

import math
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from net_and_batch import ARRAYS, NET, T, X, net_with, refuses
from ports import numpy_port
from reference.numerical_gradient import GRADIENTS, batched, loop
from reference.two_layer_net import Params, accuracy, gradient, init, loss, max_abs, predict
from reference.validation import (
    check_batches,
    check_device,
    check_dtype,
    check_entries,
    check_labels,
    check_net,
    check_numbers,
    dtype_name,
    shown,
    unit_roundoff,
)

FUNCTIONS = {"loss": loss, "accuracy": accuracy, "gradient": gradient, **GRADIENTS}

EACH_STRATEGY = pytest.mark.parametrize("strategy", GRADIENTS.values(), ids=GRADIENTS)
EACH_ARRAY = pytest.mark.parametrize("name", ARRAYS)


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
