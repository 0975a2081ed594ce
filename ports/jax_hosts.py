"""Several processes of JAX that act as one, mostly one for each host: where they meet, and what they tell each other.

Each is started with the same command and three variables: JAX_COORDINATOR_ADDRESS, the address and port at which
process 0 can be reached; JAX_NUM_PROCESSES; and JAX_PROCESS_ID, from 0 on.
"""

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial, wraps
from threading import Timer
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax._src.lib import _jax  # type: ignore[attr-defined]
from jax.experimental import multihost_utils

from reference.validation import DeviceError

PATIENCE = 120.0
"""Seconds that a process waits for the others, unless the variable FDNET_PATIENCE says otherwise."""
GRACE = 10.0
"""Seconds that a process has to end itself, its checkpoint written, once the others are lost."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@cache
def join() -> None:
    """Meet the other processes; before anything is computed, since that fixes the devices there are.

    Raises
    ------
    DeviceError
        If the variables are no numbers that fit, or if the processes don't find each other in time.
    """
    address, count, mine = (os.environ.get(f"JAX_{name}", "") for name in VARIABLES)
    if not (count.isdecimal() and mine.isdecimal() and int(mine) < int(count)):
        raise DeviceError(
            "JAX_PROCESS_ID must be a number from 0 to JAX_NUM_PROCESSES - 1 where JAX_COORDINATOR_ADDRESS is set, got "
            f"{mine!r} of {count!r}."
        )
    if not address.rpartition(":")[2].isdecimal():
        raise DeviceError(f"JAX_COORDINATOR_ADDRESS must be of the form address:port, got {address!r}.")
    patience = int(float(os.environ.get("FDNET_PATIENCE", PATIENCE)))
    try:
        with _without_abort():
            jax.distributed.initialize(
                *(address, int(count), int(mine)),
                cluster_detection_method="deactivate",
                initialization_timeout=patience,
                heartbeat_timeout_seconds=patience,
                shutdown_timeout_seconds=patience,
            )
    except RuntimeError as error:  # jaxlib 0.10.1 can't convert its own status for a callback, and raises that
        raise DeviceError(
            f"The {count} processes must meet at {address} within {patience} s (FDNET_PATIENCE), got no answer there "
            "or too few of them."
        ) from error


VARIABLES = ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID")


def gather(value: Any) -> list[Any]:
    """Return what each process gives, in their order: all of them must call this."""
    join()
    sent = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = np.ravel(_all_of(np.array(len(sent), np.int32)))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(sent)] = sent
    return [pickle.loads(got[:size].tobytes()) for got, size in zip(_all_of(padded), sizes, strict=True)]


def together(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let what fails on one process alone end its run: the others can't go on without it, nor it without them."""

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1:
                raise
            raise ConnectionError(_alone()) from error

    return run


@together
def _all_of(array: np.ndarray) -> np.ndarray:
    return np.asarray(multihost_utils.process_allgather(array))


def _alone() -> str:
    return f"Process {os.environ['JAX_PROCESS_ID']} can't go on: another has ended, or has failed."


@contextmanager
def _without_abort() -> Iterator[None]:
    """Let the client of the coordinator that is made meanwhile tell us what it would abort the process for.

    Unless told otherwise it does that with a trace of its own frames when the others can't be found, or no longer; and
    `jax.distributed.initialize` has no way to tell it.
    """
    made = _jax.get_distributed_runtime_client
    _jax.get_distributed_runtime_client = partial(made, missed_heartbeat_callback=_lost)
    try:
        yield
    finally:
        _jax.get_distributed_runtime_client = made


def _lost(_: object) -> None:
    """End the process in a while, if it hasn't ended itself: it may wait for the others for ever."""
    if jax.distributed.is_initialized():
        Timer(GRACE, _end).start()


def _end() -> None:
    print(f"compare.py: {_alone()}", file=sys.__stderr__, flush=True)
    os._exit(3)
