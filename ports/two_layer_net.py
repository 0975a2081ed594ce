"""The chapter's class `TwoLayerNet` on any backend."""

from types import ModuleType
from typing import Any

import numpy as np

from ports.registry import load
from reference import chapter
from reference.defaults import H
from reference.two_layer_net import Params


class TwoLayerNet(chapter.TwoLayerNet):
    """The net of chapter 4.5.1, computed by a backend.

    Parameters and attributes are those of `reference.chapter.TwoLayerNet`, and:

    Parameters
    ----------
    backend : str or module
        A name of `ports.names()`, such as "jax", or any module that is a port (ports/protocol.py).

    Notes
    -----
    `params` holds NumPy arrays on every backend, so that they can be updated in place.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.01,
        *,
        seed: int | None = None,
        backend: str | ModuleType = "numpy",
        strategy: str = "collocated",
        h: float = H,
    ) -> None:
        sizes = input_size, hidden_size, output_size
        super().__init__(*sizes, weight_init_std, seed=seed, strategy=strategy, h=h)
        self._port: Any = load(backend) if isinstance(backend, str) else backend

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Compute the class probabilities, (B, O)."""
        return self._port.to_numpy(self._port.predict(*self._on_backend(x)))

    def loss(self, x: np.ndarray, t: np.ndarray) -> float:
        """Compute the mean cross entropy of the batch."""
        return float(self._port.to_numpy(self._port.loss(*self._on_backend(x), t)))

    def accuracy(self, x: np.ndarray, t: np.ndarray) -> float:
        """Compute the share of samples that are predicted right."""
        return float(self._port.to_numpy(self._port.accuracy(*self._on_backend(x), t)))

    def numerical_gradient(self, x: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the central differences of the loss, as a dict like `params`."""
        return self._as_dict(self._port.GRADIENTS[self.strategy](*self._on_backend(x), t, h=self.h))

    def gradient(self, x: np.ndarray, t: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the closed-form derivative of the loss, as a dict like `params`."""
        return self._as_dict(self._port.gradient(*self._on_backend(x), t))

    def _on_backend(self, x: Any) -> tuple[Params, Any]:
        """Return parameters and inputs as the backend's own, in float64; the book's inputs are float32."""
        device = "cpu" if "cpu" in self._port.devices() else "auto"
        arrays = (*(self.params[name] for name in Params._fields), x)
        *params, x = (self._port.from_numpy(np.asarray(a), dtype="float64", device=device) for a in arrays)
        return Params(*params), x

    def _as_dict(self, gradient: Params) -> dict[str, np.ndarray]:
        return {name: self._port.to_numpy(g) for name, g in zip(Params._fields, gradient, strict=True)}
