"""What one of several runs or sizes produced is kept when another fails, and no two of them share a name."""

import json
from pathlib import Path

import numpy as np
import pytest

from command_lines import SMALL, run
from comparison import commands
from comparison.commands.subjects import subject_names
from reference.params import load_params

TRAIN = ("train", "--data", "random", "--batch", "50", "--hidden", "3", "--iterations", "30")
DIVERGING = """
from ports.numpy_port import *
import ports.numpy_port as right


def train_steps(*args, **options):
    params, losses = right.train_steps(*args, **options)
    return params._replace(W1=params.W1 * float("nan")), losses
"""
FAILING = """
from ports.numpy_port import *


def train_steps(*args, **options):
    raise {error}
"""


def test_a_run_that_diverges_does_not_take_the_others_results(tmp_path: Path) -> None:
    port = tmp_path / "diverging.py"
    port.write_text(DIVERGING)
    files = {option: str(tmp_path / name) for option, name in (("--save", "n.npz"), ("--history", "h.csv"))}
    options = [word for pair in files.items() for word in pair]
    done = run(*TRAIN, "--port", str(port), *options, "--json")
    assert done.returncode == commands.DISAGREES, done.stderr
    assert done.stderr.startswith("compare.py: diverging float64: Training diverged: ")
    result = json.loads(done.stdout)
    assert [row["backend"] for row in result["runs"]] == ["numpy"]
    assert [row["backend"] for row in result["diverged"]] == ["diverging"]
    assert np.isfinite(load_params(tmp_path / "n-numpy-float64.npz").W1).all()
    assert "numpy,float64,30," in (tmp_path / "h.csv").read_text()


@pytest.mark.parametrize("error", ["RuntimeError('no')", "MemoryError('too much')", "SystemExit(0)"])
def test_a_run_that_fails_does_not_take_the_others_results(error: str, tmp_path: Path) -> None:
    port = tmp_path / "failing.py"
    port.write_text(FAILING.format(error=error))
    save, history, plot = (tmp_path / name for name in ("n.npz", "h.csv", "p.svg"))
    files = ("--save", str(save), "--history", str(history), "--plot", str(plot))
    done = run(*TRAIN, "--port", str(port), *files, "--json")
    assert done.returncode == commands.CRASHED, done.stderr
    result = json.loads(done.stdout)
    assert [row["backend"] for row in result["runs"]] == ["numpy"]
    assert [row["backend"] for row in result["crashed"]] == ["failing"]
    assert load_params(tmp_path / "n-numpy-float64.npz").W1.shape == (64, 3)
    assert "numpy,float64,30," in history.read_text()
    assert plot.read_text().startswith("<?xml")


def test_a_sweep_over_batches_leaves_out_what_the_data_are_not_enough_for(tmp_path: Path) -> None:
    path = tmp_path / "small.npz"
    rng = np.random.default_rng(0)
    x, t = rng.random((300, 4)).astype("f4"), np.arange(300) % 3
    np.savez(path, x_train=x, y_train=t, x_test=x[:9], y_test=t[:9])
    options = ("--hidden", "3", "--backend", "numpy", "--dtype", "float64", "--budget", "0.5")
    done = run("speed", "--data", str(path), "--sweep", "batch", *options, "--json")
    assert done.returncode == 0, done.stderr
    swept = json.loads(done.stdout)["sweep"]
    assert swept["sizes"] == [10, 30, 100, 300]
    assert swept["left_out"] == ["batch 1000: left out, since the data have 300 samples."]


def test_names_tell_ports_apart() -> None:
    assert subject_names(["numpy", "x/port.py"]) == {"numpy": "numpy", "x/port.py": "port"}
    assert list(subject_names(["a/port.py", "b/port.py"]).values()) == ["a/port", "b/port"]
    assert list(subject_names(["x/a/p.py", "y/a/p.py", "q.py"]).values()) == ["x/a/p", "y/a/p", "q"]
    assert subject_names(["numpy", "x/numpy.py"])["x/numpy.py"] == "x/numpy"
    assert subject_names(["x/torch.py"])["x/torch.py"] == "x/torch"  # the built-in one may stand beside it later
    assert subject_names(["mine.port", "a/mine.port.py"])["a/mine.port.py"] == "a/mine.port"
    with pytest.raises(ValueError, match=r"^`--port` must name each file once, got a/p\.py, \./a/p\.py\.$"):
        subject_names(["a/p.py", "./a/p.py"])


def test_two_ports_of_one_name_have_files_and_rows_of_their_own(tmp_path: Path) -> None:
    ports = [tmp_path / folder / "port.py" for folder in ("a", "b")]
    for port in ports:
        port.parent.mkdir()
        port.write_text("from ports.numpy_port import *\n")
    named = [word for port in ports for word in ("--port", str(port))]
    done = run(*TRAIN, *named, "--save", str(tmp_path / "n.npz"), "--json")
    assert done.returncode == 0, done.stderr
    assert [row["backend"] for row in json.loads(done.stdout)["runs"]] == ["numpy", "a/port", "b/port"]
    saved = sorted(path.name for path in tmp_path.glob("*.npz"))
    assert saved == ["n-a-port-float64.npz", "n-b-port-float64.npz", "n-numpy-float64.npz"]
    table = run(*SMALL, "--strategy", "collocated", *named)
    assert "a/port float64" in table.stdout
    assert "b/port float64" in table.stdout


@pytest.mark.parametrize("command", ["train", "speed", "advise"])
def test_more_iterations_than_can_be_kept_are_refused(command: str) -> None:
    done = run(command, "--data", "random", "--hidden", "3", "--iterations", str(10**25))
    assert done.returncode == commands.BAD_INPUT
    assert done.stderr.startswith("compare.py: `--iterations` must be at most 1,000,000,000, got 10000000")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--batch", "--hidden", "--memory"])
def test_other_options_beyond_all_measure_are_one_sentence(option: str) -> None:
    done = run("train", "--data", "random", option, str(10**25), "--iterations", "1")
    assert done.returncode in ((0,) if option == "--memory" else (commands.BAD_INPUT,)), done.stderr
    assert "Traceback" not in done.stderr
