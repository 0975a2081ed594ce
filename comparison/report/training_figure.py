"""The chapter's two figures of a training: the loss by iteration, and the accuracies by epoch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from comparison.report.figures import INK, LINE_STYLES, WIDTH, backend_colors, label

WINDOW = 100
"""Iterations of the running mean."""
KINDS = {"training": (INK, "o"), "test": ("#a1a1a1", "s")}
"""Color and marker of the accuracies; runs have their own colors, in the test half as strong."""


class Curves(NamedTuple):
    """The losses and accuracies of a run; see `reference.training.Progress`."""

    losses: NDArray[np.float64]  # (K,)
    accuracies: NDArray[np.float64]  # (A, 3): iteration, accuracy in training, in the test


def training_figure(runs: Mapping[tuple[str, str], Curves], epoch: int, *, stacked: bool = False) -> Figure:
    """Draw the losses and the accuracies.

    Parameters
    ----------
    runs : mapping
        From (backend, dtype) to the curves.
    epoch : int
        Iterations of an epoch.
    stacked : bool
        One below the other, for a narrow page, rather than side by side.
    """
    figure = Figure(figsize=(WIDTH, 7.0) if stacked else (11, 4.2), layout="constrained")
    losses, accuracies = figure.subplots(*((2, 1) if stacked else (1, 2)))
    colors = backend_colors(backend for backend, _ in runs)
    several = len({dtype for _, dtype in runs}) > 1
    for n, ((backend, dtype), curves) in enumerate(runs.items()):
        name = f"{label(backend)} {dtype}" if several else label(backend)
        look: dict[str, Any] = {"color": colors[backend], "ls": LINE_STYLES[dtype] if several else "-"}
        # Runs that agree lie on each other: the later the thinner, so that all are seen.
        look["lw"] = 1.2 + min(2.0, 5 / len(runs)) * (len(runs) - 1 - n)
        _draw_losses(losses, curves, name, look, each_batch=n == 0)
        _draw_accuracies(accuracies, curves, epoch, look)
    title = f"Loss of the mini-batch before its step, mean of {WINDOW}"
    losses.set(xlabel="iteration", ylabel="loss", ylim=(0, None), title=title)
    accuracies.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1), title="Accuracy in training and test")
    for axes in (losses, accuracies):
        axes.grid()
    figure.legend(*losses.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    kinds = [Line2D([], [], color=color, marker=marker, label=label) for label, (color, marker) in KINDS.items()]
    accuracies.legend(handles=kinds, loc="best", frameon=False)
    return figure


def _draw_losses(axes: Axes, curves: Curves, name: str, look: dict[str, Any], *, each_batch: bool) -> None:
    if each_batch:
        at = np.arange(1, len(curves.losses) + 1)
        axes.plot(at, curves.losses, color="0.5", alpha=0.7, lw=0.8, label="each mini-batch", zorder=1)
    axes.plot(*running_mean(curves.losses), label=name, **look)


def _draw_accuracies(axes: Axes, curves: Curves, epoch: int, look: dict[str, Any]) -> None:
    iterations, train, test = curves.accuracies.T
    size = look["lw"] + 2 if len(iterations) <= 30 else 0
    lighter = look | {"color": [(1 + c) / 2 for c in to_rgb(look["color"])]}
    axes.plot(iterations / epoch, train, marker="o", markersize=size, **look)
    axes.plot(iterations / epoch, test, marker="s", markersize=size, **lighter)


def running_mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the iterations, and at each the mean of the last WINDOW values, of fewer at the beginning."""
    ends = np.arange(1, len(values) + 1)
    sums = np.concatenate(([0.0], np.cumsum(values)))
    begins = np.maximum(ends - WINDOW, 0)
    return ends, (sums[ends] - sums[begins]) / (ends - begins)
