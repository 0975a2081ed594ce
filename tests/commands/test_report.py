"""compare.py report, as a user calls it."""

import json
import re
from pathlib import Path

import pytest

import compare
from command_lines import SMALL, WRONG
from comparison import commands

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


def test_it_writes_the_pages_the_picture_and_all_that_they_show(folder: Path) -> None:
    pages = {"report.html", "report.md", "report.json", "light.svg", "dark.svg"}
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
    assert not re.search(r"<(script|link|img)[^>]*https?:|@import|url\(https?:", text)
    assert "quantities agree with the float64 reference" in text


def test_the_files_of_the_commands_are_taken_as_they_are(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = json.loads((folder / "speed.json").read_text())
    speed["advice"]["sentence"] = "Take whatever you like."
    speed["not_run"] = [{"backend": "jax", "reason": "jax is not installed."}]
    (tmp_path / "speed.json").write_text(json.dumps(speed))
    given = {part: folder / f"{part}.json" for part in commands.report.PARTS} | {"speed": tmp_path / "speed.json"}
    monkeypatch.setattr("subprocess.run", None)  # nothing is run
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


def test_what_an_earlier_report_left_is_not_taken_for_new(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "agree.json").write_text((folder / "agree.json").read_text())
    files = [f"--{part}-file={folder / part}.json" for part in ("speed", "hidden", "batch", "train")]
    assert compare.main(["report", *NET, "--port", "no_such_port.py", "--out", str(tmp_path), *files]) == 2
    assert not (tmp_path / "agree.json").exists()
    assert not (tmp_path / "report.html").exists()


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
