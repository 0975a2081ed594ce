"""A fourth backend in one file: `compare.py agree --port tests/examples/array_api_port.py`.

Written in the Python Array API standard, on `array_api_strict`, which has nothing but the standard, and devices that
don't mix. reference/difference.py derives D, and reference/collocation.py the nodes.
"""

from functools import partial

import array_api_strict as xp
import numpy as np

from reference import collocation, validation
from reference.functions import DELTA
from reference.two_layer_net import Params

DEVICES = dict(zip(("cpu", "device1"), xp.__array_namespace_info__().devices(), strict=False))
ARRAY = type(xp.asarray(0))
check_net = partial(validation.check_net, array_type=ARRAY, largest=lambda array: float(xp.max(xp.abs(array))))


def from_numpy(array, *, dtype, device):
    array = validation.check_numbers(array).astype(validation.check_dtype(dtype))
    return xp.asarray(array, device=DEVICES[validation.check_device(device, devices())], copy=True)


def to_numpy(array):
    return np.from_dlpack(array.to_device(DEVICES["cpu"])).copy()


def devices():
    return tuple(DEVICES)


def synchronize(result):
    return result


def predict(params, x):
    check_net(params, x)
    return _forward(params, x)[2]


def loss(params, x, t):
    return _loss(params, x, _checked(params, x, t)[0])


def accuracy(params, x, t):
    right, _ = _checked(params, x, t)
    hits = xp.argmax(predict(params, x), axis=1) == xp.argmax(right, axis=1)
    return xp.mean(xp.astype(hits, x.dtype))


def gradient(params, x, t):
    (right, _), (a1, z1, y) = _checked(params, x, t), _forward(params, x)
    y_t, others = xp.sum(y * right, axis=1, keepdims=True), y * (1 - right)
    delta2 = (others - right * xp.sum(others, axis=1, keepdims=True)) * (y_t / (y_t + DELTA) / x.shape[0])  # (B, O)
    delta1 = (delta2 @ params.W2.T) * z1 * _sigmoid(-a1)  # (B, H)
    return Params(x.T @ delta1, xp.sum(delta1, axis=0), z1.T @ delta2, xp.sum(delta2, axis=0))


def batched(params, x, t, *, h=1e-4, memory=validation.MEMORY, entries=None, nets=1000):
    right, sizes = _checked(params, x, t, memory)
    validation.check_step_moves(validation.check_step(h), sizes, validation.dtype_name(x))
    found = []
    for name, p, at in zip(Params._fields, params, validation.check_entries(params, entries), strict=True):
        size = min(nets, 1 + int(memory) // (100 * (p.size + x.shape[0] * sum(params.W2.shape))))
        parts = [_like(x, [])]
        for start in range(0, at.size, size):
            entry = xp.asarray(at.ravel()[start : start + size, None], device=x.device)
            moved = xp.reshape(xp.arange(p.size, device=x.device) == entry, (-1, *p.shape))  # an entry of each copy
            above, below = (_loss(params._replace(**{name: xp.where(moved, p + by, p)}), x, right) for by in (h, -h))
            parts.append((above - below) / (2 * h))
        found.append(xp.reshape(xp.concat(parts), at.shape))
    return Params(*found)


def structured(params, x, t, *, h=1e-4, memory=validation.MEMORY):
    def by_input(layer, inputs, D):  # the sum over the samples of the differences of each weight
        shifts = xp.unstack(h * inputs[:, :, None], axis=1)
        return xp.stack([xp.sum(xp.sign(s) * D(layer, xp.abs(s)), axis=0) for s in shifts])

    return _summed(by_input, params, x, _checked(params, x, t, memory)[0], validation.check_step(h), memory)


def collocated(params, x, t, *, h=1e-4, memory=validation.MEMORY):
    right, sizes = _checked(params, x, t, memory)
    needs = collocation.plan(validation.check_step(h), sizes["x"], sizes["W2"], validation.dtype_name(x))
    if not needs.collocates:
        collocation.warn_of_structured(h, sizes["x"])
        return structured(params, x, t, h=h, memory=memory)

    def by_nodes(layer, inputs, D):
        count, reach = needs[layer], (collocation.reach(h, sizes["x"]), h)[layer]
        values = D(layer, _like(x, reach * collocation.positive_nodes(count)[:, None, None]))  # (m, B, units)
        coefficients = xp.tensordot(_like(x, collocation.chebyshev_transform(count)), values, axes=1)
        v = inputs * (h / reach)
        before, basis, total = v, v, 0  # T_-1 and T_1
        for n in range(count):
            total += basis.T @ coefficients[n, ...]
            before, basis = basis, (4 * v**2 - 2) * basis - before  # T_{n+2} = 2 T_2 T_n - T_{n-2}
        return total

    return _summed(by_nodes, params, x, right, h, memory)


loop = partial(batched, nets=1)
GRADIENTS = {"loop": loop, "batched": batched, "structured": structured, "collocated": collocated}
TRAINABLE = (gradient, *GRADIENTS.values())


def train_steps(params, x, t, batches, *, gradient, learning_rate, h=1e-4, memory=validation.MEMORY):
    right, _ = _checked(params, x, t, memory)
    validation.check_gradient(gradient, TRAINABLE)
    rate, losses = validation.check_learning_rate(learning_rate), []
    options = {"h": validation.check_step(h), "memory": memory} if gradient in TRAINABLE[1:] else {}
    for batch in validation.check_batches(batches, x.shape[0]):
        inputs, labels = (xp.take(array, xp.asarray(batch, device=x.device), axis=0) for array in (x, right))
        slope = gradient(params, inputs, labels, **options)
        losses.append(_loss(params, inputs, labels))
        params = Params(*(p - rate * g for p, g in zip(params, slope, strict=True)))
    return params, xp.stack(losses)


def _checked(params, x, t, memory=validation.MEMORY):
    validation.check_memory(memory)
    sizes = check_net(params, x)
    labels = validation.check_labels(to_numpy(t) if isinstance(t, ARRAY) else t, x.shape[0], params.b2.size)
    return _like(x, np.eye(params.b2.size)[labels]), sizes  # one-hot rows


def _like(x, values):
    return xp.asarray(np.asarray(values), dtype=x.dtype, device=x.device)


def _sigmoid(a):
    tail = xp.exp(-xp.abs(a))
    return xp.where(a >= 0, xp.ones_like(a), tail) / (1 + tail)


def _forward(params, x):  # one member may have a leading axis of perturbed copies
    a1 = x @ params.W1 + params.b1[..., None, :]
    a2 = _sigmoid(a1) @ params.W2 + params.b2[..., None, :]
    exponentials = xp.exp(a2 - xp.max(a2, axis=-1, keepdims=True))
    return a1, _sigmoid(a1), exponentials / xp.sum(exponentials, axis=-1, keepdims=True)


def _loss(params, x, right):
    return -xp.mean(xp.log(xp.sum(_forward(params, x)[2] * right, axis=-1) + DELTA), axis=-1)


def _summed(of_layer, params, x, right, h, memory):
    """Return the gradient; `of_layer(layer, inputs, D)` sums the differences of a layer over some samples."""
    size, sums = 1 + int(memory) // (1000 * params.W2.size * params.b2.size), []  # samples at a time
    for start in range(0, x.shape[0], size):
        rows = slice(start, min(start + size, x.shape[0]))
        D, inputs = _differences(params, x[rows, :], right[rows, :])
        sums.append([of_layer(layer, array, D) for layer, array in enumerate(inputs)])
    W1, W2 = (xp.sum(xp.stack(parts), axis=0) / (2 * h * x.shape[0]) for parts in zip(*sums, strict=True))
    return Params(W1[:-1, :], W1[-1, :], W2[:-1, :], W2[-1, :])


def _differences(params, x, right):
    """Return D as a function of the layer and of the shifts of its units' inputs, and the inputs of both layers."""
    a1, z1, y = _forward(params, x)
    y_t, others = xp.sum(y * right, axis=1, keepdims=True), (y * (1 - right))[:, :, None]
    V = (params.W2.T - (right @ params.W2.T)[:, None, :], _like(x, np.eye(y.shape[1])) - right[:, None, :])

    def difference(layer, s):
        up, down = s, s  # how far the output of a unit moves: a logit is its own output
        if layer == 0:
            up, down = (_sigmoid(a) * -xp.expm1(-s) for a in (a1 + s, s - a1))
            up, down = up * _sigmoid(-a1), down * z1
        above, below = (xp.sum(others * xp.expm1(by[..., None, :] * V[layer]), axis=-2) for by in (up, -down))
        return xp.log1p(y_t * (above - below) / ((1 + below) * (y_t + DELTA * (1 + above))))

    bias = xp.ones_like(x[:, :1])  # a weight whose input is 1
    return difference, [xp.concat((inputs, bias), axis=1) for inputs in (x, z1)]
