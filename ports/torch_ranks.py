"""PyTorch's port laid over the ranks that torchrun started: one process for each device, on one host or on several.

All ranks call the same functions with the same arguments and get the same results, bit by bit. In between each takes
its part: of the samples where a gradient is a sum over them, of the entries where it is one perturbation after another.
The parts are added up by one message, the same on all ranks. The mathematics is `ports.torch_port`'s own. A rank that
is left without a sample (there may be more ranks than samples) adds zeros.
"""

import atexit
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache, partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from ports import torch_port as one
from ports.messages import Sent, total
from ports.patience import patience
from reference.collocation import plan, warn_of_structured
from reference.two_layer_net import Params
from reference.validation import MEMORY, DeviceError, check_entries, check_gradient, check_net, check_step, dtype_name

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def spread(devices: int | str) -> "Ranks":
    """Return the port over all ranks, of which there must be `devices`; "all" takes as many as there are.

    Raises
    ------
    DeviceError
        If torchrun has not started so many, or if they don't find each other in time.
    """
    ranks = int(os.environ["WORLD_SIZE"]) if "RANK" in os.environ else 1
    if devices not in ("all", ranks):
        raise DeviceError(f"`devices` must be {ranks}, the number of ranks that torchrun has started, got {devices}.")
    return _meet(ranks)


Method = Callable[Concatenate["Ranks", Arguments], Result]


def _together(function: Method[Arguments, Result]) -> Method[Arguments, Result]:
    """Let what fails on one rank alone end its run: the others would wait for it, or take its next message for this."""
    public = one._public(function)

    @wraps(function)
    def run(self: "Ranks", /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return public(self, *args, **kwargs)
        except (ValueError, ConnectionAbortedError):  # a broken rule is broken on all of them
            raise
        except Exception as error:
            raise ConnectionAbortedError(
                f"Rank {self.rank} of {self.ranks} has failed, and the others can't go on without it: "
                f"{type(error).__name__}: {' '.join(str(error).split())}"
            ) from error

    return run


class Ranks:
    """A port, see `ports.protocol`, whose work is laid over all ranks.

    Attributes
    ----------
    rank, ranks : int
        Which of them this is, and how many there are.
    silent : bool
        Whether it leaves out what ranks send each other, so that what that takes can be told from what they compute.
        All results are wrong then.
    """

    from_numpy = staticmethod(one.from_numpy)
    to_numpy = staticmethod(one.to_numpy)
    synchronize = staticmethod(one.synchronize)

    def __init__(self, store: Any, rank: int, ranks: int, group: Any = None, *, silent: bool = False) -> None:
        self.rank, self.ranks, self.silent = rank, ranks, silent
        self._store, self._group, self._sent = store, group, Sent(0, 0)
        self.GRADIENTS: dict[str, Callable[..., Params]] = {
            "loop": self.loop,
            "batched": self.batched,
            "structured": self.structured,
            "collocated": self.collocated,
        }

    def subset(self, ranks: int, *, silent: bool = False) -> "Ranks | None":
        """Return the port over the first so many ranks, None on the others; all ranks must call this."""
        group = _first(ranks)
        return Ranks(self._store, self.rank, ranks, group, silent=silent) if self.rank < ranks else None

    def sent(self, call: Callable[[], Any]) -> Sent:
        """Return what each rank sends in a call of this port."""
        before = self._sent
        call()
        return Sent(*(now - then for now, then in zip(self._sent, before, strict=True)))

    def meet(self) -> None:
        """Wait for the other ranks."""
        with _answered(self):
            dist.barrier(self._group)

    def devices(self) -> tuple[str, ...]:
        """Return the devices of this rank; "cuda" is its own GPU, where each rank of the host has one."""
        return ("cuda", "cpu") if _gpu_for_each() else ("cpu",)

    @_together
    def predict(self, params: Params, x: Tensor) -> Tensor:
        """Return the class probabilities of each sample, (B, O)."""
        check_net(params, x, Tensor, one._largest)
        return self._whole(torch.softmax(one._logits(params, x[self._part(len(x))]), dim=0).T, len(x))

    @_together
    def loss(self, params: Params, x: Tensor, t: Any) -> Tensor:
        """Return the mean cross entropy of the batch."""
        labels, mine = one._checked(params, x, t)[0], self._part(len(x))
        y_t = self._whole(one._right(params, x[mine], labels[mine])[0], len(x))
        return one._cross_entropy(y_t)

    @_together
    def accuracy(self, params: Params, x: Tensor, t: Any) -> Tensor:
        """Return the share of samples whose most probable class is the right one."""
        labels, mine = one._checked(params, x, t)[0], self._part(len(x))
        right = one._logits(params, x[mine]).argmax(dim=0) == labels[mine]
        return self._whole(right.to(x.dtype), len(x)).mean()

    @_together
    def gradient(self, params: Params, x: Tensor, t: Any) -> Params:
        """Return the derivative of the loss in closed form."""
        labels, mine = one._checked(params, x, t)[0], self._part(len(x))
        return self._summed(partial(one._closed_form, samples=len(x)))(params, x[mine], labels[mine])[1]

    @_together
    def loop(
        self,
        params: Params,
        x: Tensor,
        t: Any,
        *,
        h: float = 1e-4,
        memory: float = MEMORY,
        entries: Params | None = None,
    ) -> Params:
        """Return the central differences one parameter at a time, each rank its part of them."""
        return self._by_entries(one.loop, params, x, t, h, memory, entries)

    @_together
    def batched(
        self,
        params: Params,
        x: Tensor,
        t: Any,
        *,
        h: float = 1e-4,
        memory: float = MEMORY,
        entries: Params | None = None,
    ) -> Params:
        """Return what `loop` returns, many perturbed nets at a time, each rank its part of them."""
        return self._by_entries(one.batched, params, x, t, h, memory, entries)

    @_together
    def structured(self, params: Params, x: Tensor, t: Any, *, h: float = 1e-4, memory: float = MEMORY) -> Params:
        """Return what `loop` returns, to a few roundings, from each rank's part of the samples."""
        return self._by_samples(one.structured, params, x, t, h, memory)

    @_together
    def collocated(self, params: Params, x: Tensor, t: Any, *, h: float = 1e-4, memory: float = MEMORY) -> Params:
        """Return what `structured` returns, from differences at a few nodes, from each rank's part of the samples."""
        return self._by_samples(one.collocated, params, x, t, h, memory)

    @_together
    def train_steps(
        self,
        params: Params,
        x: Tensor,
        t: Any,
        batches: np.ndarray,
        *,
        gradient: Callable[..., Params],
        learning_rate: float,
        h: float = 1e-4,
        memory: float = MEMORY,
    ) -> tuple[Params, Tensor]:
        """Take K steps of gradient descent; see `reference.training.train_steps`."""
        own = self._of_one(gradient)
        by_entries = partial(self._scan_by_entries, partial(gradient, h=h, memory=memory))
        scan = by_entries if own in (one.loop, one.batched) else self._scan_by_samples
        return one._train_steps(scan, params, x, t, batches, own, learning_rate, h, memory)

    @_together
    def gather(self, value: Any) -> list[Any]:
        """Return what each rank gives, from the first rank to the last."""
        found = [None] * self.ranks
        with _answered(self):
            dist.all_gather_object(found, value, self._group)
        return found

    def speaks(self) -> bool:
        """Return whether this rank is the first of its host to ask: the others say nothing. True if nobody answers."""
        try:
            return self._store.add(f"spoken on {os.environ.get('GROUP_RANK', '0')}", 1) == 1
        except RuntimeError:
            return True

    def _part(self, length: int) -> slice:
        """Return this rank's part of so many samples or entries."""
        return slice(length * self.rank // self.ranks, length * (self.rank + 1) // self.ranks)

    def _sum(self, arrays: Iterable[Tensor]) -> list[Tensor]:
        """Return the sums over all ranks, in one message. W1's gradient lies in memory by hidden units, and so here."""
        rows = [array.movedim(-1, 0) for array in arrays]
        message = torch.cat([row.reshape(-1) for row in rows])
        if not self.silent:
            with _answered(self):
                dist.all_reduce(message, group=self._group)
            self._sent = total((self._sent, Sent(1, message.nbytes)))
        parts = message.split([row.numel() for row in rows])
        return [part.view(row.shape).movedim(0, -1) for part, row in zip(parts, rows, strict=True)]

    def _placed(self, mine: Tensor, length: int) -> Tensor:
        """Return an array of `length` with this rank's part of it, and zeros elsewhere."""
        array = mine.new_zeros(length, *mine.shape[1:])
        array[self._part(length)] = mine
        return array

    def _whole(self, mine: Tensor, length: int) -> Tensor:
        """Return the array that each rank has a part of, along its first axis."""
        return self._sum([self._placed(mine, length)])[0].contiguous()

    def _summed(self, step: one.Step) -> one.Step:
        """Return the step that takes this rank's part of a batch, and gives its y_t and the gradient of the whole."""

        def joint(params: Params, x: Tensor, labels: Tensor) -> tuple[Tensor, Params]:
            nothing = x.new_empty(0, 1), Params(*map(torch.zeros_like, params))
            y_t, share = step(params, x, labels) if len(x) else nothing
            return y_t, Params(*self._sum(share))

        return joint

    def _by_samples(
        self, own: Callable[..., Params], params: Params, x: Tensor, t: Any, h: float, memory: float
    ) -> Params:
        h = check_step(h)
        labels, sizes = one._checked(params, x, t, memory)
        needs, mine = plan(h, sizes["x"], sizes["W2"], dtype_name(x)), self._part(len(x))
        if own is one.collocated and not needs.collocates:
            warn_of_structured(h, sizes["x"], stacklevel=6)
        step = one._loss_and(own, h, memory, needs, sizes, len(x), params)
        return self._summed(step)(params, x[mine], labels[mine])[1]

    def _by_entries(
        self,
        own: Callable[..., Params],
        params: Params,
        x: Tensor,
        t: Any,
        h: float,
        memory: float,
        entries: Params | None,
    ) -> Params:
        check_net(params, x, Tensor, one._largest)
        at = check_entries(params, entries)
        mine = Params(*(a.ravel()[self._part(a.size)] for a in at))
        found = own(params, x, t, h=h, memory=memory, entries=mine)
        whole = self._sum(self._placed(g, a.size) for g, a in zip(found, at, strict=True))
        return Params(*(g.view(a.shape) for g, a in zip(whole, at, strict=True)))

    def _scan_by_samples(
        self,
        step: one.Step,
        initial: Params,
        x: Tensor,
        labels: Tensor,
        batches: Tensor,
        learning_rate: float,
        planned: bool,
    ) -> tuple[Params, Tensor, float]:
        samples = batches.shape[1]
        mine = batches[:, self._part(samples)]
        trained, y_t, largest = one._scan(self._summed(step), initial, x, labels, mine, learning_rate, planned)
        return trained, self._whole(y_t.T, samples).T.contiguous(), largest

    def _scan_by_entries(
        self, gradient: Callable[..., Params], _: one.Step, *rest: Any
    ) -> tuple[Params, Tensor, float]:
        return one._scan(lambda *net: (one._right(*net), gradient(*net)), *rest)

    def _of_one(self, gradient: Callable[..., Params]) -> Callable[..., Params]:
        """Return the function of one device that stands behind a function of this port."""
        known = (self.gradient, *self.GRADIENTS.values())
        if gradient not in known:
            check_gradient(gradient, known)
        return one.TRAINABLE[known.index(gradient)]


@contextmanager
def _answered(port: Ranks) -> Iterator[None]:
    """Say in a sentence that a rank is gone: whoever waits for it is told so by the connection, or by the time-out."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionAbortedError(
            f"A rank has ended, or has not answered for {patience()} s: rank {port.rank} of {port.ranks} stops."
        ) from error


@cache
def _first(ranks: int) -> Any:
    """Return the group of the first so many ranks."""
    return dist.new_group(list(range(ranks)))


def _gpu_for_each() -> bool:
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    return torch.cuda.is_available() and torch.cuda.device_count() >= here


def joined() -> Ranks | None:
    """Return the port if the ranks have met."""
    return _meet(dist.get_world_size()) if dist.is_initialized() else None


@cache
def _meet(ranks: int) -> Ranks:
    """Return the port when all ranks are there."""
    wait, rank = timedelta(seconds=patience()), int(os.environ.get("RANK", "0"))
    if _gpu_for_each():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)))
    engine = "cpu:gloo,cuda:nccl" if _gpu_for_each() else "gloo"
    try:
        store = next(rendezvous("env://", timeout=wait))[0] if ranks > 1 else dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(engine, store=store, rank=rank, world_size=ranks, timeout=wait)
    except RuntimeError as error:
        at = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise DeviceError(
            f"The coordinator {at} and all {ranks} ranks must answer within {patience()} s (FDNET_PATIENCE), but "
            f"rank {rank} has waited in vain."
        ) from error
    atexit.register(dist.destroy_process_group)
    return Ranks(store, rank, ranks)
