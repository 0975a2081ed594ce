"""`compare.py conform` as the author of a port runs it."""

import os
import subprocess
import sys
from pathlib import Path

import compare

ROOT = Path(compare.__file__).parent


def conform(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `compare.py conform` in a folder outside of the project, as the author of a port does."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "FDNET_"))}
    command = [sys.executable, str(ROOT / "compare.py"), "conform", *arguments]
    return subprocess.run(command, cwd=folder, env=env | environment, capture_output=True, text=True)
