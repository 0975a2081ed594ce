"""Read a file for what it holds, never for what it claims.

A header is a claim: nothing is allocated for one. The bytes that are there are read, up to the claim and one more, and
counted. Whatever is wrong with a file is one `DataError`, a sentence that names the file, the rule and the value.
"""

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

LIMIT = 1 << 30  # bytes of one array, unpacked: the largest set of the family, EMNIST, has 0.55e9; a bomb has no end
PIECE = 1 << 20  # bytes read at once

Stream = IO[bytes] | io.BufferedIOBase


class DataError(ValueError):
    """A file, a folder or a name that no data set can be read from."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is opened and unpacked into a DataError."""
    try:
        yield
    except (OSError, EOFError, zlib.error, MemoryError) as error:  # gzip.BadGzipFile is an OSError
        raise DataError(f"{path} must be readable, got {described(error)}.") from error


def open_unpacked(path: Path) -> io.BufferedIOBase:
    """Open a file, unpacked if it is gzipped by its content: a browser may unpack a .gz and keep the name."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def read_array(stream: Stream, shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> NDArray[Any]:
    """Read an array of the shape and dtype that a header claims; the rest of the stream must be that and no more."""
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
    return np.frombuffer(data, dtype).reshape(shape)


def described(error: BaseException) -> str:
    """Describe an error within a sentence: the first line of what it says, cut off where it is long."""
    first, *_ = f"{type(error).__name__}: {error}".splitlines()  # NumPy's go on with advice about its own options
    return first[:200].rstrip(".: ")
