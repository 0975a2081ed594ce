"""The gradient as central differences, (loss(p + h) - loss(p - h)) / (2 h) for every parameter p: four strategies.

`loop` is the definition, and `batched` the same losses, many at a time. `structured` and `collocated` compute the same
differences without subtracting losses (reference/loss_difference.py), from only what a perturbation reaches.
"""

from collections.abc import Callable

import numpy as np

from reference.collocation import Plan, make_plan, shift_scale, slices, warn_of_structured
from reference.defaults import MEMORY, H
from reference.interpolation import Nodes, interpolate, make_nodes
from reference.loss_difference import (
    Base,
    hidden_difference,
    make_shift,
    multiply_powers,
    output_difference,
    sum_powers,
    unperturbed_pass,
)
from reference.two_layer_net import Params, check_batch, loss_of_labels
from reference.validation import Entries, check_entries, check_h, check_h_moves

PAIRS = 512
"""Pairs of sample and input that `structured` works on at a time: with 50 hidden units they stay in a core's cache."""
NETS = 32
"""Perturbed nets that `batched` works on at a time, at most: more would only leave the cache."""


def loop(
    params: Params,
    x: np.ndarray,
    t: np.ndarray,
    *,
    h: float = H,
    memory: float = MEMORY,
    entries: Params | None = None,
) -> Params:
    """Compute the central differences one parameter at a time, as the chapter does: the definition.

    Parameters
    ----------
    params : Params
        The net; left as it is (a copy is moved).
    x : (B, I) array
        Inputs, of the dtype of `params`.
    t : (B,) or (B, O) array
        Labels: class indices or one-hot rows.
    h : float
        The step, in [1e-20, 1].
    memory : float
        Bytes that the work may take; `loop` needs next to none.
    entries : Params, optional
        Flat indices of the entries to differentiate, one array for each member; by default all.

    Returns
    -------
    Params
        Shaped like `params`; with `entries`, the differences at those entries, in their order.

    Raises
    ------
    ValueError
        If an argument breaks a rule, or a parameter is so large that p + h = p.
    """
    h = check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    check_h_moves(h, magnitudes, str(x.dtype))
    return loop_differences(params, x, labels, h, check_entries(params, entries))


def loop_differences(params: Params, x: np.ndarray, labels: np.ndarray, h: float, entries: Entries) -> Params:
    """Compute the differences at the flat indices `entries` of each member."""
    moved = Params(*(p.copy() for p in params))
    return Params(*(loop_member(moved, p, at, x, labels, h) for p, at in zip(moved, entries, strict=True)))


def loop_member(
    moved: Params, p: np.ndarray, at: np.ndarray, x: np.ndarray, labels: np.ndarray, h: float
) -> np.ndarray:
    """Compute the differences of one member; `p`, a member of `moved`, is moved in place and restored."""
    differences = np.empty(at.shape, p.dtype)
    for n, entry in enumerate(at.flat):
        value = p.flat[entry]
        p.flat[entry] = value + h
        above = loss_of_labels(moved, x, labels)
        p.flat[entry] = value - h
        below = loss_of_labels(moved, x, labels)
        p.flat[entry] = value
        differences.flat[n] = (above - below) / (2 * h)
    return differences


def batched(
    params: Params,
    x: np.ndarray,
    t: np.ndarray,
    *,
    h: float = H,
    memory: float = MEMORY,
    entries: Params | None = None,
) -> Params:
    """Compute what `loop` computes, by full forward passes of many perturbed nets at a time.

    The perturbation index is a leading axis of the member that is perturbed. It is cut into chunks that fit `memory`.
    Parameters, returns and errors are those of `loop`.
    """
    h = check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    check_h_moves(h, magnitudes, str(x.dtype))
    return batched_differences(params, x, labels, h, memory, check_entries(params, entries))


def batched_differences(
    params: Params, x: np.ndarray, labels: np.ndarray, h: float, memory: float, entries: Entries
) -> Params:
    """Compute the differences at the flat indices `entries` of each member."""
    return Params(*(batched_member(params, m, at, x, labels, h, memory) for m, at in enumerate(entries)))


def batched_member(
    params: Params, member: int, at: np.ndarray, x: np.ndarray, labels: np.ndarray, h: float, memory: float
) -> np.ndarray:
    """Compute the differences of one member, by its index, at the flat indices `at`."""
    p, flat = params[member], at.ravel()
    size = max(1, min(len(flat), NETS, int(memory) // perturbed_bytes(params, member, len(x))))
    copies = np.repeat(p[None], size, axis=0)  # (P, ...): the member P times over; an entry of each is moved
    differences = np.empty(flat.shape, p.dtype)
    for part in slices(len(flat), size):
        entry = flat[part]
        perturbed = params._replace(**{Params._fields[member]: copies[: len(entry)]})
        differences[part] = copies_differences(perturbed, copies[: len(entry)], entry, p.flat[entry], x, labels, h)
    return differences.reshape(at.shape)


def copies_differences(
    perturbed: Params,
    copies: np.ndarray,
    entry: np.ndarray,
    value: np.ndarray,
    x: np.ndarray,
    labels: np.ndarray,
    h: float,
) -> np.ndarray:
    """Move one entry of each copy to either side and restore it: to make the copies again would cost more."""
    moved, nth = copies.reshape(len(entry), -1), np.arange(len(entry))  # a view
    moved[nth, entry] = value + h
    above = loss_of_labels(perturbed, x, labels)  # (P,)
    moved[nth, entry] = value - h
    below = loss_of_labels(perturbed, x, labels)
    moved[nth, entry] = value
    return (above - below) / (2 * h)


def perturbed_bytes(params: Params, member: int, samples: int) -> int:
    """Return the bytes of one perturbed copy and its forward pass: at most five arrays of a layer's size at once."""
    hidden, outputs = params.W2.shape
    units = hidden + outputs if member < 2 else outputs
    return (params[member].size + 5 * samples * units) * params.W1.itemsize


def structured(params: Params, x: np.ndarray, t: np.ndarray, *, h: float = H, memory: float = MEMORY) -> Params:
    """Compute what `loop` computes, to a few roundings: only what a perturbation reaches, and without cancellation.

    An input that is 0 costs nothing: its difference is 0. Parameters and errors are those of `loop`, without `entries`;
    no parameter is moved, so that no h is too small.
    """
    h = check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    plan = make_plan(h, magnitudes["x"], magnitudes["W2"], str(x.dtype))
    return structured_gradient(params, x, labels, h, memory, plan, magnitudes["x"])[1]


def structured_gradient(
    params: Params, x: np.ndarray, labels: np.ndarray, h: float, memory: float, plan: Plan, max_abs_x: float
) -> tuple[np.floating, Params]:
    """Compute the loss and the gradient of `structured`, unchecked."""
    (inputs, units), outputs = params.W1.shape, len(params.b2)
    hidden, output = np.zeros((inputs + 1, units), x.dtype), np.zeros((units + 1, outputs), x.dtype)
    pairs = max(1, min(PAIRS, int(memory) // (unit_bytes(params, plan) * units)))
    scale, loss = shift_scale(h, max_abs_x), x.dtype.type(0)
    for rows in slices(len(x), int(memory) // structured_row_bytes(params, plan)):
        base = unperturbed_pass(params, x[rows], labels[rows], scale, plan.terms, sum_powers)
        add_input_differences(hidden, base, with_bias(x[rows]), h / scale, scale, plan, pairs)
        z1_shift = make_shift(with_bias(base.z1).T[:, :, None], h, plan.output_shift_terms)  # (H + 1, b, 1)
        output += output_difference(base, z1_shift, h, plan).sum(axis=1)  # of (H + 1, b, O)
        loss += base.loss.sum()
    shift, logit = scale / h / len(x), 1 / len(x)
    differences = Params(hidden[:-1] * shift, hidden[-1] * shift, output[:-1] * logit, output[-1] * logit)
    return loss / len(x), differences


def unit_bytes(params: Params, plan: Plan) -> int:
    """Return the bytes of one sample, or one pair of sample and input, for each hidden unit in `structured`."""
    return params.W1.itemsize * (8 + 8 * (plan.terms or len(params.b2)))


def structured_row_bytes(params: Params, plan: Plan) -> int:
    """Return the bytes of one sample in `structured`, those for its inputs and the indices of its pairs included."""
    return unit_bytes(params, plan) * params.W2.size + 40 * (len(params.W1) + 1)


def with_bias(inputs: np.ndarray) -> np.ndarray:
    """Append a column of ones, (B, I + 1): a bias is a weight whose input is 1."""
    return np.pad(inputs, ((0, 0), (0, 1)), constant_values=1)


def add_input_differences(
    total: np.ndarray, base: Base, x: np.ndarray, factor: float, scale: float, plan: Plan, pairs: int
) -> None:
    """Add each input's differences to its row of `total` (I, H), from the pairs of input and sample that are not 0."""
    inputs, samples = np.nonzero(x.T)
    for part in slices(len(inputs), pairs):
        i, b = inputs[part], samples[part]
        value = x[b, i][:, None]
        shift = make_shift(factor * np.abs(value), scale, plan.shift_terms)
        differences = np.sign(value) * hidden_difference(base.take(b), shift, scale, plan)  # (P, H)
        first = np.flatnonzero(np.diff(i, prepend=-1))  # pairs are sorted by input
        total[i[first]] += np.add.reduceat(differences, first, axis=0)


def collocated(params: Params, x: np.ndarray, t: np.ndarray, *, h: float = H, memory: float = MEMORY) -> Params:
    """Compute what `structured` computes, from differences at a few nodes and as many matrix products.

    For a sample b and a hidden unit j the difference depends on the input only through the shift s = h x[b, i]: it is
    one odd analytic function D_bj(s). Its values at m Chebyshev nodes give its odd Chebyshev coefficients c_n[b, j],
    and

        W1 gradient = sum_n T_{2n-1}(h x / S)^T c_n / (2 h B),    S = h max(1, max|x|);

    likewise W2 with s = h z1[b, j]. reference/collocation.py derives m, so that the interpolation error stays under the
    rounding error of D. The values at the nodes come from matrix products with powers of W2: their rounding errors are
    relative to sum_k |delta_k| |W2[j, k]|, as those of the closed form are, while `structured` keeps all digits where
    columns of W2 are alike. Where more than 8 nodes would be needed (a large h max|x|), `structured` takes over, with a
    warning. Parameters and errors are those of `structured`.
    """
    h = check_h(h)
    labels, magnitudes = check_batch(params, x, t, memory)
    plan = make_plan(h, magnitudes["x"], magnitudes["W2"], str(x.dtype))
    if not plan.collocates:
        warn_of_structured(h, magnitudes["x"])
    return collocated_gradient(params, x, labels, h, memory, plan, magnitudes["x"])[1]


def collocated_gradient(
    params: Params, x: np.ndarray, labels: np.ndarray, h: float, memory: float, plan: Plan, max_abs_x: float
) -> tuple[np.floating, Params]:
    """Compute the loss and the gradient of `collocated`, unchecked; where it does not collocate, `structured`'s."""
    if not plan.collocates:
        return structured_gradient(params, x, labels, h, memory, plan, max_abs_x)
    total, loss, nodes = None, x.dtype.type(0), make_nodes(h, max_abs_x, plan, x.dtype)
    for rows in slices(len(x), int(memory) // collocated_row_bytes(params, plan)):
        base = unperturbed_pass(params, x[rows], labels[rows], nodes.scale, plan.terms, multiply_powers)
        part = collocated_sums(base, x[rows], h, nodes, len(x), plan)
        total = part if total is None else Params(*map(np.add, total, part))
        loss += base.loss.sum()
    assert total is not None  # no batch is empty
    return loss / len(x), total


def collocated_sums(base: Base, x: np.ndarray, h: float, nodes: Nodes, samples: int, plan: Plan) -> Params:
    """Compute the share of the samples of `base` in the gradient of a batch of `samples`."""
    hidden = hidden_difference(base, nodes.hidden, nodes.scale, plan)  # (m, B, H)
    output = output_difference(base, nodes.output, h, plan)  # (m, B, O)
    W1, b1 = interpolate(x, nodes.input_factor, hidden, nodes.hidden_matrix / samples, plan.mixed)
    W2, b2 = interpolate(base.z1, 1.0, output, nodes.output_matrix / samples, plan.output_mixed)
    return Params(W1, b1, W2, b2)


def collocated_row_bytes(params: Params, plan: Plan) -> int:
    """Return the bytes that one sample takes in `collocated`."""
    (inputs, hidden), outputs = params.W1.shape, len(params.b2)
    per_node = 10 if plan.terms else 12 + 20 * outputs
    units = (8 + 2 * plan.terms + per_node * plan.hidden_nodes) * hidden
    per_class = 6 + 8 * plan.output_nodes
    return params.W1.itemsize * ((1 + 2 * plan.hidden_nodes) * inputs + units + per_class * outputs)


GRADIENTS: dict[str, Callable[..., Params]] = {
    "loop": loop,
    "batched": batched,
    "structured": structured,
    "collocated": collocated,
}
"""The strategies by name."""
