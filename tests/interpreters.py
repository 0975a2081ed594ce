"""Python in a process of its own, from the root of the project."""

import os
import subprocess
import sys
from pathlib import Path

import ports

ROOT = Path(ports.__file__).parents[1]


def python(code: str, **environment: str) -> str:
    """Run `code` in a fresh interpreter and return what it prints."""
    run = shell("-c", code, **environment)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python from the root of the project."""
    command, env = [sys.executable, *arguments], {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
