"""The chapter's three functions, and what else the net is made of, as parts of compiled programs."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from reference.functions import DELTA

matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
"""The matrix product in full precision, which by default accelerators do not use."""
take = partial(jnp.take, axis=0, mode="clip")
"""The rows at indices that are in bounds, and the first one for -1: JAX's own indexing compiles more, for any index."""
softmax = jax.nn.softmax
"""exp(a) / sum(exp(a)) along the last axis; JAX subtracts the maximum first."""


def sigmoid(a: Array) -> Array:
    """Compute 1 / (1 + exp(-a)) to a few roundings relative to the result, also where it is tiny."""
    return sigmoids(a)[0]


def sigmoids(a: Array) -> tuple[Array, Array]:
    """Compute sigmoid(a) and sigmoid(-a), which is 1 - sigmoid(a) without cancellation, from one exponential."""
    tail = jnp.exp(-jnp.abs(a))
    total = 1 + tail
    return jnp.where(a >= 0, 1, tail) / total, jnp.where(a <= 0, 1, tail) / total


def cross_entropy_error(y: Array, t: Array) -> Array:
    """Compute -mean(log(y[b, t_b] + DELTA)) over the samples b."""
    right = jnp.take_along_axis(y, t[:, None], axis=1, mode="clip")
    return -jnp.log(right + DELTA).mean()
