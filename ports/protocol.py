"""What a port must offer: a module that has these names is a port (DESIGN: one file is a backend)."""

import inspect
import reprlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from reference.two_layer_net import Params

Array = Any
"""The backend's own array."""
Gradient = Callable[..., Params]
"""The closed form, or a `Difference`."""
STRATEGIES = ("loop", "batched", "structured", "collocated")


class NotRunError(RuntimeError):
    """A backend can't be used here; the message is the reason."""


class PortError(ValueError):
    """A module that was offered as a port and is none."""


class Difference(Protocol):
    """A function of GRADIENTS.

    `collocated` hands over to `structured`, with the warning of `reference.collocation.warn_of_structured`, where
    `reference.collocation.plan` says that it needs too many nodes.
    """

    def __call__(self, params: Params, x: Array, t: Array, *, h: float = 1e-4, memory: float = 256 * 2**20) -> Params:
        """Return the central differences at the step `h`, with work that fits into `memory` bytes.

        Where they hold no more than a part of one net or sample, that one is taken all the same.
        """


class DifferenceByEntry(Protocol):
    """The functions `loop` and `batched` of GRADIENTS."""

    def __call__(
        self,
        params: Params,
        x: Array,
        t: Array,
        *,
        h: float = 1e-4,
        memory: float = 256 * 2**20,
        entries: Params | None = None,
    ) -> Params:
        """Return what a `Difference` does, or the differences at some entries alone.

        `entries` holds flat indices, a NumPy array for each member of `params`; the result has its shapes.
        """


class Port(Protocol):
    """A backend.

    `params` holds the backend's own arrays; `t` is class indices (B,) or one-hot rows (B, O), of any kind: the
    backend's own, on any device, or what NumPy makes an array of. Each function validates what it is given and raises
    ValueError with the rule and the value, before any work starts. The rules are in `reference.validation`, a function
    for each argument; `check_step_moves` is for `loop` and `batched`, which add the step to a parameter. None of them
    changes an argument. Numbers that overflow give inf or NaN and raise nothing.

    A module may offer one more function, `spread(devices)`, devices a number or "all": it returns a port whose work is
    laid over so many devices, or raises DeviceError. All of its functions take and return whole arrays. To be timed on
    several numbers of devices this port has `subset(devices, silent=False)`, the same over the first of them and, if
    silent, with nothing sent between them, and `sent(call)`, the `ports.messages.Sent` of a call.
    """

    GRADIENTS: dict[str, Gradient]

    def from_numpy(self, array: np.ndarray, *, dtype: str, device: str) -> Array:
        """Return a copy, never an alias, of `array` as "float64" or "float32" on a device of `devices()`.

        "auto" is the first of them; any other name is a `reference.validation.DeviceError`.
        """

    def to_numpy(self, array: Array) -> np.ndarray:
        """Return a copy, never an alias, of the same dtype."""

    def devices(self) -> tuple[str, ...]:
        """Return the names of the devices that can be used here, the default one first."""

    def synchronize(self, result: Any) -> Any:
        """Return `result` itself (arrays, or tuples of them) when the device has finished it."""

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

        `batches` (K, B), on the host, holds indices into x and t; `gradient` is this port's `gradient` or one of its
        `GRADIENTS`, the very object. `h` and `memory` are checked, and of no use to `gradient`.
        """


def check_port(module: ModuleType) -> Port:
    """Return `module` if it is a port, and otherwise raise PortError with what it lacks."""
    name = getattr(module, "__name__", repr(module))
    for member, wanted in inspect.getmembers(Port, inspect.isfunction):
        if not member.startswith("_"):
            _check_function(f"{name}.{member}", getattr(module, member, None), wanted)
    gradients = getattr(module, "GRADIENTS", None)
    if not isinstance(gradients, dict) or not set(STRATEGIES) <= gradients.keys():
        raise PortError(
            f"`{name}.GRADIENTS` must be a dict of functions for {', '.join(STRATEGIES)}, got {_shown(gradients)}."
        )
    for strategy, function in gradients.items():
        kind = DifferenceByEntry if strategy in ("loop", "batched") else Difference
        _check_function(f"{name}.GRADIENTS[{strategy!r}]", function, kind.__call__)
    devices = module.devices()
    if not isinstance(devices, tuple) or not devices or not all(isinstance(device, str) for device in devices):
        raise PortError(f"`{name}.devices()` must return a tuple of names, got {_shown(devices)}.")
    return module


def _check_function(name: str, function: Any, wanted: Callable[..., Any]) -> None:
    parameters = [p for p in inspect.signature(wanted).parameters.values() if p.name != "self"]
    takes = str(inspect.Signature([p.replace(annotation=p.empty) for p in parameters]))
    if not callable(function):
        raise PortError(f"`{name}` must be a function {takes}, got {_shown(function)}.")
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some written in C have none
        raise PortError(f"`{name}` must take {takes}, got a function without a signature.") from None
    if not _can_be_called(signature, parameters):
        raise PortError(f"`{name}` must take {takes}, got {signature}.")


def _can_be_called(signature: inspect.Signature, wanted: list[inspect.Parameter]) -> bool:
    """Return whether each argument, named for what it is, would arrive under its own name, or in *args or **kwargs.

    And whether those that have a default may be left out.
    """
    positional = [p.name for p in wanted if p.kind is not p.KEYWORD_ONLY]
    named = {p.name: p.name for p in wanted if p.kind is p.KEYWORD_ONLY}
    try:
        signature.bind(*positional, **{p.name: p.name for p in wanted if p.name in named and p.default is p.empty})
        bound = signature.bind(*positional, **named)
    except TypeError:
        return False
    return all(name == value for name, value in bound.arguments.items() if isinstance(value, str))


def _shown(value: Any) -> str:
    return reprlib.repr(list(value) if isinstance(value, dict) else value)
