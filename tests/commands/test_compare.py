"""The command line of compare.py: its help, its version, its commands, and bad input in one sentence."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import compare
from command_lines import ROOT, SMALL, run_python
from comparison import commands

pytestmark = pytest.mark.usefixtures("outside_github")

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
    "--data=": "argument --data: must not be empty, got ''",
    "--data MNIST": "`--data` must be digits, .*, got 'MNIST'",
    "--data {empty}": "must hold train-images-idx3-ubyte or .*, got neither",
    "--data {broken}": "broken.py must be a CSV file that begins with a label or the name label, got .def predict",
    "--batch 0": "`--batch` must be from 1 to 1000, the number of samples, got 0",
    "--batch -1": "`--batch` must be from 1 to 1000, the number of samples, got -1",
    "--batch 1001": "`--batch` must be from 1 to 1000, .*got 1001",
    "--batch many": "argument --batch: invalid int value: 'many'",
    "--batch 1e2": "argument --batch: invalid int value: '1e2'",
    "--batch": "argument --batch: expected one argument",
    "--hidden 0": "`--hidden` must be a whole number, at least 1, got 0",
    "--hidden -3": "`--hidden` must be a whole number, at least 1, got -3",
    f"--hidden {'9' * 400}": "`--hidden` must be at most 536,870,912, got 9999.*",
    f"--memory 1{'0' * 400}": "must be a size such as 64MiB, got '1000.*'",
    "--hidden 2.5": "argument --hidden: invalid int value: '2.5'",
    "--hidden 1000000000000": "`--hidden` must be at most 536,870,912, got 1000000000000",
    "--h 0": "`--h` must be from 1e-20 to 1, got 0.0",
    "--h=-1e-4": "`--h` must be from 1e-20 to 1, got -0.0001",
    "--step 1.5": "`--step` must be from 1e-20 to 1, got 1.5",
    "--step inf": "`--step` must be from 1e-20 to 1, got inf",
    "--step nan": "`--step` must be from 1e-20 to 1, got nan",
    "--h 1e-17": "`--h` must be above .*got 1e-17",
    "--step small": "argument --h/--step: invalid float value: 'small'",
    "--seed -1": "`--seed` must not be negative, got -1",
    "--seed -1 --data digits": "`--seed` must not be negative, got -1",
    "--seed 0.5": "argument --seed: invalid int value: '0.5'",
    "--memory lots": "must be a size such as 64MiB, got 'lots'",
    "--memory 0": "must be a size such as 64MiB, got '0'",
    "--chunk-memory -1MiB": "argument --memory/--chunk-memory: expected one argument",
    "--memory=-1MiB": "must be a size such as 64MiB, got '-1MiB'",
    "--chunk-memory nan": "must be a size such as 64MiB, got 'nan'",
    "--memory 64MB": "must be a size such as 64MiB, got '64MB'",
    "--port no_such_port.py": "A port's file must exist, got 'no_such_port.py'",
    "--port ports.nothing": "A backend must be one of .*got 'ports.nothing'",
    "--port=": "argument --port: must not be empty, got ''",
    "--port .rel": "A backend must be one of .*got '.rel'",
    "--port os.path": "path.accuracy` must be a function",
    "--port {empty}": "A backend must be one of .*got '/",
    "--port {broken}": "The port '.*broken.py' must be importable, got SyntaxError at broken.py:1: ",
    "--port {lacking}": "lacking.accuracy` must be a function .params, x, t., got None",
    "--port {other}": "other.GRADIENTS..loop..` must take .params, x, t, .* entries=None., got .params, x, t.",
    "--json /no/such/folder/agree.json": "No such file or directory: '/no/such/folder.*'",
    "--json {empty}": "Is a directory: |Directory not empty: ",
    "--inputs 0": "`--inputs` must be a whole number from 1 to .*, got 0",
    "--classes 1": "`--classes` must be a whole number from 2 to 10000, got 1",
    "--data digits --inputs 9": "`--inputs` must be left out with every data set but random, got 9",
    "--threads 0": r"`--threads` must be from 1 to \d+, the cores of this process, got 0",
    "--no-such-option": "unrecognized arguments: --no-such-option; see compare.py agree --help",
    "--quiet=yes": "argument --quiet: ignored explicit argument 'yes'",
    "extra": "unrecognized arguments: extra; see compare.py agree --help",
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


def test_help_imports_no_package() -> None:
    code = "import sys, compare\ntry: compare.main(['--help'])\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert not any(f"'{name}'" in loaded for name in ("numpy", "jax", "torch", "rich", "matplotlib"))


def test_python_may_leave_out_docstrings() -> None:
    done = run_python("-OO", str(ROOT / "compare.py"), "--help")
    assert done.returncode == 0, done.stderr
    assert "Compare every backend" in done.stdout


def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    """One that a new option would make ambiguous would break whoever uses it."""
    with pytest.raises(SystemExit):
        compare.main(["train", "--overw"])
    assert "unrecognized arguments: --overw" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        compare.main(["--version"])
    assert stop.value.code == 0
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert capsys.readouterr().out == f"fdnet {version[1]}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no file is executable there")
def test_it_is_executable() -> None:
    done = subprocess.run([ROOT / "compare.py", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("fdnet ")


@pytest.mark.parametrize("command", compare.NAMES)
def test_help_has_defaults_and_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main([command, "--help"])
    text = capsys.readouterr().out
    assert "None" not in text
    assert "SUPPRESS" not in text
    assert max(map(len, text.splitlines())) <= 80
    if command not in ("report", "conform"):
        examples = re.findall(r"^  compare\.py(.*)$", text, re.MULTILINE)
        assert examples
        for example in examples:
            arguments = compare._parse(example.split() or ["advise"])
            assert arguments.make_options(arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--hidden 5 agree", "the command must come first: compare.py agree --hidden 5."),
        ("--dtype float32 train --data x", "the command must come first: compare.py train --dtype float32 --data x."),
        ("agre", "there is no command 'agre'; did you mean agree? The commands are advise, agree, "),
        ("sped --budget 3", "there is no command 'sped'; did you mean speed? The commands are advise, agree, "),
        ("quux", "there is no command 'quux'. The commands are advise, agree, "),
    ],
)
def test_a_command_in_the_wrong_place_or_spelling(
    arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        compare.main(arguments.split())
    assert stop.value.code == commands.BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith(f"compare.py: {sentence}")
    assert error.count("\n") == 1
