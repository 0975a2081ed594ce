"""`compare.py train`: the chapter's training, run to the end on any backend, and resumed where it was interrupted."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from commands import AGREES, CRASHED, DISAGREES, EXIT_CODES, ranks
from commands.files import check_files, path_of, write_files
from commands.history import accuracies
from commands.keeper import Keeper
from commands.live import Live, tracked
from commands.options import STRATEGIES, add_output, add_problem, add_subjects, settings, subjects
from commands.output import console, environment, where, write_json

if TYPE_CHECKING:
    from ports.agreement import Subject
    from ports.trajectory import Drift
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


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train a net as the chapter does, and go on where it was interrupted",
        description="Train the chapter's net by mini-batch gradient descent on central differences. Several backends "
        "or dtypes begin with the same net, take the same mini-batches, and are held to the float64 reference's run.",
        epilog=EXIT_CODES,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run)
    add_subjects(parser, backend="numpy", dtype="float64")
    add_problem(parser)
    add = parser.add_argument
    add("--strategy", choices=STRATEGIES, default="collocated", help="how the differences are evaluated")
    add("--iterations", metavar="K", type=int, default=10_000, help="steps in all, those of the checkpoint included")
    add("--learning-rate", metavar="RATE", type=float, default=0.1, help="step of the descent")
    _add_files(parser)
    add_output(parser)


def _add_files(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group(
        "files", "Of several runs, each has a checkpoint and parameters of its own: NAME-backend-dtype.ENDING."
    )
    add = files.add_argument
    add("--checkpoint", metavar="FILE", help="keep the run here, to go on if it is interrupted")
    add("--every", metavar="N", type=int, default=1000, help="iterations between two checkpoints, or a few more")
    told = files.add_mutually_exclusive_group()
    told.add_argument("--resume", action="store_true", help="go on from the checkpoint, if it is there")
    told.add_argument("--overwrite", action="store_true", help="begin anew, even if the checkpoint is there")
    add("--save", metavar="FILE.npz", help="write the trained parameters, which predict reads")
    add("--plot", metavar="FILE", help="draw the losses and accuracies: png, svg or pdf by the ending")
    add("--history", metavar="FILE", help="write the losses and accuracies: csv or json by the ending")


def run(args: argparse.Namespace) -> int:
    """Train, write, compare, print, and return the exit code."""
    from reference.training import DivergedError, epoch_length

    check_files(args)
    found, not_run = subjects(args)
    begun = [_begun(args, subject, several=len(found) > 1) for subject in found]
    for each in begun:
        each.keeper.open(each.progress, args.iterations)
    lines = not args.quiet and args.json != "-"
    for row in not_run if lines else ():
        print(f"{row['backend']}: not run: {row['reason']}")
    try:
        runs, crashed = _train_all(args, begun, lines)
    except DivergedError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return DISAGREES
    write_files(args, {each.subject: each.progress for each in runs}, epoch_length(begun[0].data, args.batch))
    drifts, not_compared = _drifts(args, runs) if len(runs) > 1 and ranks.first() else ([], [])
    if lines:
        _print_drifts(drifts, not_compared)
    if args.json:
        results = {"runs": [_as_json(each) for each in runs], "drifts": [_drift_as_json(row) for row in drifts]}
        missing = {"not_compared": not_compared, "not_run": not_run, "crashed": crashed}
        write_json(args.json, {"command": "train", "settings": settings(args), **results, **missing})
    return CRASHED if crashed else AGREES if all(row.agrees for row in drifts) else DISAGREES


def _begun(args: argparse.Namespace, subject: Subject, several: bool) -> Run:
    """Return a run at its beginning or where it is to go on, with every rule checked."""
    from reference import checkpoints
    from reference.datasets import load
    from reference.idx import CLASSES
    from reference.training import begin, check_run
    from reference.two_layer_net import init

    data = load(args.data, dtype=subject.dtype, seed=args.seed)
    if ranks.count() > 1:
        ranks.check_same("data", checkpoints.data_hash(data))
    if args.hidden < 1:
        raise ValueError(f"`hidden` must be at least 1, got {args.hidden}.")
    net = init(data.x_train.shape[1], args.hidden, CLASSES, seed=args.seed, dtype=subject.dtype)
    path = path_of(args.checkpoint, subject, several)
    keeper = Keeper(path, args.every, _kept_settings(args, subject), _kept_environment(args, subject))
    start = begin(net, args.seed)
    check_run(subject.port, start, **_options(args))
    if path is not None:
        keeper.settings["data"] = checkpoints.data_hash(data)
        start = keeper.begin(start, resume=args.resume, overwrite=args.overwrite)
        check_run(subject.port, start, **_options(args))
    return Run(subject, data, net, keeper, start)


def _options(args: argparse.Namespace) -> dict[str, Any]:
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


def _train_all(args: argparse.Namespace, begun: list[Run], lines: bool) -> tuple[list[Run], list[dict[str, str]]]:
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
    steps = train(subject.port, begun.progress, begun.data, device=subject.device, **_options(args))
    try:
        with Live(begun.name, args.iterations, lines=lines, quiet=args.quiet) as live:
            for now in steps:
                begun.keeper.offer(now)
                live.update(now)
                if any(ranks.gather(stop.is_set())) and now.iteration < args.iterations:
                    begun.keeper.keep()
                    raise KeyboardInterrupt(_how_to_go_on(args, now))
    except ConnectionError as error:
        begun.keeper.keep()
        raise ConnectionError(f"{str(error).rstrip('.')}; {_how_to_go_on(args, now)}") from error
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


def _drifts(args: argparse.Namespace, runs: list[Run]) -> tuple[list[Drift], list[str]]:
    """Hold each run to the float64 reference's; return a sentence where that would mean nothing."""
    from ports.trajectory import course, drifts

    rows: list[Drift] = []
    not_compared = []
    options = {name: value for name, value in _options(args).items() if name != "memory"}
    for dtype in dict.fromkeys(each.subject.dtype for each in runs):
        same = [each for each in runs if each.subject.dtype == dtype]
        track = partial(tracked, f"the reference, for {dtype}", args.quiet)
        along = course(same[0].net, same[0].data, dtype=dtype, seed=args.seed, track=track, **options)
        if along is None:
            not_compared.append(f"{dtype}: not compared: rounding of two losses outweighs their difference.")
        else:
            rows += [row for each in same for row in drifts(each.subject, each.progress, along)]
    return rows, not_compared


def _print_drifts(drifts: list[Drift], not_compared: list[str]) -> None:
    from ports.tables import drift_summary, drift_table

    out = console()
    for sentence in not_compared:
        out.print(sentence, markup=False)
    if drifts:
        out.print("", "How far the runs lie from the float64 reference's, by the norm:", sep="\n")
        out.print(drift_table(drifts))
        out.print("", drift_summary(drifts), sep="\n", markup=False)


def _as_json(run: Run) -> dict[str, Any]:
    subject, now = run.subject, run.progress
    return {
        "backend": subject.name,
        "dtype": subject.dtype,
        "device": subject.device,
        "iterations": now.iteration,
        "seconds": run.seconds,
        "loss": float(now.losses[-1]),
        "accuracies": accuracies(now),
    }


def _drift_as_json(row: Drift) -> dict[str, Any]:
    return {**row._asdict(), "agrees": row.agrees}
