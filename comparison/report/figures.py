"""The figures, drawn by matplotlib without touching its global state; what they show comes as rows of JSON.

Those of the report are as wide as a phone shows without making letters small, and drawn in one color of ink, INK, which
the page or the file replaces by that of its scheme.
"""

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from reference.training import Progress

Row = dict[str, Any]
COLORS = {"numpy": "#0072B2", "torch": "#D55E00", "jax": "#009E73"}
"""One for each backend wherever it is drawn, told apart by the color-blind too (Okabe and Ito); others follow."""
OTHERS = ("#CC79A7", "#56B4E9", "#E69F00", "#888888")
STYLES = {"float64": "-", "float32": "--"}
WINDOW = 100
"""Iterations of the running mean."""
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


def one(draw: Any, *arguments: Any, height: float = 3.4) -> Figure:
    """Return a figure of one pair of axes, drawn by one of the functions above."""
    with style():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.subplots(), *arguments)
    return figure


def legend(axes: Axes, backends: Iterable[str], dtypes: Iterable[str], colors: dict[str, str], *, marker: bool) -> None:
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
        bbox_to_anchor=(-0.05, 1),
        ncols=len(handles),
        fontsize=8,
        handletextpad=0.3,
        columnspacing=0.8,
        borderaxespad=0.2,
        handlelength=1.4,
    )


def backend_colors(backends: list[str]) -> dict[str, str]:
    """Return a color for each backend: the same in every figure for those that are built in."""
    others = [name for name in dict.fromkeys(backends) if name not in COLORS]
    return COLORS | {name: OTHERS[n % len(OTHERS)] for n, name in enumerate(others)}


def running_mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where, and the mean of the WINDOW values up to there, of fewer at the beginning."""
    ends = np.arange(1, len(values) + 1)
    sums = np.concatenate(([0.0], np.cumsum(values)))
    begins = np.maximum(ends - WINDOW, 0)
    return ends, (sums[ends] - sums[begins]) / (ends - begins)


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
    legend(axes, backends, [], colors, marker=True)


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


# --- (e) training


def training_figure(histories: Mapping[tuple[str, str], Progress], epoch: int, *, stacked: bool = False) -> Figure:
    """Return the chapter's two figures: the loss by iteration, and the accuracies by epoch.

    Parameters
    ----------
    histories : mapping
        From (backend, dtype) to where its run has come.
    epoch : int
        Iterations of an epoch.
    stacked : bool
        One below the other, for a narrow page, rather than side by side.
    """
    figure = Figure(figsize=(WIDTH, 7.0) if stacked else (11, 4.2), layout="constrained")
    losses, accuracies = figure.subplots(*((2, 1) if stacked else (1, 2)))
    colors = backend_colors([backend for backend, _ in histories])
    several = len({dtype for _, dtype in histories}) > 1
    for n, ((backend, dtype), history) in enumerate(histories.items()):
        # Runs that agree lie on each other: the later the thinner, so that all are seen.
        style: dict[str, Any] = {"color": colors[backend], "ls": STYLES[dtype] if several else "-"}
        style["lw"] = 1.2 + min(2.0, 5 / len(histories)) * (len(histories) - 1 - n)
        name = f"{backend} {dtype}" if several else backend
        at = np.arange(1, history.iteration + 1)
        if n == 0:
            losses.plot(at, history.losses, color="0.5", alpha=0.4, lw=0.6, label=f"{name}, each mini-batch", zorder=1)
        losses.plot(*running_mean(history.losses), label=f"{name}, mean of {WINDOW}", **style)
        ends, train, test = history.accuracies.T
        marks = {"markersize": style["lw"] + 2} if len(ends) <= 30 else {"markersize": 0}
        accuracies.plot(ends / epoch, train, label=f"{name}, training", marker="o", **marks, **style)
        lighter = style | {"color": [(1 + c) / 2 for c in to_rgb(colors[backend])]}
        accuracies.plot(ends / epoch, test, label=f"{name}, test", marker="s", **marks, **lighter)
    losses.set(xlabel="iteration", ylabel="loss", ylim=(0, None), title="Loss of the mini-batch before its step")
    accuracies.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1), title="Accuracy in training and in the test")
    for axes, place in ((losses, "upper right"), (accuracies, "lower right")):
        axes.grid()
        axes.legend(loc=place, fontsize="small", frameon=False)
    return figure
