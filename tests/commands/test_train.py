"""compare.py train, as its users call it."""

import csv
import json
import os
import pty
import re
import select
import subprocess
from pathlib import Path
from typing import Any

import pytest

import compare
from comparison import commands
from reference import checkpoints
from training_commands import COMPARE, SMALL, main

LINE = re.compile(r"^ +(\d+(?:\.\d)?) +([\d,]+) +(-|\d\.\d{4}) +(\d\.\d{4}) +(\d\.\d{4})$", re.MULTILINE)


def test_the_chapters_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(*SMALL) == 0
    output = capsys.readouterr()
    lines = LINE.findall(output.out)
    assert [line[:2] for line in lines] == [("0", "0"), ("1", "20"), ("2", "40"), ("2.5", "50")]
    assert lines[0][2] == "-"
    heading, columns, *table, summary = output.out.splitlines()
    assert columns.split() == ["epoch", "iteration", "loss", "train", "acc", "test", "acc"]
    assert {len(line) for line in (columns, *table)} == {len(columns)}  # aligned
    assert heading == "numpy float64 collocated: random, 64-5-10, batch 50, learning rate 1, h = 0.0001, seed 0"
    *_, train, test = lines[-1]
    assert re.fullmatch(
        rf"numpy float64: 50 iterations, \S+ s, loss .*, accuracy {train} in training and {test} in the test", summary
    )
    assert output.err == ""


def test_several_backends_are_held_to_the_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("--backend", "numpy,torch,jax", "--dtype", "float32,float64", "--iterations", "40")
    files = ("--checkpoint", tmp_path / "run.ckpt", "--save", tmp_path / "net.npz", "--json", tmp_path / "all.json")
    assert main(*SMALL, *names, *files) == 0
    result = json.loads((tmp_path / "all.json").read_text())
    assert [(run["backend"], run["dtype"]) for run in result["runs"]] == [
        (backend, dtype) for backend in ("numpy", "torch", "jax") for dtype in ("float32", "float64")
    ]
    assert len(result["drifts"]) == 36
    assert all(row["agrees"] and row["gap"] <= row["bound"] for row in result["drifts"])
    names = {f"{kind}-{run['backend']}-{run['dtype']}" for kind in ("run", "net") for run in result["runs"]}
    assert {path.stem for path in tmp_path.iterdir()} == {*names, "all"}
    output = capsys.readouterr().out
    assert "All 36 quantities agree; the largest gap is 0." in output
    assert output.count("agrees") == 36


WRONG = """
from ports.numpy_port import *
import ports.numpy_port as right


def train_steps(params, x, t, batches, *, strategy, learning_rate, h=1e-4, memory=1e8):
    options = {"strategy": strategy, "learning_rate": learning_rate * (1 + 1e-6), "h": h, "memory": memory}
    return right.train_steps(params, x, t, batches, **options)
"""


def test_a_rate_off_by_a_millionth_disagrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wrong_port.py").write_text(WRONG)
    assert main(*SMALL, "--port", tmp_path / "wrong_port.py") == commands.DISAGREES
    output = capsys.readouterr().out
    assert "DISAGREES: 5 of 12 quantities; the largest gap is" in output
    assert "of its bound (wrong_port float64 " in output


def test_a_crash_is_said_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad_port.py").write_text(
        WRONG.replace("return right", "raise TypeError('no steps')\n    return right")
    )
    assert main(*SMALL, "--port", tmp_path / "bad_port.py", "--json") == commands.CRASHED
    output = capsys.readouterr()
    assert "compare.py: bad_port float64: crashed: TypeError at bad_port.py:8: no steps" in output.err
    result = json.loads(output.out)
    assert [run["backend"] for run in result["runs"]] == ["numpy"]
    assert [row["backend"] for row in result["crashed"]] == ["bad_port"]


def test_divergence_stops_and_keeps_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nan_port.py").write_text(WRONG.replace("return right.train_steps", "return nan") + NAN)
    path = tmp_path / "run.ckpt"
    arguments = ("--port", tmp_path / "nan_port.py", "--backend", tmp_path / "nan_port.py", "--checkpoint", path)
    assert main(*SMALL, *arguments[2:], "--every", 1) == commands.DISAGREES
    assert re.fullmatch(
        r"compare\.py: Training diverged: the loss is no longer finite at iteration 24; the likely cause is the "
        r"learning rate, 1: try a smaller one\.\n",
        capsys.readouterr().err,
    )
    assert checkpoints.load(path).progress.iteration == 20


NAN = """

def nan(params, x, t, batches, **options):
    params, losses = right.train_steps(params, x, t, batches, **options)
    if abs(params.b2).max() > 0.2 or nan.calls:
        losses[3] = float("nan")
    nan.calls += 1
    return params, losses


nan.calls = 0
"""


# --- histories and figures


def test_a_history_has_every_iteration(tmp_path: Path) -> None:
    names = ("--backend", "numpy,torch", "--quiet")
    assert main(*SMALL, *names, "--history", tmp_path / "h.csv") == 0
    assert main(*SMALL, *names, "--history", tmp_path / "h.json") == 0
    with open(tmp_path / "h.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    records = json.loads((tmp_path / "h.json").read_text())
    assert [(record["backend"], record["dtype"]) for record in records] == [("numpy", "float64"), ("torch", "float64")]
    for record in records:
        own = [row for row in rows if row["backend"] == record["backend"]]
        assert [int(row["iteration"]) for row in own] == list(range(51))
        assert [float(row["loss"]) for row in own[1:]] == record["losses"]
        assert own[0]["loss"] == ""
        measured = [(int(row["iteration"]), float(row["test_accuracy"])) for row in own if row["test_accuracy"]]
        assert measured == [(entry["iteration"], entry["test"]) for entry in record["accuracies"]]
        assert [at for at, _ in measured] == [0, 20, 40, 50]


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_figure_has_the_format_of_its_ending(tmp_path: Path, ending: str, magic: bytes) -> None:
    path = tmp_path / f"figure.{ending}"
    assert main(*SMALL, "--plot", path, "--quiet") == 0
    assert path.read_bytes().startswith(magic)


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--resume",), "`--resume` must come with --checkpoint, got none"),
        (("--resume", "--overwrite", "--checkpoint", "a"), "not allowed with argument"),
        (("--every", 0), "`--every` must be at least 1, got 0"),
        (("--iterations", 0), "`--iterations` must be at least 1, got 0"),
        (("--batch", 0), "`--batch` must be at least 1, got 0"),
        (("--hidden", 0), "`--hidden` must be at least 1, got 0"),
        (("--seed", -1), "`--seed` must not be negative, got -1"),
        (("--learning-rate", "nan"), "`--learning-rate` must be a finite number, got nan"),
        (("--learning-rate", 1e39, "--dtype", "float32"), r"`--learning-rate` must be a number of float32, got 1e\+39"),
        (("--h", 2), "`--h` must be from 1e-20 to 1, got 2.0"),
        (("--strategy", "fast"), "invalid choice: 'fast'"),
        (("--plot", "figure.gif"), r"`--plot` must end in .png or .svg or .pdf, got 'figure.gif'"),
        (("--history", "history"), r"`--history` must end in .csv or .json, got 'history'"),
        (("--save", "net.pt"), r"`--save` must end in .npz, got 'net.pt'"),
        (("--save", "/no/such/net.npz"), "No such file or directory: '/no/such/net.npz'"),
        (("--checkpoint", "/no/such/run"), "No such file or directory: '/no/such/run'"),
        (("--checkpoint", "/proc/run"), "'/proc/run'"),
        (("--checkpoint", "."), "`--checkpoint` must be a file, got the folder '.'"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: tuple[Any, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(*SMALL, *arguments) == commands.BAD_INPUT
    output = capsys.readouterr()
    assert re.search(sentence, output.err), output.err
    assert (output.err.count("\n"), output.out) == (1, "")


# --- terminals and pipes


def on_terminal(*arguments: str) -> tuple[int, str]:
    """Return the exit code of a run on a terminal of 80 columns, and what it wrote there."""
    terminal, inner = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    ends = {"stdin": inner, "stdout": inner, "stderr": inner}
    run = subprocess.Popen([*COMPARE, *arguments], env=environment, start_new_session=True, **ends)
    os.close(inner)
    written = b""
    while select.select([terminal], [], [], 120)[0]:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # the end, on Linux
            break
        if not piece:
            break
        written += piece
    os.close(terminal)
    return run.wait(), written.decode()


def test_a_terminal_has_a_bar_and_the_chapters_lines() -> None:
    code, written = on_terminal("train", "--iterations", "700", "--hidden", "20")
    assert code == 0
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written)
    assert re.search(r"numpy float64 .*\d+/700 loss \d\.\d{4} acc \d\.\d{4}", plain)
    assert len(re.findall(r"[\d,]+ +(?:-|\d\.\d{4}) +\d\.\d{4} +\d\.\d{4}\s*\r\n", plain)) >= 51
    assert max(len(line) for line in re.split(r"[\r\n]+", plain) if "/700" in line) <= 80


def test_a_pipe_has_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("comparison.commands.progress.LINE_SECONDS", 0.0)
    assert main(*SMALL) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert re.fullmatch(r"numpy float64: 20 of 50 iterations, loss \d\.\d{4}, test acc \d\.\d{4}, \d+ s left", lines[1])


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(*SMALL, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


# --- the defaults of the data set


def test_the_digits_are_learned_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Past chance, in a thousand steps: the chapter's rate and number are for MNIST."""
    assert main("train", "--hidden", 20) == 0
    heading, *_, last, _ = capsys.readouterr().out.splitlines()
    assert "learning rate 1," in heading
    assert last.split()[1] == "1,000"
    assert float(last.split()[-1]) > 0.8


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--data", "digits"), (1000, 1.0)),
        (("--data", "random"), (1000, 1.0)),
        (("--data", "mnist"), (10_000, 0.1)),
        (("--data", "digits", "--iterations", "7"), (7, 1.0)),
        (("--data", "mnist", "--learning-rate", "2"), (10_000, 2.0)),
    ],
)
def test_the_defaults_of_a_data_set(arguments: tuple[str, ...], expected: tuple[int, float]) -> None:
    parsed = compare._parse(["train", *arguments])
    options = parsed.make_options(parsed)
    assert (options.iterations, options.learning_rate) == expected


def test_accuracies_of_float32_have_four_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(*SMALL, "--dtype", "float32") == 0
    assert len(LINE.findall(capsys.readouterr().out)) == 4
