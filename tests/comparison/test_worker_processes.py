"""Processes that work for a command: what they have imported, know and share, and that they are the command's alone."""

import os
import signal
import sys
import tempfile
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import current_process
from pathlib import Path

import pytest

from command_lines import ROOT, run_python
from comparison.worker_processes import start_method, worker_processes

can_fork = pytest.mark.skipif(start_method() != "forkserver", reason="the system can't fork")


def test_a_worker_has_the_folder_and_the_environment_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of a process that was started long ago, from which this one is forked."""
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("FDNET_TEST", name)
        with worker_processes(1, os.getpid) as submit:
            assert submit(os.getcwd).result() == str(folder)
            assert submit(os.getenv, "FDNET_TEST").result() == name


def test_calls_share_the_processes() -> None:
    with worker_processes(2, os.getpid) as submit:
        pids = {submit(os.getpid).result() for _ in range(5)}
    assert len(pids) <= 2
    assert os.getpid() not in pids


def test_a_process_that_ends_breaks_the_calls_that_have_no_result() -> None:
    with worker_processes(1, os.getpid) as submit:
        assert submit(abs, -1).result() == 1
        for call in ((os._exit, 0), (abs, -1)):
            with pytest.raises(BrokenProcessPool):
                submit(*call).result()


def test_a_temporary_folder_of_a_long_name_has_room_for_no_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert start_method() == "spawn"
    monkeypatch.setitem(current_process()._config, "tempdir", None)  # type: ignore[attr-defined]
    with worker_processes(1, os.getpid) as submit:
        assert submit(abs, -1).result() == 1


PRELOADED = """
import signal
from comparison.worker_processes import preload, worker_processes

preload({'numpy', 'torch'})
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
with worker_processes(1, abs, 1) as submit:
    names = submit(eval, "[name for name in __import__('sys').modules if name.endswith('_port')]").result()
    blocked = submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()
print(*sorted(names), *(number.name for number in blocked))
"""


@can_fork
def test_every_port_is_preloaded_by_a_process_that_ctrl_c_does_not_reach() -> None:
    """In a process of its own: there is one fork server for all tests of this one."""
    pytest.importorskip("torch")
    done = run_python("-c", PRELOADED, PYTHONPATH=str(ROOT))
    assert done.stdout.split() == ["ports.numpy_port", "ports.torch_port", "SIGINT"], done.stderr


def test_the_callers_script_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom comparison.worker_processes import worker_processes\n\nprint('once', flush=True)\n"
        "with worker_processes(1, os.getpid) as submit:\n    print(submit(abs, -1).result())\n"
    )
    done = run_python(str(script), PYTHONPATH=str(ROOT))
    assert (done.stdout, done.stderr) == ("once\n1\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise")
def test_a_worker_does_not_hear_ctrl_c() -> None:
    with worker_processes(1, os.getpid) as submit:
        assert submit(signal.raise_signal, signal.SIGINT).result() is None
