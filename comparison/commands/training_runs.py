"""The runs of `compare.py train`: how each begins or is resumed, is shown, written, and stopped."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from comparison import PROGRAM
from comparison.commands import processes
from comparison.commands.checkpointing import CheckpointWriter
from comparison.commands.interruption import stop_requests
from comparison.commands.output import environment, make_console, print_sentences
from comparison.commands.progress import ProgressDisplay
from comparison.commands.training_files import file_of_run

if TYPE_CHECKING:
    import threading

    from comparison.agreement.comparison import Subject
    from comparison.commands.options import TrainOptions
    from reference.datasets import Dataset
    from reference.training import Progress
    from reference.two_layer_net import Params


class Run(NamedTuple):
    """A run of one backend in one dtype: its data and initial net, its checkpoint, and its progress."""

    subject: Subject
    data: Dataset
    net: Params
    checkpoint: CheckpointWriter
    progress: Progress
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Its name in lines and tables."""
        return f"{self.subject.name} {self.subject.dtype}"


def prepare_run(options: TrainOptions, subject: Subject, data: Dataset, stack: ExitStack, *, several: bool) -> Run:
    """Prepare a run at its beginning, or where it is to be resumed, with every rule checked.

    Its checkpoint is locked until the `stack` is closed.
    """
    from reference.checkpoints import data_hash
    from reference.training import begin, check_run
    from reference.two_layer_net import init

    processes.check_same("data", data)
    if options.hidden < 1:
        raise ValueError(f"`hidden` must be at least 1, got {options.hidden}.")
    net = init(data.x_train.shape[1], options.hidden, data.classes, seed=options.seed, dtype=subject.dtype)
    path = options.checkpoint and file_of_run(options.checkpoint, subject, several=several)
    settings, machine = _checkpoint_settings(options, subject), _checkpoint_environment(options, subject)
    checkpoint = stack.enter_context(CheckpointWriter(path, options.every, settings, machine))
    start = begin(net, options.seed)
    check_run(subject.port, start, **training_options(options))
    if path is not None:
        settings["data"] = data_hash(data)
        start = checkpoint.load(start, resume=options.resume, overwrite=options.overwrite)
        check_run(subject.port, start, **training_options(options))
    return Run(subject, data, net, checkpoint, start)


def training_options(options: TrainOptions) -> dict[str, Any]:
    """Return the options that `reference.training.train` takes."""
    names = ("strategy", "iterations", "batch", "learning_rate", "h", "memory")
    return {name: getattr(options, name) for name in names}


def _checkpoint_settings(options: TrainOptions, subject: Subject) -> dict[str, Any]:
    """Return the settings that must be the same for a run to be resumed."""
    names = ("hidden", "batch", "learning_rate", "strategy", "h", "seed", "memory")
    return {"backend": subject.name, "dtype": subject.dtype, **{name: getattr(options, name) for name in names}}


def _checkpoint_environment(options: TrainOptions, subject: Subject) -> dict[str, Any]:
    """Return the environment that should be the same for a resumed run to end with the same bits."""
    threads = os.environ.get("OMP_NUM_THREADS")
    devices = processes.count() if processes.count() > 1 else options.devices
    return {**environment(), "device": subject.device, "devices": devices, "OMP_NUM_THREADS": threads}


class _CrashError(Exception):
    """An error of a port, its cause; what is raised here, such as a checkpoint that can't be written, is no crash."""


class Trained(NamedTuple):
    """The runs at their ends, a row for each that diverged or crashed, and what ended others or kept them from it."""

    ended: list[Run]
    diverged: list[dict[str, str]]
    crashed: list[dict[str, str]]
    errors: list[BaseException]

    @property
    def stopped(self) -> bool:
        """Whether nobody waits any longer: Ctrl-C, another rank that has ended, or a closed pipe."""
        return any(isinstance(error, KeyboardInterrupt | ConnectionError) for error in self.errors)


def train_all(options: TrainOptions, runs: list[Run]) -> Trained:
    """Train each run to its end; what the others produce is kept, however one of them ends."""
    from ports.registry import describe_error
    from reference.training import DivergedError

    trained = Trained([], [], [], [])
    with stop_requests() as stop:
        for run in runs:
            try:
                trained.ended.append(_train(options, run, stop))
            except DivergedError as error:
                name = f"{run.name}: " if len(runs) > 1 else ""
                trained.diverged.append(_row(run, str(error)))
                print(f"{PROGRAM}: {name}{error}", file=sys.stderr)
            except _CrashError as error:  # it is reported, and the exit code says so
                reason = describe_error(error.__cause__ or error, run.subject.source)
                trained.crashed.append(_row(run, reason))
                print(f"{PROGRAM}: {run.name}: crashed: {reason}", file=sys.stderr)
            except (KeyboardInterrupt, OSError) as error:
                trained.errors.append(error)
                if trained.stopped or processes.count() > 1:
                    break
    return trained


def _row(run: Run, reason: str) -> dict[str, str]:
    return {"backend": run.subject.name, "dtype": run.subject.dtype, "reason": reason}


def _advance(segments: Iterator[Progress]) -> Progress | None:
    """Train one more segment; None at the end of the run. A port may fail in any way, even by sys.exit."""
    from reference.training import DivergedError

    try:
        return next(segments, None)
    except (DivergedError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, ConnectionAbortedError) and processes.count() > 1:  # another rank has ended
            raise
        raise _CrashError from error


def _train(options: TrainOptions, run: Run, stop: threading.Event) -> Run:
    from reference.training import epoch_length, train

    if options.prints:
        print_sentences(make_console(), _heading(options, run))
    subject, start, now = run.subject, time.perf_counter(), run.progress
    segments = train(subject.port, run.progress, run.data, device=subject.device, **training_options(options))
    try:
        epoch, shown = epoch_length(run.data, options.batch), {"lines": options.prints, "quiet": options.quiet}
        with ProgressDisplay(run.name, options.iterations, epoch, **shown) as display:
            for now in iter(partial(_advance, segments), None):
                run.checkpoint.update(now)
                if any(processes.gather(stop.is_set())) and now.iteration < options.iterations:
                    run.checkpoint.write()  # before anything is shown: the terminal may be closed
                    raise KeyboardInterrupt(_how_to_resume(options, now))
                display.update(now)
    except ConnectionAbortedError as error:  # another rank has ended
        processes.ignore_stop_requests()
        run.checkpoint.write()
        raise ConnectionAbortedError(f"{str(error).rstrip('.')}; {_how_to_resume(options, now)}") from error
    run.checkpoint.write()
    run = run._replace(progress=now, seconds=time.perf_counter() - start)
    if options.prints:
        print_sentences(make_console(), _summary(run))
        if (kept := run.checkpoint.iteration) is not None and kept < now.iteration:
            print_sentences(
                make_console(),
                f"{run.checkpoint.path} holds iteration {kept:,}: --resume with more --iterations continues from "
                f"there, where a segment ends, and not from {now.iteration:,}: its bits are those of one long run.",
            )
    return run


def _heading(options: TrainOptions, run: Run) -> str:
    (inputs, hidden), (outputs,) = run.progress.params.W1.shape, run.progress.params.b2.shape
    at = run.progress.iteration
    resumed = f", from iteration {at:,} on, the last that its checkpoint can be resumed from" if at else ""
    return (
        f"{run.name} {options.strategy}: {options.data}, {inputs}-{hidden}-{outputs}, batch {options.batch}, "
        f"learning rate {options.learning_rate:g}, h = {options.h:g}, seed {options.seed}{resumed}"
    )


def _summary(run: Run) -> str:
    from comparison.report.timing_tables import number

    now = run.progress
    _, train, test = now.accuracies[-1]
    return (
        f"{run.name}: {now.iteration:,} iterations, {number(run.seconds)} s, loss {now.losses[-100:].mean():.4f} (the "
        f"last 100 mini-batches), accuracy {train:.4f} in training and {test:.4f} in the test"
    )


def _how_to_resume(options: TrainOptions, now: Progress) -> str:
    interrupted = f"interrupted at iteration {now.iteration:,} of {options.iterations:,}"
    if options.checkpoint is None:
        return f"{interrupted}; use --checkpoint FILE to be able to resume."
    if processes.count() > 1:
        return f"{interrupted}; to go on: the same command, with --resume instead of --overwrite."
    command = [word for word in sys.orig_argv if word not in ("--overwrite", "--resume")]
    return f"{interrupted}; to go on: {shlex.join([*command, '--resume'])}"
