"""What one of several runs or sizes produced is kept when another fails, and no two of them share a name."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compare
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


# --- files


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return the sentence that a command line is refused with."""
    try:
        code: Any = compare.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    output = capsys.readouterr()
    assert (code, output.out, output.err.count("\n")) == (commands.BAD_INPUT, "", 1), output
    return output.err.removeprefix("compare.py: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("train --history F.json --json F.json", "`--history` must name a file of its own, got 'F.json', which is"),
        ("train --checkpoint F.npz --save ./F.npz", "`--save` must name a file of its own, got './F.npz', which is"),
        (
            "train --checkpoint F --json F",
            "`--checkpoint` must name a file of its own, got 'F', which is --json's too.",
        ),
        ("train --data in.npz --save in.npz", "`--save` must name a file of its own, got 'in.npz', which is --data's"),
        ("agree --port in.py --json link.py", "`--json` must name a file of its own, got 'link.py', which is --port's"),
        ("agree --backend in.py --json in.py", "`--json` must name a file of its own, got 'in.py', which is --backend"),
        ("predict --params in.npz --json in.npz", "`--json` must name a file of its own, got 'in.npz', which is --par"),
        ("speed --baseline in.npz --json in.npz", "`--json` must name a file of its own, got 'in.npz', which is --bas"),
        (
            "train --backend numpy,torch --save a.npz --json a-torch-float64.npz",
            "`--save` must name a file of its own, got 'a-torch-float64.npz', which is --json's too.",
        ),
        (
            "train --port a/b.py --port a-b.py --save n.npz",
            "`--save` must name a file of its own, got 'n-a-b-float64.npz', which is --save's too.",
        ),
    ],
)
def test_no_file_has_two_uses(
    arguments: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.npz").write_bytes(b"kept")
    Path("link.py").symlink_to("in.py")
    for port in ("in.py", "a-b.py", "a/b.py", "c/b.py"):
        Path(port).parent.mkdir(exist_ok=True)
        Path(port).write_text("from ports.numpy_port import *\n")
    more = ("--port", "c/b.py") if "a/b.py" in arguments else ()  # so that it is known as a/b
    assert refused(capsys, *arguments.split(), *more).startswith(sentence)
    assert Path("in.npz").read_bytes() == b"kept"


def test_a_name_that_is_no_file_and_a_device_may_be_named_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second time random is a file, too
        assert compare.main([*TRAIN, "--json", "random", "--quiet"]) == 0
    device = ("--checkpoint", "run.ckpt", "--json", os.devnull, "--quiet")
    assert compare.main([*TRAIN, *device]) == 0


@pytest.mark.parametrize("existing", ["--resume", "--overwrite"])
def test_a_checkpoint_is_a_regular_file(existing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.ckpt"
    os.mkfifo(path)
    opened = os.open(path, os.O_RDWR)  # otherwise opening it would wait
    sentence = f"`--checkpoint` must be a regular file, got {str(path)!r}, which is something else."
    assert refused(capsys, *TRAIN, "--checkpoint", path, existing) == sentence
    os.close(opened)


@pytest.mark.parametrize(
    "arguments",
    [
        *(f"train {option}=" for option in ("--json", "--checkpoint", "--save", "--plot", "--history", "--data")),
        *("agree --port=", "agree --json=", "speed --baseline=", "report --out=", "report --out x --train-file="),
        "conform numpy --xfails=",
    ],
)
def test_an_empty_name_is_refused(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command, *_, option = arguments.split()
    sentence = refused(capsys, *arguments.split())
    assert sentence == f"compare.py {command}: argument {option.rstrip('=')}: must not be empty, got ''."
    assert list(tmp_path.iterdir()) == []


# --- options beyond all measure


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
