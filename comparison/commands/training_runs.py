"""The runs of `compare.py train`: how each begins or goes on, is shown, kept, and stopped."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from comparison.commands import processes as ranks
from comparison.commands.checkpointing import Keeper
from comparison.commands.output import environment, where
from comparison.commands.progress import Live
from comparison.commands.training_files import path_of

if TYPE_CHECKING:
    import argparse

    from comparison.agreement.comparison import Subject
    from reference.datasets import Dataset
    from reference.training import Progress
    from reference.two_layer_net import Params


class Run(NamedTuple):
    """A run of one backend in one dtype: its initial net, what keeps it, and where it has come."""

    subject: Subject
    data: Dataset
    net: Params
    keeper: Keeper
    progress: Progress
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """What it is called in lines and tables."""
        return f"{self.subject.name} {self.subject.dtype}"


def prepared(args: argparse.Namespace, subject: Subject, data: Dataset, *, several: bool) -> Run:
    """Return a run at its beginning or where it is to go on, with every rule checked."""
    from reference import checkpoints
    from reference.training import begin, check_run
    from reference.two_layer_net import init

    ranks.check_same("data", data)
    if args.hidden < 1:
        raise ValueError(f"`hidden` must be at least 1, got {args.hidden}.")
    net = init(data.x_train.shape[1], args.hidden, data.classes, seed=args.seed, dtype=subject.dtype)
    path = path_of(args.checkpoint, subject, several)
    keeper = Keeper(path, args.every, _kept_settings(args, subject), _kept_environment(args, subject))
    start = begin(net, args.seed)
    check_run(subject.port, start, **options_of(args))
    if path is not None:
        keeper.settings["data"] = checkpoints.data_hash(data)
        start = keeper.begin(start, resume=args.resume, overwrite=args.overwrite)
        check_run(subject.port, start, **options_of(args))
    return Run(subject, data, net, keeper, start)


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return what `reference.training.train` is told."""
    return {
        "strategy": args.strategy,
        "iterations": args.iterations,
        "batch": args.batch,
        "learning_rate": args.learning_rate,
        "h": args.step,
        "memory": args.chunk_memory,
    }


def _kept_settings(args: argparse.Namespace, subject: Subject) -> dict[str, Any]:
    """Return what must be the same for a run to go on."""
    names = ("hidden", "batch", "learning_rate", "strategy", "step", "seed", "chunk_memory")
    return {"backend": subject.name, "dtype": subject.dtype, **{name: getattr(args, name) for name in names}}


def _kept_environment(args: argparse.Namespace, subject: Subject) -> dict[str, Any]:
    """Return what should be the same for a run to go on with the same bits."""
    threads = os.environ.get("OMP_NUM_THREADS")
    devices = ranks.count() if ranks.count() > 1 else args.devices
    return {**environment(), "device": subject.device, "devices": devices, "OMP_NUM_THREADS": threads}


@contextmanager
def _requests_to_stop() -> Iterator[threading.Event]:
    """Let the first Ctrl-C ask for a stop, and the second one stop at once."""
    asked = threading.Event()
    previous = signal.getsignal(signal.SIGINT)

    def ask(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if ranks.first():  # print may have been interrupted itself
            os.write(2, b"\nfinishing the step; Ctrl-C once more stops at once\n")

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, previous)


def train_all(args: argparse.Namespace, begun: list[Run], lines: bool) -> tuple[list[Run], list[dict[str, str]]]:
    """Return the runs at their ends, and what crashed."""
    from reference.training import DivergedError

    runs, crashed = [], []
    with _requests_to_stop() as stop:
        for each in begun:
            try:
                runs.append(_trained(args, each, stop, lines))
            except (DivergedError, OSError):
                raise
            except Exception as error:  # a port may fail in any way: it is reported, and the exit code says so
                crashed.append({"backend": each.subject.name, "dtype": each.subject.dtype, "reason": where(error)})
                print(f"compare.py: {each.name}: crashed: {where(error)}", file=sys.stderr)
    return runs, crashed


def _trained(args: argparse.Namespace, begun: Run, stop: threading.Event, lines: bool) -> Run:
    """Return a run at its end."""
    from reference.training import train

    if lines:
        print(_heading(args, begun))
    subject, start, now = begun.subject, time.perf_counter(), begun.progress
    steps = train(subject.port, begun.progress, begun.data, device=subject.device, **options_of(args))
    try:
        with Live(begun.name, args.iterations, lines=lines, quiet=args.quiet) as live:
            for now in steps:
                begun.keeper.offer(now)
                live.update(now)
                if any(ranks.gather(stop.is_set())) and now.iteration < args.iterations:
                    begun.keeper.keep()
                    raise KeyboardInterrupt(_how_to_go_on(args, now))
    except ConnectionAbortedError as error:  # another rank is gone
        ranks.end()
        begun.keeper.keep()
        raise ConnectionAbortedError(f"{str(error).rstrip('.')}; {_how_to_go_on(args, now)}") from error
    begun.keeper.keep()
    run = begun._replace(progress=now, seconds=time.perf_counter() - start)
    if lines:
        print(_summary(run))
    return run


def _heading(args: argparse.Namespace, run: Run) -> str:
    (inputs, hidden), (outputs,) = run.progress.params.W1.shape, run.progress.params.b2.shape
    begun = f", from iteration {run.progress.iteration:,} on" if run.progress.iteration else ""
    return (
        f"{run.name} {args.strategy}: {args.data}, {inputs}-{hidden}-{outputs}, batch {args.batch}, learning rate "
        f"{args.learning_rate:g}, h = {args.step:g}, seed {args.seed}{begun}"
    )


def _summary(run: Run) -> str:
    now = run.progress
    _, train, test = now.accuracies[-1]
    return (
        f"{run.name}: {now.iteration:,} iterations, {run.seconds:.3g} s, loss {now.losses[-100:].mean():.4f} (the last "
        f"100 mini-batches), train acc, test acc | {train:.4f}, {test:.4f}"
    )


def _how_to_go_on(args: argparse.Namespace, now: Progress) -> str:
    at = f"interrupted at iteration {now.iteration:,} of {args.iterations:,}"
    if args.checkpoint is None:
        return f"{at}; with --checkpoint FILE it could have gone on."
    if ranks.count() > 1:
        return f"{at}; to go on: the same command, with --resume instead of --overwrite."
    command = [word for word in sys.orig_argv if word not in ("--overwrite", "--resume")]
    return f"{at}; to go on: {shlex.join([*command, '--resume'])}"
