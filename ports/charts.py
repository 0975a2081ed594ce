"""The figures of the report, each drawn from the rows that compare.py writes as JSON.

They are as wide as a phone shows without making letters small, and drawn in one color of ink, INK, which the page or
the file replaces by that of its scheme.
"""

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ports.figures import STYLES, WINDOW, backend_colors, running_mean

Row = dict[str, Any]
INK = "#010203"
WIDTH = 4.8  # inches
LADDER = ("loop", "batched", "structured", "collocated", "closed form")
STYLE: Any = {
    "font.size": 10,
    "font.family": "DejaVu Sans",  # comes with matplotlib: no glyph is missing anywhere
    "svg.fonttype": "path",
    "svg.hashsalt": "fdnet",  # the same figure gives the same file
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.8,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw and save in the report's style; matplotlib's own settings are left alone."""
    with matplotlib.rc_context(STYLE):
        yield


def svg(figure: Figure, ink: str = "currentColor") -> str:
    """Return the figure as SVG that takes the width it is given, in that color of ink."""
    text = io.StringIO()
    with style():
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace(INK, ink)
    head, rest = drawn.split(">", 1)
    kept = [part for part in head.split() if not part.startswith(("width=", "height="))]
    return " ".join(kept) + ">" + rest


# --- (a) the ladder


def ladder(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw the time of one gradient or step by strategy and backend; filled in float64, open in float32."""
    colors = backend_colors([row["backend"] for row in rows])
    rungs = [rung for rung in LADDER if any(row["strategy"] == rung for row in rows)]
    backends = list(dict.fromkeys(row["backend"] for row in rows if row["strategy"] in rungs))
    for row in rows:
        if row["strategy"] in rungs:
            offset = (backends.index(row["backend"]) - (len(backends) - 1) / 2) * 0.7 / len(backends)
            _point(axes, row, rungs.index(row["strategy"]) + offset, colors[row["backend"]])
    axes.set(xscale="log", ylim=(len(rungs) - 0.5, -0.5), xlabel=f"time of one {rows[0]['what']}")
    axes.set_yticks(range(len(rungs)), rungs)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(FuncFormatter(_duration))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x")
    _legend(axes, backends, [row["dtype"] for row in rows], colors, marker=True)


def _point(axes: Axes, row: Row, y: float, color: str) -> None:
    low, high = row["interval_s"]
    axes.plot([low, high], [y, y], color=color, lw=2.5, alpha=0.5, solid_capstyle="butt")
    filled = row["dtype"] == "float64"
    axes.plot(row["median_s"], y, "o", ms=5, color=color, mfc=color if filled else "none", mew=1.3)


def _legend(
    axes: Axes, backends: Iterable[str], dtypes: Iterable[str], colors: dict[str, str], *, marker: bool
) -> None:
    """Put a legend of colors and dtypes above the axes."""
    look: Row = {"marker": "o", "ls": "none"} if marker else {"lw": 2}
    handles = [Line2D([], [], color=colors[name], label=name, **look) for name in dict.fromkeys(backends)]
    for dtype in dict.fromkeys(dtypes):
        if marker:
            how: Row = {"mfc": INK if dtype == "float64" else "none", "marker": "o", "ls": "none"}
        else:
            how = {"ls": STYLES[dtype]}
        handles.append(Line2D([], [], color=INK, label=dtype, **how))
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(handles),
        handletextpad=0.4,
        columnspacing=1.0,
        borderaxespad=0.2,
        handlelength=1.6,
    )


def _duration(value: float, _: object = None) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * scale >= 0.999:
            return f"{value * scale:,.0f} {unit}"
    return f"{value * 1e9:,.0f} ns"


# --- (b) agreement


def agreement(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw gap / bound of every quantity as a strip for each strategy and backend, the bound as a line at 1."""
    colors = backend_colors([row["backend"] for row in rows])
    strips = ["forward", *(s for s in reversed(LADDER) if any(row["strategy"] == s for row in rows))]
    strips += list(dict.fromkeys(row["strategy"] for row in rows if row["strategy"] not in (None, *strips)))
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    least = 1e-5
    for backend in backends:
        own = [row for row in rows if row["backend"] == backend]
        offset = (backends.index(backend) - (len(backends) - 1) / 2) * 0.7 / len(backends)
        y = [strips.index(row["strategy"] or "forward") + offset for row in own]
        x = [max(least, min(_ratio(row), 1e3)) for row in own]
        axes.plot(x, y, "|", ms=7, mew=1.2, color=colors[backend], alpha=0.7)
        wrong = [(a, b) for a, b, row in zip(x, y, own, strict=True) if not row["agrees"]]
        if wrong:
            axes.plot(*zip(*wrong, strict=True), "X", ms=8, color=colors[backend], mec=INK)
    axes.axvline(1, color=INK, lw=1.2)
    axes.text(1, -0.55, "the bound", va="bottom", ha="center")
    axes.set(xscale="log", xlim=(least / 1.6, None), ylim=(len(strips) - 0.5, -0.5), xlabel="gap / bound")
    axes.set_xlim(right=max(3.0, axes.get_xlim()[1]))
    axes.set_yticks(range(len(strips)), strips)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: "0" if v < 2 * least else f"{v:g}"))
    axes.grid(axis="x")
    _legend(axes, backends, [], colors, marker=True)


def _ratio(row: Row) -> float:
    if row["gap"] is None:
        return math.inf
    return row["gap"] / row["bound"] if row["bound"] else (0.0 if row["gap"] == 0 else math.inf)


# --- (c) the error by the step


def step_errors(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw the error against the derivative by the step h: loop in gray, collocated in color of ink."""
    for row in rows:
        loop = row["strategy"] == "loop"
        axes.plot(
            row["steps"],
            row["errors"],
            color="#E69F00" if loop else "#0072B2",
            ls=STYLES[row["dtype"]],
            lw=1.6,
            marker="o" if loop else None,
            ms=2.5,
            label=f"{row['strategy']}, {row['dtype']}",
        )
    axes.set(xscale="log", yscale="log", xlabel="step h", ylabel="relative error against the derivative")
    axes.axvline(1e-4, color=INK, lw=0.8, ls=":")
    axes.text(1e-4, 0.99, " the chapter's h", transform=axes.get_xaxis_transform(), va="top")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.yaxis.set_major_locator(LogLocator(numticks=10))
    axes.grid()
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)


# --- (d) the gradient as pictures


def pictures(units: Sequence[int], shown: dict[str, np.ndarray]) -> Figure:
    """Draw W1's gradient of some hidden units as images, a row for each backend, and what it differs by from the first.

    Parameters
    ----------
    units : sequence of U ints
    shown : dict
        (U, side, side) by backend.
    """
    names = list(shown)
    first = shown[names[0]]
    rows = [(name, shown[name]) for name in names]
    rows += [(f"{name} - {names[0]}", shown[name] - first) for name in names[1:]]
    with style():
        figure = Figure(figsize=(WIDTH, 0.98 * len(rows) + 0.3), layout="constrained")
        grid = figure.subplots(len(rows), len(first), squeeze=False)
        for n, (name, images) in enumerate(rows):
            limit = float(np.abs(images).max()) or 1.0
            for m, (axes, image) in enumerate(zip(grid[n], images, strict=True)):
                drawn = axes.imshow(image, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
                if n == 0:
                    axes.set_title(f"unit {units[m]}", fontsize=9)
            grid[n, 0].set_ylabel(name.replace(" - ", "\n- "), rotation=0, ha="right", va="center")
            bar = figure.colorbar(drawn, ax=list(grid[n]), shrink=0.9, ticks=[-limit, 0, limit])
            bar.ax.set_yticklabels([f"{-limit:.0e}", "0", f"{limit:.0e}"], fontsize=7)
            bar.outline.set_visible(False)
    return figure


# --- (f) time against size


def sizes(axes: Axes, rows: Sequence[Row], over: str, crossings: Sequence[Row]) -> None:
    """Draw the time by a size with its interval as a band, and mark where one backend overtakes another."""
    colors = backend_colors([row["backend"] for row in rows])
    keys = dict.fromkeys((row["backend"], row["strategy"], row["dtype"]) for row in rows)
    for key in keys:
        own = [row for row in rows if (row["backend"], row["strategy"], row["dtype"]) == key]
        at = [row["sizes"][over] for row in own]
        low, high = zip(*(row["interval_s"] for row in own), strict=True)
        axes.plot(at, [row["median_s"] for row in own], STYLES[key[2]], color=colors[key[0]], marker="o", ms=3)
        axes.fill_between(at, low, high, color=colors[key[0]], alpha=0.2, lw=0)
    for row in crossings:
        axes.axvline(row["size"], color=colors[row["faster_above"]["backend"]], lw=1, ls=":")
    ticks = sorted({row["sizes"][over] for row in rows})
    label = {"hidden": "hidden units", "batch": "samples in a batch", "inputs": "inputs"}[over]
    axes.set(xscale="log", yscale="log", xlabel=label, ylabel=f"time of one {rows[0]['what']}")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    _log_durations(axes)
    _legend(axes, [key[0] for key in keys], [key[2] for key in keys], colors, marker=False)


def _log_durations(axes: Axes) -> None:
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(_duration))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid()


# --- (g) break-even


def break_even(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw what so many steps take, the first call among them; a dot where the lead changes."""
    rows = [row for row in rows if row["ranked"] and row["first_call_s"] is not None]
    colors = backend_colors([row["backend"] for row in rows])
    steps = np.geomspace(1, 1e6, 601)
    totals = [row["first_call_s"] + (steps - 1) * row["median_s"] for row in rows]
    for row, total in zip(rows, totals, strict=True):
        axes.plot(steps, total, STYLES[row["dtype"]], color=colors[row["backend"]], lw=1.6)
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        own = np.array([total for row, total in zip(rows, totals, strict=True) if row["dtype"] == dtype])
        lead = own.argmin(0)
        at = [n + 1 for n, (a, b) in enumerate(pairwise(lead)) if a != b]
        axes.plot(steps[at], own.min(0)[at], "o", color=INK, ms=4, zorder=3)
        for n in at:
            axes.annotate(f"{steps[n]:,.0f}", (steps[n], own.min(0)[n]), xytext=(4, -10), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="training steps", ylabel="time, first call included")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    _log_durations(axes)
    _legend(axes, [row["backend"] for row in rows], [row["dtype"] for row in rows], colors, marker=False)


def one(draw: Any, *arguments: Any, height: float = 3.4) -> Figure:
    """Return a figure of one pair of axes, drawn by one of the functions above."""
    with style():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.subplots(), *arguments)
    return figure


def headline(speed: Sequence[Row], compared: Sequence[Row]) -> Figure:
    """Return the ladder beside agreement: the picture that the README opens with."""
    with style():
        figure = Figure(figsize=(2 * WIDTH, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        ladder(left, speed)
        agreement(right, compared)
    return figure


# --- (e) training


def training(runs: Sequence[Row]) -> Figure:
    """Draw the loss by iteration and the accuracies by iteration, one below the other."""
    colors = backend_colors([row["backend"] for row in runs])
    with style():
        figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
        losses, accuracies = figure.subplots(2, 1, sharex=True)
        for n, row in enumerate(runs):
            # Runs that agree lie on each other: the later the thinner, so that all are seen.
            look = {"color": colors[row["backend"]], "ls": STYLES[row["dtype"]], "lw": 1.2 + 0.8 * (len(runs) - 1 - n)}
            losses.plot(*running_mean(np.array(row["losses"])), **look)
            at, train, test = zip(*(each.values() for each in row["accuracies"]), strict=True)
            accuracies.plot(at, train, marker="o", ms=3, **look)
            accuracies.plot(at, test, marker="s", ms=3, mfc="none", **look)
        losses.set(ylabel=f"loss, mean of {WINDOW} steps", ylim=(0, None))
        accuracies.set(xlabel="iteration", ylabel="accuracy (dots: training, squares: test)", ylim=(0, 1))
        for axes in (losses, accuracies):
            axes.grid()
        _legend(losses, [row["backend"] for row in runs], [row["dtype"] for row in runs], colors, marker=False)
    return figure
