"""compare.py speed --sweep, as a user calls it."""

import re

import pytest

import compare
from speed_commands import SHORT, result

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("idle")]


def test_the_sweep_repeats_it_over_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    for over, size in (("hidden", "hidden"), ("batch", "batch"), ("inputs", "inputs")):
        output = result(capsys, "speed", *SHORT, "--what", "gradient", "--sweep", over, "--sizes", "2,5")
        assert [row["sizes"][size] for row in output["speed"]] == [2, 5]
        about = {"over": over, "sizes": [2, 5], "left_out": [], "labels": None, "crossovers": [], "no_winner": None}
        assert output["sweep"] == about | {"fastest": output["sweep"]["fastest"]}
        assert [row["size"] for row in output["sweep"]["fastest"]] == [2, 5]
    assert compare.main(["speed", *SHORT, "--what", "gradient", "--sweep", "hidden", "--sizes", "2,5"]) == 0
    assert "No contender overtakes another beyond doubt" in capsys.readouterr().out


def test_a_sweep_over_classes_redraws_the_labels_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("speed", *SHORT, "--what", "step", "--strategy", "all", "--sweep", "outputs", "--sizes", "2,62,5000")
    output = result(capsys, *arguments)
    assert [row["sizes"]["outputs"] for row in output["speed"] if row["strategy"] == "closed form"] == [2, 62]
    assert output["sweep"]["labels"].startswith("drawn at random")
    assert "outputs 5000: left out, since the data have 1,000 samples." in output["sweep"]["left_out"]
    compare.main([*arguments[:-1], "2,62"])
    printed = capsys.readouterr().out
    assert "The labels are drawn at random, so the times mean something and the losses do not." in printed
    assert re.search(r"^Fastest in float64 by outputs: at 2", printed, re.MULTILINE)


def test_the_self_check_covers_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("speed", *SHORT, "--self-check", "--sweep", "hidden", "--sizes", "2,5", "--budget", "2")
    output = result(capsys, *arguments)["self_check"]
    assert 0 <= output["crossing_sweeps"] <= output["sweeps"] >= 1
    assert compare.main([*arguments]) == 0
    assert re.search(r"In \d+ of \d+ sweeps over the sizes one overtakes itself\.", capsys.readouterr().out)
