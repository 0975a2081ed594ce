"""Measure the figures of README.md and docs/ again, by the commands that stand beside them.

    python docs/measure.py                      # all of them: about 15 minutes on two idle cores
    python docs/measure.py --only speed ranks   # these, and whatever is computed from the last results of the others
    python docs/measure.py --only gpu           # needs a GPU: skipped unless it is named
    python docs/measure.py --only               # nothing is run: tables and pictures are made from the last results

What is measured stands between `<!-- figures: NAME -->` and `<!-- end -->`. Each line there that begins with `$` is run
in a terminal of 112 columns (in README.md of 100), and what it prints is put below it, or only its lines in the ranges
after NAME, such as `2-5,12-15`. Where docs/tables.py has a function NAME, its table is put there instead. Commands of
compare.py leave their JSON in docs/measured, from which tables and pictures are made: in NAME.json, and of the second
command of a block in NAME-2.json. Between `<!-- seconds: COMMAND -->` and `<!-- end -->` stands how long a command
takes; the name of all of these is `seconds`.

MNIST is taken from the folder that FDNET_MNIST names, or downloaded.
"""

import argparse
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import time
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pictures
import tables

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "docs/measured"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
COLUMNS = {"README.md": 100}
"""The width of a page's terminal, where it is not WIDE."""
WIDE = 112
FIGURES = re.compile(r"(<!-- figures: (\S+)(?: (\d[\d,-]*))? -->\n)(.*?)(<!-- end -->)", re.DOTALL)
SECONDS = re.compile(r"(<!-- seconds: (.+?) -->)(.*?)(<!-- end -->)")
STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NEEDS_GPU = {"gpu"}
_used: set[str] = set()
"""The results that a table or a picture has been made from; the others are not kept."""
DROPPED = ("environment", "settings")
"""What JSON says of the machine and of the options, which stand beside the figures."""


def main() -> None:
    """Run the commands of the chosen blocks, one after another, and put all figures in place."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="NAME", nargs="*", help="blocks whose commands are run (default: all)")
    only = parser.parse_args().only
    known = {name for page in PAGES for _, name, *_ in FIGURES.findall(page.read_text())} | {"seconds"}
    if unknown := set(only or ()) - known:
        parser.error(f"`--only` must name some of {', '.join(sorted(known))}, got {', '.join(sorted(unknown))}")
    names = known - NEEDS_GPU if only is None else set(only)
    for page in PAGES:
        columns = COLUMNS.get(page.name, WIDE)
        text = FIGURES.sub(partial(_run_block, names=names, columns=columns), page.read_text())
        if "seconds" in names:
            text = SECONDS.sub(lambda span: f"{span[1]}{_seconds(span[2])} s{span[4]}", text)
        page.write_text(text)
    for page in PAGES:  # a table may be computed from what stands on a later page
        page.write_text(FIGURES.sub(_fill_table, page.read_text()))
    pictures.draw_all(_read)
    for result in MEASURED.glob("*.json"):
        if result.stem not in _used:
            result.unlink()


def _run_block(block: re.Match[str], *, names: set[str], columns: int) -> str:
    """Run the commands of a block, and return it with what they print."""
    head, name, ranges, body, end = block.groups()
    commands = [line[2:] for line in body.splitlines() if line.startswith("$ ")]
    if name not in names or not commands:
        return block[0]
    shown = ""
    for n, command in enumerate(commands, start=1):
        print(f"{name}: {command}", flush=True)
        output = excerpt(_run(command, name if n == 1 else f"{name}-{n}", columns), ranges)
        shown += f"$ {command}\n" + ("" if hasattr(tables, name.replace("-", "_")) else output)
    return f"{head}```console\n{shown}```\n{end}"


def excerpt(output: str, ranges: str | None) -> str:
    """Return the lines of an output that `ranges` name, such as "2-5,12-15", and dots in place of the others."""
    if ranges is None:
        return output
    lines, shown, end = output.splitlines(keepends=True), "", 0
    for span in ranges.split(","):
        first, _, last = span.partition("-")
        shown += ("...\n" if int(first) > end + 1 else "") + "".join(lines[int(first) - 1 : int(last or first)])
        end = int(last or first)
    return shown + ("...\n" if end < len(lines) else "")


def _run(command: str, name: str, columns: int = WIDE) -> str:
    """Run a command line in the root of the repository, in a terminal, and return what it prints."""
    folder = os.environ.get("FDNET_MNIST", "mnist")
    run = command.replace("--data mnist", f"--data {shlex.quote(folder)}")
    result = MEASURED / f"{name}.json" if " compare.py" in command and "|" not in command else None
    if result:
        run += f" --json {shlex.quote(str(result))}"
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": str(columns),
        "TERM": "xterm",
        "NO_COLOR": "1",
    }
    terminal, child_end = pty.openpty()
    process = subprocess.Popen(
        ["bash", "-c", run], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=child_end, stderr=sys.stderr
    )
    os.close(child_end)
    pieces = []
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(terminal)
    if process.wait():
        raise SystemExit(f"{command} has ended with exit code {process.returncode}.")
    if result:
        _strip(result)
    output = STYLES.sub("", b"".join(pieces).decode()).replace(folder, "mnist")
    lines = output.replace("\r", "").strip().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _strip(path: Path) -> None:
    """Keep of a result what figures are made of, with versions and date, without spaces."""
    result = json.loads(path.read_text())
    kept = {key: value for key, value in result.items() if key not in DROPPED}
    versions = {name: result["environment"][name] for name in ("python", "numpy", "torch", "jax", "cpus")}
    kept |= {"versions": versions, "date": date.today().isoformat()}
    if rows := kept.get("agreement"):
        kept["agreement"] = worst_of_each(rows)
    path.write_text(json.dumps(kept, separators=(",", ":")) + "\n")


def worst_of_each(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the largest gap / bound of each backend and dtype, None where one has no gap, and the counts."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["backend"], row["dtype"]), []).append(row)
    return [
        {
            "backend": backend,
            "dtype": dtype,
            "quantities": len(own),
            "disagreeing": sum(not row["agrees"] for row in own),
            "worst": _largest_ratio(own),
        }
        for (backend, dtype), own in groups.items()
    ]


def _largest_ratio(rows: list[dict[str, Any]]) -> float | None:
    if any(row["gap"] is None for row in rows):
        return None
    return max((row["gap"] / row["bound"] for row in rows if row["bound"]), default=0.0)


def _seconds(command: str) -> str:
    print(f"seconds: {command}", flush=True)
    start = time.perf_counter()
    _run(f"{command} > {os.devnull}", "seconds")
    (MEASURED / "seconds.json").unlink()
    return f"{time.perf_counter() - start:.0f}"


def _fill_table(block: re.Match[str]) -> str:
    """Put a computed table below the commands of its block."""
    head, name, _, body, end = block.groups()
    make = getattr(tables, name.replace("-", "_"), None)
    if make is None:
        return block[0]
    commands = "".join(f"{line}\n" for line in body.splitlines() if line.startswith("$ "))
    fenced = f"```console\n{commands}```\n\n" if commands else ""
    return f"{head}{fenced}{make(_read)}{end}"


def _read(name: str) -> Any:
    """Return the last result of the commands of a block."""
    _used.add(name)
    return json.loads((MEASURED / f"{name}.json").read_text())


if __name__ == "__main__":
    main()
