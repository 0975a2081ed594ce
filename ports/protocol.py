"""What a port must offer: a module that has these names is a port (DESIGN: one file is a backend)."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from reference.two_layer_net import Params

Array = Any
"""The backend's own array."""
Gradient = Callable[..., Params]
"""`f(params, x, t, *, h=1e-4, memory=MEMORY) -> Params`; `loop` and `batched` take `entries=None` too."""
STRATEGIES = ("loop", "batched", "structured", "collocated")


class NotRunError(RuntimeError):
    """A backend can't be used here; the message is the reason."""


class PortError(ValueError):
    """A module that was offered as a port and is none."""


class Port(Protocol):
    """A backend.

    `params` holds the backend's own arrays; `t` is class indices (B,) or one-hot rows (B, O), of any kind. Each
    function validates what it is given and raises ValueError with the rule and the value, before any work starts; the
    rules are in `reference.validation`. None of them changes an argument.
    """

    GRADIENTS: dict[str, Gradient]

    def from_numpy(self, array: np.ndarray, *, dtype: str, device: str) -> Array:
        """Return a copy, never an alias, of `array` as "float64" or "float32" on a device of `devices()`."""

    def to_numpy(self, array: Array) -> np.ndarray:
        """Return a copy, never an alias, of the same dtype."""

    def devices(self) -> tuple[str, ...]:
        """Return the names of the devices that can be used here, the default one first."""

    def synchronize(self, result: Any) -> Any:
        """Return `result` (arrays, or tuples of them) when the device has finished it."""

    def predict(self, params: Params, x: Array) -> Array:
        """Return the class probabilities (B, O)."""

    def loss(self, params: Params, x: Array, t: Array) -> Array:
        """Return the mean cross entropy, a scalar array of the dtype of `params`."""

    def accuracy(self, params: Params, x: Array, t: Array) -> Array:
        """Return the share of samples predicted right, a scalar array of the dtype of `params`."""

    def gradient(self, params: Params, x: Array, t: Array) -> Params:
        """Return the closed-form derivative."""

    def train_steps(
        self,
        params: Params,
        x: Array,
        t: Array,
        batches: np.ndarray,
        *,
        gradient: Gradient,
        learning_rate: float,
        h: float = 1e-4,
        memory: float = 256 * 2**20,
    ) -> tuple[Params, Array]:
        """Return the parameters after K steps of gradient descent, and each mini-batch's loss before its step (K,).

        `batches` (K, B) holds indices into x and t; `gradient` is this port's `gradient` or one of its `GRADIENTS`.
        """


def check_port(module: ModuleType) -> Port:
    """Return `module` if it is a port, and otherwise raise PortError with what it lacks."""
    name = getattr(module, "__name__", repr(module))
    for member, wanted in inspect.getmembers(Port, inspect.isfunction):
        if not member.startswith("_"):
            _check_member(name, module, member, list(inspect.signature(wanted).parameters)[1:])
    gradients = getattr(module, "GRADIENTS", None)
    if not isinstance(gradients, dict) or not gradients or not all(map(callable, gradients.values())):
        raise PortError(f"`{name}.GRADIENTS` must be a dict of strategy names and functions, got {gradients!r}.")
    return module


def _check_member(name: str, module: ModuleType, member: str, wanted: list[str]) -> None:
    function = getattr(module, member, None)
    if not callable(function):
        raise PortError(f"`{name}` must have a function `{member}({', '.join(wanted)})`, got {function!r}.")
    got = list(inspect.signature(function).parameters)
    if got[: len(wanted)] != wanted:
        raise PortError(f"`{name}.{member}` must take ({', '.join(wanted)}), got ({', '.join(got)}).")
