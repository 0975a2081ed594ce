"""A run of compare.py train goes on from its checkpoint, whatever ended it; no other run may."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import ports
from comparison import commands
from comparison.commands import processes
from comparison.commands.checkpointing import CheckpointWriter
from comparison.commands.output import try_each
from reference import checkpoints, datasets
from reference.files import ExclusiveFile, write_atomically
from reference.params import load_params
from reference.training import train
from reference.two_layer_net import init
from training_commands import COMPARE, SMALL, main

ON_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise")


def net(path: Path) -> dict[str, bytes]:
    return {name: p.tobytes() for name, p in load_params(path)._asdict().items()}


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


def test_of_several_runs_each_checkpoint_is_named_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(*SMALL, "--dtype", "float64,float32", "--checkpoint", tmp_path / "run.ckpt") == 0
    lines = capsys.readouterr().out.splitlines()
    for dtype in ("float64", "float32"):
        assert any(f"run-numpy-{dtype}.ckpt holds iteration 40" in line for line in lines)


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


# --- Ctrl-C


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
    assert re.search(
        r"interrupted at iteration [\d,]+ of 100,000; use --checkpoint FILE to be able to resume", done.stderr
    )


@pytest.fixture
def asked_to_stop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Act as the first of two ranks; the function that is returned asks it to stop, as torchrun does."""
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "is_first", lambda: True)
    before = signal.signal(signal.SIGTERM, processes._stop)
    yield lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    signal.signal(signal.SIGTERM, before)


@ON_POSIX
def test_a_request_to_stop_waits_for_the_checkpoint_that_is_being_written(
    asked_to_stop: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = next(train(ports.load("numpy"), init(64, 3, 10, seed=0), datasets.load("random"), iterations=1))
    save = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda *arguments: (asked_to_stop(), save(*arguments)))
    with CheckpointWriter(str(tmp_path / "run.ckpt"), 1, {}, {}) as writer:
        with pytest.raises(ConnectionAbortedError, match=r"^torchrun has asked the ranks to stop"):
            writer.update(start)
        assert writer.iteration == 0
    assert checkpoints.load(tmp_path / "run.ckpt").progress.iteration == 0


@ON_POSIX
def test_a_request_to_stop_waits_for_each_file_that_is_being_written(
    asked_to_stop: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (asked_to_stop(), replace(*names)))
    one, other = tmp_path / "one", tmp_path / "other"
    [error] = try_each([partial(write_atomically, path, [b"whole"]) for path in (one, other)])
    assert isinstance(error, ConnectionAbortedError)
    assert one.read_bytes() == other.read_bytes() == b"whole"
