"""A data set of images as it was read: the training set and the test set, checked to be one set of one kind."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reference.reading import DataError
from reference.validation import shown

MAX_CLASSES = 10_000
"""A label beyond is no class but a damaged file; a net would get an output for each."""


class Images(NamedTuple):
    """A data set as it was read; `peak` is the value of a full pixel.

    Images are (N, rows, columns), or of more dimensions where there is more than one channel.
    """

    x_train: NDArray[Any]
    t_train: NDArray[np.int64]  # (N,)
    x_test: NDArray[Any]
    t_test: NDArray[np.int64]
    peak: int = 255


def count_classes(t_train: NDArray[np.int64], t_test: NDArray[np.int64]) -> int:
    """Count the classes: the largest label plus one."""
    return 1 + int(max(t_train.max(), t_test.max()))


def images_of(arrays: list[NDArray[Any]], where: list[str], *, first_label: int = 0) -> Images:
    """Check that four arrays are one data set, and bring them into one form.

    Parameters
    ----------
    arrays
        Training images and labels, test images and labels. Images are (N, rows, columns), with a channel axis in
        second or last place, or flat (N, pixels); integers in 0..255, booleans, or floats in 0..1 or 0..255. Labels are
        class indices (N,) or (N, 1), or one-hot rows (N, O).
    where
        What to call each of them in an error.
    first_label
        The label of the first class, which becomes 0.

    Returns
    -------
    Images
        Integer pixels as uint8; flat images of a square number of pixels as squares.

    Raises
    ------
    DataError
        If one of them is something else, or they do not go together.
    """
    (x_train, peak), (x_test, test_peak) = (_pixels(arrays[i], where[i]) for i in (0, 2))
    t_train, t_test = (_labels(arrays[i], where[i], first_label) for i in (1, 3))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(f"{where[2]} must have images of {x_train.shape[1:]} as in training, got {x_test.shape[1:]}.")
    if peak != test_peak:
        raise DataError(f"{where[2]} must have pixels in 0..{peak} as in training, got pixels in 0..{test_peak}.")
    for x, t, name in ((x_train, t_train, where[1]), (x_test, t_test, where[3])):
        if len(x) != len(t):
            raise DataError(f"{name} must hold one label for each of {len(x)} images, got {len(t)}.")
    if count_classes(t_train, t_test) < 2:
        raise DataError(f"{where[1]} must hold labels of at least 2 classes, got only {first_label}.")
    return Images(x_train, t_train, x_test, t_test, peak)


def _pixels(x: NDArray[Any], where: str) -> tuple[NDArray[Any], int]:
    """Check the pixels and bring them into shape; also return the value of a full one."""
    if x.ndim < 2:
        raise DataError(f"{where} must be images (N, rows, columns) or flat (N, pixels), got the shape {x.shape}.")
    if x.dtype == np.uint8:
        return _shaped(x), 255
    with np.errstate(invalid="ignore"):  # a NaN is refused below
        low, high = x.min(), x.max()
    if not 0 <= low <= high <= 255:  # NaN compares false
        wrong = high if 0 <= low <= 255 else low
        raise DataError(f"{where} must hold pixels in 0..1 or 0..255, got {wrong}.")
    peak = 1 if high <= 1 and x.dtype.kind in "bf" else 255
    return _shaped(x if x.dtype.kind == "f" else x.astype(np.uint8)), peak


def _shaped(x: NDArray[Any]) -> NDArray[Any]:
    """Remove an axis of one channel, and make a square of flat images where there is one."""
    samples, *shape = x.shape
    if len(shape) == 1:
        side = math.isqrt(shape[0])
        shape = [side, side] if side * side == shape[0] else [1, shape[0]]
    elif len(shape) == 3 and 1 in (shape[0], shape[-1]):
        shape.pop(0 if shape[0] == 1 else -1)
    return x.reshape(samples, *shape)


def _labels(t: NDArray[Any], where: str, first_label: int) -> NDArray[np.int64]:
    """Check the labels, and turn them into class indices from 0."""
    if t.ndim == 2 and t.shape[1] > 1:
        t = _from_one_hot(t, where)
    elif t.ndim == 2:
        t = t[:, 0]
    if t.ndim != 1:
        raise DataError(f"{where} must be labels (N,), (N, 1) or one-hot rows (N, O), got the shape {t.shape}.")
    if t.dtype.kind not in "iu":
        raise DataError(f"{where} must hold integers, got {t.dtype}.")
    wrong = t[(t < first_label) | (t >= first_label + MAX_CLASSES)]
    if wrong.size:
        last = first_label + MAX_CLASSES - 1
        raise DataError(f"{where} must hold labels in {first_label}..{last}, got {wrong[0]}.")
    return t.astype(np.int64) - first_label


def _from_one_hot(t: NDArray[Any], where: str) -> NDArray[np.int64]:
    wrong = np.flatnonzero(((t != 0) & (t != 1)).any(axis=1) | ((t == 1).sum(axis=1) != 1))
    if wrong.size:
        raise DataError(f"{where} must be class indices or one-hot rows, got the row {shown(t[wrong[0]].tolist())}.")
    return t.argmax(axis=1)
