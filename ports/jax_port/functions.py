"""The chapter's three functions, and what else the net is made of, as parts of compiled programs."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from reference.functions import DELTA

matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
"""The matrix product in full precision, which by default accelerators do not use."""
softmax = jax.nn.softmax
"""exp(a) / sum(exp(a)) along the last axis; JAX subtracts the maximum first."""


def sigmoid(a: Array) -> Array:
    """Compute 1 / (1 + exp(-a)) to a few roundings relative to the result, also where it is tiny."""
    tail = jnp.exp(-jnp.abs(a))
    return jnp.where(a >= 0, 1, tail) / (1 + tail)


def cross_entropy_error(y: Array, t: Array) -> Array:
    """Compute -mean(log(y[b, t_b] + DELTA)) over the samples b."""
    right = jnp.take_along_axis(y, t[:, None], axis=1)
    return -jnp.log(right + DELTA).mean()


def expm1(v: Array, terms: int) -> Array:
    """Compute exp(v) - 1, by a series where `terms` of it are exact, which is not 0.

    XLA's own is off by up to 5 roundings (measured on the CPU), the series by little over one.
    """
    if terms == 0:
        return jnp.expm1(v)
    total = jnp.ones_like(v)
    for n in range(terms, 1, -1):
        total = 1 + v / n * total
    return v * total
