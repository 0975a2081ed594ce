"""Every source yields the same kind of data set, or one sentence that says why not."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import data_files
from data_files import KINDS, T, as_medmnist, idx, lay, pack, saved
from reference import datasets
from reference.datasets import NAMES, DataError, load, load_mnist
from reference.idx import FILES

X = data_files.X.copy()
X[0, 0, 0] = 255


@pytest.fixture
def folder(tmp_path):
    pack(lay(tmp_path, {FILES[0]: idx(X[:5])}))
    return tmp_path


def assert_well_formed(data, dtype="float64"):
    for x, t in ((data.x_train, data.t_train), (data.x_test, data.t_test)):
        assert x.dtype == dtype
        assert x.ndim == 2
        assert x.flags.c_contiguous
        assert (x.min(), x.max()) == (0, 1)
        assert t.dtype == np.int64
        assert t.shape == x.shape[:1]
        assert set(t) <= set(range(10))
    assert data.x_train.shape[1] == data.x_test.shape[1]


# --- digits


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_digits_are_the_real_ones(dtype):
    data = load("digits", dtype=dtype)
    assert_well_formed(data, dtype)
    assert (data.x_train.shape, data.x_test.shape) == ((1437, 64), (360, 64))
    labels = np.concatenate([data.t_train, data.t_test])
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert 16 * (data.x_train.sum(dtype="float64") + data.x_test.sum(dtype="float64")) == 561718
    assert (16 * data.x_train[0, :8]).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_digits_name_their_authors_and_licence():
    folder = Path(datasets.__file__).parent
    assert (folder / "digits.npz").stat().st_size < 50_000
    for text in (datasets.__doc__, (folder / "digits.LICENSE.md").read_text(encoding="utf-8")):
        for word in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0"):
            assert word in text


# --- random


def test_random_is_drawn_from_its_seed_only():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = load("random", seed=3)
    np.testing.assert_array_equal(before, np.random.get_state()[1])
    np.random.seed(2)
    for a, b in zip(first, load("random", seed=3), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.x_train, load("random", seed=4).x_train)
    np.testing.assert_array_equal(load("random").x_train, load("random", seed=0).x_train)


def test_random_is_well_formed_and_the_same_in_float32():
    double, single = load("random"), load("random", dtype="float32")
    assert_well_formed(double)
    assert_well_formed(single, "float32")
    assert (double.x_train.shape, double.x_test.shape) == ((1000, 64), (200, 64))
    np.testing.assert_array_equal(double.x_train.astype("float32"), single.x_train)
    assert min(np.bincount(double.t_train, minlength=10)) > 50
    assert double.classes == 10


@pytest.mark.parametrize(
    ("inputs", "classes", "samples"),
    [(784, 62, 1200), (1, 2, 1200), (64, 10, 1200), (3, 100, 1200), (5, 101, 1212), (2, 1000, 12_000)],
)
def test_random_has_the_inputs_and_classes_that_are_asked_for(inputs, classes, samples):
    data = load("random", inputs=inputs, classes=classes)
    assert data.classes == classes
    assert (data.x_train.shape, data.x_test.shape) == ((samples // 6 * 5, inputs), (samples // 6, inputs))
    assert set(data.t_train) | set(data.t_test) == set(range(classes))
    assert max(np.bincount(np.concatenate([data.t_train, data.t_test]))) <= -(-samples // classes)


def test_random_is_by_default_of_64_inputs_and_10_classes():
    for given in ({"inputs": 64}, {"classes": 10}, {"inputs": np.int64(64), "classes": np.int64(10)}):
        for a, b in zip(load("random"), load("random", **given), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "number", "high", "other"),
    [
        ("inputs", 0, 111_848, {}),
        ("inputs", 111_849, 111_848, {}),
        ("inputs", 1119, 1118, {"classes": 10_000}),
        ("inputs", 2.0, 111_848, {}),
        ("inputs", True, 111_848, {}),
        ("classes", 1, 10_000, {}),
        ("classes", 10_001, 10_000, {}),
        ("classes", "3", 10_000, {}),
    ],
)
def test_random_of_no_size_is_refused(name, number, high, other):
    low = 2 if name == "classes" else 1
    with pytest.raises(DataError) as caught:
        load("random", **{name: number}, **other)
    assert str(caught.value) == f"`{name}` must be a whole number from {low} to {high}, got {number!r}."


@pytest.mark.parametrize("name", ["inputs", "classes"])
@pytest.mark.parametrize("source", ["digits", "mnist", "nope"])
def test_only_random_can_be_of_another_size(name, source):
    rule = f"^`{name}` must be left out with every data set but random, got 0.$"
    with pytest.raises(DataError, match=rule):
        load(source, **{name: 0})


@pytest.mark.parametrize("classes", [10, 62])
def test_random_can_be_learnt(classes):
    data = load("random", classes=classes)
    centres = np.stack([data.x_train[data.t_train == k].mean(axis=0) for k in range(classes)])  # (classes, 64)
    nearest = np.linalg.norm(data.x_test[:, None] - centres, axis=2).argmin(axis=1)
    assert np.mean(nearest == data.t_test) > 0.98


# --- names and paths


@pytest.mark.parametrize("source", ["", "nope", "MNIST", "no/such/folder", "\0", "x" * 5000, Path("digits")])
def test_an_unknown_source_is_one_sentence(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load(source)
    known = f"{', '.join(NAMES)} or the path of a folder or of an npz, CSV or IDX file"
    assert str(caught.value) == f"`source` must be {known}, got {str(source)!r}."


@pytest.mark.parametrize("dtype", ["float16", "int8", "double", "nonsense", ""])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(DataError, match=f"^`dtype` must be float32 or float64, got '{dtype}'.$"):
        load("random", dtype=dtype)


def test_a_negative_seed_is_refused():
    with pytest.raises(DataError, match=r"^`seed` must not be negative, got -1\.$"):
        load("random", seed=-1)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_is_scaled_from_255(folder, dtype, kind):
    data = load(kind(folder), dtype=dtype)
    np.testing.assert_array_equal(data.x_train, X[:5].reshape(5, 12).astype(dtype) / np.dtype(dtype).type(255))
    np.testing.assert_array_equal(data.x_test, X[5:].reshape(3, 12).astype(dtype) / np.dtype(dtype).type(255))
    np.testing.assert_array_equal(data.t_train, T[:5])
    np.testing.assert_array_equal(data.t_test, T[5:])
    assert data.x_train.dtype == dtype
    assert data.x_train.flags.c_contiguous
    assert data.t_train.dtype == np.int64


def test_a_keras_file_is_the_same_set_as_a_folder(folder):
    np.savez(folder / "mnist.npz", x_train=X[:5], y_train=T[:5], x_test=X[5:], y_test=T[5:])
    for a, b in zip(load(folder / "mnist.npz"), load(folder), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_home_folder_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert load(f"~/{folder.name}").x_train.shape == (5, 12)


def test_a_name_comes_before_a_folder_of_that_name(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    folder.rename(folder.parent / "digits")
    assert load("digits").x_train.shape == (1437, 64)
    assert load("./digits").x_train.shape == (5, 12)


# --- the book's function


def test_load_mnist_normalizes_and_flattens_as_the_book_does(folder):
    (x_train, t_train), (x_test, t_test) = load_mnist(source=folder)
    assert x_train.dtype == np.float32
    np.testing.assert_array_equal(x_train, X[:5].reshape(5, 12) / np.float32(255))
    np.testing.assert_array_equal(t_train, T[:5])
    assert (x_test.shape, t_test.tolist()) == ((3, 12), T[5:].tolist())


def test_load_mnist_leaves_pixels_as_they_are(folder):
    (x_train, _), (x_test, _) = load_mnist(normalize=False, flatten=False, source=folder)
    assert x_train.dtype == np.uint8
    np.testing.assert_array_equal(x_train, X[:5, None])
    np.testing.assert_array_equal(x_test, X[5:, None])
    assert load_mnist(flatten=False, source=folder)[0][0].shape == (5, 1, 4, 3)


@pytest.mark.parametrize("normalize", [True, False])
def test_load_mnist_gives_one_hot_labels(folder, normalize):
    (x, t), (_, t_test) = load_mnist(normalize, one_hot_label=True, source=folder)
    assert t.shape == (5, 10)
    assert t.dtype == x.dtype
    np.testing.assert_array_equal(t.sum(axis=1), np.ones(5))
    np.testing.assert_array_equal(t.argmax(axis=1), T[:5])
    np.testing.assert_array_equal(t_test.argmax(axis=1), T[5:])


def test_load_mnist_has_a_row_of_one_hot_labels_for_each_class(tmp_path):
    (_, t), (_, t_test) = load_mnist(one_hot_label=True, source=as_medmnist(tmp_path))
    assert (t.shape, t_test.shape) == ((248, 62), (62, 62))
    np.testing.assert_array_equal(t.argmax(axis=1), KINDS[:248])


def test_load_mnist_leaves_colours_where_they_are(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
    path = saved(tmp_path, x_train=x, y_train=T[:5], x_test=x[:3], y_test=T[5:])
    (images, _), _ = load_mnist(normalize=False, flatten=False, source=path)
    np.testing.assert_array_equal(images, x)
    np.testing.assert_array_equal(load(path).x_train, x.reshape(5, 72) / 255)


def test_load_mnist_takes_digits_by_their_own_scale():
    (x, _), _ = load_mnist(source="digits")
    np.testing.assert_array_equal(x, load("digits", dtype="float32").x_train)
    assert load_mnist(flatten=False, source="digits")[1][0].shape == (360, 1, 8, 8)


def test_load_mnist_has_no_random_pixels():
    with pytest.raises(DataError, match="must be digits, mnist"):
        load_mnist(source="random")


def test_nothing_but_numpy_is_imported_until_a_download():
    code = "import sys; from reference.datasets import load; load('digits'); print(*{'pooch', 'rich'} & {*sys.modules})"
    root = Path(datasets.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


# --- the real thing


@pytest.mark.skipif(not os.environ.get("FDNET_MNIST"), reason="FDNET_MNIST names no folder that holds the real MNIST")
def test_the_real_mnist():
    data = load(os.environ["FDNET_MNIST"], dtype="float32")
    assert_well_formed(data, "float32")
    assert (data.x_train.shape, data.x_test.shape) == ((60000, 784), (10000, 784))
    assert np.bincount(data.t_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.t_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.x_train.mean(dtype="float64") == pytest.approx(0.1306604762738429)
    assert np.mean(data.x_train == 0) == pytest.approx(0.81, abs=0.005)
