"""`compare.py speed --baseline`: what has become slower since an earlier result of this machine."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison.commands.options import settings
from comparison.commands.output import environment, make_console, print_sentences, processor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comparison.agreement.comparison import Subject
    from comparison.commands.options import SpeedOptions
    from comparison.timing.baseline import Change
    from comparison.timing.ranking import Ranking

SETTINGS = ("data", "inputs", "classes", "batch", "hidden", "h", "seed", "memory", "what", "threads", "devices")
"""Those that must be the same; others choose contenders, and how long they are timed."""
NOTHING_IN_COMMON = "must have two of the contenders, one of them the same reference, got none"


def read_baseline(path: str, options: SpeedOptions) -> list[dict[str, Any]]:
    """Read the ratios of an earlier result.

    Raises
    ------
    ValueError
        If it is none, or one of another machine or of other settings.
    """
    try:
        earlier = json.loads(Path(path).read_text(encoding="utf-8"))
        rows, then, machine = earlier["ratios_to_reference"], earlier["settings"], earlier["environment"]
        then["what"], machine["processor"]
        written = isinstance(rows, list) and all(map(_is_ratio, rows))
    except (ValueError, KeyError, TypeError, RecursionError):
        written = False
    if not written:
        raise ValueError(f"`baseline` must be what speed --json wrote, got {path!r}.")
    names = (*SETTINGS, "iterations") if options.what == "run" else SETTINGS
    now = json.loads(json.dumps(settings(options)))
    here = {**environment(), "processor": processor()}
    differing = [f"{name} {then.get(name)} there, {now[name]} here" for name in names if then.get(name) != now[name]]
    for name in ("processor", "cpus"):
        if machine.get(name) != here[name]:
            differing.append(f"{name} {machine.get(name)} there, {here[name]} here")
    if differing:
        raise ValueError(f"`baseline` must be of this machine and these settings, got {path}: {'; '.join(differing)}.")
    return list(rows)


def _is_ratio(row: Any) -> bool:
    """Whether this is a row of `comparison.timing.baseline.ratios_to_reference`."""
    ratio = row["ratio"]
    numbers = len(ratio) == 3 and all(isinstance(value, int | float) and 0 < value < math.inf for value in ratio)
    return numbers and all(isinstance(name, str) for name in (*_key(row), *_key(row["reference"])))


def _key(row: Any) -> tuple[str, ...]:
    from comparison.timing.ranking import KEY

    return tuple(row[name] for name in KEY)


def check_baseline(baseline: Sequence[dict[str, Any]], options: SpeedOptions, subjects: Sequence[Subject]) -> None:
    """Raise ValueError, before any work, where no two contenders that are to be timed are in the baseline."""
    pairs = [(_key(row), _key(row["reference"])) for row in baseline]
    timed = {key for key, _ in pairs if key[1] == "peer" and options.peer}  # of the libraries, those that can finish
    timed |= {(s.name, strategy, s.dtype, s.device) for s in subjects for strategy in options.strategy}
    if not any(key != reference and {key, reference} <= timed for key, reference in pairs):
        raise ValueError(f"`baseline` {NOTHING_IN_COMMON} in {options.baseline!r}.")


def compare_with(baseline: Sequence[dict[str, Any]], ranking: Ranking) -> list[Change]:
    """Compare the ranking with the ratios of an earlier one; none are left where a contender was not timed."""
    from comparison.timing.baseline import changes_since, ratios_to_reference

    return changes_since(baseline, ratios_to_reference(ranking))


def print_changes(changes: Sequence[Change]) -> None:
    """Print how the contenders' ratios to the reference contender have changed."""
    from comparison.report.timing_tables import change_table

    console = make_console()
    names = dict.fromkeys(f"{change.reference[0]} {change.reference[1]}" for change in changes)
    print_sentences(console, "", f"Since the baseline, as ratios to {' and '.join(names)} of the same run and dtype:")
    console.print(change_table(changes))
