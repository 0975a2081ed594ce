"""npz files: arrays by name, and a data set of four of them."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.images import Images, images_of
from reference.reading import DataError, described, read_array

NAMINGS = (
    ("x_train", "y_train", "x_test", "y_test"),  # Keras' mnist.npz
    ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
    ("train_img", "train_label", "test_img", "test_label"),  # the book's mnist.pkl, converted
)
"""The names of the training images and labels and of the test images and labels."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_Shape = tuple[int, ...]
_Rule = Callable[[_Shape, np.dtype[Any], str], None]
"""Raise DataError unless an array may have this shape and dtype."""


def read_npz_set(path: Path) -> Images:
    """Read a data set from an npz file like Keras' `mnist.npz` or one of MedMNIST's.

    Its arrays are named by one of `NAMINGS`; others (MedMNIST's `val_images`) are ignored. `images_of` says what they
    may hold.
    """
    with _open(path) as archive:
        held = {name.removesuffix(".npy") for name in archive.namelist()}
        names = max(NAMINGS, key=lambda naming: len(held.intersection(naming)))  # the first of several
        arrays = _members(archive, dict.fromkeys(names, _check_numbers), path)
    return images_of(arrays, [f"{path}[{name}]" for name in names])


def read_npz(path: Path, ndims: dict[str, int], *, floats: bool = False) -> dict[str, NDArray[Any]]:
    """Read the named arrays of an npz file: pixels as uint8, labels (those with one dimension) as any integer.

    With `floats` they are parameters instead, float32 or float64.

    `numpy.load` would allocate whatever a header claims, so NumPy only parses the headers. An array of pickled objects
    is refused by its dtype, and never unpickled.
    """
    rules = {name: _rule(ndim, floats) for name, ndim in ndims.items()}
    with _open(path) as archive:
        return dict(zip(ndims, _members(archive, rules, path), strict=True))


def _check_numbers(shape: _Shape, dtype: np.dtype[Any], where: str) -> None:
    if len(shape) < 1:
        raise DataError(f"{where} must have one entry a sample, got the shape {shape}.")
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise DataError(f"{where} must hold integers, float16, float32 or float64, got {dtype}.")


def _rule(ndim: int, floats: bool) -> _Rule:
    def check(shape: _Shape, dtype: np.dtype[Any], where: str) -> None:
        if len(shape) != ndim:
            raise DataError(f"{where} must be {ndim}-dimensional, got the shape {shape}.")
        if floats and (dtype.kind, dtype.itemsize) not in (("f", 4), ("f", 8)):
            raise DataError(f"{where} must be float32 or float64, got {dtype}.")
        if not floats and dtype != np.uint8 and (ndim > 1 or dtype.kind not in "iu"):
            raise DataError(f"{where} must be {'uint8' if ndim > 1 else 'integers'}, got {dtype}.")

    return check


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DataError:
        raise
    except Exception as error:  # zipfile and NumPy raise a dozen kinds at a damaged file, from KeyError to SyntaxError
        raise DataError(f"{path} must be a readable npz file, got {described(error)}.") from error


def _members(archive: zipfile.ZipFile, rules: dict[str, _Rule], path: Path) -> list[NDArray[Any]]:
    missing = [name for name in rules if f"{name}.npy" not in archive.namelist()]
    if missing:
        raise DataError(f"{path} must hold the arrays {', '.join(rules)}, got no {', '.join(missing)}.")
    return [_member(archive, f"{name}.npy", rule, f"{path}[{name}]") for name, rule in rules.items()]


def _member(archive: zipfile.ZipFile, name: str, check: _Rule, where: str) -> NDArray[Any]:
    method = archive.getinfo(name).compress_type
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others may ask for gigabytes before they unpack
        raise DataError(f"{where} must be stored or deflated, got compression method {method}.")
    with archive.open(name) as stream:
        shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
        check(shape, dtype, where)
        array = read_array(stream, shape, dtype, where)
    return array.reshape(-1).reshape(shape, order="F") if fortran else array
