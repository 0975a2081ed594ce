"""`compare.py train`: the chapter's training, run to the end on any backend, and resumed where it was interrupted."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES, CRASHED, DISAGREES, argument_types, processes
from comparison.commands.options import TrainOptions, add_output, add_problem, add_selection, new_command
from comparison.commands.output import make_console, print_sentences, raise_first, try_each, write_json
from comparison.commands.progress import track_iterations
from comparison.commands.subjects import load_data, load_subjects
from comparison.commands.training_files import accuracies_as_json, check_files, check_files_of_runs, file_writers
from comparison.commands.training_runs import Run, Trained, prepare_run, train_all, training_options
from reference.defaults import STRATEGIES

if TYPE_CHECKING:
    from comparison.agreement.drift import Drift


ITERATIONS, LEARNING_RATE = 10_000, 0.1
"""The chapter's, for MNIST."""
SMALL, SMALL_ITERATIONS, SMALL_LEARNING_RATE = ("digits", "random"), 1000, 1.0
"""Data sets that a net has learned after fewer and larger steps."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        TrainOptions,
        derive=_derive,
        help="train a net as the chapter does, and resume it where it was interrupted",
        description="Train the chapter's net by mini-batch gradient descent on central differences. Several backends "
        "or dtypes begin with the same net, take the same mini-batches, and are compared with the float64 reference's "
        "run.",
        examples=(
            ("train --save net.npz", "the digits, in a second"),
            ("train --data mnist --backend jax", "the chapter's run"),
            ("train --checkpoint run.ckpt", "a run that may be interrupted, and resumed"),
            ("train --checkpoint run.ckpt --resume", ""),
        ),
    )
    add_selection(parser, backend="numpy", dtype="float64")
    add_problem(parser)
    add = parser.add_argument
    add("--strategy", choices=STRATEGIES, default="collocated", help="how the differences are evaluated")
    small = f"{SMALL_ITERATIONS:,} for digits and random, {ITERATIONS:,} else"
    help = f"steps in all, those of the checkpoint included (default: {small})"
    add("--iterations", metavar="K", type=int, help=help)
    small = f"{SMALL_LEARNING_RATE:g} for digits and random, {LEARNING_RATE:g} else"
    add("--learning-rate", metavar="RATE", type=float, help=f"factor of the gradient in a step (default: {small})")
    _add_files(parser)
    add_output(parser)


def _derive(arguments: argparse.Namespace) -> dict[str, object]:
    small, iterations, rate = arguments.data in SMALL, arguments.iterations, arguments.learning_rate
    return {
        "iterations": (SMALL_ITERATIONS if small else ITERATIONS) if iterations is None else iterations,
        "learning_rate": (SMALL_LEARNING_RATE if small else LEARNING_RATE) if rate is None else rate,
    }


def _add_files(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group(
        "files", "Of several runs, each has a checkpoint and parameters of its own:\nNAME-backend-dtype.ENDING."
    )
    add = partial(files.add_argument, type=argument_types.name)
    add("--checkpoint", metavar="FILE", help="write the run here, to resume it if it is interrupted")
    every = "iterations between two checkpoints, or a few more"
    files.add_argument("--every", metavar="N", type=int, default=1000, help=every)
    existing = files.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="resume from the checkpoint, if it is there")
    existing.add_argument("--overwrite", action="store_true", help="begin anew, even if the checkpoint is there")
    add("--save", metavar="FILE.npz", help="write the trained parameters, which predict reads")
    add("--plot", metavar="FILE", help="draw the losses and accuracies: png, svg or pdf by the ending")
    add("--history", metavar="FILE", help="write the losses and accuracies: csv or json by the ending")


def run(options: TrainOptions) -> int:
    """Train, write, compare, print, and return the exit code."""
    from reference.training import epoch_length

    check_files(options)
    subjects, not_run = load_subjects(options)
    check_files_of_runs(options, subjects)
    dtypes = dict.fromkeys(subject.dtype for subject in subjects)
    data = {dtype: load_data(options, dtype, quiet=options.quiet) for dtype in dtypes}
    with ExitStack() as stack:
        several = len(subjects) > 1
        runs = [prepare_run(options, subject, data[subject.dtype], stack, several=several) for subject in subjects]
        for prepared in runs:
            prepared.checkpoint.write_first(prepared.progress, options.iterations)
        for row in not_run if options.prints else ():
            print_sentences(make_console(), f"{row['backend']}: not run: {row['reason']}")
        trained = train_all(options, runs)
    ended, diverged, crashed, errors = trained
    ends = {end.subject: end.progress for end in ended}
    errors += try_each(file_writers(options, ends, epoch_length(runs[0].data, options.batch), several=several))
    drifts, not_compared = _compare_unless_stopped(options, trained)
    if options.json:
        results = {"runs": [_run_as_json(end) for end in ended], "drifts": [_drift_as_json(row) for row in drifts]}
        missing = {"not_compared": not_compared, "not_run": not_run, "diverged": diverged, "crashed": crashed}
        errors += try_each([partial(write_json, options.json, "train", options, results | missing)])
    if options.prints:
        _print_drifts(drifts, not_compared)
    raise_first(errors)
    return CRASHED if crashed else AGREES if all(row.agrees for row in drifts) and not diverged else DISAGREES


def _compare_unless_stopped(options: TrainOptions, trained: Trained) -> tuple[list[Drift], list[str]]:
    """Compare the runs, if there are several; whoever has stopped the training does not wait for that."""
    if len(trained.ended) < 2 or not processes.is_first():
        return [], []
    if trained.stopped:
        return [], ["not compared: the training was stopped."]
    try:
        return _compare(options, trained.ended)
    except KeyboardInterrupt as interrupt:  # the runs have ended, and are written
        trained.errors.append(interrupt)
        return [], ["not compared: interrupted."]


def _compare(options: TrainOptions, runs: list[Run]) -> tuple[list[Drift], list[str]]:
    """Compare each run with the float64 reference's; return a sentence where that would mean nothing."""
    from comparison.agreement.drift import measure_drifts, run_reference

    drifts: list[Drift] = []
    not_compared = []
    arguments = {name: value for name, value in training_options(options).items() if name != "memory"}
    for dtype in dict.fromkeys(run.subject.dtype for run in runs):
        same = [run for run in runs if run.subject.dtype == dtype]
        track = partial(track_iterations, f"the reference, for {dtype}", options.quiet)
        net, data, seed = same[0].net, same[0].data, options.seed
        reference_run = run_reference(net, data, dtype=dtype, seed=seed, track=track, **arguments)
        if reference_run is None:
            not_compared.append(f"{dtype}: not compared: rounding of two losses outweighs their difference.")
        else:
            drifts += [row for run in same for row in measure_drifts(run.subject, run.progress, reference_run)]
    return drifts, not_compared


def _print_drifts(drifts: list[Drift], not_compared: list[str]) -> None:
    from comparison.report.agreement_tables import drift_summary, drift_table

    console = make_console()
    print_sentences(console, *not_compared)
    if drifts:
        console.print("", "How far the runs lie from the float64 reference's, by the norm:", sep="\n")
        console.print(drift_table(drifts))
        print_sentences(console, "", drift_summary(drifts))


def _run_as_json(run: Run) -> dict[str, Any]:
    subject, now = run.subject, run.progress
    return {
        "backend": subject.name,
        "dtype": subject.dtype,
        "device": subject.device,
        "iterations": now.iteration,
        "seconds": run.seconds,
        "loss": float(now.losses[-1]),
        "accuracies": accuracies_as_json(now),
    }


def _drift_as_json(row: Drift) -> dict[str, Any]:
    return {**row._asdict(), "agrees": row.agrees}
