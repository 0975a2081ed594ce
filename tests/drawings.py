"""What a figure shows, read back from matplotlib."""

from typing import Any

from matplotlib.axes import Axes

from comparison.report import figures


def drawn(draw: Any, *arguments: Any) -> Axes:
    return figures.single_figure(draw, *arguments).axes[0]


def points(axes: Axes, marker: str) -> set[tuple[float, float]]:
    return {
        (float(x), round(float(y), 6))
        for line in axes.lines
        if line.get_marker() == marker
        for x, y in zip(*line.get_data(), strict=True)
    }
