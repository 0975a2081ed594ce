"""The files that a training writes: parameters, figures and histories, each of them whole or absent."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison.commands import processes
from comparison.commands.file_options import check_files_differ
from comparison.commands.output import check_figures, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from comparison.agreement.comparison import Subject
    from comparison.commands.options import TrainOptions
    from reference.training import Progress

ENDINGS = {"save": (".npz",), "plot": (".png", ".svg", ".pdf"), "history": (".csv", ".json")}
COLUMNS = ("backend", "dtype", "iteration", "loss", "train_accuracy", "test_accuracy")


def check_files(options: TrainOptions) -> None:
    """Raise an error, before any work, for a file that could not be written after it."""
    paths = {"save": options.save, "plot": options.plot, "history": options.history}
    for option, path in paths.items():
        if path is not None and Path(path).suffix.lower() not in ENDINGS[option]:
            raise ValueError(f"`--{option}` must end in {' or '.join(ENDINGS[option])}, got {path!r}.")
    for option, path in {"checkpoint": options.checkpoint, **paths}.items():
        if path and processes.is_first():
            _check_writable(option, Path(path))
    if options.plot and processes.is_first():
        check_figures(_format(options.plot))
    if options.resume and options.checkpoint is None:
        raise ValueError("`--resume` must come with --checkpoint, got none.")
    if options.every < 1:
        raise ValueError(f"`--every` must be at least 1, got {options.every}.")


def check_files_of_runs(options: TrainOptions, subjects: Sequence[Subject]) -> None:
    """Raise an error, before any work, for a file of one of several runs that could not be written after it."""
    for name, dtype in {(subject.name, subject.dtype) for subject in subjects}:
        devices = [subject.device for subject in subjects if (subject.name, subject.dtype) == (name, dtype)]
        if len(devices) > 1:  # their files and their rows would have the same name
            raise ValueError(f"`--device` must be one of each backend's, got {', '.join(devices)} of {name}.")
    if len(subjects) > 1 and processes.is_first():
        given = {"save": options.save, "checkpoint": options.checkpoint}
        files = [(name, file_of_run(path, s, several=True)) for name, path in given.items() if path for s in subjects]
        check_files_differ(options, files)
        for option, path in files:
            _check_writable(option, Path(path))


def _check_writable(option: str, path: Path) -> None:
    from reference.files import check_writable, is_special

    if path.is_dir():
        raise ValueError(f"`--{option}` must be a file, got the folder {str(path)!r}.")
    if option == "checkpoint" and is_special(path):
        raise ValueError(f"`--{option}` must be a regular file, got {str(path)!r}, which is something else.")
    check_writable(path)


def file_of_run(path: str, subject: Subject, *, several: bool) -> str:
    """Return the file of one run: of several, each has a name of its own."""
    if not several:
        return path
    whole = Path(path)
    return str(whole.with_name(f"{whole.stem}-{subject.name.replace('/', '-')}-{subject.dtype}{whole.suffix}"))


def file_writers(
    options: TrainOptions, ends: Mapping[Subject, Progress], epoch: int, *, several: bool
) -> Iterator[Callable[[], None]]:
    """Yield a function for each file that the options name, which writes it.

    `ends` are those of the runs, with `epoch` iterations an epoch; `several` tells whether several began.
    """
    from reference.params import save_params

    by_name = {(subject.name, subject.dtype): end for subject, end in ends.items()}
    if options.save:
        for subject, end in ends.items():
            yield partial(save_params, file_of_run(options.save, subject, several=several), end.params)
    if options.history and ends:
        yield partial(_write_history, options.history, by_name)
    if options.plot and ends:
        yield partial(_write_figure, options.plot, by_name, epoch)


def _write_history(path: str, runs: Mapping[tuple[str, str], Progress]) -> None:
    write(path, history_text(runs, Path(path).suffix.lower()))


def _write_figure(path: str, runs: Mapping[tuple[str, str], Progress], epoch: int) -> None:
    from comparison.report.figures import plain_style
    from comparison.report.training_figure import Curves, training_figure
    from reference.files import write_atomically

    image = io.BytesIO()
    curves = {name: Curves(end.losses, end.accuracies) for name, end in runs.items()}
    with plain_style():
        training_figure(curves, epoch).savefig(image, format=_format(path), dpi=150)
    write_atomically(path, [image.getvalue()])


def _format(path: str) -> str:
    return Path(path).suffix[1:].lower()


def history_text(runs: Mapping[tuple[str, str], Progress], ending: str) -> str:
    """Return the losses and accuracies of runs, by (backend, dtype), in the format of a file's ending."""
    if ending == ".json":
        records = [
            {"backend": backend, "dtype": dtype, "losses": end.losses.tolist(), "accuracies": accuracies_as_json(end)}
            for (backend, dtype), end in runs.items()
        ]
        return json.dumps(records, allow_nan=False) + "\n"
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for key, end in runs.items():
        table.writerows((*key, *row) for row in _history_rows(end))
    return text.getvalue()


def accuracies_as_json(end: Progress) -> list[dict[str, Any]]:
    """Return the accuracies of a run as JSON records them."""
    return [{"iteration": int(at), "train": train, "test": test} for at, train, test in end.accuracies.tolist()]


def _history_rows(end: Progress) -> Iterator[tuple[object, ...]]:
    """Yield iteration 0, which has no loss, and then each iteration's loss before its step and accuracies after it."""
    accuracies = {int(at): both for at, *both in end.accuracies.tolist()}
    for iteration, loss in enumerate(["", *end.losses.tolist()]):
        yield (iteration, loss, *accuracies.get(iteration, ("", "")))
