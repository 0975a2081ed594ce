"""Draw the pictures of README.md and docs/ from the results in docs/measured: `python docs/pictures.py`.

Each is drawn twice, for a light and a dark page, large enough to be read where it is 400 pixels wide.
"""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from comparison.agreement.comparison import random_problem
from comparison.report.agreement_figures import draw_step_errors
from comparison.report.figures import INK, LADDER, STRATEGY_COLORS, Row, backend_colors, style, svg
from comparison.report.step_study import errors_by_step
from comparison.report.timing_figures import format_duration
from comparison.report.timing_tables import seconds
from reference.collocation import positive_nodes
from reference.datasets import load
from reference.defaults import CLOSED_FORM
from reference.two_layer_net import Params, loss

Read = Callable[[str], Any]
"""From the name of a block of figures to what its command wrote as JSON."""
HERE = Path(__file__).parent
INKS = {"light": "#1f2328", "dark": "#e6edf3"}
WIDTH = 8.0  # inches
FONT = 15
"""Points: at a width of 400 pixels, these are 10 pixels high."""


def draw_all(read: Read) -> None:
    """Draw all pictures in both schemes."""
    pictures = {
        "headline": headline(read("speed")["speed"], read("agree")["agreement"]),
        "growth": growth({over: read(over)["speed"] for over in ("outputs", "hidden")}),
        "errors": step_errors(),
        "reach": reach(),
        "nodes": nodes(),
    }
    (HERE / "pictures").mkdir(exist_ok=True)
    for name, figure in pictures.items():
        for scheme, ink in INKS.items():
            (HERE / f"pictures/{name}-{scheme}.svg").write_text(svg(figure, ink, FONT))


def _figure(height: float, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    with style(FONT):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        return figure, figure.subplots(1, columns, **options)


def headline(timings: Sequence[Row], compared: Sequence[Row]) -> Figure:
    """Draw the time of each strategy in NumPy beside the agreement of all backends."""
    with style(FONT):
        figure, (left, right) = _figure(4.6, 2, width_ratios=(1.15, 1))
        _draw_bars(left, [row for row in timings if (row["backend"], row["dtype"]) == ("numpy", "float64")])
        _draw_worst_gaps(right, compared)
    return figure


def _draw_bars(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw a bar for each strategy, with its name and time above it."""
    times = {row["strategy"]: row["median_s"] for row in rows}
    estimated = {row["strategy"] for row in rows if row["estimated"]}
    strategies = [strategy for strategy in LADDER if strategy in times]
    start = 10 ** np.floor(np.log10(min(times.values())) - 0.5)
    for n, strategy in enumerate(strategies):
        name = "backpropagation" if strategy == CLOSED_FORM else strategy
        axes.barh(n, times[strategy] - start, left=start, height=0.4, color=STRATEGY_COLORS[strategy])
        about = "~" if strategy in estimated else ""
        axes.text(start, n - 0.25, f" {name}, {about}{seconds(times[strategy])}", va="bottom")
    axes.set(xscale="log", xlim=(start, max(times.values()) * 1.5), ylim=(len(strategies) - 0.6, -0.8))
    gain = float(f"{times['loop'] / times['collocated']:.2g}")  # the loop's time is an estimate
    price = times["collocated"] / times[CLOSED_FORM]
    axes.set_title(f"collocated: 1/{gain:,.0f} of the loop,\n{price:.2g} times backpropagation", fontsize=FONT)
    sizes = rows[0]["sizes"]
    net = f"{sizes['inputs']}-{sizes['hidden']}-{sizes['outputs']}"
    axes.set_xlabel(f"numpy float64, {net}, log scale")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(LogLocator(numticks=4))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(format_duration))
    axes.set_axisbelow(True)
    axes.grid(axis="x")


def _draw_worst_gaps(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw the worst gap of each backend and dtype as a share of its bound: a dot each."""
    colors = backend_colors(row["backend"] for row in rows)
    for n, row in enumerate(rows):
        worst = 2.0 if row["worst"] is None else min(row["worst"], 2.0)
        axes.plot([0, worst], [n, n], color=colors[row["backend"]], lw=2)
        axes.plot(worst, n, "o", ms=11, color=colors[row["backend"]])
    wrong, count = (sum(row[key] for row in rows) for key in ("disagreeing", "quantities"))
    title = f"{wrong:,} of {count:,} DISAGREE" if wrong else f"All agree: {count:,} quantities"
    axes.set_title(f"{title},\nthe worst of each backend", fontsize=FONT)
    axes.axvline(1, color=INK, lw=2)
    axes.text(1, -0.75, "the bound ", ha="right", va="center")
    axes.set(xlim=(0, 2.1 if wrong else 1.06), ylim=(len(rows) - 0.4, -1.2), xlabel="gap / bound, on the digits")
    axes.set_yticks(range(len(rows)), [f"{row['backend']} {row['dtype']}" for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    axes.grid(axis="x")


def growth(sweeps: dict[str, Sequence[Row]], dtype: str = "float64") -> Figure:
    """Draw the time of a step by size: collocated as lines, the closed form of the same backend dotted."""
    with style(FONT):
        figure, panels = _figure(5.2, len(sweeps), sharey=True)
        for axes, (over, rows) in zip(panels, sweeps.items(), strict=True):
            rows = [row for row in rows if row["dtype"] == dtype]
            colors = backend_colors(row["backend"] for row in rows)
            for backend, marker in zip(dict.fromkeys(row["backend"] for row in rows), "os^Dv", strict=False):
                for strategy, look in (("collocated", f"{marker}-"), (CLOSED_FORM, ":")):
                    own = [row for row in rows if (row["backend"], row["strategy"]) == (backend, strategy)]
                    at, times = [row["sizes"][over] for row in own], [row["median_s"] for row in own]
                    axes.plot(at, times, look, color=colors[backend], lw=2.2, ms=7, label=f"{backend} {strategy}")
            axes.set(xscale="log", yscale="log")
            axes.set_xlabel("classes (digits)" if over == "outputs" else "hidden units (MNIST)")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.yaxis.set_major_formatter(FuncFormatter(format_duration))
            axes.grid()
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3 if len(labels) > 4 else 2, **_LEGEND)
        panels[0].set_ylabel(f"a step in {dtype}")
    return figure


_LEGEND: Any = {"handlelength": 1.3, "columnspacing": 0.9, "handletextpad": 0.4, "fontsize": FONT - 1}


def step_errors() -> Figure:
    """Draw the error of loop and collocated by the step h, on the digits."""
    data = load("digits")
    problem = random_problem(data.x_train, data.t_train, hidden=50, samples=100, seed=0)
    with style(FONT):
        figure, axes = _figure(6.0)
        draw_step_errors(axes, errors_by_step(problem))
    return figure


def reach() -> Figure:
    """Draw a small net with one weight lit, and what it reaches."""
    with style(FONT):
        figure, axes = _figure(4.2)
        layers = [[(x, y) for y in np.linspace(-1, 1, count)] for x, count in enumerate((6, 5, 4))]
        lit_input, lit_unit = layers[0][1], layers[1][3]
        for before, after in pairwise(layers):
            for a in before:
                for b in after:
                    lit = (a, b) == (lit_input, lit_unit) or a == lit_unit
                    axes.plot(*zip(a, b, strict=True), color=LIT if lit else INK, lw=3 if lit else 0.8, zorder=1 + lit,
                              alpha=1 if lit else 0.18)  # fmt: skip
        for n, layer in enumerate(layers):
            for point in layer:
                lit = point == lit_unit or n == 2
                axes.plot(*point, "o", ms=17, color=LIT if lit else "#888888", zorder=3)
        for x, text in enumerate(("inputs", "hidden units", "outputs")):
            axes.text(x, -1.45, text, ha="center")
        axes.annotate("one weight", (0.5, np.mean([lit_input[1], lit_unit[1]])), (0.05, 1.35), color=LIT,
                      arrowprops={"arrowstyle": "-", "color": LIT})  # fmt: skip
        axes.text(1, 1.35, "moves one unit", ha="center", color=LIT)
        axes.text(2, 1.35, "and the outputs", ha="center", color=LIT)
        axes.set(xlim=(-0.35, 2.45), ylim=(-1.6, 1.6))
        axes.set_axis_off()
    return figure


LIT = "#D55E00"


def nodes(largest: float = 4.0, count: int = 3) -> Figure:
    """Draw D(s) of one sample and one hidden unit, and the odd polynomial through its values at the nodes."""
    data = load("digits")
    rng = np.random.default_rng(0)
    params = Params(
        rng.standard_normal((64, 5)), np.zeros(5), 1.5 * rng.standard_normal((5, 10)), rng.standard_normal(10)
    )
    x, t = data.x_train[:1], data.t_train[:1]

    def difference(shift: float) -> float:  # a bias is a weight whose input is 1
        above, below = (loss(params._replace(b1=by * np.eye(5)[1]), x, t) for by in (shift, -shift))
        return float(above - below)

    shifts = np.linspace(-largest, largest, 201)
    at = largest * positive_nodes(count)
    powers = 2 * np.arange(count) + 1
    coefficients = np.linalg.solve(at[:, None] ** powers, [difference(s) for s in at])
    with style(FONT):
        figure, axes = _figure(4.4)
        axes.plot(shifts, [difference(s) for s in shifts], color=INK, lw=5, alpha=0.5, label="D(s)")
        color = STRATEGY_COLORS["collocated"]
        axes.plot(shifts, shifts[:, None] ** powers @ coefficients, color=color, lw=2, label="interpolant")
        axes.plot(
            [*-at, *at],
            [*(-difference(s) for s in at), *(difference(s) for s in at)],
            "o",
            ms=10,
            color=color,
            label="nodes",
        )
        axes.axhline(0, color=INK, lw=0.8)
        axes.axvline(0, color=INK, lw=0.8)
        axes.set(xlabel="shift s of the unit's input", ylabel="loss(+s) - loss(-s)")
        axes.legend(loc="best")
    return figure


if __name__ == "__main__":
    draw_all(lambda name: json.loads((HERE / f"measured/{name}.json").read_text()))
