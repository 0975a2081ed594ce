"""The port distributed over several devices: it checks arguments, lays arrays out, and runs programs on the mesh."""

from collections.abc import Callable
from functools import cache, partial
from operator import attrgetter
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ports.distributed import Sent, total_sent
from ports.jax_port.collectives import sent_by, silent
from ports.jax_port.descent import largest_finite
from ports.jax_port.layout import (
    Layout,
    MeshArray,
    NetLayout,
    best_mesh,
    divided,
    mesh_of,
    replicated,
    specs_of,
)
from ports.jax_port.loss_difference import NO_SAMPLE
from ports.jax_port.mesh_programs import (
    equal_shares,
    mesh_accuracy,
    mesh_descent,
    mesh_differences,
    mesh_gradient,
    mesh_loss,
    mesh_probabilities,
)
from ports.jax_port.processes import gather, report_lost_peer
from ports.jax_port.runtime import compiler_options, devices, devices_of_kind, with_x64
from reference import validation
from reference.collocation import Plan, make_plan, run_within_plan, warn_of_structured
from reference.defaults import CLOSED_FORM, MEMORY, H
from reference.two_layer_net import Params
from reference.validation import DeviceError, Magnitudes

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def on_mesh(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Enable 64-bit types in a method, and say so where it ends because another process has ended."""
    return report_lost_peer(with_x64(function))


class MeshPort:
    """The port distributed over several devices; it implements `ports.protocol.Port` and `DistributedPort`.

    `memory` is what one gradient may take on each device.

    Parameters
    ----------
    devices : int or "all"
        The number of devices. Where several processes run, it must be all of them.
    silent : bool
        Leave out the messages between devices, so that the time they take can be told from the time of computing. All
        results are wrong.
    """

    def __init__(self, devices: int | str, *, silent: bool = False) -> None:
        self._devices, self._silent = first_devices(devices), silent
        self._calls: list[tuple[Any, Any]] | None = None  # of programs, with their arguments, while they are counted
        self.GRADIENTS: dict[str, Callable[..., Params]] = {
            "loop": self.loop,
            "batched": self.batched,
            "structured": self.structured,
            "collocated": self.collocated,
        }

    @property
    def rank(self) -> int:
        """The index of this process."""
        return jax.process_index()

    def subset(self, devices: int, *, silent: bool = False) -> "MeshPort":
        """Return the port over the first `devices` devices."""
        return MeshPort(devices, silent=silent)

    @on_mesh
    def sent(self, call: Callable[[], Any]) -> Sent:
        """Count what each device sends in a call of this port."""
        self._calls = []
        try:
            call()
            return total_sent(sent_by(program.trace(*args).jaxpr) for program, args in self._calls)
        finally:
            self._calls = None

    def barrier(self) -> None:
        """Wait for the other processes."""
        gather(None)

    def gather(self, value: Any) -> list[Any]:
        """Return the value of each process, in their order."""
        return gather(value)

    def devices(self) -> tuple[str, ...]:
        """Return the kinds of devices of which there are enough."""
        return tuple(self._devices)

    def from_numpy(self, array: np.ndarray, *, dtype: str, device: str) -> MeshArray:
        """Copy `array`; it goes to the devices when it is used, since its use decides how it is divided."""
        kind = validation.check_device(device, self.devices())
        copy = np.array(validation.check_numbers(array), dtype=validation.check_dtype(dtype), order="C")
        return MeshArray(copy.shape, copy.dtype, kind, host=copy)

    @on_mesh
    def to_numpy(self, array: MeshArray) -> np.ndarray:
        """Copy `array` to the host."""
        return np.array(array.host)

    def synchronize(self, result: Any) -> Any:
        """Wait until `result` has been computed, and return it."""
        return jax.block_until_ready(result)

    @on_mesh
    def predict(self, params: Params, x: MeshArray) -> MeshArray:
        """Compute the class probabilities of each sample, (B, O)."""
        validation.check_net(params, x, MeshArray, attrgetter("max_abs"))
        layout = self._divided(params, x)
        y = Layout(layout.mesh, P("batch", None), (layout.x.shape[0], len(params.b2)))
        program = self._program(mesh_probabilities, layout, layout.specs[:2], y.spec)
        result = self._call(program, layout.put_params(params), x.on(layout.x))
        return laid_out(result, y, x, (len(x), len(params.b2)))

    @on_mesh
    def loss(self, params: Params, x: MeshArray, t: Any) -> MeshArray:
        """Compute the mean cross entropy of the batch."""
        return self._mean(mesh_loss, params, x, t)

    @on_mesh
    def accuracy(self, params: Params, x: MeshArray, t: Any) -> MeshArray:
        """Compute the share of samples whose most probable class is the right one."""
        return self._mean(mesh_accuracy, params, x, t)

    def _mean(self, function: Callable[..., Array], params: Params, x: MeshArray, t: Any) -> MeshArray:
        labels, _ = check_mesh_batch(params, x, t)
        layout = self._divided(params, x)
        program = self._program(function, layout, layout.specs, P(), samples=len(x))
        return laid_out(self._call(program, *layout.put(params, x, labels)), Layout(layout.mesh, P(), ()), x, ())

    @on_mesh
    def gradient(self, params: Params, x: MeshArray, t: Any) -> Params:
        """Compute the derivative of the loss in closed form: the yardstick, not a way to train."""
        labels, _ = check_mesh_batch(params, x, t)
        return self._divide_batch(CLOSED_FORM, params, x, labels)

    @on_mesh
    def loop(
        self, params: Params, x: MeshArray, t: Any, *, h: float = H, memory: float = MEMORY, entries: Any = None
    ) -> Params:
        """Compute the central differences one parameter at a time, each device its share of the parameters."""
        return self._divide_entries("loop", params, x, t, h, memory, entries)

    @on_mesh
    def batched(
        self, params: Params, x: MeshArray, t: Any, *, h: float = H, memory: float = MEMORY, entries: Any = None
    ) -> Params:
        """Compute what `loop` computes, many parameters at a time."""
        return self._divide_entries("batched", params, x, t, h, memory, entries)

    @on_mesh
    def structured(self, params: Params, x: MeshArray, t: Any, *, h: float = H, memory: float = MEMORY) -> Params:
        """Compute what `loop` computes, to a few roundings, from only what a perturbation reaches."""
        h = validation.check_h(h)
        labels, magnitudes = check_mesh_batch(params, x, t, memory)
        plan = make_plan(h, magnitudes["x"], magnitudes["W2"], str(x.dtype))
        scalars = {"h": x.dtype.type(h), "max_abs_x": x.dtype.type(magnitudes["x"])}
        return self._divide_batch("structured", params, x, labels, scalars, memory=int(memory), plan=plan)

    @on_mesh
    def collocated(self, params: Params, x: MeshArray, t: Any, *, h: float = H, memory: float = MEMORY) -> Params:
        """Compute what `structured` computes, from differences at a few nodes and as many matrix products."""
        h = validation.check_h(h)
        labels, magnitudes = check_mesh_batch(params, x, t, memory)
        plan = make_plan(h, magnitudes["x"], magnitudes["W2"], str(x.dtype))
        if not plan.collocates:
            warn_of_structured(h, magnitudes["x"])
        scalars = {"h": x.dtype.type(h), "max_abs_x": x.dtype.type(magnitudes["x"])}
        return self._divide_batch("collocated", params, x, labels, scalars, memory=int(memory), plan=plan)

    def _divide_batch(
        self,
        strategy: str,
        params: Params,
        x: MeshArray,
        labels: np.ndarray,
        scalars: dict[str, np.floating] | None = None,
        **options: Any,
    ) -> Params:
        layout = self._divided(params, x)
        specs, out_specs = (*layout.specs, P()), specs_of(layout.gradient)
        program = self._program(mesh_gradient, layout, specs, out_specs, strategy=strategy, samples=len(x), **options)
        result = self._call(program, *layout.put(params, x, labels), scalars or {})
        return net_laid_out(result, layout.gradient, params)

    def _divide_entries(
        self, strategy: str, params: Params, x: MeshArray, t: Any, h: float, memory: float, entries: Any
    ) -> Params:
        h = validation.check_h(h)
        labels, magnitudes = check_mesh_batch(params, x, t, memory)
        validation.check_h_moves(h, magnitudes, str(x.dtype))
        chosen = validation.check_entries(params, entries)
        layout = self._replicated(params, x)
        options = {"strategy": strategy, "memory": int(memory), "shapes": tuple(at.shape for at in chosen)}
        program = self._program(mesh_differences, layout, (*layout.specs, P(), P()), P(), **options)
        shares = equal_shares(chosen, layout.mesh.size)
        result = self._call(program, *layout.put(params, x, labels), x.dtype.type(h), shares)
        return Params(*(laid_out(g, Layout(layout.mesh, P(), g.shape), x, g.shape) for g in result))

    @on_mesh
    def train_steps(
        self,
        params: Params,
        x: MeshArray,
        t: Any,
        batches: np.ndarray,
        *,
        strategy: str,
        learning_rate: float,
        h: float = H,
        memory: float = MEMORY,
    ) -> tuple[Params, MeshArray]:
        """Take K steps of gradient descent, one for each mini-batch; see `reference.descent.train_steps`.

        Each device holds all samples and its part of the net.
        """
        h = validation.check_h(h)
        labels, magnitudes = check_mesh_batch(params, x, t, memory)
        batches = validation.check_batches(batches, len(x))
        validation.check_strategy(strategy, self.GRADIENTS)
        dtype, scalar = str(x.dtype), x.dtype.type
        if strategy in ("loop", "batched"):
            validation.check_h_moves(h, magnitudes, dtype)
        rate = scalar(validation.check_learning_rate(learning_rate, dtype))

        def run(plan: Plan) -> tuple[tuple[Params, MeshArray], float]:
            program, layout, of_batches = self._descent(strategy, params, x, batches.shape, int(memory), plan)
            arrays = (*layout.put(params, x, labels), of_batches.put(batches))
            scalars = rate, scalar(h), scalar(magnitudes["x"])
            (trained, losses), max_abs_W2 = self._call(program, *arrays, *scalars)
            of_losses = Layout(layout.mesh, P(), losses.shape)
            result = net_laid_out(trained, layout.params, params), laid_out(losses, of_losses, x, losses.shape)
            return result, largest_finite(max_abs_W2)

        return run_within_plan(run, strategy, h, magnitudes, dtype)

    def _descent(
        self, strategy: str, params: Params, x: MeshArray, shape: tuple[int, ...], memory: int, plan: Plan
    ) -> tuple[Any, NetLayout, Layout]:
        """Return the program of a training, the layout of its arguments, and that of the mini-batches of `shape`."""
        steps, samples = shape
        if strategy in ("loop", "batched"):
            layout = replicated(mesh_of(self._devices[x.device], 1), params, samples)
            of_batches = Layout(layout.mesh, P(), shape)
        else:
            layout = divided(best_mesh(self._devices[x.device], params, samples), params, samples)
            of_batches = Layout(layout.mesh, P(None, "batch"), (steps, layout.x.shape[0]), NO_SAMPLE)
        rows = len(x) + 1  # the last one stands for no sample
        all_x = Layout(layout.mesh, P(), (rows, x.shape[1]))
        layout = layout._replace(x=all_x, labels=Layout(layout.mesh, P(), (rows,), NO_SAMPLE))
        specs = (*layout.specs, of_batches.spec, P(), P(), P())
        out_specs = (specs_of(layout.params), P()), P()
        options = {"strategy": strategy, "samples": samples, "memory": memory, "plan": plan}
        return self._program(mesh_descent, layout, specs, out_specs, **options), layout, of_batches

    def _divided(self, params: Params, x: MeshArray) -> NetLayout:
        return divided(best_mesh(self._devices[x.device], params, len(x)), params, len(x))

    def _replicated(self, params: Params, x: MeshArray) -> NetLayout:
        return replicated(mesh_of(self._devices[x.device], 1), params, len(x))

    def _program(
        self, function: Callable[..., Any], layout: NetLayout, in_specs: Any, out_specs: Any, **options: Any
    ) -> Any:
        return mesh_program(function, layout.mesh, in_specs, out_specs, self._silent, **options)

    def _call(self, program: Any, *args: Any) -> Any:
        if self._calls is not None:
            self._calls.append((program, args))
        return program(*args)


def first_devices(count: int | str) -> dict[str, tuple[jax.Device, ...]]:
    """Return the first `count` devices of each kind that has as many, the default kind first."""
    kinds = {name: tuple(devices_of_kind(name)) for name in devices() if ":" not in name}
    default = next(iter(kinds.values()))
    most = max(map(len, kinds.values()))
    if count == "all":
        count = len(default)
    if not isinstance(count, int) or not 1 <= count <= most:
        raise DeviceError(f"`devices` must be from 1 to {most}, the devices of JAX here, or all, got {count}.")
    if jax.process_count() > 1 and count != len(default):
        raise DeviceError(f"`devices` must be all where several processes run ({most}), got {count}.")
    return {name: there[:count] for name, there in kinds.items() if count <= len(there)}


@cache
def mesh_program(
    function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any, silently: bool, **options: Any
) -> Any:
    """Compile `function`, which receives the device's own part of each argument, for a mesh."""
    run: Callable[..., Any] = partial(function, **options)
    mapped = jax.shard_map(
        silent(run) if silently else run, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
    return jax.jit(mapped, compiler_options=compiler_options())


def check_mesh_batch(params: Params, x: MeshArray, t: Any, memory: float = MEMORY) -> tuple[np.ndarray, Magnitudes]:
    """Check a net, its batch and the memory budget; return the labels as class indices (B,), and the magnitudes."""
    validation.check_memory(memory)
    magnitudes = validation.check_net(params, x, MeshArray, attrgetter("max_abs"))
    return validation.check_labels(t, len(x), len(params.b2)), magnitudes


def laid_out(array: Array, layout: Layout, like: MeshArray, shape: tuple[int, ...]) -> MeshArray:
    """Return the result of a program as an array of the port; `shape` is that without padding."""
    return MeshArray(shape, np.dtype(array.dtype), like.device, laid_out={layout: array})


def net_laid_out(arrays: Params, layouts: Params, like: Params) -> Params:
    """Return a net or gradient that is the result of a program as arrays of the port."""
    return Params(*(laid_out(a, layout, p, p.shape) for a, layout, p in zip(arrays, layouts, like, strict=True)))
