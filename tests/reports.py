"""Reports on a small net, for the tests of `report`."""

from pathlib import Path

import compare
from command_lines import SMALL
from comparison.commands.report_parts import PARTS

NET = (*SMALL[1:], "--dtype", "float64", "--budget", "0.1", "--iterations", "5")


def reported(folder: Path, out: Path, *more: str) -> int:
    """Run a report that takes every part but agreement from the folder of another."""
    files = [f"--{part}-file={folder / part}.json" for part in PARTS if part != "agree"]
    return compare.main(["report", *NET, "--out", str(out), "--quiet", *files, *more])
