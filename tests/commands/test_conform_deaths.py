"""`compare.py conform` on ports that end the process."""

import re
from pathlib import Path

import pytest

from conform_command import conform

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("ending", "code", "sentence"),
    [
        ("import atexit\natexit.register(os._exit, 0)", 1, "1 failed"),  # as where a library would hang at the end
        ("def loss(*args):\n    os._exit(0)", 3, "the process ended, with exit code 0, before the tests had."),
    ],
)
def test_a_port_that_ends_the_process_does_not_pass(ending: str, code: int, sentence: str, tmp_path: Path) -> None:
    wrong = "def loss(*args):\n    return right.loss(*args) * 1.001"
    (tmp_path / "ending.py").write_text(
        f"import os\nfrom ports.numpy_port import *\nimport ports.numpy_port as right\n\n\n{wrong}\n\n\n{ending}\n"
    )
    run = conform(tmp_path, "ending.py", "-k", "test_forward and float64", "-n", "0", "-x")
    assert (run.returncode, sentence in run.stdout.splitlines()[-1]) == (code, True), run.stdout


@pytest.mark.parametrize(
    ("workers", "sentence"),
    [
        ("0", r"fatal\.py: pytest crashed, with exit code -6\."),
        ("1", r"fatal\.py: the process crashed in test_agreement\.py::test_forward\[fatal-float\d\d\]\."),
    ],
)
def test_a_port_that_kills_the_process_is_a_crash(tmp_path: Path, workers: str, sentence: str) -> None:
    source = "from ports.numpy_port import *\ndef predict(params, x):\n    import os\n    os.abort()\n"
    (tmp_path / "fatal.py").write_text(source)
    run = conform(tmp_path, "fatal.py", "test_agreement.py::test_forward", "-n", workers)
    assert run.returncode == 3
    assert re.fullmatch(sentence, run.stdout.splitlines()[-1])
