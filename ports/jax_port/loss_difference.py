"""The difference of one sample's loss between a shift by +s and by -s, in JAX; the reference's file derives it."""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import jax.numpy as jnp
from jax import Array

from ports.jax_port.functions import expm1, matmul, sigmoid, softmax
from ports.jax_port.two_layer_net import no_reduction
from reference.collocation import Plan
from reference.functions import DELTA
from reference.two_layer_net import Params


class Base(NamedTuple):
    """The unperturbed pass: what the differences need to know of it, sample by sample."""

    a1: Array  # (B, H)
    z1: Array  # (B, H), sigmoid(a1)
    one_minus_z1: Array  # (B, H), sigmoid(-a1): nothing cancels
    q: Array  # (B, 1)
    r: Array  # (B, 1), 1 - q without cancellation
    abs_delta: Array  # (B, O), y, for the right class the sum of the others
    sign: Array  # (B, O), -1 for the right class and 1 for the others
    loss: Array  # (B, 1), of each sample
    margin: Array  # (B, O), a2 - a2[t]
    power_sums: Array  # (B, n, H), M_n; with no terms V itself, (B, O, H)

    def take(self, samples: Array) -> Self:
        """Return the pass for `samples`, in their order."""
        return type(self)(*(field[samples] for field in self))


def unperturbed_pass(
    params: Params, x: Array, labels: Array, terms: int, all_reduce: Callable[[Array], Array] = no_reduction
) -> Base:
    """Run the forward pass once. `terms` is n, the number of power sums; 0 stands for V itself."""
    a1 = matmul(x, params.W1) + params.b1
    z1 = sigmoid(a1)
    a2 = all_reduce(matmul(z1, params.W2)) + params.b2
    y = softmax(a2)
    right = labels[:, None] == jnp.arange(len(params.b2))
    y_t = jnp.where(right, y, 0).sum(axis=1, keepdims=True)
    others = jnp.where(right, 0, y)
    V = params.W2.T - params.W2.T[labels][:, None]  # (B, O, H)
    return Base(
        a1=a1,
        z1=z1,
        one_minus_z1=sigmoid(-a1),
        q=y_t / (y_t + DELTA),
        r=DELTA / (y_t + DELTA),
        abs_delta=jnp.where(right, others.sum(axis=1, keepdims=True), y),
        sign=jnp.where(right, -1, 1).astype(y.dtype),
        loss=-jnp.log(y_t + DELTA),
        margin=a2 - jnp.where(right, a2, 0).sum(axis=1, keepdims=True),
        power_sums=sum_powers(others, V, terms) if terms else V,
    )


def sum_powers(others: Array, V: Array, terms: int) -> Array:
    """Compute M_1 .. M_n, (B, n, H), from V itself."""
    power_sums, product = [], others[:, :, None]
    for n in range(terms):
        product = product * (V / (n + 1))
        power_sums.append(product.sum(axis=1))
    return jnp.stack(power_sums, axis=1)


def hidden_difference(base: Base, s: Array, plan: Plan) -> Array:
    """Compute D(s), s >= 0 the shift of each hidden unit's input; s broadcasts against (B, H), as the result does."""
    e = expm1(-s, plan.shift_terms)
    if plan.small_shifts:
        slope = -base.z1 * base.one_minus_z1 * e
        up, down = slope / (1 + base.one_minus_z1 * e), slope / (1 + base.z1 * e)
    else:  # the denominators would cancel
        up, down = -sigmoid(base.a1 + s) * base.one_minus_z1 * e, -base.z1 * sigmoid(s - base.a1) * e
    return difference_by_power_sums(base, up, down) if plan.terms else difference_by_exponentials(base, up, down)


def difference_by_power_sums(base: Base, up: Array, down: Array) -> Array:
    """Compute D(s) for moves `up` and `down` of the units' outputs that the power sums are exact for."""
    above, below = polynomial(base.power_sums, up), polynomial(base.power_sums, -down)
    return jnp.log1p(base.q * (above - below) / ((1 + below) * (1 + base.r * above)))


def polynomial(power_sums: Array, dz: Array) -> Array:
    """Compute S = sum_n M_n dz^n by Horner's rule."""
    total = power_sums[:, -1] * dz
    for n in range(power_sums.shape[1] - 2, -1, -1):
        total = (total + power_sums[:, n]) * dz
    return total


def difference_by_exponentials(base: Base, up: Array, down: Array) -> Array:
    """Compute D(s) for moves of any size."""
    V, margin = base.power_sums, base.margin[:, :, None]  # (B, O, H), (B, O, 1)
    above, below = margin + up[..., None, :] * V, margin - down[..., None, :] * V
    apart, larger = (up + down)[..., None, :] * V, jnp.maximum(above, below)
    top = larger.max(axis=-2, keepdims=True)
    change = -(jnp.sign(apart) * jnp.exp(larger - top) * jnp.expm1(-jnp.abs(apart))).sum(axis=-2)
    (plus, plus_sum), (minus, minus_sum) = scaled_exponential_sum(above), scaled_exponential_sum(below)
    rises = change > 0
    lesser, lesser_log = jnp.where(rises, minus, plus), jnp.log(jnp.where(rises, minus_sum, plus_sum))
    greater = jnp.where(rises, plus + jnp.log(plus_sum), minus + jnp.log(minus_sum))
    exponent = (top[..., 0, :] - lesser) - lesser_log - jnp.logaddexp(math.log(DELTA) + greater, 0)
    return jnp.sign(change) * jnp.log1p(jnp.abs(change) * jnp.exp(exponent))


def scaled_exponential_sum(exponents: Array) -> tuple[Array, Array]:
    """Return (m, s) with sum_k exp(exponents) = exp(m) s."""
    top = exponents.max(axis=-2, keepdims=True)
    return top[..., 0, :], jnp.exp(exponents - top).sum(axis=-2)


def output_difference(base: Base, s: Array, plan: Plan) -> Array:
    """Compute D(s) for the shift s >= 0 of each logit; s broadcasts against (B, O), and so does the result."""
    e, f = expm1(s, plan.shift_terms), expm1(-s, plan.shift_terms)
    above, below = base.abs_delta * e, base.abs_delta * f
    return base.sign * jnp.log1p(base.q * base.abs_delta * (e - f) / ((1 + below) * (1 + base.r * above)))
