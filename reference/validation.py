"""The rules for arguments, shared by all ports: one that is broken is a ValueError, a sentence with rule and value.

Arrays are examined by what NumPy, JAX and PyTorch have in common (`shape`, `dtype`, `device`, operators), so that one
rule serves all of them and a large array stays on its device.
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from reference.defaults import CLOSED_FORM, DTYPES, MEMBERS

Magnitudes = dict[str, float]
"""max|array| of W1, b1, W2, b2 and x, by name."""
Entries = tuple[np.ndarray, ...]
"""Flat indices of entries of W1, b1, W2 and b2."""


MAX_SIZE = 2**29
"""The most inputs, units and the like: NumPy can count the bytes of an array of two such axes in float64."""


class DeviceError(ValueError):
    """A device that a backend does not have."""


class SmallHError(ValueError):
    """A step h that does not move the largest parameter."""


def dtype_name(array: Any) -> str:
    """Return the name of an array's dtype, such as "float32", for NumPy, JAX and PyTorch alike."""
    return str(array.dtype).rpartition(".")[2]  # torch.float32


def unit_roundoff(dtype: str) -> float:
    """Return u = eps / 2, the largest relative error of one rounding to `dtype`."""
    return float(np.finfo(dtype).eps) / 2


def check_dtype(dtype: Any) -> str:
    """Check that `dtype` is float64 or float32, as a name or as a dtype of a framework, and return its name."""
    name = dtype
    if not isinstance(dtype, str) and dtype is not None:  # np.dtype(None) is float64
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = str(dtype).rpartition(".")[2]  # torch.float32
    if name not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {shown(dtype)}.")
    return name


def check_numbers(array: Any, name: str = "array") -> np.ndarray:
    """Convert an argument, by default that of `from_numpy`, to a NumPy array of real numbers."""
    array = as_array(name, array)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` must hold real numbers, got {array.dtype}.")
    return array


def named_arguments(names: Iterable[str], args: Iterable[Any], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the arguments of a call with the names of its parameters; for `params` those of its members."""
    for name, value in (*zip(names, args, strict=False), *kwargs.items()):
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            yield from zip(value._fields, value, strict=True)
        else:
            yield name, value


def as_array(name: str, values: Any) -> np.ndarray:
    """Convert `values` to a NumPy array, unless something would be lost on the way."""
    if isinstance(values, np.ma.MaskedArray):  # whose mask would be dropped
        raise ValueError(f"`{name}` must have no mask, got a numpy.ma.MaskedArray.")
    try:
        return np.asarray(values)
    except Exception as error:  # ragged lists, or whatever a foreign array does not like
        raise ValueError(f"`{name}` must be an array, got {shown(values)}.") from error


def shown(value: Any) -> str:
    """Show a value in a sentence: one line, cut off where it is long; by its type where it can't be shown."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an int of more digits than Python prints, or a foreign array
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_device(device: str, devices: tuple[str, ...]) -> str:
    """Check that `device` is one of `devices`, and return it; "auto" stands for the first of them."""
    if device == "auto":
        return devices[0]
    if device not in devices:
        raise DeviceError(f"`device` must be auto or one of {', '.join(devices)} here, got {shown(device)}.")
    return device


def check_net(params: Any, x: Any, array_type: type, max_abs: Callable[[Any], float]) -> Magnitudes:
    """Raise ValueError unless `params` and `x` are one net and a batch for it.

    Parameters
    ----------
    params : Params
        Shapes (I, H), (H,), (H, O), (O,).
    x : (B, I) array, B >= 1
    array_type : type
        The array type of the backend.
    max_abs : callable
        The backend's max|array|, NaN if there is a NaN.

    Returns
    -------
    Magnitudes
        max|array| of each.
    """
    if getattr(params, "_fields", None) != MEMBERS:
        raise ValueError(f"`params` must be a Params of {', '.join(MEMBERS)}, got a {type(params).__name__}.")
    named = {**params._asdict(), "x": x}
    for name, array in named.items():
        _check_array(name, array, array_type)
    _check_shapes({name: tuple(array.shape) for name, array in named.items()})
    for name, array in named.items():
        _check_like_w1(name, array, named["W1"])
    magnitudes = {name: abs(max_abs(array)) for name, array in named.items()}  # of zeros max_abs may be -0
    for name, magnitude in magnitudes.items():
        if not magnitude < math.inf:  # NaN compares false
            raise ValueError(f"`{name}` must be finite, but holds {magnitude}.")
    return magnitudes


def _check_array(name: str, array: Any, array_type: type) -> None:
    # A subclass of NumPy's array has a mask that would be dropped, or products that mean something else.
    if type(array) is not np.ndarray if array_type is np.ndarray else not isinstance(array, array_type):
        wanted, got = (f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in (array_type, type(array)))
        raise ValueError(f"`{name}` must be a {wanted} (the port's from_numpy makes one), got {got}.")
    if dtype_name(array) not in DTYPES:
        raise ValueError(f"`{name}` must be float32 or float64, got {dtype_name(array)}.")


def _check_shapes(shapes: dict[str, tuple[int, ...]]) -> None:
    for name, axes in {"W1": 2, "b1": 1, "W2": 2, "b2": 1, "x": 2}.items():
        if len(shapes[name]) != axes or 0 in shapes[name]:
            raise ValueError(f"`{name}` must have {axes} axes, none of them empty, got shape {shapes[name]}.")
    (inputs, hidden), (_, outputs) = shapes["W1"], shapes["W2"]
    expected = {"b1": (hidden,), "W2": (hidden, outputs), "b2": (outputs,), "x": (shapes["x"][0], inputs)}
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise ValueError(
                f"`{name}` must have shape {shape} to fit W1 {shapes['W1']} and W2 {shapes['W2']}, got {shapes[name]}."
            )


def _check_like_w1(name: str, array: Any, w1: Any) -> None:
    if array.dtype != w1.dtype:
        raise ValueError(
            f"`{name}` must have the dtype of W1 ({dtype_name(w1)}), got {dtype_name(array)}: mixed dtypes are "
            "refused, since the backends promote them differently."
        )
    if array.device != w1.device:
        raise ValueError(f"`{name}` must be on the device of W1 ({w1.device}), got {array.device}.")


def check_labels(t: Any, samples: int, classes: int) -> np.ndarray:
    """Convert labels to class indices.

    Parameters
    ----------
    t : (B,) or (B, O) array, of any backend, on the host
        Class indices, or one-hot rows.
    samples, classes : int
        B and O.

    Returns
    -------
    (B,) int64 array
    """
    t = as_array("t", t)
    if t.shape not in ((samples,), (samples, classes)):
        raise ValueError(f"`t` must have shape ({samples},) or ({samples}, {classes}), got {t.shape}.")
    if t.dtype.kind not in "biuf" or not np.isfinite(t).all():
        raise ValueError(f"`t` must hold class numbers or one-hot rows, got {t.dtype} with a value that is neither.")
    if t.ndim == 2:
        return _one_hot_labels(t)
    wrong = np.flatnonzero((t < 0) | (t >= classes) | (t != np.floor(t)))
    if len(wrong):
        raise ValueError(f"`t` must hold whole class numbers from 0 to {classes - 1}, got {t[wrong[0]]} at {wrong[0]}.")
    return t.astype(np.int64)


def _one_hot_labels(t: np.ndarray) -> np.ndarray:
    wrong = np.flatnonzero(((t != 0) & (t != 1)).any(axis=1) | (t.sum(axis=1) != 1))
    if len(wrong):
        raise ValueError(
            f"`t` must hold one-hot rows (a single 1 among 0s), got {shown(t[wrong[0]].tolist())} at {wrong[0]}."
        )
    return t.argmax(axis=1)


def check_size(name: str, size: int) -> int:
    """Check a number of inputs, units or the like, and return it as an int."""
    if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1:
        raise ValueError(f"`{name}` must be a whole number, at least 1, got {shown(size)}.")
    if size > MAX_SIZE:
        raise ValueError(f"`{name}` must be at most {MAX_SIZE:,}, got {shown(size)}.")
    return int(size)


def check_weight_init_std(deviation: float) -> float:
    """Check the standard deviation of the initial weights, and return it as a float."""
    if not _is_number(deviation) or not 0 <= deviation < math.inf:
        raise ValueError(f"`weight_init_std` must be a finite number, at least 0, got {shown(deviation)}.")
    return float(deviation)


def check_seed(seed: int | None) -> int | None:
    """Check a seed, and return it; None stands for a different net each time."""
    if seed is not None and (not isinstance(seed, (int, np.integer)) or isinstance(seed, bool)):
        raise ValueError(f"`seed` must be a whole number or None, got {shown(seed)}.")
    if seed is not None and seed < 0:
        raise ValueError(f"`seed` must not be negative, got {shown(seed)}.")
    return seed


def check_h(h: float) -> float:
    """Check the step h, and return it as a Python float, which does not change the dtype of an array.

    Above 1 it measures no slope; below 1e-20 its products with small inputs leave the range of float32.
    """
    if not _is_number(h) or not 1e-20 <= h <= 1:
        raise ValueError(f"`h` must be from 1e-20 to 1, got {shown(h)}.")
    return float(h)


def check_learning_rate(learning_rate: float, dtype: str = "float64") -> float:
    """Check the learning rate, which `dtype` must be able to hold, and return it as a Python float."""
    if not _is_number(learning_rate) or not abs(learning_rate) < math.inf:  # NaN compares false
        raise ValueError(f"`learning_rate` must be a finite number, got {shown(learning_rate)}.")
    if abs(float(learning_rate)) > float(np.finfo(dtype).max):  # a float32 would be compared in float32
        raise ValueError(f"`learning_rate` must be a number of {dtype}, got {shown(learning_rate)}.")
    return float(learning_rate)


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, (float, np.integer, np.floating))


def check_h_moves(h: float, magnitudes: Magnitudes, dtype: str) -> None:
    """Raise SmallHError if `h` is so small that p + h = p may hold for the largest parameter p."""
    name = max(MEMBERS, key=magnitudes.__getitem__)
    spacing = float(np.spacing(np.asarray(magnitudes[name], dtype)))
    if h <= spacing / 2:
        raise SmallHError(
            f"`h` must be above {spacing / 2:.3g}, half the spacing of {dtype} at the largest parameter "
            f"({magnitudes[name]:.6g} in `{name}`), so that p + h is not p, got {h!r}."
        )


def check_memory(memory: float) -> int:
    """Check the memory budget, and return it in bytes."""
    if not _is_number(memory) or not 0 < memory < math.inf:
        raise ValueError(f"`memory` must be a positive number of bytes, got {shown(memory)}.")
    return int(memory)


def check_entries(params: Any, entries: Any) -> Entries:
    """Return the flat indices to differentiate, one int64 array for each member of `params`; None stands for all."""
    if entries is None:
        return tuple(np.arange(math.prod(p.shape)).reshape(p.shape) for p in params)
    if not isinstance(entries, (tuple, list)) or len(entries) != len(MEMBERS):
        raise ValueError(f"`entries` must hold an array for each of {', '.join(MEMBERS)}, got {shown(entries)}.")
    return tuple(_entries_of(name, at, p) for name, at, p in zip(MEMBERS, entries, params, strict=True))


def _entries_of(name: str, at: Any, p: Any) -> np.ndarray:
    at, size = as_array("entries", at), math.prod(p.shape)
    if at.size and (at.dtype.kind not in "iu" or at.min() < 0 or at.max() >= size):
        raise ValueError(
            f"`entries` must be whole numbers from 0 to {size - 1} for `{name}`, got {shown(at.tolist())}."
        )
    return at.astype(np.int64)


def check_strategy(strategy: Any, gradients: Iterable[str]) -> str:
    """Return `strategy` if it is one of the names `gradients` or the closed form."""
    known = (*gradients, CLOSED_FORM)
    if not isinstance(strategy, str) or strategy not in known:
        raise ValueError(f"`strategy` must be one of {', '.join(known)}, got {shown(strategy)}.")
    return strategy


def check_batches(batches: Any, samples: int) -> np.ndarray:
    """Check the (K, B) sample indices of K mini-batches, and return them as int64."""
    batches = as_array("batches", batches)
    if batches.ndim != 2 or batches.dtype.kind not in "iu" or 0 in batches.shape:
        raise ValueError(
            f"`batches` must be a non-empty (K, B) array of whole numbers, got {batches.dtype} {batches.shape}."
        )
    if batches.min() < 0 or batches.max() >= samples:
        raise ValueError(
            f"`batches` must hold sample indices from 0 to {samples - 1}, got {batches.min()} to {batches.max()}."
        )
    return batches.astype(np.int64)
