"""Files are read for what they hold, not for what they claim."""

import gzip
import io
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reference.idx import FILES, PIECE, DataError, read_folder, read_idx, read_keras, read_npz

X = np.arange(8 * 4 * 3, dtype=np.uint8).reshape(8, 4, 3)  # rows and columns differ, so that a swap shows
T = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.uint8)
ARRAYS = X[:5], T[:5], X[5:], T[5:]
NPZ = dict(zip(("x_train", "y_train", "x_test", "y_test"), ARRAYS, strict=True))
WANTED = {"x_train": 3, "y_train": 1, "x_test": 3, "y_test": 1}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def npz(arrays: dict[str, Any] = NPZ) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def npy(descr: str, shape: str, body: bytes, version: bytes = b"\x01\x00") -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + body


def lay(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    """Write a sound folder, of which `files` replaces some."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ({name: idx(a) for name, a in zip(FILES, ARRAYS, strict=True)} | (files or {})).items():
        (folder / name).write_bytes(content)
    return folder


def assert_is_the_set(images: Any) -> None:
    for got, want, dtype in zip(images, ARRAYS, (np.uint8, np.int64) * 2, strict=False):
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, want)
    assert images.peak == 255


# --- sound files


@pytest.mark.parametrize("inner", ["", "raw", "MNIST/raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_every_layout_and_spelling_is_read(tmp_path, inner, dotted, packed):
    place = lay(tmp_path / inner)
    for name in FILES:
        new = place / (name.replace("-idx", ".idx" if dotted else "-idx") + ".gz" * packed)
        content = (place / name).read_bytes()
        (place / name).unlink()
        new.write_bytes(gzip.compress(content) if packed else content)
    assert_is_the_set(read_folder(tmp_path))


def test_gzip_is_recognized_by_content_not_by_name(tmp_path):
    plain = lay(tmp_path) / FILES[0]
    plain.rename(plain.with_name(plain.name + ".gz"))
    labels = tmp_path / FILES[1]
    labels.write_bytes(gzip.compress(labels.read_bytes()))
    assert_is_the_set(read_folder(tmp_path))


def test_an_array_that_was_read_can_be_written_to(tmp_path):
    array = read_idx(lay(tmp_path) / FILES[0], 3)
    array[0, 0, 0] = 7
    assert array[0, 0, 0] == 7


def test_one_image_of_one_pixel_is_enough(tmp_path):
    (tmp_path / "one").write_bytes(idx(X[:1, 1:2, :1]))
    assert read_idx(tmp_path / "one", 3).tolist() == [[[3]]]


@pytest.mark.parametrize("labels", ["u1", "<i8", ">i4", "<u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_keras_file_is_read(tmp_path, labels, order):
    arrays = {k: v.astype(labels) if k[0] == "y" else np.asarray(v, order=order) for k, v in NPZ.items()}
    (tmp_path / "mnist.npz").write_bytes(npz(arrays | {"extra": np.zeros(3)}))
    assert_is_the_set(read_keras(tmp_path / "mnist.npz"))


def test_version_two_of_the_npy_format_is_read(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, T, version=(2, 0))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("t.npy", buffer.getvalue())
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz", {"t": 1})["t"], T)


@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_parameters_are_read_as_they_are(tmp_path, dtype):
    arrays = {"W": np.array([[0.1, 0.2]], dtype), "b": np.array([0.3], dtype)}
    (tmp_path / "net.npz").write_bytes(npz(arrays))
    for name, array in read_npz(tmp_path / "net.npz", {"W": 2, "b": 1}, floats=True).items():
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, arrays[name])


# --- wrong IDX files

IMAGES = idx(X[:5])
HUGE = struct.pack(">4I", 0x0803, 60000, 28, 28)
BOMB = gzip.compress(IMAGES + bytes(20 << 20))
BAD_IMAGES = {
    "empty file": (b"", "must have a header of 16 bytes, got 0"),
    "half a header": (IMAGES[:11], "must have a header of 16 bytes, got 11"),
    "labels' magic": (idx(np.zeros(30, np.uint8)), "begin with the magic number 0x00000803, got 0x00000801"),
    "floats": (b"\0\0\x0d\x03" + IMAGES[4:], "begin with the magic number 0x00000803, got 0x00000d03"),
    "text": (b"<!doctype html><html></html>", "begin with the magic number 0x00000803, got 0x3c21646f"),
    "truncated": (IMAGES[:-1], "must hold 60 bytes after its header, got 59"),
    "trailing byte": (IMAGES + b"\0", "must hold 60 bytes after its header, got more"),
    "no images": (idx(X[:0]), r"must not be empty, got the shape \(0, 4, 3\)"),
    "no columns": (idx(X[:5, :, :0]), r"must not be empty, got the shape \(5, 4, 0\)"),
    "a claim of MNIST's size": (HUGE, "must hold 47040000 bytes after its header, got 0"),
    "a boundless claim": (b"\0\0\x08\x03" + b"\xff" * 12, "must hold at most 1073741824 bytes, got 79228"),
    "truncated gzip": (gzip.compress(IMAGES)[:-9], "must be readable, got EOFError"),
    "damaged sum": (gzip.compress(IMAGES)[:-8] + bytes(8), "must be readable, got BadGzipFile"),
    "damaged stream": (gzip.compress(IMAGES)[:10] + b"\xff" * 50, "must be readable, got error"),
    "no gzip after its magic": (b"\x1f\x8b" + b"\xff" * 30, "must be readable, got BadGzipFile"),
    "trailing bytes after gzip": (gzip.compress(IMAGES) + b"tail", "must be readable, got BadGzipFile"),
    "trailing byte in gzip": (gzip.compress(IMAGES + b"\0"), "must hold 60 bytes after its header, got more"),
    # Their last bytes are cut off: whoever reads on to the end meets an EOFError instead.
    "trailing byte in truncated gzip": (
        gzip.compress(IMAGES + b"\0")[:-8],
        "must hold 60 bytes after its header, got more",
    ),
    "bomb": (BOMB[:-8], "must hold 60 bytes after its header, got more"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_bad_idx_file_is_one_sentence(tmp_path, case):
    content, sentence = BAD_IMAGES[case]
    lay(tmp_path, {FILES[0]: content})
    with pytest.raises(DataError, match=sentence) as caught:
        read_folder(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / FILES[0]))
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tail", [b"\0", bytes(PIECE // 2)])
def test_a_file_of_several_pieces_is_read_to_one_byte_past_its_claim(tmp_path, tail):
    content = idx(np.zeros(PIECE, np.uint8))
    (tmp_path / "labels").write_bytes(content)
    assert len(read_idx(tmp_path / "labels", 1)) == PIECE
    (tmp_path / "labels").write_bytes(gzip.compress(content + tail, 1)[:-8])
    with pytest.raises(DataError, match=f"must hold {PIECE} bytes after its header, got more"):
        read_idx(tmp_path / "labels", 1)


@pytest.mark.parametrize(
    ("error", "got"),
    [
        (MemoryError(), "MemoryError"),
        (OSError("It is broken.\nTry again."), "OSError: It is broken"),
        (OSError("no room for a MATRIX"), "OSError: no room for a MATRIX"),
        (OSError("a" * 300), "OSError: " + "a" * 191),
    ],
)
def test_what_a_reader_raises_is_part_of_a_sentence(tmp_path, monkeypatch, error, got):
    def fail(*_):
        raise error

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(DataError) as caught:
        read_idx(tmp_path / "labels", 1)
    assert str(caught.value) == f"{tmp_path / 'labels'} must be readable, got {got}."
    assert caught.value.__cause__ is error


BAD_LABELS = {
    "images' magic": (idx(X[:5]), "begin with the magic number 0x00000801, got 0x00000803"),
    "one too few": (idx(T[:4]), "must hold one label for each of 5 images, got 4"),
    "ten": (idx(np.array([1, 2, 10, 11, 3], np.uint8)), r"must hold labels in 0..9, got 10\."),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels_are_one_sentence(tmp_path, case):
    content, sentence = BAD_LABELS[case]
    with pytest.raises(DataError, match=sentence) as caught:
        read_folder(lay(tmp_path, {FILES[1]: content}))
    assert str(caught.value).startswith(str(tmp_path / FILES[1]))


def test_test_labels_are_checked_too(tmp_path):
    with pytest.raises(DataError, match=f"{FILES[3]} must hold one label for each of 3 images, got 2"):
        read_folder(lay(tmp_path, {FILES[3]: idx(T[:2])}))


def test_training_and_test_images_have_one_shape(tmp_path):
    with pytest.raises(DataError, match=rf"{FILES[2]} must have images of \(4, 3\) as in training, got \(3, 4\)"):
        read_folder(lay(tmp_path, {FILES[2]: idx(X[5:].reshape(3, 3, 4))}))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=f"^{tmp_path} must hold {FILES[0]} or {FILES[0]}.gz, got neither"):
        read_folder(tmp_path)
    (lay(tmp_path) / FILES[3]).unlink()
    with pytest.raises(DataError, match=f"must hold {FILES[3]} or {FILES[3]}.gz, got neither"):
        read_folder(tmp_path)
    with pytest.raises(DataError, match="must be readable, got FileNotFoundError"):
        read_idx(tmp_path / FILES[3], 1)


@pytest.mark.parametrize(("first", "second"), [("", "/raw"), ("/MNIST/raw", "/FashionMNIST/raw")])
def test_two_sets_in_one_root_are_ambiguous(tmp_path, first, second):
    for place in (first, second):
        lay(Path(f"{tmp_path}{place}"))
    with pytest.raises(DataError, match=f"must hold one data set, got {tmp_path}{first} and {tmp_path}{second}."):
        read_folder(tmp_path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_claim_allocates_nothing(tmp_path, pack):
    lay(tmp_path, {FILES[0]: pack(struct.pack(">4I", 0x0803, 1 << 20, 32, 32) + b"few")})
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="must hold 1073741824 bytes after its header, got 3"):
            read_folder(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


# --- wrong npz files


class Trap:
    """Unpickling it raises what no reader catches."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def with_member(content: bytes) -> bytes:
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


BAD_NPZ = {
    "not a zip": (b"nonsense", "must be a readable npz file, got BadZipFile"),
    "empty file": (b"", "must be a readable npz file, got BadZipFile"),
    "truncated": (npz()[:-30], "must be a readable npz file, got BadZipFile"),
    "no arrays": (npz({}), "must hold the arrays x_train, y_train, x_test, y_test, got no x_train, y_train, x_test"),
    "a missing array": (npz({k: NPZ[k] for k in list(NPZ)[:3]}), "got no y_test"),
    "floats": (npz(NPZ | {"x_train": X[:5] / 255}), r"\[x_train\] must be uint8, got float64"),
    "wide pixels": (npz(NPZ | {"x_test": X[5:].astype("<i8")}), r"\[x_test\] must be uint8, got int64"),
    "float labels": (npz(NPZ | {"y_test": T[5:] / 1}), r"\[y_test\] must be integers, got float64"),
    "flat images": (npz(NPZ | {"x_test": X[5:].reshape(3, 12)}), r"\[x_test\] must be 3-dimensional, got .* \(3, 12\)"),
    "one-hot labels": (npz(NPZ | {"y_train": np.eye(10)[T[:5]]}), r"\[y_train\] must be 1-dimensional, got"),
    "no images": (npz(NPZ | {"x_train": X[:0]}), r"\[x_train\] must not be empty, got the shape \(0, 4, 3\)"),
    "a label of -1": (npz(NPZ | {"y_test": np.array([0, -1, 1])}), r"\[y_test\] must hold labels in 0..9, got -1\."),
    "one label more": (npz(NPZ | {"y_test": T[:4]}), r"\[y_test\] must hold one label for each of 3 images, got 4"),
    "objects": (npz(NPZ | {"y_test": np.array([Trap()] * 3)}), r"\[y_test\] must be integers, got object"),
    "a bare pickle": (with_member(pickle.dumps(Trap())), "must be a readable npz file, got ValueError: the magic"),
    "a short body": (with_member(npy("|u1", "(5, 4, 3)", bytes(59))), "must hold 60 bytes after its header, got 59"),
    "a long body": (with_member(npy("|u1", "(5, 4, 3)", bytes(61))), "must hold 60 bytes after its header, got more"),
    "a claim": (with_member(npy("|u1", "(60000, 28, 28)", b"")), "must hold 47040000 bytes after its header, got 0"),
    "a boundless claim": (with_member(npy("|u1", "(999999999, 999999999, 9)", b"")), "must hold at most"),
    "a negative size": (with_member(npy("|u1", "(-5, -4, 3)", bytes(60))), "must not be empty, got the shape"),
    "no header": (with_member(b"\x93NUMPY\x01\x00\xff\xff"), "must be a readable npz file, got ValueError"),
    "an endless header": (with_member(npy("|u1", "(5, 4, 3)" + " " * 10000, bytes(60))), "got ValueError: Header info"),
    "an odd compression": (packed_by(zipfile.ZIP_LZMA), "must be stored or deflated, got compression method 14"),
    "an unknown version": (with_member(npy("|u1", "(5, 4, 3)", bytes(60), b"\x09\x09")), "got KeyError"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_a_bad_npz_file_is_one_sentence(tmp_path, case):
    content, sentence = BAD_NPZ[case]
    path = tmp_path / "mnist.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        read_keras(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["i4", "f2", "c8", "O"])
def test_parameters_are_float32_or_float64(tmp_path, dtype):
    (tmp_path / "net.npz").write_bytes(npz({"b": np.ones(3, dtype)}))
    with pytest.raises(DataError, match=rf"\[b\] must be float32 or float64, got {np.dtype(dtype)}\.$"):
        read_npz(tmp_path / "net.npz", {"b": 1}, floats=True)


def test_rows_of_pixels_are_bytes_too(tmp_path):
    (tmp_path / "digits.npz").write_bytes(npz({"pixels": X[0].astype("<i8")}))
    with pytest.raises(DataError, match=r"\[pixels\] must be uint8, got int64\.$"):
        read_npz(tmp_path / "digits.npz", {"pixels": 2})


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path):
    sound = with_member(npy("|u1", "(5, 4, 3)", bytes(60) + bytes(20 << 20)))
    size = struct.pack("<I", len(npy("|u1", "(5, 4, 3)", bytes(60) + bytes(20 << 20))))
    (tmp_path / "mnist.npz").write_bytes(
        sound.replace(size, struct.pack("<I", len(npy("|u1", "(5, 4, 3)", bytes(60)))))
    )
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="BadZipFile: Bad CRC-32"):
            read_keras(tmp_path / "mnist.npz")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
