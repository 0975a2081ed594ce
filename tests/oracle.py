"""The loss and its central differences in 150 digits, written from the definition, at exactly the numbers given."""

from dataclasses import dataclass

import mpmath as mp
import numpy as np

from reference.two_layer_net import Params

DIGITS = 150
DELTA = 1e-7  # the same float64 number as the reference's


def sigmoid(a):
    return 1 / (1 + mp.exp(-a))


def sample_loss(a2, label):
    """Compute -log(softmax(a2)[label] + DELTA)."""
    return -mp.log(mp.exp(a2[label]) / mp.fsum(mp.exp(a) for a in a2) + DELTA)


def loss(params, x, t):
    """Compute the mean loss of the batch; the arrays hold mpf."""
    W1, b1, W2, b2 = params
    losses = []
    for row, label in zip(x, t, strict=True):
        z1 = [sigmoid(mp.fdot(row, W1[:, j]) + b1[j]) for j in range(len(b1))]
        losses.append(sample_loss([mp.fdot(z1, W2[:, k]) + b2[k] for k in range(len(b2))], label))
    return mp.fsum(losses) / len(x)


def central_differences(params, x, t, h):
    """Compute (loss(p + h) - loss(p - h)) / (2 h) for every entry p, rounded once, to float64."""
    with mp.workdps(DIGITS):
        moved, x, h = Params(*map(exactly, params)), exactly(x), mp.mpf(h)
        gradient = Params(*(np.empty(p.shape) for p in params))
        for p, g in zip(moved, gradient, strict=True):
            for index in np.ndindex(p.shape):
                value = p[index]
                p[index] = value + h
                above = loss(moved, x, t)
                p[index] = value - h
                below = loss(moved, x, t)
                p[index] = value
                g[index] = (above - below) / (2 * h)
    return gradient


def derivative(params, x, t):
    """Compute the derivative, by h = 1e-40, which leaves 80 digits of it."""
    return central_differences(params, x, t, mp.mpf(10) ** -40)


def exactly(array):
    return np.vectorize(lambda value: mp.mpf(float(value)), otypes=[object])(array)


@dataclass
class Unit:
    """One hidden unit before one sample, as a function of the shift of its input."""

    a: mp.mpf
    a2: list[mp.mpf]
    weights: list[mp.mpf]
    label: int

    def logits(self, s):
        dz = sigmoid(self.a + s) - sigmoid(self.a)
        return [a + dz * w for a, w in zip(self.a2, self.weights, strict=True)]

    def loss(self, s):
        return sample_loss(self.logits(s), self.label)

    def difference(self, s):
        """Compute D(s)."""
        return self.loss(s) - self.loss(-s)

    def scale(self, s):
        """Compute |D(s)| as if all classes moved the loss in the same direction: rounding errors are relative to it."""
        up, down = ([mp.exp(a - logits[self.label]) for a in logits] for logits in (self.logits(s), self.logits(-s)))
        moved = mp.fsum(abs(u - d) for u, d in zip(up, down, strict=True))
        lesser, greater = sorted([mp.fsum(up), mp.fsum(down)])
        return mp.log1p(moved / (lesser * (1 + DELTA * greater)))


@dataclass
class Logit(Unit):
    """One logit, that of index `moved`, in place of a hidden unit."""

    moved: int = 0

    def logits(self, s):
        return [a + s * (k == self.moved) for k, a in enumerate(self.a2)]
