"""PyTorch's port over the ranks that torchrun started: one process for each device, on one host or on several.

All ranks call the same functions with the same arguments and get the same results, bit by bit. Each computes its part:
of the samples where a gradient is a sum over them, of the entries where it is one perturbation after another. One
message adds up the parts, the same on all ranks. The mathematics is that of the other files of this package. A rank
that has no sample (there may be more ranks than samples) adds zeros.
"""

import atexit
import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ports.distributed import whole_number
from ports.torch_port import runtime
from ports.torch_port.collectives import RankGroup, collective, connect, each_rank_has_gpu
from ports.torch_port.descent import PLANNED, LossAndGradient, check_training, descend, differentiate_by
from ports.torch_port.numerical_gradient import GRADIENTS
from ports.torch_port.two_layer_net import (
    check_batch,
    closed_form,
    cross_entropy,
    logits,
    max_abs,
    probabilities_of_labels,
)
from reference.collocation import Plan, make_plan, run_within_plan, warn_of_structured
from reference.defaults import MEMORY, H
from reference.two_layer_net import Params
from reference.validation import DeviceError, check_entries, check_h, check_net, dtype_name


def distribute(devices: int | str) -> "RanksPort":
    """Return the port over all ranks, of which there must be `devices`; "all" takes as many as there are.

    Raises
    ------
    DeviceError
        If torchrun has started another number, or if the ranks don't find each other in time.
    """
    ranks = whole_number("WORLD_SIZE", 1) if "RANK" in os.environ else 1
    if devices not in ("all", ranks):
        raise DeviceError(f"`devices` must be {ranks}, the number of ranks that torchrun has started, got {devices}.")
    return _join(ranks)


@cache
def _join(ranks: int) -> "RanksPort":
    port = RanksPort(*connect(ranks), ranks)
    atexit.register(dist.destroy_process_group)
    return port


class RanksPort(RankGroup):
    """The port over several ranks, a `ports.protocol.DistributedPort`."""

    from_numpy = staticmethod(runtime.from_numpy)
    to_numpy = staticmethod(runtime.to_numpy)
    synchronize = staticmethod(runtime.synchronize)

    @property
    def GRADIENTS(self) -> dict[str, Callable[..., Params]]:  # noqa: N802, the protocol's name
        """The strategies by name."""
        return {
            "loop": self.loop,
            "batched": self.batched,
            "structured": self.structured,
            "collocated": self.collocated,
        }

    def devices(self) -> tuple[str, ...]:
        """Return the devices of this rank; "cuda" is its own GPU, where each rank of the host has one."""
        return ("cuda", "cpu") if each_rank_has_gpu() else ("cpu",)

    @collective
    def predict(self, params: Params, x: Tensor) -> Tensor:
        """Compute the class probabilities of each sample, (B, O)."""
        check_net(params, x, Tensor, max_abs)
        return self._join_parts(torch.softmax(logits(params, x[self._part(len(x))]), dim=0).T, len(x))

    @collective
    def loss(self, params: Params, x: Tensor, t: Any) -> Tensor:
        """Compute the mean cross entropy of the batch."""
        labels, part = check_batch(params, x, t)[0], self._part(len(x))
        y_t = self._join_parts(probabilities_of_labels(params, x[part], labels[part])[0], len(x))
        return cross_entropy(y_t)

    @collective
    def accuracy(self, params: Params, x: Tensor, t: Any) -> Tensor:
        """Compute the share of samples whose most probable class is the right one."""
        labels, part = check_batch(params, x, t)[0], self._part(len(x))
        right = logits(params, x[part]).argmax(dim=0) == labels[part]
        return self._join_parts(right.to(x.dtype), len(x)).mean()

    @collective
    def gradient(self, params: Params, x: Tensor, t: Any) -> Params:
        """Compute the derivative of the loss in closed form."""
        labels, part = check_batch(params, x, t)[0], self._part(len(x))
        return self._add_shares(partial(closed_form, samples=len(x)))(params, x[part], labels[part])[1]

    @collective
    def loop(
        self, params: Params, x: Tensor, t: Any, *, h: float = H, memory: float = MEMORY, entries: Params | None = None
    ) -> Params:
        """Compute the central differences one parameter at a time, each rank its part of them."""
        return self._by_entries("loop", params, x, t, h, memory, entries)

    @collective
    def batched(
        self, params: Params, x: Tensor, t: Any, *, h: float = H, memory: float = MEMORY, entries: Params | None = None
    ) -> Params:
        """Compute what `loop` computes, many perturbed nets at a time, each rank its part of them."""
        return self._by_entries("batched", params, x, t, h, memory, entries)

    @collective
    def structured(self, params: Params, x: Tensor, t: Any, *, h: float = H, memory: float = MEMORY) -> Params:
        """Compute what `loop` computes, to a few roundings, from each rank's part of the samples."""
        return self._by_samples("structured", params, x, t, h, memory)

    @collective
    def collocated(self, params: Params, x: Tensor, t: Any, *, h: float = H, memory: float = MEMORY) -> Params:
        """Compute what `structured` computes, from differences at a few nodes, from each rank's part of the samples."""
        return self._by_samples("collocated", params, x, t, h, memory)

    @collective
    def train_steps(
        self,
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
        checked = check_training(params, x, t, batches, strategy, learning_rate, h, memory)
        h, labels, magnitudes, indices, learning_rate = checked
        samples, planned = indices.shape[1], strategy in PLANNED

        def run(plan: Plan) -> tuple[tuple[Params, Tensor], float]:
            step = differentiate_by(strategy, h, memory, plan, magnitudes, samples, params, self.GRADIENTS)
            if strategy in ("loop", "batched"):
                (trained, y_t), max_abs_W2 = descend(step, params, x, labels, indices, learning_rate, planned)
            else:
                step, part = self._add_shares(step), indices[:, self._part(samples)]
                (trained, y_t), max_abs_W2 = descend(step, params, x, labels, part, learning_rate, planned)
                y_t = self._join_parts(y_t.T, samples).T.contiguous()
            return (trained, cross_entropy(y_t)), max_abs_W2

        return run_within_plan(run, strategy, h, magnitudes, dtype_name(x))

    def _by_entries(
        self,
        strategy: str,
        params: Params,
        x: Tensor,
        t: Any,
        h: float,
        memory: float,
        entries: Params | None,
    ) -> Params:
        check_net(params, x, Tensor, max_abs)
        whole = check_entries(params, entries)
        part = Params(*(at.ravel()[self._part(at.size)] for at in whole))
        differences = GRADIENTS[strategy](params, x, t, h=h, memory=memory, entries=part)
        sums = self._sum(self._pad(own, at.size) for own, at in zip(differences, whole, strict=True))
        return Params(*(flat.view(at.shape) for flat, at in zip(sums, whole, strict=True)))

    def _by_samples(self, strategy: str, params: Params, x: Tensor, t: Any, h: float, memory: float) -> Params:
        h = check_h(h)
        labels, magnitudes = check_batch(params, x, t, memory)
        plan, part = make_plan(h, magnitudes["x"], magnitudes["W2"], dtype_name(x)), self._part(len(x))
        if strategy == "collocated" and not plan.collocates:
            warn_of_structured(h, magnitudes["x"])
        step = differentiate_by(strategy, h, memory, plan, magnitudes, len(x), params)
        return self._add_shares(step)(params, x[part], labels[part])[1]

    def _add_shares(self, step: LossAndGradient) -> LossAndGradient:
        """Return the function from this rank's part of a batch to its y_t and the gradient of the whole batch."""

        def whole(params: Params, x: Tensor, labels: Tensor) -> tuple[Tensor, Params]:
            nothing = x.new_empty(0, 1), Params(*map(torch.zeros_like, params))
            y_t, share = step(params, x, labels) if len(x) else nothing
            return y_t, Params(*self._sum(share))

        return whole
