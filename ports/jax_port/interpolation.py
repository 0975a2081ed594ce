"""From the differences at Chebyshev nodes to the gradient: what `collocated` adds to loss_difference.py."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ports.jax_port.functions import matmul
from ports.jax_port.loss_difference import Shift, make_shift
from reference.collocation import Plan, positive_nodes
from reference.interpolation import FLOAT32_LEAST, MIXED_LEAST, interpolation_matrix

# Not in JAX: `interpolation_matrix`: it is a constant of the plan.


class Nodes(NamedTuple):
    """What collocation needs to know of the step and the inputs."""

    scale: Array  # the unit of the hidden shifts
    input_factor: Array | None  # h / S, which takes the inputs to [-1, 1]; None for 1
    hidden: Shift  # (m, 1, 1)
    output: Shift
    hidden_matrix: Array  # (m, m), from the values at the nodes to the coefficients of the gradient
    output_matrix: Array


# Other arguments: the largest shift and its unit, which `structured` needs too, are computed before
def make_nodes(h: Array, shift: Array, scale: Array, plan: Plan) -> Nodes:
    """Prepare the nodes for the step `h` and hidden shifts of up to `shift`."""

    def constant(array: np.ndarray) -> Array:
        return jnp.asarray(array, h.dtype)

    hidden = shift / scale * constant(positive_nodes(plan.hidden_nodes))[:, None, None]
    output = constant(positive_nodes(plan.output_nodes))[:, None, None]
    return Nodes(
        scale=scale,
        input_factor=None if plan.unit_inputs else h / shift,
        hidden=make_shift(hidden, scale, plan.shift_terms),
        output=make_shift(output, h, plan.output_shift_terms),
        hidden_matrix=scale / h * constant(interpolation_matrix(plan.hidden_nodes)),
        output_matrix=constant(interpolation_matrix(plan.output_nodes)),
    )


def odd_basis(v: Array, count: int) -> list[Array]:
    """Compute the `count` functions v, v^3, T_5(v), T_7(v), ..., by T_{n+2} = 2 T_2 T_n - T_{n-2}."""
    basis = [v, v * v * v]
    before, last, twice_t2 = v, 4 * basis[1] - 3 * v, 4 * v * v - 2
    while len(basis) < count:
        before, last = last, twice_t2 * last - before
        basis.append(last)
    return basis[:count]


# Other arguments: a factor of 1 is known when the program is compiled; `guarded`: see `narrow_or_nan`
def interpolate(
    inputs: Array, factor: Array | None, values: Array, matrix: Array, mixed: bool, guarded: bool = True
) -> tuple[Array, Array]:
    """Sum the interpolated differences over the samples; the reference has the shapes. No factor stands for 1."""
    count, at_nodes = len(values), list(values)
    first, *others = coefficients = [combine(list(row), at_nodes) for row in matrix]  # of (B, H)
    one = jnp.ones((), values.dtype)
    bias_basis = odd_basis(one if factor is None else factor, count)
    bias = combine(bias_basis, [c.sum(axis=0) for c in coefficients])
    inputs = inputs if factor is None else inputs * factor
    weights = matmul(inputs.T, first)
    if count == 1:
        return weights, bias

    def add_others(dtype: np.dtype) -> Array:
        basis = odd_basis(inputs.astype(dtype), count)[1:]
        products = [matmul(b.T, c.astype(dtype)) for b, c in zip(basis, others, strict=True)]
        return sum(products[1:], products[0]).astype(values.dtype)

    if not mixed or weights.size < MIXED_LEAST:
        # Otherwise XLA adds the terms of a product with a vector to `weights` one by one, where small ones lose digits.
        return weights + lax.optimization_barrier(add_others(values.dtype)), bias
    choose = narrow_or_wide if guarded else narrow_or_nan
    return weights + choose(float32_holds(first), add_others, values.dtype), bias


def combine(factors: list[Array], arrays: list[Array]) -> Array:
    """Compute the sum of the arrays, each times its factor; a sum over an axis XLA would compute twice."""
    total = factors[0] * arrays[0]
    for factor, array in zip(factors[1:], arrays[1:], strict=True):
        total = total + factor * array
    return total


# Only in JAX: NumPy and PyTorch ask before they multiply.
def narrow_or_wide(fits: Array, product: Callable[[np.dtype], Array], dtype: np.dtype) -> Array:
    """Compute the product in float32 if that holds what it must, and else in `dtype`."""
    return lax.cond(fits, lambda: product(jnp.float32), lambda: product(dtype))


# Only in JAX: as above
def narrow_or_nan(fits: Array, product: Callable[[np.dtype], Array], dtype: np.dtype) -> Array:
    """Compute the product in float32, NaN if that does not hold what it must: the host sees it, and asks again.

    XLA fuses nothing over a condition, and waits for all before it: at the chapter's sizes a tenth of a step.
    """
    return jnp.where(fits, product(jnp.float32), jnp.asarray(jnp.nan, dtype))


def float32_holds(first: Array) -> Array:
    """Return whether float32 loses nothing that shows beside the first coefficients; see `FLOAT32_LEAST`."""
    magnitude = jnp.abs(first)
    return ((magnitude == 0) | (magnitude >= FLOAT32_LEAST)).all()
