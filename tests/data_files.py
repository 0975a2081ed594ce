"""Small data sets and the bytes of the files that hold them, for the tests of the readers."""

import gzip
import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reference.idx import FILES
from reference.reading import DataError

X = np.arange(8 * 4 * 3, dtype=np.uint8).reshape(8, 4, 3)  # rows and columns differ, so that a swap shows
T = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.uint8)
ARRAYS = X[:5], T[:5], X[5:], T[5:]
NPZ = dict(zip(("x_train", "y_train", "x_test", "y_test"), ARRAYS, strict=True))
WANTED = {"x_train": 3, "y_train": 1, "x_test": 3, "y_test": 1}
UBYTE, INT = 0x08, 0x0C


def idx(array: np.ndarray, code: int = UBYTE) -> bytes:
    body = array.astype(">i4").tobytes() if code == INT else array.tobytes()
    return struct.pack(f">{1 + array.ndim}I", (code << 8) + array.ndim, *array.shape) + body


def npz(arrays: dict[str, Any] = NPZ) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def npy(descr: str, shape: str, body: bytes, version: bytes = b"\x01\x00") -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + body


def with_member(content: bytes) -> bytes:
    """Make an npz file one array of which holds any bytes."""
    buffer = io.BytesIO(npz({k: v for k, v in NPZ.items() if k != "x_train"}))
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", content)
    return buffer.getvalue()


def packed_by(method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(npz())) as sound, zipfile.ZipFile(buffer, "w", method) as archive:
        for name in sound.namelist():
            archive.writestr(name, sound.read(name))
    return buffer.getvalue()


def csv(x: np.ndarray, t: np.ndarray | None, *, header: bool = True) -> bytes:
    """Make a CSV file as Kaggle has them; without `t` it has no labels."""
    rows = x.reshape(len(x), -1)
    names = ["label"] * (t is not None) + [f"pixel{n}" for n in range(rows.shape[1])]
    table = rows if t is None else np.column_stack([t, rows])
    lines = [names] * header + table.tolist()
    return "".join(",".join(map(str, line)) + "\n" for line in lines).encode()


def lay(folder: Path, files: dict[str, bytes] | None = None, names: tuple[str, ...] = FILES) -> Path:
    """Write the four files of a sound data set, of which `files` replaces some."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ({name: idx(a) for name, a in zip(names, ARRAYS, strict=True)} | (files or {})).items():
        (folder / name).write_bytes(content)
    return folder


def pack(folder: Path) -> None:
    """Gzip the files of a folder."""
    for path in list(folder.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def assert_is_the_set(images: Any) -> None:
    for got, want, dtype in zip(images, ARRAYS, (np.uint8, np.int64) * 2, strict=False):
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, want)
    assert images.peak == 255


class Trap:
    """Unpickling it raises what no reader catches."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


# --- 62 classes, in files of every kind

LETTERS = np.random.default_rng(0).integers(0, 256, (310, 28, 28), np.uint8)
KINDS = np.arange(310) % 62
SPLIT = LETTERS[:248], KINDS[:248], LETTERS[248:], KINDS[248:]
BYCLASS = tuple(
    f"emnist-byclass-{name}" for name in (FILES[0], FILES[1], *(n.replace("t10k", "test") for n in FILES[2:]))
)


def as_emnist(folder: Path) -> Path:
    lay(folder, {name: idx(a.astype(np.uint8)) for name, a in zip(BYCLASS, SPLIT, strict=True)}, BYCLASS)
    lay(folder)  # beside another
    return folder / BYCLASS[0]


def as_medmnist(folder: Path) -> Path:
    labels = {"train_labels": KINDS[:248, None], "test_labels": KINDS[248:, None]}
    return saved(folder, train_images=LETTERS[:248], test_images=LETTERS[248:], **labels)


def as_keras(folder: Path) -> Path:
    one_hot = np.eye(62)[KINDS]
    x = (LETTERS[..., None] / 255).astype(np.float32)
    return saved(folder, x_train=x[:248], x_test=x[248:], y_train=one_hot[:248], y_test=one_hot[248:])


def as_csv(folder: Path) -> Path:
    for name, x, t in (("train.csv", LETTERS[:248], KINDS[:248]), ("test.csv", LETTERS[248:], KINDS[248:])):
        (folder / name).write_bytes(csv(x, t))
    return folder / "train.csv"


def as_csv_folder(folder: Path) -> Path:
    return as_csv(folder).parent


def as_csv_of_another_name(folder: Path) -> Path:
    path = as_csv(folder)
    (folder / "test.csv").rename(folder / "letters_test.txt")
    return path.rename(folder / "letters_train.txt")


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "letters.npz", **arrays)
    return folder / "letters.npz"


def peak_of_refusal(read: Callable[[Path], object], path: Path, match: str) -> int:
    """Return the most bytes allocated while a file is refused: the least of three counts, since any thread's count."""
    peaks = []
    for _ in range(3):
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match=match):
                read(path)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)
