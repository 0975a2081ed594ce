"""The gradient as central differences, (loss(p + h) - loss(p - h)) / (2 h) for every parameter p: four strategies.

Each checks its arguments and runs one compiled program. There `h` is an argument, a scalar of the net's dtype: another
h does not compile the program anew.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ports.jax_port.functions import matmul, take
from ports.jax_port.interpolation import Nodes, interpolate, make_nodes
from ports.jax_port.loss_difference import (
    NO_SAMPLE,
    Base,
    hidden_difference,
    make_shift,
    multiply_powers,
    output_difference,
    sum_powers,
    unperturbed_pass,
)
from ports.jax_port.runtime import compiled, with_x64
from ports.jax_port.two_layer_net import check_batch, loss_of_labels, no_reduction
from reference.collocation import Plan, make_plan, warn_of_structured
from reference.defaults import MEMORY, H
from reference.two_layer_net import Params
from reference.validation import Entries, check_entries, check_h, check_h_moves

PAIRS = 512
"""Pairs of sample and input that `structured` works on at a time."""
NETS = 32
"""Parameters that `batched` moves at a time, at most, each to either side: more would only leave the cache."""


@with_x64
def loop(
    params: Params, x: Array, t: Any, *, h: float = H, memory: float = MEMORY, entries: Params | None = None
) -> Params:
    """Compute the central differences one parameter at a time: two full forward passes each, in one compiled loop."""
    h = check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    check_h_moves(h, magnitudes, str(x.dtype))
    return compiled(loop_differences)(params, x, labels, x.dtype.type(h), check_entries(params, entries))


def loop_differences(params: Params, x: Array, labels: Array, h: Array, entries: Entries) -> Params:
    """Compute the differences at the flat indices `entries` of each member."""
    members = enumerate(zip(params, entries, strict=True))
    return Params(*(loop_member(params, p, at, x, labels, h, m) for m, (p, at) in members))


def loop_member(moved: Params, p: Array, at: Any, x: Array, labels: Array, h: Array, member: int) -> Array:
    """Compute the differences of one member, `p`, by its index: in `moved`, copies with one entry moved replace it."""

    def loss_at(entry: Array, value: Array) -> Array:
        copy = p.ravel().at[entry].set(value).reshape(p.shape)
        return loss_of_labels(moved._replace(**{Params._fields[member]: copy}), x, labels)

    def difference(entry: Array) -> Array:
        value = p.ravel()[entry]
        above, below = loss_at(entry, value + h), loss_at(entry, value - h)
        return (above - below) / (2 * h)

    return lax.map(difference, at.ravel()).reshape(at.shape)


@with_x64
def batched(
    params: Params, x: Array, t: Any, *, h: float = H, memory: float = MEMORY, entries: Params | None = None
) -> Params:
    """Compute what `loop` computes, by forward passes of many perturbed nets at a time: as many as fit `memory`."""
    h = check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    check_h_moves(h, magnitudes, str(x.dtype))
    chosen = check_entries(params, entries)
    return compiled(batched_differences)(params, x, labels, x.dtype.type(h), int(memory), chosen)


def batched_differences(params: Params, x: Array, labels: Array, h: Array, memory: int, entries: Entries) -> Params:
    """Compute the differences at the flat indices `entries` of each member."""
    return Params(*(batched_member(params, m, at, x, labels, h, memory) for m, at in enumerate(entries)))


def batched_member(params: Params, member: int, at: Any, x: Array, labels: Array, h: Array, memory: int) -> Array:
    """Compute the differences of one member, by its index, at the flat indices `at`."""
    p, flat = params[member], at.ravel()
    size = max(1, min(NETS, memory // perturbed_bytes(params, member, len(x))))
    axis = p.ndim - 1  # of the copies: last but one, so that vmap makes one large matrix product of theirs

    def differences(entry: Array) -> Array:
        copies = jnp.broadcast_to(jnp.expand_dims(p, axis), (*p.shape[:-1], 2 * len(entry), p.shape[-1]))
        return copies_differences(params, copies, entry, p.ravel()[entry], x, labels, h, member)

    if not flat.size:
        return jnp.zeros(at.shape, p.dtype)
    count = -(-flat.size // size)
    chunks = jnp.pad(flat, (0, -flat.size % count)).reshape(count, -1)  # a shorter one would be compiled, too
    return lax.map(differences, chunks).ravel()[: flat.size].reshape(at.shape)


def copies_differences(
    perturbed: Params, copies: Array, entry: Array, value: Array, x: Array, labels: Array, h: Array, member: int
) -> Array:
    """Compute the differences by copies of one member, two for each entry, which replace it in `perturbed`."""
    axis = copies.ndim - 2
    axes = Params(*(axis if m == member else None for m in range(4)))
    *row, column = jnp.unravel_index(jnp.tile(entry, 2), perturbed[member].shape)
    moved = copies.at[*row, jnp.arange(2 * len(entry)), column].set(jnp.concatenate((value + h, value - h)))
    nets = perturbed._replace(**{Params._fields[member]: moved})
    above, below = jax.vmap(loss_of_labels, in_axes=(axes, None, None))(nets, x, labels).reshape(2, -1)
    return (above - below) / (2 * h)


def perturbed_bytes(params: Params, member: int, samples: int) -> int:
    """Return the bytes of one perturbed net: its copy to either side, and the arrays of its forward pass."""
    hidden, outputs = params.W2.shape
    units = hidden + outputs if member < 2 else outputs
    return int((3 * params[member].size + 5 * samples * units) * params.W1.itemsize)


@with_x64
def structured(params: Params, x: Array, t: Any, *, h: float = H, memory: float = MEMORY) -> Params:
    """Compute what `loop` computes, to a few roundings: only what a perturbation reaches, and without cancellation."""
    h = check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    plan = make_plan(h, magnitudes["x"], magnitudes["W2"], str(x.dtype))
    scalar = x.dtype.type
    program = compiled(structured_gradient, 1)
    return program(params, x, labels, scalar(h), int(memory), plan, scalar(magnitudes["x"]))


def structured_gradient(
    params: Params,
    x: Array,
    labels: Array,
    h: Array,
    memory: int,
    plan: Plan,
    max_abs_x: Array,
    all_reduce: Callable[[Array], Array] = no_reduction,
) -> tuple[Array, Params]:
    """Compute the loss and the gradient of `structured`, unchecked."""
    pair_bytes = unit_bytes(params, plan) * len(params.b1) + x.itemsize * len(params.W1)
    pairs = max(1, min(PAIRS, memory // pair_bytes))
    scale = jnp.minimum(1, h * jnp.maximum(1, max_abs_x))
    no_differences = jnp.zeros((len(params.W1) + 1, len(params.b1)), x.dtype)

    def sums(x: Array, labels: Array) -> tuple[Array, Params]:
        base = unperturbed_pass(params, x, labels, scale, plan.terms, sum_powers, all_reduce)
        hidden = add_input_differences(no_differences, base, with_bias(x), h / scale, scale, plan, pairs)
        z1_shift = make_shift(with_bias(base.z1).T[:, :, None], h, plan.output_shift_terms)  # (H + 1, b, 1)
        output = output_difference(base, z1_shift, h, plan).sum(axis=1)  # of (H + 1, b, O)
        return base.loss.sum(), Params(hidden[:-1], hidden[-1], output[:-1], output[-1])

    loss, total = sum_slices(sums, params, x, labels, memory // structured_row_bytes(params, plan))
    shift, logit = scale / h / len(x), 1 / len(x)
    return loss / len(x), Params(total.W1 * shift, total.b1 * shift, total.W2 * logit, total.b2 * logit)


# Only in JAX: slices of one length are one loop, and are compiled once.
def sum_slices(
    sums: Callable[[Array, Array], tuple[Array, Params]], params: Params, x: Array, labels: Array, size: int
) -> tuple[Array, Params]:
    """Add up `sums`, a scalar and arrays shaped like `params`, over slices of at most `size` samples, at least one.

    All have one length: the last one begins within the one before, and the samples that both hold are counted once.
    """
    count = -(-len(x) // max(1, size))
    if count == 1:
        return sums(x, labels)
    size = -(-len(x) // count)

    def add(n: Array, total: tuple[Array, Params]) -> tuple[Array, Params]:
        start = jnp.minimum(n * size, len(x) - size)
        part_x, part_labels = (lax.dynamic_slice_in_dim(array, start, size) for array in (x, labels))
        counted = start + jnp.arange(size) < n * size
        return jax.tree.map(jnp.add, total, sums(part_x, jnp.where(counted, NO_SAMPLE, part_labels)))

    return lax.fori_loop(0, count, add, (jnp.zeros((), x.dtype), jax.tree.map(jnp.zeros_like, params)))


def unit_bytes(params: Params, plan: Plan) -> int:
    """Return the bytes of one sample, or one pair of sample and input, for each hidden unit in `structured`."""
    return int(params.W1.itemsize * (8 + 8 * (plan.terms or len(params.b2))))


def structured_row_bytes(params: Params, plan: Plan) -> int:
    """Return the bytes of one sample in `structured`, the search for pairs that are not 0 included."""
    return int(unit_bytes(params, plan) * params.W2.size + 384 * (len(params.W1) + 1))


def with_bias(inputs: Array) -> Array:
    """Append a column of ones, (B, I + 1): a bias is a weight whose input is 1."""
    return jnp.pad(inputs, ((0, 0), (0, 1)), constant_values=1)


def add_input_differences(
    total: Array, base: Base, x: Array, factor: Array, scale: Array, plan: Plan, pairs: int
) -> Array:
    """Add each input's differences to its row of `total` (I, H), from the pairs of input and sample that are not 0.

    How many there are is known only on the device: the loop over chunks of pairs ends there, and shapes stay the same.
    """
    values = x.T.ravel()
    not_0 = values != 0
    count_up_to = jnp.cumsum(not_0)
    padded, count = -(-x.size // pairs) * pairs, count_up_to[-1]
    place = jnp.where(not_0, count_up_to - 1, padded)  # beyond the end: dropped
    found = jnp.zeros(padded, int).at[place].set(jnp.arange(x.size), mode="drop")  # jnp.nonzero sums twice

    def add_chunk(n: Array, total: Array) -> Array:
        at = lax.dynamic_slice_in_dim(found, n * pairs, pairs)
        i, b = lax.div(at, len(x)), lax.rem(at, len(x))  # jnp.divmod would compile for negative ones, too
        padding = n * pairs + jnp.arange(pairs) >= count  # of the last chunk
        value = jnp.where(padding, 0, take(values, at))[:, None]
        shift = make_shift(factor * jnp.abs(value), scale, plan.shift_terms)
        differences = jnp.sign(value) * hidden_difference(base.take(b), shift, scale, plan)  # (P, H)
        return add_rows(total, i, differences)

    return lax.fori_loop(0, -(-count // pairs), add_chunk, total)


# Only in JAX: on a GPU a scatter adds by atomics, in any order.
def add_rows(total: Array, i: Array, rows: Array) -> Array:
    """Add `rows` to the rows `i` of `total` in a fixed order, so that a repeated call gives the same bits."""

    def scatter(total: Array, i: Array, rows: Array) -> Array:
        return total.at[i].add(rows)

    return lax.platform_dependent(total, i, rows, cpu=scatter, default=multiply_rows)


# Only in JAX: the sums of `add_rows` by a matrix product.
def multiply_rows(total: Array, i: Array, rows: Array) -> Array:
    """Add `rows` (P, H) to the rows `i` (P,) of `total` (I, H), off a CPU."""
    return total + matmul((jnp.arange(len(total))[:, None] == i).astype(rows.dtype), rows)


@with_x64
def collocated(params: Params, x: Array, t: Any, *, h: float = H, memory: float = MEMORY) -> Params:
    """Compute what `structured` computes, from differences at a few nodes and as many matrix products."""
    h = check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    plan = make_plan(h, magnitudes["x"], magnitudes["W2"], str(x.dtype))
    if not plan.collocates:
        warn_of_structured(h, magnitudes["x"])
    scalar = x.dtype.type
    program = compiled(collocated_gradient, 1)
    return program(params, x, labels, scalar(h), int(memory), plan, scalar(magnitudes["x"]))


def collocated_gradient(
    params: Params,
    x: Array,
    labels: Array,
    h: Array,
    memory: int,
    plan: Plan,
    max_abs_x: Array,
    all_reduce: Callable[[Array], Array] = no_reduction,
    guarded: bool = True,
) -> tuple[Array, Params]:
    """Compute the loss and the gradient of `collocated`, unchecked; where it does not collocate, `structured`'s."""
    if not plan.collocates:
        return structured_gradient(params, x, labels, h, memory, plan, max_abs_x, all_reduce)
    shift = h * jnp.maximum(1, max_abs_x)
    nodes = make_nodes(h, shift, jnp.minimum(1, shift), plan)

    def sums(part: Array, labels: Array) -> tuple[Array, Params]:
        base = unperturbed_pass(params, part, labels, nodes.scale, plan.terms, multiply_powers, all_reduce)
        return base.loss.sum(), collocated_sums(base, part, h, nodes, len(x), plan, guarded)

    loss, total = sum_slices(sums, params, x, labels, memory // collocated_row_bytes(params, plan))
    return loss / len(x), total


# Other arguments: `guarded` is that of `interpolate`
def collocated_sums(base: Base, x: Array, h: Array, nodes: Nodes, samples: int, plan: Plan, guarded: bool) -> Params:
    """Compute the share of the samples of `base` in the gradient of a batch of `samples`."""
    hidden = hidden_difference(base, nodes.hidden, nodes.scale, plan)  # (m, B, H)
    output = output_difference(base, nodes.output, h, plan)  # (m, B, O)
    W1, b1 = interpolate(x, nodes.input_factor, hidden, nodes.hidden_matrix / samples, plan.mixed, guarded)
    W2, b2 = interpolate(base.z1, None, output, nodes.output_matrix / samples, plan.output_mixed, guarded)
    return Params(W1, b1, W2, b2)


def collocated_row_bytes(params: Params, plan: Plan) -> int:
    """Return the bytes that one sample takes in `collocated`."""
    (inputs, hidden), outputs = params.W1.shape, len(params.b2)
    per_node = 10 if plan.terms else 12 + 20 * outputs
    units = (8 + 3 * plan.terms + per_node * plan.hidden_nodes) * hidden
    per_class = 6 + 8 * plan.output_nodes
    return int(params.W1.itemsize * ((2 + 2 * plan.hidden_nodes) * inputs + units + per_class * outputs))


GRADIENTS: dict[str, Callable[..., Params]] = {
    "loop": loop,
    "batched": batched,
    "structured": structured,
    "collocated": collocated,
}
"""The strategies by name."""
