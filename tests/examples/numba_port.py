"""A port in Numba, whose arrays are NumPy's: `compare.py conform tests/examples/numba_port.py`."""

from functools import partial

import numba
import numpy as np

from reference import collocation, defaults, validation
from reference.functions import DELTA
from reference.two_layer_net import Params, max_abs

compiled = numba.njit(cache=True, error_model="numpy")  # what overflows is inf, and raises nothing
check_net = partial(validation.check_net, array_type=np.ndarray, max_abs=max_abs)


def from_numpy(array, *, dtype, device):
    dtype = validation.check_dtype(dtype)
    validation.check_device(device, devices())
    return np.array(validation.check_numbers(array), dtype, order="C", copy=True)


def to_numpy(array):
    return array.copy()


def devices():
    return ("cpu",)


def synchronize(result):
    return result


def predict(params, x):
    check_net(params, x)
    return _forward(*map(np.ascontiguousarray, (*params, x)))[2]


def loss(params, x, t):
    params, x, labels, *_ = _checked(params, x, t)
    return np.array(_loss(*params, x, labels), x.dtype)


def accuracy(params, x, t):
    params, x, labels, *_ = _checked(params, x, t)
    return np.mean(_forward(*params, x)[2].argmax(axis=1) == labels, dtype=x.dtype)


def gradient(params, x, t):
    params, x, labels, *_ = _checked(params, x, t)
    a1, z1, y = _forward(*params, x)
    delta2 = _output_slope(y, labels)  # (B, O)
    delta1 = (delta2 @ params.W2.T) * z1 * _sigmoid(-a1)  # (B, H)
    return Params(x.T @ delta1, delta1.sum(axis=0), z1.T @ delta2, delta2.sum(axis=0))


def loop(params, x, t, *, h=1e-4, memory=defaults.MEMORY, entries=None):
    params, x, labels, magnitudes, h, _ = _checked(params, x, t, h, memory)  # a loop needs no memory
    validation.check_h_moves(h, magnitudes, validation.dtype_name(x))
    differences = []
    for name, at in zip(Params._fields, validation.check_entries(params, entries), strict=True):
        moved = getattr(params, name).copy()
        members = params._replace(**{name: moved})
        difference = _differences(*members, x, labels, moved.reshape(-1), at.ravel(), x.dtype.type(h))
        differences.append(difference.reshape(at.shape))
    return Params(*differences)


def collocated(params, x, t, *, h=1e-4, memory=defaults.MEMORY, interpolates=True):
    params, x, labels, magnitudes, h, _ = _checked(params, x, t, h, memory)
    plan = collocation.make_plan(h, magnitudes["x"], magnitudes["W2"], validation.dtype_name(x))
    if interpolates and not plan.collocates:
        collocation.warn_of_structured(h, magnitudes["x"])
    a1, z1, y = _forward(*params, x)
    layers = (
        (x, partial(_hidden_differences, a1, z1, y, params.W2, labels)),
        (z1, partial(_logit_differences, y, labels)),
    )
    sums = []
    for (inputs, D), count in zip(layers, plan[:2], strict=True):
        shifts = x.dtype.type(h) * np.concatenate([inputs, np.ones_like(inputs[:, :1])], axis=1)  # the bias: input 1
        sums.append(_sum(D, shifts, count if interpolates else 0) / x.dtype.type(2 * h * len(x)))
    return Params(sums[0][:-1], sums[0][-1], sums[1][:-1], sums[1][-1])


structured = partial(collocated, interpolates=False)
GRADIENTS = {"loop": loop, "batched": loop, "structured": structured, "collocated": collocated}  # compiled: no batches


def train_steps(params, x, t, batches, *, strategy, learning_rate, h=1e-4, memory=defaults.MEMORY):
    params, x, labels, _, h, memory = _checked(params, x, t, h, memory)
    validation.check_strategy(strategy, GRADIENTS)
    rate = x.dtype.type(validation.check_learning_rate(learning_rate, validation.dtype_name(x)))
    differentiate = partial(GRADIENTS[strategy], h=h, memory=memory) if strategy in GRADIENTS else gradient
    losses = []
    for batch in validation.check_batches(batches, len(x)):
        losses.append(_loss(*params, x[batch], labels[batch]))
        if all(np.isfinite(p).all() for p in params):  # nothing finite follows otherwise
            slope = differentiate(params, x[batch], labels[batch])
            params = Params(*(p - rate * g for p, g in zip(params, slope, strict=True)))
    return params, np.array(losses, x.dtype)


def _checked(params, x, t, h=1e-4, memory=defaults.MEMORY):
    magnitudes = check_net(params, x)
    labels = np.ascontiguousarray(validation.check_labels(t, len(x), params.b2.size))
    *members, x = map(np.ascontiguousarray, (*params, x))  # Numba compiles for each layout of its arguments
    return Params(*members), x, labels, magnitudes, validation.check_h(h), validation.check_memory(memory)


def _sum(D, shifts, count):  # of D at the shifts, or of the odd interpolant through `count` nodes, over the samples
    if count == 0:
        return np.stack([D(np.ascontiguousarray(s)).sum(axis=0) for s in shifts.T])
    total, nodes = 0, (np.abs(shifts).max() * collocation.positive_nodes(count)).astype(shifts.dtype)
    for node in nodes:  # whose odd Lagrange polynomial is 1 at the node and 0 at the others
        weights = shifts / node
        for other in nodes[nodes != node]:
            weights *= (shifts**2 - other**2) / (node**2 - other**2)
        total += weights.T @ D(np.full(len(shifts), node))
    return total


@compiled
def _sigmoid(a):
    z = np.empty_like(a)
    for b, j in np.ndindex(a.shape):
        z[b, j] = _sigmoid_of(a[b, j])
    return z


@compiled
def _sigmoid_of(a):
    tail = np.exp(-abs(a))
    return (1.0 if a >= 0 else tail) / (1.0 + tail)


@compiled
def _forward(W1, b1, W2, b2, x):
    a1 = np.dot(x, W1) + b1
    z1 = _sigmoid(a1)
    y = np.dot(z1, W2) + b2
    for b in range(len(y)):
        exponentials = np.exp(y[b] - y[b].max())
        y[b] = exponentials / exponentials.sum()
    return a1, z1, y


@compiled
def _loss(W1, b1, W2, b2, x, labels):
    y, total = _forward(W1, b1, W2, b2, x)[2], 0.0
    for b in range(len(y)):
        total -= np.log(y[b, labels[b]] + DELTA)
    return total / len(y)


@compiled
def _differences(W1, b1, W2, b2, x, labels, moved, entries, h):  # `moved` is the memory of one of the members
    differences = np.empty(entries.size, x.dtype)
    for k in range(entries.size):
        p = moved[entries[k]]
        moved[entries[k]] = p + h
        above = _loss(W1, b1, W2, b2, x, labels)
        moved[entries[k]] = p - h
        differences[k] = (above - _loss(W1, b1, W2, b2, x, labels)) / (2.0 * h)
        moved[entries[k]] = p
    return differences


@compiled
def _output_slope(y, labels):
    delta = np.empty_like(y)
    for b in range(len(y)):
        t, others = labels[b], 0.0
        scale = y[b, t] / (y[b, t] + DELTA) / len(y)
        for k in range(y.shape[1]):
            if k != t:
                delta[b, k] = y[b, k] * scale
                others += y[b, k]
        delta[b, t] = -others * scale
    return delta


@compiled
def _difference(above, below, y_t):  # D (reference/loss_difference.py)
    return np.log1p(y_t * (above - below) / ((1.0 + below) * (y_t + DELTA * (1.0 + above))))


@compiled
def _move(a, z, s):  # sigmoid(a + s) - sigmoid(a), without cancellation
    return np.tanh(s / 2.0) * (_sigmoid_of(a + s) * _sigmoid_of(-a) + _sigmoid_of(-a - s) * z)


@compiled
def _hidden_differences(a1, z1, y, W2, labels, shifts):  # (B, H), where a sample's pre-activations move by its shift
    D = np.empty_like(a1)
    for b, j in np.ndindex(a1.shape):
        t, above, below = labels[b], 0.0, 0.0
        up, down = _move(a1[b, j], z1[b, j], shifts[b]), _move(a1[b, j], z1[b, j], -shifts[b])
        for k in range(y.shape[1]):
            if k != t:
                above += y[b, k] * np.expm1(up * (W2[j, k] - W2[j, t]))
                below += y[b, k] * np.expm1(down * (W2[j, k] - W2[j, t]))
        D[b, j] = _difference(above, below, y[b, t])
    return D


@compiled
def _logit_differences(y, labels, shifts):  # (B, O), where one logit of a sample moves by its shift
    D = np.empty_like(y)
    for b in range(len(y)):
        t, others = labels[b], 0.0
        for k in range(y.shape[1]):
            if k != t:
                others += y[b, k]
                D[b, k] = _difference(y[b, k] * np.expm1(shifts[b]), y[b, k] * np.expm1(-shifts[b]), y[b, t])
        D[b, t] = _difference(others * np.expm1(-shifts[b]), others * np.expm1(shifts[b]), y[b, t])
    return D
