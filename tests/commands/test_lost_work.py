"""What one of several runs or sizes produced is kept when another fails, and no two of them share a name."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compare
from command_lines import QUICK, run
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


ERRORS = [
    "RuntimeError('no')",
    "MemoryError('too much')",
    "TimeoutError('x')",
    "FileNotFoundError(2, 'no', 'kernel.cu')",
    "BrokenPipeError(32, 'no')",
    "ConnectionAbortedError('no')",
    "SystemExit(0)",
    "GeneratorExit",
    "StopIteration",
]


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
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


KEPT = ("--save", "n.npz", "--history", "h.csv", "--json", "j.json", "--quiet")


def kept(folder: Path) -> tuple[list[str], str]:
    """Return whose parameters were written, and the backends in the JSON; all files of `KEPT` must have the same."""
    runs = [row["backend"] for row in json.loads((folder / "j.json").read_text())["runs"]]
    rows = (folder / "h.csv").read_text().splitlines()[1:]
    assert list(dict.fromkeys(row.split(",")[0] for row in rows)) == runs
    return sorted(path.name for path in folder.glob("*.npz")), " ".join(runs)


@pytest.mark.parametrize(
    "interrupt", ["raise KeyboardInterrupt", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"]
)
def test_an_interrupt_keeps_the_runs_that_have_ended(
    interrupt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("slow.py").write_text(INTERRUPTED.format(interrupt=interrupt))
    arguments = (*TRAIN[:-1], "60", "--port", "slow.py", "--backend", "numpy,torch")
    assert compare.main([*arguments, *KEPT]) == commands.INTERRUPTED
    assert kept(tmp_path) == (["n-numpy-float64.npz", "n-torch-float64.npz"], "numpy torch")
    assert json.loads(Path("j.json").read_text())["not_compared"] == ["not compared: the training was stopped."]
    assert "interrupted" in capsys.readouterr().err


INTERRUPTED = """
from ports.numpy_port import *
import ports.numpy_port as right


def train_steps(*args, **options):
    {interrupt}
    return right.train_steps(*args, **options)
"""


def test_an_interrupt_of_the_comparison_keeps_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("comparison.agreement.drift.run_reference", interrupted)
    assert compare.main([*TRAIN, "--backend", "numpy,torch", *KEPT]) == commands.INTERRUPTED
    assert kept(tmp_path)[1] == "numpy torch"


def test_a_checkpoint_that_fails_midway_does_not_take_the_others_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("removing.py").write_text(INTERRUPTED.format(interrupt="import shutil; shutil.rmtree('there')"))
    arguments = ("--backend", "numpy,removing.py,torch", "--checkpoint", "there/c", "--every", "1")
    assert compare.main([*TRAIN, *arguments, *KEPT]) == commands.BAD_INPUT
    assert kept(tmp_path) == (["n-numpy-float64.npz"], "numpy")
    first, second = ("there/c-torch-float64", "there/c-removing-float64")
    sentence = "compare.py: No such file or directory: '{}'.\n".format
    assert capsys.readouterr().err == sentence(first) + sentence(second)


def test_one_file_that_cannot_be_written_does_not_take_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("removing.py").write_text(INTERRUPTED.format(interrupt="import shutil; shutil.rmtree('there', 1)"))
    Path("there").mkdir()
    arguments = ("--backend", "removing.py", "--save", "there/n.npz", "--plot", "there/p.svg", "--history", "h.csv")
    assert compare.main([*TRAIN, *arguments, "--json", "j.json", "--quiet"]) == commands.BAD_INPUT
    assert kept(tmp_path) == ([], "removing")
    sentence = "compare.py: No such file or directory: '{}'.\n".format
    assert capsys.readouterr().err == sentence("there/p.svg") + sentence("there/n.npz")


@pytest.mark.parametrize("command", [("train", "--plot", "a.png"), ("report", "--out", "out")])
@pytest.mark.parametrize("wrong", ["MPLBACKEND", "matplotlibrc"])
def test_what_matplotlib_cannot_draw_with_is_found_before_the_work(
    command: tuple[str, ...], wrong: str, tmp_path: Path
) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"font.family: \xff\n")
    environment = {"MPLBACKEND": "nonsense"} if wrong == "MPLBACKEND" else {"MATPLOTLIBRC": str(tmp_path)}
    done = run(*command[:2], str(tmp_path / command[2]), *TRAIN[1:], **environment)
    assert (done.returncode, done.stdout) == (commands.BAD_INPUT, "")
    last = done.stderr.splitlines()[-1]  # matplotlib may have warned before
    assert last.startswith(f"compare.py: matplotlib must be able to draw {command[2][-3:].replace('out', 'svg')}, got ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a$^$", "_a", "\udcff"])
def test_a_ports_name_is_drawn_and_written_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"{name}.py").write_text("from ports.numpy_port import *\n")
    arguments = ("--port", f"{name}.py", "--plot", "p.svg", "--save", "n.npz", "--history", "h.csv", "--quiet")
    assert compare.main([*TRAIN, "--dtype", "float32,float64", *arguments, "--json", "j.json"]) == 0
    shown = name.encode("utf-8", "backslashreplace").decode()
    assert f"\n{shown},float64,30," in Path("h.csv").read_text()
    assert f" {shown} float64 -->" in Path("p.svg").read_text()
    assert [row["backend"] for row in json.loads(Path("j.json").read_text())["runs"]][-1] == name
    assert compare.main([*TRAIN, "--backend", f"{name}.py", *arguments[2:]]) == 0


@pytest.mark.slow
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


@pytest.mark.slow
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
    table = run(*QUICK, "--strategy", "collocated", *named)
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
