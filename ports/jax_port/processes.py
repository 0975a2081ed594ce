"""Several processes of JAX that act as one, typically one on each host.

Each is started with the same command and three variables: JAX_COORDINATOR_ADDRESS, the address and port at which
process 0 can be reached; JAX_NUM_PROCESSES; and JAX_PROCESS_ID, counted from 0.
"""

import os
import pickle
import re
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ports.distributed import jax_processes, timeout_seconds

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@cache
def join() -> None:
    """Connect to the other processes, before anything is computed: that would fix the devices there are.

    Where they can't be reached in time, JAX aborts the process.
    """
    jax.distributed.initialize(
        *jax_processes(os.environ),
        cluster_detection_method="deactivate",
        initialization_timeout=timeout_seconds(),
        heartbeat_timeout_seconds=timeout_seconds(),
        shutdown_timeout_seconds=timeout_seconds(),
    )


def report_lost_peer(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Raise ConnectionAbortedError for an error of JAX's runtime where there are several processes.

    One process can't continue without the others, nor can they without it.
    """

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            if jax.process_count() == 1 or not _is_of_the_runtime(error):
                raise
            raise ConnectionAbortedError(
                f"Process {jax.process_index()} can't go on: another has ended, or has failed."
            ) from error

    return run


def _is_of_the_runtime(error: Exception) -> bool:
    """Whether the runtime raised an error: from a compiled function that is called again, it comes as a ValueError.

    Its text begins with a status code, as in "UNKNOWN: Gloo ...", which no error message of ours does.
    """
    return isinstance(error, jax.errors.JaxRuntimeError) or re.match(r"[A-Z]+(_[A-Z]+)*: ", str(error)) is not None


def gather(value: Any) -> list[Any]:
    """Return the value of each process, in their order: all of them must call this."""
    pickled = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = np.ravel(_gather_arrays(np.array(len(pickled), np.int32)))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(pickled)] = pickled
    rows = _gather_arrays(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


@report_lost_peer
def _gather_arrays(array: np.ndarray) -> np.ndarray:
    return np.asarray(multihost_utils.process_allgather(array))
