"""The backend `torch-compiled`: PyTorch's port with each training step one graph, from the mini-batch to the update.

A gradient by itself gains nothing from torch.compile, and is the port's own. What is compiled is checked: its expm1 and
atanh are wrong for small arguments on the CPU (PyTorch 2.13: 0 for 1e-20). So a step is compiled where the plan has
series in their place, as at small `h`, and is the port's own elsewhere, as in `structured`, `batched` and `loop`, whose
steps depend on numbers that a graph does not have. The functions that a compiled step does use are tried as the port
is loaded.
"""

import warnings
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._dynamo import config  # there is no public name for it

from ports.protocol import NotRunError
from ports.torch_port import GRADIENTS, accuracy, from_numpy, gradient, loss, predict, synchronize, to_numpy
from ports.torch_port import devices as eager_devices
from ports.torch_port.descent import TakeStep, take_step, train_by
from ports.torch_port.runtime import isolated
from reference import validation
from reference.collocation import Plan
from reference.defaults import CLOSED_FORM, DTYPES, MEMORY, H
from reference.two_layer_net import Params

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

GRAPHS = 1000
"""Graphs of one function that a process may compile, each for a plan, shapes and a dtype; PyTorch stops at 8."""

compiled_step = torch.compile(take_step, fullgraph=True, dynamic=False)


@isolated
def train_steps(
    params: Params,
    x: Tensor,
    t: Any,
    batches: np.ndarray,
    *,
    strategy: str,
    learning_rate: float,
    h: float = H,
    memory: float = MEMORY,
) -> tuple[Params, Tensor]:
    """Take K steps of gradient descent, one for each mini-batch; see `reference.descent.train_steps`."""
    with config.patch(recompile_limit=GRAPHS, accumulated_recompile_limit=GRAPHS):
        return train_by(choose_step, params, x, t, batches, strategy, learning_rate, h, memory)


def choose_step(strategy: str, plan: Plan) -> TakeStep:
    """Return the compiled step if it takes no function that torch.compile gets wrong, and else the port's own."""
    series = plan.collocates and plan.terms and plan.arctanh_terms and plan.output_arctanh_terms
    return compiled_step if strategy == CLOSED_FORM or (strategy == "collocated" and series) else take_step


@cache
def devices() -> tuple[str, ...]:
    """Return the devices of PyTorch's port, the default one first.

    Raises
    ------
    NotRunError
        If torch.compile does not work here, such as without a C++ compiler, or compiles wrongly. `ports.load` asks for
        the devices, so that such a build is never loaded.
    """
    run_canary(eager_devices()[0])
    return eager_devices()


@isolated
def run_canary(device: str) -> None:
    """Raise NotRunError if the functions of a compiled step can't be compiled here, or are wrong."""
    v = np.linspace(-30, 30, 400)
    inputs = [from_numpy(v, dtype=dtype, device=device) for dtype in (DTYPES if device != "mps" else ("float32",))]
    try:
        with warnings.catch_warnings():  # of PyTorch against itself, as it imports its compiler
            warnings.simplefilter("ignore")
            results = torch.compile(canary_functions, fullgraph=True, dynamic=False)(inputs)
    except RuntimeError as error:  # of dynamo, or of inductor
        raise NotRunError(f"torch.compile does not work here: {' '.join(str(error).split())[:300]}") from error
    for result in results:
        gap = float(np.abs(to_numpy(result) * (1 + np.exp(-v)) - 1).max())
        if not gap < 100 * validation.unit_roundoff(validation.dtype_name(result)):
            raise NotRunError(f"this build of PyTorch ({torch.__version__}) miscompiles exp: it is off by {gap:.2g}.")


def canary_functions(inputs: list[Tensor]) -> list[Tensor]:
    """Compute the sigmoid of each tensor twice: by its name, and as the softmax of two classes."""
    return [f(v) for v in inputs for f in (torch.sigmoid, lambda v: torch.stack((v, 0 * v)).softmax(dim=0)[0])]
