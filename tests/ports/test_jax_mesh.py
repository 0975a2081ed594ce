"""JAX on several devices: on eight simulated ones (on_eight_devices.py), and in two processes over loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import compare
import ports
from command_lines import FEW_NETS
from comparison.agreement.comparison import Subject
from comparison.agreement.drift import measure_drifts, run_reference
from reference import datasets
from reference.checkpoints import load
from reference.two_layer_net import init

pytestmark = pytest.mark.slow

pytest.importorskip("jax", reason="jax not run: it is not installed")

ROOT = Path(compare.__file__).parent
EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
SMALL = ("--data", "random", "--batch", "10", "--hidden", "3")
AGREE = ("agree", *SMALL, "--backend", "jax", "--dtype", "float64", "--strategy", "collocated")
TRAIN = ("train", *SMALL, "--backend", "jax", "--step", "1e-2")
ENDLESS = ("--iterations", "1000000", "--every", "1")


def start(*command: str, **env: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=os.environ | env, stdout=pipe, stderr=pipe, text=True
    )


def run(*command: str, **env: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr."""
    process = start(*command, **env)
    out, err = process.communicate()
    return process.returncode, out, err


def two(first: tuple[str, ...], second: tuple[str, ...], patience: int = 60) -> list[subprocess.Popen[str]]:
    """Start two processes that are to meet."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    env = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "FDNET_PATIENCE": str(patience)}
    return [start(FEW_NETS, *args, JAX_PROCESS_ID=str(n), **env) for n, args in enumerate((first, second)) if args]


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    outputs = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


# --- simulated devices


def test_what_holds_on_eight_devices() -> None:
    code, out, err = run("-m", "pytest", "-n", "0", "-q", "tests/on_eight_devices.py", **EIGHT)
    assert code == 0, out + err
    assert "passed" in out


def test_agree_on_several_devices() -> None:
    code, out, err = run(FEW_NETS, *AGREE, "--devices", "3", "--json", **EIGHT)
    assert code == 0, err
    result = json.loads(out)
    assert result["settings"]["devices"] == 3
    assert {row["strategy"] for row in result["agreement"]} == {None, "closed form", "collocated"}


def test_a_checkpoint_of_four_devices_is_resumed_on_three(tmp_path: Path) -> None:
    kept = (*TRAIN, "--checkpoint", str(tmp_path / "run"))
    assert run("compare.py", *kept, "--iterations", "100", "--devices", "4", **EIGHT)[0] == 0
    code, out, err = run("compare.py", *kept, "--iterations", "150", "--devices", "3", "--resume", **EIGHT)
    assert code == 0, err
    assert "from iteration 100 on" in out
    assert "another devices" in err


def test_speed_on_several_numbers_of_devices() -> None:
    options = ("--backend", "jax", "--dtype", "float64", "--budget", "1", "--json")
    code, out, err = run(FEW_NETS, "speed", *SMALL, "--devices", "1,3", *options, **EIGHT)
    assert code == 0, err
    one, three = json.loads(out)["scaling"]
    assert (one["devices"], one["speedup"], one["in_messages"], one["messages"]) == (1, 1, None, 0)
    assert (three["devices"], three["batch"], three["messages"]) == (3, 10, 1)
    low, high = three["in_messages_interval"]
    assert low <= three["in_messages"] <= high < 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--backend", "jax", "--devices", "9"), "must be from 1 to 8, the devices of JAX here, or all, got 9."),
        (("--backend", "numpy", "--devices", "2"), "Nothing to compare: numpy: it runs on one device."),
        (("--devices", "0"), "argument --devices: must be a number of devices, or all, got '0'."),
        (("--devices", "many"), "argument --devices: must be a number of devices, or all, got 'many'."),
    ],
)  # fmt: skip
def test_a_number_of_devices_that_can_not_be_is_one_sentence(options: tuple[str, ...], sentence: str) -> None:
    code, out, err = run("compare.py", "agree", *SMALL, *options, **EIGHT)
    assert (code, out) == (2, "")
    assert err.endswith(sentence + "\n")
    assert len(err.splitlines()) == 1


# --- two processes


@pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "nightly", reason="it takes half a minute")
def test_two_processes_agree_and_the_first_alone_prints() -> None:
    (code, out, err), other = ends(two((*AGREE, "--json"), (*AGREE, "--json")))
    assert code == 0, err
    assert all(row["agrees"] for row in json.loads(out)["agreement"])
    assert other == (0, "", "")


def test_two_processes_train_as_the_reference_does_and_the_first_alone_writes(tmp_path: Path) -> None:
    kept = (*TRAIN, "--iterations", "200", "--checkpoint", str(tmp_path / "run"))
    (code, out, err), other = ends(two(kept, kept))
    assert code == 0, err
    assert [line for line in err.splitlines() if " of 200 iterations, " not in line] == []  # a slow run shows progress
    assert out.startswith("jax float64 collocated: random")
    assert other == (0, "", "")
    data = datasets.load("random")
    options = {"strategy": "collocated", "iterations": 200, "batch": 10, "learning_rate": 1.0, "h": 1e-2}
    reference_run = run_reference(init(data.x_train.shape[1], 3, 10, seed=0), data, dtype="float64", seed=0, **options)
    assert reference_run is not None
    subject = Subject("jax", ports.load("jax"), "float64", "cpu")
    assert all(row.agrees for row in measure_drifts(subject, load(tmp_path / "run").progress, reference_run))


def test_processes_with_other_settings_are_told_apart_at_the_start() -> None:
    for code, out, err in ends(two(AGREE, (*AGREE, "--seed", "1"))):
        assert (code, out) == (2, "")
        assert err == (
            "compare.py: All ranks must be started with the same settings, but those of ranks 0 and 1 differ.\n"
        )


@pytest.mark.parametrize("missing", [0, 1])
def test_a_process_that_no_other_joins_gives_up_in_time(missing: int) -> None:
    commands = ((), AGREE) if missing == 0 else (AGREE, ())
    ((code, out, err),) = ends(two(*commands, patience=2))
    assert (code, out) == (2, "")
    assert err.startswith("compare.py: The 2 processes must meet at 127.0.0.1:")
    assert err.endswith(" within 2 s (FDNET_PATIENCE), got no answer there or too few of them.\n")


def test_a_process_that_can_not_be_is_one_sentence() -> None:
    env = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}
    code, _, err = run("compare.py", *AGREE, **env)
    assert code == 2
    assert err == (
        "compare.py: JAX_PROCESS_ID must be a number from 0 to JAX_NUM_PROCESSES - 1 where JAX_COORDINATOR_ADDRESS is "
        "set, got '2' of '2'.\n"
    )


@pytest.mark.parametrize(
    ("sentence", "raised"),
    [
        ("UNKNOWN: Gloo all-reduce failed: Read error: Connection reset by peer", ConnectionAbortedError),
        ("DEADLINE_EXCEEDED: Gloo all-gather failed: Timed out", ConnectionAbortedError),
        ("`h` must be finite and greater than 0, got 0.", ValueError),
    ],
)
def test_a_value_error_of_the_runtime_is_told_from_one_of_bad_input(
    sentence: str, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """JAX raises the status of a failed run as a ValueError where a compiled function is called again."""
    import jax

    from ports.jax_port.processes import report_lost_peer

    def fail() -> None:
        raise ValueError(sentence)

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(raised, match="^Process 0 can't go on" if raised is ConnectionAbortedError else "^`h` must"):
        report_lost_peer(fail)()
    monkeypatch.setattr(jax, "process_count", lambda: 1)
    with pytest.raises(ValueError, match=sentence):
        report_lost_peer(fail)()


def reached(path: Path) -> int:
    """Return the iteration that a checkpoint is of."""
    return load(path).progress.iteration if path.exists() else 0


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_goes_on_from_the_checkpoint(killed: int, tmp_path: Path) -> None:
    kept = (*TRAIN, "--checkpoint", str(tmp_path / "run"))
    processes = two((*kept, *ENDLESS), (*kept, *ENDLESS))
    while all(process.poll() is None for process in processes) and reached(tmp_path / "run") == 0:
        time.sleep(0.1)
    processes[killed].send_signal(signal.SIGKILL)
    results = ends(processes)
    code, _, err = results[1 - killed]
    assert code == 3, results
    *_, sentence = err.splitlines()  # after the line of progress
    assert sentence.startswith(f"compare.py: Process {1 - killed} can't go on: another has ended, or has failed; ")
    at = reached(tmp_path / "run")
    code, out, err = run("compare.py", *kept, "--resume", "--iterations", str(at + 10))
    assert code == 0, err
    assert f"from iteration {at:,} on" in out
