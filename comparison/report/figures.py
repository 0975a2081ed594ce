"""What all figures share: style, colors, legends and SVG, drawn by matplotlib without touching its global state.

Those of the report are as wide as a phone shows without making letters small, and drawn in one color of ink, INK, which
the page or the file replaces by that of its scheme.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reference.defaults import CLOSED_FORM, STRATEGIES

Row = dict[str, Any]
"""A row of JSON."""
COLORS = {"numpy": "#0072B2", "torch": "#D55E00", "jax": "#009E73"}
"""One for each backend in every figure, distinct to the color-blind too (Okabe and Ito); other backends take OTHERS."""
OTHERS = ("#CC79A7", "#56B4E9", "#E69F00", "#888888")
LINE_STYLES = {"float64": "-", "float32": "--"}
INK = "#010203"
WIDTH = 4.8  # inches
FONT = 11.0
"""Points: a phone of 390 pixels shows a figure 358 wide, and these letters 11 pixels high."""
LADDER = (*STRATEGIES, CLOSED_FORM)
"""The order of strategies in every figure."""
STRATEGY_COLORS = dict(zip(LADDER, ("#E69F00", "#F0E442", "#56B4E9", "#0072B2", "#888888"), strict=True))
STYLE: Any = {
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

_TEXTS = ("xtick.labelsize", "ytick.labelsize", "legend.fontsize")


@contextmanager
def style(font: float = FONT) -> Iterator[None]:
    """Draw and save in the report's style, all letters of one size; matplotlib's own settings stay as they are."""
    sizes = dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize", *_TEXTS), font)
    with plain_style(), matplotlib.rc_context(STYLE | sizes):
        yield


@contextmanager
def plain_style() -> Iterator[None]:
    """Draw and save under matplotlib's own defaults: a matplotlibrc may ask for what is not there, such as LaTeX."""
    kept: Any = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    with matplotlib.rc_context(kept):
        yield


def svg(figure: Figure, ink: str = "currentColor", font: float = FONT) -> str:
    """Write the figure as SVG that fills the width it is given, in that color of ink; `font` as it was drawn."""
    text = io.StringIO()
    with style(font):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace(INK, ink)
    head, rest = drawn.split(">", 1)
    kept = [part for part in head.split() if not part.startswith(("width=", "height="))]
    return " ".join(kept) + ">" + rest


def check_drawing(format: str) -> None:
    """Draw and save an empty figure: an environment or an installation where that fails can draw none."""
    with style():
        Figure().savefig(io.BytesIO(), format=format)


def label(name: str) -> str:
    """Return a backend's name as matplotlib draws it: a $ begins no formula, an underscore hides no line."""
    shown = name.encode("utf-8", "backslashreplace").decode("utf-8").replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def single_figure(draw: Callable[..., None], *arguments: Any, height: float = 3.4) -> Figure:
    """Draw a figure of one pair of axes, drawn by a function that takes them first."""
    with style():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.subplots(), *arguments)
    return figure


def add_legend(
    axes: Axes, backends: Iterable[str], dtypes: Iterable[str], colors: dict[str, str], *, marker: bool
) -> None:
    """Put a legend of colors and dtypes above the axes."""
    look: Row = {"marker": "o", "ls": "none"} if marker else {"lw": 2}
    handles = [Line2D([], [], color=colors[name], label=label(name), **look) for name in dict.fromkeys(backends)]
    for dtype in dict.fromkeys(dtypes):
        if marker:
            look = {"mfc": INK if dtype == "float64" else "none", "marker": "o", "ls": "none"}
        else:
            look = {"ls": LINE_STYLES[dtype]}
        handles.append(Line2D([], [], color=INK, label=dtype, **look))
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.08, 1),
        ncols=len(handles) if len(handles) <= 5 else 3,
        handletextpad=0.3,
        columnspacing=0.7,
        borderaxespad=0.2,
        handlelength=1.2,
    )


def backend_colors(backends: Iterable[str]) -> dict[str, str]:
    """Return a color for each backend: the same in every figure for the built-in ones."""
    others = [name for name in dict.fromkeys(backends) if name not in COLORS]
    return COLORS | {name: OTHERS[n % len(OTHERS)] for n, name in enumerate(others)}


def strip_offset(index: int, count: int) -> float:
    """Return where in the strip of a strategy, of height 1, the marks of one of `count` backends go."""
    return (index - (count - 1) / 2) * 0.7 / count
