"""How arrays are laid out on a mesh of devices: which axes are divided, and what pads those that don't divide.

All devices have the same number of rows, so an axis that their number does not divide is padded with something that
contributes nothing: rows of zeros whose label is NO_SAMPLE, and hidden units whose bias is -infinity, so that their
output is exactly 0, and so are their differences.
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

from ports.jax_port.loss_difference import NO_SAMPLE
from reference.two_layer_net import Params, max_abs

AXES = ("batch", "hidden")
"""The axes of every mesh."""


class Layout(NamedTuple):
    """How one array lies on the devices: padded to `shape` with `padding`, and divided by `spec`."""

    mesh: Mesh
    spec: P
    shape: tuple[int, ...]
    padding: float = 0

    def pad(self, array: np.ndarray) -> np.ndarray:
        """Pad an array to the layout's shape."""
        widths = [(0, padded - size) for padded, size in zip(self.shape, array.shape, strict=True)]
        return np.pad(array, widths, constant_values=array.dtype.type(self.padding))

    def put(self, array: np.ndarray) -> jax.Array:
        """Pad an array and copy it to the devices; each process sends its own devices their parts."""
        part: Callable[..., np.ndarray] = self.pad(array).__getitem__
        return jax.make_array_from_callback(self.shape, NamedSharding(self.mesh, self.spec), part)


class MeshArray:
    """An array of the port: on the host, on the devices in one or several layouts, or both.

    Its layout depends on what it is used for, and an array exists before it is used. Parameters that come from the host
    are never whole on one device unless every device needs them whole.

    Parameters
    ----------
    shape, dtype
        Those of the array without padding.
    device : str
        The kind of the devices, such as "cpu".
    host : array, optional
    laid_out : dict, optional
        From a layout to the array of JAX.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        device: str,
        host: np.ndarray | None = None,
        laid_out: dict[Layout, jax.Array] | None = None,
    ) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        self._laid_out = laid_out or {}
        if host is not None:
            self.host = host

    @cached_property
    def host(self) -> np.ndarray:
        """The array on the host; where several processes have parts of it, they send them to each other."""
        (result,) = self._laid_out.values()
        if not (result.is_fully_addressable or result.is_fully_replicated):
            result = multihost_utils.process_allgather(result, tiled=True)
        return np.asarray(result)[tuple(map(slice, self.shape))]

    @cached_property
    def max_abs(self) -> float:
        """max|array|, NaN if there is a NaN."""
        return max_abs(self.host)

    def on(self, layout: Layout) -> jax.Array:
        """Return the array in a layout."""
        if layout not in self._laid_out:
            self._laid_out[layout] = layout.put(self.host)
        return self._laid_out[layout]

    def block_until_ready(self) -> "MeshArray":
        """Wait until the array has been computed, and return it."""
        jax.block_until_ready(list(self._laid_out.values()))
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


class NetLayout(NamedTuple):
    """The layouts of a net, of its gradient, of inputs and of labels."""

    params: Params  # of Layout, as `gradient` is
    gradient: Params
    x: Layout
    labels: Layout

    @property
    def mesh(self) -> Mesh:
        """The mesh that all of them lie on."""
        return self.x.mesh

    @property
    def specs(self) -> tuple[Params, P, P]:
        """How a program receives a net, inputs and labels."""
        return specs_of(self.params), self.x.spec, self.labels.spec

    def put(self, params: Params, x: MeshArray, labels: np.ndarray) -> tuple[Params, jax.Array, jax.Array]:
        """Lay out a net, inputs and labels."""
        return self.put_params(params), x.on(self.x), self.labels.put(labels)

    def put_params(self, params: Params) -> Params:
        """Lay out a net."""
        return Params(*(p.on(layout) for p, layout in zip(params, self.params, strict=True)))


def specs_of(layouts: Params) -> Params:
    """Return the specs of the layouts of a net or of its gradient."""
    return Params(*(layout.spec for layout in layouts))


def best_mesh(devices: tuple[jax.Device, ...], params: Params, samples: int) -> Mesh:
    """Return the mesh ("batch", "hidden") on which the busiest device has least to compute, and then least to send.

    On n x m devices it has ceil(B / n) samples and ceil(H / m) hidden units. It sends its part of the gradient where
    the batch is divided, and its part of the logits where the hidden units are. So wide nets are divided by units.
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
    """Return the mesh that divides the batch into n parts."""
    return jax.make_mesh((n, len(devices) // n), AXES, (AxisType.Auto,) * 2, devices=devices)


def divided(mesh: Mesh, params: Params, samples: int) -> NetLayout:
    """Divide the samples and the hidden units."""
    (inputs, hidden), outputs = params.W1.shape, len(params.b2)
    n, m = mesh.shape["batch"], mesh.shape["hidden"]
    rows, units = math.ceil(samples / n) * n, math.ceil(hidden / m) * m
    gradient = Params(
        Layout(mesh, P(None, "hidden"), (inputs, units)),
        Layout(mesh, P("hidden"), (units,)),
        Layout(mesh, P("hidden", None), (units, outputs)),
        Layout(mesh, P(), (outputs,)),
    )
    net = gradient._replace(b1=gradient.b1._replace(padding=-math.inf))
    x = Layout(mesh, P("batch", None), (rows, inputs))
    return NetLayout(net, gradient, x, Layout(mesh, P("batch"), (rows,), NO_SAMPLE))


def replicated(mesh: Mesh, params: Params, samples: int) -> NetLayout:
    """Give every device the whole net and all samples."""
    net = Params(*(Layout(mesh, P(), p.shape) for p in params))
    x = Layout(mesh, P(), (samples, params.W1.shape[0]))
    return NetLayout(net, net, x, Layout(mesh, P(), (samples,), NO_SAMPLE))
