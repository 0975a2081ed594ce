"""compare.py without a command, as a user calls it."""

from pathlib import Path

import pytest

import compare
from command_lines import WRONG
from comparison import commands
from comparison.timing.load import Load
from speed_commands import SHORT, result

pytestmark = pytest.mark.usefixtures("idle")


def test_without_a_command_it_agrees_then_times_then_advises(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([*SHORT]) == 0
    output = capsys.readouterr()
    agreed, timed, advised = (output.out.index(text) for text in ("quantities agree", "a training step", "For ever"))
    assert agreed < timed < advised
    assert output.err == ""
    output = result(capsys, *SHORT)
    assert output["command"] == "advise"
    assert output["agrees"] is True
    assert len(output["speed"]) == 1


def test_without_a_command_it_times_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    output = result(capsys, *SHORT, "--strategy", "structured")
    assert [row["strategy"] for row in output["speed"]] == ["structured"]


def test_without_a_command_a_wrong_port_fails_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "their_port.py"
    path.write_text(WRONG)
    assert compare.main([*SHORT, "--port", str(path)]) == commands.DISAGREES
    assert "DISAGREES" in capsys.readouterr().out


@pytest.mark.slow
def test_a_busy_machine_names_no_winner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Load, "is_busy", True)
    output = result(capsys, *SHORT)
    assert output["advice"]["winner"] is None
    assert output["advice"]["break_even"] == output["advice"]["tie"] == []
    assert output["no_winner"].startswith("No winner is named: the machine was busy (")
    assert output["sentences"] == [output["no_winner"]]
    assert compare.main([*SHORT]) == 0
    printed = capsys.readouterr().out
    assert printed.count("No winner is named") == 1
    assert "take" not in printed.partition("No winner")[2]
    assert compare.main(["speed", *SHORT, "--sweep", "hidden", "--sizes", "2,5"]) == 0
    printed = capsys.readouterr().out
    assert "No winner is named" in printed
    assert "Fastest" not in printed
