"""The tables and sentences that show timings."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from comparison.report.agreement_tables import plain_table
from comparison.timing.recommendation import Timing
from comparison.timing.rounds import ERROR, Interval, SelfCheck

LEFT = ("backend", "strategy")
DROPPABLE = ("peak", "error", "cores", "95% interval", "x closed form", "first call")
"""The columns that a narrow terminal does without, in the order in which they are dropped; JSON has all."""


def seconds(value: float | None) -> str:
    """Format a duration in the unit that fits it."""
    if value is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if value * scale >= 1:
            return f"{value * scale:,.3g} {unit}" if value * scale < 1000 else f"{value * scale:,.0f} {unit}"
    return f"{value * 1e6:.3g} us"


def number(value: float) -> str:
    """Format a ratio to three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def interval_of_ratio(ratio: Interval | None) -> str:
    """Format a ratio with its interval; 1 for the base itself."""
    if ratio is None:
        return "-"
    return "1" if ratio[:] == (1, 1, 1) else f"{number(ratio.median)} ({number(ratio.low)} to {number(ratio.high)})"


def speed_table(timings: Sequence[Timing], width: int) -> Table:
    """Build a table with a line for each contender, without those of DROPPABLE that do not fit into `width`."""
    by_dtype: dict[str, list[dict[str, str]]] = {}
    for timing in timings:
        by_dtype.setdefault(timing.contender.dtype, []).append(_speed_cells(timing))
    return fitted_table(list(by_dtype.values()), DROPPABLE, width)


def fitted_table(groups: Sequence[Sequence[dict[str, str]]], droppable: Sequence[str], width: int) -> Table:
    """Build a table of groups of rows, without empty columns and without those of `droppable` that do not fit."""
    rows = [row for group in groups for row in group]
    shown = [name for name in rows[0] if any(row[name] != "-" for row in rows)]
    for name in droppable:
        lengths = [max(len(text) for text in (key, *(row[key] for row in rows))) for key in shown]
        if sum(lengths) + 2 * len(lengths) > width and name in shown:
            shown.remove(name)
    table = plain_table(*((name, "left" if name in LEFT else "right") for name in shown))
    for group in groups:
        table.add_row()
        for row in group:
            table.add_row(*(row[name] for name in shown))
    return table


def _speed_cells(timing: Timing) -> dict[str, str]:
    c, mark = timing.contender, "~" if timing.contender.estimated else ""
    device = "" if c.device.startswith("cpu") else f" {c.device}"
    return {
        "backend": f"{c.backend} {c.dtype}{device}",
        "strategy": c.strategy,
        "first call": seconds(c.first_call_s),
        "median": mark + seconds(timing.seconds.median),
        "95% interval": f"{seconds(timing.seconds.low)} to {seconds(timing.seconds.high)}",
        "x best": interval_of_ratio(timing.ratio),
        "x closed form": number(timing.to_closed_form.median) if timing.to_closed_form else "-",
        "cores": f"{timing.cores_used:.1f}",
        "error": "-" if c.error is None else f"{c.error:.1e}",
        "peak": "-" if c.peak_bytes is None else f"{c.peak_bytes / 2**20:,.0f} MiB",
    }


def speed_notes(timings: Sequence[Timing]) -> list[str]:
    """Return the sentences that the table of timings needs to be understood."""
    samples = {c.strategy: c.estimated for c in (timing.contender for timing in timings) if c.estimated}
    notes = [f"~ {strategy} is estimated from a sample, {sample}." for strategy, sample in samples.items()]
    if any(timing.contender.first_call_s is not None for timing in timings):
        notes.append("The first call traces, compiles and runs once; the median and all else is of the calls after it.")
    return notes


def missing_notes(excluded: Iterable[dict[str, Any]], not_run: Iterable[dict[str, str]]) -> list[str]:
    """Describe everything that was not timed, in a sentence each."""
    notes = [f"excluded: {row['backend']} {row['dtype']} {row['strategy']}: {row['reason']}" for row in excluded]
    return [*notes, *(f"{row['backend']}: not run: {row['reason']}" for row in not_run)]


def break_even_table(advice: Iterable[dict[str, Any] | None]) -> Table | None:
    """Build a table of what finishes first, by the number of steps, from advice as JSON records it.

    None where no advice has any.
    """
    shown = [row for row in advice if row and row["break_even"]]
    table = plain_table(("steps", "right"), *((f"first in {row['dtype']}", "left") for row in shown))
    for rows in zip(*(row["break_even"] for row in shown), strict=True):
        cells = (f"{row['backend']} {row['strategy']}, {seconds(row['seconds'])}" for row in rows)
        table.add_row(f"{rows[0]['steps']:,}", *cells)
    return table if shown else None


def self_check_sentence(result: SelfCheck) -> str:
    """Describe the result of an A/A test, with Wilson's interval."""
    from scipy.stats import binomtest

    share, named = result.told_apart / result.verdicts, result.winners / result.verdicts
    low, high = binomtest(result.told_apart, result.verdicts).proportion_ci(method="wilson")
    return (
        f"Each contender against itself, {result.verdicts} verdicts: {result.told_apart} told apart, {share:.1%} "
        f"({low:.1%} to {high:.1%}; nominal {ERROR:.0%}); {result.winners} named as a winner, {named:.1%}."
    )


def sweep_table(sizes: Sequence[int], timings: Sequence[Sequence[Timing]]) -> Table:
    """Build a table of the medians, a column for each size."""
    table = plain_table(("backend", "left"), ("strategy", "left"), *((f"{size:,}", "right") for size in sizes))
    medians = [{timing.contender[:4]: timing.seconds.median for timing in column} for column in timings]
    for key in dict.fromkeys(key for column in medians for key in column):
        table.add_row(f"{key[0]} {key[2]}", key[1], *(seconds(column.get(key)) for column in medians))
    return table


def crossover_sentence(row: dict[str, Any], over: str) -> str:
    """Say where one contender becomes faster than another."""
    below, above = (f"{row[key]['backend']} {row[key]['strategy']}" for key in ("faster_below", "faster_above"))
    return f"In {row['faster_above']['dtype']}, {above} overtakes {below} at about {over} = {row['size']:.0f}."
