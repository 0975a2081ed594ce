"""The chapter's three functions, in the forms that do not overflow: their values are the book's."""

import numpy as np

DELTA = 1e-7
"""What the book adds inside the logarithm of the loss, so that a probability of 0 costs 16.118 and not infinity."""


def sigmoid(a: np.ndarray) -> np.ndarray:
    """Compute 1 / (1 + exp(-a)), elementwise, to a few roundings *relative* to the result, also where it is tiny."""
    return sigmoids(a)[0]


def sigmoids(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute sigmoid(a) and sigmoid(-a), which is 1 - sigmoid(a) without cancellation, from one exponential.

    Only exp(-|a|) is taken, which lies in (0, 1]. The maximum with a truth value, 0 or 1, chooses between it and 1:
    np.where takes several times as long.
    """
    tail = np.exp(-np.abs(a))
    total = 1 + tail
    return np.maximum(tail, a >= 0) / total, np.maximum(tail, a <= 0) / total


def softmax(a: np.ndarray) -> np.ndarray:
    """Return exp(a) / sum(exp(a)) along the last axis; subtracting the maximum first leaves the value as it is."""
    exponentials = np.exp(a - a.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def cross_entropy_error(y: np.ndarray, t: np.ndarray) -> np.floating:
    """Return -mean(log(y[b, t_b] + DELTA)) over the samples b.

    Parameters
    ----------
    y : (..., B, O) float array
        Probabilities. Leading axes are kept: one loss for each.
    t : (B,) int array
        The right class of each sample.
    """
    right = y[..., np.arange(len(t)), t]  # (..., B)
    return -np.log(right + DELTA).mean(axis=-1)
