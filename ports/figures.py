"""The figures, drawn by matplotlib; none of them touches its global state."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from reference.training import Progress

COLORS = {"numpy": "#0072B2", "torch": "#D55E00", "jax": "#009E73"}
"""One for each backend wherever it is drawn, told apart by the color-blind too (Okabe and Ito); others follow."""
OTHERS = ("#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLES = {"float64": "-", "float32": "--"}
WINDOW = 100
"""Iterations of the running mean."""


def training_figure(histories: Mapping[tuple[str, str], Progress], epoch: int) -> Figure:
    """Return the chapter's two figures side by side: the loss by iteration, and the accuracies by epoch.

    Parameters
    ----------
    histories : mapping
        From (backend, dtype) to where its run has come.
    epoch : int
        Iterations of an epoch.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    colors = backend_colors([backend for backend, _ in histories])
    several = len({dtype for _, dtype in histories}) > 1
    for n, ((backend, dtype), history) in enumerate(histories.items()):
        # Runs that agree lie on each other: the later the thinner, so that all are seen.
        style: dict[str, Any] = {"color": colors[backend], "ls": STYLES[dtype] if several else "-"}
        style["lw"] = 1.2 + min(2.0, 5 / len(histories)) * (len(histories) - 1 - n)
        name = f"{backend} {dtype}" if several else backend
        at = np.arange(1, history.iteration + 1)
        if n == 0:
            losses.plot(at, history.losses, color="0.82", lw=0.6, label=f"{name}, each mini-batch", zorder=1)
        losses.plot(*running_mean(history.losses), label=f"{name}, mean of {WINDOW}", **style)
        ends, train, test = history.accuracies.T
        marks = {"markersize": style["lw"] + 2} if len(ends) <= 30 else {"markersize": 0}
        accuracies.plot(ends / epoch, train, label=f"{name}, training", marker="o", **marks, **style)
        lighter = style | {"color": [(1 + c) / 2 for c in to_rgb(colors[backend])]}
        accuracies.plot(ends / epoch, test, label=f"{name}, test", marker="s", **marks, **lighter)
    losses.set(xlabel="iteration", ylabel="loss", ylim=(0, None), title="Loss of the mini-batch before its step")
    accuracies.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1), title="Accuracy in training and in the test")
    for axes, place in ((losses, "upper right"), (accuracies, "lower right")):
        axes.grid(color="0.9")
        axes.legend(loc=place, fontsize="small", frameon=False)
    return figure


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
