"""compare.py train and predict, as their users call them."""

import csv
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compare
from comparison import commands
from reference import checkpoints, datasets
from reference.files import ExclusiveFile
from reference.params import load_params
from reference.two_layer_net import accuracy

COMPARE = [sys.executable, str(Path(compare.__file__))]
SMALL = ("train", "--data", "random", "--batch", "50", "--hidden", "5", "--learning-rate", "1", "--iterations", "50")
LINE = re.compile(r"^ +(\d+(?:\.\d)?) +([\d,]+) +(-|\d\.\d{4}) +(\d\.\d{4}) +(\d\.\d{4})$", re.MULTILINE)


def main(*arguments: object) -> int:
    try:
        return compare.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(str(stop.code))


def net(path: Path) -> dict[str, bytes]:
    return {name: p.tobytes() for name, p in load_params(path)._asdict().items()}


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


def test_it_learns_and_predict_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.npz"
    assert main(*SMALL[:-1], 600, "--save", path, "--json", tmp_path / "train.json", "--quiet") == 0
    [trained] = json.loads((tmp_path / "train.json").read_text())["runs"]
    data = datasets.load("random")
    right = accuracy(load_params(path), data.x_test, data.t_test)
    assert right > 0.9
    assert trained["accuracies"][-1]["test"] == right
    assert main("predict", "--params", path, "--data", "random", "--backend", "numpy,torch,jax", "--json") == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [answer["backend"] for answer in answers] == ["numpy", "torch", "jax"]
    for answer in answers:
        counts = np.array(answer["confusion"])
        assert answer["accuracy"] == right
        assert counts.trace() == round(right * 200)
        np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(data.t_test, minlength=10))
        assert answer["agrees"]


def test_predict_prints_a_confusion_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.npz"
    assert main(*SMALL, "--dtype", "float32", "--save", path, "--quiet") == 0
    assert main("predict", "--params", path, "--data", "random", "--backend", "numpy,torch", "--part", "train") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"numpy float32: random train: [\d,]+ of 1,000 right, accuracy 0\.\d{4}\.", lines[0])
    rows = [line.split() for line in lines[2:13]]
    assert rows[0] == [str(n) for n in range(10)]
    assert [row[0] for row in rows[1:]] == rows[0]
    assert sum(int(cell) for row in rows[1:] for cell in row[1:] if cell != ".") == 1000
    assert lines[-1] == "All give the same answers."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--params", "none.npz"), r"none\.npz must be a file, got none\."),
        (("--params", "NET", "--data", "digits", "--device", "tpu"), r"got 'tpu'"),
        (("--params", "NARROW"), r"`--data` must have 3 inputs to fit .*, got 64\."),
        (("--params", "FEW"), r"`--data` must have 2 classes at most to fit .*, got 10\."),
        (("--params", "NET", "--data", "no/such"), "no/such"),
        ((), "the following arguments are required: --params"),
    ],
)
def test_predict_refuses_in_a_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from reference.params import save_params
    from reference.two_layer_net import init

    for name, sizes in {"NET": (64, 5, 10), "NARROW": (3, 5, 10), "FEW": (64, 5, 2)}.items():
        save_params(tmp_path / name, init(*sizes, seed=0))
    paths = [str(tmp_path / word) if word.isupper() else word for word in arguments]
    assert main("predict", *paths) == commands.BAD_INPUT
    output = capsys.readouterr()
    assert re.search(sentence, output.err), output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


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


CRASHING = WRONG.replace("return right", "raise TypeError('no steps')\n    return right")


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


# --- going on


def test_a_resumed_run_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = ("--checkpoint", tmp_path / "run.ckpt", "--every", "7", "--quiet")
    assert main(*SMALL, *checkpoint, "--iterations", 30) == 0
    assert checkpoints.load(tmp_path / "run.ckpt").progress.iteration == 20  # the end of the last segment
    assert main(*SMALL, *checkpoint, "--resume", "--save", tmp_path / "a.npz", "--history", tmp_path / "a.csv") == 0
    assert main(*SMALL, "--save", tmp_path / "b.npz", "--history", tmp_path / "b.csv", "--quiet") == 0
    assert net(tmp_path / "a.npz") == net(tmp_path / "b.npz")
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    assert capsys.readouterr() == ("", "")


def rewrite(path: Path, checkpoint: checkpoints.Checkpoint) -> None:
    with ExclusiveFile(path) as file:
        checkpoints.save(file, checkpoint)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    assert main(*SMALL, "--checkpoint", tmp_path / "run.ckpt", "--quiet") == 0
    return tmp_path / "run.ckpt"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), r"run\.ckpt already exists: --resume resumes it, --overwrite begins anew\."),
        (("--resume", "--hidden", 6), r"must be of a run with `hidden` 6, got one with 5\."),
        (("--resume", "--batch", 51), r"must be of a run with `batch` 51, got one with 50\."),
        (
            ("--resume", "--strategy", "structured"),
            r"must be of a run with `strategy` 'structured', got .*'collocated'",
        ),
        (("--resume", "--backend", "torch"), r"must be of a run with `backend` 'torch', got one with 'numpy'\."),
        (("--resume", "--dtype", "float32"), r"must be of a run with `dtype` 'float32', got one with 'float64'\."),
        (("--resume", "--learning-rate", 2), r"must be of a run with `learning_rate` 2\.0, got one with 1\.0\."),
        (("--resume", "--h", 1e-3), r"must be of a run with `h` 0\.001, got one with 0\.0001\."),
        (("--resume", "--seed", 1), r"must be of a run with `seed` 1, got one with 0\."),
        (("--resume", "--memory", "1MiB"), r"must be of a run with `memory` 1048576, got .*268435456\."),
        (
            ("--resume", "--data", "digits"),
            r"must be of a run with `data` '[0-9a-f]{64}', got one with '[0-9a-f]{64}'\.",
        ),
        (("--resume", "--iterations", 39), r"`--iterations` must be at least 40, got 39\."),
    ],
)
def test_another_runs_checkpoint_is_refused_and_left(
    kept: Path, options: tuple[Any, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = kept.read_bytes()
    assert main(*SMALL, "--checkpoint", kept, *options) == commands.BAD_INPUT
    output = capsys.readouterr()
    assert re.search(sentence, output.err), output.err
    assert (output.err.count("\n"), output.out) == (1, "")
    assert kept.read_bytes() == before


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"foreign", lambda b: b"", lambda b: b[:99] + b"X" + b[100:]]
)
def test_a_damaged_checkpoint_is_refused_and_left(kept: Path, damage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = damage(kept.read_bytes())
    kept.write_bytes(damaged)
    assert main(*SMALL, "--checkpoint", kept, "--resume") == commands.BAD_INPUT
    output = capsys.readouterr()
    assert output.err.startswith(f"compare.py: {kept} must ")
    assert (output.err.count("\n"), output.out) == (1, "")
    assert kept.read_bytes() == damaged
    assert main(*SMALL, "--checkpoint", kept, "--overwrite", "--quiet") == 0
    assert checkpoints.load(kept).progress.iteration == 40


def test_a_checkpoint_with_the_former_names_is_resumed(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = checkpoints.load(kept)
    former = {"h": "step", "memory": "chunk_memory"}
    settings = {former.get(name, name): value for name, value in checkpoint.settings.items()}
    assert {"step", "chunk_memory"} <= set(settings)
    rewrite(kept, checkpoint._replace(settings=settings))
    assert main(*SMALL, "--checkpoint", kept, "--resume", "--step", 1e-3) == commands.BAD_INPUT
    assert "must be of a run with `h` 0.001, got one with 0.0001." in capsys.readouterr().err
    assert main(*SMALL, "--checkpoint", kept, "--resume", "--quiet") == 0
    assert checkpoints.load(kept).settings == checkpoint.settings


def test_a_checkpoint_that_another_run_is_writing_is_refused(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = kept.read_bytes()
    with ExclusiveFile(kept):
        assert main(*SMALL, "--checkpoint", kept, "--overwrite") == commands.BAD_INPUT
    assert capsys.readouterr().err == (
        f"compare.py: {kept} must not be in use by another run, but one is writing it.\n"
    )
    assert kept.read_bytes() == before


def test_other_versions_are_said(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = checkpoints.load(kept)
    rewrite(kept, checkpoint._replace(environment={**checkpoint.environment, "numpy": "2.1.0", "device": "gpu"}))
    assert main(*SMALL, "--checkpoint", kept, "--resume", "--quiet") == 0
    assert capsys.readouterr().err == (
        f"compare.py: {kept} was written with another numpy, device: the run continues, but the same bits as without "
        "the interruption are no longer promised.\n"
    )


def test_a_net_of_other_sizes_than_the_settings_is_refused(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = checkpoints.load(kept)
    params = checkpoint.progress.params
    other = params._replace(W1=params.W1[:, :4], b1=params.b1[:4], W2=params.W2[:4])
    rewrite(kept, checkpoint._replace(progress=checkpoint.progress._replace(params=other)))
    assert main(*SMALL, "--checkpoint", kept, "--resume") == commands.BAD_INPUT
    assert capsys.readouterr().err == f"compare.py: {kept} must hold a net of the settings' sizes, got another.\n"


def test_a_run_that_has_no_checkpoint_yet_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.ckpt"
    assert main(*SMALL, "--checkpoint", path, "--resume", "--quiet") == 0
    assert capsys.readouterr().err == f"compare.py: {path} is not there yet: training begins anew.\n"


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


# --- full disks


LIMITED = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (int(sys.argv[1]),)); "
LIMITED += "os.execv(sys.argv[2], sys.argv[2:])"


def limited(size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Return a run that can write no file larger than `size`."""
    command = [sys.executable, "-c", LIMITED, str(size), *COMPARE, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_disk_too_full_for_a_checkpoint_is_reported_before_training(tmp_path: Path) -> None:
    done = limited(100, *SMALL, "--checkpoint", str(tmp_path / "run.ckpt"))
    assert (done.returncode, done.stdout) == (commands.BAD_INPUT, "")
    assert done.stderr == f"compare.py: File too large: '{tmp_path / 'run.ckpt'}'.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    options = ("--checkpoint", str(path), "--every", "1", "--quiet")
    assert main(*SMALL, "--iterations", 20, *options) == 0
    room = path.stat().st_size + 1000  # the history grows by 8 bytes an iteration
    done = limited(room, *SMALL[:-1], "400", *options, "--resume")
    assert (done.returncode, done.stdout) == (commands.BAD_INPUT, "")
    good = checkpoints.load(path).progress.iteration
    assert 20 < good < 400
    assert done.stderr == f"compare.py: File too large; the checkpoint of iteration {good} is kept: '{path}'.\n"
    assert os.listdir(tmp_path) == ["run.ckpt"]
    assert main(*SMALL[:-1], 400, *options, "--resume", "--save", tmp_path / "a.npz") == 0
    assert main(*SMALL[:-1], 400, "--quiet", "--save", tmp_path / "b.npz") == 0
    assert net(tmp_path / "a.npz") == net(tmp_path / "b.npz")


# --- Ctrl-C, terminals and pipes

LONG = ("train", "--hidden", "20", "--iterations", "100000")


def interrupted(*options: str) -> subprocess.CompletedProcess[str]:
    """Return a long run that Ctrl-C was pressed in, after its second epoch."""
    run = subprocess.Popen([*COMPARE, *LONG, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for _ in range(4):  # the heading, iteration 0, and two epochs
        assert run.stdout.readline()
    run.send_signal(signal.SIGINT)
    out, err = run.communicate()
    return subprocess.CompletedProcess(run.args, run.returncode, out, err)


def test_ctrl_c_finishes_the_step_and_says_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "my run.ckpt"
    done = interrupted("--checkpoint", str(path))
    assert done.returncode == commands.INTERRUPTED
    at = checkpoints.load(path).progress.iteration
    assert at > 0
    sentence = done.stderr.splitlines()[-1]
    command = f"{' '.join([*COMPARE, *LONG])} --checkpoint '{path}' --resume"
    assert sentence == f"compare.py: interrupted at iteration {at:,} of 100,000; to go on: {command}"
    assert "finishing the step" in done.stderr
    assert "Traceback" not in done.stderr
    resumed = [*LONG[:-1], str(at + 28), "--checkpoint", path, "--resume", "--save", tmp_path / "a.npz", "--quiet"]
    assert main(*resumed) == 0
    assert main(*LONG[:-1], at + 28, "--save", tmp_path / "b.npz", "--quiet") == 0
    assert net(tmp_path / "a.npz") == net(tmp_path / "b.npz")


def test_ctrl_c_without_a_checkpoint_says_so() -> None:
    done = interrupted()
    assert done.returncode == commands.INTERRUPTED
    assert re.search(r"interrupted at iteration [\d,]+ of 100,000; with --checkpoint FILE it could", done.stderr)


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


# --- the defaults of the data set, and what a short run leaves in its checkpoint


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


def test_a_checkpoint_before_the_end_of_the_run_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.ckpt"
    assert main(*SMALL, "--checkpoint", path) == 0
    assert re.search(r"run\.ckpt holds iteration 40: --resume .* from there, .*not from 50", capsys.readouterr().out)
    assert main(*SMALL[:-1], 60, "--checkpoint", path, "--resume") == 0
    assert "from iteration 40 on, the last that its checkpoint can be resumed from" in capsys.readouterr().out
    assert main(*SMALL[:-1], 80, "--checkpoint", path, "--resume") == 0
    assert "holds iteration" not in capsys.readouterr().out


def test_accuracies_of_float32_have_four_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(*SMALL, "--dtype", "float32") == 0
    assert len(LINE.findall(capsys.readouterr().out)) == 4


def test_inputs_and_classes_are_those_of_random(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.npz"
    sizes = ("--inputs", 9, "--classes", 62)
    assert main(*SMALL, *sizes, "--save", path, "--quiet") == 0
    assert load_params(path).W1.shape == (9, 5)
    assert load_params(path).b2.shape == (62,)
    assert main("predict", "--params", path, "--data", "random", *sizes, "--json") == 0
    assert np.array(json.loads(capsys.readouterr().out)["answers"][0]["confusion"]).shape == (62, 62)
    assert main("predict", "--params", path, "--inputs", 9) == commands.BAD_INPUT
    assert "`--inputs` must be left out with every data set but random, got 9." in capsys.readouterr().err
