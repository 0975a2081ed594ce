"""What the author of a port is told: where it crashed, what disagrees, and within which time."""

import re
import time
from pathlib import Path

from command_lines import SMALL, run
from comparison import commands

CRASHING = """
import numpy as np
from ports.numpy_port import *


def helper(x):
    return np.linalg.inv(np.zeros((2, 3)))


def loss(params, x, t):
    return helper(x)
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


def test_a_crash_names_the_ports_own_line(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING)
    done = run(*SMALL, "--port", str(tmp_path / "crashing.py"))
    assert done.returncode == commands.CRASHED
    assert "crashing float64: crashed: LinAlgError at crashing.py:7: " in done.stdout
    assert "DISAGREES" not in done.stdout
    assert re.search(
        r"^CRASHED: the [\d,]+ quantities that were compared agree; crashed: 2\.$", done.stdout, re.MULTILINE
    )


def test_a_fault_is_one_line_and_the_worst_comes_first(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    done = run(*SMALL, "--dtype", "float64", "--port", str(tmp_path / "wrong.py"))
    assert done.returncode == commands.DISAGREES
    sentences = [line for line in done.stdout.splitlines() if "times the bound" in line]
    named = [" ".join(line.split()[:3]).rstrip(":") for line in sentences]
    assert named == ["wrong float64 closed", "wrong float64 structured"]
    assert all(re.search(r"\. So do \d+ more \(.*\bW2\b.*\)\.$", line) for line in sentences)


def test_the_budget_bounds_a_slow_port(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    options = ("--strategy", "collocated", "--dtype", "float64", "--budget", "0.5")
    start = time.perf_counter()
    done = run("speed", *SMALL[1:], *options, "--port", str(tmp_path / "slow.py"))
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 30  # 16 steps a reading took more than 40 s
