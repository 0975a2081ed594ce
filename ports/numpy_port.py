"""The reference as just another backend."""

from typing import Any

import numpy as np

from reference import descent, numerical_gradient, two_layer_net
from reference.surroundings import isolated
from reference.validation import check_device, check_dtype, check_numbers

__all__ = [
    "GRADIENTS",
    "accuracy",
    "devices",
    "from_numpy",
    "gradient",
    "loss",
    "predict",
    "synchronize",
    "to_numpy",
    "train_steps",
]

predict = isolated(two_layer_net.predict)
loss = isolated(two_layer_net.loss)
accuracy = isolated(two_layer_net.accuracy)
gradient = isolated(two_layer_net.gradient)
train_steps = isolated(descent.train_steps)
GRADIENTS = {strategy: isolated(function) for strategy, function in numerical_gradient.GRADIENTS.items()}


@isolated
def from_numpy(array: np.ndarray, *, dtype: str, device: str) -> np.ndarray:
    """Return a copy of `array`."""
    check_device(device, devices())
    return np.array(check_numbers(array), dtype=check_dtype(dtype))


def to_numpy(array: np.ndarray) -> np.ndarray:
    """Return a copy of `array`."""
    return np.array(array)


def devices() -> tuple[str, ...]:
    """Return the one device there is."""
    return ("cpu",)


def synchronize(result: Any) -> Any:
    """Return `result`: NumPy has finished it."""
    return result
