"""Calls that all ranks make together; the first rank decides by its clock which one is next."""

from collections.abc import Callable, Sequence
from typing import Any

from comparison.timing.workloads import Train

Gather = Callable[[Any], list[Any]]
"""Returns the value of each rank; all ranks must call it."""


def broadcast_calls(gather: Gather, trains: Sequence[Train]) -> list[Train]:
    """Wrap the calls of the first rank: each of them lets all other ranks, in `repeat_calls`, make the same call."""

    def wrap(index: int) -> Train:
        def train(steps: int) -> Any:
            gather((index, steps))
            return trains[index](steps)

        return train

    return [wrap(index) for index in range(len(trains))]


def end_calls(gather: Gather) -> None:
    """Let the other ranks return from `repeat_calls`."""
    gather(None)


def repeat_calls(gather: Gather, trains: Sequence[Train]) -> None:
    """Make the same calls as the first rank, until it ends them."""
    while (call := gather(None)[0]) is not None:
        index, steps = call
        trains[index](steps)
