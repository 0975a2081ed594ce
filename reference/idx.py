"""IDX files, the format of MNIST, and the data sets that come in four of them: MNIST, EMNIST, QMNIST and their kin."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reference.images import Images, images_of
from reference.reading import DataError, Stream, open_unpacked, read_array, readable

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
QMNIST = (
    *("qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx2-int"),
    *("qmnist-test-images-idx3-ubyte", "qmnist-test-labels-idx2-int"),
)
SPLITS = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")
EMNIST = {split: tuple(f"emnist-{split}-{file.replace('t10k', 'test')}" for file in FILES) for split in SPLITS}
FAMILIES = (FILES, *EMNIST.values(), QMNIST)
"""The files of each data set: training images and labels, test images and labels."""

ROOTS = ("MNIST", "FashionMNIST", "KMNIST", "EMNIST", "QMNIST")  # of torchvision
_PLACES = ("", "raw", "gzip", *(f"{root}/raw" for root in ROOTS))  # gzip is the folder in EMNIST's own archive
_TYPES: dict[str, tuple[int, np.dtype[Any]]] = {"ubyte": (0x08, np.dtype("u1")), "int": (0x0C, np.dtype(">i4"))}


class IdxSet(NamedTuple):
    """Where a data set of four IDX files lies."""

    folder: Path
    files: tuple[str, ...]  # one of FAMILIES

    @property
    def train_images(self) -> Path:
        """The file that names this set among others."""
        return _spelled(self.folder, self.files[0]) or self.folder / self.files[0]


def sets_in(folder: Path) -> list[IdxSet]:
    """List the data sets of which `folder`, or the root that torchvision made of it, holds a file or more."""
    sets = [IdxSet(folder / place, files) for place in _PLACES for files in FAMILIES]
    return [each for each in sets if any(_spelled(each.folder, name) for name in each.files)]


def set_of(path: Path) -> IdxSet:
    """Find the data set whose training images are this file."""
    name = path.name.removesuffix(".gz").replace(".idx", "-idx")
    for files in FAMILIES:
        if files[0] == name:
            return IdxSet(path.parent, files)
    raise DataError(f"{path} must be training images, of a name such as {FILES[0]} or {EMNIST['balanced'][0]}.")


def read_folder(folder: Path) -> Images:
    """Read the data set that a folder holds as IDX files.

    Parameters
    ----------
    folder
        Holds the four files of one of `FAMILIES`, gzipped or not, itself or in `raw`, `gzip`, or one of the folders
        that torchvision makes, such as `EMNIST/raw`.

    Returns
    -------
    Images
        The training and the test set.

    Raises
    ------
    DataError
        If a file is missing, damaged, or does not go with the others; or if there are several data sets.
    """
    sets = sets_in(folder)
    if len(sets) > 1:
        listed = ", ".join(str(each.train_images.relative_to(folder)) for each in sets)
        raise DataError(f"{folder} must hold one data set, got {listed}; give the path of one of these files instead.")
    return read_set(sets[0] if sets else IdxSet(folder, FILES))


def read_set(idx_set: IdxSet) -> Images:
    """Read the four files of a data set."""
    paths = [_find(idx_set.folder, name) for name in idx_set.files]
    arrays = [_read_named(path, name) for path, name in zip(paths, idx_set.files, strict=True)]
    first_label = 1 if idx_set.files == EMNIST["letters"] else 0
    return images_of(arrays, [str(path) for path in paths], first_label=first_label)


def _read_named(path: Path, name: str) -> NDArray[Any]:
    """Read a file that is what its name says; of QMNIST's eight columns of labels the first is the class."""
    ndim, kind = re.findall(r"-idx(\d)-(\w+)", name)[0]
    array = read_idx(path, int(ndim), kind)
    return array[:, 0] if name in QMNIST and kind == "int" else array


def read_idx(path: Path, ndim: int, kind: str = "ubyte") -> NDArray[Any]:
    """Read one IDX file, gzipped or not.

    Parameters
    ----------
    path
        The file.
    ndim
        How many dimensions it must have: 3 for images, 1 for labels.
    kind
        The type of its entries: ubyte or int (big-endian, of 32 bits).

    Returns
    -------
    array
        Its contents, writable.

    Raises
    ------
    DataError
        If the file cannot be read, or is not exactly what its header says.
    """
    code, dtype = _TYPES[kind]
    with readable(path), open_unpacked(path) as stream:
        return read_array(stream, _shape(stream, (code << 8) + ndim, ndim, path), dtype, str(path))


def _shape(stream: Stream, expected: int, ndim: int, path: Path) -> tuple[int, ...]:
    """Read the header: two zeros, the type, the number of dimensions, and each of them."""
    header = stream.read(4 + 4 * ndim)
    if len(header) < 4 + 4 * ndim:
        raise DataError(f"{path} must have a header of {4 + 4 * ndim} bytes, got {len(header)}.")
    magic, *shape = (int.from_bytes(header[i : i + 4], "big") for i in range(0, len(header), 4))
    if magic != expected:
        raise DataError(f"{path} must begin with the magic number 0x{expected:08x}, got 0x{magic:08x}.")
    return tuple(shape)


def _find(folder: Path, name: str) -> Path:
    path = _spelled(folder, name)
    if path is None:
        raise DataError(f"{folder} must hold {name} or {name}.gz, got neither.")
    return path


def _spelled(folder: Path, name: str) -> Path | None:
    spellings = name, name.replace("-idx", ".idx")  # the dot is how some archives spell it
    paths = (folder / (spelling + suffix) for spelling in spellings for suffix in ("", ".gz"))
    return next((path for path in paths if os.path.isfile(path)), None)
