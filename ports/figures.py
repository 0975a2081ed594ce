import numpy as np

WINDOW = 100
COLORS = {"numpy": "#0072B2", "torch": "#D55E00", "jax": "#009E73"}
OTHERS = ("#CC79A7", "#56B4E9", "#E69F00", "#888888")
STYLES = {"float64": "-", "float32": "--"}


def backend_colors(backends: list[str]) -> dict[str, str]:
    others = [name for name in dict.fromkeys(backends) if name not in COLORS]
    return COLORS | {name: OTHERS[n % len(OTHERS)] for n, name in enumerate(others)}


def running_mean(values):
    ends = np.arange(1, len(values) + 1)
    sums = np.concatenate(([0.0], np.cumsum(values)))
    begins = np.maximum(ends - WINDOW, 0)
    return ends, (sums[ends] - sums[begins]) / (ends - begins)
