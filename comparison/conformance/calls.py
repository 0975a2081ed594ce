"""The calls of a port's functions, good ones, and what is refused of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from comparison.agreement.comparison import Subject
from reference.defaults import STRATEGIES
from reference.two_layer_net import Params

BATCHES = np.array([[0, 1], [2, 3]])


class Call(NamedTuple):
    """The arguments of a call, with NumPy arrays."""

    params: Params
    x: np.ndarray
    t: Any
    options: dict[str, Any]


def good_call() -> Call:
    """Return a call that every port must take."""
    rng = np.random.default_rng(0)
    params = Params(*(rng.uniform(-0.5, 0.5, shape) for shape in ((5, 3), (3,), (3, 2), (2,))))
    return Call(params, rng.random((7, 5)), np.array([0, 1, 1, 0, 1, 0, 1]), {})


FUNCTIONS = ("predict", "loss", "accuracy", "gradient", *STRATEGIES, "train_steps")


def on_backend(subject: Subject, call: Call) -> Call:
    """Return the call with the backend's own arrays."""
    *params, x = (
        subject.port.from_numpy(array, dtype=subject.dtype, device=subject.device) for array in (*call.params, call.x)
    )
    return call._replace(params=Params(*params), x=x)


def own_integers(subject: Subject, labels: np.ndarray) -> Any:
    """Return labels as the backend's own array of integers, None where its arrays can't be cast."""
    array: Any = subject.port.from_numpy(labels, dtype=subject.dtype, device=subject.device)
    if hasattr(array, "long"):  # a tensor of PyTorch
        return array.long()
    return array.astype("int32") if hasattr(array, "astype") else None


def prepare(subject: Subject, call: Call, function: str) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    """Return the function of that name, its arguments and its options."""
    port, arguments = subject.port, [call.params, call.x] + ([] if function == "predict" else [call.t])
    if function in STRATEGIES:
        return port.GRADIENTS[function], arguments, call.options
    if function == "train_steps":
        options = {"batches": BATCHES, "strategy": "collocated", "learning_rate": 0.1} | call.options
        return port.train_steps, arguments, options
    return getattr(port, function), arguments, {}


def snapshot(subject: Subject, call: Call) -> list[Any]:
    """Copy all arguments of a call."""
    own = type(subject.port.from_numpy(np.zeros(1), dtype=subject.dtype, device=subject.device))

    def copied(value: Any) -> Any:
        if isinstance(value, (own, np.ndarray)):
            array = value if isinstance(value, np.ndarray) else subject.port.to_numpy(value)
            return array.dtype, array.shape, array.tobytes()
        if isinstance(value, dict):
            return {key: copied(item) for key, item in value.items()}
        return [copied(item) for item in value] if isinstance(value, (tuple, list)) else repr(value)

    return [copied(value) for value in (*call, BATCHES)]


def with_array(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Call], Call]:
    """Return the function that changes W1, b1, W2, b2, x or t of a call."""

    def changed(call: Call) -> Call:
        if name in ("x", "t"):
            return call._replace(**{name: change(getattr(call, name).copy())})
        return call._replace(params=call.params._replace(**{name: change(getattr(call.params, name).copy())}))

    return changed


def with_entry(name: str, value: float) -> Callable[[Call], Call]:
    """Return the function that sets the last entry of an array of a call."""

    def put(array: np.ndarray) -> np.ndarray:
        array.flat[-1] = value
        return array

    return with_array(name, put)


def with_option(**options: Any) -> Callable[[Call], Call]:
    """Return the function that adds options to a call."""
    return lambda call: call._replace(options={**call.options, **options})


def with_own(call: Call, name: str, value: Any) -> Call:
    """Replace x or a member of a net by a value that no backend has made."""
    return call._replace(x=value) if name == "x" else call._replace(params=call.params._replace(**{name: value}))


def refused(subject: Subject, call: Call, function: str) -> str:
    """Return the message of the ValueError of a bad call; fail if there is none, or if an argument has changed."""
    before = snapshot(subject, call)
    called, arguments, options = prepare(subject, call, function)
    try:
        called(*arguments, **options)
    except ValueError as error:
        message = str(error)
    except Exception as error:
        pytest.fail(f"`{function}` must raise ValueError for this call, got {type(error).__name__}: {error}")
    else:
        pytest.fail(f"`{function}` must raise ValueError for this call, but returned")
    assert snapshot(subject, call) == before, f"`{function}` has changed an argument of a call that it refused"
    return message


def everything(subject: Subject, call: Call | None = None, entries: Params | None = None) -> list[np.ndarray]:
    """Call each function of a port, by default with the good call; return all that they return.

    With `entries`, `loop` and `batched` compute only these.
    """
    call = call or on_backend(subject, good_call())
    results: list[Any] = []
    for function in FUNCTIONS:
        called, arguments, options = prepare(subject, call, function)
        if entries is not None and function in ("loop", "batched"):
            options = options | {"entries": entries}
        result = called(*arguments, **options)
        if function == "train_steps":
            result = (*result[0], result[1])
        results += result if isinstance(result, tuple) else [result]
    return [subject.port.to_numpy(array) for array in results]


def read_only(array: np.ndarray) -> np.ndarray:
    """Copy an array so that it can't be written to."""
    array = array.copy()
    array.flags.writeable = False
    return array


UNUSUAL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "read-only": read_only,
    "in Fortran's order": np.asfortranarray,
    "every other": lambda a: np.repeat(a, 2, axis=0)[::2],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "unaligned": lambda a: np.frombuffer(b"." + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape),
}
