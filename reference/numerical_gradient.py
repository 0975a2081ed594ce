"""The gradient as central differences, (loss(p + h) - loss(p - h)) / (2 h) for every parameter p: four strategies.

`loop` is the definition, and `batched` the same losses, many at a time. `structured` and `collocated` compute the same
differences without subtracting losses (reference/loss_difference.py), from only what a perturbation reaches.
"""

from collections.abc import Callable, Iterator

import numpy as np

from reference.collocation import Plan, chebyshev_transform, plan, positive_nodes, reach, warn_of_structured
from reference.loss_difference import Unperturbed, hidden_difference, output_difference, unperturbed
from reference.two_layer_net import Params, largest, loss_of_labels
from reference.validation import (
    MEMORY,
    Entries,
    Sizes,
    check_entries,
    check_labels,
    check_memory,
    check_net,
    check_step,
    check_step_moves,
)

PAIRS = 512
"""Pairs of sample and pixel that `structured` works on at a time: with 50 hidden units they stay in a core's cache."""
NETS = 32
"""Perturbed nets that `batched` works on at a time, at most: more would only leave the cache."""


def loop(
    params: Params,
    x: np.ndarray,
    t: np.ndarray,
    *,
    h: float = 1e-4,
    memory: float = MEMORY,
    entries: Params | None = None,
) -> Params:
    """Return the central differences one parameter at a time, as the chapter does: the definition.

    Parameters
    ----------
    params : Params
        The net; left as it is (a copy is moved).
    x : (B, I) array
        Inputs, of the dtype of `params`.
    t : (B,) or (B, O) array
        Labels: class indices or one-hot rows.
    h : float
        The step, in (0, 1].
    memory : float
        Bytes that the work may take; `loop` needs next to none.
    entries : Params, optional
        Flat indices of the entries to differentiate, one array for each member. All of them unless given.

    Returns
    -------
    Params
        Shaped like `params`; with `entries`, the differences at those entries, in their order.

    Raises
    ------
    ValueError
        If an argument breaks a rule, or a parameter is so large that p + h = p.
    """
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    check_step_moves(h, sizes, str(x.dtype))
    return _loop(params, x, labels, h, check_entries(params, entries))


def _loop(params: Params, x: np.ndarray, labels: np.ndarray, h: float, entries: Entries) -> Params:
    moved = Params(*(p.copy() for p in params))
    return Params(*(_loop_member(moved, p, at, x, labels, h) for p, at in zip(moved, entries, strict=True)))


def _loop_member(
    moved: Params, p: np.ndarray, at: np.ndarray, x: np.ndarray, labels: np.ndarray, h: float
) -> np.ndarray:
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
    h: float = 1e-4,
    memory: float = MEMORY,
    entries: Params | None = None,
) -> Params:
    """Return what `loop` returns, from full forward passes of many perturbed nets at a time.

    The perturbation index is a leading axis of the member that is perturbed. It is cut into chunks that fit `memory`.
    Parameters, returns and errors are those of `loop`.
    """
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    check_step_moves(h, sizes, str(x.dtype))
    return _batched(params, x, labels, h, memory, check_entries(params, entries))


def _batched(params: Params, x: np.ndarray, labels: np.ndarray, h: float, memory: float, entries: Entries) -> Params:
    return Params(*(_batched_member(params, m, at, x, labels, h, memory) for m, at in enumerate(entries)))


def _batched_member(
    params: Params, member: int, at: np.ndarray, x: np.ndarray, labels: np.ndarray, h: float, memory: float
) -> np.ndarray:
    p, flat = params[member], at.ravel()
    size = max(1, min(len(flat), NETS, int(memory // _perturbed_bytes(params, member, len(x)))))
    copies = np.repeat(p[None], size, axis=0)  # (P, ...): the member P times over; an entry of each is moved
    differences = np.empty(flat.shape, p.dtype)
    for part in _slices(len(flat), size):
        entry = flat[part]
        perturbed = params._replace(**{Params._fields[member]: copies[: len(entry)]})
        differences[part] = _differences(perturbed, copies[: len(entry)], entry, p.flat[entry], x, labels, h)
    return differences.reshape(at.shape)


def _differences(
    perturbed: Params,
    copies: np.ndarray,
    entry: np.ndarray,
    value: np.ndarray,
    x: np.ndarray,
    labels: np.ndarray,
    h: float,
) -> np.ndarray:
    """Move one entry of each copy to either side and put it back: making the copies anew would cost more."""
    moved, nth = copies.reshape(len(entry), -1), np.arange(len(entry))  # a view
    moved[nth, entry] = value + h
    above = loss_of_labels(perturbed, x, labels)  # (P,)
    moved[nth, entry] = value - h
    below = loss_of_labels(perturbed, x, labels)
    moved[nth, entry] = value
    return (above - below) / (2 * h)


def _perturbed_bytes(params: Params, member: int, samples: int) -> int:
    """Return the bytes of one perturbed copy and its forward pass: at most five arrays of a layer's size at once."""
    hidden, outputs = params.W2.shape
    units = hidden + outputs if member < 2 else outputs
    return (params[member].size + 5 * samples * units) * params.W1.itemsize


def structured(params: Params, x: np.ndarray, t: np.ndarray, *, h: float = 1e-4, memory: float = MEMORY) -> Params:
    """Return what `loop` returns, to a few roundings: only what a perturbation reaches, and without cancellation.

    An input that is 0 costs nothing: its difference is 0. Parameters and errors are those of `loop`, without `entries`;
    no parameter is moved, so that no h in (0, 1] is too small.
    """
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    return structured_step(params, x, labels, h, memory, sizes["x"])[1]


def structured_step(
    params: Params, x: np.ndarray, labels: np.ndarray, h: float, memory: float, largest_input: float
) -> tuple[np.floating, Params]:
    """Return the loss and the gradient of `structured`, unchecked."""
    needs = _plan(params, h, largest_input)
    total, loss = Params(*map(np.zeros_like, params)), x.dtype.type(0)
    unit_bytes = x.itemsize * (8 + 8 * (needs.terms or len(params.b2)))  # of one pair and hidden unit
    pairs = max(1, min(PAIRS, int(memory // (unit_bytes * len(params.b1)))))
    row_bytes = unit_bytes * params.W2.size + 32 * x.shape[1]  # the last for the indices of its pairs
    for rows in _slices(len(x), int(memory // row_bytes)):
        net = unperturbed(params, x[rows], labels[rows], needs.terms)
        _add_by_pixel(total.W1, net, x[rows], h, needs, pairs)
        total.b1[:] += hidden_difference(net, np.asarray(h, x.dtype), needs).sum(axis=0)
        total.W2[:] += output_difference(net, h * net.z1.T[:, :, None]).sum(axis=1)  # (H, b, O)
        total.b2[:] += output_difference(net, np.asarray(h, x.dtype)).sum(axis=0)
        loss += net.loss.sum()
    return loss / len(x), Params(*(g / (2 * h * len(x)) for g in total))


def _add_by_pixel(total: np.ndarray, net: Unperturbed, x: np.ndarray, h: float, needs: Plan, size: int) -> None:
    """Add the differences of W1 to `total` (I, H), from the pairs of pixel and sample that are not 0 alone."""
    pixel, sample = np.nonzero(x.T)
    for part in _slices(len(pixel), size):
        i, b = pixel[part], sample[part]
        value = x[b, i][:, None]
        differences = np.sign(value) * hidden_difference(net.take(b), h * np.abs(value), needs)  # (P, H)
        first = np.flatnonzero(np.diff(i, prepend=-1))  # pairs are sorted by pixel
        total[i[first]] += np.add.reduceat(differences, first, axis=0)


def collocated(params: Params, x: np.ndarray, t: np.ndarray, *, h: float = 1e-4, memory: float = MEMORY) -> Params:
    """Return what `structured` returns, from differences at a few nodes and as many products of W1's gradient's size.

    For a sample b and a hidden unit j the difference depends on the pixel only through the shift s = h x[b, i]: it is
    one odd analytic function D_bj(s). Its values at m Chebyshev nodes give its odd Chebyshev coefficients c_n[b, j],
    and

        W1 gradient = sum_n T_{2n-1}(h x / S)^T c_n / (2 h B),    S = h max(1, max|x|);

    likewise W2 with s = h z1[b, j]. reference/collocation.py derives m, so that the interpolation error stays under the
    rounding error of D. Where more than 8 nodes would be needed (a large h max|x|), `structured` takes over, with a
    warning. Parameters and errors are those of `structured`.
    """
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    return collocated_step(params, x, labels, h, memory, sizes["x"])[1]


def collocated_step(
    params: Params, x: np.ndarray, labels: np.ndarray, h: float, memory: float, largest_input: float
) -> tuple[np.floating, Params]:
    """Return the loss and the gradient of `collocated`, unchecked."""
    needs = _plan(params, h, largest_input)
    if not needs.collocates:
        warn_of_structured(h, largest_input)
        return structured_step(params, x, labels, h, memory, largest_input)
    total, loss = None, x.dtype.type(0)
    for rows in _slices(len(x), int(memory // _row_bytes(params, needs))):
        net = unperturbed(params, x[rows], labels[rows], needs.terms)
        part = _collocated_sums(net, x[rows], h, reach(h, largest_input), 2 * h * len(x), needs)
        total = part if total is None else Params(*map(np.add, total, part))
        loss += net.loss.sum()
    assert total is not None  # no batch is empty
    return loss / len(x), total


def _collocated_sums(net: Unperturbed, x: np.ndarray, h: float, shift: float, divisor: float, needs: Plan) -> Params:
    """Return the share of the samples of `net` in the gradient."""
    hidden_nodes = (shift * positive_nodes(needs.hidden_nodes)).astype(x.dtype)[:, None, None]
    output_nodes = (h * positive_nodes(needs.output_nodes)).astype(x.dtype)[:, None, None]
    W1, b1 = _interpolate(x, h / shift, hidden_difference(net, hidden_nodes, needs) / divisor)
    W2, b2 = _interpolate(net.z1, 1.0, output_difference(net, output_nodes) / divisor)
    return Params(W1, b1, W2, b2)


def _interpolate(inputs: np.ndarray, scale: float, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum the interpolated differences over the samples.

    Parameters
    ----------
    inputs : (B, I) array
        Inputs of the layer; a bias has the input 1.
    scale : float
        h / S, which takes the largest shift to 1.
    values : (m, B, H) array
        The differences at the nodes.

    Returns
    -------
    (I, H) array, (H,) array
    """
    transform = chebyshev_transform(len(values)).astype(values.dtype)
    coefficients = np.tensordot(transform, values, axes=1)  # (m, B, H)
    basis = _odd_chebyshev(inputs, scale, len(values))  # (m, B, I)
    weights = basis.reshape(-1, inputs.shape[1]).T @ coefficients.reshape(-1, values.shape[2])
    bias_basis = _odd_chebyshev(np.ones(1, values.dtype), scale, len(values))[:, 0]
    return weights, bias_basis @ coefficients.sum(axis=1)


def _odd_chebyshev(v: np.ndarray, scale: float, count: int) -> np.ndarray:
    """Return T_1(scale v), T_3(scale v), ..., (count, ...), written in place: a large array is costly to make."""
    basis = np.empty((count, *v.shape), v.dtype)
    first = np.multiply(v, scale, out=basis[0])
    for third in basis[1:2]:  # T_3 = v (4 v^2 - 3)
        np.multiply(first, first, out=third)
        third *= 4
        third -= 3
        third *= first
    for n in range(2, count):  # T_{n+2} = 2 T_2 T_n - T_{n-2}
        basis[n] = (4 * first * first - 2) * basis[n - 1] - basis[n - 2]
    return basis


def _row_bytes(params: Params, needs: Plan) -> int:
    """Return the bytes that one sample takes in `collocated`."""
    (inputs, hidden), outputs = params.W1.shape, len(params.b2)
    exponentials = 0 if needs.terms else 8 * outputs * needs.hidden_nodes
    units = (needs.terms + 3 * outputs + 8 * needs.hidden_nodes + exponentials) * hidden
    return params.W1.itemsize * (2 * needs.hidden_nodes * inputs + units + 10 * needs.output_nodes * outputs)


def _plan(params: Params, h: float, largest_input: float) -> Plan:
    return plan(h, largest_input, largest(params.W2), str(params.W2.dtype))


def _slices(length: int, size: int) -> Iterator[slice]:
    """Cut range(length) into slices of `size`, the last one shorter where it must be."""
    size = max(1, size)
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _checked(params: Params, x: np.ndarray, t: np.ndarray, memory: float) -> tuple[np.ndarray, Sizes]:
    check_memory(memory)
    sizes = check_net(params, x, np.ndarray, largest)
    return check_labels(t, len(x), len(params.b2)), sizes


GRADIENTS: dict[str, Callable[..., Params]] = {
    "loop": loop,
    "batched": batched,
    "structured": structured,
    "collocated": collocated,
}
"""The strategies by name."""
