"""The shell steps of action.yml, run as they stand with bash -e, as GitHub does."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import ports

pytestmark = pytest.mark.slow

ROOT = Path(ports.__file__).parents[1]
ACTION = (ROOT / "action.yml").read_text(encoding="utf-8")
FLAWED = """
from ports.numpy_port import *
import ports.numpy_port as right


def loss(params, x, t):
    return right.loss(params, x, t) + right.loss(params, x, t)
"""


def step(name: str) -> str:
    """Return the shell code of a step."""
    lines = re.search(rf"name: {name}\n.*?run: \|\n((?:        [^\n]*\n)+)", ACTION, re.DOTALL)
    assert lines is not None
    return textwrap.dedent(lines[1])


def run(code: str, folder: Path, port: str) -> subprocess.CompletedProcess[str]:
    python = folder / "python"
    if not python.exists():
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
    (folder / "env").touch()
    github = {name: str(folder / name) for name in ("env", "output", "summary")}
    ambient = dict(line.partition("=")[::2] for line in (folder / "env").read_text().splitlines())
    environment = {
        **os.environ,
        **ambient,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GITHUB_ACTIONS": "true",
        "GITHUB_ENV": github["env"],
        "GITHUB_OUTPUT": github["output"],
        "GITHUB_STEP_SUMMARY": github["summary"],
        "RUNNER_TEMP": str(folder),
        "FDNET_PORT": port,
        "FDNET_BACKENDS": "numpy",
        "FDNET_NETS": "2",
    }
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("source", "code"), [("from ports.numpy_port import *\n", 0), (FLAWED, 1)], ids=["right", "wrong"]
)
def test_the_steps_run_as_they_stand(tmp_path: Path, source: str, code: int) -> None:
    (tmp_path / "mine.py").write_text(source)
    agree = run(step("fdnet agree"), tmp_path, "mine.py")
    assert agree.returncode == 0, agree.stderr  # the verdict is the last step's, so that both are run
    assert (tmp_path / "env").read_text() == f"FDNET_AGREE_CODE={code}\n"
    short = step("fdnet conform").replace("--examples", "-k test_forward --examples")  # all of it takes half a minute
    conform = run(short, tmp_path, "mine.py")
    assert conform.returncode == code, conform.stdout + conform.stderr
    table, sentence, _ = (tmp_path / "summary").read_text().partition("mine.py: ")
    assert "mine" in table
    assert sentence
    junit = (tmp_path / "output").read_text().removeprefix("junit=").strip()
    assert Path(junit).read_text().startswith("<?xml")
    assert ("::error file=mine.py" in conform.stderr) == bool(code)


def test_the_install_step_installs_the_action_itself() -> None:
    code = step("Install fdnet")
    assert "fdnet[conform] @ file://$FDNET_SOURCE" in code
    assert "FDNET_SOURCE: ${{ github.action_path }}" in ACTION


def test_the_inputs_and_the_output_are_those_of_the_readme() -> None:
    inputs = ACTION.partition("\ninputs:\n")[2].partition("\noutputs:\n")[0]
    assert re.findall(r"^  ([\w-]+):$", inputs, re.MULTILINE) == ["port", "examples", "backends", "python-version"]
    assert "junit:" in ACTION
