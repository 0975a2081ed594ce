"""The tables and sentences that show timings."""

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from comparison.report.agreement_tables import plain_table
from comparison.timing.recommendation import Advice, Timing, machine
from comparison.timing.rounds import ERROR, Interval, SelfCheck
from comparison.timing.scaling import Point


def seconds(value: float | None) -> str:
    """Return a duration in the unit that fits it."""
    if value is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if value * scale >= 1:
            return f"{value * scale:,.3g} {unit}" if value * scale < 1000 else f"{value * scale:,.0f} {unit}"
    return f"{value * 1e6:.3g} us"


SPARED = ("peak", "error", "cores", "95% interval", "x closed form", "first call")
"""The columns that a narrow terminal does without, the first of them first; JSON has all."""


def speed_table(timings: Sequence[Timing], width: int) -> Table:
    """Return a table with a line for each contender, and of SPARED the columns that fit into `width`."""
    cells = [_speed_cells(timing) for timing in timings]
    shown = _fitting(cells, SPARED, width)
    table = plain_table(*((name, "left" if name in ("backend", "strategy") else "right") for name in shown))
    for dtype in dict.fromkeys(timing.contender.dtype for timing in timings):
        table.add_row()
        for timing, row in zip(timings, cells, strict=True):
            if timing.contender.dtype == dtype:
                table.add_row(*(row[name] for name in shown))
    return table


def _fitting(cells: Sequence[dict[str, str]], spared: Sequence[str], width: int) -> list[str]:
    """Return the columns that say something, without those of `spared`, from its first on, that do not fit."""
    shown = [name for name in cells[0] if any(row[name] != "-" for row in cells)]
    for name in spared:
        lengths = [max(len(text) for text in (key, *(row[key] for row in cells))) for key in shown]
        if sum(lengths) + 2 * len(lengths) > width and name in shown:
            shown.remove(name)
    return shown


def _speed_cells(timing: Timing) -> dict[str, str]:
    c, mark = timing.contender, "~" if timing.contender.estimated else ""
    device = "" if c.device.startswith("cpu") else f" {c.device}"
    return {
        "backend": f"{c.backend} {c.dtype}{device}",
        "strategy": c.strategy,
        "first call": seconds(c.first_call_s),
        "median": mark + seconds(timing.seconds.median),
        "95% interval": f"{seconds(timing.seconds.low)} to {seconds(timing.seconds.high)}",
        "x best": _ratio(timing.ratio),
        "x closed form": number(timing.to_closed_form.median) if timing.to_closed_form else "-",
        "cores": f"{timing.cores_used:.1f}",
        "error": "-" if c.error is None else f"{c.error:.1e}",
        "peak": "-" if c.peak_bytes is None else f"{c.peak_bytes / 2**20:,.0f} MiB",
    }


def _ratio(ratio: Interval | None) -> str:
    if ratio is None:
        return "-"
    return "1" if ratio[:] == (1, 1, 1) else f"{number(ratio.median)} ({number(ratio.low)} to {number(ratio.high)})"


def number(value: float) -> str:
    """Return a ratio to three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def speed_notes(
    timings: Sequence[Timing], barred: Sequence[dict[str, Any]], not_run: Sequence[dict[str, str]]
) -> list[str]:
    """Return a sentence on all that the table can't show."""
    samples = {c.strategy: c.estimated for c in (timing.contender for timing in timings) if c.estimated}
    notes = [f"~ {strategy} is estimated from a sample, {sample}." for strategy, sample in samples.items()]
    if any(timing.contender.first_call_s is not None for timing in timings):
        notes.append("The first call traces, compiles and runs once; the median and all else is of the calls after it.")
    notes += [f"barred: {row['backend']} {row['dtype']} {row['strategy']}: {row['reason']}" for row in barred]
    return [*notes, *(f"{row['backend']}: not run: {row['reason']}" for row in not_run)]


def break_even_table(advice: Sequence[Advice]) -> Table:
    """Return which ends first, by the number of steps, first call included."""
    table = plain_table(("steps", "right"), *((f"first in {each.dtype}", "left") for each in advice if each.break_even))
    for rows in zip(*(each.break_even for each in advice if each.break_even), strict=True):
        first = (f"{row['backend']} {row['strategy']}, {seconds(float(str(row['seconds'])))}" for row in rows)
        table.add_row(f"{rows[0]['steps']:,}", *first)
    return table


def self_check_sentence(result: SelfCheck) -> str:
    """Return what an A/A test found."""
    share, named = result.told_apart / result.verdicts, result.winners / result.verdicts
    low, high = _binomial_interval(result.told_apart, result.verdicts)
    return (
        f"Each contender against itself, {result.verdicts} verdicts: {result.told_apart} told apart, {share:.1%} "
        f"({low:.1%} to {high:.1%}; nominal {ERROR:.0%}); {result.winners} named as a winner, {named:.1%}."
    )


def _binomial_interval(hits: int, trials: int) -> tuple[float, float]:
    """Return the 95% interval of a share (E. B. Wilson, Probable inference, J. Am. Stat. Assoc. 22, 1927)."""
    z2 = 1.96**2
    middle, width = hits + z2 / 2, math.sqrt(z2 * (hits * (trials - hits) / trials + z2 / 4))
    return (middle - width) / (trials + z2), (middle + width) / (trials + z2)


def sweep_table(sizes: Sequence[int], found: Sequence[Sequence[Timing]]) -> Table:
    """Return the medians, a column for each size."""
    table = plain_table(("backend", "left"), ("strategy", "left"), *((f"{size:,}", "right") for size in sizes))
    medians = [{timing.contender[:4]: timing.seconds.median for timing in timings} for timings in found]
    for key in dict.fromkeys(key for column in medians for key in column):
        table.add_row(f"{key[0]} {key[2]}", key[1], *(seconds(column.get(key)) for column in medians))
    return table


def crossover_sentence(row: dict[str, Any], over: str) -> str:
    """Return where one becomes faster than another."""
    below, above = (f"{row[key]['backend']} {row[key]['strategy']}" for key in ("faster_below", "faster_above"))
    return f"In {row['faster_above']['dtype']}, {above} overtakes {below} at about {over} = {row['size']:.0f}."


SCALING_SPARED = (
    *("95% interval", "messages", "weak: a step", "efficiency", "bytes", "strategy"),
    *("weak: efficiency", "in messages"),
)
"""What the table of scaling does without in a narrow terminal; the strategy only where there is but one."""


def scaling_table(courses: Sequence[Sequence[Point]], width: int) -> Table:
    """Return a table with a line for each number of devices, course by course."""
    cells = [[_scaling_cells(point) for point in course] for course in courses]
    many = len({course[0].strategy for course in courses}) > 1
    spared = [name for name in SCALING_SPARED if name != "strategy" or not many]
    shown = _fitting([row for rows in cells for row in rows], spared, width)
    table = plain_table(*((name, "left" if name in ("backend", "strategy") else "right") for name in shown))
    for rows in cells:
        table.add_row()
        for row in rows:
            table.add_row(*(row[name] for name in shown))
    return table


def _scaling_cells(point: Point) -> dict[str, str]:
    several = point.devices > point.base
    return {
        "backend": f"{point.backend} {point.dtype}",
        "strategy": point.strategy,
        "devices": str(point.devices),
        "a step": seconds(point.seconds.median),
        "95% interval": f"{seconds(point.seconds.low)} to {seconds(point.seconds.high)}",
        "speedup": _ratio(point.speedup),
        "efficiency": f"{point.efficiency:.0%}" if several else "-",
        "weak: a step": seconds(point.weak_seconds.median),
        "weak: efficiency": _share(point.weak_efficiency) if several else "-",
        "in messages": _share(point.in_messages) if point.in_messages else "-",
        "messages": str(point.sent.messages),
        "bytes": f"{point.sent.payload:,}",
    }


def _share(share: Interval) -> str:
    return f"{share.median:.0%} ({share.low:.0%} to {share.high:.0%})"


def scaling_notes(courses: Sequence[Sequence[Point]]) -> list[str]:
    """Return what the table means."""
    if not courses:
        return []
    first = courses[0][0]
    base = "" if first.base == 1 else f" {first.base} of them"
    notes = [
        f"Speedup: {first.batch} samples a step on all devices together; weak: {first.batch} on each{base}.",
        "In messages: what a step takes less with nothing sent, waiting for the slowest device included. Messages and "
        "bytes: what each device puts in, a step.",
    ]
    if all(course[0].device.startswith("cpu") for course in courses):
        notes.append(f"These devices share one machine ({machine()}): together they can compute no faster than it.")
    return notes
