"""CSV files as Kaggle has them, with a test set beside them or held out."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from data_files import ARRAYS, csv, peak_of_refusal
from reference import csv as reader
from reference.csv import HELD_OUT, read_csv, tables_in
from reference.images import Images, count_classes
from reference.reading import PIECE, DataError

FLAT = [a.reshape(len(a), 1, 12) if a.ndim == 3 else a for a in ARRAYS]
MANY = np.arange(20 * 9, dtype=np.uint8).reshape(20, 9)
LABELS = np.arange(20) % 3


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def assert_holds(images: Images, arrays: list[np.ndarray]) -> None:
    for got, want in zip(images[:4], arrays, strict=True):
        np.testing.assert_array_equal(got, want)
    assert images.peak == 255
    assert {images.x_train.dtype, images.x_test.dtype} == {np.dtype(np.uint8)}
    assert {images.t_train.dtype, images.t_test.dtype} == {np.dtype(np.int64)}


# --- what is read


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train.csv", "test.csv"),
        ("mnist_train.csv", "mnist_test.csv"),
        ("emnist-balanced-train.csv", "emnist-balanced-test.csv"),
        ("train_train.csv.gz", "train_test.csv.gz"),
    ],
)
def test_a_test_set_with_labels_is_the_test_set(tmp_path, train, test, pack, header):
    write(tmp_path / test, pack(csv(*ARRAYS[2:], header=header)))
    assert_holds(read_csv(write(tmp_path / train, pack(csv(*ARRAYS[:2], header=header)))), FLAT)


def test_names_above_one_of_the_two_are_enough(tmp_path):
    for headers in ((True, False), (False, True)):
        for name, pair, header in zip(("train.csv", "test.csv"), (ARRAYS[:2], ARRAYS[2:]), headers, strict=True):
            write(tmp_path / name, csv(*pair, header=header))
        assert_holds(read_csv(tmp_path / "train.csv"), FLAT)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("name", ["train.csv", "data.csv"])
@pytest.mark.parametrize("beside", [True, False])
def test_without_labels_for_the_test_every_seventh_image_is_held_out(tmp_path, name, beside, header):
    if beside:
        write(tmp_path / "test.csv", csv(MANY, None, header=header))
    images = read_csv(write(tmp_path / name, csv(MANY, LABELS, header=header)))
    test = [6, 13]
    rest = [n for n in range(20) if n not in test]
    squares = MANY.reshape(20, 3, 3)
    assert_holds(images, [squares[rest], LABELS[rest], squares[test], LABELS[test]])


def test_seven_images_are_enough(tmp_path):
    images = read_csv(write(tmp_path / "train.csv", csv(MANY[:7], LABELS[:7])))
    assert (len(images.t_train), len(images.t_test)) == (6, 1)
    rule = f"^{tmp_path / 'train.csv'} must hold 7 images or more, of which one is for the test, got 6.$"
    with pytest.raises(DataError, match=rule):
        read_csv(write(tmp_path / "train.csv", csv(MANY[:6], LABELS[:6])))


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.rstrip(b"\n"),
        lambda text: text + b"\n\n \r\n",
        lambda text: text.replace(b",", b", "),
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"label", b'"Label"'),
    ],
)
@pytest.mark.parametrize("header", [True, False])
def test_what_spreadsheets_do_to_a_file_changes_nothing(tmp_path, edit, header):
    write(tmp_path / "test.csv", edit(csv(*ARRAYS[2:], header=header)))
    assert_holds(read_csv(write(tmp_path / "train.csv", edit(csv(*ARRAYS[:2], header=header)))), FLAT)


def test_62_classes_and_the_largest_values_are_read(tmp_path):
    x, t = np.full((124, 784), 255), np.arange(124) % 62
    images = read_csv(write(tmp_path / "letters.csv", csv(x, t)))
    assert count_classes(images.t_train, images.t_test) == 62
    assert images.x_train.shape == (107, 28, 28)
    assert (images.x_train == 255).all()


def test_a_file_of_several_pieces_is_read(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (2000, 400), np.uint8)
    path = write(tmp_path / "train.csv", csv(x, np.arange(2000) % 300))
    assert path.stat().st_size > 2 * PIECE
    images = read_csv(path)
    held_out = np.arange(2000) % HELD_OUT == HELD_OUT - 1
    np.testing.assert_array_equal(images.x_train.reshape(-1, 400), x[~held_out])
    np.testing.assert_array_equal(images.t_test, (np.arange(2000) % 300)[held_out])


def test_tables_are_found_in_a_folder(tmp_path):
    for name in ("train.csv", "test.csv", "mnist_train.csv.gz", "train.csv.zip", "training.csv", "sample.csv"):
        write(tmp_path / name, b"")
    assert [path.name for path in tables_in(tmp_path)] == ["mnist_train.csv.gz", "train.csv"]
    with pytest.raises(DataError, match=rf"^{tmp_path / 'none'} must be readable, got FileNotFoundError"):
        tables_in(tmp_path / "none")


# --- what is refused

SOUND = csv(MANY, LABELS)
LINES = SOUND.splitlines(keepends=True)
BAD_TABLES = {
    "empty": (b"", "must be a CSV file that begins with a label or the name label, got ''"),
    "no images": (LINES[0], "must hold images, got none"),
    "no images but a line": (LINES[0] + b"\n", "must hold images, got none"),
    "Kaggle's test.csv": (
        csv(MANY, None),
        "must be a CSV file that begins with a label or the name label, got 'pixel0'",
    ),
    "a page": (b"<!doctype html>\n<html></html>", "or the name label, got '<!doctype html>'"),
    "a long name": (b"x" * 300 + b",1\n", r"or the name label, got 'x{56}\.\.\."),
    "labels only": (b"label\n1\n2\n", "must have a label and pixels in each line, got 1 column"),
    "numbers only": (b"1\n2\n", "must have a label and pixels in each line, got 1 column"),
    "a short line": (SOUND.replace(LINES[3], b"1,2\n"), "must have 10 columns in line 4, got 2"),
    "a long line": (SOUND.replace(LINES[3], b"1," + LINES[3]), "must have 10 columns in line 4, got 11"),
    "a line cut off": (SOUND[:-20], "must have 10 columns in line 21, got 6"),
    "an empty line": (SOUND.replace(LINES[3], b"\n" + LINES[3]), "must have 10 columns in line 4, got an empty line"),
    "many empty lines": (SOUND + b"\n" * (PIECE + 1), "must have 10 columns in line 22, got an empty line"),
    "text": (SOUND.replace(LINES[3], b"1,2,3,4,five,6,7,8,9,10\n"), "must hold whole numbers in line 4, got 'five'"),
    "floats": (SOUND.replace(LINES[3], b"1,0.5,3,4,5,6,7,8,9,10\n"), r"must hold whole numbers in line 4, got '0\.5'"),
    "negative": (SOUND.replace(LINES[3], b"-1,5,3,4,5,6,7,8,9,10\n"), "must hold whole numbers in line 4, got '-1'"),
    "a NUL": (SOUND.replace(LINES[3], b"1,\0,3,4,5,6,7,8,9,10\n"), r"whole numbers in line 4, got '\\x00'"),
    "not ASCII": (SOUND.replace(LINES[3], b"1,\xb2,3,4,5,6,7,8,9,10\n"), "whole numbers in line 4, got '\xb2'"),
    "semicolons": (SOUND.replace(b",", b";"), "or the name label, got 'label;pixel0;"),
    "no value": (
        SOUND.replace(LINES[3], b"1,,3,4,5,6,7,8,9,10\n"),
        "pixels in 0..255, got ValueError: could not convert",
    ),
    "two values": (
        SOUND.replace(LINES[3], b"1,2 3,3,4,5,6,7,8,9,10\n"),
        "got ValueError: could not convert string '2 3'",
    ),
    "bright": (SOUND.replace(LINES[3], b"1,256,3,4,5,6,7,8,9,10\n"), "got ValueError: could not convert string '256'"),
    "a wide label": (SOUND.replace(LINES[3], b"70000,2,3,4,5,6,7,8,9,10\n"), "could not convert string '70000'"),
    "a large label": (SOUND.replace(LINES[3], b"10000,2,3,4,5,6,7,8,9,10\n"), "must hold labels in 0..9999, got 10000"),
    "one class": (csv(MANY, LABELS * 0), "must hold labels of at least 2 classes, got only 0"),
    "a line without an end": (b"1," * PIECE, f"must have lines of less than {PIECE} bytes, got more in line 1"),
    "a later one": (SOUND + b"1," * PIECE, f"must have lines of less than {PIECE} bytes, got more in line 22"),
    "truncated gzip": (gzip.compress(SOUND)[:-9], "must be readable, got EOFError"),
    "damaged gzip": (gzip.compress(SOUND)[:-8] + bytes(8), "must be readable, got BadGzipFile"),
    "a tail after gzip": (gzip.compress(SOUND) + b"tail", "must be readable, got BadGzipFile"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
def test_a_bad_file_is_one_sentence(tmp_path, case, name):
    content, sentence = BAD_TABLES[case]
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=sentence) as caught:
        read_csv(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_a_bad_test_set_is_named(tmp_path):
    path = write(tmp_path / "train.csv", SOUND)
    for content, got in ((b"", "''"), (b"nonsense", "'nonsense'"), (csv(MANY[:, :7], None), "'pixel0'")):
        test = write(tmp_path / "test.csv", content)
        with pytest.raises(DataError, match=f"^{test} must be a CSV file that begins with .*, got {got}"):
            read_csv(path)
    test = write(tmp_path / "test.csv", SOUND.replace(LINES[3], b"1,2\n"))
    with pytest.raises(DataError, match=f"^{test} must have 10 columns in line 4, got 2"):
        read_csv(path)
    write(test, csv(MANY[:, :4], LABELS))
    with pytest.raises(DataError, match=rf"^{test} must have images of \(3, 3\) as in training, got \(2, 2\)"):
        read_csv(path)


def test_there_are_bounds_on_images_and_bytes(tmp_path, monkeypatch):
    path = write(tmp_path / "train.csv", SOUND)
    monkeypatch.setattr(reader, "MAX_SAMPLES", 20)
    assert len(read_csv(path).t_train) == 18
    monkeypatch.setattr(reader, "MAX_SAMPLES", 19)
    with pytest.raises(DataError, match="must hold at most 19 images and 1073741824 bytes of pixels, got more"):
        read_csv(path)
    monkeypatch.setattr(reader, "MAX_SAMPLES", 20)
    monkeypatch.setattr(reader, "LIMIT", 20 * 11)
    assert len(read_csv(path).t_train) == 18
    monkeypatch.setattr(reader, "LIMIT", 20 * 11 - 1)
    with pytest.raises(DataError, match="must hold at most 20 images and 219 bytes of pixels, got more"):
        read_csv(path)


def test_a_bomb_is_left_at_its_first_line(tmp_path):
    path = write(tmp_path / "train.csv", gzip.compress(b"1," + bytes(256 << 20), 1))
    assert peak_of_refusal(read_csv, path, "must have lines of less than") < 8 << 20
