"""What the author of a port is told: where it crashed, what disagrees, and within which time."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import compare
from command_lines import COMPARE, QUICK, ROOT, SMALL, run, two_cores
from comparison import commands
from reference.params import save_params
from reference.two_layer_net import init

CRASHING = """
import numpy as np
from ports.numpy_port import *


def helper(x):
    return np.linalg.inv(np.zeros((2, 3)))


def loss(params, x, t):
    return helper(x)
"""
LEAVING = """
from ports.numpy_port import *
import ports.numpy_port as right


def leave(*args, **options):
    raise {error}


loss = predict = train_steps = leave
"""
WRONG = """
from ports.numpy_port import *
import ports.numpy_port as right


def scaled(factor, gradient):
    return lambda *args, **options: type(args[0])(*(factor * g for g in gradient(*args, **options)))


GRADIENTS = {**right.GRADIENTS, "structured": scaled(1.001, right.GRADIENTS["structured"])}


def gradient(params, x, t):
    return scaled(3, right.gradient)(params, x, t)
"""
SLOW = """
import time
from ports.numpy_port import *
import ports.numpy_port as right


def train_steps(params, x, t, batches, **options):
    time.sleep(0.1 * len(batches))
    return right.train_steps(params, x, t, batches, **options)
"""


@pytest.mark.slow
def test_a_crash_names_the_ports_own_line(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING)
    done = run(*QUICK, "--port", str(tmp_path / "crashing.py"))
    assert done.returncode == commands.CRASHED
    assert "crashing float64: crashed: LinAlgError at crashing.py:7: " in done.stdout
    assert "DISAGREES" not in done.stdout
    assert re.search(
        r"^CRASHED: the [\d,]+ quantities that were compared agree; crashed: 2\.$", done.stdout, re.MULTILINE
    )


@pytest.mark.parametrize("command", ["agree", "speed", "predict"])
@pytest.mark.parametrize(
    "error", ["SystemExit(0)", "GeneratorExit", "BaseException('x')", "BrokenPipeError", "ConnectionAbortedError('x')"]
)
def test_whatever_a_port_raises_is_its_crash(
    error: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, net = tmp_path / "leaving.py", tmp_path / "net.npz"
    port.write_text(LEAVING.format(error=error))
    save_params(net, init(64, 3, 10, seed=0))
    options = ["--data", "random", "--backend", "numpy", "--dtype", "float64", "--port", str(port)]
    options += ["--params", str(net)] if command == "predict" else [*SMALL[3:7], "--strategy", "collocated"]
    options += ["--budget", "0.1"] if command == "speed" else []
    assert compare.main([command, *options]) == commands.CRASHED
    lines = capsys.readouterr().out.splitlines()
    name = error.partition("(")[0]
    assert any("leaving" in line and f"crashed: {name} at leaving.py:7" in line for line in lines)
    assert any("numpy" in line for line in lines)


def test_an_interruption_is_no_crash_of_a_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = tmp_path / "leaving.py"
    port.write_text(LEAVING.format(error="KeyboardInterrupt"))
    assert compare.main([*QUICK, "--port", str(port)]) == commands.INTERRUPTED
    assert capsys.readouterr().err == "compare.py: interrupted.\n"


@two_cores
@pytest.mark.slow
def test_a_port_that_prints_for_nobody_is_no_crash(tmp_path: Path) -> None:
    """In the command's own process; others leave stdout to the command."""
    port = tmp_path / "printing.py"
    port.write_text(LEAVING.format(error="print('x' * 100_000)").replace("raise", "return"))
    for threads, printed in ((1, b""), (2, b"x\n")):
        command = shlex.join([sys.executable, COMPARE, *QUICK, "--port", str(port), f"--threads={threads}"])
        done = subprocess.run(["bash", "-c", f"{command} | true; exit ${{PIPESTATUS[0]}}"], stderr=subprocess.PIPE)
        assert (done.returncode, set(done.stderr)) == (commands.PIPE_CLOSED, set(printed))


def test_a_fault_is_one_line_and_the_worst_comes_first(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    done = run(*QUICK, "--dtype", "float64", "--port", str(tmp_path / "wrong.py"))
    assert done.returncode == commands.DISAGREES
    sentences = [line for line in done.stdout.splitlines() if "times the bound" in line]
    named = [" ".join(line.split()[:3]).rstrip(":") for line in sentences]
    assert named == ["wrong float64 closed", "wrong float64 structured"]
    assert all(re.search(r"\. So do \d+ more \(.*\bW2\b.*\)\.$", line) for line in sentences)


def test_the_budget_bounds_a_slow_port(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    options = ("--strategy", "collocated", "--dtype", "float64", "--budget", "0.5", "--json", str(tmp_path / "j.json"))
    done = run("speed", *SMALL[1:], *options, "--port", str(tmp_path / "slow.py"))
    assert done.returncode == 0, done.stderr
    assert "\nslow float64: compared on the data only, since other nets would take it at least " in done.stdout
    rows = json.loads((tmp_path / "j.json").read_text())["compared_on_data_only"]
    assert [row["dtype"] for row in rows if row["backend"] == "slow"] == ["float64"]


def test_a_closed_pipe_ends_conform_without_a_word(tmp_path: Path) -> None:
    port = tmp_path / "right.py"
    port.write_text("from ports.numpy_port import *\n")
    command = shlex.join([sys.executable, str(ROOT / "compare.py"), "conform", str(port), "-k", "forward or copied"])
    shell = ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(shell, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (commands.PIPE_CLOSED, "")
    assert done.stdout.startswith("What every port must pass, on ")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("to", ["a pipe", "a file"])
def test_a_signal_ends_conform_with_one_sentence(to: str, name: str, tmp_path: Path) -> None:
    port, log = tmp_path / "right.py", tmp_path / "log"
    port.write_text("from ports.numpy_port import *\n")
    command = [sys.executable, str(ROOT / "compare.py"), "conform", str(port)]
    with log.open("w") as file:
        stdout = subprocess.PIPE if to == "a pipe" else file
        process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)
    if process.stdout:
        process.stdout.readline()
    else:
        while process.poll() is None and not log.read_text():
            time.sleep(0.1)
    process.send_signal(number := signal.Signals[name])
    _, stderr = process.communicate()  # until pytest and its workers have ended, too
    assert process.returncode == (commands.INTERRUPTED if number == signal.SIGINT else -number)
    assert stderr.strip() == "compare.py: interrupted."
