"""The data sets a net can be trained on: `digits` comes along, `mnist` and `fashion-mnist` are downloaded once.

`digits` are the 1,797 real digits of 8x8 pixels of the UCI "Optical Recognition of Handwritten Digits" data set by
E. Alpaydin and C. Kaynak (1998), https://doi.org/10.24432/C50P49, under CC BY 4.0; see `digits.LICENSE.md`.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reference import csv, idx
from reference.downloads import MIRRORS, download
from reference.images import MAX_CLASSES, Images, count_classes
from reference.npz import read_npz, read_npz_set
from reference.reading import LIMIT, DataError, open_unpacked, readable
from reference.validation import shown

__all__ = ["NAMES", "DataError", "Dataset", "load", "load_mnist"]

NAMES = ("digits", "mnist", "fashion-mnist", "random")

_DIGITS = Path(__file__).with_name("digits.npz")


class Dataset(NamedTuple):
    """Inputs in [0, 1], C-contiguous, and their labels from 0."""

    x_train: NDArray[Any]  # (N, I)
    t_train: NDArray[np.int64]  # (N,)
    x_test: NDArray[Any]
    t_test: NDArray[np.int64]

    @property
    def classes(self) -> int:
        """The number of classes: the largest label plus one."""
        return count_classes(self.t_train, self.t_test)


def load(
    source: str | os.PathLike[str],
    *,
    dtype: str = "float64",
    seed: int = 0,
    inputs: int | None = None,
    classes: int | None = None,
) -> Dataset:
    """Load a data set by its name or from a path.

    Parameters
    ----------
    source
        One of `NAMES`, or the path of

        - a folder with the four IDX files of MNIST, Fashion-MNIST, KMNIST, EMNIST or QMNIST, or the root of one that
          torchvision made; where a folder holds several data sets, the path of the training images, such as
          `emnist-balanced-train-images-idx3-ubyte.gz`
        - an npz file with the names of Keras' `mnist.npz` or of MedMNIST (`reference.npz`)
        - a CSV file as Kaggle has them, or a folder with its `train.csv` (`reference.csv`)

        `digits` has its first 1,437 for training and its last 360 for the test, in the order of the UCI's file; `mnist`
        and `fashion-mnist` have 60,000 and 10,000 with 784 inputs; `random` has 1,000 and 200, and where there are over
        100 classes 10 and 2 of each.
    dtype
        Of the inputs: float32 or float64.
    seed
        What `random` is drawn from.
    inputs, classes
        Of `random`, which has 64 and 10 by default.

    Returns
    -------
    Dataset
        The training and the test set.

    Raises
    ------
    DataError
        If there is no such data set, or something is wrong with it.
    """
    if dtype not in ("float32", "float64"):
        raise DataError(f"`dtype` must be float32 or float64, got {dtype!r}.")
    if source == "random":
        return _random(seed, dtype, 64 if inputs is None else inputs, 10 if classes is None else classes)
    for name, number in (("inputs", inputs), ("classes", classes)):
        if number is not None:
            raise DataError(f"`{name}` must be left out with every data set but random, got {shown(number)}.")
    x_train, t_train, x_test, t_test, peak = _images(source)
    return Dataset(_scaled(x_train, peak, dtype), t_train, _scaled(x_test, peak, dtype), t_test)


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    source: str | os.PathLike[str] = "mnist",
) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    """Load MNIST as `dataset.mnist` of the book does.

    Parameters
    ----------
    normalize
        Whether pixels are float32 in [0, 1]; otherwise as in the file, for MNIST uint8 in 0..255.
    flatten
        Whether an image is a row of 784 pixels; otherwise it is (1, 28, 28), or as in the file if it has more channels.
    one_hot_label
        Whether labels are rows (N, 10), of the pixels' dtype; int64 indices (N,) otherwise.
    source
        As in `load`, though not `random`, which has no pixels.

    Returns
    -------
    tuple
        `(x_train, t_train), (x_test, t_test)`.
    """
    images = _images(source)
    classes = count_classes(images.t_train, images.t_test)

    def arranged(x: NDArray[Any], t: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = _scaled(x, images.peak, "float32") if normalize else x
        labels = np.eye(classes, dtype=rows.dtype)[t] if one_hot_label else t
        image = (-1,) if flatten else x.shape[1:] if x.ndim > 3 else (1, *x.shape[1:])
        return rows.reshape(len(x), *image), labels

    return arranged(images.x_train, images.t_train), arranged(images.x_test, images.t_test)


def _images(source: str | os.PathLike[str]) -> Images:
    if source == "digits":
        return _digits()
    if source in MIRRORS:
        return idx.read_folder(download(str(source)))
    path = Path(os.path.expanduser(source))
    if str(source) and os.path.isdir(path):  # an empty name would be the folder one happens to be in
        return _read_folder(path)
    if os.path.isfile(path):
        return _read_file(path)
    known = f"{', '.join(NAMES)} or the path of a folder or of an npz, CSV or IDX file"
    raise DataError(f"`source` must be {known}, got {str(source)!r}.")


def _read_folder(folder: Path) -> Images:
    """Read the IDX files of a folder, or its CSV file where there are none."""
    if idx.sets_in(folder):
        return idx.read_folder(folder)
    tables = csv.tables_in(folder)
    if len(tables) > 1:
        listed = ", ".join(path.name for path in tables)
        raise DataError(f"{folder} must hold one data set, got {listed}; give the path of one of these files instead.")
    if not tables:
        raise DataError(
            f"{folder} must hold {idx.FILES[0]} or the like of EMNIST or QMNIST, or train.csv, got neither."
        )
    return csv.read_csv(tables[0])


def _read_file(path: Path) -> Images:
    """Read a file of the kind that its first bytes tell."""
    with readable(path), open_unpacked(path) as stream:
        head = stream.read(8).removeprefix(b"\xef\xbb\xbf")  # which marks UTF-8
    if head[:1] == b"\x80" or {".pkl", ".pickle"} & set(path.suffixes):
        raise DataError(
            f"{path} must be no pickle, which runs any code that is in it, got one; if you trust it, convert the "
            "book's by `numpy.savez('mnist.npz', **pickle.load(open('mnist.pkl', 'rb')))` and take mnist.npz."
        )
    if head[:2] == b"PK" or path.suffix == ".npz":
        return read_npz_set(path)
    if head[:2] == b"\0\0":
        return idx.read_set(idx.set_of(path))
    if head and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return csv.read_csv(path)
    raise DataError(f"{path} must be an npz, CSV or IDX file, got one that begins with {head!r}.")


def _scaled(x: NDArray[Any], peak: int, dtype: str) -> NDArray[Any]:
    rows = np.ascontiguousarray(x.reshape(len(x), -1), dtype)  # (N, I)
    rows /= peak  # in place: MNIST in float64 is 376 MB
    return rows


def _digits() -> Images:
    pixels, labels = read_npz(_DIGITS, {"pixels": 2, "labels": 1}).values()
    x, t, n = pixels.reshape(-1, 8, 8), labels.astype(np.int64), 1437
    return Images(x[:n], t[:n], x[n:], t[n:], peak=16)


def _random(seed: int, dtype: str, inputs: int, classes: int) -> Dataset:
    """Draw a data set of which a net can learn nearly everything."""
    if seed < 0:
        raise DataError(f"`seed` must not be negative, got {seed}.")
    _check_range("classes", classes, 2, MAX_CLASSES)
    samples = 12 * max(classes, 100)
    _check_range("inputs", inputs, 1, LIMIT // (8 * samples))
    rng = np.random.default_rng(seed)
    t = rng.permutation(np.arange(samples, dtype=np.int64) % classes)
    # Of 64 inputs, centres lie about 3.3 apart, six times the noise's spread on either side.
    x = rng.random((classes, inputs))[t] + 0.25 * rng.standard_normal((samples, inputs))
    x = np.clip(x, 0, 1).astype(dtype)  # what is clipped to 0 are exact zeros, as in real images
    n = samples // 12 * 10
    return Dataset(x[:n], t[:n], x[n:], t[n:])


def _check_range(name: str, number: int, low: int, high: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or not low <= number <= high:
        raise DataError(f"`{name}` must be a whole number from {low} to {high}, got {shown(number)}.")
