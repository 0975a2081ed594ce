"""`compare.py speed` on several numbers of devices, of a port that has as many as one likes."""

import json
from pathlib import Path
from typing import Any

import pytest

import compare

PORT = """
from ports import numpy_port as one
from ports.distributed import Sent
from ports.numpy_port import *

class Several:
    rank = 0

    def __init__(self, count, wrong={wrong}):
        self.count, self.wrong = count, wrong

    def __getattr__(self, name):
        return getattr(one, name)

    def subset(self, count, *, silent=False):
        return Several(count)

    def predict(self, params, x):
        return one.predict(params, x) * (1 + (self.count == self.wrong))

    def sent(self, call):
        call()
        return Sent(3, 4)

    def barrier(self):
        pass

    def gather(self, value):
        return [value]

def distribute(devices):
    return Several(devices)
"""
SMALL = ("--data", "random", "--batch", "10", "--hidden", "3", "--budget", "0.1", "--dtype", "float64")


@pytest.fixture(autouse=True)
def _short_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.timing.workloads.STEPS_SECONDS", 1e-3)


def port(folder: Path, wrong: int | None = None) -> tuple[str, ...]:
    path = folder / "several.py"
    path.write_text(PORT.replace("{wrong}", repr(wrong)))
    return "--backend", "numpy", "--port", str(path)


def run(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    code = compare.main(["speed", *SMALL, *options])
    return code, *capsys.readouterr()


def as_json(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, Any]:
    code, out, _ = run(capsys, *options, "--json")
    return code, json.loads(out)


@pytest.mark.slow
def test_each_number_of_devices_is_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output = as_json(capsys, *port(tmp_path), "--devices", "1,2,4", "--strategy", "collocated,closed-form")
    assert code == 0
    rows = {(row["strategy"], row["devices"]): row for row in output["scaling"]}
    assert set(rows) == {(strategy, count) for strategy in ("collocated", "closed form") for count in (1, 2, 4)}
    assert all(row["speedup"] == 1 for (_, count), row in rows.items() if count == 1)
    assert all(row["sizes"]["batch"] == row["batch"] == 10 for row in rows.values())
    assert output["excluded"] == []
    assert output["not_run"] == [{"backend": "numpy", "reason": "it runs on one device."}]


def test_the_table_is_followed_by_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *port(tmp_path), "--devices", "1,2")
    assert (code, err) == (0, "")
    assert out.startswith("a training step, random, 64-3-10 and batches of 10, on 1, 2 devices\n")
    assert "numpy: not run: it runs on one device." in out
    assert "several collocated in float64 is " in out


def test_what_disagrees_on_any_number_is_not_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output = as_json(capsys, *port(tmp_path, wrong=2), "--devices", "1,2,4")
    assert (code, output["scaling"]) == (1, [])
    assert [row["backend"] for row in output["excluded"]] == ["several on 2 devices"]
    code, out, _ = run(capsys, *port(tmp_path, wrong=2), "--devices", "1,2,4")
    assert code == 1
    assert "excluded: several on 2 devices float64 collocated: predictions" in out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--devices", "1,2", "--sweep", "hidden"), "`--devices` must be one number with --sweep, got 1,2."),
        (("--devices", "1,2", "--self-check"), "`--devices` must be one number with --self-check, got 1,2."),
        (
            ("--devices", "1,2", "--fail-if-slower", "2"),
            "`--devices` must be one number with --fail-if-slower, got 1,2.",
        ),
        (("--devices", "1,2", "--what", "run"), "`--what` must be gradient or step with --devices, got run."),
        (("--devices", "1,2", "--what", "gradient"), "`--what` must be step with --devices 1,2, got gradient."),
        (("--devices", "1,2", "--backend", "numpy"), "Nothing to compare: numpy: it runs on one device."),
    ],
)
def test_bad_input_is_one_sentence(options: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *options) == (2, "", f"compare.py: {sentence}\n")


def test_a_port_that_has_all_its_devices_or_none_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "whole.py").write_text("from ports.numpy_port import *\nfrom ports import numpy_port\n"
        "def distribute(devices):\n    return numpy_port\n")  # fmt: skip
    assert run(capsys, "--backend", "numpy", "--port", str(tmp_path / "whole.py"), "--devices", "1,2") == (
        2,
        "",
        "compare.py: Nothing to time: whole: it does not run on a part of its devices.\n",
    )


def test_ranks_without_a_port_of_ranks_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("comparison.commands.processes.count", lambda: 2)
    monkeypatch.setattr("comparison.commands.processes.join", lambda command, options: options)
    monkeypatch.setattr("comparison.commands.processes.check_same", lambda *_: None)
    monkeypatch.setattr("comparison.commands.processes.print_error", print)
    assert run(capsys, *port(tmp_path), "--devices", "1,2") == (
        2,
        "compare.py: Nothing to time: several: it does not run in ranks of torchrun.\n",
        "",
    )


@pytest.mark.parametrize("text", ["2,1", "0,1", "1,x", "1,all", "1,2.5"])
def test_numbers_that_can_not_be_are_one_sentence(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "--devices", text)
    assert f"argument --devices: must be whole numbers from small to large, got '{text}'." in capsys.readouterr().err
