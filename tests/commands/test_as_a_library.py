"""compare.main called by other code: from a script, -c, stdin, a thread; and signals as they were inherited."""

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import compare
from command_lines import ROOT, outside_github
from comparison import commands

TRAIN = ["train", "--data", "random", "--batch", "50", "--hidden", "3", "--iterations", "3"]
ADVISE = ["advise", "--data", "random", "--batch", "6", "--hidden", "3", "--backend", "numpy", "--budget", "0.1"]
ADVISE += ["--strategy", "collocated", "--dtype", "float64"]
SPEED = [*ADVISE, "--what", "run", "--iterations", "20"]
SCRIPT = "import compare, sys\nprint('begins')\nprint('code', compare.main({argv}), len(sys.argv))\n"
ENVIRONMENT = outside_github(PYTHONPATH=str(ROOT))


def python(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, env=ENVIRONMENT, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("argv", [[*ADVISE, "--threads", "1"], SPEED], ids=["threads", "run"])
@pytest.mark.parametrize("way", ["-c", "stdin", "script", "exec"])
def test_main_does_what_its_arguments_say_however_python_was_started(argv: list[str], way: str, tmp_path: Path) -> None:
    code = SCRIPT.format(argv=argv)
    script = tmp_path / "script.py"
    script.write_text(code)
    if way == "stdin":
        done = python("-", "train", text=code)
    elif way == "exec":
        done = python("-c", f"exec(open({str(script)!r}).read())", "train")
    else:
        done = python("-c", code, "train") if way == "-c" else python(str(script), "train")
    assert done.returncode == 0, done.stderr
    first, *table, last = done.stdout.splitlines()
    assert (first, last) == ("begins", "code 0 2")  # and the caller goes on
    assert any("quantities agree" in line for line in table)


@pytest.mark.slow
@pytest.mark.parametrize("way", [["compare.py"], ["-m", "fdnet"], ["-X", "dev", "compare.py"]])
def test_the_command_line_with_threads(way: list[str]) -> None:
    command = [sys.executable, *way, *ADVISE, "--threads", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    assert "quantities agree" in done.stdout


def test_train_outside_the_main_thread(capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(compare.main(TRAIN)))
    thread.start()
    thread.join()
    assert codes == [commands.AGREES]
    assert "3 iterations" in capsys.readouterr().out


def test_main_leaves_the_environment_and_the_filters_of_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("JAX_", "XLA_", "TF_"))]:
        monkeypatch.delenv(name)
    environment, filters = dict(os.environ), list(warnings.filters)
    assert compare.main([*ADVISE, "--quiet"]) == commands.AGREES
    assert dict(os.environ) == environment
    assert warnings.filters == filters


@pytest.mark.parametrize("argv", [["agree", *ADVISE[1:9], *ADVISE[11:]], ADVISE], ids=["agree", "advise"])
def test_errors_of_numpy_that_are_raised_for_the_caller_or_a_port(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = tmp_path / "raising.py"
    port.write_text("from ports.numpy_port import *\nimport numpy\nnumpy.seterr(all='raise')\n")
    with np.errstate(all="raise"):
        assert compare.main(argv) == commands.AGREES
        assert set(np.geterr().values()) == {"raise"}
    before = np.geterr()
    assert compare.main([*argv, "--port", str(port)]) == commands.AGREES
    assert np.geterr() == before
    assert "crashed" not in capsys.readouterr().out


def test_an_inherited_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    port = tmp_path / "interrupting.py"
    port.write_text(
        "import os, signal\nfrom ports.numpy_port import *\nimport ports.numpy_port as right\n\n\n"
        "def train_steps(*args, **options):\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return right.train_steps(*args, **options)\n"
    )
    command = [sys.executable, str(ROOT / "compare.py"), *TRAIN, "--backend", "numpy", "--port", str(port), "--quiet"]
    ignoring = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", *command]
    done = subprocess.run(ignoring, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert "finishing the step" in done.stderr
