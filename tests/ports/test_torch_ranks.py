"""PyTorch's port over several ranks, and compare.py under torchrun, all of them on this machine.

Under the nightly profile there are more examples, and more ways for a rank to end.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compare
from by_night import NIGHTLY
from command_lines import FEW_NETS
from comparison.conformance.problems import loaded
from reference import checkpoints
from reference.params import load_params

pytestmark = pytest.mark.slow

ROOT = Path(compare.__file__).parent
NETS = ROOT / "tests/agree_on_ranks.py"
TRAIN = ("train", "--data", "random", "--backend", "torch", "--hidden", "20", "--learning-rate", "1", "--quiet")
WAIT = 600
"""Seconds after which a command that hangs fails its test."""


@pytest.fixture(autouse=True)
def _torch_runs() -> None:
    loaded("torch")


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "GITHUB_ACTIONS": "", "GITHUB_STEP_SUMMARY": "", **changes}


def torchrun(ranks: int, *arguments: object) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [*launcher, FEW_NETS, *map(str, arguments)]


def run(command: list[str], **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=environment(**changes), capture_output=True, text=True, timeout=WAIT)


def sentences(stderr: str) -> list[str]:
    """Return the lines that compare.py prints on stderr, without those of torchrun."""
    return [line for line in stderr.splitlines() if line.startswith("compare.py: ")]


# --- agreement


def agree_on_nets(examples: int, *counts: int, fault: str = "") -> list[dict[str, Any]]:
    command = [sys.executable, str(NETS), str(examples), fault, *map(str, counts)]
    done = run(command, PYTHONPATH=os.pathsep.join((str(ROOT), str(NETS.parent))))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("examples", "counts"), [(200, (1, 2, 3)), (40, (8,))] if NIGHTLY else [(8, (1, 2, 3))])
def test_ranks_agree_with_the_reference_and_have_the_same_bits(examples: int, counts: tuple[int, ...]) -> None:
    results = agree_on_nets(examples, *counts)
    assert [result["ranks"] for result in results] == list(counts)
    for result in results:
        assert result["wrong"] == []
        assert result["same bits"]
        assert result["messages"] > 0
        assert result["messages in silence"] == 0
        assert all(0 < ratio <= 1 for ratio in result["worst"].values())


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("parts overlap", "wrong"),
        ("a part ends too early", "wrong"),
        ("nothing is summed", "wrong"),
        ("another sum on each rank", "same bits"),
    ][: None if NIGHTLY else 1],
)
def test_wrong_ranks_are_found(fault: str, seen: str) -> None:
    [result] = agree_on_nets(2, 2, fault=fault)
    assert result["wrong"] if seen == "wrong" else not result["same bits"]


def test_under_torchrun_only_the_first_rank_prints_and_writes(tmp_path: Path) -> None:
    sizes = ("--data", "random", "--batch", "5", "--hidden", "3", "--dtype", "float64")
    done = run(torchrun(2, "agree", *sizes, "--backend", "numpy,torch", "--json", tmp_path / "agree.json"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("quantities agree with the float64 reference") == 1
    assert sentences(done.stderr) == []
    result = json.loads((tmp_path / "agree.json").read_text())
    assert {row["strategy"] for row in result["agreement"]} >= {"loop", "batched", "structured", "collocated"}
    assert result["not_run"] == [{"backend": "numpy", "reason": "it runs on one device."}]


def test_the_first_rank_times_all_numbers_of_ranks_by_its_clock(tmp_path: Path) -> None:
    sizes = ("--data", "random", "--batch", "5", "--hidden", "3", "--dtype", "float64", "--budget", "1")
    command = torchrun(3, "speed", *sizes, "--devices", "1,2,3", "--json", tmp_path / "speed.json")
    done = run(command, FDNET_PATIENCE="60")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("torch collocated in float64 is ") == 1
    result = json.loads((tmp_path / "speed.json").read_text())
    one, two, three = result["scaling"]
    payload = 8 * (64 * 3 + 3 + 3 * 10 + 10 + 5)  # the gradient, and what is right of each sample's output
    assert [row["devices"] for row in (one, two, three)] == [1, 2, 3]
    assert (one["messages"], one["payload_bytes"], one["in_messages"]) == (0, 0, None)
    for row in (two, three):
        assert (row["messages"], row["payload_bytes"]) == (1, payload)
        low, high = row["in_messages_interval"]
        assert low <= row["in_messages"] <= high < 1
    assert {row["backend"] for row in result["not_run"]} == {"numpy", "jax"}


# --- training


def test_a_run_resumes_with_another_number_of_ranks(tmp_path: Path) -> None:
    """Two dtypes are two runs, and both are compared with the reference's: the command ends with 1 if one drifts."""
    both = (*TRAIN, "--dtype", "float64,float32", "--checkpoint", tmp_path / "run.ckpt", "--resume")
    assert run(torchrun(2, *both, "--iterations", "30")).returncode == 0
    ends: list[object] = [*both, "--iterations", "50", "--save", tmp_path / "net.npz", "--json", tmp_path / "run.json"]
    commands = [torchrun(3, *ends), [sys.executable, "compare.py", *map(str, ends)]]
    for command in commands if NIGHTLY else commands[1:]:
        done = run(command)
        assert done.returncode == 0, done.stderr
        assert [bool(re.search(r"another devices\b", line)) for line in sentences(done.stderr)] == [True, True]
        result = json.loads((tmp_path / "run.json").read_text())
        assert all(row["agrees"] for row in result["drifts"])
        assert {len(p) for p in load_params(tmp_path / "net-torch-float32.npz")} == {64, 20, 10}


def rank_of(process: str) -> str | None:
    try:
        words = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((word[5:].decode() for word in words if word.startswith(b"RANK=")), None)


def signal_rank(launcher: int, rank: int, number: int) -> None:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    [process] = [child for child in children if rank_of(child) == str(rank)]
    os.kill(int(process), number)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes of ranks in /proc")
@pytest.mark.parametrize(
    ("rank", "number"),
    [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP)] if NIGHTLY else [(1, signal.SIGKILL)],
)
def test_a_lost_rank_ends_the_others_with_a_sentence_and_the_run_can_resume(
    rank: int, number: signal.Signals, tmp_path: Path
) -> None:
    kept = tmp_path / "run.ckpt"
    options = (*TRAIN, "--checkpoint", kept, "--every", "1")
    timeout = "10" if number == signal.SIGSTOP else "120"
    begun = subprocess.Popen(
        torchrun(2, *options, "--iterations", "1000000"),
        cwd=ROOT,
        env=environment(FDNET_PATIENCE=timeout, PYTHONFAULTHANDLER="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not kept.exists() or checkpoints.load(kept).progress.iteration == 0:
        assert begun.poll() is None
        time.sleep(0.05)
    signal_rank(begun.pid, rank, number)
    try:
        _, stderr = begun.communicate(timeout=25 if number == signal.SIGKILL else WAIT)
    except subprocess.TimeoutExpired:  # torchrun will kill it after 30 s, and nobody would know where it was
        signal_rank(begun.pid, 1 - rank, signal.SIGABRT)
        _, stderr = begun.communicate(timeout=WAIT)
    assert begun.returncode != 0
    assert len(sentences(stderr)) == 1, stderr
    [sentence] = sentences(stderr)
    assert f"A rank has ended, or has not answered for {timeout} s" in sentence or "torchrun has asked" in sentence
    assert re.search(r"interrupted at iteration [\d,]+ of 1,000,000; to go on: the same command", sentence)
    end = str(checkpoints.load(kept).progress.iteration + 15)

    whole, resumed = tmp_path / "whole.npz", tmp_path / "resumed.npz"
    assert run(torchrun(2, *options, "--resume", "--iterations", end, "--save", resumed)).returncode == 0
    assert run(torchrun(2, *TRAIN, "--iterations", end, "--save", whole)).returncode == 0
    for one, other in zip(load_params(resumed), load_params(whole), strict=True):
        np.testing.assert_array_equal(one, other)


# --- bad input


def started_by_hand(
    *options: tuple[str, ...], folders: list[Path] | None = None, **changes: str
) -> list[tuple[int, list[str]]]:
    """Start a rank with each of the options; return the exit code and the lines on stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    changes |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, ROOT / "compare.py", "agree", "--data", "random", "--backend", "torch", *words],
            cwd=folders[rank] if folders else ROOT,
            env=environment(**{"WORLD_SIZE": str(len(options)), "RANK": str(rank), **changes}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, words in enumerate(options)
    ]
    said = [process.communicate(timeout=WAIT)[1] for process in started]
    return [(process.returncode, stderr.splitlines()) for process, stderr in zip(started, said, strict=True)]


def test_ranks_with_other_settings_are_one_sentence() -> None:
    ends = started_by_hand(("--batch", "5"), ("--batch", "6"))
    assert [code for code, _ in ends] == [2, 2]
    [sentence] = [line for _, lines in ends for line in lines]
    assert sentence == (
        "compare.py: All ranks must be started with the same settings, but those of ranks 0 and 1 differ."
    )


@pytest.mark.parametrize("rank", ["0", "1"] if NIGHTLY else ["1"])
def test_a_coordinator_that_does_not_answer_is_one_sentence(rank: str) -> None:
    [(code, [sentence])] = started_by_hand((), WORLD_SIZE="2", RANK=rank, FDNET_PATIENCE="1")
    assert code == 2
    assert re.fullmatch(
        r"compare.py: The coordinator 127\.0\.0\.1:\d+ and all 2 ranks must answer within 1 s \(FDNET_PATIENCE\), but "
        rf"rank {rank} has waited in vain\.",
        sentence,
    )


def test_more_devices_than_ranks_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["agree", "--data", "random", "--backend", "torch", "--devices", "4"]) == 2
    assert capsys.readouterr().err == (
        "compare.py: Nothing to compare: torch: `devices` must be 1, the number of ranks that torchrun has started, "
        "got 4.\n"
    )


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("FDNET_PATIENCE", "soon", "must be a whole number of seconds, from 1 to 999999, got 'soon'."),
        ("RANK", "x", "RANK must be a whole number, got 'x'."),
    ],
)
def test_a_variable_that_is_no_number_is_one_sentence(name: str, value: str, rule: str) -> None:
    [(code, [sentence])] = started_by_hand((), **{"WORLD_SIZE": "2", name: value})
    assert code == 2
    assert sentence.endswith(rule)


def test_ranks_that_read_other_data_are_one_sentence(tmp_path: Path) -> None:
    """Under the same name, as on two hosts."""
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
        x, t = np.full((4, 2, 1), rank + 1, np.uint8), np.array([0, 1, 0, 1], np.uint8)
        sets = {"x_train": x, "y_train": t, "x_test": x, "y_test": t}
        np.savez(tmp_path / str(rank) / "data.npz", **sets)
    options = ("--batch", "2", "--data", "data.npz")
    ends = started_by_hand(options, options, folders=[tmp_path / "0", tmp_path / "1"])
    assert [code for code, _ in ends] == [2, 2]
    [sentence] = [line for _, lines in ends for line in lines]
    assert sentence == "compare.py: All ranks must read the same data, but some have read others."


@pytest.mark.parametrize("text", ["0", "-1", "some", "1.5"])
def test_devices_that_are_no_number_are_one_sentence(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        compare.main(["agree", f"--devices={text}"])
    assert f"must be a number of devices, or all, got '{text}'." in capsys.readouterr().err


def test_the_threads_of_ranks_are_not_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """To set them a command starts itself anew, and a rank can't."""
    monkeypatch.setattr("comparison.commands.processes.count", lambda: 2)
    monkeypatch.setattr("comparison.commands.processes.join", lambda command, options: options)
    monkeypatch.setattr("comparison.commands.processes.print_error", print)
    assert compare.main(["speed", "--devices", "1,2", "--threads", "1"]) == 2
    assert capsys.readouterr().out == (
        "compare.py: `--threads` must be left to OMP_NUM_THREADS in ranks of torchrun, got 1.\n"
    )


def test_ranks_do_not_time_anything(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert compare.main(["speed"]) == 2
    assert "`speed` must run in one process, got 2 ranks" in capfd.readouterr().err
