"""compare.py agree, as a user calls it."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import compare
import ports
from command_lines import COMPARE, CRASHING, QUICK, SMALL, WRONG, run, run_python
from comparison import commands

pytestmark = pytest.mark.usefixtures("outside_github")


@pytest.fixture
def wrong(tmp_path: Path) -> str:
    path = tmp_path / "wrong_port.py"
    path.write_text(WRONG)
    return str(path)


def test_all_agree() -> None:
    done = run_python(COMPARE, *SMALL)
    assert done.returncode == commands.AGREES
    assert "quantities agree" in done.stdout
    assert done.stderr == ""  # no progress where nobody looks


@pytest.mark.slow
def test_json_is_pure_and_complete() -> None:
    done = run_python(COMPARE, *QUICK, "--json")
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
    assert compare.main([*QUICK, "--json", str(path)]) == 0
    assert json.loads(path.read_text())["agrees"] is True
    assert list(tmp_path.iterdir()) == [path]
    assert "quantities agree" in capsys.readouterr().out


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([*QUICK, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_wrong_port_is_named_and_the_exit_code_is_1(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([*QUICK, "--port", wrong]) == commands.DISAGREES
    output = capsys.readouterr().out
    assert re.search(r"wrong_port float64 structured.*: \w+\[[\d, ]+\] at h = .* times the bound", output)


def test_a_crash_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "crashing_port.py"
    path.write_text(CRASHING)
    assert compare.main([*QUICK, "--port", str(path)]) == commands.CRASHED
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
    monkeypatch.setattr("comparison.commands.agree.compare_all", lambda *_: sys.exit(0))
    assert compare.main(list(SMALL)) == commands.CRASHED
    assert capsys.readouterr().err.endswith("SystemExit: 0\n")


@pytest.fixture
def without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    load = ports.load

    def absent(name: str) -> object:
        if name == "jax":
            raise ports.NotRunError("jax is not installed.")
        return load(name)

    monkeypatch.setattr(ports, "load", absent)


@pytest.mark.slow
@pytest.mark.usefixtures("without_jax")
def test_a_missing_framework_is_a_row_unless_it_was_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ports, "names", lambda **_: ("numpy", "jax"))
    assert compare.main([*SMALL[:-1], "all"]) == 0
    assert "jax: not run: jax is not installed." in capsys.readouterr().out
    named = [*SMALL[:-1], "numpy,jax"]
    assert compare.main(named) == commands.BAD_INPUT
    assert capsys.readouterr().err == (
        "compare.py: jax: jax is not installed. With --allow-missing the others are run without it.\n"
    )
    assert compare.main([*named, "--allow-missing"]) == 0
    assert "jax: not run: jax is not installed." in capsys.readouterr().out
    assert compare.main([*SMALL[:-1], "jax", "--allow-missing"]) == commands.BAD_INPUT
    assert capsys.readouterr().err == "compare.py: Nothing to compare: jax: jax is not installed.\n"


@pytest.mark.usefixtures("without_jax")
def test_a_port_that_was_named_must_load_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([*QUICK, "--port", "jax"]) == commands.BAD_INPUT
    assert "jax: jax is not installed. With --allow-missing" in capsys.readouterr().err
    assert compare.main([*QUICK, "--port", "jax", "--allow-missing", "--quiet"]) == 0


def test_large_nets_are_sampled_and_the_table_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("comparison.agreement.comparison.FULL_COST", 1.0)
    assert compare.main([*SMALL, "--dtype", "float64"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    entries = {line[0]: line[2:5] for line in lines if line and line[0] in ("loop", "batched", "structured")}
    assert entries["loop"] == entries["batched"] == ["143", "of", "235"]  # 100 of W1's 192
    assert "235" in next(line for line in lines if line and line[0] == "structured")


def test_a_pipe_cuts_nothing_and_has_no_color() -> None:
    done = run(*QUICK, COLUMNS="40")
    assert done.returncode == 0
    assert "closed form" in done.stdout
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout


@pytest.mark.slow
def test_an_ascii_terminal_is_enough(wrong: str) -> None:
    done = run(*QUICK, "--port", wrong, PYTHONIOENCODING="ascii", LC_ALL="C", NO_COLOR="1")
    assert done.returncode == 1
    assert "DISAGREES" in done.stdout


def test_github_gets_a_summary_and_annotations(wrong: str, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    done = run(*QUICK, "--port", wrong, "--json", GITHUB_STEP_SUMMARY=str(summary), GITHUB_ACTIONS="true")
    text = summary.read_text()
    assert re.match(r"before\n\*\*DISAGREES: \d+ of [\d,]+ quantities\.\*\*\n\n\| backend \| strategy \|", text)
    marks = [line for line in done.stderr.splitlines() if line.startswith("::error ")]
    assert len(marks) == sum(not row["agrees"] for row in json.loads(done.stdout)["agreement"]) > 0
    assert all(mark.startswith(f"::error file={wrong},line=1,title=wrong_port disagrees::") for mark in marks)


@pytest.mark.slow
def test_a_crash_ends_one_strategy_and_is_marked(tmp_path: Path) -> None:
    """The strategies after it are compared, in a file of the checkout by its path there."""
    (tmp_path / "ports").mkdir()
    path = tmp_path / "ports" / "half_port.py"
    path.write_text(HALF)
    summary = tmp_path / "summary.md"
    github = {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(tmp_path)}
    done = run(*SMALL, "--port", str(path), "--dtype", "float64", "--json", **github)
    assert done.returncode == commands.CRASHED
    result = json.loads(done.stdout)
    (crash,) = result["crashed"]
    assert crash == {
        **{"backend": "half_port", "dtype": "float64", "strategy": "batched"},
        "reason": "TypeError at half_port.py:7: no such difference",
    }
    compared = {row["strategy"] for row in result["agreement"] if row["backend"] == "half_port"}
    assert compared == {None, "closed form", "loop", "structured", "collocated"}
    rows = [(row["strategy"], row["quantity"], row["problem"], row["h"]) for row in result["agreement"]]
    assert len(rows) < 2 * len(set(rows))  # none twice but those of the two backends
    assert done.stderr.splitlines() == [
        "::error file=ports/half_port.py,line=7,title=half_port crashes::half_port float64 batched: crashed: "
        "TypeError at half_port.py:7: no such difference"
    ]
    text = summary.read_text()
    assert text.startswith("**CRASHED: ")
    assert "| half_port float64 | batched | - | - | - | - | - | CRASHED |" in text


HALF = """from ports.numpy_port import *
import ports.numpy_port as right


def batched(*args, **options):
    if options:
        raise TypeError("no such difference")


GRADIENTS = {**right.GRADIENTS, "batched": batched}
"""


@pytest.mark.slow
def test_a_crash_has_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source, strategy in ((HALF, "batched"), (CRASHING, "forward")):
        path = tmp_path / "half_port.py"
        path.write_text(source)
        assert compare.main([*SMALL, "--port", str(path), "--dtype", "float64"]) == commands.CRASHED
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        rows = [line for line in lines if line[-1:] == ["CRASHED"]]
        assert len(rows) == 1
        assert strategy in rows[0]


@pytest.mark.parametrize("width", [60, 80, 160])
def test_the_table_leaves_columns_out_and_cuts_none(
    width: int, wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    console = Console(width=width, highlight=False)
    monkeypatch.setattr("comparison.commands.agree.make_console", lambda: console)
    compare.main([*SMALL, "--port", wrong, "--dtype", "float64"])
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.rstrip().endswith(("verdict", "agrees", "DISAGREES"))]
    assert len(table) >= 12  # a line of the summary may end so too
    assert any("structured" in line and "DISAGREES" in line for line in table)
    assert all(len(line) <= width and "…" not in line for line in table)
    heading = next(line for line in lines if line.startswith("backend"))
    assert {"backend", "strategy", "gap/bound", "verdict"} <= set(heading.split())
    assert ("entries" in heading.split()) == (width == 160)


def test_expected_and_got_differ_in_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By as many digits as it takes."""
    path = tmp_path / "near_port.py"
    path.write_text(WRONG.replace("2 * gradient.b2", "(1 + 1e-12) * gradient.b2"))
    assert compare.main([*QUICK, "--port", str(path), "--dtype", "float64"]) == commands.DISAGREES
    got, expected = re.search(r"is (-?\d\S+), expected (-?\d\S+):", capsys.readouterr().out).groups()  # type: ignore[union-attr]
    assert got != expected
    assert float(got) == pytest.approx(float(expected), rel=1e-11)


@pytest.mark.slow
def test_threads_pin_the_process_of_agree(tmp_path: Path) -> None:
    path = tmp_path / "their_port.py"
    path.write_text('import os\n\nfrom ports.numpy_port import *\n\nassert os.environ["OMP_NUM_THREADS"] == "1"\n')
    done = run_python(COMPARE, *QUICK, "--threads", "1", "--port", str(path), "--quiet", OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
