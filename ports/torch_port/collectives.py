"""The ranks that torchrun started: how they find each other, and the messages between them."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache, wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from ports.distributed import Sent, timeout_seconds, total_sent, whole_number
from ports.torch_port.runtime import isolated
from reference.validation import DeviceError

Group = TypeVar("Group", bound="RankGroup")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Method = Callable[Concatenate[Group, Arguments], Result]


def collective(method: Method[Group, Arguments, Result]) -> Method[Group, Arguments, Result]:
    """Run a method that all ranks call; an error that only one rank may have ends its run.

    The others would wait for it, or take its next message for the one that is missing.
    """
    isolated_method = isolated(method)

    @wraps(method)
    def run(self: Group, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return isolated_method(self, *args, **kwargs)
        except (ValueError, ConnectionAbortedError):  # a broken rule is broken on all of them
            raise
        except Exception as error:
            raise ConnectionAbortedError(
                f"Rank {self.rank} of {self.ranks} has failed, and the others can't continue without it: "
                f"{type(error).__name__}: {' '.join(str(error).split())}"
            ) from error

    return run


class RankGroup:
    """Some ranks, as one of them sees them.

    Attributes
    ----------
    rank, ranks : int
        The index of this rank, and how many there are.
    silent : bool
        Whether nothing is sent, so that the time of computing can be told from that of sending. All results are wrong
        then.
    """

    def __init__(self, store: Any, rank: int, ranks: int, group: Any = None, *, silent: bool = False) -> None:
        self.rank, self.ranks, self.silent = rank, ranks, silent
        self._store, self._group, self._sent = store, group, Sent(0, 0)

    def subset(self, devices: int, *, silent: bool = False) -> Self | None:
        """Return the first `devices` ranks, None on the others; all ranks must call this."""
        group = _group_of_first(devices)
        return type(self)(self._store, self.rank, devices, group, silent=silent) if self.rank < devices else None

    def sent(self, call: Callable[[], Any]) -> Sent:
        """Count what each rank sends in a call."""
        before = self._sent
        call()
        return Sent(*(now - then for now, then in zip(self._sent, before, strict=True)))

    def barrier(self) -> None:
        """Wait for the other ranks."""
        with _lost_rank_as_sentence(self):
            dist.barrier(self._group)

    @collective
    def gather(self, value: Any) -> list[Any]:
        """Return the value of each rank, in their order."""
        values = [None] * self.ranks
        with _lost_rank_as_sentence(self):
            dist.all_gather_object(values, value, self._group)
        return values

    def is_first_to_report(self) -> bool:
        """Return whether no rank of this host has asked this before; True if the store does not answer."""
        try:
            return self._store.add(f"reports of {os.environ.get('GROUP_RANK', '0')}", 1) == 1
        except RuntimeError:
            return True

    def _sum(self, arrays: Iterable[Tensor]) -> list[Tensor]:
        """Sum over all ranks, in one message. W1's gradient lies in memory by hidden units, and so it does there."""
        rows = [array.movedim(-1, 0) for array in arrays]
        message = torch.cat([row.reshape(-1) for row in rows])
        if not self.silent:
            with _lost_rank_as_sentence(self):
                dist.all_reduce(message, group=self._group)
            self._sent = total_sent((self._sent, Sent(1, message.nbytes)))
        parts = message.split([row.numel() for row in rows])
        return [part.view(row.shape).movedim(0, -1) for part, row in zip(parts, rows, strict=True)]

    def _part(self, length: int) -> slice:
        """Return this rank's part of `length` samples or entries."""
        return slice(length * self.rank // self.ranks, length * (self.rank + 1) // self.ranks)

    def _pad(self, part: Tensor, length: int) -> Tensor:
        """Return an array of `length` with this rank's part of it, and zeros elsewhere."""
        array = part.new_zeros(length, *part.shape[1:])
        array[self._part(length)] = part
        return array

    def _join_parts(self, part: Tensor, length: int) -> Tensor:
        """Return the array of `length` of which each rank has a part, along its first axis."""
        return self._sum([self._pad(part, length)])[0].contiguous()


@contextmanager
def _lost_rank_as_sentence(group: RankGroup) -> Iterator[None]:
    """Say in a sentence that a rank is gone: the others learn it from the connection, or from the time-out."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionAbortedError(
            f"A rank has ended, or has not answered for {timeout_seconds()} s: rank {group.rank} of {group.ranks} "
            "stops."
        ) from error


@cache
def _group_of_first(ranks: int) -> Any:
    return dist.new_group(list(range(ranks)))


def connect(ranks: int) -> tuple[Any, int]:
    """Wait until all ranks have found each other; return their store, and the index of this rank."""
    timeout, rank = timedelta(seconds=timeout_seconds()), whole_number("RANK", 0)
    if each_rank_has_gpu():
        torch.cuda.set_device(whole_number("LOCAL_RANK", rank))
    backend = "cpu:gloo,cuda:nccl" if each_rank_has_gpu() else "gloo"
    try:
        store = next(rendezvous("env://", timeout=timeout))[0] if ranks > 1 else dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=timeout)
    except RuntimeError as error:
        at = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise DeviceError(
            f"The coordinator {at} and all {ranks} ranks must answer within {timeout_seconds()} s (FDNET_PATIENCE), "
            f"but rank {rank} has waited in vain."
        ) from error
    return store, rank


def each_rank_has_gpu() -> bool:
    """Return whether this host has a GPU for each of its ranks."""
    on_host = whole_number("LOCAL_WORLD_SIZE", whole_number("WORLD_SIZE", 1))
    return torch.cuda.is_available() and torch.cuda.device_count() >= on_host
