"""MNIST and Fashion-MNIST, downloaded once into a cache."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reference.idx import FILES
from reference.reading import DataError

MD5 = {  # of idx.FILES, gzipped
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
MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
}


def download(name: str) -> Path:
    """Download the files of `name` that the cache lacks, and return the folder that holds them."""
    try:
        import pooch  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError as error:
        raise DataError(
            f"{name} must be downloaded by pooch, got {str(error)!r}; a folder can be given instead of the name."
        ) from error
    try:
        folder = Path(os.environ.get("FDNET_CACHE") or pooch.os_cache("fdnet")).expanduser() / name
    except RuntimeError as error:
        raise DataError(
            f"{name} must have a folder to be kept in, but no home folder is known: set FDNET_CACHE to one, "
            "or give a folder that holds the data instead of the name."
        ) from error
    with _quiet(pooch.get_logger()):
        for file, md5 in zip(FILES, MD5[name], strict=True):
            _fetch(pooch.retrieve, name, f"{file}.gz", md5, folder)
    return folder


def _fetch(retrieve: Any, name: str, file: str, md5: str, folder: Path) -> None:
    failures = []
    bar = _Bar(file) if sys.stderr.isatty() else None
    for mirror in MIRRORS[name]:
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
        "a folder can be given instead of the name."
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
    """A progress bar as pooch wants it, drawn by rich on stderr; it shows once a download has begun."""

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
