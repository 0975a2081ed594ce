"""npz files: what is read of them, and what is refused in a sentence."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from data_files import ARRAYS, NPZ, T, Trap, X, assert_is_the_set, npy, npz, packed_by, peak_of_refusal, with_member
from reference.images import count_classes
from reference.npz import NAMINGS, read_npz, read_npz_set
from reference.reading import DataError

MEDMNIST = ("train_images", "train_labels", "test_images", "test_labels")


def written(tmp_path, **arrays):
    """Write an npz file that is sound but for these arrays, and return its path."""
    (tmp_path / "mnist.npz").write_bytes(npz(NPZ | arrays))
    return tmp_path / "mnist.npz"


# --- what is read


@pytest.mark.parametrize("labels", ["u1", "<i8", ">i4", "<u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_keras_file_is_read(tmp_path, labels, order):
    arrays = {k: v.astype(labels) if k[0] == "y" else np.asarray(v, order=order) for k, v in NPZ.items()}
    (tmp_path / "mnist.npz").write_bytes(npz(arrays | {"extra": np.zeros(3)}))
    assert_is_the_set(read_npz_set(tmp_path / "mnist.npz"))


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


@pytest.mark.parametrize("names", NAMINGS)
def test_each_naming_is_read(tmp_path, names):
    (tmp_path / "a.npz").write_bytes(npz(dict(zip(names, ARRAYS, strict=True))))
    assert_is_the_set(read_npz_set(tmp_path / "a.npz"))


def test_medmnist_is_read_without_its_validation_set(tmp_path):
    assert MEDMNIST in NAMINGS
    arrays = dict(zip(MEDMNIST, (X[:5], T[:5, None], X[5:], T[5:, None]), strict=True))
    others = {"val_images": X[:2].astype(object), "val_labels": T[:2, None]}
    (tmp_path / "organmnist.npz").write_bytes(npz(others | arrays))
    assert_is_the_set(read_npz_set(tmp_path / "organmnist.npz"))


def test_of_two_namings_the_whole_one_is_read(tmp_path):
    both = {"x_train": X[:2], "y_train": T[:2]} | dict(zip(MEDMNIST, ARRAYS, strict=True))
    (tmp_path / "a.npz").write_bytes(npz(both))
    assert_is_the_set(read_npz_set(tmp_path / "a.npz"))
    assert_is_the_set(
        read_npz_set(written(tmp_path, train_images=X[:1], train_labels=T[:1], test_images=X, test_labels=T))
    )


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 1), (1, 4, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_axis_of_one_channel_is_removed(tmp_path, shape, order):
    arrays = {k: np.asarray(NPZ[k].reshape(-1, *shape), order=order) for k in ("x_train", "x_test")}
    assert_is_the_set(read_npz_set(written(tmp_path, **arrays)))


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((9,), (3, 3)),
        ((784,), (28, 28)),
        ((12,), (1, 12)),
        ((2,), (1, 2)),
        ((3, 4, 3), (3, 4, 3)),
        ((4, 5, 3), (4, 5, 3)),
        ((1, 1, 1), (1, 1)),
        ((2, 3, 4, 1), (2, 3, 4, 1)),
    ],
)
def test_flat_images_are_squares_where_they_can_be_and_colours_stay(tmp_path, shape, found):
    x = np.random.default_rng(0).integers(0, 256, (8, *shape), np.uint8)
    images = read_npz_set(written(tmp_path, x_train=x[:5], x_test=x[5:]))
    np.testing.assert_array_equal(images.x_train, x[:5].reshape(5, *found))
    np.testing.assert_array_equal(images.x_test, x[5:].reshape(3, *found))


@pytest.mark.parametrize("dtype", ["f2", "f4", "<f8", ">f8"])
@pytest.mark.parametrize(("scale", "peak"), [(255, 1), (1, 255)])
def test_floats_are_in_0_to_1_or_in_0_to_255(tmp_path, dtype, scale, peak):
    x = np.where(X == 0, 255, X) / scale
    images = read_npz_set(written(tmp_path, x_train=x[:5].astype(dtype), x_test=X[5:].astype(dtype) / scale))
    assert images.peak == peak
    np.testing.assert_array_equal(images.x_train, x[:5].astype(dtype))


def test_floats_of_1_are_full_and_of_more_are_not(tmp_path):
    for top, peak in ((1.0, 1), (np.nextafter(1.0, 2), 255), (255.0, 255)):
        x = np.full((5, 2, 2), top)
        assert read_npz_set(written(tmp_path, x_train=x, x_test=x[:3])).peak == peak


@pytest.mark.parametrize("dtype", ["<i8", ">i8", "i2", "u4", "u8"])
def test_wide_integers_are_bytes(tmp_path, dtype):
    assert_is_the_set(read_npz_set(written(tmp_path, x_train=X[:5].astype(dtype), x_test=X[5:].astype(dtype))))


def test_booleans_are_pixels_too(tmp_path):
    images = read_npz_set(written(tmp_path, x_train=X[:5] > 20, x_test=X[5:] > 70))
    assert images.peak == 1
    np.testing.assert_array_equal(images.x_train, X[:5] > 20)


@pytest.mark.parametrize("dtype", ["u1", "<i4", ">f4", "f8", "?"])
def test_one_hot_labels_are_read(tmp_path, dtype):
    rows = np.eye(10, dtype=dtype)[T]
    assert_is_the_set(read_npz_set(written(tmp_path, y_train=rows[:5], y_test=rows[5:])))


def test_62_classes_are_62_classes(tmp_path):
    t = np.arange(124, dtype=np.int64) % 62
    x = np.random.default_rng(0).random((124, 28, 28, 1), np.float32)
    images = read_npz_set(written(tmp_path, x_train=x, y_train=np.eye(62)[t], x_test=x[:9], y_test=t[:9]))
    assert count_classes(images.t_train, images.t_test) == 62
    np.testing.assert_array_equal(images.t_train, t)
    assert images.x_train.shape == (124, 28, 28)


def test_the_test_set_may_hold_the_last_class(tmp_path):
    images = read_npz_set(written(tmp_path, y_test=np.array([0, 9_999, 1])))
    assert count_classes(images.t_train, images.t_test) == 10_000


# --- what is refused


MULTI = np.array([[0, 1, 1]] * 5)
BAD_NPZ = {
    "not a zip": (b"nonsense", "must be a readable npz file, got BadZipFile"),
    "empty file": (b"", "must be a readable npz file, got BadZipFile"),
    "truncated": (npz()[:-30], "must be a readable npz file, got BadZipFile"),
    "no arrays": (npz({}), "must hold the arrays x_train, y_train, x_test, y_test, got no x_train, y_train, x_test"),
    "a missing array": (npz({k: NPZ[k] for k in list(NPZ)[:3]}), "got no y_test"),
    "part of MedMNIST": (
        npz(dict(zip(MEDMNIST[:3], ARRAYS, strict=False))),
        f"{', '.join(MEDMNIST)}, got no test_labels",
    ),
    "numbers": (npz(NPZ | {"x_train": X[0, 0]}), r"\[x_train\] must be images .*, got the shape \(3,\)"),
    "one number": (
        npz(NPZ | {"x_train": np.array(3)}),
        r"\[x_train\] must have one entry a sample, got the shape \(\)",
    ),
    "text": (npz(NPZ | {"x_train": X[:5].astype(str)}), r"\[x_train\] must hold integers, float16, .*, got <U3\."),
    "complex pixels": (npz(NPZ | {"x_train": X[:5] * 1j}), r"\[x_train\] must hold integers, .*, got complex128\."),
    "long pixels": (npz(NPZ | {"x_train": X[:5].astype("g")}), r"\[x_train\] must hold integers, .*, got "),
    "dates": (npz(NPZ | {"y_train": T[:5].astype("M8[D]")}), r"\[y_train\] must hold integers, .*, got datetime64"),
    "negative pixels": (npz(NPZ | {"x_train": X[:5] - 0.5}), r"must hold pixels in 0..1 or 0..255, got -0\.5\."),
    "bright pixels": (
        npz(NPZ | {"x_test": X[5:].astype(int) + 161}),
        r"\[x_test\] must hold pixels in 0..1 or 0..255, got 256\.",
    ),
    "not a number": (npz(NPZ | {"x_train": X[:5] / 255 + np.nan}), "must hold pixels in 0..1 or 0..255, got nan"),
    "one not a number": (npz(NPZ | {"x_train": np.where(X[:5] == 3, np.nan, X[:5])}), "or 0..255, got nan"),
    "infinite pixels": (npz(NPZ | {"x_train": np.where(X[:5] == 3, np.inf, X[:5])}), "or 0..255, got inf"),
    "two scales": (npz(NPZ | {"x_test": X[5:] / 255}), r"\[x_test\] must have pixels in 0..255 as in .* in 0..1\."),
    "two shapes": (npz(NPZ | {"x_test": X[5:].reshape(3, 12)}), r"must have images of \(4, 3\) as .*, got \(1, 12\)\."),
    "float labels": (npz(NPZ | {"y_test": T[5:] / 1}), r"\[y_test\] must hold integers, got float64"),
    "float columns": (npz(NPZ | {"y_test": T[5:, None] / 1}), r"\[y_test\] must hold integers, got float64"),
    "true labels": (npz(NPZ | {"y_test": T[5:] > 3}), r"\[y_test\] must hold integers, got bool"),
    "many labels": (npz(NPZ | {"y_train": MULTI}), r"must be class indices or one-hot rows, got the row \[0, 1, 1\]\."),
    "no labels": (npz(NPZ | {"y_train": np.eye(5) * (T[:5] != 5)}), r"one-hot rows, got the row \[0.0, 0.0, 0.0"),
    "two for one": (npz(NPZ | {"y_train": 2 * np.eye(5)}), r"one-hot rows, got the row \[2.0, 0.0"),
    "negative rows": (npz(NPZ | {"y_train": MULTI[:, :2] * [[1, -1]]}), r"one-hot rows, got the row \[0, -1\]"),
    "soft labels": (npz(NPZ | {"y_train": np.full((5, 2), 0.5)}), r"one-hot rows, got the row \[0.5, 0.5\]"),
    "cubes of labels": (npz(NPZ | {"y_train": np.ones((5, 1, 1), int)}), r"\(N, 1\) .*, got the shape \(5, 1, 1\)"),
    "one class": (npz(NPZ | {"y_train": T[:5] * 0, "y_test": T[5:] * 0}), "of at least 2 classes, got only 0"),
    "a label of -1": (npz(NPZ | {"y_test": np.array([0, -1, 1])}), r"\[y_test\] must hold labels in 0..9999, got -1\."),
    "a label of 10,000": (npz(NPZ | {"y_test": np.array([0, 10_000, 1])}), r"labels in 0..9999, got 10000\."),
    "a label past int64": (
        npz(NPZ | {"y_test": np.array([0, 2**64 - 1, 1], "u8")}),
        "0..9999, got 18446744073709551615",
    ),
    "objects": (npz(NPZ | {"y_test": np.array([Trap()] * 3)}), r"\[y_test\] must hold integers, .*, got object"),
    "pickled pixels": (
        npz(NPZ | {"x_train": np.array([Trap()] * 5)}),
        r"\[x_train\] must hold integers, .*, got object",
    ),
    "no images": (npz(NPZ | {"x_train": X[:0]}), r"\[x_train\] must not be empty, got the shape \(0, 4, 3\)"),
    "one label more": (npz(NPZ | {"y_test": T[:4]}), r"\[y_test\] must hold one label for each of 3 images, got 4"),
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
        read_npz_set(path)
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


@pytest.mark.parametrize("dtype", ["u1", "i2", ">u4", "i8"])
def test_labels_are_integers_of_any_width(tmp_path, dtype):
    (tmp_path / "digits.npz").write_bytes(npz({"t": np.array([1, 0, 2], dtype)}))
    assert read_npz(tmp_path / "digits.npz", {"t": 1})["t"].tolist() == [1, 0, 2]


@pytest.mark.parametrize("dtype", ["f4", "?", "c16"])
def test_labels_of_another_kind_are_refused(tmp_path, dtype):
    (tmp_path / "digits.npz").write_bytes(npz({"t": np.ones(3, dtype)}))
    with pytest.raises(DataError, match=rf"\[t\] must be integers, got {np.dtype(dtype)}\.$"):
        read_npz(tmp_path / "digits.npz", {"t": 1})


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path):
    sound = with_member(npy("|u1", "(5, 4, 3)", bytes(60) + bytes(20 << 20)))
    size = struct.pack("<I", len(npy("|u1", "(5, 4, 3)", bytes(60) + bytes(20 << 20))))
    (tmp_path / "mnist.npz").write_bytes(
        sound.replace(size, struct.pack("<I", len(npy("|u1", "(5, 4, 3)", bytes(60)))))
    )
    assert peak_of_refusal(read_npz_set, tmp_path / "mnist.npz", "BadZipFile: Bad CRC-32") < 4 << 20
