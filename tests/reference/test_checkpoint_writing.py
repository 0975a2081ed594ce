"""A checkpoint is written as a whole or not at all: what was there stays until the new one is safe."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reference.checkpoints import load, save
from reference.files import ExclusiveFile, remove_stale, write_atomically
from saved_checkpoints import a_checkpoint, save_at


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    with ExclusiveFile(tmp_path / "run") as file:
        for checkpoint in (a_checkpoint("float64"), a_checkpoint("float32")):
            save(file, checkpoint)
            assert load(tmp_path / "run").progress.params.W1.dtype == checkpoint.progress.params.W1.dtype
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize(("umask", "mode"), [(0o027, 0o640), (0o002, 0o664)])
def test_a_new_file_follows_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        save_at(tmp_path / "run", a_checkpoint())
        save_at(tmp_path / "run", a_checkpoint())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == mode


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "inner" / "run")
    save_at(tmp_path / "run", a_checkpoint())
    assert (tmp_path / "run").is_symlink()
    load(tmp_path / "inner" / "run")


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", fail)
    save_at(tmp_path / "run", a_checkpoint())
    assert os.listdir(tmp_path) == ["run"]
    load(tmp_path / "run")


@pytest.mark.parametrize("broken", ["fsync", "replace", "fchmod"])
def test_whatever_fails_leaves_the_file_that_was_there(
    saved: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    before = saved.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device", "a temporary name")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space left") as caught:
        save_at(saved, a_checkpoint("float64"))
    assert caught.value.filename == str(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_temporary_that_is_gone_already_need_not_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(temporary: Path, _: Path) -> None:
        os.unlink(temporary)
        raise OSError(5, "Input/output error", temporary)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        write_atomically(tmp_path / "run", [b"one"])
    assert caught.value.filename == str(tmp_path / "run")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", [lambda path: save_at(path, a_checkpoint()), lambda path: write_atomically(path, [])])
def test_the_order_survives_a_crash_of_the_machine(
    saved: Path, write: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def recorded(name: str) -> Callable[..., Any]:
        function = getattr(os, name)

        def call(*args: Any) -> Any:
            calls.append((name, stat.S_ISDIR(os.fstat(args[0]).st_mode) if name == "fsync" else None))
            return function(*args)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, recorded(name))
    write(saved)
    assert calls == [("fsync", False), ("replace", None), ("fsync", True)]


def test_only_the_files_that_killed_writers_left_behind_are_removed(tmp_path: Path) -> None:
    others = {"run", ".fdnet-1.txt", "fdnet-1.tmp", ".fdnet.tmp", ".other-1.tmp", ".fdnet-1.tmp.gz"}
    for name in (*others, ".fdnet-1.tmp", ".fdnet-0123456789abcdef.tmp"):
        (tmp_path / name).write_bytes(b"x")
    remove_stale(tmp_path)
    assert {*os.listdir(tmp_path)} == others


def test_two_processes_may_remove_the_same_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".fdnet-1.tmp").write_bytes(b"x")
    unlink = os.unlink

    def after_the_other(name: str) -> None:
        unlink(name)
        unlink(name)

    monkeypatch.setattr(os, "unlink", after_the_other)
    remove_stale(tmp_path)
    assert os.listdir(tmp_path) == []


FULL = """
import resource, sys
sys.path[:0] = {folders!r}
from saved_checkpoints import a_checkpoint, save_at
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
save_at(sys.argv[1], a_checkpoint("float64"))
"""


@pytest.mark.parametrize("limit", [0, 1, 100, 600])
def test_a_full_disk_leaves_the_last_good_checkpoint(saved: Path, limit: int) -> None:
    before, folder = saved.read_bytes(), Path(__file__).parent
    code = FULL.format(folders=[str(folder), *map(str, folder.parents[:2])], limit=limit)
    done = subprocess.run([sys.executable, "-c", code, str(saved)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"OSError: [Errno 27] File too large: '{saved}'"
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]
    load(saved)
