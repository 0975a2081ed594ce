"""The data sets a net can be trained on: `digits` comes along, `mnist` and `fashion-mnist` are downloaded once.

`digits` are the 1,797 real digits of 8x8 pixels of the UCI "Optical Recognition of Handwritten Digits" data set by
E. Alpaydin and C. Kaynak (1998), https://doi.org/10.24432/C50P49, under CC BY 4.0; see `digits.LICENSE.md`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from reference.idx import CLASSES, FILES, DataError, Images, read_folder, read_keras, read_npz

__all__ = ["NAMES", "DataError", "Dataset", "load", "load_mnist"]

NAMES = ("digits", "mnist", "fashion-mnist", "random")

_DIGITS = Path(__file__).with_name("digits.npz")
_MD5 = {  # of idx.FILES, gzipped
    "mnist": (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion-mnist": (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
}
_MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
}


class Dataset(NamedTuple):
    """Inputs in [0, 1], C-contiguous, and their labels in 0..9."""

    x_train: NDArray[Any]  # (N, I)
    t_train: NDArray[np.int64]  # (N,)
    x_test: NDArray[Any]
    t_test: NDArray[np.int64]


def load(source: str | os.PathLike[str], *, dtype: str = "float64", seed: int = 0) -> Dataset:
    """Load a data set by its name or from a path.

    Parameters
    ----------
    source
        One of `NAMES`; or the path of a folder in MNIST's IDX format or of a file like Keras' `mnist.npz`. `digits`
        has its first 1,437 for training and its last 360 for the test, in the order of the UCI's file; `random` has
        1,000 and 200 with 64 inputs; `mnist` and `fashion-mnist` have 60,000 and 10,000 with 784.
    dtype
        Of the inputs: float32 or float64.
    seed
        What `random` is drawn from.

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
        return _random(seed, dtype)
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
        Whether pixels are float32 in [0, 1]; uint8 in 0..255 otherwise.
    flatten
        Whether an image is a row of 784 pixels; of shape (1, 28, 28) otherwise.
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

    def arranged(x: NDArray[np.uint8], t: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = _scaled(x, images.peak, "float32") if normalize else x
        labels = np.eye(CLASSES, dtype=rows.dtype)[t] if one_hot_label else t
        return rows.reshape((len(x), -1) if flatten else (len(x), 1, *x.shape[1:])), labels

    return arranged(images.x_train, images.t_train), arranged(images.x_test, images.t_test)


def _images(source: str | os.PathLike[str]) -> Images:
    if source == "digits":
        return _digits()
    if source in _MIRRORS:
        return read_folder(_download(str(source)))
    path = Path(os.path.expanduser(source))
    if str(source) and os.path.isdir(path):  # an empty name would be the folder one happens to be in
        return read_folder(path)
    if os.path.isfile(path):
        return read_keras(path)
    raise DataError(f"`source` must be {', '.join(NAMES)} or the path of a folder or npz file, got {str(source)!r}.")


def _scaled(x: NDArray[np.uint8], peak: int, dtype: str) -> NDArray[Any]:
    rows = np.ascontiguousarray(x.reshape(len(x), -1), dtype)  # (N, I)
    rows /= peak  # in place: MNIST in float64 is 376 MB
    return rows


def _digits() -> Images:
    pixels, labels = read_npz(_DIGITS, {"pixels": 2, "labels": 1}).values()
    x, t, n = pixels.reshape(-1, 8, 8), labels.astype(np.int64), 1437
    return Images(x[:n], t[:n], x[n:], t[n:], peak=16)


def _random(seed: int, dtype: str) -> Dataset:
    if seed < 0:
        raise DataError(f"`seed` must not be negative, got {seed}.")
    rng = np.random.default_rng(seed)
    t = rng.permutation(np.arange(1200, dtype=np.int64) % CLASSES)
    # Centres lie about 3.3 apart, six times the noise's spread on either side: a net can learn them nearly perfectly.
    x = rng.random((CLASSES, 64))[t] + 0.25 * rng.standard_normal((1200, 64))
    x = np.clip(x, 0, 1).astype(dtype)  # what is clipped to 0 are exact zeros, as in real images
    return Dataset(x[:1000], t[:1000], x[1000:], t[1000:])


def _download(name: str) -> Path:
    """Return the folder of the cache that holds `name`, having fetched what it lacks."""
    try:
        import pooch  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError as error:
        raise DataError(
            f"{name} must be downloaded by pooch, got {str(error)!r}; `--data PATH` takes a local folder."
        ) from error
    folder = Path(os.path.expanduser(os.environ.get("FDNET_CACHE") or pooch.os_cache("fdnet"))) / name
    with _quiet(pooch.get_logger()):
        for file, md5 in zip(FILES, _MD5[name], strict=True):
            _fetch(pooch.retrieve, name, f"{file}.gz", md5, folder)
    return folder


def _fetch(retrieve: Any, name: str, file: str, md5: str, folder: Path) -> None:
    failures = []
    bar = _Bar(file) if sys.stderr.isatty() else None
    for mirror in _MIRRORS[name]:
        try:
            retrieve(mirror + file, f"md5:{md5}", fname=file, path=folder, progressbar=bar or False)
            return
        except (OSError, ValueError) as error:  # what requests raises is an OSError; a wrong hash is a ValueError
            reason = type(error).__name__ if isinstance(error, OSError) else "wrong checksum"
            failures.append(f"{urlsplit(mirror).hostname} ({reason})")
            last = error
        finally:
            if bar:
                bar.close()
    raise DataError(
        f"{name} could not be downloaded to {folder}, got no {file} from {' or '.join(failures)}; "
        "`--data PATH` takes a local folder."
    ) from last


@contextmanager
def _quiet(logger: Any) -> Iterator[None]:
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


class _Bar:
    """What pooch asks of a progress bar, drawn by rich on stderr; it shows once a download has begun."""

    def __init__(self, label: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(label, total=None)

    @property
    def total(self) -> float | None:
        return self._progress.tasks[0].total

    @total.setter
    def total(self, size: int) -> None:
        self._progress.reset(self._task, total=size or None)  # a server need not tell the size
        self._progress.start()

    def update(self, size: int) -> None:
        self._progress.update(self._task, advance=size)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.stop()
