"""The port to JAX: everything jitted, no autograd; the reference's files and functions in the reference's order.

Importing it computes nothing: XLA is checked when the devices are asked for (`devices`).
"""

from ports.jax_port.descent import train_steps
from ports.jax_port.numerical_gradient import GRADIENTS
from ports.jax_port.runtime import devices, from_numpy, synchronize, to_numpy
from ports.jax_port.two_layer_net import accuracy, gradient, loss, predict

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
