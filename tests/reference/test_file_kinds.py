"""The user's own data: any number of classes, in files of every kind, each known by its content."""

import gzip
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_files import (
    KINDS,
    LETTERS,
    Trap,
    X,
    as_csv,
    as_csv_folder,
    as_csv_of_another_name,
    as_emnist,
    as_keras,
    as_medmnist,
    csv,
    idx,
    lay,
)
from reference.datasets import DataError, load, load_mnist


@pytest.mark.parametrize("written", [as_emnist, as_medmnist, as_keras, as_csv, as_csv_folder, as_csv_of_another_name])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_62_classes_are_read_of_every_kind_of_file(tmp_path, written, dtype):
    data = load(written(tmp_path), dtype=dtype)
    assert data.classes == 62
    assert data.x_train.dtype == data.x_test.dtype == dtype
    exact = 0 if written is not as_keras else 1e-7  # float32 in the file
    np.testing.assert_allclose(data.x_train, LETTERS[:248].reshape(248, 784) / np.dtype(dtype).type(255), rtol=exact)
    np.testing.assert_allclose(data.x_test, LETTERS[248:].reshape(62, 784) / np.dtype(dtype).type(255), rtol=exact)
    np.testing.assert_array_equal(data.t_train, KINDS[:248])
    np.testing.assert_array_equal(data.t_test, KINDS[248:])
    assert {len(data.t_train), data.t_train.dtype} == {248, np.dtype(np.int64)}


def test_a_folder_of_both_kinds_is_read_as_idx(tmp_path):
    (lay(tmp_path) / "train.csv").write_bytes(b"nonsense")
    assert load(tmp_path).x_train.shape == (5, 12)


def test_of_several_tables_one_is_taken_by_its_path(tmp_path):
    (tmp_path / "other_train.csv").write_bytes(b"nonsense")
    as_csv(tmp_path)
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} must hold one data set, got other_train.csv, train.csv; "
        "give the path of one of these files instead."
    )
    assert load(tmp_path / "train.csv").classes == 62


def test_a_folder_without_data_is_one_sentence(tmp_path):
    (tmp_path / "test.csv").write_bytes(csv(LETTERS, KINDS))
    rule = "must hold train-images-idx3-ubyte or the like of EMNIST or QMNIST, or train.csv, got neither."
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert str(caught.value) == f"{tmp_path} {rule}"


def as_the_book_pickles(protocol):
    names = "train_img", "train_label", "test_img", "test_label"
    arrays = (LETTERS[:248].reshape(248, 784), KINDS[:248], LETTERS[248:].reshape(62, 784), KINDS[248:])
    return pickle.dumps(dict(zip(names, arrays, strict=True)), protocol)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["mnist.pkl", "mnist.pickle", "mnist.pkl.gz", "./mnist"])
def test_the_books_pickle_is_refused(tmp_path, name, protocol, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = as_the_book_pickles(protocol)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    rule = (
        "an? .*CSV.* file"
        if name == "./mnist" and protocol < 2
        else "no pickle, which runs any code that is in it, got one;"
    )
    with pytest.raises(DataError, match=f"^{Path(name)} must be {rule}"):
        load(name)


def test_the_books_pickle_is_converted_as_it_is_said(tmp_path):
    (tmp_path / "mnist.pkl").write_bytes(as_the_book_pickles(pickle.HIGHEST_PROTOCOL))
    with pytest.raises(DataError) as caught:
        load(tmp_path / "mnist.pkl")
    code = re.search("`(.*)`", str(caught.value))[1]
    subprocess.run([sys.executable, "-c", f"import numpy, pickle; {code}"], cwd=tmp_path, check=True)
    data = load(tmp_path / "mnist.npz")
    np.testing.assert_array_equal(data.x_train, LETTERS[:248].reshape(248, 784) / 255)
    np.testing.assert_array_equal(data.t_test, KINDS[248:])
    assert load_mnist(flatten=False, source=tmp_path / "mnist.npz")[0][0].shape == (248, 1, 28, 28)


def test_no_pickle_is_loaded(tmp_path):
    for name in ("mnist.pkl", "mnist.npz", "mnist.csv", "mnist"):
        for protocol in range(6):
            (tmp_path / name).write_bytes(pickle.dumps(Trap(), protocol))
            with pytest.raises(DataError, match=f"^{tmp_path / name} "):
                load(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "must be an npz, CSV or IDX file, got one that begins with b''"),
        (b"\x89PNG\r\n\x1a\n", r"must be an npz, CSV or IDX file, got one that begins with b'\\x89PNG"),
        (b"\xef\xbb\xbf", "must be an npz, CSV or IDX file, got one that begins with b''"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "must be a CSV file that begins with a label or the name label, got 'version",
        ),
        (b"PK\x03\x04nonsense", "must be a readable npz file, got BadZipFile"),
        (b"\x1f\x8bnonsense", "must be readable, got BadGzipFile"),
        (idx(X), "must be training images, of a name such as train-images-idx3-ubyte or emnist-balanced-train-images"),
    ],
)
def test_a_file_of_no_kind_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(DataError, match=f"^{tmp_path / 'data'} {sentence}") as caught:
        load(tmp_path / "data")
    assert str(caught.value).endswith(".")
