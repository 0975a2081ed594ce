"""Signals that end a command leave nothing behind: no process, no half-written file, no work that is lost."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import compare
from command_lines import COMPARE, FEW_NETS, ROOT, SMALL, outside_github, two_cores
from comparison import commands
from comparison.commands import interruption
from comparison.commands.interruption import SIGNALS, delayed_signals, stop_requests
from reference import checkpoints

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise")

ENVIRONMENT = outside_github(PYTHONPATH=str(ROOT))
SPEED = ("speed", "--data", "random", "--batch", "6", "--hidden", "3", "--strategy", "collocated")
TRAIN = ("train", "--data", "random", "--batch", "50", "--backend", "numpy", "--quiet", "--iterations", "3")
PATIENCE = 300
"""Seconds after which a process is taken to hang."""
LONG = ("train", "--data", "random", "--batch", "50", "--hidden", "20", "--iterations", "1000000")
SLEEPING = """
import multiprocessing, os, time
from ports.numpy_port import *
import ports.numpy_port as right


def {function}(*args, **options):
    if multiprocessing.parent_process() is not None:
        with open({path!r}, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(600)
    return right.{function}(*args, **options)
"""


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start processes with their streams in pipes; those that a failed test leaves behind are killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*command: str, **variables: str) -> subprocess.Popen[str]:
        streams: dict[str, int] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        environment = ENVIRONMENT | variables
        started.append(subprocess.Popen([sys.executable, *command], text=True, env=environment, **streams))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        with process:
            pass


def wait_until(happened: Callable[[], object]) -> None:
    """Wait, for long on a busy machine, but not for ever."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@two_cores
@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGKILL"])
@pytest.mark.parametrize(
    ("command", "function"),
    [((FEW_NETS, *SPEED), "train_steps"), ((COMPARE, *SMALL), "loss")],
    ids=["first call", "comparison"],
)
def test_no_process_outlives_the_command_that_waits_for_it(
    name: str, command: tuple[str, ...], function: str, start: Start, tmp_path: Path
) -> None:
    number = signal.Signals[name]
    port, pid = tmp_path / "sleeping.py", tmp_path / "pid"
    port.write_text(SLEEPING.format(path=str(pid), function=function))
    backends = ("--backend", "numpy", "--dtype", "float64", "--port", str(port))
    temporary = Path(tempfile.mkdtemp())  # of a short name, which is part of a socket's
    process = start(*command, *backends, TMPDIR=str(temporary))
    wait_until(lambda: process.poll() is not None or (pid.exists() and pid.read_text()))
    assert process.poll() is None, process.communicate()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=PATIENCE)  # until every process that has its streams has ended
    assert process.returncode == (commands.INTERRUPTED if number == signal.SIGINT else -number)
    if number != signal.SIGKILL:
        assert stderr == "compare.py: interrupted.\n"
        assert not list(temporary.iterdir())
    shutil.rmtree(temporary)
    wait_until(lambda: not is_running(int(pid.read_text())))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_lets_a_training_write_its_checkpoint(number: signal.Signals, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    run = start(COMPARE, *LONG, "--checkpoint", str(path), "--every", "1000000")
    assert run.stdout is not None
    for _ in range(4):  # the heading, iteration 0, and two epochs
        assert run.stdout.readline()
    run.send_signal(number)
    _, stderr = run.communicate(timeout=PATIENCE)
    assert run.returncode == -number
    at = checkpoints.load(path).progress.iteration
    assert at > 0
    assert f"interrupted at iteration {at:,} of 1,000,000; to go on: " in stderr


ON_A_TERMINAL = """
import fcntl, os, sys, termios

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_a_training_whose_terminal_is_closed_writes_its_checkpoint(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    path = tmp_path / "run.ckpt"
    command = ["-c", ON_A_TERMINAL, COMPARE, *LONG, "--checkpoint", str(path), "--every", "1000000"]
    terminal, end = pty.openpty()
    streams: dict[str, int] = dict.fromkeys(("stdin", "stdout", "stderr"), end)
    with subprocess.Popen([sys.executable, *command], env=ENVIRONMENT, start_new_session=True, **streams) as process:
        os.close(end)
        shown = b""
        while shown.count(b"\n") < 6:
            shown += os.read(terminal, 4096)
        os.close(terminal)
    assert process.returncode == -signal.SIGHUP
    assert checkpoints.load(path).progress.iteration > 0


SCRIPT = """
import signal
import compare

{before}
print(compare.main({argv}), flush=True)
"""
TERMINATING = """
import os, signal
from ports.numpy_port import *
import ports.numpy_port as right


def train_steps(*args, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    return right.train_steps(*args, **options)
"""


@pytest.mark.parametrize(
    ("before", "code", "printed"),
    [
        ("", -signal.SIGTERM, ""),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", 0, "0\n"),
        ("signal.signal(signal.SIGTERM, lambda *_: print('mine'))", 0, "mine\n0\n"),
    ],
    ids=["default", "ignored", "handled"],
)
def test_a_signal_does_to_a_caller_what_it_does_without_fdnet(
    before: str, code: int, printed: str, tmp_path: Path
) -> None:
    port = tmp_path / "terminating.py"
    port.write_text(TERMINATING)
    script = SCRIPT.format(before=before, argv=[*TRAIN, "--port", str(port)])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stdout) == (code, printed), done.stderr


def test_signals_are_handled_as_before_after_a_command() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    assert compare.main(list(TRAIN)) == commands.AGREES
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", [signal.SIGINT, *SIGNALS])
def test_the_second_request_to_stop_stops_at_once(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    received: list[int] = []
    monkeypatch.setattr(interruption, "_received", received)
    before = signal.getsignal(number)
    if number != signal.SIGINT:
        signal.signal(number, interruption._interrupt)
    try:
        with stop_requests() as requested:
            signal.raise_signal(number)
            assert requested.is_set()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    finally:
        signal.signal(number, before)
    assert received == ([] if number == signal.SIGINT else [number, number])
    assert "finishing the step" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, *SIGNALS])
@pytest.mark.parametrize("times", [1, 2])
def test_while_a_port_is_imported_the_first_signal_waits(
    number: signal.Signals, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interruption, "_received", [])
    before = signal.getsignal(number)
    done: list[int] = []

    def be_imported() -> None:
        for n in range(times):
            signal.raise_signal(number)
            done.append(n)

    if number != signal.SIGINT:
        signal.signal(number, interruption._interrupt)
    try:
        handler = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt), delayed_signals():
            be_imported()
        assert done == [0]
        assert signal.getsignal(number) == handler
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None])
def test_a_signal_that_the_caller_handles_is_not_delayed(handler: signal.Handlers) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        with delayed_signals():
            assert signal.getsignal(signal.SIGINT) == handler
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@two_cores
@pytest.mark.slow
def test_a_closed_terminal_ends_all_without_a_traceback(start: Start, tmp_path: Path) -> None:
    """SIGHUP goes to the whole process group, also to what tracks the resources of its processes."""
    port, pid = tmp_path / "sleeping.py", tmp_path / "pid"
    port.write_text(SLEEPING.format(path=str(pid), function="loss"))
    backends = ("--backend", "numpy", "--dtype", "float64", "--port", str(port))
    in_group = "import os, sys\nos.setsid()\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    process = start("-c", in_group, COMPARE, *SMALL, *backends)
    wait_until(lambda: process.poll() is not None or (pid.exists() and pid.read_text()))
    os.killpg(process.pid, signal.SIGHUP)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stderr) == (-signal.SIGHUP, "compare.py: interrupted.\n")
    wait_until(lambda: not is_running(int(pid.read_text())))
