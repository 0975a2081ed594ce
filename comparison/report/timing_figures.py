"""The figures of timings: the ladder, time against size, and break-even."""

from collections.abc import Sequence
from itertools import cycle, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from comparison.report.figures import (
    INK,
    LADDER,
    LINE_STYLES,
    Row,
    add_legend,
    backend_colors,
    label,
    strip_offset,
)


def draw_ladder(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw the time of one gradient or step by strategy and backend; filled in float64, open in float32."""
    colors = backend_colors(row["backend"] for row in rows)
    rungs = [rung for rung in LADDER if any(row["strategy"] == rung for row in rows)]
    backends = list(dict.fromkeys(row["backend"] for row in rows if row["strategy"] in rungs))
    for row in rows:
        if row["strategy"] in rungs:
            y = rungs.index(row["strategy"]) + strip_offset(backends.index(row["backend"]), len(backends))
            _draw_time(axes, row, y, colors[row["backend"]])
    axes.set(xscale="log", ylim=(len(rungs) - 0.5, -0.5), xlabel=f"time of one {rows[0]['what']}")
    axes.set_yticks(range(len(rungs)), rungs)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(FuncFormatter(format_duration))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x")
    add_legend(axes, backends, [row["dtype"] for row in rows], colors, marker=True)


def _draw_time(axes: Axes, row: Row, y: float, color: str) -> None:
    low, high = row["interval_s"]
    axes.plot([low, high], [y, y], color=color, lw=2.5, alpha=0.5, solid_capstyle="butt")
    filled = row["dtype"] == "float64"
    axes.plot(row["median_s"], y, "o", ms=5, color=color, mfc=color if filled else "none", mew=1.3)


def draw_sizes(axes: Axes, rows: Sequence[Row], over: str, crossings: Sequence[Row]) -> None:
    """Draw the time by a size with its interval as a band, and mark where one backend overtakes another."""
    colors = backend_colors(row["backend"] for row in rows)
    keys = dict.fromkeys((row["backend"], row["strategy"], row["dtype"]) for row in rows)
    for key in keys:
        own = [row for row in rows if (row["backend"], row["strategy"], row["dtype"]) == key]
        at = [row["sizes"][over] for row in own]
        low, high = zip(*(row["interval_s"] for row in own), strict=True)
        axes.plot(at, [row["median_s"] for row in own], LINE_STYLES[key[2]], color=colors[key[0]], marker="o", ms=3)
        axes.fill_between(at, low, high, color=colors[key[0]], alpha=0.2, lw=0)
    for row in crossings:
        axes.axvline(row["size"], color=colors[row["faster_above"]["backend"]], lw=1, ls=":")
    ticks = sorted({row["sizes"][over] for row in rows})
    label = {"hidden": "hidden units", "batch": "samples in a batch", "inputs": "inputs"}[over]
    axes.set(xscale="log", yscale="log", xlabel=label, ylabel=f"time of one {rows[0]['what']}")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    _format_log_durations(axes)
    add_legend(axes, [key[0] for key in keys], [key[2] for key in keys], colors, marker=False)


def _format_log_durations(axes: Axes) -> None:
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(format_duration))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid()


def format_duration(value: float, _: object = None) -> str:
    """Format a duration for a logarithmic axis."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * scale >= 0.999:
            return f"{value * scale:,.0f} {unit}"
    return f"{value * 1e9:,.0f} ns"


STEPS = np.geomspace(1, 1e6, 601)
"""Numbers of training steps at which totals are drawn."""


def total_times(row: Row) -> np.ndarray:
    """Compute the time of STEPS, the first call included."""
    total: np.ndarray = row["first_call_s"] + (STEPS - 1) * row["median_s"]
    return total


def lead_changes(rows: Sequence[Row]) -> dict[str, list[tuple[str, float, float]]]:
    """Find by dtype which backend takes the lead, after how many of STEPS, and its time then."""
    changes = {}
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        own = [row for row in rows if row["dtype"] == dtype]
        totals = np.array([total_times(row) for row in own])
        lead, least = totals.argmin(0), totals.min(0)
        at = [n + 1 for n, (a, b) in enumerate(pairwise(lead)) if a != b]
        changes[dtype] = [(own[lead[n]]["backend"], float(STEPS[n]), float(least[n])) for n in at]
    return changes


def draw_break_even(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw the time by the number of steps, the first call included; a dot where another takes the lead."""
    rows = [row for row in rows if row["ranked"] and row["first_call_s"] is not None]
    colors = backend_colors(row["backend"] for row in rows)
    for row in rows:
        axes.plot(STEPS, total_times(row), LINE_STYLES[row["dtype"]], color=colors[row["backend"]], lw=1.6)
    sides = (((4, -12), "left"), ((-4, 5), "right"))  # below its curve and above it: those of two dtypes may be near
    for changes, (offset, side) in zip(lead_changes(rows).values(), cycle(sides), strict=False):
        for backend, steps, time in changes:
            axes.plot(steps, time, "o", color=INK, ms=4, zorder=3)
            text = f"{label(backend)} from {steps:,.0f}"
            axes.annotate(text, (steps, time), xytext=offset, ha=side, textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="training steps", ylabel="time, first call included")
    axes.set_xticks([1, 100, 10_000, 1_000_000], ["1", "100", "10,000", "1,000,000"])
    _format_log_durations(axes)
    add_legend(axes, [row["backend"] for row in rows], [row["dtype"] for row in rows], colors, marker=False)
