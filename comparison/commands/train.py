"""`compare.py train`: the chapter's training, run to the end on any backend, and resumed where it was interrupted."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES, CRASHED, DISAGREES
from comparison.commands import processes as ranks
from comparison.commands.history import accuracies
from comparison.commands.options import (
    STRATEGIES,
    add_output,
    add_problem,
    add_subjects,
    new_command,
    settings,
    subjects,
)
from comparison.commands.output import console, write_json
from comparison.commands.progress import tracked
from comparison.commands.training_files import check_files, write_files
from comparison.commands.training_runs import Run, options_of, prepared, train_all

if TYPE_CHECKING:
    from comparison.agreement.drift import Drift


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        help="train a net as the chapter does, and go on where it was interrupted",
        description="Train the chapter's net by mini-batch gradient descent on central differences. Several backends "
        "or dtypes begin with the same net, take the same mini-batches, and are held to the float64 reference's run.",
    )
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
    from reference.datasets import load
    from reference.training import DivergedError, epoch_length

    check_files(args)
    found, not_run = subjects(args)
    data = {dtype: load(args.data, dtype=dtype, seed=args.seed) for dtype in dict.fromkeys(s.dtype for s in found)}
    begun = [prepared(args, subject, data[subject.dtype], several=len(found) > 1) for subject in found]
    for each in begun:
        each.keeper.open(each.progress, args.iterations)
    lines = not args.quiet and args.json != "-"
    for row in not_run if lines else ():
        print(f"{row['backend']}: not run: {row['reason']}")
    try:
        runs, crashed = train_all(args, begun, lines)
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


def _drifts(args: argparse.Namespace, runs: list[Run]) -> tuple[list[Drift], list[str]]:
    """Hold each run to the float64 reference's; return a sentence where that would mean nothing."""
    from comparison.agreement.drift import course, drifts

    rows: list[Drift] = []
    not_compared = []
    options = {name: value for name, value in options_of(args).items() if name != "memory"}
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
    from comparison.report.agreement_tables import drift_summary, drift_table

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
