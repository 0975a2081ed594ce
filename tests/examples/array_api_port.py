"""A fourth backend, in the Python Array API standard: `compare.py agree --port tests/examples/array_api_port.py`."""

import math
from functools import partial

import array_api_strict as xp
import numpy as np

from reference import collocation, defaults, validation
from reference.functions import DELTA
from reference.two_layer_net import Params

DEVICES = {"cpu": xp.Device("CPU_DEVICE"), "device1": xp.Device("device1")}  # their arrays can't be mixed
Array = type(xp.asarray(0))
check_net = partial(validation.check_net, array_type=Array, max_abs=lambda a: float(max(xp.max(a), -xp.min(a))))


def from_numpy(array, *, dtype, device):
    array = validation.check_numbers(array).astype(validation.check_dtype(dtype))
    return xp.asarray(array, device=DEVICES[validation.check_device(device, devices())], copy=True)


def to_numpy(array):
    return np.from_dlpack(xp.asarray(array, device=DEVICES["cpu"])).copy()


def devices():
    return tuple(DEVICES)


def synchronize(result):
    return result


def predict(params, x):
    check_net(params, x)
    return _forward(params, x)[3]


def loss(params, x, t):
    return _loss(params, x, _checked(params, x, t)[0])


def accuracy(params, x, t):
    hits = xp.argmax(predict(params, x), axis=1) == xp.argmax(_checked(params, x, t)[0], axis=1)
    return xp.mean(xp.astype(hits, x.dtype))


def gradient(params, x, t):
    right, (_, z1, w1, y) = _checked(params, x, t)[0], _forward(params, x)
    y_t, others = xp.sum(y * right, axis=1, keepdims=True), y * (1 - right)
    delta2 = (others - right * xp.sum(others, axis=1, keepdims=True)) * (y_t / (y_t + DELTA) / x.shape[0])  # (B, O)
    delta1 = (delta2 @ params.W2.T) * z1 * w1  # (B, H)
    return Params(x.T @ delta1, xp.sum(delta1, axis=0), z1.T @ delta2, xp.sum(delta2, axis=0))


def batched(params, x, t, *, h=1e-4, memory=defaults.MEMORY, entries=None, nets=1000):
    right, magnitudes, h, memory = _checked(params, x, t, h, memory)
    validation.check_h_moves(h, magnitudes, validation.dtype_name(x))
    differences = []
    for name, p, at in zip(Params._fields, params, validation.check_entries(params, entries), strict=True):
        size, parts = max(1, min(nets, memory // (100 * (math.prod(p.shape) + x.shape[0] * sum(params.W2.shape))))), []
        for start in range(0, at.size or 1, size):  # once for no entries, too: an empty array
            entry = xp.asarray(at.ravel()[start : start + size, None], device=x.device)
            moved = xp.reshape(
                xp.arange(math.prod(p.shape), device=x.device) == entry, (-1, *p.shape)
            )  # an entry of each copy
            above, below = (_loss(params._replace(**{name: xp.where(moved, p + by, p)}), x, right) for by in (h, -h))
            parts.append((above - below) / (2 * h))
        differences.append(xp.reshape(xp.concat(parts), at.shape))
    return Params(*differences)


def collocated(params, x, t, *, h=1e-4, memory=defaults.MEMORY, interpolates=True):
    right, magnitudes, h, memory = _checked(params, x, t, h, memory)
    plan = collocation.make_plan(h, magnitudes["x"], magnitudes["W2"], validation.dtype_name(x))
    if interpolates and not plan.collocates:
        collocation.warn_of_structured(h, magnitudes["x"])
    size, sums = max(1, memory // (200 * (x.shape[1] + params.b2.shape[0] * sum(params.W2.shape)))), [0, 0]
    for start in range(0, x.shape[0], size):
        rows = slice(start, min(start + size, x.shape[0]))
        for layer, (inputs, D) in enumerate(_layers(params, x[rows, :], right[rows, :])):
            shifts = h * xp.concat((inputs, xp.ones_like(inputs[:, :1])), axis=1)  # a bias is a weight of the input 1
            sums[layer] += _sum(D, shifts, plan[layer] if interpolates else 0)
    W1, W2 = (total / (2 * h * x.shape[0]) for total in sums)
    return Params(W1[:-1, :], W1[-1, :], W2[:-1, :], W2[-1, :])


loop, structured = partial(batched, nets=1), partial(collocated, interpolates=False)
GRADIENTS = {"loop": loop, "batched": batched, "structured": structured, "collocated": collocated}


def train_steps(params, x, t, batches, *, strategy, learning_rate, h=1e-4, memory=defaults.MEMORY):
    right, _, h, memory = _checked(params, x, t, h, memory)
    validation.check_strategy(strategy, GRADIENTS)
    rate, losses = validation.check_learning_rate(learning_rate, validation.dtype_name(x)), []
    differentiate = partial(GRADIENTS[strategy], h=h, memory=memory) if strategy in GRADIENTS else gradient
    for batch in validation.check_batches(batches, x.shape[0]):
        part, labels = (xp.take(array, xp.asarray(batch, device=x.device), axis=0) for array in (x, right))
        losses.append(_loss(params, part, labels))
        if all(bool(xp.all(xp.isfinite(p))) for p in params):  # nothing finite follows otherwise
            slope = differentiate(params, part, labels)
            params = Params(*(p - rate * g for p, g in zip(params, slope, strict=True)))
    return params, xp.stack(losses)


def _checked(params, x, t, h=1e-4, memory=defaults.MEMORY):
    magnitudes = check_net(params, x)
    on_host = to_numpy(t) if isinstance(t, Array) and not isinstance(t, np.ndarray) else t
    labels = validation.check_labels(on_host, x.shape[0], params.b2.shape[0])
    right = xp.asarray(np.eye(params.b2.shape[0])[labels], dtype=x.dtype, device=x.device)  # one-hot rows
    return right, magnitudes, validation.check_h(h), validation.check_memory(memory)


def _sigmoids(a):  # of a, and of -a
    tail = xp.exp(-xp.abs(a))
    large, small = 1 / (1 + tail), tail / (1 + tail)
    return xp.where(a >= 0, large, small), xp.where(a >= 0, small, large)


def _forward(params, x):  # one member may have a leading axis of perturbed copies
    a1 = x @ params.W1 + params.b1[..., None, :]
    z1, w1 = _sigmoids(a1)
    a2 = z1 @ params.W2 + params.b2[..., None, :]
    exponentials = xp.exp(a2 - xp.max(a2, axis=-1, keepdims=True))
    return a1, z1, w1, exponentials / xp.sum(exponentials, axis=-1, keepdims=True)


def _loss(params, x, right):
    return -xp.mean(xp.log(xp.sum(_forward(params, x)[3] * right, axis=-1) + DELTA), axis=-1)


def _layers(params, x, right):  # the inputs of each, and D (reference/loss_difference.py) of its units
    a1, z1, w1, y = _forward(params, x)
    y_t, others = xp.sum(y * right, axis=1, keepdims=True), (y * (1 - right))[:, :, None]
    V1 = params.W2.T - (right @ params.W2.T)[:, None, :]  # (B, O, H)
    V2 = xp.eye(y.shape[1], dtype=x.dtype, device=x.device) - right[:, None, :]  # (B, O, O)

    def move(s):  # sigmoid(a1 + s) - sigmoid(a1), without cancellation
        above, below = _sigmoids(a1 + s)
        return xp.tanh(s / 2) * (above * w1 + below * z1)

    def difference(V, move, s):  # s (B, 1), for all units; `move` is what it does to their outputs
        above, below = (xp.sum(others * xp.expm1(move(by)[:, None, :] * V), axis=1) for by in (s, -s))
        return xp.log1p(y_t * (above - below) / ((1 + below) * (y_t + DELTA * (1 + above))))

    return (x, partial(difference, V1, move)), (z1, partial(difference, V2, xp.positive))  # a logit is its own output


def _sum(D, shifts, count):  # of D at the shifts, or of the odd interpolant through `count` nodes, over the samples
    if count == 0:
        return xp.stack([xp.sum(D(s), axis=0) for s in xp.unstack(shifts[:, :, None], axis=1)])
    total, nodes = 0, (float(xp.max(xp.abs(shifts))) * collocation.positive_nodes(count)).tolist()
    for node in nodes:  # whose odd Lagrange polynomial is 1 at the node and 0 at the others
        factors = ((shifts**2 - other**2) / (node**2 - other**2) for other in nodes if other != node)
        total += xp.prod(xp.stack([shifts / node, *factors]), axis=0).T @ D(xp.full_like(shifts[:, :1], node))
    return total
