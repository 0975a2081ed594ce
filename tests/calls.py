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


def refusal(subject: Subject, call: Call, function: str) -> str:
    """Return the message of the ValueError of a bad call; none of its arguments has changed."""
    before = snapshot(subject, call)
    called, arguments, options = prepare(subject, call, function)
    with pytest.raises(ValueError, match=r"^`.*\.$") as caught:
        called(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    assert snapshot(subject, call) == before
    return str(caught.value)
