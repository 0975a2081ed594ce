"""What collocation needs besides the net and the batch: the same in all steps of a training, which computes it once."""

from typing import NamedTuple

import torch
from torch import Tensor

from ports.torch_port.loss_difference import Shift, make_shift, output_factors
from reference.collocation import Plan, chebyshev_transform, largest_shift, positive_nodes
from reference.two_layer_net import Params


class Interpolation(NamedTuple):
    """The weights by which the differences at the nodes become coefficients, with the gradient's divisor in them."""

    first: tuple[Tensor, ...]  # m scalars, of the first node in each coefficient
    others: list[list[float]]  # (m, m - 1), of the other nodes, relative to the first's
    scale: float  # h / S, which takes the largest shift to 1


class Nodes(NamedTuple):
    """The nodes of both layers."""

    hidden: Shift  # (m, 1, 1)
    output: Tensor  # (2, m, O, O), `output_factors` for each class and each right class
    hidden_interpolation: Interpolation
    output_interpolation: Interpolation


def make_nodes(h: float, max_abs_x: float, plan: Plan, samples: int, params: Params) -> Nodes | None:
    """Compute the nodes for batches of `samples`, where `params` are; None if the plan does not collocate."""
    if not plan.collocates:
        return None
    shift, like, classes = largest_shift(h, max_abs_x), params.W1, len(params.b2)
    hidden = torch.from_numpy(shift * positive_nodes(plan.hidden_nodes)[:, None, None]).to(like)
    output = torch.from_numpy(h * positive_nodes(plan.output_nodes)[:, None, None]).to(like)
    factors = output_factors(output, torch.eye(classes, dtype=torch.bool, device=like.device))
    divisor = 2 * h * samples
    return Nodes(
        make_shift(hidden),
        factors,
        make_interpolation(plan.hidden_nodes, h / shift, divisor, like),
        make_interpolation(plan.output_nodes, 1.0, divisor, like),
    )


def make_interpolation(count: int, scale: float, divisor: float, like: Tensor) -> Interpolation:
    """Compute the weights of `count` nodes, for a basis that has v^3 in place of T_3."""
    transform = chebyshev_transform(count) / divisor
    if count > 1:  # T_3 = 4 v^3 - 3 v
        transform[0] -= 3 * transform[1]
        transform[1] *= 4
    first = torch.from_numpy(transform[:, 0]).to(like).unbind()
    others = transform[:, 1:] / transform[:, :1]
    return Interpolation(first, others.tolist(), scale)
