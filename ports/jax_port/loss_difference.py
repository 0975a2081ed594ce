"""The difference of one sample's loss between a shift by +s and by -s, in JAX; the reference's file derives it.

`scale` and `h` are scalars of the net's dtype, which a program takes as arguments.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import jax.numpy as jnp
from jax import Array

from ports.jax_port.functions import matmul, sigmoid, sigmoids, softmax, take
from ports.jax_port.two_layer_net import no_reduction
from reference.collocation import Plan
from reference.functions import DELTA
from reference.two_layer_net import Params

# Only in JAX: where an array must be longer than there are samples, over several devices and in slices of one length.
NO_SAMPLE = -1
"""The label of a row that stands for no sample, and the index of such a row."""


class Base(NamedTuple):
    """The unperturbed pass: what the differences need to know of it, sample by sample."""

    a1: Array  # (B, H)
    z1: Array  # (B, H), sigmoid(a1)
    one_minus_z1: Array  # (B, H), sigmoid(-a1): nothing cancels
    q: Array  # (B, 1)
    r: Array  # (B, 1), 1 - q without cancellation
    abs_delta: Array  # (B, O), y, for the right class the sum of the others
    labels: Array  # (B,); of NO_SAMPLE the loss and all differences are 0
    loss: Array  # (B, 1), of each sample
    half_margin: Array  # (B, O), (a2 - a2[t]) / 2
    half_spread: Array  # (B, O, H), scale V / 2; with power sums (B, 0, H)
    power_sums: Array  # (n, B, H), P_n; none where the exponentials are taken

    def take(self, samples: Array) -> Self:
        """Return the pass for `samples`, in their order."""
        fields = {name: take(field, samples) for name, field in self._asdict().items() if name != "power_sums"}
        return self._replace(**fields, power_sums=take(self.power_sums, samples, axis=1))


SumPowers = Callable[[Array, Array, Array, Array, int], Array]
"""From (abs_delta, W2, labels, scale, terms) to P_1, ..., P_n."""


def unperturbed_pass(
    params: Params,
    x: Array,
    labels: Array,
    scale: Array,
    terms: int,
    power_sums: SumPowers,
    all_reduce: Callable[[Array], Array] = no_reduction,
) -> Base:
    """Run the forward pass once. `terms` is n, the number of power sums; with 0 the exponentials are prepared.

    Where the label is NO_SAMPLE, no class is the right one: q is 0, and so is all that it multiplies.
    """
    z1, one_minus_z1 = sigmoids(a1 := matmul(x, params.W1) + params.b1)
    a2 = all_reduce(matmul(z1, params.W2)) + params.b2
    y = softmax(a2)
    right = labels[:, None] == jnp.arange(len(params.b2))
    y_t = jnp.where(right, y, 0).sum(axis=1, keepdims=True)
    abs_delta = jnp.where(right, jnp.where(right, 0, y).sum(axis=1, keepdims=True), y)
    half = a2 / 2  # the difference of two finite numbers may be infinite, that of their halves is not
    return Base(
        a1=a1,
        z1=z1,
        one_minus_z1=one_minus_z1,
        q=y_t / (y_t + DELTA),
        r=DELTA / (y_t + DELTA),
        abs_delta=abs_delta,
        labels=labels,
        loss=jnp.where(labels[:, None] == NO_SAMPLE, 0, -jnp.log(y_t + DELTA)),
        half_margin=half - jnp.where(right, half, 0).sum(axis=1, keepdims=True),
        half_spread=jnp.empty((len(x), 0, len(params.b1))) if terms else scale * halved_spread(params.W2, labels),
        power_sums=power_sums(abs_delta, params.W2, labels, scale, terms),
    )


def halved_spread(W2: Array, labels: Array) -> Array:
    """Compute V / 2, (B, O, H), which is finite wherever W2 is; 0 where there is no sample."""
    half = W2.T / 2
    return jnp.where(labels[:, None, None] == NO_SAMPLE, 0, half - take(half, labels)[:, None])


def sum_powers(abs_delta: Array, W2: Array, labels: Array, scale: Array, terms: int) -> Array:
    """Compute P_1, ..., P_n, (n, B, H), from V itself, to a few roundings also where columns of W2 are alike."""
    if terms == 0:
        return jnp.empty((0, len(labels), len(W2)), W2.dtype)
    V = W2.T - take(W2.T, labels)[:, None]  # (B, O, H), 0 for the right class
    power_sums, product = [], abs_delta[:, :, None] * V
    for n in range(terms):
        power_sums.append(product.sum(axis=1))
        product = product * (scale * V / (n + 2))
    return jnp.stack(power_sums)


def multiply_powers(abs_delta: Array, W2: Array, labels: Array, scale: Array, terms: int) -> Array:
    """Compute P_1, ..., P_n, (n, B, H), by matrix products with powers of W2: there is no array over (B, O, H)."""
    if terms == 0:
        return jnp.empty((0, len(labels), len(W2)), W2.dtype)
    delta = jnp.where(labels[:, None] == jnp.arange(W2.shape[1]), -abs_delta, abs_delta)
    R, power, scaled = [], W2.T, scale * W2.T  # (O, H)
    for r in range(terms):
        R.append(matmul(delta, power))
        power = power * (scaled / (r + 2))
    return jnp.stack([binomial_sum(R[:n], -take(scaled, labels)) for n in range(1, terms + 1)])


def binomial_sum(R: list[Array], c: Array) -> Array:
    """Compute sum_r R_r c^(n - r) / (n - r)!, r = 1, ..., n, by Horner's rule; n = len(R)."""
    total = R[0]
    for r in range(1, len(R)):
        total = total * c / (len(R) - r) + R[r]
    return total


class Shift(NamedTuple):
    """Shifts by +scale v and by -scale v."""

    v: Array  # v >= 0
    e: Array  # (2, ...), expm1(+-scale v) / scale


def make_shift(v: Array, scale: Array, terms: int) -> Shift:
    """Prepare the shifts by +-scale v, v of at least two axes."""
    return Shift(v, scaled_expm1(jnp.stack((v, -v)), scale, terms))


def hidden_difference(base: Base, shift: Shift, scale: Array, plan: Plan) -> Array:
    """Compute D / (2 scale) for the shift of each hidden unit's input.

    `shift` broadcasts against (B, H), and so does the result.
    """
    moves = unit_moves(base, shift, scale, plan)
    if not plan.terms:
        return difference_by_exponentials(base, moves[0], moves[1], scale)
    if plan.linear:
        return base.q / 2 * base.power_sums[0] * (moves[0] - moves[1])
    above, below = polynomial(base.power_sums, moves)
    mean = (1 + base.r) / 2 * (above + below) + scale * base.r * above * below
    return scaled_arctanh(base.q / 2 * (above - below) / (1 + scale * mean), scale, plan.arctanh_terms)


def unit_moves(base: Base, shift: Shift, scale: Array, plan: Plan) -> Array:
    """Compute dz / scale for the shifts to either side, (2, ..., B, H)."""
    if plan.small_shifts:
        return base.z1 * base.one_minus_z1 / (scale * base.z1 + 1 / shift.e)
    s, e = scale * shift.v, shift.e[1]  # the denominators would cancel
    return jnp.stack((-sigmoid(base.a1 + s) * base.one_minus_z1 * e, base.z1 * sigmoid(s - base.a1) * e))


def polynomial(power_sums: Array, dz: Array) -> Array:
    """Compute sum_n P_n dz^n by Horner's rule."""
    total = power_sums[-1] * dz
    for P in power_sums[-2::-1]:
        total = (total + P) * dz
    return total


def difference_by_exponentials(base: Base, up: Array, down: Array, scale: Array) -> Array:
    """Compute D / (2 scale) for moves of any size, which are divided by `scale`."""
    above, below = cut_exponents(base, up, base.half_margin), cut_exponents(base, down, base.half_margin)
    apart, larger = cut_exponents(base, up - down, jnp.zeros_like(base.half_margin)), jnp.maximum(above, below)
    top = larger.max(axis=-2, keepdims=True)
    change = -(jnp.sign(apart) * jnp.exp(larger - top) * jnp.expm1(-jnp.abs(apart))).sum(axis=-2)
    (plus, plus_sum), (minus, minus_sum) = scaled_exponential_sum(above), scaled_exponential_sum(below)
    rises = change > 0
    lesser, lesser_log = jnp.where(rises, minus, plus), jnp.log(jnp.where(rises, minus_sum, plus_sum))
    greater = jnp.where(rises, plus + jnp.log(plus_sum), minus + jnp.log(minus_sum))
    exponent = (top[..., 0, :] - lesser) - lesser_log - jnp.logaddexp(math.log(DELTA) + greater, 0)
    return jnp.sign(change) * jnp.log1p(jnp.abs(change) * jnp.exp(exponent)) / (2 * scale)


def cut_exponents(base: Base, move: Array, half_margin: Array) -> Array:
    """Compute 2 half_margin + dz V, (..., B, O, H), and cut it to a quarter of the dtype's range."""
    most = jnp.finfo(move.dtype).max / 8
    half = jnp.clip(half_margin, -most, most)[:, :, None] + move[..., None, :] * base.half_spread
    return 2 * jnp.clip(half, -most, most)


def scaled_exponential_sum(exponents: Array) -> tuple[Array, Array]:
    """Return (m, s) with sum_k exp(exponents) = exp(m) s."""
    top = exponents.max(axis=-2, keepdims=True)
    return top[..., 0, :], jnp.exp(exponents - top).sum(axis=-2)


def output_difference(base: Base, shift: Shift, h: Array, plan: Plan) -> Array:
    """Compute D / (2 h) for the shift of each logit; `shift` broadcasts against (B, O), and so does the result."""
    e, f = shift.e
    ratio = (e - f) * (base.q / 2) * base.abs_delta
    if not plan.output_linear:
        denominator = base.r * (h * e) * (h * f) * base.abs_delta + h * (e + f) * ((1 + base.r) / 2)
        ratio = ratio / (1 + denominator * base.abs_delta)
    right = base.labels[:, None] == jnp.arange(base.abs_delta.shape[1])
    differences = scaled_arctanh(ratio, h, plan.output_arctanh_terms)
    return jnp.where(right, -differences, differences)


def scaled_expm1(v: Array, scale: Array, terms: int) -> Array:
    """Compute expm1(scale v) / scale by `terms` terms of its series; 0 stands for the function itself.

    XLA's own is off by up to 5 roundings (measured on the CPU), the series by little over one.
    """
    if terms == 0:
        return jnp.expm1(scale * v) / scale
    total = jnp.ones_like(v)
    for n in range(terms, 1, -1):
        total = 1 + scale * v / n * total
    return v * total


def scaled_arctanh(v: Array, scale: Array, terms: int) -> Array:
    """Compute arctanh(scale v) / scale by `terms` terms of its series; 0 stands for the function itself.

    XLA's own is made of log1p, which in float64 is off by up to 240 roundings for arguments in (-0.6, -0.35).
    """
    if terms == 0:
        size = jnp.abs(scale * v)
        return jnp.sign(v) * jnp.log1p(2 * size / (1 - size)) / (2 * scale)
    total, square = jnp.zeros_like(v), (scale * v) ** 2
    for n in range(terms, 1, -1):
        total = square * (total + 1 / (2 * n - 1))
    return v * (1 + total)
