"""compare.py speed --baseline, as a job of continuous integration calls it."""

import json
import re
import shutil
from pathlib import Path

import pytest

import compare
from command_lines import ROOT, SMALL
from comparison import commands

pytestmark = pytest.mark.usefixtures("idle")


def test_json_says_what_made_it(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("speed", *SMALL[1:], "--dtype", "float64", "--budget", "0.5", "--inputs", "7", "--classes", "3")
    assert compare.main([*arguments, "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["fdnet"] == re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]  # type: ignore[index]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", output["date"])
    asked = {"data": "random", "inputs": 7, "classes": 3, "budget": 0.5, "baseline": None, "allow_missing": False}
    assert {name: output["settings"][name] for name in asked} == asked
    assert output["speed"][0]["sizes"] == {"inputs": 7, "hidden": 3, "outputs": 3, "batch": 6}
    assert output["timing_s"] > 0


LADDER = ("speed", *SMALL[1:], "--dtype", "float64", "--strategy", "collocated,closed form", "--budget", "2")


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timed") / "before.json"
    assert compare.main([*LADDER, "--json", str(path), "--quiet"]) == 0
    return path


@pytest.fixture
def baseline(timed: Path, tmp_path: Path) -> Path:
    """Return a copy of a result, which a test may change."""
    return Path(shutil.copy(timed, tmp_path))


@pytest.mark.slow
def test_a_result_is_no_slower_than_itself(baseline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([*LADDER, "--baseline", str(baseline), "--fail-if-slower", "50"]) == 0
    printed = capsys.readouterr().out
    assert "Since the baseline, as ratios to numpy closed form of the same run and dtype:" in printed
    assert re.search(r"^numpy float64 collocated +\S+ +\S+ +\S+ \(\S+ to \S+\)$", printed, re.MULTILINE)


@pytest.mark.slow
def test_what_has_become_slower_fails(baseline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier = json.loads(baseline.read_text())
    for row in earlier["ratios_to_reference"]:
        if row["strategy"] == "collocated":
            row["ratio"] = [value / 1000 for value in row["ratio"]]
    baseline.write_text(json.dumps(earlier))
    assert compare.main([*LADDER, "--baseline", str(baseline), "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert [change["strategy"] for change in output["baseline"]] == ["collocated"]
    assert output["baseline"][0]["reference"]["strategy"] == "closed form"
    arguments = [*LADDER, "--baseline", str(baseline), "--fail-if-slower", "2", "--quiet"]
    assert compare.main(arguments) == commands.DISAGREES
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"compare\.py: numpy float64 collocated takes .* times as long as in the baseline .*, for sure more than 2\.\n",
        error,
    )


@pytest.mark.parametrize(
    ("change", "arguments", "sentence"),
    [
        (
            {},
            ("--batch", "7"),
            r"`--baseline` must be of this machine and these settings, got .*: batch 6 there, 7 here\.",
        ),
        ({"cpus": 77}, (), r": cpus 77 there, \d+ here\."),
        ({"processor": "8086"}, (), r": processor 8086 there, .* here\."),
        ({}, ("--seed", "1", "--hidden", "4"), r": hidden 3 there, 4 here; seed 0 there, 1 here\."),
        ({}, ("--sweep", "hidden"), r"`--baseline` must be left out with --sweep, got "),
        ({}, ("--self-check",), r"`--baseline` must be left out with --self-check, got "),
    ],
)
def test_a_baseline_of_something_else_is_refused(
    change: dict[str, object],
    arguments: tuple[str, ...],
    sentence: str,
    baseline: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    earlier = json.loads(baseline.read_text())
    earlier["environment"] |= change
    baseline.write_text(json.dumps(earlier))
    assert compare.main([*LADDER, "--baseline", str(baseline), *arguments]) == commands.BAD_INPUT
    error = capsys.readouterr().err
    assert re.search(sentence, error), error
    assert error.count("\n") == 1


@pytest.mark.parametrize("ratios", [5, [5], [{}], [[]], None, "rows", [{"ratio": [1, 2, 3]}]])
def test_a_baseline_without_its_ratios_is_refused_before_the_timing(
    ratios: object, baseline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("comparison.commands.benchmark.prepare", None)
    baseline.write_text(json.dumps(json.loads(baseline.read_text()) | {"ratios_to_reference": ratios}))
    assert compare.main([*LADDER, "--baseline", str(baseline)]) == commands.BAD_INPUT
    expected = f"compare.py: `--baseline` must be what speed --json wrote, got {str(baseline)!r}.\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("ratio", [[0.0, 1.0, 2.0], [1.0, 2.0], [1.0, 2.0, "3"], {}])
def test_a_ratio_that_is_none_is_refused(ratio: object, baseline: Path) -> None:
    earlier = json.loads(baseline.read_text())
    earlier["ratios_to_reference"][0]["ratio"] = ratio
    baseline.write_text(json.dumps(earlier))
    assert compare.main([*LADDER, "--baseline", str(baseline)]) == commands.BAD_INPUT


def test_a_baseline_of_other_contenders_is_refused_before_the_timing(
    baseline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("comparison.commands.benchmark.prepare", None)
    arguments = [*LADDER, "--strategy", "collocated", "--baseline", str(baseline)]
    assert compare.main(arguments) == commands.BAD_INPUT
    sentence = "must have two of the contenders, one of them the same reference, got none in "
    assert capsys.readouterr().err == f"compare.py: `--baseline` {sentence}{str(baseline)!r}.\n"


@pytest.mark.slow
def test_a_timing_that_has_lost_the_contenders_of_the_baseline_is_kept(
    baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("comparison.timing.baseline.changes_since", lambda *_: [])
    path = tmp_path / "now.json"
    arguments = [*LADDER, "--baseline", str(baseline), "--json", str(path)]
    assert compare.main(arguments) == commands.BAD_INPUT
    assert len(json.loads(path.read_text())["speed"]) == 2
    output = capsys.readouterr()
    assert "numpy float64" in output.out
    assert output.err.startswith("compare.py: `--baseline` must have two of the contenders, ")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"speed": []}'])
def test_a_baseline_that_is_none_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert compare.main([*LADDER, "--baseline", str(path)]) == commands.BAD_INPUT
    assert re.search(r"`--baseline` must be what speed --json wrote, got ", capsys.readouterr().err)
