"""What a port over several devices needs, free of frameworks: what was sent, how long to wait, who takes part."""

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from reference.validation import DeviceError

DEFAULT_TIMEOUT = "120"
"""Seconds that processes wait for each other, unless the variable FDNET_PATIENCE says otherwise."""


class Sent(NamedTuple):
    """Messages, each a sum or a gathering over several devices, and the bytes that each device puts into them."""

    messages: int
    payload: int


def total_sent(counts: Iterable[Sent]) -> Sent:
    """Add up what was sent."""
    counts = list(counts)
    return Sent(sum(sent.messages for sent in counts), sum(sent.payload for sent in counts))


def timeout_seconds() -> int:
    """Return how many seconds processes wait for each other.

    Raises
    ------
    ValueError
        If FDNET_PATIENCE is not a whole number from 1 to 999999.
    """
    text = os.environ.get("FDNET_PATIENCE", DEFAULT_TIMEOUT)
    if not text.isdecimal() or not 0 < int(text) < 10**6:
        raise ValueError(f"`FDNET_PATIENCE` must be a whole number of seconds, from 1 to 999999, got {text!r}.")
    return int(text)


def whole_number(name: str, default: int) -> int:
    """Read a number that torchrun gives each rank; DeviceError if the variable is malformed."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise DeviceError(f"{name} must be a whole number, got {text!r}.")
    return int(text)


def jax_processes(environment: Mapping[str, str]) -> tuple[str, int, int]:
    """Read the variables by which processes of JAX find each other.

    Returns
    -------
    str, int, int
        The coordinator's address, the number of processes, and the index of this one.

    Raises
    ------
    DeviceError
        If a variable is missing or malformed.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, count, index = (environment.get(name, "") for name in names)
    if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise DeviceError(
            "JAX_PROCESS_ID must be a number from 0 to JAX_NUM_PROCESSES - 1 where JAX_COORDINATOR_ADDRESS is set, got "
            f"{index!r} of {count!r}."
        )
    if not address.rpartition(":")[2].isdecimal():
        raise DeviceError(f"JAX_COORDINATOR_ADDRESS must be of the form address:port, got {address!r}.")
    return address, int(count), int(index)
