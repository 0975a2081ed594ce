"""The ranks of a command that is started several times: they begin with the same settings and act as one.

torchrun starts PyTorch's; JAX's are processes that know a coordinator by JAX_COORDINATOR_ADDRESS. The first of them
alone prints and writes. What ends all of them is said by one of each host.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from numpy.typing import NDArray

COMMANDS = ("agree", "train", "predict")
"""Those that ranks can run together, besides `speed` on several numbers of devices."""
FILES = ("json", "save", "plot", "history")
"""Options that name what is written; for the checkpoint see `comparison.commands.checkpointing`."""


def count() -> int:
    """Return how many ranks there are; 1 without a coordinator or torchrun, or what sets the same variables."""
    if _by_jax():
        number = os.environ.get("JAX_NUM_PROCESSES", "1")
    else:
        number = os.environ.get("WORLD_SIZE", "1") if "RANK" in os.environ else "1"
    return int(number) if number.isdecimal() else 1


def first() -> bool:
    """Return whether this is the rank that prints and writes."""
    return count() == 1 or os.environ.get("JAX_PROCESS_ID" if _by_jax() else "RANK") == "0"


def _by_jax() -> bool:
    return "JAX_COORDINATOR_ADDRESS" in os.environ


def meet(args: argparse.Namespace) -> None:
    """Wait for all ranks, and raise ValueError unless they have the same settings; silence all but the first."""
    if _by_jax():
        _join()
    if count() == 1:
        return
    _check_command(args)
    hashes = gather(_settings_hash(args))
    if len(set(hashes)) > 1:
        other = next(rank for rank, found in enumerate(hashes) if found != hashes[0])
        raise ValueError(f"All ranks must be started with the same settings, but those of ranks 0 and {other} differ.")
    signal.signal(signal.SIGTERM, _stop)
    if not first():
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, as long as the process
        vars(args).update((name, None) for name in FILES if name in args)


def _settings_hash(args: argparse.Namespace) -> str:
    """Return the SHA-256 of the command and all of its options."""
    options = sorted((key, value) for key, value in vars(args).items() if key != "run")
    return hashlib.sha256(f"{args.run.__module__} {options}".encode()).hexdigest()


def _check_command(args: argparse.Namespace) -> None:
    name = args.run.__module__.rpartition(".")[2]
    scales = name == "speed" and isinstance(args.devices, tuple) and not _by_jax()
    if name not in COMMANDS and not scales:
        more = "" if _by_jax() else ", and speed with several --devices"
        raise ValueError(
            f"`{name}` must run in one process, got {count()} ranks: ranks run {', '.join(COMMANDS)}{more}."
        )


def _stop(*_: object) -> None:
    end()
    raise ConnectionAbortedError("torchrun has asked the ranks to stop, as it does when one of them has ended.")


def end() -> None:
    """Let no request to stop disturb what a rank does at its end; torchrun waits for 30 s."""
    if count() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def gather(value: Any) -> list[Any]:
    """Return what each rank gives, in their order: all of them must call this."""
    return _engine().gather(value) if count() > 1 else [value]


def check_same(what: str, arrays: Iterable[NDArray[Any]]) -> None:
    """Raise ValueError unless all ranks have read the same: each of them reads its host's files."""
    if count() == 1:
        return
    from reference.checkpoints import data_hash

    if len(set(gather(data_hash(arrays)))) > 1:
        raise ValueError(f"All ranks must read the same {what}, but some have read others.")


def leave(code: int) -> int:
    """Return an exit code, or end with it at once: at the end JAX would wait for those that are no longer there."""
    if _by_jax():
        sys.stdout.flush()
        os._exit(code)
    return code


def tell(sentence: str) -> None:
    """Print an error on stderr, on one rank of each host."""
    end()
    if count() == 1:
        print(sentence, file=sys.stderr)
    elif _speaks():
        print(sentence, file=sys.__stderr__, flush=True)


def _speaks() -> bool:
    """Return whether this rank is to speak for its host: the first to ask, or the first of all before they have met."""
    ranks = sys.modules.get("ports.torch_ranks")
    joined = ranks.joined() if ranks else None
    return joined.speaks() if joined else os.environ.get("LOCAL_RANK", "0") == "0"


def _join() -> None:
    """Meet the other processes of JAX."""
    from comparison.commands import supervisor as guard
    from ports.jax_variables import check
    from ports.patience import patience

    address, number, mine = check(os.environ)
    met = guard.child(
        f"The {number} processes must meet at {address} within {patience()} s (FDNET_PATIENCE), got no answer there or "
        "too few of them.",
        f"Process {mine} can't go on: another has ended, or has failed; --resume goes on from a checkpoint.",
    )
    from ports import jax_hosts

    jax_hosts.join()
    met()


def _engine() -> Any:
    """Return what has `gather`."""
    import ports

    if _by_jax():
        from ports import jax_hosts

        return jax_hosts
    # Before torch is imported: its C++ part prints what it then raises, with the addresses of its frames.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    port: Any = ports.load("torch")
    return port.spread("all")
