"""The parts of a report: the results of other commands, each kept in the report's folder as soon as it is there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from comparison import PROGRAM
from comparison.commands import AGREES, BAD_INPUT, CRASHED, DISAGREES, INTERRUPTED
from comparison.commands.options import ProblemOptions, Selection, settings
from comparison.commands.output import write

COMPARE = Path(__file__).parents[2] / "compare.py"
PARTS = ("agree", "speed", "hidden", "batch", "train")
"""Agreement, the ladder, the sweeps over hidden units and batches, a training."""
KEYS = {
    "agree": {"settings", "agreement", "not_compared", "not_run", "crashed"},
    "speed": {"settings", "speed", "excluded", "not_run", "advice", "advice_for_other_dtypes", "environment"},
    "train": {"backend", "dtype", "losses", "accuracies"},
}
"""The keys by which the file of a part is recognized."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Selection, ProblemOptions):
    """The options of `report`; a part whose file is given is not run."""

    out: str
    resume: bool
    budget: float
    threads: int | None
    iterations: int | None
    agree_file: str | None
    speed_file: str | None
    hidden_file: str | None
    batch_file: str | None
    train_file: str | None


_FREE = ("out", "resume", *(f"{part}_file" for part in PARTS))
"""Options that may differ where a report is resumed."""


def parts_to_run(options: ReportOptions) -> list[str]:
    """Return the parts whose files are not given."""
    return [part for part in PARTS if getattr(options, f"{part}_file") is None]


def file_of(out: Path, part: str) -> Path:
    """Return the file in which a part is kept."""
    return out / f"{part}.json"


def begun_file(out: Path) -> Path:
    """Return the file that says which parts are kept, and of which options."""
    return out / "begun.json"


def command_of(part: str) -> str:
    """Return the command whose result the part is, without the options that are the report's own."""
    return {"agree": "agree", "speed": "speed --strategy all", "train": "train"}.get(part, f"speed --sweep {part}")


def read_given(part: str, options: ReportOptions) -> Any:
    """Read the part whose file is given, and check that it is of the net, the data and the step of the report.

    A training's history does not say of which it is.
    """
    path: str = getattr(options, f"{part}_file")
    result = read_part(part, path)
    used = {} if part == "train" else result["settings"]
    for name in (field.name for field in fields(ProblemOptions) if field.name != part):
        expected, got = getattr(options, name), used.get(name, getattr(options, name))
        if got != expected:
            raise ValueError(f"`--{part}-file` must be of --{name} {expected}, like the report, got {got} in {path!r}.")
    return result


def code_of(part: str, result: Any) -> int:
    """Return the exit code that the command has ended with; a training's history does not say it."""
    if part == "train":
        return AGREES
    wrong = [row for row in result["agreement"] if not row["agrees"]] if part == "agree" else result["excluded"]
    crashed = result["crashed"] if part == "agree" else [row for row in wrong if row["quantity"] is None]
    return CRASHED if crashed else DISAGREES if wrong else AGREES


def read_part(part: str, path: str) -> Any:
    """Read what a command wrote, and check that it is that command's."""
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"`--{part}-file` must be JSON, got {path!r}: {error}.") from error
    if part == "train":
        fits = isinstance(result, list) and all(isinstance(row, dict) and set(row) >= KEYS[part] for row in result)
    else:
        fits = isinstance(result, dict) and set(result) >= KEYS.get(part, KEYS["speed"])
    if fits and part in ("speed", "hidden", "batch"):
        sweep = result.get("sweep") or {}
        fits = isinstance(sweep, dict) and sweep.get("over", "speed") == part
    if not fits:
        raise ValueError(f"`--{part}-file` must be what {command_of(part)} wrote, got {path!r}.")
    return result


def begin(options: ReportOptions, out: Path) -> dict[str, int]:
    """Return the exit codes of the parts that are kept from before; without --resume, remove what would be kept.

    Raises
    ------
    ValueError
        If the report that is to be resumed was begun with other options.
    """
    if options.resume and begun_file(out).exists():
        begun = _read_begun(begun_file(out))
        now = _settings(options)
        for name, value in begun["settings"].items():
            if now.get(name) != value:
                shown, got = json.dumps(value), json.dumps(now.get(name))
                raise ValueError(f"`--{name.replace('_', '-')}` must be {shown} to resume this report, got {got}.")
        return {part: code for part, code in begun["codes"].items() if file_of(out, part).exists()}
    for part in parts_to_run(options):
        file_of(out, part).unlink(missing_ok=True)
    _keep(options, out, {})
    return {}


def _read_begun(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    try:
        begun = json.loads(text)
    except ValueError:
        begun = None
    if not isinstance(begun, dict) or not all(isinstance(begun.get(key), dict) for key in ("settings", "codes")):
        raise ValueError(f"{path} must be what an interrupted report has left, got {text[:40]!r}.")
    return begun


def _keep(options: ReportOptions, out: Path, codes: dict[str, int]) -> None:
    write(str(begun_file(out)), json.dumps({"settings": _settings(options), "codes": codes}) + "\n")


def _settings(options: ReportOptions) -> dict[str, Any]:
    """Return the options that a report and its resumption must have in common, as JSON gives them back."""
    chosen: dict[str, Any] = json.loads(json.dumps(settings(options)))
    return {name: value for name, value in chosen.items() if name not in _FREE}


def run_part(part: str, options: ReportOptions, out: Path, codes: dict[str, int]) -> None:
    """Run a command in a process of its own, where nothing has been compiled yet; keep its result and exit code."""
    path = file_of(out, part)
    command = [sys.executable, str(COMPARE), *_arguments(part, options, str(path))]
    done = run_command(command)
    if done.returncode in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    if part == "train" and done.returncode in (DISAGREES, CRASHED) and not path.exists():
        write(str(path), "[]\n")  # no run has come to its end
    if not path.exists() or done.returncode == BAD_INPUT:
        raise ValueError(f"`{PROGRAM} {command_of(part)}` wrote nothing: {done.stderr.strip() or done.returncode}")
    codes[part] = done.returncode
    _keep(options, out, codes)


def run_command(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command and capture its stderr; if this process is interrupted, let the command clean up and end first.

    The command has a process group of its own: with Ctrl-C from the terminal it would be interrupted twice.
    """
    options: dict[str, Any] = {"stderr": subprocess.PIPE, "encoding": "utf-8", "errors": "backslashreplace"}
    with subprocess.Popen(command, process_group=0 if os.name == "posix" else None, **options) as process:
        try:
            _, stderr = process.communicate()
        except BaseException:
            process.terminate()
            process.communicate()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stderr=stderr)


def _arguments(part: str, options: ReportOptions, path: str) -> list[str]:
    """Return the command line of one part."""
    shared = [field.name for kind in (Selection, ProblemOptions) for field in fields(kind)]
    common = [*words(options, shared), "--quiet"]
    if part == "train" and not options.backend:
        import ports

        common += [f"--backend={','.join(ports.names())}", "--allow-missing"]
    if part == "agree":
        return ["agree", *common, "--json", path]
    if part == "train":
        return ["train", *common, *words(options, ["iterations"]), "--history", path]
    which = ["--strategy", "all"] if part == "speed" else ["--sweep", part]
    return ["speed", *common, *words(options, ["budget", "threads"]), *which, "--json", path]


def words(options: ReportOptions, names: Iterable[str]) -> list[str]:
    """Return options as words of a command line, without those that have no value, and without --quiet."""
    given = []
    for name in names:
        value, option = getattr(options, name), f"--{name.replace('_', '-')}"
        if name == "quiet" or value is None or value is False or value == ():
            continue
        if name == "port":
            given += [f"{option}={source}" for source in value]
        elif value is True:
            given.append(option)
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            given.append(f"{option}={text}B" if name == "memory" else f"{option}={text}")
    return given
