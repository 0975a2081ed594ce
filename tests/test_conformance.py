"""What every port must pass runs on a port from outside: the worked example, and ports that are wrong or not there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import compare
from test_source import roots

ROOT = Path(compare.__file__).parent
EXAMPLE = ROOT / "tests/examples/array_api_port.py"
SMALL = ("agree", "--data", "random", "--batch", "6", "--hidden", "3", "--backend", "numpy")
SAMPLE = (
    "conformance/test_agreement.py::test_forward",
    "conformance/test_agreement.py::test_gradient",
    "conformance/test_agreement.py::test_training_is_steps_of_descent",
    "conformance/test_ports.py::test_each_device_can_be_used",
)
ONE = ("conformance/test_ports.py::test_synchronize_returns_its_argument",)
NOT_OF_PORTS = "conformance/test_agreement.py::test_one_wrong_entry_is_enough"


def conforms(folder: Path, tests: tuple[str, ...], *ports: str) -> subprocess.CompletedProcess[str]:
    """Run `pytest --port` in a folder outside of the project, as the author of a port does."""
    command = [sys.executable, "-m", "pytest", "-q", "-rsf", "-p", "no:cacheprovider"]
    command += [*(str(ROOT / "tests" / test) for test in tests), *(word for port in ports for word in ("--port", port))]
    env = {key: value for key, value in os.environ.items() if key not in ("FDNET_REQUIRE", "PYTEST_ADDOPTS")}
    env |= {"HYPOTHESIS_PROFILE": "ci", "PYTHONPATH": ""}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


# --- the worked example


def test_the_example_agrees(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("array_api_strict")
    assert compare.main([*SMALL, "--port", str(EXAMPLE)]) == 0
    assert "array_api_port float32" in capsys.readouterr().out


def test_the_example_agrees_on_a_device_whose_arrays_cannot_be_mixed_with_the_hosts() -> None:
    pytest.importorskip("array_api_strict")
    assert compare.main([*SMALL, "--port", str(EXAMPLE), "--device", "device1", "--quiet"]) == 0


def test_the_example_passes_what_every_port_must(tmp_path: Path) -> None:
    """A sample of it: .ci/run has all."""
    pytest.importorskip("array_api_strict")
    run = conforms(tmp_path, SAMPLE, str(EXAMPLE))
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^18 passed in", run.stdout, re.MULTILINE), run.stdout


def test_the_example_is_short_and_needs_nothing_but_the_standard() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 150
    assert roots(EXAMPLE) == {"array_api_strict", "numpy", "reference"}


# --- other ports

WRONG = """
from ports.numpy_port import *
import ports.numpy_port as right

def collocated(params, x, t, *, h=1e-4, memory=1):
    return right.gradient(params, x, t)

GRADIENTS = {**right.GRADIENTS, "collocated": collocated}
"""


def test_a_wrong_port_fails_and_nothing_else_is_run(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    run = conforms(tmp_path, ("conformance/test_agreement.py::test_gradient", NOT_OF_PORTS), "wrong.py")
    assert run.returncode == 1
    failed = set(re.findall(r"^FAILED \S+::(\w+)\[(\w+)-float64-collocated\]", run.stdout, re.MULTILINE))
    assert ("test_gradient", "wrong") in failed
    assert run.stdout.count("\nFAILED") == len(re.findall(r"\nFAILED .*\[wrong-", run.stdout))
    assert "1 deselected" in run.stdout


def test_two_ports_may_be_named(tmp_path: Path) -> None:
    assert "2 passed in" in conforms(tmp_path, ONE, "numpy", "ports.numpy_port").stdout


def test_a_port_whose_framework_is_absent_is_skipped_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "absent.py").write_text("import a_framework_that_nobody_has\n")
    run = conforms(tmp_path, ONE, "absent.py")
    assert run.returncode == 0
    assert "absent.py not run: a_framework_that_nobody_has is not installed." in run.stdout
    assert "1 skipped" in run.stdout


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "from ports.numpy_port import predict\n",
            "`fdnet_port_broken.accuracy` must be a function (params, x, t), got",
        ),
        ("def predict(:\n", "The port 'broken.py' must be importable, got SyntaxError at broken.py:1: "),
        (
            "from ports.numpy_port import *\ndef loss(params, x): pass\n",
            "`fdnet_port_broken.loss` must take (params, x, t), got (params, x).",
        ),
    ],
)
def test_a_broken_port_is_one_sentence(source: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(source)
    run = conforms(tmp_path, ONE, "broken.py")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: --port: {sentence}" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


# --- what the author of a port sees

WARNING = """
from ports.numpy_port import *
import ports.numpy_port as right
{imports}


def loss(params, x, t):
    {warns}
    return right.loss(params, x, t)
"""


@pytest.mark.parametrize(
    ("imports", "warns", "code"),
    [
        ("import framework", "framework.old()", 0),
        ("import framework", "framework.overflows()", 1),
        ("import warnings", "warnings.warn('mine', DeprecationWarning)", 1),
        ("import warnings", "warnings.warn('mine', UserWarning)", 1),
    ],
)
def test_warnings_of_a_framework_are_no_faults_of_a_port(imports: str, warns: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "framework.py").write_text(
        "import warnings\n\n\ndef old():\n    warnings.warn('old', DeprecationWarning)\n\n\n"
        "def overflows():\n    warnings.warn('overflow', RuntimeWarning)\n"
    )
    (tmp_path / "warning.py").write_text(WARNING.format(imports=imports, warns=warns))
    run = conforms(tmp_path, ("conformance/test_agreement.py::test_forward",), "warning.py")
    assert run.returncode == code, run.stdout[-2000:]
