"""What a port must offer: a module with these functions is a port, so that one file is a backend."""

import inspect
import reprlib
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ports.distributed import Sent
from reference.defaults import MEMORY, STRATEGIES, H
from reference.two_layer_net import Params

Array = Any
"""The backend's own array."""


class NotRunError(RuntimeError):
    """A backend can't be used here; the message is the reason."""


class PortError(ValueError):
    """A module that was offered as a port and is not one."""


class Strategy(Protocol):
    """A function of GRADIENTS.

    `collocated` hands over to `structured`, with the warning of `reference.collocation.warn_of_structured`, where
    `reference.collocation.make_plan` says that it needs too many nodes.
    """

    def __call__(self, params: Params, x: Array, t: Array, *, h: float = H, memory: float = MEMORY) -> Params:
        """Compute the central differences with the step `h`, within `memory` bytes of work.

        Where `memory` does not hold the work for one net or one sample, that one is computed all the same.
        """


class StrategyByEntry(Protocol):
    """The functions `loop` and `batched` of GRADIENTS."""

    def __call__(
        self,
        params: Params,
        x: Array,
        t: Array,
        *,
        h: float = H,
        memory: float = MEMORY,
        entries: Params | None = None,
    ) -> Params:
        """Compute all central differences, as a `Strategy` does, or only those at some entries.

        `entries` holds flat indices, a NumPy array for each member of `params`; the result has its shapes.
        """


class Port(Protocol):
    """A backend.

    `params` holds the backend's own arrays; `t` is class indices (B,) or one-hot rows (B, O), of any kind: the
    backend's own, on any device, or what NumPy makes an array of. Each function validates its arguments and raises
    ValueError with the rule and the value, before any work starts. The rules are in `reference.validation`, a function
    for each argument; `check_h_moves` is for `loop` and `batched`, which add h to a parameter. No function changes an
    argument. Numbers that overflow give inf or NaN and raise nothing.

    A module may offer one more function, `distribute`; see `Distributable`.
    """

    GRADIENTS: dict[str, Callable[..., Params]]

    def from_numpy(self, array: np.ndarray, *, dtype: str, device: str) -> Array:
        """Copy `array`, never alias it, as "float64" or "float32" to a device of `devices()`.

        "auto" is the first of them; any other name is a `reference.validation.DeviceError`.
        """

    def to_numpy(self, array: Array) -> np.ndarray:
        """Copy `array`, never alias it, to a NumPy array of the same dtype."""

    def devices(self) -> tuple[str, ...]:
        """Return the names of the devices that can be used here, the default one first."""

    def synchronize(self, result: Any) -> Any:
        """Wait until the device has finished `result` (arrays, or tuples of them), and return it."""

    def predict(self, params: Params, x: Array) -> Array:
        """Compute the class probabilities (B, O)."""

    def loss(self, params: Params, x: Array, t: Array) -> Array:
        """Compute the mean cross entropy, a scalar array of the dtype of `params`."""

    def accuracy(self, params: Params, x: Array, t: Array) -> Array:
        """Compute the share of samples predicted right, a scalar array of the dtype of `params`."""

    def gradient(self, params: Params, x: Array, t: Array) -> Params:
        """Compute the closed-form derivative."""

    def train_steps(
        self,
        params: Params,
        x: Array,
        t: Array,
        batches: np.ndarray,
        *,
        strategy: str,
        learning_rate: float,
        h: float = H,
        memory: float = MEMORY,
    ) -> tuple[Params, Array]:
        """Take K steps of gradient descent; return the parameters and each mini-batch's loss before its step (K,).

        `batches` (K, B), on the host, holds indices into x and t; `strategy` is a name of GRADIENTS, or "closed form".
        `h` and `memory` are checked, and not used by the closed form.
        """


@runtime_checkable
class Distributable(Protocol):
    """A port that several devices can share."""

    def distribute(self, devices: int | str) -> "DistributedPort":
        """Return the port distributed over `devices` devices, or over "all".

        Raises `reference.validation.DeviceError` where there are not as many.
        """


@runtime_checkable
class DistributedPort(Protocol):
    """What a port over several devices offers besides the functions of `Port`, whatever connects the devices.

    All of its functions take and return whole arrays. Where several processes run, all of them call the same functions
    with the same arguments, and get the same results.
    """

    rank: int
    """The index of this process; 0 where there is only one."""

    def subset(self, devices: int, *, silent: bool = False) -> "DistributedPort | None":
        """Return the port over the first `devices` devices; None in a process that has none of them.

        If `silent`, nothing is sent between them, and all results are wrong: what remains is the time of computing.
        """

    def sent(self, call: Callable[[], Any]) -> Sent:
        """Count what each device sends in a call of this port."""

    def barrier(self) -> None:
        """Wait for the other processes."""

    def gather(self, value: Any) -> list[Any]:
        """Return the value of each process, in their order."""


FUNCTIONS = {name: f for name, f in inspect.getmembers(Port, inspect.isfunction) if not name.startswith("_")}
"""What a port must offer beside GRADIENTS, by name."""


def check_port(module: Any) -> Port:
    """Check that `module` is a port, and return it; PortError with what it lacks otherwise."""
    name = getattr(module, "__name__", None) or _shown(module)
    for member, wanted in FUNCTIONS.items():
        _check_function(f"{name}.{member}", getattr(module, member, None), wanted)
    gradients = getattr(module, "GRADIENTS", None)
    if not isinstance(gradients, dict) or not set(STRATEGIES) <= gradients.keys():
        raise PortError(
            f"`{name}.GRADIENTS` must be a dict of functions for {', '.join(STRATEGIES)}, got {_shown(gradients)}."
        )
    for strategy, function in gradients.items():
        kind = StrategyByEntry if strategy in ("loop", "batched") else Strategy
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
