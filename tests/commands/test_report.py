"""compare.py report, as a user calls it."""

import json
import os
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
from command_lines import SMALL, WRONG
from comparison import commands
from comparison.commands import report_parts
from comparison.commands.options import ProblemOptions, Selection
from comparison.report import agreement_figures, figures, timing_figures
from comparison.report.training_figure import Curves, training_figure
from reference.datasets import load

pytestmark = pytest.mark.slow

RUN_COMMAND = "comparison.commands.report_parts.run_command"
NET = (*SMALL[1:], "--dtype", "float64", "--budget", "0.1", "--iterations", "5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a report on a small net."""
    out = tmp_path_factory.mktemp("report")
    sweeps = []
    for over in ("hidden", "batch"):
        path = out / f"{over}.json"
        timing = ("--budget", "0.1", "--dtype", "float64", "--quiet", "--json", str(path))
        assert compare.main(["speed", *SMALL[1:], *timing, "--sweep", over, "--sizes", "2,5"]) == 0
        sweeps.append(f"--{over}-file={path}")
    assert compare.main(["report", *NET, "--out", str(out), "--quiet", *sweeps]) == 0
    return out


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


def test_a_wrong_port_is_shown_and_fails_it(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "their_port.py"
    path.write_text(WRONG)
    files = [f"--{part}-file={folder / part}.json" for part in ("hidden", "batch", "train")]
    out = tmp_path / "out"
    code = compare.main(["report", *NET, "--port", str(path), "--out", str(out), "--quiet", *files])
    assert code == commands.DISAGREES
    text = (out / "report.html").read_text()
    assert "DISAGREES" in text
    assert "their_port float64 structured was excluded" in text


def test_bytes_that_are_not_utf_8_take_no_page(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a name nor in what a port prints."""
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"\xff.py")
    Path(name).write_text("import os\nfrom ports.numpy_port import *\n\nos.write(2, b'\\xff')\n")
    assert reported(folder, tmp_path / "out", "--port", name) == 0
    for page in ("report.html", "report.md"):
        assert "\\udcff" in (tmp_path / "out" / page).read_text()


def test_what_an_earlier_report_left_is_not_taken_for_new(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "agree.json").write_text((folder / "agree.json").read_text())
    files = [f"--{part}-file={folder / part}.json" for part in ("speed", "hidden", "batch", "train")]
    assert compare.main(["report", *NET, "--port", "no_such_port.py", "--out", str(tmp_path), *files]) == 2
    assert not (tmp_path / "agree.json").exists()
    assert not (tmp_path / "report.html").exists()


def reported(folder: Path, out: Path, *more: str) -> int:
    """Run a report that takes every part but agreement from the folder of another."""
    files = [f"--{part}-file={folder / part}.json" for part in commands.report.PARTS if part != "agree"]
    return compare.main(["report", *NET, "--out", str(out), "--quiet", *files, *more])


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


def test_three_hundred_samples_are_enough(folder: Path, tmp_path: Path) -> None:
    data = load("digits")
    rows = [f"{t},{','.join(str(round(16 * v)) for v in x)}\n" for x, t in zip(data.x_train, data.t_train, strict=True)]
    (tmp_path / "train.csv").write_text("".join(rows[:300]))
    small = ("--data", str(tmp_path), "--batch", "100", "--hidden", "3", "--backend", "numpy", "--dtype", "float64")
    timing = ("--budget", "0.1", "--iterations", "5", "--quiet")
    given = [f"--{part}-file={folder / part}.json" for part in ("speed", "hidden")]  # which would take the time
    assert compare.main(["report", *small, *timing, *given, "--out", str(tmp_path / "out")]) == 0
    assert "left out" in (tmp_path / "out/batch.json").read_text()


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


def test_nothing_timed_is_still_a_report(folder: Path, tmp_path: Path) -> None:
    speed = json.loads((folder / "speed.json").read_text())
    (tmp_path / "speed.json").write_text(json.dumps(speed | {"speed": [], "advice": None}))
    given = {part: folder / f"{part}.json" for part in commands.report.PARTS} | {"speed": tmp_path / "speed.json"}
    files = [f"--{part}-file={path}" for part, path in given.items()]
    assert compare.main(["report", *NET, "--out", str(tmp_path), "--quiet", *files]) == 0
    assert "<h2>The ladder</h2>" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--agree-file", "{speed}"), r"`--agree-file` must be what agree wrote, got '.*speed.json'\."),
        (
            ("--hidden-file", "{batch}"),
            r"`--hidden-file` must be what speed --sweep hidden wrote, got .*\.",
        ),
        (("--train-file", "{speed}"), r"`--train-file` must be what train wrote, got '.*speed.json'\."),
        (("--agree-file", "{half}"), r"`--agree-file` must be what agree wrote, got '.*half.json'\."),
        (("--train-file", "{html}"), r"`--train-file` must be JSON, got '.*report.html': .*\."),
        (("--agree-file", "/no/such/file"), r"No such file or directory: '/no/such/file'\."),
        (("--out", "{html}/inside"), r"Not a directory: '.*'\."),
        (("--batch", "0"), r"`--batch` must be from 1 to 1000, .*got 0\."),
        (("--budget", "0"), r"`--budget` must be positive and finite, got 0.0\."),
        (("--iterations", "0"), r"`--iterations` must be at least 1, got 0\."),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {name: folder / f"{name}.json" for name in ("speed", "batch")} | {"html": folder / "report.html"}
    paths["half"] = tmp_path / "half.json"
    paths["half"].write_text('{"agreement": []}')
    given = [text.format(**paths) for text in arguments]
    out = [] if "--out" in given else ["--out", str(tmp_path / "out")]
    assert compare.main(["report", *NET, *out, *given]) == commands.BAD_INPUT
    output = capsys.readouterr()
    assert re.search(sentence, output.err), output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_the_folder_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        compare.main(["report", *NET])
    assert stop.value.code == commands.BAD_INPUT
    assert "required: --out." in capsys.readouterr().err
