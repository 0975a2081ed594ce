"""Several processes of JAX that act as one, mostly one for each host: where they meet, and what they tell each other.

Each is started with the same command and three variables: JAX_COORDINATOR_ADDRESS, the address and port at which
process 0 can be reached; JAX_NUM_PROCESSES; and JAX_PROCESS_ID, from 0 on.
"""

import os
import pickle
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ports.jax_variables import check
from ports.patience import patience

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@cache
def join() -> None:
    """Meet the other processes; before anything is computed, since that fixes the devices there are.

    Where they can't be found in time, JAX aborts the process.
    """
    jax.distributed.initialize(
        *check(os.environ),
        cluster_detection_method="deactivate",
        initialization_timeout=patience(),
        heartbeat_timeout_seconds=patience(),
        shutdown_timeout_seconds=patience(),
    )


def gather(value: Any) -> list[Any]:
    """Return what each process gives, in their order: all of them must call this."""
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
            raise ConnectionAbortedError(
                f"Process {jax.process_index()} can't go on: another has ended, or has failed."
            ) from error

    return run


@together
def _all_of(array: np.ndarray) -> np.ndarray:
    return np.asarray(multihost_utils.process_allgather(array))
