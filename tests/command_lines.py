"""Small command lines, and ports that are wrong, for the tests of commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import compare
from comparison.timing.load import usable_cores

ROOT = Path(compare.__file__).parent

SMALL = ("agree", "--data", "random", "--batch", "6", "--hidden", "3", "--backend", "numpy")
QUICK = (*SMALL, "--strategy", "structured,collocated")
"""Half as long, where it does not matter what is compared."""
WRONG = """
from ports.numpy_port import *
import ports.numpy_port as right


def doubled(*args, **options):
    gradient = right.GRADIENTS["structured"](*args, **options)
    return gradient._replace(b2=2 * gradient.b2)


GRADIENTS = {**right.GRADIENTS, "structured": doubled}
"""
CRASHING = """
from ports.numpy_port import *


def loss(params, x, t):
    raise TypeError("no such loss")
"""


two_cores = pytest.mark.skipif(usable_cores() < 2, reason="on one core nothing is compared side by side")

COMPARE = str(ROOT / "compare.py")
FEW_NETS = str(ROOT / "tests/few_nets.py")
"""compare.py, quicker where it agrees."""


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_python(FEW_NETS, *args, **environment)


def run_python(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, env=outside_github(**environment))


def outside_github(**more: str) -> dict[str, str]:
    """Return the environment of a process that knows nothing of GitHub Actions."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")} | more
