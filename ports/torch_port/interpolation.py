"""From the differences at Chebyshev nodes to the gradient: what `collocated` adds to loss_difference.py.

The nodes, and the weights of their values, are the same in all steps of a training, which computes them once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ports.torch_port.loss_difference import OutputShift, Shift, make_output_shift, make_shift
from reference.collocation import Plan, largest_shift, positive_nodes, shift_scale
from reference.interpolation import FLOAT32_LEAST, MIXED_LEAST, interpolation_matrix
from reference.two_layer_net import Params

# Not in PyTorch: `interpolation_matrix`: it is a constant of the plan.


class Nodes(NamedTuple):
    """What collocation needs to know of the step and the inputs, made once for many gradients."""

    scale: float  # the unit of the hidden shifts
    input_factor: float  # h / S, which takes the inputs to [-1, 1]
    hidden: Shift  # (m, 1, 1)
    output: OutputShift
    hidden_matrix: list[list[float]]  # (m, m), from the values at the nodes to the coefficients of the gradient
    output_matrix: list[list[float]]


# Other arguments: the matrices hold the number of samples; `like` tells dtype and device
def make_nodes(h: float, max_abs_x: float, plan: Plan, samples: int, like: Params) -> Nodes | None:
    """Prepare the nodes for batches of `samples`; None if the plan does not collocate."""
    if not plan.collocates:
        return None
    shift, scale = largest_shift(h, max_abs_x), shift_scale(h, max_abs_x)

    def on_device(nodes: np.ndarray) -> Tensor:
        return torch.from_numpy(nodes[:, None, None]).to(like.W1)

    return Nodes(
        scale=scale,
        input_factor=h / shift,
        hidden=make_shift(on_device(shift / scale * positive_nodes(plan.hidden_nodes)), scale, plan.shift_terms),
        output=make_output_shift(on_device(positive_nodes(plan.output_nodes)), h, plan.output_shift_terms),
        hidden_matrix=(scale / h / samples * interpolation_matrix(plan.hidden_nodes)).tolist(),
        output_matrix=(interpolation_matrix(plan.output_nodes) / samples).tolist(),
    )


def odd_basis(v: Any, count: int) -> list[Any]:
    """Compute the `count` functions v, v^3, T_5(v), T_7(v), ..., by T_{n+2} = 2 T_2 T_n - T_{n-2}."""
    basis = [v]
    if count > 1:
        basis.append(cube := v**3)
    if count > 2:
        before, last, twice_t2 = v, 4 * cube - 3 * v, 4 * v * v - 2
        for _ in range(2, count):
            before, last = last, twice_t2 * last - before
            basis.append(last)
    return basis


def interpolate(
    inputs: Tensor, factor: float, values: Tensor, matrix: list[list[float]], mixed: bool
) -> tuple[Tensor, Tensor]:
    """Sum the interpolated differences over the samples; the reference has the shapes."""
    at_nodes = values.unbind()
    coefficients = [combine(row, at_nodes) for row in matrix]  # of (B, H)
    bias = combine(odd_basis(factor, len(at_nodes)), coefficients).sum(0)
    inputs = inputs if factor == 1 else inputs * factor
    first, *further = coefficients
    if not further:
        return (first.T @ inputs).T, bias  # as (H, I): faster than (I, H)
    can_ask = inputs.device.type == "cpu" and not torch.compiler.is_compiling()  # nothing waits
    narrow = mixed and can_ask and first.shape[1] * inputs.shape[1] >= MIXED_LEAST and float32_holds(first)
    dtype = torch.float32 if narrow else inputs.dtype
    _, *basis = odd_basis(inputs.to(dtype), len(at_nodes))
    weights = further[-1].to(dtype).T @ basis[-1]
    for b, c in zip(basis[-2::-1], further[-2::-1], strict=True):  # the smallest first: in a large sum they lose digits
        weights.addmm_(c.to(dtype).T, b)
    weights = weights.to(inputs.dtype).addmm_(first.T, inputs)
    return weights.T, bias


def combine(factors: Sequence[float], arrays: Sequence[Tensor]) -> Tensor:
    """Compute the sum of the arrays, each times its factor."""
    total = arrays[0] if factors[0] == 1 else arrays[0] * factors[0]
    for factor, array in zip(factors[1:], arrays[1:], strict=True):
        total = torch.add(total, array, alpha=factor)
    return total


def float32_holds(first: Tensor) -> bool:
    """Return whether float32 loses nothing that shows beside the first coefficients; see `FLOAT32_LEAST`."""
    magnitude = first.abs()
    return bool(magnitude.min() >= FLOAT32_LEAST) or bool(((magnitude == 0) | (magnitude >= FLOAT32_LEAST)).all())
