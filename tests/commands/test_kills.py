"""A run that is killed at any moment and resumed ends with the very bits of one that was not.

A few kills in every run of the suite; under the nightly profile more than forty, on each backend and in both dtypes.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import compare
from by_night import NIGHTLY
from comparison.conformance.problems import loaded

pytestmark = pytest.mark.slow

COMPARE = [sys.executable, str(Path(compare.__file__)), "train"]
KILLS = {"numpy": 12, "torch": 10, "jax": 10} if NIGHTLY else {"numpy": 3, "torch": 1, "jax": 1}
"""In each dtype under the nightly profile, otherwise only in float32."""
PAIRS = [(b, dtype) for b in KILLS for dtype in (("float32", "float64") if NIGHTLY else ("float32",))]
SIZES = ("--hidden", "20", "--learning-rate", "1.5")


def command(backend: str, dtype: str, folder: Path, *options: str) -> list[str]:
    files = ("--save", str(folder / "net.npz"), "--history", str(folder / "history.csv"))
    names = ("--backend", backend, "--dtype", dtype, "--quiet", "--iterations", "710")
    return [*COMPARE, *names, *SIZES, *files, *options]


def checkpointed(backend: str, dtype: str, folder: Path) -> list[str]:
    # At the end of every segment: a kill then often falls into the writing of a checkpoint.
    return command(backend, dtype, folder, "--checkpoint", str(folder / "run.ckpt"), "--every", "1", "--resume")


def finish(arguments: list[str]) -> None:
    run = subprocess.run(arguments, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def results(folder: Path) -> tuple[dict[str, bytes], str]:
    """Return the bits of the parameters and the whole history."""
    with np.load(folder / "net.npz") as arrays:
        return {name: arrays[name].tobytes() for name in arrays}, (folder / "history.csv").read_text()


def start(arguments: list[str], checkpoint: Path) -> subprocess.Popen[bytes]:
    """Start a run, and wait until it has written its first checkpoint."""
    before = checkpoint.stat().st_ino if checkpoint.exists() else None
    run = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (checkpoint.exists() and checkpoint.stat().st_ino != before) and run.poll() is None:
        time.sleep(0.002)
    return run


def kill_after(arguments: list[str], checkpoint: Path, seconds: float) -> bool:
    """Kill a run some seconds after its first checkpoint, and return whether it was still running."""
    run = start(arguments, checkpoint)
    time.sleep(seconds)
    run.send_signal(signal.SIGKILL)
    return run.wait() == -signal.SIGKILL


@pytest.mark.parametrize(("backend", "dtype"), PAIRS)
def test_a_run_survives_being_killed(backend: str, dtype: str, tmp_path: Path) -> None:
    loaded(backend)
    whole = tmp_path / "whole"
    whole.mkdir()
    run, first = start(checkpointed(backend, dtype, whole), whole / "run.ckpt"), time.monotonic()
    assert run.wait() == 0
    span, moments = time.monotonic() - first, random.Random(f"{backend} {dtype}")
    kills = 0
    for n in range(20 + 3 * KILLS[backend]):  # more than enough: some come after the end
        folder = tmp_path / str(n)
        folder.mkdir()
        killed = kill_after(checkpointed(backend, dtype, folder), folder / "run.ckpt", moments.uniform(0, span))
        kills += killed
        span *= 1 if killed else 0.5
        finish(checkpointed(backend, dtype, folder))
        assert results(folder) == results(whole)
        assert sorted(os.listdir(folder)) == ["history.csv", "net.npz", "run.ckpt"]
        if kills == KILLS[backend]:
            break
    assert kills == KILLS[backend]


def test_a_run_survives_being_killed_over_and_over(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    folder.mkdir()
    finish(command("numpy", "float64", whole))
    arguments = checkpointed("numpy", "float64", folder)
    kills = [kill_after(arguments, folder / "run.ckpt", seconds) for seconds in (0, 0.01, 0.02, 0.05)]
    assert kills[0]
    finish(arguments)
    assert results(folder) == results(whole)
