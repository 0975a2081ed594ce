"""The port to JAX: everything jitted, no autograd; the reference's files and functions in the reference's order.

Importing it computes nothing: XLA is checked when the devices are asked for (`devices`).
"""

from ports.jax_port.descent import train_steps
from ports.jax_port.mesh import MeshPort
from ports.jax_port.numerical_gradient import GRADIENTS
from ports.jax_port.runtime import devices, from_numpy, synchronize, to_numpy
from ports.jax_port.two_layer_net import accuracy, gradient, loss, predict

__all__ = [
    "GRADIENTS",
    "accuracy",
    "devices",
    "distribute",
    "from_numpy",
    "gradient",
    "loss",
    "predict",
    "synchronize",
    "to_numpy",
    "train_steps",
]


def distribute(devices: int | str) -> MeshPort:
    """Return the port distributed over `devices` devices, or over "all"; DeviceError if there are fewer."""
    return MeshPort(devices)
