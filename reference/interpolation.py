"""From the differences at Chebyshev nodes to the gradient: what `collocated` adds to reference/loss_difference.py."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np

from reference.collocation import Plan, chebyshev_transform, largest_shift, positive_nodes, shift_scale
from reference.loss_difference import Shift, make_shift

Array = TypeVar("Array", bound=Any)

FLOAT32_LEAST = 2.0**-60
"""Where the first coefficient is 0 or at least as large as this, float32 holds the others' products, or loses nothing.

With t = 2^-126, its least normal number, and rho <= 2^-27, the second coefficient relative to the first, c, a product
c rho v^3 with an input v <= 1 is lost where it is below t. Relative to c v that is at most min(rho v^2, t / (c v)), and
for the worst v rho^(1/3) (t / c)^(2/3): at most u = 2^-53 from c = t rho^(1/2) / u^(3/2) = 2^-60 on.
"""
MIXED_LEAST = 10_000
"""Entries of a weight from which on a product in float32 saves more time than it takes to ask for it."""


class Nodes(NamedTuple):
    """What collocation needs to know of the step and the inputs, made once for many gradients."""

    scale: float  # the unit of the hidden shifts
    input_factor: float  # h / S, which takes the inputs to [-1, 1]
    hidden: Shift  # (m, 1, 1)
    output: Shift
    hidden_matrix: np.ndarray  # (m, m), from the values at the nodes to the coefficients of the gradient
    output_matrix: np.ndarray


@lru_cache  # bounded: max|x| may differ from batch to batch
def make_nodes(h: float, max_abs_x: float, plan: Plan, dtype: np.dtype) -> Nodes:
    """Prepare the nodes for the step `h` and inputs of up to `max_abs_x`."""
    shift, scale = largest_shift(h, max_abs_x), shift_scale(h, max_abs_x)
    hidden = (shift / scale * positive_nodes(plan.hidden_nodes)).astype(dtype)[:, None, None]
    output = positive_nodes(plan.output_nodes).astype(dtype)[:, None, None]
    return Nodes(
        scale=scale,
        input_factor=h / shift,
        hidden=make_shift(hidden, scale, plan.shift_terms),
        output=make_shift(output, h, plan.output_shift_terms),
        hidden_matrix=scale / h * interpolation_matrix(plan.hidden_nodes),
        output_matrix=interpolation_matrix(plan.output_nodes),
    )


def interpolation_matrix(count: int) -> np.ndarray:
    """Return the matrix from an odd function's values at the nodes to its coefficients of v, v^3, T_5, T_7, ....

    v^3 costs less than T_3 = 4 v^3 - 3 v.
    """
    matrix = chebyshev_transform(count)
    if count > 1:
        matrix[0] -= 3 * matrix[1]
        matrix[1] *= 4
    return matrix


def odd_basis(v: Array, count: int) -> list[Array]:
    """Compute the `count` functions v, v^3, T_5(v), T_7(v), ..., by T_{n+2} = 2 T_2 T_n - T_{n-2}."""
    basis = [v]
    if count > 1:
        cube = v * v
        cube *= v
        basis.append(cube)
    if count > 2:
        before, last, twice_T2 = v, 4 * cube - 3 * v, 4 * v * v - 2
        for _ in range(2, count):
            before, last = last, twice_T2 * last - before
            basis.append(last)
    return basis


def interpolate(
    inputs: np.ndarray, factor: float, values: np.ndarray, matrix: np.ndarray, mixed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Sum the interpolated differences over the samples.

    Parameters
    ----------
    inputs : (B, I) array
        Inputs of the layer; a bias has the input 1.
    factor : float
        What takes the inputs to [-1, 1].
    values : (m, B, H) array
        The differences at the nodes.
    matrix : (m, m) array
        From the values at the nodes to the coefficients of v, v^3, T_5(v), ...
    mixed : bool
        Whether float32 serves for all but the first product, where it holds what it must.

    Returns
    -------
    (I, H) array, (H,) array
    """
    coefficients = [combine(row, values) for row in matrix.astype(values.dtype)]  # of (B, H)
    bias = combine(odd_basis(values.dtype.type(factor), len(values)), [c.sum(axis=0) for c in coefficients])
    inputs = inputs if factor == 1 else inputs * factor
    weights = inputs.T @ coefficients[0]
    if len(values) > 1:
        narrow = mixed and weights.size >= MIXED_LEAST and float32_holds(coefficients[0])
        dtype = np.float32 if narrow else values.dtype
        basis = odd_basis(inputs.astype(dtype, copy=False), len(values))
        for b, c in zip(basis[1:], coefficients[1:], strict=True):
            weights += b.T @ c.astype(dtype, copy=False)
    return weights, bias


def combine(factors: Sequence[Any], arrays: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Compute the sum of the arrays, each times its factor: for few and small ones faster than np.tensordot."""
    total = factors[0] * arrays[0]
    for factor, array in zip(factors[1:], arrays[1:], strict=True):
        total += factor * array
    return total


def float32_holds(first: np.ndarray) -> bool:
    """Return whether float32 loses nothing that shows beside the first coefficients; see `FLOAT32_LEAST`."""
    magnitude = np.abs(first)
    return bool(magnitude.min() >= FLOAT32_LEAST or ((magnitude == 0) | (magnitude >= FLOAT32_LEAST)).all())
