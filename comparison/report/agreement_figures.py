"""The figures of agreement: gaps beside their bounds, the error by the step h, and the gradient as pictures."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from comparison.agreement.comparison import FORWARD
from comparison.report.figures import (
    INK,
    LADDER,
    LINE_STYLES,
    STRATEGY_COLORS,
    WIDTH,
    Row,
    add_legend,
    backend_colors,
    label,
    strip_offset,
    style,
)
from reference.defaults import H

MIN_RATIO, MAX_RATIO = 1e-5, 1e3
"""Marks are drawn within this range."""


def draw_agreement(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw gap / bound of every quantity as a strip for each strategy and backend, the bound as a line at 1."""
    colors = backend_colors(row["backend"] for row in rows)
    strips = [FORWARD, *(s for s in LADDER if any(row["strategy"] == s for row in rows))]
    strips += list(dict.fromkeys(row["strategy"] for row in rows if row["strategy"] not in (None, *strips)))
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    for n, backend in enumerate(backends):
        own = [row for row in rows if row["backend"] == backend]
        y = [strips.index(row["strategy"] or FORWARD) + strip_offset(n, len(backends)) for row in own]
        x = [max(MIN_RATIO, min(_ratio(row), MAX_RATIO)) for row in own]
        axes.plot(x, y, "|", ms=7, mew=1.2, color=colors[backend], alpha=0.7)
        wrong = [(a, b) for a, b, row in zip(x, y, own, strict=True) if not row["agrees"]]
        if wrong:
            axes.plot(*zip(*wrong, strict=True), "X", ms=8, color=colors[backend], mec=INK)
    axes.axvline(1, color=INK, lw=1.2)
    axes.text(1, -0.55, "the bound", va="bottom", ha="center")
    axes.set(xscale="log", xlim=(MIN_RATIO / 1.6, None), ylim=(len(strips) - 0.5, -0.5), xlabel="gap / bound")
    axes.set_xlim(right=max(3.0, axes.get_xlim()[1]))
    axes.set_yticks(range(len(strips)), strips)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: "0" if v < 2 * MIN_RATIO else f"{v:g}"))
    axes.grid(axis="x")
    add_legend(axes, backends, [], colors, marker=True)


def _ratio(row: Row) -> float:
    if row["gap"] is None:
        return math.inf
    return row["gap"] / row["bound"] if row["bound"] else (0.0 if row["gap"] == 0 else math.inf)


def draw_step_errors(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw the error against the derivative by the step h: each strategy in its color."""
    for row in rows:
        loop = row["strategy"] == "loop"
        axes.plot(
            row["steps"],
            row["errors"],
            color=STRATEGY_COLORS[row["strategy"]],
            ls=LINE_STYLES[row["dtype"]],
            lw=1.6,
            marker="o" if loop else None,
            ms=2.5,
            label=f"{row['strategy']}, {row['dtype']}",
        )
    axes.set(xscale="log", yscale="log", xlabel="step h", ylabel="relative error against the derivative")
    axes.axvline(H, color=INK, lw=0.8, ls=":")
    axes.text(H, 0.99, " the chapter's h", transform=axes.get_xaxis_transform(), va="top")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.yaxis.set_major_locator(LogLocator(numticks=10))
    axes.grid()
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.12, 1),
        ncols=2,
        borderaxespad=0.2,
        handlelength=1.6,
        columnspacing=0.9,
        handletextpad=0.4,
    )


def gradient_pictures(units: Sequence[int], images: dict[str, np.ndarray]) -> Figure:
    """Draw W1's gradient of some hidden units as images, a row for each backend and for its difference from the first.

    Parameters
    ----------
    units : sequence of U ints
    images : dict
        (U, side, side) by backend.
    """
    names = list(images)
    first = images[names[0]]
    rows = [(name, images[name]) for name in names]
    rows += [(f"{name} - {names[0]}", images[name] - first) for name in names[1:]]
    with style():
        figure = Figure(figsize=(WIDTH, 0.98 * len(rows) + 0.3), layout="constrained")
        grid = figure.subplots(len(rows), len(first), squeeze=False)
        for axes, unit in zip(grid[0], units, strict=True):
            axes.set_title(f"unit {unit}")
        for row, (name, pictures) in zip(grid, rows, strict=True):
            _draw_pictures(figure, row, name, pictures)
    return figure


def _draw_pictures(figure: Figure, row: Sequence[Axes], name: str, pictures: np.ndarray) -> None:
    """Draw one row of images, on a scale of its own."""
    limit = float(np.abs(pictures).max()) or 1.0
    for axes, picture in zip(row, pictures, strict=True):
        drawn = axes.imshow(picture, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    row[0].set_ylabel(label(name).replace(" - ", "\n- "), rotation=0, ha="right", va="center")
    bar = figure.colorbar(drawn, ax=list(row), shrink=0.9, ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels([f"{-limit:.0e}", "0", f"{limit:.0e}"])
    bar.outline.set_visible(False)
