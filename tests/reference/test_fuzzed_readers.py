"""Whatever a file holds, it is read or refused in a sentence: no crash, no hang, no pickle, no room but what it fills.

A reader is a row of READERS. Each is given 60 files, and 10,000 under HYPOTHESIS_PROFILE=nightly.
"""

import gzip
import hashlib
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_files import ARRAYS, INT, NPZ, WANTED, T, Trap, X, csv, idx, lay, npy, npz, packed_by, with_member
from reference import checkpoints, datasets
from reference.checkpoints import MAGIC, Checkpoint
from reference.csv import read_csv
from reference.files import ExclusiveFile
from reference.idx import FILES, read_folder, read_idx
from reference.npz import read_npz, read_npz_set
from reference.params import load_params, save_params
from reference.reading import PIECE
from reference.training import begin
from reference.two_layer_net import init

EXAMPLES = settings(max_examples=10_000 if settings.default.max_examples >= 500 else 60)
ROOM = 4 * PIECE  # for what is read at once, and a few errors and names
UNPACKED = 2 * 1032  # of DEFLATE's 258 bytes from 2 bits; a buffer that grows is copied


class Reader(NamedTuple):
    """What reads a file, and what is made of sound files to try it."""

    read: Callable[[Path], Any]
    sound: tuple[bytes, ...]
    packed: tuple[tuple[Callable[[bytes], bytes], bytes], ...]  # how a part is packed into a file, and a sound part


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def stored(content: bytes) -> bytes:
    buffer = io.BytesIO(npz({name: array for name, array in NPZ.items() if name != "x_train"}))
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr("x_train.npy", content)
    return buffer.getvalue()


def read_as_folder(path: Path) -> Any:
    """Read the file as the training images of a folder that is sound but for it."""
    lay(path.parent / "folder", {FILES[0]: path.read_bytes()})
    return read_folder(path.parent / "folder")[:4]


def read_as_test_set(path: Path) -> Any:
    """Read the file as the test set beside a sound `train.csv`."""
    folder = path.parent / "tables"
    folder.mkdir(exist_ok=True)
    (folder / "train.csv").write_bytes(TABLE)
    (folder / "test.csv").write_bytes(path.read_bytes())
    return read_csv(folder / "train.csv")[:4]


def checkpoint_bytes(folder: str) -> bytes:
    """Return a sound checkpoint."""
    run = begin(init(2, 3, 2, seed=0))._replace(iteration=2, losses=np.ones(2), accuracies=np.zeros((1, 3)))
    with ExclusiveFile(f"{folder}/run") as file:
        checkpoints.save(file, Checkpoint(run, {"backend": "numpy"}, {"python": "3"}))
    return Path(folder, "run").read_bytes()


def signed(content: bytes) -> bytes:
    """Return a checkpoint whose hash is right, whatever follows it."""
    return MAGIC + hashlib.sha256(content).digest() + content


def parameters_bytes(folder: str) -> bytes:
    save_params(f"{folder}/params.npz", init(2, 3, 2, seed=0))
    return Path(folder, "params.npz").read_bytes()


with tempfile.TemporaryDirectory() as folder:
    RUN, PARAMETERS = checkpoint_bytes(folder), parameters_bytes(folder)
NPY = npy("|u1", "(5, 4, 3)", bytes(60))
TABLE = csv(X, T)
COLUMNS = np.column_stack([T, T])
MEDMNIST = npz(
    {
        "train_images": X[:5, ..., None] / 255,
        "train_labels": T[:5, None],
        "test_images": X[5:, None] / 255,
        "test_labels": np.eye(10)[T[5:]],
    }
)
READERS = {
    "a checkpoint": Reader(
        lambda path: checkpoints.load(path).progress[:4], (RUN,), ((signed, RUN[len(MAGIC) + 32 :]),)
    ),
    "parameters": Reader(load_params, (PARAMETERS,), ((bytes, PARAMETERS),)),
    "idx images": Reader(lambda path: read_idx(path, 3), (idx(X), gzipped(idx(X))), ((gzipped, idx(X)),)),
    "idx labels": Reader(lambda path: read_idx(path, 1), (idx(T), gzipped(idx(T))), ((gzipped, idx(T)),)),
    "a folder": Reader(read_as_folder, (idx(ARRAYS[0]), gzipped(idx(ARRAYS[0]))), ((gzipped, idx(ARRAYS[0])),)),
    "npz": Reader(lambda path: read_npz(path, WANTED), (npz(), stored(NPY)), ((with_member, NPY), (stored, NPY))),
    "qmnist's labels": Reader(
        lambda path: read_idx(path, 2, "int"),
        (idx(COLUMNS, INT), gzipped(idx(COLUMNS, INT))),
        ((gzipped, idx(COLUMNS, INT)),),
    ),
    "mnist.npz": Reader(
        lambda path: read_npz_set(path)[:4], (npz(), stored(NPY), MEDMNIST), ((with_member, NPY), (stored, NPY))
    ),
    "train.csv": Reader(lambda path: read_csv(path)[:4], (TABLE, gzipped(TABLE)), ((gzipped, TABLE),)),
    "test.csv": Reader(read_as_test_set, (TABLE, csv(X, None), gzipped(TABLE)), ((gzipped, TABLE),)),
    "a file of any kind": Reader(datasets.load, (npz(), MEDMNIST, TABLE), ((gzipped, TABLE), (stored, NPY))),
}
EACH_READER = pytest.mark.parametrize("name", READERS)


def arrays_in(found: Any) -> list[np.ndarray]:
    if isinstance(found, np.ndarray):
        return [found]
    parts = found.values() if isinstance(found, dict) else found if isinstance(found, (tuple, list)) else ()
    return [array for part in parts for array in arrays_in(part)]


def is_read_or_refused(read: Callable[[Path], Any], path: Path) -> str | None:
    """Return the sentence that a file is refused with, or None; and check all that is promised of either."""
    room = ROOM + UNPACKED * path.stat().st_size
    for _ in range(3):  # any thread's allocations count
        tracemalloc.start()
        try:
            arrays, sentence = arrays_in(read(path)), None
        except ValueError as error:
            arrays, sentence = [], str(error)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        if peak <= room:
            break
    assert peak <= room
    assert not any(array.dtype.hasobject for array in arrays)
    if sentence is not None:
        assert sentence.startswith(str(path.parent)), sentence
        assert sentence.endswith("."), sentence
        assert "\n" not in sentence, sentence
    return sentence


# --- any bytes, and sound files with something wrong

EDITS: dict[str, Callable[[bytes, int, bytes], bytes]] = {
    "overwrite": lambda content, at, new: content[:at] + new + content[at + len(new) :],
    "insert": lambda content, at, new: content[:at] + new + content[at:],
    "delete": lambda content, at, new: content[:at] + content[at + len(new) + 1 :],
    "repeat": lambda content, at, new: content[:at] + content[at : at + 8 * len(new) + 1] * 3 + content[at:],
    "cut off": lambda content, at, new: content[:at],
    "cut before": lambda content, at, new: content[at:],
}
EDIT = st.tuples(
    st.sampled_from(sorted(EDITS)),
    st.integers(0, 10_000),
    NEW := st.binary(max_size=4)
    | st.sampled_from(
        [
            b"\xff" * 4,
            b"\xff" * 8,
            bytes(4),
            bytes(8),
            b"\x7f\xff\xff\xff",
            b"\xff\xff\xff\x7f",
            b"(" * 30,
            b"PK\x05\x06",
        ]
    ),
)


def edited(content: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for kind, at, new in edits:
        content = EDITS[kind](content, at % (len(content) + 1), new)
    return content


def files(reader: Reader) -> st.SearchStrategy[bytes]:
    edits = st.lists(EDIT, min_size=1, max_size=4)
    heads = st.sampled_from([content[:size] for content in reader.sound for size in (2, 4, 8, 16, 30)])
    return st.one_of(
        st.binary(max_size=200),
        st.builds(bytes.__add__, heads, st.binary(max_size=80)),
        st.builds(edited, st.sampled_from(reader.sound), edits),
        st.builds(lambda pack, edits: pack[0](edited(pack[1], edits)), st.sampled_from(reader.packed), edits),
        st.builds(lambda pack, part: pack[0](part), st.sampled_from(reader.packed), st.binary(max_size=80)),
    )


@pytest.mark.slow
@EACH_READER
@EXAMPLES
@given(data=st.data())
def test_any_file_is_read_or_refused(name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data.draw(files(READERS[name])))
    is_read_or_refused(READERS[name].read, path)


@EACH_READER
def test_sound_files_are_read(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    for content in (*reader.sound, *(pack(part) for pack, part in reader.packed)):
        (tmp_path / "sound").write_bytes(content)
        assert is_read_or_refused(reader.read, tmp_path / "sound") is None


# --- files made to do harm, read where there is no room for it


def boundless_gzip(unpacked: int) -> bytes:
    """Return a gzip file of many members, after the head of an IDX file that promises all of them."""
    member = gzip.compress(bytes(8 << 20))
    return gzipped(struct.pack(">4I", 0x0803, unpacked, 1, 1)) + member * (unpacked >> 23)


def with_lzma_of(dictionary: int) -> bytes:
    """Return an npz file one member of which asks for a dictionary of that many bytes to be unpacked with."""
    return packed_by(zipfile.ZIP_LZMA).replace(struct.pack("<I", 1 << 23), struct.pack("<I", dictionary))


def of_names(*names: str) -> bytes:
    buffer = io.BytesIO(npz({name: array for name, array in NPZ.items() if name != "x_train"}))
    with zipfile.ZipFile(buffer, "a") as archive:
        for name in names:
            archive.writestr(name, NPY)
    return buffer.getvalue()


def with_header(header: str) -> bytes:
    return with_member(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(60))


def hostile_files() -> dict[str, bytes]:
    """Return files made to do harm, by what they do."""
    return {
        "a pickle": pickle.dumps(Trap()),
        "a pickle in gzip": gzipped(pickle.dumps(Trap())),
        "a pickle for an array": with_member(pickle.dumps(Trap())),
        "pickled objects": npz(NPZ | {"x_train": np.array([Trap()] * 5)}),
        "pickled labels": npz(NPZ | {"y_train": np.array([Trap()] * 5)}),
        "a claim of 79 GB x 10^18": b"\0\0\x08\x03" + b"\xff" * 12,
        "a claim of a gigabyte": struct.pack(">4I", 0x0803, 1 << 20, 32, 32),
        "a gigabyte in gzip": boundless_gzip(1 << 30),
        "a gigabyte of labels": gzipped(struct.pack(">2I", 0x0801, 1 << 30)) + gzip.compress(bytes(8 << 20)) * 128,
        "a gzip name without an end": b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 100_000,
        "an npz claim of a gigabyte": with_member(npy("|u1", "(1048576, 32, 32)", b"")),
        "an npz claim past all memory": with_member(npy("|u1", "(9223372036854775807, 9223372036854775807, 9)", b"")),
        "an item of a gigabyte": with_member(npy("|S1073741824", "(5, 4, 3)", bytes(60))),
        "records": with_header("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (5, 4, 3)}"),
        "a deep header": with_header("(" * 9000),
        "deep lists in a header": with_header("[" * 4000 + "]" * 4000),
        "many signs in a header": with_header("{'descr': " + "-" * 9000 + "1}"),
        "a power in a header": with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (9**9**9, 1, 1)}"),
        "a call in a header": with_header("{'descr': open('/tmp/x', 'w'), 'fortran_order': False, 'shape': (5, 4, 3)}"),
        "a number of 9,000 digits": with_member(npy("|u1", f"({'9' * 9000}, 1, 1)", bytes(60))),
        "a dictionary of 4 GB": with_lzma_of(0xFFFFFFFF),
        "bzip2": packed_by(zipfile.ZIP_BZIP2),
        "an absolute path": of_names("/tmp/x_train.npy"),
        "a path above": of_names("../../x_train.npy", "..\\x_train.npy"),
        "a folder for an array": of_names("x_train.npy/"),
        "10,000 names": of_names(*(f"{n}.npy" for n in range(10_000))),
        "a name of 60,000 characters": of_names("x" * 60_000),
        "a gigabyte on a line": gzipped(b"1,2") + gzip.compress(bytes(8 << 20)) * 128,
        "a gigabyte of columns": gzipped(b"1") + gzip.compress(b",1" * (4 << 20)) * 128,
        "a gigabyte of empty lines": gzipped(csv(X, T)) + gzip.compress(b"\n" * (8 << 20)) * 128,
        "a zip in a zip": with_member(npz()),
        "encrypted arrays": re.sub(rb"(?s)(PK\x01\x02....)..", lambda found: found[1] + b"\1\0", npz()),
        "a directory past the end": npz()[:-10] + struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0) + b"\0\0",
    }


SANDBOX = """
import json, resource, sys
from pathlib import Path
import test_fuzzed_readers as fuzz

folder, harm = Path(sys.argv[1]), []
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (200 << 20),) * 2)

def watch(event, args):
    writes = event == "open" and isinstance(args[2], int) and args[2] & 3
    acts = event.startswith(("pickle.", "os.", "socket.", "subprocess.")) and event not in ("os.listdir", "os.scandir")
    if (writes or acts) and str(folder) not in str(args[0]):
        harm.append([event, repr(args)])

sys.addaudithook(watch)
for name, reader in fuzz.READERS.items():
    for case in sorted(folder.glob("*.file")):
        try:
            fuzz.arrays_in(reader.read(case))
            sentence = None
        except ValueError as error:
            sentence = str(error)
        print(json.dumps([name, case.stem, sentence, harm]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory can be limited on Linux only")
def test_files_made_to_do_harm_do_none(tmp_path: Path) -> None:
    """200 MiB are left to the reader, it may write nowhere but where the test itself does, and nothing is unpickled."""
    hostile = hostile_files()
    for n, content in enumerate(hostile.values()):
        (tmp_path / f"{n}.file").write_bytes(content)
    folder = Path(__file__).parent
    paths = os.pathsep.join(map(str, (folder, *folder.parents[:2])))
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", SANDBOX, str(tmp_path)]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    results = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(results) == len(READERS) * len(hostile)
    for reader, case, sentence, harm in results:
        where = f"{reader}: {list(hostile)[int(case)]}"
        assert harm == [], where
        assert sentence is not None, where
        assert sentence.startswith(str(tmp_path)), where
        assert sentence.endswith("."), where
        assert "\n" not in sentence, where
        assert len(sentence) < 500, where
