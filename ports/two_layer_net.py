"""The chapter's class `TwoLayerNet` on any backend."""

import copy
import os
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from ports.protocol import Port
from ports.registry import reloadable, resolve
from reference import chapter
from reference.chapter import batch_labels, checked_arrays
from reference.defaults import H
from reference.two_layer_net import Params


class TwoLayerNet(chapter.TwoLayerNet):
    """The net of chapter 4.5.1, computed by a backend.

    Parameters and attributes are those of `reference.chapter.TwoLayerNet`, and:

    Parameters
    ----------
    backend : str, path or module
        A name of `ports.names()`, such as "jax", the path of a file, or any module that is a port (ports/protocol.py).

    Notes
    -----
    `params` holds NumPy arrays on every backend, so that they can be updated in place. A copy of a net has the same
    backend. One that is unpickled loads it again, by its name or from the absolute path of its file.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.01,
        *,
        seed: int | None = None,
        backend: str | os.PathLike[str] | Port = "numpy",
        strategy: str = "collocated",
        h: float = H,
    ) -> None:
        self._port = resolve(backend)
        self._backend = reloadable(backend, self._port)
        super().__init__(input_size, hidden_size, output_size, weight_init_std, seed=seed, strategy=strategy, h=h)

    @property
    def _gradients(self) -> dict[str, Callable[..., Params]]:
        return self._port.GRADIENTS

    def __copy__(self) -> Self:
        net = object.__new__(type(self))
        net.__dict__.update(self.__dict__)
        return net

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo |= {id(port): port for port in (self._port, self._backend)}  # a module can't be copied
        net = memo[id(self)] = copy.copy(self)
        net.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return net

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_port"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._port = resolve(self._backend)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Compute the class probabilities, (B, O); (O,) of a single sample (I,)."""
        y = self._port.to_numpy(self._port.predict(*self._on_backend(x)))
        return y[0] if np.ndim(x) == 1 else y

    def loss(self, x: np.ndarray, t: np.ndarray) -> float:
        """Compute the mean cross entropy of the batch."""
        return float(self._port.to_numpy(self._port.loss(*self._on_backend(x), batch_labels(x, t))))

    def accuracy(self, x: np.ndarray, t: np.ndarray) -> float:
        """Compute the share of samples that are predicted right."""
        return float(self._port.to_numpy(self._port.accuracy(*self._on_backend(x), batch_labels(x, t))))

    def numerical_gradient(self, x: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the central differences of the loss, as a dict like `params`."""
        return self._as_dict(self._differences()(*self._on_backend(x), batch_labels(x, t), h=self.h))

    def gradient(self, x: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the closed-form derivative of the loss, as a dict like `params`."""
        return self._as_dict(self._port.gradient(*self._on_backend(x), batch_labels(x, t)))

    def _on_backend(self, x: Any) -> tuple[Params, Any]:
        """Copy parameters and inputs to the backend in float64; the book's inputs are float32."""
        device = "cpu" if "cpu" in self._port.devices() else "auto"
        arrays = checked_arrays(self.params, x)
        *params, x = (self._port.from_numpy(array, dtype="float64", device=device) for array in arrays)
        return Params(*params), x

    def _as_dict(self, gradient: Params) -> dict[str, np.ndarray]:
        return {name: self._port.to_numpy(g) for name, g in zip(Params._fields, gradient, strict=True)}
