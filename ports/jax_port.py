"""The net in JAX: everything jitted, no autograd; the reference's functions in the reference's order.

Arrays keep the dtype that they have, float64 included: each function runs with 64-bit types enabled for its own
duration, whatever the caller's setting. Matrix products are asked for in full precision, which matters on
accelerators alone.
"""

import inspect
import math
import weakref
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jax import Array, lax

from ports.protocol import NotRunError, Port
from reference.collocation import Plan, chebyshev_transform, plan, positive_nodes, reach, warn_of_structured
from reference.functions import DELTA
from reference.two_layer_net import Params
from reference.validation import (
    MEMORY,
    Entries,
    Sizes,
    check_batches,
    check_device,
    check_dtype,
    check_entries,
    check_gradient,
    check_labels,
    check_learning_rate,
    check_memory,
    check_net,
    check_numbers,
    check_step,
    check_step_moves,
    unit_roundoff,
)

PAIRS = 512
"""Pairs of sample and pixel that `structured` works on at a time."""
NETS = 64
"""Perturbed nets that `batched` works on at a time, at most: more would only leave the cache."""

_PLATFORMS = {"cuda": "gpu"}  # the name that PyTorch has too: JAX's
_with_x64 = jax.enable_x64(True)
_matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


@_with_x64
def from_numpy(array: np.ndarray, *, dtype: str, device: str) -> Array:
    """Return a copy of `array` on a device of `devices()`."""
    name, _, index = check_device(device, devices()).partition(":")
    copy = np.array(check_numbers(array), dtype=check_dtype(dtype))  # device_put may alias what it is given
    return jax.device_put(copy, jax.devices(_PLATFORMS.get(name, name))[int(index or 0)])


def to_numpy(array: Array) -> np.ndarray:
    """Return a copy of `array`."""
    return np.array(array)


def devices() -> tuple[str, ...]:
    """Return the devices that can be used here, the default one first: "cpu", "cuda", "cuda:1", ..."""
    names = {platform: name for name, platform in _PLATFORMS.items()}
    platforms = dict.fromkeys((jax.default_backend(), "cpu"))
    found = [(names.get(platform, platform), n) for platform in platforms for n, _ in enumerate(jax.devices(platform))]
    return tuple(name if n == 0 else f"{name}:{n}" for name, n in found)


def spread(devices: int | str) -> Port:
    """Return this port with its work laid over so many devices, or over "all"; ValueError if there are fewer."""
    from ports.jax_mesh import MeshPort

    return MeshPort(devices)


def synchronize(result: Any) -> Any:
    """Return `result` when it has been computed."""
    return jax.block_until_ready(result)


@_with_x64
def predict(params: Params, x: Array) -> Array:
    """Return the class probabilities of each sample, (B, O)."""
    check_net(params, x, Array, _largest)
    return _compiled(_predict)(params, x)


@_with_x64
def loss(params: Params, x: Array, t: Any) -> Array:
    """Return the mean cross entropy of the batch."""
    return _compiled(_loss)(params, x, _checked(params, x, t)[0])


@_with_x64
def accuracy(params: Params, x: Array, t: Any) -> Array:
    """Return the share of samples whose most probable class is the right one."""
    return _compiled(_accuracy)(params, x, _checked(params, x, t)[0])


@_with_x64
def gradient(params: Params, x: Array, t: Any) -> Params:
    """Return the derivative of the loss in closed form: the yardstick, not a way to train."""
    return _compiled(_closed_form)(params, x, _checked(params, x, t)[0])[1]


@_with_x64
def loop(
    params: Params, x: Array, t: Any, *, h: float = 1e-4, memory: float = MEMORY, entries: Params | None = None
) -> Params:
    """Return the central differences one parameter at a time: two full forward passes each, in one compiled loop."""
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    check_step_moves(h, sizes, str(x.dtype))
    return _compiled(_differences)(params, x, labels, _shifts(h, sizes, x).h, check_entries(params, entries), 0)


@_with_x64
def batched(
    params: Params, x: Array, t: Any, *, h: float = 1e-4, memory: float = MEMORY, entries: Params | None = None
) -> Params:
    """Return what `loop` returns, from forward passes of many perturbed nets at a time, in chunks that fit `memory`."""
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    check_step_moves(h, sizes, str(x.dtype))
    return _compiled(_differences)(
        params, x, labels, _shifts(h, sizes, x).h, check_entries(params, entries), int(memory)
    )


@_with_x64
def structured(params: Params, x: Array, t: Any, *, h: float = 1e-4, memory: float = MEMORY) -> Params:
    """Return what `loop` returns, to a few roundings: only what a perturbation reaches, and without cancellation."""
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    needs = plan(h, sizes["x"], sizes["W2"], str(x.dtype))
    return _by_chunks(_structured, params, x, labels, _shifts(h, sizes, x), int(memory), needs)


@_with_x64
def collocated(params: Params, x: Array, t: Any, *, h: float = 1e-4, memory: float = MEMORY) -> Params:
    """Return what `structured` returns, from differences at a few nodes and one matrix product for each."""
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    needs = plan(h, sizes["x"], sizes["W2"], str(x.dtype))
    if not needs.collocates:
        warn_of_structured(h, sizes["x"])
    return _by_chunks(_collocated, params, x, labels, _shifts(h, sizes, x), int(memory), needs)


GRADIENTS: dict[str, Callable[..., Params]] = {
    "loop": loop,
    "batched": batched,
    "structured": structured,
    "collocated": collocated,
}
"""The strategies by name."""
TRAINABLE = (gradient, *GRADIENTS.values())
"""What `train_steps` can follow."""


@_with_x64
def train_steps(
    params: Params,
    x: Array,
    t: Any,
    batches: np.ndarray,
    *,
    gradient: Callable[..., Params],
    learning_rate: float,
    h: float = 1e-4,
    memory: float = MEMORY,
) -> tuple[Params, Array]:
    """Take K steps of gradient descent in one compiled scan; see `reference.training.train_steps`.

    How many nodes and terms are needed depends on the weights, and they move. The scan reports the largest weight
    that it met; where the plan did not cover it, the steps are taken again with one that does.
    """
    h = check_step(h)
    labels, sizes = _checked(params, x, t, memory)
    batches = jax.device_put(check_batches(batches, len(x)), x.device)
    check_gradient(gradient, TRAINABLE)
    if gradient in (loop, batched):
        check_step_moves(h, sizes, str(x.dtype))
    rate, largest_weight = jnp.asarray(check_learning_rate(learning_rate, str(x.dtype)), x.dtype), sizes["W2"]
    while True:
        needs = plan(h, sizes["x"], largest_weight, str(x.dtype))
        if gradient is collocated and not needs.collocates:
            warn_of_structured(h, sizes["x"])
        trained, losses, weights = _compiled(_scan)(
            params, x, labels, batches, rate, _shifts(h, sizes, x), gradient, int(memory), needs
        )
        largest_weight = float(weights.max())
        if not math.isfinite(largest_weight) or needs.covers(plan(h, sizes["x"], largest_weight, str(x.dtype))):
            return trained, losses


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled, with the arguments that shapes depend on static."""
    static = {"gradient", "memory", "needs"} & set(inspect.signature(function).parameters)
    return jax.jit(function, static_argnames=sorted(static), compiler_options=_compiler_options())


@cache
def _compiler_options() -> dict[str, str]:
    """Return the options that keep XLA sound on the CPU, where it knows them.

    With its YNN fusion, (expm1(d) - expm1(-d)).sum(0) is exactly 0 from 5,000 columns on: seen in jaxlib 0.10.2,
    0.11.2 and 0.12.0; jax issue 39103.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": ""}
    try:
        jax.jit(jnp.negative, compiler_options=options)(0.0)
    except jax.errors.JaxRuntimeError:  # an XLA without that option
        return {}
    return options


def _canary() -> None:
    """Refuse a build of XLA that compiles the heart of this port wrongly."""
    for dtype in ("float32", "float64"):
        d = np.linspace(1e-6, 1e-4, 3 * 20_000).reshape(3, -1).astype(dtype)
        got = np.asarray(_compiled(_canary_sum)(d), np.float64)
        error = float(np.abs(got / (2 * np.sinh(d.astype(np.float64))).sum(axis=0) - 1).max())
        if not error < 100 * unit_roundoff(dtype):
            raise NotRunError(
                f"this build of jaxlib ({jaxlib.version.__version__}) miscompiles expm1: it is off by {error:.2g}."
            )


def _canary_sum(d: Array) -> Array:
    return (jnp.expm1(d) - jnp.expm1(-d)).sum(axis=0)


_LARGEST: dict[int, float] = {}
"""What `_largest` has found, by the id of an array that lives."""


def _largest(array: Array) -> float:
    """Return max(|array|). An array of JAX never changes: it is looked through once, however often it is checked."""
    key = id(array)
    if key not in _LARGEST:
        _LARGEST[key] = float(_compiled(_max_abs)(array))
        weakref.finalize(array, _LARGEST.pop, key, None)
    return _LARGEST[key]


def _max_abs(array: Array) -> Array:
    return jnp.abs(array).max()


class Shifts(NamedTuple):
    """The sizes of the shifts, as scalars of the net's dtype."""

    h: Array
    reach: Array  # S
    scale: Array  # h / S


def _shifts(h: float, sizes: Sizes, x: Array) -> Shifts:
    largest_shift = reach(h, sizes["x"])
    return Shifts(*(jnp.asarray(value, x.dtype) for value in (h, largest_shift, h / largest_shift)))


def _checked(params: Params, x: Array, t: Any, memory: float = MEMORY) -> tuple[Array, Sizes]:
    check_memory(memory)
    sizes = check_net(params, x, Array, _largest)
    return jax.device_put(check_labels(t, len(x), len(params.b2)), x.device), sizes


def _sigmoid(a: Array) -> Array:
    tail = jnp.exp(-jnp.abs(a))
    return jnp.where(a >= 0, 1, tail) / (1 + tail)


def _all_here(part: Array) -> Array:
    """Return the sum of what the devices have found of the logits from their hidden units: one device has all units."""
    return part


def _logits(params: Params, x: Array, add_up: Callable[[Array], Array] = _all_here) -> Array:
    return add_up(_matmul(_sigmoid(_matmul(x, params.W1) + params.b1), params.W2)) + params.b2


def _predict(params: Params, x: Array) -> Array:
    return jax.nn.softmax(_logits(params, x))


def _loss(params: Params, x: Array, labels: Array) -> Array:
    y_t = jnp.take_along_axis(_predict(params, x), labels[:, None], axis=1)
    return -jnp.log(y_t + DELTA).mean()


def _accuracy(params: Params, x: Array, labels: Array) -> Array:
    return (_logits(params, x).argmax(axis=1) == labels).astype(x.dtype).mean()  # the mean of bools would be float32


def _closed_form(
    params: Params, x: Array, labels: Array, add_up: Callable[[Array], Array] = _all_here
) -> tuple[Array, Params]:
    a1 = _matmul(x, params.W1) + params.b1  # (B, H)
    z1 = _sigmoid(a1)
    y = jax.nn.softmax(add_up(_matmul(z1, params.W2)) + params.b2)  # (B, O)
    right = labels[:, None] == jnp.arange(len(params.b2))
    y_t = jnp.where(right, y, 0).sum(axis=1, keepdims=True)
    others = jnp.where(right, 0, y)
    delta2 = jnp.where(right, -others.sum(axis=1, keepdims=True), y) * (y_t / (y_t + DELTA) / len(x))
    delta1 = _matmul(delta2, params.W2.T) * z1 * _sigmoid(-a1)  # (B, H)
    derivative = Params(_matmul(x.T, delta1), delta1.sum(axis=0), _matmul(z1.T, delta2), delta2.sum(axis=0))
    return -jnp.log(y_t + DELTA).mean(), derivative


def _differences(params: Params, x: Array, labels: Array, h: Array, entries: Entries, memory: int) -> Params:
    """Return the differences at the flat indices `entries`, as many nets at a time as `memory` holds, at least one."""
    sizes = (max(1, min(NETS, memory // _perturbed_bytes(params, m, len(x)))) for m in range(4))
    return Params(*(_member_differences(params, m, entries[m], x, labels, h, size) for m, size in enumerate(sizes)))


def _member_differences(
    params: Params, member: int, entries: Any, x: Array, labels: Array, h: Array, size: int
) -> Array:
    p, flat = params[member], entries.ravel()
    axis = p.ndim - 1  # of the copies: last but one, so that vmap makes one large matrix product of theirs
    axes = Params(*(axis if m == member else None for m in range(4)))
    losses = jax.vmap(_loss, in_axes=(axes, None, None))

    def differences(at: Array) -> Array:
        *row, column = jnp.unravel_index(at, p.shape)
        moved = (*row, jnp.arange(len(at)), column)
        copies = jnp.broadcast_to(jnp.expand_dims(p, axis), (*p.shape[:-1], len(at), p.shape[-1]))
        perturbed = (params._replace(**{Params._fields[member]: copies.at[moved].add(by)}) for by in (h, -h))
        above, below = (losses(net, x, labels) for net in perturbed)  # (P,)
        return (above - below) / (2 * h)

    whole = flat.size // size * size
    parts = [lax.map(differences, flat[:whole].reshape(-1, size)).ravel()] if whole else []
    if whole < flat.size:
        parts.append(differences(flat[whole:]))
    return jnp.concatenate(parts).reshape(entries.shape) if parts else jnp.zeros(entries.shape, p.dtype)


def _perturbed_bytes(params: Params, member: int, samples: int) -> int:
    """Return the bytes of one perturbed net: its copy to either side, and the arrays of its forward pass."""
    hidden, outputs = params.W2.shape
    units = hidden + outputs if member < 2 else outputs
    return int((3 * params[member].size + 5 * samples * units) * params.W1.itemsize)


class Unperturbed(NamedTuple):
    """What the differences need to know of the unperturbed net, sample by sample."""

    a1: Array  # (B, H)
    z1: Array  # (B, H), sigmoid(a1)
    w1: Array  # (B, H), sigmoid(-a1): 1 - z1 without cancellation
    q: Array  # (B, 1)
    r: Array  # (B, 1), 1 - q without cancellation
    y: Array  # (B, O), for the right class the sum of the others
    sign: Array  # (B, O), -1 for the right class and 1 for the others
    loss: Array  # (B, 1), of each sample
    margin: Array  # (B, O), a2 - a2[t]
    sums: Array  # (B, n, H): the power sums M_n, or with no terms V itself (B, O, H)

    def take(self, samples: Array) -> "Unperturbed":
        """Return the same for `samples`, in their order."""
        return Unperturbed(*(field[samples] for field in self))


def _unperturbed(
    params: Params, x: Array, labels: Array, terms: int, add_up: Callable[[Array], Array] = _all_here
) -> Unperturbed:
    a1 = _matmul(x, params.W1) + params.b1
    z1 = _sigmoid(a1)
    a2 = add_up(_matmul(z1, params.W2)) + params.b2
    y = jax.nn.softmax(a2)
    right = labels[:, None] == jnp.arange(len(params.b2))
    y_t = jnp.where(right, y, 0).sum(axis=1, keepdims=True)
    others = jnp.where(right, 0, y)
    V = params.W2.T - params.W2.T[labels][:, None]  # (B, O, H)
    return Unperturbed(
        a1=a1,
        z1=z1,
        w1=_sigmoid(-a1),
        q=y_t / (y_t + DELTA),
        r=DELTA / (y_t + DELTA),
        y=jnp.where(right, others.sum(axis=1, keepdims=True), y),
        sign=jnp.where(right, -1, 1).astype(y.dtype),
        loss=-jnp.log(y_t + DELTA),
        margin=a2 - jnp.where(right, a2, 0).sum(axis=1, keepdims=True),
        sums=_power_sums(others, V, terms) if terms else V,
    )


def _power_sums(others: Array, V: Array, terms: int) -> Array:
    sums, product = [], others[:, :, None]
    for n in range(terms):
        product = product * (V / (n + 1))
        sums.append(product.sum(axis=1))
    return jnp.stack(sums, axis=1)


def _hidden_difference(net: Unperturbed, s: Array, needs: Plan) -> Array:
    """Return D(s), s >= 0 the shift of each hidden unit's input; s broadcasts against (B, H), as the result does."""
    e = _expm1(-s, needs.shift_terms)
    if needs.small_shifts:
        slope = -net.z1 * net.w1 * e
        up, down = slope / (1 + net.w1 * e), slope / (1 + net.z1 * e)
    else:  # the denominators would cancel
        up, down = -_sigmoid(net.a1 + s) * net.w1 * e, -net.z1 * _sigmoid(s - net.a1) * e
    return _by_power_sums(net, up, down) if needs.terms else _by_exponentials(net, up, down)


def _by_power_sums(net: Unperturbed, up: Array, down: Array) -> Array:
    above, below = _polynomial(net.sums, up), _polynomial(net.sums, -down)
    return jnp.log1p(net.q * (above - below) / ((1 + below) * (1 + net.r * above)))


def _polynomial(sums: Array, dz: Array) -> Array:
    """Return S = sum_n M_n dz^n by Horner's rule."""
    total = sums[:, -1] * dz
    for n in range(sums.shape[1] - 2, -1, -1):
        total = (total + sums[:, n]) * dz
    return total


def _by_exponentials(net: Unperturbed, up: Array, down: Array) -> Array:
    """Return D(s) for moves of any size; `reference.loss_difference` derives it."""
    V, margin = net.sums, net.margin[:, :, None]  # (B, O, H), (B, O, 1)
    above, below = margin + up[..., None, :] * V, margin - down[..., None, :] * V
    apart, larger = (up + down)[..., None, :] * V, jnp.maximum(above, below)
    top = larger.max(axis=-2, keepdims=True)
    change = -(jnp.sign(apart) * jnp.exp(larger - top) * jnp.expm1(-jnp.abs(apart))).sum(axis=-2)
    (plus, plus_sum), (minus, minus_sum) = _scaled_sum(above), _scaled_sum(below)
    rises = change > 0
    lesser, lesser_log = jnp.where(rises, minus, plus), jnp.log(jnp.where(rises, minus_sum, plus_sum))
    greater = jnp.where(rises, plus + jnp.log(plus_sum), minus + jnp.log(minus_sum))
    exponent = (top[..., 0, :] - lesser) - lesser_log - jnp.logaddexp(math.log(DELTA) + greater, 0)
    return jnp.sign(change) * jnp.log1p(jnp.abs(change) * jnp.exp(exponent))


def _scaled_sum(exponents: Array) -> tuple[Array, Array]:
    """Return (m, s) with sum_k exp(exponents) = exp(m) s."""
    top = exponents.max(axis=-2, keepdims=True)
    return top[..., 0, :], jnp.exp(exponents - top).sum(axis=-2)


def _output_difference(net: Unperturbed, s: Array, needs: Plan) -> Array:
    """Return D(s) for the shift s >= 0 of each logit; s broadcasts against (B, O), and so does the result."""
    e, f = _expm1(s, needs.shift_terms), _expm1(-s, needs.shift_terms)
    return net.sign * jnp.log1p(net.q * net.y * (e - f) / ((1 + net.y * f) * (1 + net.r * net.y * e)))


def _expm1(v: Array, terms: int) -> Array:
    """Return exp(v) - 1. XLA's own is off by up to 5 roundings (measured on the CPU), the series by little over one."""
    if terms == 0:
        return jnp.expm1(v)
    total = jnp.ones_like(v)
    for n in range(terms, 1, -1):
        total = 1 + v / n * total
    return v * total


def _by_chunks(
    strategy: Callable[..., Any], params: Params, x: Array, labels: Array, shifts: Shifts, memory: int, needs: Plan
) -> Params:
    """Return the gradient from chunks of samples that fit `memory`: at most two programs, however many chunks."""
    row_bytes = _row_bytes if strategy is _collocated and needs.collocates else _structured_row_bytes
    total = None
    for rows in _slices(len(x), memory // row_bytes(params, needs)):
        part = _compiled(strategy)(params, x[rows], labels[rows], shifts, memory, needs)[1]
        share = (rows.stop - rows.start) / len(x)
        weighted = part if share == 1 else Params(*(share * g for g in part))
        total = weighted if total is None else Params(*map(jnp.add, total, weighted))
    assert total is not None  # no batch is empty
    return total


def _summed(
    sums: Callable[[Array, Array], tuple[Array, Params]], params: Params, x: Array, labels: Array, h: Array, size: int
) -> tuple[Array, Params]:
    """Return the loss and the gradient, `sums` being those of losses and differences over some samples.

    Within a program, so in training, a loop works on at most `size` samples at a time: of chunks that are written out
    each would be compiled, and XLA might hold what all of them need.
    """
    count = -(-len(x) // max(1, size))
    size = -(-len(x) // count)

    def add(n: Any, total: tuple[Array, Params]) -> tuple[Array, Params]:
        rows = (lax.dynamic_slice_in_dim(array, n * size, size) for array in (x, labels))
        return jax.tree.map(jnp.add, total, sums(*rows))

    nothing, whole = (jnp.zeros((), x.dtype), jax.tree.map(jnp.zeros_like, params)), len(x) // size
    total = lax.fori_loop(0, whole, add, nothing) if whole > 1 else add(0, nothing)
    if rest := len(x) % size:
        total = jax.tree.map(jnp.add, total, sums(x[-rest:], labels[-rest:]))
    loss, differences = total
    return loss / len(x), jax.tree.map(lambda g: g / (2 * h * len(x)), differences)


def _structured(
    params: Params,
    x: Array,
    labels: Array,
    shifts: Shifts,
    memory: int,
    needs: Plan,
    unperturbed: Callable[..., Unperturbed] = _unperturbed,
) -> tuple[Array, Params]:
    """Return the loss and the gradient."""
    pairs = max(1, min(PAIRS, memory // (_unit_bytes(params, needs) * len(params.b1))))

    def sums(x: Array, labels: Array) -> tuple[Array, Params]:
        net = unperturbed(params, x, labels, needs.terms)
        return net.loss.sum(), Params(
            W1=_sum_by_pixel(net, x, shifts.h, needs, pairs),
            b1=_hidden_difference(net, shifts.h, needs).sum(axis=0),
            W2=_output_difference(net, shifts.h * net.z1.T[:, :, None], needs).sum(axis=1),  # (H, b, O)
            b2=_output_difference(net, shifts.h, needs).sum(axis=0),
        )

    return _summed(sums, params, x, labels, shifts.h, memory // _structured_row_bytes(params, needs))


def _unit_bytes(params: Params, needs: Plan) -> int:
    """Return the bytes of one sample, or one pair of sample and pixel, for each hidden unit in `structured`."""
    return int(params.W1.itemsize * (8 + 8 * (needs.terms or len(params.b2))))


def _structured_row_bytes(params: Params, needs: Plan) -> int:
    """Return the bytes that one sample takes in `structured`, the search for pairs that are not 0 included."""
    return int(_unit_bytes(params, needs) * params.W2.size + 384 * params.W1.shape[0])


def _sum_by_pixel(net: Unperturbed, x: Array, h: Array, needs: Plan, size: int) -> Array:
    """Return the differences of W1 (I, H), from the pairs of pixel and sample that are not 0 alone.

    How many there are is known on the device only: the loop over chunks of pairs ends there, and shapes stay the same.
    """
    padded = -(-x.size // size) * size
    pixel, sample = jnp.nonzero(x.T, size=padded)
    count = jnp.count_nonzero(x)

    def add_chunk(n: Array, total: Array) -> Array:
        i = lax.dynamic_slice(pixel, (n * size,), (size,))
        b = lax.dynamic_slice(sample, (n * size,), (size,))
        value = jnp.where(n * size + jnp.arange(size) < count, x[b, i], 0)[:, None]  # the last chunk's padding is 0
        differences = jnp.sign(value) * _hidden_difference(net.take(b), h * jnp.abs(value), needs)  # (P, H)
        return total.at[i].add(differences)

    return lax.fori_loop(0, -(-count // size), add_chunk, jnp.zeros((x.shape[1], net.z1.shape[1]), x.dtype))


def _collocated(
    params: Params,
    x: Array,
    labels: Array,
    shifts: Shifts,
    memory: int,
    needs: Plan,
    unperturbed: Callable[..., Unperturbed] = _unperturbed,
) -> tuple[Array, Params]:
    """Return the loss and the gradient."""
    if not needs.collocates:
        return _structured(params, x, labels, shifts, memory, needs, unperturbed)

    def sums(x: Array, labels: Array) -> tuple[Array, Params]:
        net = unperturbed(params, x, labels, needs.terms)
        return net.loss.sum(), _collocated_sums(net, x, shifts, needs)

    return _summed(sums, params, x, labels, shifts.h, memory // _row_bytes(params, needs))


def _collocated_sums(net: Unperturbed, x: Array, shifts: Shifts, needs: Plan) -> Params:
    """Return the differences at all inputs, summed over the samples."""
    hidden_nodes = shifts.reach * positive_nodes(needs.hidden_nodes).astype(x.dtype)[:, None, None]
    output_nodes = shifts.h * positive_nodes(needs.output_nodes).astype(x.dtype)[:, None, None]
    W1, b1 = _interpolate(x * shifts.scale, shifts.scale, _hidden_difference(net, hidden_nodes, needs))
    W2, b2 = _interpolate(net.z1, jnp.ones((), x.dtype), _output_difference(net, output_nodes, needs))
    return Params(W1, b1, W2, b2)


def _interpolate(inputs: Array, bias_input: Array, values: Array) -> tuple[Array, Array]:
    """Sum the interpolated differences over the samples; see the reference for the shapes."""
    count = len(values)
    transform = chebyshev_transform(count).astype(values.dtype)
    coefficients = jnp.tensordot(transform, values, axes=1, precision=lax.Precision.HIGHEST)  # (m, B, H)
    basis = _odd_chebyshev(inputs, count)  # (m, B, I)
    if count == 1:  # a plain product takes XLA half the time of the einsum
        weights = _matmul(basis[0].T, coefficients[0])
    else:
        weights = jnp.einsum("mbi,mbh->ih", basis, coefficients, precision=lax.Precision.HIGHEST)
    bias = _matmul(_odd_chebyshev(bias_input, count), coefficients.sum(axis=1))
    return weights, bias


def _odd_chebyshev(v: Array, count: int) -> Array:
    """Return T_1(v), T_3(v), ... by T_{n+2} = 2 T_2 T_n - T_{n-2}; (count, ...)."""
    basis, twice_t2 = [v, v], 4 * v * v - 2  # T_{-1} = T_1
    while len(basis) <= count:
        basis.append(twice_t2 * basis[-1] - basis[-2])
    return jnp.stack(basis[1:])


def _row_bytes(params: Params, needs: Plan) -> int:
    """Return the bytes that one sample takes in `collocated`."""
    (inputs, hidden), outputs = params.W1.shape, len(params.b2)
    exponentials = 0 if needs.terms else 8 * outputs * needs.hidden_nodes
    units = (needs.terms + 3 * outputs + 8 * needs.hidden_nodes + exponentials) * hidden
    return int(params.W1.itemsize * (4 * needs.hidden_nodes * inputs + units + 10 * needs.output_nodes * outputs))


def _slices(length: int, size: int) -> Iterator[slice]:
    """Cut range(length) into slices of `size`, the last one shorter where it must be."""
    size = max(1, size)
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _loss_and(
    gradient: Callable[..., Params], shifts: Shifts, memory: int, needs: Plan
) -> Callable[[Params, Array, Array], tuple[Array, Params]]:
    """Return the function of (params, x, labels) that gives the loss and that gradient from one forward pass."""
    if gradient in (structured, collocated):
        inner = _structured if gradient is structured else _collocated
        return partial(inner, shifts=shifts, memory=memory, needs=needs)
    if gradient in (loop, batched):
        room = memory if gradient is batched else 0

        def loss_and_differences(params: Params, x: Array, labels: Array) -> tuple[Array, Params]:
            differences = _differences(params, x, labels, shifts.h, check_entries(params, None), room)
            return _loss(params, x, labels), differences

        return loss_and_differences
    return _closed_form


def _scan(
    params: Params,
    x: Array,
    labels: Array,
    batches: Array,
    rate: Array,
    shifts: Shifts,
    gradient: Callable[..., Params],
    memory: int,
    needs: Plan,
    loss_and: Callable[..., Callable[[Params, Array, Array], tuple[Array, Params]]] = _loss_and,
) -> tuple[Params, Array, Array]:
    """Return the net after all steps, and for each step the loss and the largest of W2 before it."""
    loss_and_gradient = loss_and(gradient, shifts, memory, needs)

    def step(params: Params, batch: Array) -> tuple[Params, tuple[Array, Array]]:
        loss, slope = loss_and_gradient(params, x[batch], labels[batch])
        return jax.tree.map(lambda p, g: p - rate * g, params, slope), (loss, _max_abs(params.W2))

    trained, (losses, weights) = lax.scan(step, params, batches)
    return trained, losses, weights


_with_x64(_canary)()
