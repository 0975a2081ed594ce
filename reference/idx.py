"""MNIST as it lies on disk: a folder of IDX files, or Keras' `mnist.npz`.

A header is a claim, so nothing is allocated for one: the bytes that are there are read, up to the claim and one more,
and counted. Whatever is wrong with a file is one `DataError`, a sentence that names the file, the rule and the value.
"""

import gzip
import io
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CLASSES = 10
LIMIT = 1 << 30  # bytes of one array, unpacked: the largest set of the family, EMNIST, has 0.55e9; a bomb has no end
PIECE = 1 << 20  # bytes read at once

_Stream = IO[bytes] | io.BufferedIOBase
_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class DataError(ValueError):
    """A file, a folder or a name that no data set can be read from."""


class Images(NamedTuple):
    """A data set as it was read; `peak` is the value of a full pixel."""

    x_train: NDArray[np.uint8]  # (N, rows, columns)
    t_train: NDArray[np.int64]  # (N,)
    x_test: NDArray[np.uint8]
    t_test: NDArray[np.int64]
    peak: int = 255


def read_folder(folder: Path) -> Images:
    """Read a folder in MNIST's format, or the root of one that torchvision laid out.

    Parameters
    ----------
    folder
        Holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and their `t10k-` twins, gzipped or not, itself or
        in `raw`, `MNIST/raw` or `FashionMNIST/raw`.

    Returns
    -------
    Images
        The training and the test set.

    Raises
    ------
    DataError
        If a file is missing, damaged, or does not go with the others.
    """
    place = _layout(folder)
    paths = [_find(place, name) for name in FILES]
    arrays = [read_idx(path, ndim) for path, ndim in zip(paths, (3, 1, 3, 1), strict=True)]
    return _images(arrays, [str(path) for path in paths])


def read_keras(path: Path) -> Images:
    """Read a file like Keras' `mnist.npz`: the arrays `x_train`, `y_train`, `x_test` and `y_test`."""
    arrays = read_npz(path, {"x_train": 3, "y_train": 1, "x_test": 3, "y_test": 1})
    return _images(list(arrays.values()), [f"{path}[{name}]" for name in arrays])


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Read one IDX file of bytes, gzipped or not.

    Parameters
    ----------
    path
        The file.
    ndim
        How many dimensions it must have: 3 for images, 1 for labels.

    Returns
    -------
    array
        Its contents, writable.

    Raises
    ------
    DataError
        If the file cannot be read, or is not exactly what its header says.
    """
    try:
        with _open(path) as stream:
            shape = _idx_shape(stream, ndim, path)
            return _body(stream, shape, np.dtype(np.uint8), str(path)).reshape(shape)
    except (OSError, EOFError, zlib.error, MemoryError) as error:  # gzip.BadGzipFile is an OSError
        raise DataError(f"{path} must be readable, got {_described(error)}.") from error


def read_npz(path: Path, ndims: dict[str, int], *, floats: bool = False) -> dict[str, NDArray[Any]]:
    """Read the named arrays of an npz file: pixels as uint8, labels (those with one dimension) as any integer.

    With `floats` they are parameters instead, float32 or float64.

    `numpy.load` would allocate whatever a header claims, so only the parsing of headers is left to NumPy. An array of
    pickled objects is refused by its dtype, and never unpickled.
    """
    with _damage_is_data_error(path), zipfile.ZipFile(path) as archive:
        missing = [name for name in ndims if f"{name}.npy" not in archive.namelist()]
        if missing:
            raise DataError(f"{path} must hold the arrays {', '.join(ndims)}, got no {', '.join(missing)}.")
        return {name: _member(archive, name, ndim, f"{path}[{name}]", floats) for name, ndim in ndims.items()}


def _layout(folder: Path) -> Path:
    places = [folder / inner for inner in ("", "raw", "MNIST/raw", "FashionMNIST/raw")]
    held = [place for place in places if any(_spelled(place, name) for name in FILES)]
    if len(held) > 1:
        raise DataError(f"{folder} must hold one data set, got {' and '.join(map(str, held))}.")
    return held[0] if held else folder


def _find(folder: Path, name: str) -> Path:
    path = _spelled(folder, name)
    if path is None:
        raise DataError(f"{folder} must hold {name} or {name}.gz, got neither.")
    return path


def _spelled(folder: Path, name: str) -> Path | None:
    spellings = name, name.replace("-idx", ".idx")  # the dot is how some archives spell it
    paths = (folder / (spelling + suffix) for spelling in spellings for suffix in ("", ".gz"))
    return next((path for path in paths if os.path.isfile(path)), None)


def _open(path: Path) -> io.BufferedIOBase:
    # By content, not by name: a browser may unpack a .gz as it downloads it, and keep the name.
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def _idx_shape(stream: _Stream, ndim: int, path: Path) -> tuple[int, ...]:
    header = stream.read(4 + 4 * ndim)
    if len(header) < 4 + 4 * ndim:
        raise DataError(f"{path} must have a header of {4 + 4 * ndim} bytes, got {len(header)}.")
    magic, *shape = (int.from_bytes(header[i : i + 4], "big") for i in range(0, len(header), 4))
    if magic != 0x0800 + ndim:  # two zeros, the type (8 is an unsigned byte), the number of dimensions
        raise DataError(f"{path} must begin with the magic number 0x{0x0800 + ndim:08x}, got 0x{magic:08x}.")
    return tuple(shape)


def _body(stream: _Stream, shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> NDArray[Any]:
    if min(shape) < 1:
        raise DataError(f"{where} must not be empty, got the shape {shape}.")
    size = math.prod(shape) * dtype.itemsize
    if size > LIMIT:
        raise DataError(f"{where} must hold at most {LIMIT} bytes, got {size} by its header.")
    data = bytearray()
    # One byte past the claim shows a tail, and makes gzip and zipfile check their sums; a bomb is left there.
    while len(data) <= size and (piece := stream.read(min(PIECE, size + 1 - len(data)))):
        data += piece
    if len(data) != size:
        got = "more" if len(data) > size else len(data)
        raise DataError(f"{where} must hold {size} bytes after its header, got {got}.")
    return np.frombuffer(data, dtype)


def _member(archive: zipfile.ZipFile, name: str, ndim: int, where: str, floats: bool) -> NDArray[Any]:
    method = archive.getinfo(f"{name}.npy").compress_type
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others may ask for gigabytes before they unpack
        raise DataError(f"{where} must be stored or deflated, got compression method {method}.")
    with archive.open(f"{name}.npy") as stream:
        shape, fortran, dtype = _NPY_HEADERS[np.lib.format.read_magic(stream)](stream)
        if len(shape) != ndim:
            raise DataError(f"{where} must be {ndim}-dimensional, got the shape {shape}.")
        if floats and (dtype.kind, dtype.itemsize) not in (("f", 4), ("f", 8)):
            raise DataError(f"{where} must be float32 or float64, got {dtype}.")
        if not floats and dtype != np.uint8 and (ndim > 1 or dtype.kind not in "iu"):
            raise DataError(f"{where} must be {'uint8' if ndim > 1 else 'integers'}, got {dtype}.")
        return _body(stream, shape, dtype, where).reshape(shape, order="F" if fortran else "C")


def _images(arrays: list[NDArray[Any]], where: list[str]) -> Images:
    x_train, t_train, x_test, t_test = arrays
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(f"{where[2]} must have images of {x_train.shape[1:]} as in training, got {x_test.shape[1:]}.")
    _check_labels(x_train, t_train, where[1])
    _check_labels(x_test, t_test, where[3])
    return Images(x_train, t_train.astype(np.int64), x_test, t_test.astype(np.int64))


def _check_labels(x: NDArray[Any], t: NDArray[Any], where: str) -> None:
    if len(x) != len(t):
        raise DataError(f"{where} must hold one label for each of {len(x)} images, got {len(t)}.")
    wrong = t[(t < 0) | (t >= CLASSES)]
    if wrong.size:
        raise DataError(f"{where} must hold labels in 0..{CLASSES - 1}, got {wrong[0]}.")


def _described(error: BaseException) -> str:
    first, *_ = f"{type(error).__name__}: {error}".splitlines()  # NumPy's go on with advice about its own options
    return first[:200].rstrip(".: ")


@contextmanager
def _damage_is_data_error(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # zipfile and NumPy raise a dozen kinds at a damaged file, from KeyError to SyntaxError
        raise DataError(f"{path} must be a readable npz file, got {_described(error)}.") from error
