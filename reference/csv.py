"""CSV files as Kaggle has them: an image a line, its label first, then its pixels in 0..255."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.images import Images, images_of
from reference.reading import LIMIT, PIECE, DataError, Stream, described, open_unpacked, readable
from reference.validation import shown

MAX_SAMPLES = 1_000_000  # EMNIST, the largest set of the family, has 697,932 for training
HELD_OUT = 7
"""Of a file without a test set every seventh image is for the test, MNIST's own share."""


def tables_in(folder: Path) -> list[Path]:
    """List the files of training images and labels in a folder, such as `train.csv` or `mnist_train.csv`."""
    with readable(folder):
        return sorted(path for path in folder.iterdir() if path.name.endswith(("train.csv", "train.csv.gz")))


def read_csv(path: Path) -> Images:
    """Read a data set from a CSV file, gzipped or not.

    Parameters
    ----------
    path
        Holds a label and the pixels of an image in each line, below a line of names (the first of which is `label`) or
        with none. If its name has "train" in it, the test set is the file beside it that has "test" in that place. If
        there is none, or one without labels (Kaggle's), the test set is every seventh image.

    Returns
    -------
    Images
        The training and the test set.

    Raises
    ------
    DataError
        If a line is something else.
    """
    x, t = _read_table(path)
    test = path.with_name("test".join(path.name.rsplit("train", 1)))
    if test != path and os.path.isfile(test) and _is_labelled(test, columns=1 + x.shape[1]):
        return images_of([x, t, *_read_table(test)], [str(path)] * 2 + [str(test)] * 2)
    if len(t) < HELD_OUT:
        raise DataError(f"{path} must hold {HELD_OUT} images or more, of which one is for the test, got {len(t)}.")
    held_out = np.arange(len(t)) % HELD_OUT == HELD_OUT - 1
    return images_of([x[~held_out], t[~held_out], x[held_out], t[held_out]], [str(path)] * 4)


def _is_labelled(path: Path, columns: int) -> bool:
    """Whether a file of test images has the labels too; without them it has a column less."""
    with readable(path), open_unpacked(path) as stream:
        line = _read_line(stream, path, 1)
    return _first_field(line) == "label" or 2 + line.count(b",") != columns


def _read_table(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Read the images (N, pixels) and their labels (N,)."""
    with readable(path), open_unpacked(path) as stream:
        line = _read_line(stream, path, 1)
        first, pixels = _first_field(line), line.count(b",")
        if first != "label" and not first.isdecimal():
            raise DataError(
                f"{path} must be a CSV file that begins with a label or the name label, got {shown(first)}."
            )
        if pixels < 1:
            raise DataError(f"{path} must have a label and pixels in each line, got 1 column.")
        dtype = np.dtype([("label", np.uint16), ("pixels", np.uint8, (pixels,))])
        try:
            table = np.loadtxt(_lines(stream, line, dtype, path), dtype, delimiter=",", comments=None, ndmin=1)
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{path} must hold labels, and pixels in 0..255, got {described(error)}.") from error
    return table["pixels"], table["label"]


def _first_field(line: bytes) -> str:
    return line.partition(b",")[0].strip(b' "\r\n').decode("latin-1").lower()


def _lines(stream: Stream, first: bytes, dtype: np.dtype[Any], path: Path) -> Iterator[str]:
    """Yield the lines of images, of which `first` is the first unless it holds names; check each, and their number."""
    columns, samples = 1 + first.count(b","), 0
    number = 2 if _first_field(first) == "label" else 1
    line = first if number == 1 else _read_line(stream, path, number)
    while line.strip():
        if 1 + line.count(b",") != columns:
            raise DataError(f"{path} must have {columns} columns in line {number}, got {1 + line.count(b',')}.")
        if wrong := re.search(rb"[^0-9, \r\n]", line):
            field = line[: wrong.start()].rpartition(b",")[2] + line[wrong.start() :].partition(b",")[0]
            got = shown(field.strip().decode("latin-1"))
            raise DataError(f"{path} must hold whole numbers in line {number}, got {got}.")
        samples += 1
        if samples > MAX_SAMPLES or samples * dtype.itemsize > LIMIT:
            raise DataError(f"{path} must hold at most {MAX_SAMPLES} images and {LIMIT} bytes of pixels, got more.")
        yield line.decode("ascii")
        number += 1
        line = _read_line(stream, path, number)
    rest = stream.read(PIECE)
    if rest.strip() or len(rest) == PIECE:  # the file may end with a few empty lines
        raise DataError(f"{path} must have {columns} columns in line {number}, got an empty line.")
    if not samples:
        raise DataError(f"{path} must hold images, got none.")


def _read_line(stream: Stream, path: Path, number: int) -> bytes:
    """Read the next line, with its end; b"" at the end of the file."""
    line = stream.readline(PIECE)
    if len(line) == PIECE:
        raise DataError(f"{path} must have lines of less than {PIECE} bytes, got more in line {number}.")
    return line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line  # which marks UTF-8
