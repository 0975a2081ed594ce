"""The ranks of a command that is started several times: they begin with the same options and act as one.

torchrun starts PyTorch's ranks; those of JAX are processes that find each other by JAX_COORDINATOR_ADDRESS. Only the
first rank prints and writes. An error that ends all of them is printed by one rank of each host.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from comparison.commands.options import Options, PortOptions

COMMANDS = ("agree", "train", "predict")
"""Those that ranks can run together, besides `speed` on several numbers of devices."""
FILES = ("json", "save", "plot", "history")
"""Options that name a file to write; for the checkpoint see `comparison.commands.checkpointing`."""

_torch_ranks: Any = None
"""PyTorch's port over all ranks, once they have joined."""


def count() -> int:
    """Count the ranks: 1 unless the variables of JAX's coordinator or of torchrun are set."""
    if _by_jax():
        number = os.environ.get("JAX_NUM_PROCESSES", "1")
    else:
        number = os.environ.get("WORLD_SIZE", "1") if "RANK" in os.environ else "1"
    return int(number) if number.isdecimal() else 1


def is_first() -> bool:
    """Return whether this is the rank that prints and writes."""
    return count() == 1 or os.environ.get("JAX_PROCESS_ID" if _by_jax() else "RANK") == "0"


def _by_jax() -> bool:
    return "JAX_COORDINATOR_ADDRESS" in os.environ


def join(command: str, options: Options) -> Options:
    """Wait for all ranks, silence all but the first, and return the options of this one.

    Raises
    ------
    ValueError
        If the ranks can't run the command together, or were started with different options.
    """
    if _by_jax():
        _join_jax_processes()
    if count() == 1:
        return options
    _check_command(command, options)
    hashes = gather(hashlib.sha256(f"{command} {options}".encode()).hexdigest())
    if len(set(hashes)) > 1:
        other = next(rank for rank, value in enumerate(hashes) if value != hashes[0])
        raise ValueError(f"All ranks must be started with the same settings, but those of ranks 0 and {other} differ.")
    signal.signal(signal.SIGTERM, _stop)
    if is_first():
        return options
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, as long as the process
    no_files: dict[str, Any] = {field.name: None for field in fields(options) if field.name in FILES}
    return replace(options, **no_files)


def _check_command(command: str, options: PortOptions) -> None:
    scaling = command == "speed" and isinstance(getattr(options, "devices", None), tuple) and not _by_jax()
    if command not in COMMANDS and not scaling:
        more = "" if _by_jax() else ", and speed with several --devices"
        raise ValueError(
            f"`{command}` must run in one process, got {count()} ranks: ranks run {', '.join(COMMANDS)}{more}."
        )


def _stop(*_: object) -> None:
    ignore_stop_requests()
    raise ConnectionAbortedError("torchrun has asked the ranks to stop, as it does when one of them has ended.")


@contextmanager
def delay_stop_requests() -> Iterator[None]:
    """Delay a request to stop until the block has ended: raised while a file is written, it would seem its error."""
    if signal.getsignal(signal.SIGTERM) is not _stop:
        yield
        return
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, _stop)
    if asked:
        _stop(signal.SIGTERM, None)


def ignore_stop_requests() -> None:
    """Ignore SIGTERM from now on: what a rank does at its end must not be disturbed. torchrun waits for 30 s."""
    if count() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def gather(value: Any) -> list[Any]:
    """Return the value of each rank, in their order; all ranks must call this."""
    return _gather_over_ranks(value) if count() > 1 else [value]


def _gather_over_ranks(value: Any) -> list[Any]:
    if _by_jax():
        from ports.jax_port import processes as jax_processes

        return jax_processes.gather(value)
    return _join_torch_ranks().gather(value)


def check_same(what: str, arrays: Iterable[NDArray[Any]]) -> None:
    """Raise ValueError unless all ranks have read the same arrays: each of them reads its host's files."""
    if count() == 1:
        return
    from reference.checkpoints import data_hash

    if len(set(gather(data_hash(arrays)))) > 1:
        raise ValueError(f"All ranks must read the same {what}, but some have read others.")


def ends_all(error: BaseException) -> bool:
    """Whether an error ends the command, and not only one port: Ctrl-C, or the other ranks or a reader are gone."""
    if isinstance(error, (BrokenPipeError, ConnectionAbortedError)):
        return count() > 1 or _is_stdout_broken()
    return isinstance(error, KeyboardInterrupt)


def _is_stdout_broken() -> bool:
    try:
        sys.stdout.flush()  # what could not be written is still there
    except BrokenPipeError:
        return True
    return False


def leave(code: int) -> int:
    """Return an exit code, or exit with it at once: at a normal exit JAX would wait for processes that have ended."""
    if _by_jax():
        sys.stdout.flush()
        os._exit(code)
    return code


def print_error(sentence: str) -> None:
    """Print an error on stderr, on one rank of each host."""
    ignore_stop_requests()
    if count() == 1:
        print(sentence, file=sys.stderr)
    elif _prints_errors():
        print(sentence, file=sys.__stderr__, flush=True)


def _prints_errors() -> bool:
    """Return whether this rank prints for its host: the first to ask, or LOCAL_RANK 0 before the ranks have joined."""
    return _torch_ranks.is_first_to_report() if _torch_ranks else os.environ.get("LOCAL_RANK", "0") == "0"


def _join_jax_processes() -> None:
    from comparison.commands import supervisor
    from ports.distributed import jax_processes, timeout_seconds

    address, number, index = jax_processes(os.environ)
    report_joined = supervisor.continue_in_child(
        f"The {number} processes must meet at {address} within {timeout_seconds()} s (FDNET_PATIENCE), got no answer "
        "there or too few of them.",
        f"Process {index} can't go on: another has ended, or has failed; --resume resumes from a checkpoint.",
    )
    from ports.jax_port import processes

    processes.join()
    report_joined()


def _join_torch_ranks() -> Any:
    global _torch_ranks
    import ports

    # Before torch is imported: its C++ part prints what it then raises, with the addresses of its frames.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    port: Any = ports.load("torch")
    _torch_ranks = port.distribute("all")
    return _torch_ranks
