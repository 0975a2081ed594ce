"""The JAX port over several devices: each computes by the port's own functions what falls to it, and adds it up.

`structured`, `collocated` and the closed form cut the batch and the hidden units: given the logits each unit's
differences are its own, so that two sums are all that crosses a border: the logits' over "hidden", before the
differences, and the gradient's over "batch", after them. `loop` and `batched` cut the list of parameters to perturb.
A step of training sends nothing else, and nothing to the host.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ports import jax_port
from ports.jax_hosts import Arguments, Result, together
from ports.jax_layout import AXES, NO_SAMPLE, MeshArray, Placing, Placings, mesh_for, mesh_of, put, split, whole
from ports.jax_messages import gather, largest_over, muted, sent_by, sum_over
from ports.jax_port import Shifts, Unperturbed, _with_x64
from ports.messages import Sent, total
from reference.collocation import Plan, plan, warn_of_structured
from reference.two_layer_net import Params
from reference.validation import (
    MEMORY,
    DeviceError,
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
)


def _public(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    return together(_with_x64(function))


LossAndGradient = Callable[[Params, Array, Array], tuple[Array, Params]]


class MeshPort:
    """A port, as `ports.protocol.Port` has it, that lays its work over several devices.

    `memory` is what a gradient may take on each of them.

    Parameters
    ----------
    devices : int or "all"
        How many. Where several processes run, all that there are.
    silent : bool
        Leave out what devices send each other, so that what that takes can be told from what they compute. All results
        are wrong.
    """

    def __init__(self, devices: int | str, *, silent: bool = False) -> None:
        self._kinds, self._silent = _kinds(devices), silent
        self._calls: list[tuple[Any, Any]] | None = None  # of programs, with their arguments, while they are counted
        self.gradient = self._closed_form  # one object: `train_steps` knows it again
        self.GRADIENTS: dict[str, Callable[..., Params]] = {
            "loop": self._loop,
            "batched": self._batched,
            "structured": self._structured,
            "collocated": self._collocated,
        }

    def devices(self) -> tuple[str, ...]:
        """Return the kinds of devices of which there are enough."""
        return tuple(self._kinds)

    def subset(self, devices: int, *, silent: bool = False) -> "MeshPort":
        """Return the port over the first so many of the devices."""
        return MeshPort(devices, silent=silent)

    @_public
    def sent(self, call: Callable[[], Any]) -> Sent:
        """Return what each device sends in a call of this port."""
        self._calls = []
        try:
            call()
            return total(sent_by(program.trace(*args).jaxpr) for program, args in self._calls)
        finally:
            self._calls = None

    def from_numpy(self, array: np.ndarray, *, dtype: str, device: str) -> MeshArray:
        """Return a copy of `array`, which goes to the devices when it is known how it is to be cut."""
        kind = check_device(device, self.devices())
        copy = np.array(check_numbers(array), dtype=check_dtype(dtype), order="C")
        return MeshArray(copy.shape, copy.dtype, kind, host=copy)

    @_public
    def to_numpy(self, array: MeshArray) -> np.ndarray:
        """Return a copy of `array`."""
        return np.array(array.host)

    def synchronize(self, result: Any) -> Any:
        """Return `result` when it has been computed."""
        return jax.block_until_ready(result)

    @_public
    def predict(self, params: Params, x: MeshArray) -> MeshArray:
        """Return the class probabilities of each sample, (B, O)."""
        check_net(params, x, MeshArray, _largest)
        mesh = self._mesh(params, x)
        places = split(mesh, params, len(x))
        y = Placing(mesh, P("batch", None), (places.x.shape[0], len(params.b2)))
        program = self._program(_predict, mesh, (_specs(places.params), places.x.spec), y.spec)
        return _result(self._call(program, _put(params, places), x.on(places.x)), y, x, (len(x), len(params.b2)))

    @_public
    def loss(self, params: Params, x: MeshArray, t: Any) -> MeshArray:
        """Return the mean cross entropy of the batch."""
        return self._mean(_loss, params, x, t)

    @_public
    def accuracy(self, params: Params, x: MeshArray, t: Any) -> MeshArray:
        """Return the share of samples whose most probable class is the right one."""
        return self._mean(_accuracy, params, x, t)

    def _mean(self, function: Callable[..., Array], params: Params, x: MeshArray, t: Any) -> MeshArray:
        labels, _ = _checked(params, x, t)
        mesh = self._mesh(params, x)
        places = split(mesh, params, len(x))
        program = self._program(function, mesh, _net_specs(places), P(), samples=len(x))
        return _result(self._call(program, *_net(params, x, labels, places)), Placing(mesh, P(), ()), x, ())

    @_public
    def _closed_form(self, params: Params, x: MeshArray, t: Any) -> Params:
        """Return the derivative of the loss in closed form: the yardstick, not a way to train."""
        labels, _ = _checked(params, x, t)
        return self._by_samples("gradient", params, x, labels, _NO_SHIFTS, 0, None)

    @_public
    def _loop(
        self, params: Params, x: MeshArray, t: Any, *, h: float = 1e-4, memory: float = MEMORY, entries: Any = None
    ) -> Params:
        """Return the central differences one parameter at a time, each device its share of the parameters."""
        return self._by_parameters("loop", params, x, t, h, memory, entries)

    @_public
    def _batched(
        self, params: Params, x: MeshArray, t: Any, *, h: float = 1e-4, memory: float = MEMORY, entries: Any = None
    ) -> Params:
        """Return what `loop` returns, many parameters at a time."""
        return self._by_parameters("batched", params, x, t, h, memory, entries)

    @_public
    def _structured(self, params: Params, x: MeshArray, t: Any, *, h: float = 1e-4, memory: float = MEMORY) -> Params:
        """Return what `loop` returns, to a few roundings, from what a perturbation reaches alone."""
        h = check_step(h)
        labels, sizes = _checked(params, x, t, memory)
        needs = plan(h, sizes["x"], sizes["W2"], str(x.dtype))
        return self._by_samples("structured", params, x, labels, _shifts(h, sizes, x), int(memory), needs)

    @_public
    def _collocated(self, params: Params, x: MeshArray, t: Any, *, h: float = 1e-4, memory: float = MEMORY) -> Params:
        """Return what `structured` returns, from differences at a few nodes and one matrix product for each."""
        h = check_step(h)
        labels, sizes = _checked(params, x, t, memory)
        needs = plan(h, sizes["x"], sizes["W2"], str(x.dtype))
        if not needs.collocates:
            warn_of_structured(h, sizes["x"])
        return self._by_samples("collocated", params, x, labels, _shifts(h, sizes, x), int(memory), needs)

    def _by_samples(
        self,
        name: str,
        params: Params,
        x: MeshArray,
        labels: np.ndarray,
        shifts: Shifts,
        memory: int,
        needs: Plan | None,
    ) -> Params:
        mesh = self._mesh(params, x)
        places = split(mesh, params, len(x))
        specs = (*_net_specs(places), P())
        fixed = {"name": name, "samples": len(x), "memory": memory, "needs": needs}
        program = self._program(_gradient, mesh, specs, _specs(places.slope), **fixed)
        found = self._call(program, *_net(params, x, labels, places), shifts)
        return _net_of(found, places.slope, params)

    def _by_parameters(
        self, name: str, params: Params, x: MeshArray, t: Any, h: float, memory: float, entries: Any
    ) -> Params:
        h = check_step(h)
        labels, sizes = _checked(params, x, t, memory)
        check_step_moves(h, sizes, str(x.dtype))
        chosen = check_entries(params, entries)
        shapes = tuple(at.shape for at in chosen)
        mesh = mesh_of(self._kinds[x.device], 1)
        places = whole(mesh, params, len(x))
        room = int(memory) if name == "batched" else 0
        program = self._program(
            _some_differences, mesh, (*_net_specs(places), P(), P()), P(), memory=room, shapes=shapes
        )
        shares = _shares(chosen, mesh.size)
        found = self._call(program, *_net(params, x, labels, places), _shifts(h, sizes, x).h, shares)
        return Params(*(_result(g, Placing(mesh, P(), s), x, s) for g, s in zip(found, shapes, strict=True)))

    @_public
    def train_steps(
        self,
        params: Params,
        x: MeshArray,
        t: Any,
        batches: np.ndarray,
        *,
        gradient: Callable[..., Params],
        learning_rate: float,
        h: float = 1e-4,
        memory: float = MEMORY,
    ) -> tuple[Params, MeshArray]:
        """Take K steps of gradient descent in one compiled scan; see `ports.jax_port.train_steps`.

        Each device holds all samples and its part of the net.
        """
        h = check_step(h)
        labels, sizes = _checked(params, x, t, memory)
        batches = check_batches(batches, len(x))
        names = {"gradient": self.gradient, **self.GRADIENTS}
        check_gradient(gradient, tuple(names.values()))
        name = next(name for name, function in names.items() if function is gradient)
        if name in ("loop", "batched"):
            check_step_moves(h, sizes, str(x.dtype))
        rate, largest_weight = np.asarray(check_learning_rate(learning_rate, str(x.dtype)), x.dtype), sizes["W2"]
        while True:
            needs = plan(h, sizes["x"], largest_weight, str(x.dtype))
            if name == "collocated" and not needs.collocates:
                warn_of_structured(h, sizes["x"])
            program, places, mine = self._training(name, params, x, batches.shape, int(memory), needs)
            trained, losses, weights = self._call(
                program,
                _put(params, places),
                x.on(places.x),
                put(places.labels, np.append(labels, NO_SAMPLE)),
                put(mine, _filled(batches, mine)),
                rate,
                _shifts(h, sizes, x),
            )
            largest_weight = float(np.asarray(weights).max())
            if not math.isfinite(largest_weight) or needs.covers(plan(h, sizes["x"], largest_weight, str(x.dtype))):
                return _net_of(trained, places.params, params), _result(
                    losses, Placing(mine.mesh, P(), losses.shape), x, losses.shape
                )

    def _training(
        self, name: str, params: Params, x: Any, shape: tuple[int, ...], memory: int, needs: Plan
    ) -> tuple[Any, Placings, Placing]:
        """Return the program of a training, where its arguments lie, and where the mini-batches do."""
        by_parameters = name in ("loop", "batched")
        steps, samples = shape
        if by_parameters:
            mesh = mesh_of(self._kinds[x.device], 1)
            places, mine = whole(mesh, params, samples), Placing(mesh, P(), shape)
        else:
            mesh = mesh_for(self._kinds[x.device], params, samples)
            places = split(mesh, params, samples)
            mine = Placing(mesh, P(None, "batch"), (steps, places.x.shape[0]), NO_SAMPLE)
        rows = len(x) + 1  # the last one stands for no sample
        x_place, labels_place = Placing(mesh, P(), (rows, x.shape[1])), Placing(mesh, P(), (rows,), NO_SAMPLE)
        places = places._replace(x=x_place, labels=labels_place)
        specs = (*_net_specs(places), mine.spec, P(), P())
        fixed = {"name": name, "samples": samples, "memory": memory, "needs": needs}
        out = (_specs(places.params), P(), P())
        return self._program(_train, mesh, specs, out, **fixed), places, mine

    def _mesh(self, params: Params, x: MeshArray) -> Mesh:
        return mesh_for(self._kinds[x.device], params, len(x))

    def _program(self, function: Callable[..., Any], mesh: Mesh, specs: Any, out_specs: Any, **fixed: Any) -> Any:
        return _program(function, mesh, specs, out_specs, self._silent, **fixed)

    def _call(self, program: Any, *args: Any) -> Any:
        if self._calls is not None:
            self._calls.append((program, args))
        return program(*args)


def _kinds(devices: int | str) -> dict[str, tuple[jax.Device, ...]]:
    """Return so many devices of each kind that has them, the default one first."""
    names = [name for name in jax_port.devices() if ":" not in name]
    there = {name: tuple(jax.devices(jax_port._PLATFORMS.get(name, name))) for name in names}
    count = len(there[names[0]]) if devices == "all" else devices
    most = max(map(len, there.values()))
    if not isinstance(count, int) or not 1 <= count <= most:
        raise DeviceError(f"`devices` must be from 1 to {most}, the devices of JAX here, or all, got {devices}.")
    if jax.process_count() > 1 and count != len(there[names[0]]):
        raise DeviceError(f"`devices` must be all where several processes run ({most}), got {devices}.")
    return {name: found[:count] for name, found in there.items() if count <= len(found)}


@cache
def _program(function: Callable[..., Any], mesh: Mesh, specs: Any, out_specs: Any, silent: bool, **fixed: Any) -> Any:
    """Return `function`, which sees its own part of each argument, compiled for the mesh."""
    run: Callable[..., Any] = partial(function, **fixed)
    mapped = jax.shard_map(
        muted(run) if silent else run, mesh=mesh, in_specs=specs, out_specs=out_specs, check_vma=False
    )
    return jax.jit(mapped, compiler_options=jax_port._compiler_options())


def _specs(places: Params) -> Params:
    return Params(*(place.spec for place in places))


def _net_specs(places: Placings) -> tuple[Any, ...]:
    return _specs(places.params), places.x.spec, places.labels.spec


def _put(params: Params, places: Placings) -> Params:
    return Params(*(p.on(place) for p, place in zip(params, places.params, strict=True)))


def _net(params: Params, x: MeshArray, labels: np.ndarray, places: Placings) -> tuple[Params, Array, Array]:
    return _put(params, places), x.on(places.x), put(places.labels, _filled(labels, places.labels))


def _filled(array: np.ndarray, place: Placing) -> np.ndarray:
    widths = [(0, padded - size) for padded, size in zip(place.shape, array.shape, strict=True)]
    return np.pad(array, widths, constant_values=int(place.fill))


def _result(array: Array, place: Placing, like: MeshArray, shape: tuple[int, ...]) -> MeshArray:
    return MeshArray(shape, np.dtype(array.dtype), like.device, placed={place: array})


def _net_of(found: Params, places: Params, like: Params) -> Params:
    return Params(*(_result(a, place, p, p.shape) for a, place, p in zip(found, places, like, strict=True)))


def _largest(array: MeshArray) -> float:
    return array.largest


def _checked(params: Params, x: MeshArray, t: Any, memory: float = MEMORY) -> tuple[np.ndarray, Sizes]:
    check_memory(memory)
    sizes = check_net(params, x, MeshArray, _largest)
    return check_labels(t, len(x), len(params.b2)), sizes


_NO_SHIFTS = Shifts(*(np.zeros(()),) * 3)  # type: ignore[arg-type]


def _shifts(h: float, sizes: Sizes, x: MeshArray) -> Shifts:
    """Return the shifts as what each process has for itself."""
    return Shifts(*map(np.asarray, jax_port._shifts(h, sizes, x)))  # type: ignore[arg-type]


def _shares(entries: Entries, count: int) -> Entries:
    """Return the flat indices of each member, as many for each device: some do the last one over again."""
    return tuple(np.pad(at.ravel(), (0, -at.size % count), mode="edge" if at.size else "constant") for at in entries)


# --- what each device does


def _over_hidden(part: Array) -> Array:
    return sum_over(part, "hidden")


def _unperturbed(params: Params, x: Array, labels: Array, terms: int) -> Unperturbed:
    """Return what the differences need to know, with no difference and no loss where there is no sample."""
    net = jax_port._unperturbed(params, x, labels, terms, _over_hidden)
    there = (labels >= 0).astype(x.dtype)[:, None]
    return net._replace(q=net.q * there, loss=net.loss * there, sums=net.sums * there[:, :, None])


def _predict(params: Params, x: Array) -> Array:
    return jax.nn.softmax(jax_port._logits(params, x, _over_hidden))


def _loss(params: Params, x: Array, labels: Array, *, samples: int) -> Array:
    return sum_over(_unperturbed(params, x, labels, 1).loss.sum(), "batch") / samples


def _accuracy(params: Params, x: Array, labels: Array, *, samples: int) -> Array:
    right = jax_port._logits(params, x, _over_hidden).argmax(axis=1) == labels
    return sum_over(right.astype(x.dtype).sum(), "batch") / samples


def _gradient(
    params: Params,
    x: Array,
    labels: Array,
    shifts: Shifts,
    *,
    name: str,
    samples: int,
    memory: int,
    needs: Plan,
) -> Params:
    return _whole_batch(name, shifts, memory, needs, samples)(params, x, labels)[1]


def _whole_batch(name: str, shifts: Shifts, memory: int, needs: Plan, samples: int) -> LossAndGradient:
    """Return the function from a device's net and samples to the loss and the gradient of the whole batch."""

    def loss_and_gradient(params: Params, x: Array, labels: Array) -> tuple[Array, Params]:
        if name == "gradient":
            part = _share(_closed_form, samples, params, x, labels)
        else:
            strategy = jax_port._structured if name == "structured" else jax_port._collocated
            by = partial(strategy, shifts=shifts, memory=memory, needs=needs, unperturbed=_unperturbed)
            part = _share(by, samples, params, x, labels)
        return sum_over(part, "batch")

    return loss_and_gradient


def _closed_form(params: Params, x: Array, labels: Array) -> tuple[Array, Params]:
    loss = _unperturbed(params, x, labels, 1).loss.mean()
    return loss, jax_port._closed_form(params, x, labels, _over_hidden)[1]


def _share(function: LossAndGradient, samples: int, params: Params, x: Array, labels: Array) -> tuple[Array, Params]:
    """Return what some rows add to the means over all samples."""
    return jax.tree.map(lambda mean: len(x) / samples * mean, function(params, x, labels))


def _some_differences(
    params: Params,
    x: Array,
    labels: Array,
    h: Array,
    entries: Entries,
    *,
    memory: int,
    shapes: tuple[tuple[int, ...], ...],
) -> Params:
    """Return the differences at all entries, of which each device takes its share, and all get those of all."""
    count = lax.axis_size(AXES)
    sizes = [len(at) // count for at in entries]
    mine: Any = [
        lax.dynamic_slice_in_dim(at, lax.axis_index(AXES) * n, n) for at, n in zip(entries, sizes, strict=True)
    ]
    found = jax_port._differences(params, x, labels, h, mine, memory)
    together = gather(jnp.concatenate(found), AXES)  # (devices, the shares of all members)
    parts = jnp.split(together, np.cumsum(sizes)[:-1], axis=1)
    return Params(*(p.ravel()[: math.prod(s)].reshape(s) for p, s in zip(parts, shapes, strict=True)))


def _train(
    params: Params,
    x: Array,
    labels: Array,
    batches: Array,
    rate: Array,
    shifts: Shifts,
    *,
    name: str,
    samples: int,
    memory: int,
    needs: Plan,
) -> tuple[Params, Array, Array]:
    """Return the net after all steps, and for each step the loss and the largest of W2 before it."""

    def loss_and(*_: Any) -> LossAndGradient:
        if name in ("loop", "batched"):
            return _all_differences(shifts.h, memory if name == "batched" else 0)
        return _whole_batch(name, shifts, memory, needs, samples)

    trained, losses, weights = jax_port._scan(
        params, x, labels, batches, rate, shifts, jax_port.gradient, memory, needs, loss_and
    )
    return trained, losses, largest_over(weights, "hidden")


def _all_differences(h: Array, memory: int) -> LossAndGradient:
    def loss_and_gradient(params: Params, x: Array, labels: Array) -> tuple[Array, Params]:
        entries = _shares(check_entries(params, None), lax.axis_size(AXES))
        shapes = tuple(p.shape for p in params)
        slope = _some_differences(params, x, labels, h, entries, memory=memory, shapes=shapes)
        return jax_port._loss(params, x, labels), slope

    return loss_and_gradient
