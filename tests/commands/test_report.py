"""compare.py report, as a user calls it."""

import json
import re
import shlex
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

import compare
from comparison import commands
from comparison.commands import report_parts
from comparison.commands.options import ProblemOptions, Selection
from comparison.report import agreement_figures, figures, timing_figures
from comparison.report.training_figure import Curves, training_figure
from reports import NET, reported

pytestmark = pytest.mark.slow

RUN_COMMAND = "comparison.commands.report_parts.run_command"


def test_it_writes_the_pages_and_all_that_they_show(folder: Path) -> None:
    pages = {"report.html", "report.md", "report.json", "begun.json"}
    assert {path.name for path in folder.iterdir()} == pages | {f"{part}.json" for part in commands.report.PARTS}
    whole = json.loads((folder / "report.json").read_text())
    assert whole["command"] == "report"
    assert {"agree", "speed", "hidden", "batch", "train", "errors_by_step", "gradient_pictures"} <= set(whole)


def test_the_page_shows_every_figure_after_the_advice(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == [
        "The ladder",
        "Agreement",
        "The error by the step",
        "The gradient itself",
        "Training",
        "Time against the number of hidden units",
        "Time against the size of the batch",
        "Break-even",
        "Made with",
    ]
    assert text.count("<svg") == 8
    advice = re.search(r"For 64-3-10 and batches of 6 in float64|No winner is named", text)  # the machine may be busy
    assert advice is not None
    assert advice.start() < text.index("<h2>The ladder")
    assert text.index("quantities agree with the float64 reference") < advice.start()
    assert text.count("quantities agree with the float64 reference") == 1
    assert not re.search(r"<(script|link|img)[^>]*https?:|@import|url\(https?:", text)


def test_the_files_of_the_commands_are_taken_as_they_are(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = json.loads((folder / "speed.json").read_text())
    speed["advice"]["sentence"] = "Take whatever you like."
    speed["not_run"] = [{"backend": "jax", "reason": "jax is not installed."}]
    (tmp_path / "speed.json").write_text(json.dumps(speed))
    given = {part: folder / f"{part}.json" for part in commands.report.PARTS} | {"speed": tmp_path / "speed.json"}
    monkeypatch.setattr(RUN_COMMAND, None)  # nothing is run
    files = [f"--{part}-file={path}" for part, path in given.items()]
    assert compare.main(["report", *NET, "--out", str(tmp_path / "out"), *files]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out" / f"report.{end}") for end in ("html", "md", "json")
    ]
    for page in ("report.html", "report.md"):
        text = (tmp_path / "out" / page).read_text()
        assert "Take whatever you like." in text
        assert "jax was not run: jax is not installed." in text


def test_what_an_earlier_report_left_is_not_taken_for_new(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "agree.json").write_text((folder / "agree.json").read_text())
    files = [f"--{part}-file={folder / part}.json" for part in ("speed", "hidden", "batch", "train")]
    assert compare.main(["report", *NET, "--port", "no_such_port.py", "--out", str(tmp_path), *files]) == 2
    assert not (tmp_path / "agree.json").exists()
    assert not (tmp_path / "report.html").exists()


def test_an_interrupted_report_keeps_its_parts_and_is_resumed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []

    def interrupted(command: list[str]) -> subprocess.CompletedProcess[str]:
        started.append(command[2])
        if command[2] == "speed":
            raise KeyboardInterrupt
        Path(command[-1]).write_text((folder / "agree.json").read_text())
        return subprocess.CompletedProcess(command, commands.DISAGREES)

    arguments = ["report", *NET, "--out", str(tmp_path), "--quiet"]
    monkeypatch.setattr("sys.orig_argv", ["python", "compare.py", "report", "--out", "here"])
    monkeypatch.setattr(RUN_COMMAND, interrupted)
    assert compare.main(arguments) == commands.INTERRUPTED
    output = capsys.readouterr()
    assert output.err == (
        "compare.py: interrupted; kept: agree; to go on: python compare.py report --out here --resume\n"
    )
    assert started == ["agree", "speed"]
    assert compare.main([*arguments, "--resume"]) == commands.INTERRUPTED
    assert started == ["agree", "speed", "speed"]

    assert compare.main([*arguments, "--resume", "--seed", "7"]) == commands.BAD_INPUT
    assert capsys.readouterr().err.endswith("`--seed` must be 0 to resume this report, got 7.\n")

    def finished(command: list[str]) -> subprocess.CompletedProcess[str]:
        part = command[command.index("--sweep") + 1] if "--sweep" in command else command[2]
        Path(command[-1]).write_text((folder / f"{part}.json").read_text())
        started.append(part)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(RUN_COMMAND, finished)
    assert compare.main([*arguments, "--resume"]) == commands.DISAGREES  # as agreement had ended
    assert started[3:] == ["speed", "hidden", "batch", "train"]
    assert (tmp_path / "report.html").exists()
    monkeypatch.setattr(RUN_COMMAND, None)  # nothing is left to run
    assert compare.main([*arguments, "--resume"]) == commands.DISAGREES


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": {}}', '{"settings": {}, "codes": 0}'])
def test_what_no_report_has_left_is_not_resumed(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "begun.json").write_text(text)
    assert compare.main(["report", *NET, "--out", str(tmp_path), "--resume"]) == commands.BAD_INPUT
    expected = f"{tmp_path / 'begun.json'} must be what an interrupted report has left, got {text!r}."
    assert capsys.readouterr().err == f"compare.py: {expected}\n"
    assert (tmp_path / "begun.json").read_text() == text


def test_an_interrupt_of_the_command_itself_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RUN_COMMAND, lambda command: subprocess.CompletedProcess(command, 130))
    assert compare.main(["report", *NET, "--out", str(tmp_path)]) == commands.INTERRUPTED
    assert "interrupted; kept: nothing yet; to go on: " in capsys.readouterr().err


TIDYING_UP = """
import pathlib, signal, sys, time

def tidy_up(*_):
    time.sleep(0.5)
    pathlib.Path(sys.argv[1]).unlink()
    sys.exit()

signal.signal(signal.SIGTERM, tidy_up)
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed there")
def test_an_interrupted_command_tidies_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "begun"
    wait = subprocess.Popen.communicate

    def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
        monkeypatch.setattr(subprocess.Popen, "communicate", wait)
        while not path.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report_parts.run_command([sys.executable, "-c", TIDYING_UP, str(path)])
    assert not path.exists()


@pytest.mark.parametrize("name", ["report.html", "report.json", "begun.json", "train.json"])
def test_a_file_that_cannot_be_written_is_refused_before_any_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr(RUN_COMMAND, None)
    assert compare.main(["report", *NET, "--out", str(tmp_path)]) == commands.BAD_INPUT
    assert capsys.readouterr().err == f"compare.py: Is a directory: '{tmp_path / name}'.\n"


def test_the_command_on_the_page_makes_the_same_report(folder: Path, tmp_path: Path) -> None:
    assert reported(folder, tmp_path) == 0
    text = (tmp_path / "report.md").read_text()
    assert re.search(r"^- Date: \d{4}-\d\d-\d\d \d\d:\d\d \w+$", text, re.MULTILINE)
    assert re.search(r"^- Versions: fdnet .*, python .*, numpy ", text, re.MULTILINE)
    command = re.search(r"^- Command: (.*)$", text, re.MULTILINE)
    assert command is not None
    words = shlex.split(command[1])
    (tmp_path / "report.md").unlink()
    assert words[0] == "compare.py"
    assert compare.main(words[1:]) == 0
    again = re.search(r"^- Command: (.*)$", (tmp_path / "report.md").read_text(), re.MULTILINE)
    assert again is not None
    assert again[1] == command[1]
    settings = json.loads((tmp_path / "report.json").read_text())["settings"]
    assert (settings["seed"], settings["iterations"], settings["budget"]) == (0, 5, 0.1)


@pytest.mark.parametrize("part", commands.report.PARTS)
def test_a_part_is_run_with_the_options_of_the_report(part: str) -> None:
    changed = ("--h", "0.01", "--seed", "4", "--memory", "3MiB", "--port", "a.py", "--port", "b.py", "--device", "cpu")
    given = compare._parse(["report", *NET, *changed, "--threads", "2", "--out", "folder"])
    options = given.make_options(given)
    arguments = compare._parse(report_parts._arguments(part, options, "there.json"))
    own = arguments.make_options(arguments)
    shared = {field.name for kind in (Selection, ProblemOptions) for field in fields(kind)} - {"quiet"}
    assert {name: getattr(own, name) for name in shared} == {name: getattr(options, name) for name in shared}
    assert own.quiet
    if part in ("speed", "hidden", "batch"):
        assert (own.budget, own.threads) == (0.1, 2)
    if part == "train":
        assert own.iterations == 5


def test_the_letters_of_figures_are_eleven_pixels_high_on_a_phone(folder: Path) -> None:
    """A phone of 390 pixels shows a figure 358 wide."""
    speed, agree, train = (json.loads((folder / f"{part}.json").read_text()) for part in ("speed", "agree", "train"))
    rows = speed["speed"]
    images = {"numpy": np.ones((2, 8, 8)), "jax": np.ones((2, 8, 8))}
    curves = {("numpy", "float64"): Curves(np.array(train[0]["losses"]), np.ones((2, 3)))}
    with figures.style():
        training = training_figure(curves, 5, stacked=True)
    errors = [{"strategy": "loop", "dtype": "float64", "steps": [1e-4, 1e-2], "errors": [1e-1, 1e-3]}]
    drawn = [
        figures.single_figure(timing_figures.draw_ladder, rows),
        figures.single_figure(timing_figures.draw_break_even, rows),
        figures.single_figure(timing_figures.draw_sizes, rows, "hidden", []),
        figures.single_figure(agreement_figures.draw_agreement, agree["agreement"]),
        figures.single_figure(agreement_figures.draw_step_errors, errors),
        agreement_figures.gradient_pictures([0, 1], images),
        training,
    ]
    for figure in drawn:
        figures.svg(figure)
        texts = [text for text in figure.findobj(Text) if text.get_text()]
        assert texts
        assert min(text.get_fontsize() for text in texts) * 358 / (72 * figure.get_figwidth()) >= 11


def test_the_folder_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        compare.main(["report", *NET])
    assert stop.value.code == commands.BAD_INPUT
    assert "required: --out." in capsys.readouterr().err
