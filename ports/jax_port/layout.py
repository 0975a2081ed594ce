"""How arrays lie on a mesh of devices: which axes are cut, and what fills them up where they don't divide.

A device has as many rows as any other, so an axis that a number does not divide is filled up, with what counts for
nothing: rows of zeros whose label is -1, and hidden units whose bias is -infinity, so that they stay at 0 exactly and
no difference of theirs is anything but 0.
"""

import math
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from reference.two_layer_net import Params, largest

AXES = ("batch", "hidden")
"""Of each mesh."""
NO_SAMPLE = -1
"""The label of a row that stands for no sample, and the index of such a row."""


class Placing(NamedTuple):
    """How an array lies on the devices: filled up to `shape` with `fill`, and cut as `spec` says."""

    mesh: Mesh
    spec: P
    shape: tuple[int, ...]
    fill: float = 0

    @property
    def sharding(self) -> NamedSharding:
        """The same in JAX's terms."""
        return NamedSharding(self.mesh, self.spec)


class MeshArray:
    """An array of the port: on the host, on the devices in each way that was asked for, or both.

    What it is used for says how it is to be cut, and an array is made before it is used. Parameters that come from the
    host are never whole on a device unless all devices need them whole.

    Parameters
    ----------
    shape, dtype
        Of the array without anything filled up.
    device : str
        The name of the kind of devices.
    host : array, optional
    placed : dict, optional
        From a placing to the array of JAX.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        device: str,
        host: np.ndarray | None = None,
        placed: dict[Placing, jax.Array] | None = None,
    ) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        self._placed = placed or {}
        if host is not None:
            self.host = host

    @cached_property
    def host(self) -> np.ndarray:
        """The array on the host; where several processes have parts of it, they send them to each other."""
        (result,) = self._placed.values()
        if not (result.is_fully_addressable or result.is_fully_replicated):
            result = multihost_utils.process_allgather(result, tiled=True)
        return np.asarray(result)[tuple(map(slice, self.shape))]

    @cached_property
    def largest(self) -> float:
        """max(|array|)."""
        return largest(self.host)

    def on(self, placing: Placing) -> jax.Array:
        """Return the array as it lies on a mesh; each process sends its own devices their parts."""
        if placing not in self._placed:
            widths = [(0, padded - size) for padded, size in zip(placing.shape, self.shape, strict=True)]
            filled = np.pad(self.host, widths, constant_values=placing.fill)
            self._placed[placing] = put(placing, filled)
        return self._placed[placing]

    def block_until_ready(self) -> "MeshArray":
        """Return the array when it has been computed."""
        jax.block_until_ready(list(self._placed.values()))
        return self

    def __len__(self) -> int:
        return self.shape[0]

    def __float__(self) -> float:
        return float(self.host)

    def __getitem__(self, key: Any) -> "MeshArray":
        part = np.array(self.host[key])
        return MeshArray(part.shape, part.dtype, self.device, host=part)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.host, dtype=dtype)


def put(placing: Placing, filled: np.ndarray) -> jax.Array:
    """Return an array that has the placing's shape already, on the devices."""
    part: Callable[..., np.ndarray] = filled.__getitem__
    return jax.make_array_from_callback(placing.shape, placing.sharding, part)


def mesh_for(devices: tuple[jax.Device, ...], params: Params, samples: int) -> Mesh:
    """Return the mesh ("batch", "hidden") on which the busiest device has least to do, and then least to send.

    On n x m devices it has ceil(B / n) samples and ceil(H / m) hidden units. It sends its part of the gradient where
    the batch is cut, and its part of the logits where the hidden units are. So wide nets are cut by their units.
    """
    (inputs, hidden), outputs = params.W1.shape, len(params.b2)

    def cost(n: int) -> tuple[int, float]:
        m = len(devices) // n
        rows, units = -(-samples // n), -(-hidden // m)
        gradient = units * (inputs + 1 + outputs) + outputs
        return rows * units, 2 * (n - 1) / n * gradient + 2 * (m - 1) / m * rows * outputs

    n = min((n for n in range(1, len(devices) + 1) if len(devices) % n == 0), key=cost)
    return mesh_of(devices, n)


@cache
def mesh_of(devices: tuple[jax.Device, ...], n: int) -> Mesh:
    """Return the mesh with n parts of the batch."""
    return jax.make_mesh((n, len(devices) // n), AXES, (AxisType.Auto,) * 2, devices=devices)


class Placings(NamedTuple):
    """Where everything lies: the specs by which a program is cut follow from them."""

    params: Params  # of Placing
    slope: Params
    x: Placing
    labels: Placing


def split(mesh: Mesh, params: Params, samples: int) -> Placings:
    """Cut samples and hidden units."""
    (inputs, hidden), outputs = params.W1.shape, len(params.b2)
    n, m = mesh.shape["batch"], mesh.shape["hidden"]
    rows, units = math.ceil(samples / n) * n, math.ceil(hidden / m) * m
    slope = Params(
        Placing(mesh, P(None, "hidden"), (inputs, units)),
        Placing(mesh, P("hidden"), (units,)),
        Placing(mesh, P("hidden", None), (units, outputs)),
        Placing(mesh, P(), (outputs,)),
    )
    net = slope._replace(b1=slope.b1._replace(fill=-math.inf))
    x = Placing(mesh, P("batch", None), (rows, inputs))
    return Placings(net, slope, x, Placing(mesh, P("batch"), (rows,), NO_SAMPLE))


def whole(mesh: Mesh, params: Params, samples: int) -> Placings:
    """Give every device everything: what is cut is something else."""
    net = Params(*(Placing(mesh, P(), p.shape) for p in params))
    return Placings(
        net, net, Placing(mesh, P(), (samples, params.W1.shape[0])), Placing(mesh, P(), (samples,), NO_SAMPLE)
    )
