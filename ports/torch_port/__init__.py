"""The port to PyTorch, without autograd: the reference's files of the same names, function by function.

`runtime` has what depends on devices, `nodes` what collocation computes once for a training, and `ranks` the port over
the processes that torchrun started.
"""

from ports.protocol import DistributedPort
from ports.torch_port.descent import train_steps
from ports.torch_port.numerical_gradient import GRADIENTS
from ports.torch_port.runtime import devices, from_numpy, synchronize, to_numpy
from ports.torch_port.two_layer_net import accuracy, gradient, loss, predict

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


def distribute(devices: int | str) -> DistributedPort:
    """Return the port over the ranks that torchrun started, of which there must be `devices`, or "all"."""
    from ports.torch_port import ranks  # only here: not every build of PyTorch has torch.distributed

    return ranks.distribute(devices)
