"""A Python process of its own, for what shows only where nothing has been called yet."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import comparison

ROOT = Path(comparison.__file__).parents[1]


def run_in_process(source: str, *arguments: str) -> Any:
    """Run source code that ends by printing JSON, and return what it prints there; fail with its errors."""
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, "-P", "-c", source, *arguments]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # a port may print
