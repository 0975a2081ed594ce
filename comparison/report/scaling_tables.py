"""The table and the sentences that show how a step scales with the number of devices."""

from collections.abc import Sequence

from rich.table import Table

from comparison.report.agreement_tables import fitted_table
from comparison.report.timing_tables import LEFT, interval_of_ratio, seconds
from comparison.timing.recommendation import machine
from comparison.timing.rounds import Interval
from comparison.timing.scaling import Point

DROPPABLE = (
    *("95% interval", "messages", "weak: a step", "efficiency", "bytes", "strategy"),
    *("weak: efficiency", "in messages"),
)
"""The columns that a narrow terminal does without, in the order in which they are dropped."""


def scaling_table(curves: Sequence[Sequence[Point]], width: int) -> Table:
    """Build a table with a line for each number of devices, curve by curve.

    The strategy is dropped only where there is but one.
    """
    several = len({curve[0].strategy for curve in curves}) > 1
    droppable = [name for name in DROPPABLE if name != "strategy" or not several]
    return fitted_table([[_cells(point) for point in curve] for curve in curves], droppable, width, LEFT)


def _cells(point: Point) -> dict[str, str]:
    several = point.devices > point.base
    return {
        "backend": f"{point.backend} {point.dtype}",
        "strategy": point.strategy,
        "devices": str(point.devices),
        "a step": seconds(point.seconds.median),
        "95% interval": f"{seconds(point.seconds.low)} to {seconds(point.seconds.high)}",
        "speedup": interval_of_ratio(point.speedup),
        "efficiency": f"{point.efficiency:.0%}" if several else "-",
        "weak: a step": seconds(point.weak_seconds.median),
        "weak: efficiency": _share(point.weak_efficiency) if several else "-",
        "in messages": _share(point.in_messages) if point.in_messages else "-",
        "messages": str(point.sent.messages),
        "bytes": f"{point.sent.payload:,}",
    }


def _share(share: Interval) -> str:
    return f"{share.median:.0%} ({share.low:.0%} to {share.high:.0%})"


def scaling_notes(curves: Sequence[Sequence[Point]], shown: Sequence[str]) -> list[str]:
    """Return the sentences that the table needs to be understood; `shown` are its headings."""
    if not curves:
        return []
    first = curves[0][0]
    base = "" if first.base == 1 else f" {first.base} of them"
    weak = f"; weak: {first.batch} on each{base}" if any(name.startswith("weak") for name in shown) else ""
    notes = [f"Speedup: {first.batch} samples a step on all devices together{weak}."]
    if "in messages" in shown:
        notes.append("In messages: what a step takes less with nothing sent, waiting for the slowest device included.")
    if sent := [name for name in ("messages", "bytes") if name in shown]:
        notes.append(f"{' and '.join(sent).capitalize()}: what each device sends in a step.")
    if all(curve[0].device.startswith("cpu") for curve in curves):
        notes.append(f"These devices share one machine ({machine()}): together they can compute no faster than it.")
    return notes
