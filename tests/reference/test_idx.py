"""Files are read for what they hold, not for what they claim."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from data_files import INT, T, X, assert_is_the_set, idx, lay, pack, peak_of_refusal
from reference.idx import FILES, QMNIST, SPLITS, read_folder, read_idx, read_set, set_of
from reference.images import count_classes
from reference.reading import PIECE, DataError

# --- what is read


@pytest.mark.parametrize("inner", ["", "raw", "gzip", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw"])
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


def test_gzip_is_told_by_content_not_by_name(tmp_path):
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


# --- EMNIST and QMNIST


def emnist(split):
    return tuple(f"emnist-{split}-{part}" for part in EMNIST_PARTS)


EMNIST_PARTS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "test-images-idx3-ubyte",
    "test-labels-idx1-ubyte",
)


@pytest.mark.parametrize("inner", ["", "gzip", "EMNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("split", ["balanced", "byclass", "bymerge", "digits", "mnist"])
def test_a_split_of_emnist_is_read(tmp_path, split, packed, inner):
    place = lay(tmp_path / inner, names=emnist(split))
    if packed:
        pack(place)
    assert_is_the_set(read_folder(tmp_path))


def test_labels_of_emnists_letters_begin_with_1(tmp_path):
    letters = np.arange(1, 27, dtype=np.uint8)
    files = zip(emnist("letters"), map(idx, (X.repeat(4, 0)[:26], letters, X[:3], letters[23:])), strict=True)
    images = read_folder(lay(tmp_path, dict(files), emnist("letters")))
    assert images.t_train.tolist() == list(range(26))
    assert images.t_test.tolist() == [23, 24, 25]
    assert count_classes(images.t_train, images.t_test) == 26


def test_a_letter_0_is_refused(tmp_path):
    place = lay(tmp_path, {emnist("letters")[1]: idx(T[:5] - 1)}, emnist("letters"))
    with pytest.raises(
        DataError, match=r"emnist-letters-train-labels-idx1-ubyte must hold labels in 1\.\.10000, got 0\."
    ):
        read_folder(place)


def test_62_classes_are_62_classes(tmp_path):
    rng = np.random.default_rng(0)
    x, t = rng.integers(0, 256, (310, 28, 28), np.uint8), np.arange(310, dtype=np.uint8) % 62
    arrays = x[:248], t[:248], x[248:], t[248:]
    files = dict(zip(emnist("byclass"), map(idx, arrays), strict=True))
    images = read_folder(lay(tmp_path, files, emnist("byclass")))
    for got, want in zip(images[:4], arrays, strict=True):
        np.testing.assert_array_equal(got, want)
    assert count_classes(images.t_train, images.t_test) == 62


def test_of_several_splits_one_is_taken_by_its_training_images(tmp_path):
    for split in SPLITS:
        pack(lay(tmp_path / "EMNIST/raw" / split, names=emnist(split)))
    raw = tmp_path / "EMNIST/raw"
    for path in list(raw.rglob("*.gz")):
        path.rename(raw / path.name)
    with pytest.raises(DataError) as caught:
        read_folder(tmp_path)
    listed = ", ".join(f"EMNIST/raw/{emnist(split)[0]}.gz" for split in SPLITS)
    rule = f"{tmp_path} must hold one data set, got {listed}; give the path of one of these files instead."
    assert str(caught.value) == rule
    for split in ("balanced", "mnist"):
        assert_is_the_set(read_set(set_of(raw / f"{emnist(split)[0]}.gz")))
    assert read_set(set_of(raw / f"{emnist('letters')[0]}.gz")).t_train.tolist() == (T[:5] - 1).tolist()


@pytest.mark.parametrize("name", [FILES[1], "mine-images-idx3-ubyte", "emnist-balanced-test-images-idx3-ubyte"])
def test_only_training_images_stand_for_their_set(tmp_path, name):
    rule = f"{tmp_path / name} must be training images, of a name such as {FILES[0]} or {emnist('balanced')[0]}."
    with pytest.raises(DataError) as caught:
        set_of(tmp_path / name)
    assert str(caught.value) == rule


def with_columns(t):
    """Return labels as QMNIST has them: eight columns, of which the first is the class."""
    return np.column_stack([t, *(1000 * n + np.arange(len(t)) for n in range(1, 8))])


QMNIST_FILES = {QMNIST[1]: idx(with_columns(T[:5]), INT), QMNIST[3]: idx(with_columns(T[5:]), INT)}


@pytest.mark.parametrize("inner", ["", "QMNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_qmnist_is_read(tmp_path, packed, inner):
    assert QMNIST[:2] == ("qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx2-int")
    assert QMNIST[2:] == ("qmnist-test-images-idx3-ubyte", "qmnist-test-labels-idx2-int")
    place = lay(tmp_path / inner, QMNIST_FILES, QMNIST)
    if packed:
        pack(place)
    assert_is_the_set(read_folder(tmp_path))


BAD_QMNIST = {
    "bytes": (idx(with_columns(T[:5]).astype(np.uint8)), "magic number 0x00000c02, got 0x00000802"),
    "one dimension": (idx(T[:5], INT), "magic number 0x00000c02, got 0x00000c01"),
    "no columns": (idx(np.zeros((5, 0)), INT), r"must not be empty, got the shape \(5, 0\)"),
    "truncated": (QMNIST_FILES[QMNIST[1]][:-1], "must hold 160 bytes after its header, got 159"),
    "a label of -1": (idx(with_columns(np.array([1, -1, 2, 3, 4])), INT), r"must hold labels in 0..9999, got -1\."),
    "a label past all": (idx(with_columns(np.array([1, 10_000, 2, 3, 4])), INT), r"labels in 0..9999, got 10000\."),
    "one too few": (idx(with_columns(T[:4]), INT), "must hold one label for each of 5 images, got 4"),
}


@pytest.mark.parametrize("case", BAD_QMNIST)
def test_bad_labels_of_qmnist_are_one_sentence(tmp_path, case):
    content, sentence = BAD_QMNIST[case]
    with pytest.raises(DataError, match=sentence) as caught:
        read_folder(lay(tmp_path, {**QMNIST_FILES, QMNIST[1]: content}, QMNIST))
    assert str(caught.value).startswith(str(tmp_path / QMNIST[1]))


# --- what is wrong with an IDX file

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


@pytest.mark.parametrize(("first", "second"), [("", "raw/"), ("MNIST/raw/", "FashionMNIST/raw/")])
def test_two_sets_in_one_root_are_ambiguous(tmp_path, first, second):
    for place in (first, second):
        lay(tmp_path / place)
    with pytest.raises(DataError, match=f"must hold one data set, got {first}{FILES[0]}, {second}{FILES[0]}; give"):
        read_folder(tmp_path)


def test_a_set_without_its_training_images_is_still_one_of_two(tmp_path):
    (lay(tmp_path / "raw") / FILES[0]).unlink()
    lay(tmp_path)
    with pytest.raises(DataError, match=f"must hold one data set, got {FILES[0]}, raw/{FILES[0]}; give"):
        read_folder(tmp_path)


def test_one_class_is_no_classification(tmp_path):
    files = {FILES[1]: idx(np.zeros(5, np.uint8)), FILES[3]: idx(np.zeros(3, np.uint8))}
    with pytest.raises(DataError, match=f"{FILES[1]} must hold labels of at least 2 classes, got only 0"):
        read_folder(lay(tmp_path, files))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_claim_allocates_nothing(tmp_path, pack):
    lay(tmp_path, {FILES[0]: pack(struct.pack(">4I", 0x0803, 1 << 20, 32, 32) + b"few")})
    assert peak_of_refusal(read_folder, tmp_path, "must hold 1073741824 bytes after its header, got 3") < 4 << 20
