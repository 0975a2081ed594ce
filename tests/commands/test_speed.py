"""compare.py speed, as a user calls it."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import compare
from command_lines import CRASHING, WRONG, run
from comparison import commands
from comparison.commands import speed
from comparison.timing import contenders, ranking
from speed_commands import SHORT, result
from timings import timing

FIT = contenders._fit
pytestmark = pytest.mark.usefixtures("idle")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["gradient", "step", "run"])
def test_json_has_what_was_timed(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = result(capsys, "speed", *SHORT, "--what", what, "--iterations", "3", "--budget", "9")
    (row,) = output["speed"]
    assert output["command"] == "speed"
    wanted = {"backend": "numpy", "strategy": "collocated", "dtype": "float64", "device": "cpu", "what": what}
    assert {key: row[key] for key in wanted} == wanted
    assert row["interval_s"][0] <= row["median_s"] <= row["interval_s"][1]
    assert row["rounds"] >= 1
    assert (row["ratio_to_best"], row["ratio_interval"]) == (1, [1, 1])
    assert row["estimated"] is None
    assert row["sizes"] == {"inputs": 64, "hidden": 3, "outputs": 10, "batch": 6}
    assert (row["first_call_s"] is None) == (what == "run")
    assert output["excluded"] == output["not_run"] == []
    assert output["advice"]["winner"]["backend"] == "numpy"
    assert [row["steps"] for row in output["advice"]["break_even"]] == (
        [] if what == "run" else [1, 3, 100, 10**4, 10**6]
    )


def test_the_ladder_has_every_rung(capsys: pytest.CaptureFixture[str]) -> None:
    output = result(capsys, "speed", *SHORT, "--what", "gradient", "--strategy", "all")
    rungs = ["closed form", "collocated", "structured", "batched", "loop"]
    assert [row["strategy"] for row in output["speed"]] == rungs
    assert output["left_out"] == []
    assert all(row["ratio_to_closed_form"] > 0 for row in output["speed"])
    assert [row["ranked"] for row in output["speed"]] == [False, True, True, True, True]
    assert all(row["first_call_s"] > 0 for row in output["speed"])


@pytest.mark.parametrize(("source", "code"), [(WRONG, commands.DISAGREES), (CRASHING, commands.CRASHED)])
def test_what_does_not_agree_is_excluded(
    source: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "their_port.py"
    path.write_text(source)
    arguments = ("speed", *SHORT, "--strategy", "structured,collocated", "--what", "gradient", "--port", str(path))
    output = result(capsys, *arguments, code=code)
    timed = {(row["backend"], row["strategy"]) for row in output["speed"]}
    excluded = {(row["backend"], row["strategy"]) for row in output["excluded"]}
    assert ("their_port", "structured") in excluded
    assert not timed & excluded
    if code == commands.DISAGREES:
        (row,) = output["excluded"]
        assert row["quantity"] == "b2"
        assert row["gap"] > row["bound"] > 0
        assert ("their_port", "collocated") in timed  # that one is right
    else:
        assert all("crashed: TypeError at their_port.py:6: no such loss" in row["reason"] for row in output["excluded"])
        assert {backend for backend, _ in timed} == {"numpy"}


def test_a_wrong_loss_excludes_all_of_a_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "their_port.py"
    path.write_text(
        "from ports.numpy_port import *\nimport ports.numpy_port as right\n\n\n"
        "def loss(params, x, t):\n    return 2 * right.loss(params, x, t)\n"
    )
    arguments = ("speed", *SHORT, "--strategy", "structured,closed form", "--what", "gradient", "--port", str(path))
    output = result(capsys, *arguments, code=commands.DISAGREES)
    assert [(row["strategy"], row["quantity"]) for row in output["excluded"]] == [
        ("structured", "loss"),
        ("closed form", "loss"),
    ]
    assert {row["backend"] for row in output["speed"]} == {"numpy"}


@pytest.mark.parametrize(("low", "code"), [(1.9, 0), (2.1, commands.DISAGREES)])
def test_slow_is_what_the_whole_interval_says(low: float, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    slow = timing("numpy", 3.0, (3.0, low, 5.0))
    ranking: Any = SimpleNamespace(timings=[timing("jax", 1.0, (1, 1, 1)), slow], no_winner=None, left_out=[])
    assert speed._check_slower(ranking, None, 2.0) == code
    assert capsys.readouterr().err.count("numpy collocated") == (code > 0)


def test_the_table_says_who_is_excluded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "their_port.py"
    path.write_text(WRONG)
    assert (
        compare.main(["speed", *SHORT, "--what", "gradient", "--strategy", "structured", "--port", str(path)])
        == commands.DISAGREES
    )
    output = capsys.readouterr().out
    assert re.search(r"excluded: their_port float64 structured: b2\[\d\] .*times the bound", output)
    assert "numpy structured is all there was to time." in output


def test_a_crash_in_the_first_call_excludes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "their_port.py"
    path.write_text(CRASHING.replace("def loss(params, x, t)", "def train_steps(params, x, t, batches, **_)"))
    # `train_steps` must be one, so that the module is a port at all
    path.write_text(path.read_text().replace("**_", "*, strategy, learning_rate, h=1e-4, memory=0"))
    output = result(capsys, "speed", *SHORT, "--port", str(path), code=commands.CRASHED)
    assert [row["reason"] for row in output["excluded"]] == ["crashed: TypeError at their_port.py:6: no such loss"]


@pytest.mark.slow
def test_slow_is_a_failure_only_with_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = """
from ports.numpy_port import *
import ports.numpy_port as right

def collocated(*args, **options):
    for _ in range(20):
        gradient = right.GRADIENTS["collocated"](*args, **options)
    return gradient

GRADIENTS = {**right.GRADIENTS, "collocated": collocated}
"""
    path = tmp_path / "slow_port.py"
    path.write_text(slow)
    arguments = ["speed", *SHORT, "--what", "gradient", "--port", str(path)]
    assert compare.main(arguments) == 0
    assert capsys.readouterr().err == ""
    arguments += ["--budget", "4"]
    assert compare.main([*arguments, "--fail-if-slower", "5"]) == commands.DISAGREES
    assert re.search(r"slow_port collocated float64 takes .* for sure more than 5\.", capsys.readouterr().err)
    assert compare.main([*arguments, "--fail-if-slower", "50000"]) == 0


@pytest.mark.parametrize(("no_winner", "left_out"), [("It was busy.", []), (None, ["one takes long."])])
def test_what_cannot_be_judged_does_not_pass(
    no_winner: str | None, left_out: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither on a busy machine nor where a contender may have been left out because it has become slow."""
    rows = [{"backend": "jax", "strategy": "collocated", "reason": reason} for reason in left_out]
    ranking: Any = SimpleNamespace(timings=[timing("jax", 1.0, (1, 1, 1))], no_winner=no_winner, left_out=rows)
    assert speed._check_slower(ranking, None, 2.0) == commands.BAD_INPUT
    reason = no_winner or "left out: jax: one takes long."
    assert capsys.readouterr().err == f"compare.py: --fail-if-slower can't be judged. {reason}\n"
    assert speed._check_slower(ranking, None, None) == commands.AGREES


@pytest.mark.slow
def test_the_self_check_prints_its_rate(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["speed", *SHORT, "--what", "gradient", "--self-check"]
    assert compare.main(arguments) == 0
    assert re.search(r"against itself, \d+ verdicts: .*% \(.*nominal 5%\)", capsys.readouterr().out)
    output = result(capsys, *arguments)["self_check"]
    assert 0 <= output["winners"] <= output["told_apart"] <= output["verdicts"]


def test_a_self_check_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "their_port.py"
    path.write_text("from ports.numpy_port import *\n\n\ndef gradient(params, x, t):\n    raise TypeError('none')\n")
    options = (*SHORT[:-4], "--what", "gradient", "--strategy", "closed form", "--self-check", "--dtype", "float64")
    arguments = [name if name != "numpy" else str(path) for name in options]
    assert compare.main(["speed", *arguments]) == commands.BAD_INPUT
    assert re.search(r"^compare.py: Nothing to time: .* crashed: TypeError at .*: none\n$", capsys.readouterr().err)


@pytest.mark.slow
def test_threads_are_set_before_a_library_counts_them() -> None:
    done = run("speed", *SHORT, "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    assert output["speed"][0]["cores_used"] < 1.2
    assert output["load"]["cores"] == 1
    assert re.search(r"\b1 core\)", output["advice"]["sentence"])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no process to cores")
def test_threads_pin_the_process_before_a_port_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "their_port.py"
    path.write_text("import os\n\nfrom ports.numpy_port import *\n\nassert len(os.sched_getaffinity(0)) == 1\n")
    done = run("speed", *SHORT, "--threads", "1", "--port", str(path), "--quiet")
    assert done.returncode == 0, done.stderr


def test_peers_stand_beside_and_are_not_ranked(capsys: pytest.CaptureFixture[str]) -> None:
    output = result(capsys, "speed", *SHORT, "--peer", "--hidden", "1")
    assert output["speed"][0]["what"] == "gradient"
    others = [row for row in output["speed"] if row["strategy"] == "peer"]
    assert len(others) + len(output["left_out"]) == 4
    assert not any(row["ranked"] for row in others)


@pytest.mark.slow
def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["speed"]):
        assert compare.main([*command, *SHORT, "--quiet"]) == 0
        assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--budget", "0"), r"`--budget` must be positive and finite, got 0.0\."),
        (("--budget", "nan"), r"`--budget` must be positive and finite, got nan\."),
        (("--budget", "inf"), r"`--budget` must be positive and finite, got inf\."),
        (("--iterations", "0"), r"`--iterations` must be at least 1, got 0\."),
        (("--fail-if-slower", "1"), r"`--fail-if-slower` must be above 1 and finite, got 1.0\."),
        (("--fail-if-slower", "nan"), r"`--fail-if-slower` must be above 1 and finite, got nan\."),
        (("--fail-if-slower", "inf"), r"`--fail-if-slower` must be above 1 and finite, got inf\."),
        (("--fail-if-slower", "2", "--sweep", "hidden"), r"`--fail-if-slower` must be left out with --sweep, got 2.0"),
        (("--peer", "--self-check"), r"`--peer` must be left out with --self-check, got True\."),
        (("--sizes", "1,2"), r"`--sizes` must come with --sweep, got 1,2\."),
        (("--baseline", ""), r"argument --baseline: must not be empty, got ''\."),
        (("--threads", "0"), r"`--threads` must be from 1 to \d+, the cores of this process, got 0\."),
        (("--threads", "100000"), r"`--threads` must be from 1 to \d+, the cores of this process, got 100000\."),
        (("--peer", "--what", "run"), r"`--what` must be gradient with --peer, got run\."),
        (("--devices", "2", "--what", "run"), r"`--what` must be gradient or step with --devices, got run\."),
        (("--what", "everything"), r"argument --what: invalid choice: 'everything'"),
        (("--sweep", "depth"), r"argument --sweep: invalid choice: 'depth'"),
        (("--sizes", "3,2"), r"must be whole numbers from small to large, got '3,2'\."),
        (("--sizes", "0,2"), r"must be whole numbers from small to large, got '0,2'\."),
        (("--sizes", "few"), r"must be whole numbers from small to large, got 'few'\."),
        (("--sweep", "batch", "--sizes", "5000"), r"`--batch` must be from 1 to 1000, .*got 5000\."),
        (("--strategy", "fast"), r"must be one of closed form, collocated, .*got 'fast'\."),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = compare.main(["speed", *SHORT, *arguments])
    except SystemExit as stop:
        code = stop.code
    output = capsys.readouterr()
    assert code == commands.BAD_INPUT
    assert re.search(sentence, output.err), output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_the_agreement_is_timed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    prepare = ranking.prepare
    monkeypatch.setattr(ranking, "prepare", lambda *a, **o: outcomes.append(o["outcome"]) or prepare(*a, **o))
    result(capsys, "speed", *SHORT)
    assert [outcome.seconds > 0 for outcome in outcomes] == [True]


@pytest.mark.slow
def test_a_long_command_is_cut_to_its_budget_and_says_what_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 62 classes: is a contender timed whole, at a sample, or not at all?"""
    monkeypatch.setattr("comparison.timing.contenders._fit", FIT)
    sizes = ("--data", "random", "--inputs", "60", "--classes", "62", "--hidden", "20", "--batch", "30")
    output = result(
        capsys, "speed", *sizes, "--backend", "numpy", "--strategy", "all", "--dtype", "float64", "--budget", "0.5"
    )
    asked = {"closed form", "collocated", "structured", "batched", "loop"}
    rows = output["speed"]
    assert {row["strategy"] for row in rows} | {row["strategy"] for row in output["left_out"]} == asked
    assert {row["strategy"] for row in rows if row["estimated"]} <= {"loop", "batched"}
    assert "loop" not in {row["strategy"] for row in rows if not row["estimated"]}
    assert all(row["first_call_s"] is None for row in rows if row["estimated"])
    assert all(row["sizes"]["outputs"] == 62 for row in rows)
    assert all(re.match(r".*more than its share of --budget, .* m?s\.$", row["reason"]) for row in output["left_out"])
    assert "loop" not in {row["strategy"] for row in output["advice"]["break_even"]}
