"""The worked examples of a port: they agree, pass what every port must, and stay short."""

from pathlib import Path

import pytest

import compare
from conform_command import ROOT, conform
from test_source import roots

EXAMPLES = {"array_api_port": "array_api_strict", "numba_port": "numba"}
SMALL = ("agree", "--data", "random", "--batch", "6", "--hidden", "3", "--backend", "numpy")
SAMPLE = ("test_agreement.py::test_forward", "test_agreement.py::test_gradient", "test_bad_input.py")


def example(name: str) -> Path:
    pytest.importorskip(EXAMPLES[name])
    return ROOT / f"tests/examples/{name}.py"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_agrees(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In float32 and by one strategy, since `conform` has all of both."""
    options = ("--dtype", "float32", "--strategy", "batched")
    assert compare.main([*SMALL, *options, "--port", str(example(name))]) == 0
    assert f"{name} float32" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_passes_what_every_port_must(name: str, tmp_path: Path) -> None:
    """A sample of it: .ci/run has all."""
    run = conform(tmp_path, str(example(name)), *SAMPLE, "--examples", "3")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_needs_nothing_but_its_framework(name: str) -> None:
    path = ROOT / f"tests/examples/{name}.py"
    assert len(path.read_text().splitlines()) < 220
    assert roots(path) == {EXAMPLES[name], "numpy", "reference"}
