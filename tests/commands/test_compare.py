import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import compare
import ports
from command_lines import CRASHING, SMALL, WRONG, run
from comparison import commands

ROOT = Path(compare.__file__).parent


@pytest.fixture
def wrong(tmp_path: Path) -> str:
    path = tmp_path / "wrong_port.py"
    path.write_text(WRONG)
    return str(path)


@pytest.fixture(autouse=True)
def outside_github(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


def test_all_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(list(SMALL)) == commands.AGREES
    output = capsys.readouterr()
    assert "quantities agree" in output.out
    assert output.err == ""  # no progress where nobody looks


def test_json_is_pure_and_complete() -> None:
    done = run(*SMALL, "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 0
    assert (result["schema_version"], result["command"], result["agrees"]) == (2, "agree", True)
    assert result["settings"]["hidden"] == 3
    assert result["environment"]["numpy"] == np.__version__
    assert result["not_run"] == []
    wanted = {"backend", "strategy", "dtype", "device", "quantity", "gap", "bound", "agrees", "worst_index", "got"}
    assert all(wanted | {"expected", "problem"} <= set(row) for row in result["agreement"])
    members = {"W1", "b1", "W2", "b2"}
    assert {row["quantity"] for row in result["agreement"]} == {
        *("copy to the port and back", "second copy back", "predictions", "loss", "accuracy", "losses", "results kept"),
        *members,
        *(f"trained {name}" for name in members),
    }
    assert {"data", "7x5x5x3, drawn", "3x5x2x1031, drawn"} <= {row["problem"] for row in result["agreement"]}


def test_json_to_a_file_is_whole_and_leaves_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agree.json"
    assert compare.main([*SMALL, "--json", str(path)]) == 0
    assert json.loads(path.read_text())["agrees"] is True
    assert list(tmp_path.iterdir()) == [path]
    assert "quantities agree" in capsys.readouterr().out


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([*SMALL, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_wrong_port_is_named_and_the_exit_code_is_1(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([*SMALL, "--port", wrong]) == commands.DISAGREES
    output = capsys.readouterr().out
    assert re.search(r"wrong_port float64 structured.*: \w+\[[\d, ]+\] at h = .* times the bound", output)


def test_a_crash_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "crashing_port.py"
    path.write_text(CRASHING)
    assert compare.main([*SMALL, "--port", str(path)]) == commands.CRASHED
    assert "crashed: TypeError at crashing_port.py:6: no such loss" in capsys.readouterr().out


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("comparison.agreement.cases.check_subject", interrupt)
    assert compare.main(list(SMALL)) == commands.INTERRUPTED
    assert capsys.readouterr().err == "compare.py: interrupted.\n"


def test_a_fault_of_the_code_is_no_disagreement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("comparison.commands.agree.compare_all", lambda *_: 1 / 0)
    assert compare.main(list(SMALL)) == commands.CRASHED
    assert capsys.readouterr().err.endswith("ZeroDivisionError: division by zero\n")


def test_a_missing_framework_is_a_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    load = ports.load

    def absent(name: str) -> object:
        if name == "jax":
            raise ports.NotRunError("jax is not installed.")
        return load(name)

    monkeypatch.setattr(ports, "load", absent)
    assert compare.main([*SMALL[:-1], "numpy,jax"]) == 0
    assert "jax: not run: jax is not installed." in capsys.readouterr().out
    assert compare.main([*SMALL[:-1], "jax"]) == commands.BAD_INPUT
    assert capsys.readouterr().err == "compare.py: Nothing to compare: jax: jax is not installed.\n"


BAD_ARGUMENTS = {
    "--backend tensorflow": "A backend must be one of numpy, torch, jax, .*got 'tensorflow'",
    "--backend ,": "must name at least one, got ','",
    "--backend numpy,.rel": "A backend must be one of numpy, torch, jax, .*got '.rel'",
    "--backend NumPy": "A backend must be one of .*got 'NumPy'",
    "--backend json": "`json.accuracy` must be a function .params, x, t., got None",
    "--strategy fast": "must be one of loop, batched, structured, collocated, got 'fast'",
    "--strategy loop,all": "must be one of loop, batched, structured, collocated, got 'all'",
    "--strategy ,": "must name at least one, got ','",
    "--dtype float16": "must be one of float64, float32, got 'float16'",
    "--dtype ,": "must name at least one, got ','",
    "--device tpu:7": "Nothing to compare: .*`device` must be auto or one of cpu.*, got 'tpu:7'",
    "--device=": "must name at least one, got ''",
    "--data no/such/folder": "no/such/folder",
    "--data=": "`source` must be digits, .*, got ''",
    "--data MNIST": "`source` must be digits, .*, got 'MNIST'",
    "--data {empty}": "must hold train-images-idx3-ubyte or .*, got neither",
    "--data {broken}": "broken.py must be a CSV file that begins with a label or the name label, got .def predict",
    "--batch 0": "`batch` must be from 1 to 1000, the number of samples, got 0",
    "--batch -1": "`batch` must be from 1 to 1000, the number of samples, got -1",
    "--batch 1001": "`batch` must be from 1 to 1000, .*got 1001",
    "--batch many": "argument --batch: invalid int value: 'many'",
    "--batch 1e2": "argument --batch: invalid int value: '1e2'",
    "--batch": "argument --batch: expected one argument",
    "--hidden 0": "`hidden` must be at least 1, got 0",
    "--hidden -3": "`hidden` must be at least 1, got -3",
    "--hidden 2.5": "argument --hidden: invalid int value: '2.5'",
    "--hidden 1000000000000": "this needs more memory than there is: ",
    "--h 0": "`h` must be from 1e-20 to 1, got 0.0",
    "--h=-1e-4": "`h` must be from 1e-20 to 1, got -0.0001",
    "--step 1.5": "`h` must be from 1e-20 to 1, got 1.5",
    "--step inf": "`h` must be from 1e-20 to 1, got inf",
    "--step nan": "`h` must be from 1e-20 to 1, got nan",
    "--h 1e-17": "`h` must be above .*got 1e-17",
    "--step small": "argument --h/--step: invalid float value: 'small'",
    "--seed -1": "`seed` must not be negative, got -1",
    "--seed 0.5": "argument --seed: invalid int value: '0.5'",
    "--memory lots": "must be a size such as 64MiB, got 'lots'",
    "--memory 0": "must be a size such as 64MiB, got '0'",
    "--chunk-memory -1MiB": "argument --memory/--chunk-memory: expected one argument",
    "--memory=-1MiB": "must be a size such as 64MiB, got '-1MiB'",
    "--chunk-memory nan": "must be a size such as 64MiB, got 'nan'",
    "--memory 64MB": "must be a size such as 64MiB, got '64MB'",
    "--port no_such_port.py": "A port's file must exist, got 'no_such_port.py'",
    "--port ports.nothing": "A backend must be one of .*got 'ports.nothing'",
    "--port=": "A backend must be one of .*got ''",
    "--port .rel": "A backend must be one of .*got '.rel'",
    "--port os.path": "path.accuracy` must be a function",
    "--port {empty}": "A backend must be one of .*got '/",
    "--port {broken}": "The port '.*broken.py' must be importable, got SyntaxError at broken.py:1: ",
    "--port {lacking}": "lacking.accuracy` must be a function .params, x, t., got None",
    "--port {other}": "other.GRADIENTS..loop..` must take .params, x, t, .* entries=None., got .params, x, t.",
    "--json /no/such/folder/agree.json": "No such file or directory: '/no/such/folder.*'",
    "--json {empty}": "Is a directory: |Directory not empty: ",
    "--no-such-option": "unrecognized arguments: --no-such-option",
    "--quiet=yes": "argument --quiet: ignored explicit argument 'yes'",
    "extra": "unrecognized arguments: extra",
}
FILES = {
    "broken": "def predict(:",
    "lacking": "from ports.numpy_port import predict",
    "other": "from ports.numpy_port import *\nGRADIENTS = dict(GRADIENTS, loop=lambda params, x, t: params)",
}


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS)
def test_bad_input_is_one_sentence(arguments: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    paths = {name: tmp_path / f"{name}.py" for name in FILES}
    for name, path in paths.items():
        path.write_text(FILES[name])
    try:
        code = compare.main([*SMALL, *arguments.format(empty=empty, **paths).split()])
    except SystemExit as stop:
        code = stop.code
    output = capsys.readouterr()
    assert code == commands.BAD_INPUT
    assert re.search(BAD_ARGUMENTS[arguments], output.err), output.err
    assert re.fullmatch(r"compare\.py.*: .*\.\n", output.err), output.err
    assert output.out == ""
    assert sorted(tmp_path.iterdir()) == sorted([empty, *paths.values()])


def test_large_nets_are_sampled_and_the_table_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("comparison.agreement.comparison.FULL_COST", 1.0)
    assert compare.main([*SMALL, "--dtype", "float64"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    entries = {line[0]: line[2:5] for line in lines if line and line[0] in ("loop", "batched", "structured")}
    assert entries["loop"] == entries["batched"] == ["143", "of", "235"]  # 100 of W1's 192
    assert "235" in next(line for line in lines if line and line[0] == "structured")


def test_help_imports_no_package() -> None:
    code = "import sys, compare\ntry: compare.main(['--help'])\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert not any(f"'{name}'" in loaded for name in ("numpy", "jax", "torch", "rich", "matplotlib"))


def test_a_pipe_cuts_nothing_and_has_no_color() -> None:
    done = run(*SMALL, COLUMNS="40")
    assert done.returncode == 0
    assert "closed form" in done.stdout
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout


def test_an_ascii_terminal_is_enough(wrong: str) -> None:
    done = run(*SMALL, "--port", wrong, PYTHONIOENCODING="ascii", LC_ALL="C", NO_COLOR="1")
    assert done.returncode == 1
    assert "DISAGREES" in done.stdout


def test_github_gets_a_summary_and_annotations(wrong: str, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    done = run(*SMALL, "--port", wrong, "--json", GITHUB_STEP_SUMMARY=str(summary), GITHUB_ACTIONS="true")
    text = summary.read_text()
    assert text.startswith("before\n| backend | strategy |")
    assert "DISAGREES" in text
    assert done.stderr.count("::error::") == sum(not row["agrees"] for row in json.loads(done.stdout)["agreement"]) > 0
