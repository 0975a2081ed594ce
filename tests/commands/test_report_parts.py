"""What `report` makes of its parts: of those that it runs, whatever they say, and of those that are given."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

import compare
from command_lines import WRONG
from comparison import commands
from reference.datasets import load
from reports import NET, reported

pytestmark = pytest.mark.slow


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


FAILING = """
from ports.numpy_port import *
import ports.numpy_port as right


def fails(*args, **options):
    gradient = right.GRADIENTS["collocated"](*args, **options)
    {fails}


GRADIENTS = {{**right.GRADIENTS, "collocated": fails}}
"""


@pytest.mark.parametrize(
    ("fails", "code"),
    [
        ("raise RuntimeError('no gradient')", commands.CRASHED),
        ("return gradient._replace(W1=gradient.W1 * float('nan'))", commands.DISAGREES),
        ("return gradient._replace(W1=gradient.W1[:, :1])", commands.DISAGREES),
    ],
)
def test_a_port_without_a_right_gradient_has_no_picture(fails: str, code: int, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "their_port.py"
    path.write_text(FAILING.format(fails=fails))
    assert reported(folder, tmp_path / "out", "--port", str(path)) == code
    pictures = json.loads((tmp_path / "out/report.json").read_text())["gradient_pictures"]
    assert set(pictures) == {"units", "numpy"}


def test_the_picture_is_of_the_step_of_the_report(folder: Path, tmp_path: Path) -> None:
    def pictures(part: Path) -> object:
        return json.loads((part / "report.json").read_text())["gradient_pictures"]

    files = []
    for path in (folder / f"{part}.json" for part in commands.report.PARTS):
        text = path.read_text().replace('"h": 0.0001', '"h": 0.5')
        (tmp_path / path.name).write_text(text)
        files.append(f"--{path.stem}-file={tmp_path / path.name}")
    assert compare.main(["report", *NET, "--h", "0.5", "--out", str(tmp_path / "out"), "--quiet", *files]) == 0
    assert pictures(tmp_path / "out") != pictures(folder)


def test_no_run_that_comes_to_its_end_is_still_a_report(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "diverging.py"
    path.write_text(
        "from ports.numpy_port import *\nimport ports.numpy_port as right\n\n\n"
        "def train_steps(*args, **options):\n    params, losses = right.train_steps(*args, **options)\n"
        "    return params, losses * float('nan')\n"
    )
    files = [f"--{part}-file={folder / part}.json" for part in ("speed", "hidden", "batch", "agree")]
    arguments = [word for word in NET if word not in ("--backend", "numpy")]
    out = ["--backend", str(path), "--out", str(tmp_path / "out"), "--quiet", *files]
    assert compare.main(["report", *arguments, *out]) == commands.DISAGREES
    assert "No run came to its end" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(("key", "code"), [("agreement", commands.DISAGREES), ("crashed", commands.CRASHED)])
def test_what_is_wrong_in_a_file_that_is_given_is_the_exit_code(
    key: str, code: int, folder: Path, tmp_path: Path
) -> None:
    agree = json.loads((folder / "agree.json").read_text())
    if key == "agreement":
        agree["agreement"][0]["agrees"] = agree["agrees"] = False
    else:
        agree["crashed"] = [{"backend": "numpy", "dtype": "float64", "strategy": "loop", "reason": "an error"}]
    (tmp_path / "agree.json").write_text(json.dumps(agree))
    assert reported(folder, tmp_path / "out", "--agree-file", str(tmp_path / "agree.json")) == code


def test_nothing_timed_is_still_a_report(folder: Path, tmp_path: Path) -> None:
    speed = json.loads((folder / "speed.json").read_text())
    (tmp_path / "speed.json").write_text(json.dumps(speed | {"speed": [], "advice": None}))
    given = {part: folder / f"{part}.json" for part in commands.report.PARTS} | {"speed": tmp_path / "speed.json"}
    files = [f"--{part}-file={path}" for part, path in given.items()]
    assert compare.main(["report", *NET, "--out", str(tmp_path), "--quiet", *files]) == 0
    assert "<h2>The ladder</h2>" in (tmp_path / "report.html").read_text()


def test_bytes_that_are_not_utf_8_take_no_page(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a name nor in what a port prints."""
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"\xff.py")
    Path(name).write_text("import os\nfrom ports.numpy_port import *\n\nos.write(2, b'\\xff')\n")
    assert reported(folder, tmp_path / "out", "--port", name) == 0
    for page in ("report.html", "report.md"):
        assert "\\udcff" in (tmp_path / "out" / page).read_text()


def test_three_hundred_samples_are_enough(folder: Path, tmp_path: Path) -> None:
    data = load("digits")
    rows = [f"{t},{','.join(str(round(16 * v)) for v in x)}\n" for x, t in zip(data.x_train, data.t_train, strict=True)]
    (tmp_path / "train.csv").write_text("".join(rows[:300]))
    small = ("--data", str(tmp_path), "--batch", "100", "--hidden", "3", "--backend", "numpy", "--dtype", "float64")
    timing = ("--budget", "0.1", "--iterations", "5", "--quiet")
    given = []  # these would take the time
    for part in ("speed", "hidden"):
        result = json.loads((folder / f"{part}.json").read_text())
        result["settings"] |= {"data": str(tmp_path), "batch": 100}
        (tmp_path / f"{part}.json").write_text(json.dumps(result))
        given.append(f"--{part}-file={tmp_path / part}.json")
    assert compare.main(["report", *small, *timing, *given, "--out", str(tmp_path / "out")]) == 0
    assert "left out" in (tmp_path / "out/batch.json").read_text()


def test_six_samples_are_enough(folder: Path, tmp_path: Path) -> None:
    """All of them take the place of the sizes by default, none of which is left."""
    x, t = load("digits").x_train[:6], np.arange(6) % 3
    np.savez(tmp_path / "small.npz", x_train=x, y_train=t, x_test=x, y_test=t)
    small = ("--data", str(tmp_path / "small.npz"), "--batch", "2", "--hidden", "3", "--backend", "numpy")
    path = tmp_path / "batch.json"
    timing = ("--dtype", "float64", "--budget", "0.1", "--quiet", "--json", str(path))
    assert compare.main(["speed", *small, *timing, "--sweep", "batch"]) == 0
    assert json.loads(path.read_text())["sweep"]["sizes"] == [6]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--agree-file", "{speed}"), r"`--agree-file` must be what agree wrote, got '.*speed.json'\."),
        (
            ("--hidden-file", "{batch}"),
            r"`--hidden-file` must be what speed --sweep hidden wrote, got .*\.",
        ),
        (("--speed-file", "{batch}"), r"`--speed-file` must be what speed --strategy all wrote, got .*\."),
        (
            ("--speed-file", "{speed}", "--hidden", "4"),
            r"`--speed-file` must be of --hidden 4, like the report, got 3 in '.*speed.json'\.",
        ),
        (
            ("--batch-file", "{batch}", "--batch", "5", "--seed", "3"),
            r"`--batch-file` must be of --seed 3, like the report, got 0 in '.*batch.json'\.",
        ),
        (("--threads", "1000000"), r"`--threads` must be from 1 to \d+, the cores of this process, got 1000000\."),
        (("--iterations", "9999999999"), r"`--iterations` must be at most 1,000,000,000, got 9999999999\."),
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
