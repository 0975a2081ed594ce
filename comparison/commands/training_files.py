"""What a training writes: parameters, figures and histories, each a file that is whole or absent."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from comparison.commands import processes as ranks
from comparison.commands.history import ENDINGS, history_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from comparison.agreement.comparison import Subject
    from reference.training import Progress

FIGURES = (".png", ".svg", ".pdf")


def check_files(args: argparse.Namespace) -> None:
    """Raise an error, before any work, for a file that could not be written after it."""
    for option, endings in {"save": (".npz",), "plot": FIGURES, "history": ENDINGS}.items():
        path = getattr(args, option)
        if path is not None and Path(path).suffix not in endings:
            raise ValueError(f"`--{option}` must end in {' or '.join(endings)}, got {path!r}.")
    for option in ("checkpoint", "save", "plot", "history"):
        if (path := getattr(args, option)) and ranks.first():
            _check_writable(option, Path(path))
    if args.resume and args.checkpoint is None:
        raise ValueError("`--resume` must come with --checkpoint, got none.")
    if args.every < 1:
        raise ValueError(f"`--every` must be at least 1, got {args.every}.")


def _check_writable(option: str, path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"`--{option}` must be a file, got the folder {str(path)!r}.")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def path_of(path: str | None, subject: Subject, several: bool) -> str | None:
    """Return the file of one of several runs."""
    if path is None or not several:
        return path
    whole = Path(path)
    return str(whole.with_name(f"{whole.stem}-{subject.name}-{subject.dtype}{whole.suffix}"))


def write_files(args: argparse.Namespace, ends: Mapping[Subject, Progress], epoch: int) -> None:
    """Write what was asked for of runs at their ends, with epochs of so many iterations."""
    from reference.files import write_atomically
    from reference.params import save_params

    for subject, end in ends.items() if args.save else ():
        save_params(str(path_of(args.save, subject, several=len(ends) > 1)), end.params)
    histories = {(subject.name, subject.dtype): end for subject, end in ends.items()}
    if args.history:
        text = history_text(histories, Path(args.history).suffix)
        write_atomically(args.history, [text.encode()])
    if args.plot and ends:
        from comparison.report.figures import training_figure

        image = io.BytesIO()
        training_figure(histories, epoch).savefig(image, format=Path(args.plot).suffix[1:], dpi=150)
        write_atomically(args.plot, [image.getvalue()])
