"""Processes that work for a command: what they have imported, know and share, and that they are the command's alone."""

import os
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import current_process
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from command_lines import ROOT, run_python
from comparison.worker_processes import NoProcessError, start_method, worker_process

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
        with worker_process(os.getpid) as submit:
            assert submit(os.getcwd).result() == str(folder)
            assert submit(os.getenv, "FDNET_TEST").result() == name


def test_calls_share_the_process() -> None:
    with worker_process(os.getpid) as submit:
        pids = {submit(os.getpid).result() for _ in range(5)}
    assert len(pids - {os.getpid()}) == 1
    assert os.getpid() not in pids


def test_a_process_that_ends_breaks_the_calls_that_have_no_result() -> None:
    with worker_process(os.getpid) as submit:
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
    with worker_process(os.getpid) as submit:
        assert submit(abs, -1).result() == 1


PRELOADED = """
import os, signal, sys
from comparison.worker_processes import preload, worker_process

os.chdir(sys.argv[1])
preload({'numpy', 'torch'})
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
with worker_process(abs, 1) as submit:
    names = submit(eval, "[name for name in __import__('sys').modules if name.endswith('_port')]").result()
    blocked = submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()
print(*sorted(names), *(number.name for number in blocked))
"""


def preloaded(folder: Path, **environment: str) -> list[str]:
    """Return the ports that a worker has, and the signals that it does not receive, in a process that is in a folder.

    In a process of its own: there is one fork server for all tests of this one.
    """
    done = run_python("-c", PRELOADED, str(folder), **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


@can_fork
def test_every_port_is_preloaded_by_a_process_that_ctrl_c_does_not_reach(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    expected = ["ports.numpy_port", "ports.torch_port", "SIGINT"]
    assert preloaded(tmp_path, PYTHONPATH=str(ROOT)) == expected


@can_fork
def test_packages_in_the_current_folder_are_not_preloaded(tmp_path: Path) -> None:
    """Unless the command would import them as well."""
    pytest.importorskip("torch")
    for name in ("ports", "torch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("print('not this one')\nraise RuntimeError")
    path = os.pathsep.join([str(ROOT), *(folder for folder in sys.path if folder.endswith("site-packages"))])
    expected = ["ports.numpy_port", "ports.torch_port", "SIGINT"]
    assert preloaded(tmp_path, PYTHONPATH=path, PYTHONSAFEPATH="1") == expected


@can_fork
def test_nothing_is_preloaded_where_python_ignores_the_environment(tmp_path: Path) -> None:
    """There the fork server can't be told where this project is; `import_ports` would be another's."""
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "preloading.py").write_text("import colorsys")
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{PRELOADED}".replace("_port'", "sys'"))
    done = run_python("-E", str(script), str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "colorsys" not in done.stdout


@can_fork
@pytest.mark.parametrize("error", ["OSError", "SystemExit", "KeyboardInterrupt"])
def test_a_framework_that_does_not_work_prints_nothing_and_costs_no_other_port(error: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(f"print('loading')\nraise {error}('no library')")
    path = os.pathsep.join([str(broken.parent), str(ROOT)])
    assert preloaded(tmp_path, PYTHONPATH=path) == ["ports.numpy_port", "SIGINT"]


def test_threads_that_start_processes_leave_the_callers_script_alone() -> None:
    main, path = sys.modules["__main__"], [*sys.path]

    def call() -> None:
        with worker_process(os.getpid) as submit:
            assert submit(abs, -1).result() == 1

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(call) for _ in range(3)]:
            done.result()
    assert (sys.modules["__main__"], sys.path) == (main, path)


def test_a_daemonic_process_is_told_that_it_can_start_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with pytest.raises(NoProcessError, match=r"^No process can be started by a daemonic one$"):
        worker_process(os.getpid).__enter__()


def test_a_worker_whose_thread_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.worker_processes.PATIENCE", 0.2)
    with worker_process(os.getpid) as submit:
        submit(exec, "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()").result()


def test_the_pipe_that_ends_workers_is_closed_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer may still be closing it when the workers that this ends are gone: a second close would raise."""

    def close_and_linger(connection: Connection) -> None:
        os.close(connection.fileno())
        if isinstance(threading.current_thread(), threading.Timer):
            time.sleep(0.5)

    monkeypatch.setattr(Connection, "_close", close_and_linger)
    test_a_worker_whose_thread_never_ends_is_ended(monkeypatch)


def test_the_callers_script_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom comparison.worker_processes import worker_process\n\nprint('once', flush=True)\n"
        "with worker_process(os.getpid) as submit:\n    print(submit(abs, -1).result())\n"
    )
    done = run_python(str(script), PYTHONPATH=str(ROOT))
    assert (done.stdout, done.stderr) == ("once\n1\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise")
def test_a_worker_does_not_hear_ctrl_c() -> None:
    with worker_process(os.getpid) as submit:
        assert submit(signal.raise_signal, signal.SIGINT).result() is None
