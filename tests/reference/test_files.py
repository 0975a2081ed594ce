"""A file is there as a whole or not at all; what a user has is kept; two writers don't share a file."""

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from reference.files import BusyFileError, ExclusiveFile, check_writable, is_special, remove_stale, write_atomically

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="modes, FIFOs and locks of POSIX")


def temporaries(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".fdnet-")]


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for content in (b"first", b"second"):
        write_atomically(path, [content[:2], content[2:]])
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.bin"]


def test_what_fails_on_the_way_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")

    def pieces():
        yield b"half"
        raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        write_atomically(path, pieces())
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.bin"]


@posix
def test_the_mode_is_kept_and_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"")
    old.chmod(0o640)
    mask = os.umask(0o027)
    try:
        for path in (old, new):
            write_atomically(path, [b"x"])
    finally:
        os.umask(mask)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (old, new)] == [0o640, 0o640]
    write_atomically(old, [b"y"])
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


@posix
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    write_atomically(tmp_path / "link", [b"x"])
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there/file").read_bytes() == b"x"


@posix
def test_a_fifo_is_written_and_stays_one(tmp_path: Path) -> None:
    path, read = tmp_path / "fifo", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    write_atomically(path, [b"through"])
    reader.join(10)
    assert read == [b"through"]
    assert stat.S_ISFIFO(path.stat().st_mode)


@posix
def test_devices_and_standard_output_are_written(tmp_path: Path) -> None:
    device = os.stat(os.devnull)
    check_writable(os.devnull)
    write_atomically(os.devnull, [b"x"])
    assert os.path.samestat(device, os.stat(os.devnull))
    code = (
        "from reference.files import write_atomically as w; print('1', flush=True); w('/dev/stdout', [b'2']); print(3)"
    )
    with python(code) as process:
        assert process.communicate(timeout=60)[0] == "1\n23\n"
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "1\n23\n"


@pytest.mark.parametrize("name", ["missing/file", "a" * 256, "folder", "file/below"])
def test_what_cannot_be_written_is_found_before(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for write in (check_writable, lambda path: write_atomically(path, [b"x"])):
        with pytest.raises(OSError, match=name) as caught:
            write(tmp_path / name)
        assert caught.value.filename == str(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@posix
def test_a_link_to_nowhere_is_found_before(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere/file")
    with pytest.raises(FileNotFoundError) as caught:
        check_writable(tmp_path / "link")
    assert caught.value.filename == str(tmp_path / "link")


@pytest.mark.parametrize("length", [1, 249, 255])
def test_a_name_of_any_length_that_can_be_is_written(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("a" * length)
    check_writable(path)
    assert os.listdir(tmp_path) == []
    write_atomically(path, [b"x"])
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize("reason", [errno.EBUSY, errno.EPERM])
def test_a_file_that_cannot_be_replaced_is_overwritten(
    tmp_path: Path, reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mount point, and another user's file in /tmp."""

    def refuse(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    path = tmp_path / "a.bin"
    path.write_bytes(b"longer than after")
    before = path.stat()
    monkeypatch.setattr("reference.files.os.replace", refuse)
    write_atomically(path, [b"af", b"ter"])
    assert path.read_bytes() == b"after"
    assert os.path.samestat(path.stat(), before)
    assert os.listdir(tmp_path) == ["a.bin"]
    with pytest.raises(OSError, match="new"):
        write_atomically(tmp_path / "new", [b"x"])


@posix
def test_a_file_in_a_folder_that_cannot_be_written_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"longer than after")
    access = os.access
    monkeypatch.setattr("os.access", lambda name, mode: name != tmp_path and access(name, mode))
    monkeypatch.setattr("reference.files._create_temporary", None)
    check_writable(path)
    assert path.read_bytes() == b"longer than after"
    write_atomically(path, [b"after"])
    assert path.read_bytes() == b"after"


def test_a_check_leaves_a_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    before = path.stat()
    check_writable(path)
    assert os.path.samestat(path.stat(), before)
    assert path.read_bytes() == b"before"


# --- two writers

WRITER = """
import sys
from reference.files import BusyFileError, ExclusiveFile
with ExclusiveFile(sys.argv[1]) as file:
    file.write([b"other"])
    print("written", flush=True)
    sys.stdin.read()
"""


@posix
def test_a_file_in_use_is_refused_until_its_writer_ends(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    with python(WRITER, str(path)) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(
            BusyFileError, match=r"run\.ckpt must not be in use by another run, but one is writing it\.$"
        ):
            ExclusiveFile(path).__enter__()
        other.send_signal(signal.SIGKILL)
    with ExclusiveFile(path) as file:
        file.write([b"mine"])
        file.write([b"again"])
    assert path.read_bytes() == b"again"
    assert os.listdir(tmp_path) == ["run.ckpt"]


@posix
def test_only_a_regular_file_is_locked_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    opened = os.open(path, os.O_RDWR)  # otherwise opening it would wait
    with pytest.raises(ValueError, match=r"fifo must be a regular file, got something else\.$"):
        ExclusiveFile(path).__enter__()
    os.close(opened)


def test_two_that_begin_at_once_do_not_overwrite_each_other(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    with ExclusiveFile(path) as first, ExclusiveFile(path) as second:
        first.write([b"first"])
        with pytest.raises(BusyFileError):
            second.write([b"second"])
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["run.ckpt"]


def test_a_file_that_another_has_replaced_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    with ExclusiveFile(path) as file:
        file.write([b"mine"])
        write_atomically(path, [b"theirs"])
        with pytest.raises(BusyFileError):
            file.write([b"mine"])
    assert path.read_bytes() == b"theirs"


def test_a_file_that_was_removed_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    with ExclusiveFile(path) as file:
        file.write([b"once"])
        path.unlink()
        file.write([b"twice"])
    assert path.read_bytes() == b"twice"


HALF = """
import sys, time
from reference.files import write_atomically
def pieces():
    yield b"half"
    print("half", flush=True)
    sys.stdin.read()
write_atomically(sys.argv[1], pieces())
"""


@posix
def test_a_clean_up_removes_what_killed_writers_left_and_nothing_of_the_living(tmp_path: Path) -> None:
    with python(HALF, str(tmp_path / "a")) as killed, python(HALF, str(tmp_path / "b")) as living:
        for writer in (killed, living):
            assert writer.stdout is not None
            writer.stdout.readline()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(temporaries(tmp_path)) == 2
        remove_stale(tmp_path)
        assert len(temporaries(tmp_path)) == 1
        living.communicate(timeout=60)
    assert (tmp_path / "b").read_bytes() == b"half"
    remove_stale(tmp_path)
    assert os.listdir(tmp_path) == ["b"]


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no /dev/shm")
def test_a_file_in_memory_is_a_file() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "run"
        write_atomically(path, [b"one"])
        assert not is_special(path)
        with ExclusiveFile(path) as file:
            file.write([b"two"])
        assert path.read_bytes() == b"two"
