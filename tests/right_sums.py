"""Ports that are right and add up in another order: bounds must hold whichever a port takes."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from ports import numpy_port
from reference.collocation import make_plan, shift_scale
from reference.functions import DELTA, sigmoid
from reference.loss_difference import (
    hidden_difference,
    make_shift,
    output_difference,
    sum_powers,
    unperturbed_pass,
)
from reference.two_layer_net import Params

Sum = Callable[[np.ndarray], np.ndarray]
"""Adds up along the first axis, in the dtype of what it is given."""


def plain(terms: np.ndarray) -> np.ndarray:
    return np.add.accumulate(terms)[-1]  # one by one, which `sum` is not


def backwards(terms: np.ndarray) -> np.ndarray:
    return plain(terms[::-1])


def blocks(size: int) -> Sum:
    def total(terms: np.ndarray) -> np.ndarray:
        return plain(np.stack([plain(terms[start : start + size]) for start in range(0, len(terms), size)]))

    return total


def pairwise(terms: np.ndarray) -> np.ndarray:
    while len(terms) > 1:
        last = terms[len(terms) - len(terms) % 2 :]  # the odd one out
        terms = np.concatenate([terms[0 : len(terms) - 1 : 2] + terms[1::2], last])
    return terms[0]


def compensated(terms: np.ndarray) -> np.ndarray:
    total, lost = terms[0], np.zeros_like(terms[0])
    for term in terms[1:]:
        larger = total + (term - lost)
        lost, total = (larger - total) - (term - lost), larger
    return total


def once(terms: np.ndarray) -> np.ndarray:
    return terms.sum(axis=0, dtype=np.longdouble).astype(terms.dtype)


SUMS: dict[str, Sum] = {
    "plain": plain,
    "backwards": backwards,
    "blocks of 8": blocks(8),
    "blocks of 128": blocks(128),
    "pairwise": pairwise,
    "compensated": compensated,
    "longdouble, rounded once": once,
}


def summing(total: Sum) -> Any:
    """Return NumPy's port with all sums of its functions, but those of `batched` and `collocated`, by `total`."""

    def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return total(left.T[:, :, None] * right[:, None])

    def forward(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        a1 = product(x, params.W1) + params.b1
        a2 = product(sigmoid(a1), params.W2) + params.b2
        exponentials = np.exp(a2 - a2.max(axis=1, keepdims=True))
        return a1, sigmoid(a1), exponentials / total(exponentials.T)[:, None]

    def predict(params: Params, x: np.ndarray) -> np.ndarray:
        return forward(params, x)[2]

    def loss(params: Params, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        y_t = predict(params, x)[np.arange(len(x)), t]
        return np.asarray(total(-np.log(y_t + x.dtype.type(DELTA))) / x.dtype.type(len(x)))

    def gradient(params: Params, x: np.ndarray, t: np.ndarray) -> Params:
        a1, z1, y = forward(params, x)
        rows, y_t = np.arange(len(x)), y[np.arange(len(x)), t]
        y[rows, t] = 0
        y[rows, t] = -total(y.T)
        delta2 = y * (y_t / (y_t + x.dtype.type(DELTA)) / x.dtype.type(len(x)))[:, None]
        delta1 = product(delta2, params.W2.T) * z1 * sigmoid(-a1)
        return Params(product(x.T, delta1), total(delta1), product(z1.T, delta2), total(delta2))

    def loop(params: Params, x: np.ndarray, t: np.ndarray, *, h: float = 1e-4, **options: Any) -> Params:
        def difference(name: str, index: tuple[int, ...]) -> np.ndarray:
            either_side = []
            for step in (h, -h):
                p = getattr(params, name).copy()
                p[index] += step
                either_side.append(loss(params._replace(**{name: p}), x, t))
            return (either_side[0] - either_side[1]) / (2 * h)

        parts = ([difference(name, i) for i in np.ndindex(p.shape)] for name, p in params._asdict().items())
        return Params(*(np.reshape(part, p.shape).astype(x.dtype) for part, p in zip(parts, params, strict=True)))

    def structured(params: Params, x: np.ndarray, t: np.ndarray, *, h: float = 1e-4, **options: Any) -> Params:
        plan = make_plan(h, float(np.abs(x).max()), float(np.abs(params.W2).max()), str(x.dtype))
        scale = shift_scale(h, float(np.abs(x).max()))
        base = unperturbed_pass(params, x, t, scale, plan.terms, sum_powers)

        def units(inputs: np.ndarray) -> np.ndarray:
            shift = make_shift(h / scale * np.abs(inputs)[:, None], scale, plan.shift_terms)
            return np.sign(inputs)[:, None] * hidden_difference(base, shift, scale, plan) * (scale / h)

        def logits(inputs: np.ndarray) -> np.ndarray:
            return output_difference(base, make_shift(inputs[:, None], h, plan.output_shift_terms), h, plan)

        ones = np.ones(len(x), x.dtype)
        sums = (
            np.stack([total(units(column)) for column in x.T]),
            total(units(ones)),
            np.stack([total(logits(z)) for z in base.z1.T]),
            total(logits(ones)),
        )
        return Params(*((s / len(x)).astype(x.dtype) for s in sums))

    members = {name: getattr(numpy_port, name) for name in numpy_port.__all__}
    gradients = members["GRADIENTS"] | {"loop": loop, "structured": structured}
    return SimpleNamespace(**members | {"predict": predict, "loss": loss, "gradient": gradient, "GRADIENTS": gradients})
