"""How a run of training is shown: the chapter's lines, and a bar on a terminal or a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from comparison.commands.output import is_terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reference.training import Progress

LINE_SECONDS = 10.0
"""Seconds between two lines where there is no terminal."""


HEADING = f"{'epoch':>6} {'iteration':>10} {'loss':>8} {'train acc':>10} {'test acc':>9}"
"""The loss is the mean of the last 100 mini-batches."""


class ProgressDisplay:
    """Shows a run: `lines` with the chapter's accuracies on stdout, and the progress on stderr unless `quiet`."""

    def __init__(self, name: str, iterations: int, epoch: int, *, lines: bool, quiet: bool) -> None:
        self._name, self._iterations, self._epoch, self._lines, self._quiet = name, iterations, epoch, lines, quiet
        self._bar: Any = None
        self._first: Progress | None = None
        self._printed = 0  # accuracies

    def __enter__(self) -> Self:
        self._start = self._last_line = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, now: Progress) -> None:
        """Show the progress."""
        if self._first is None:
            self._begin(now)
        for row in now.accuracies[self._printed :] if self._lines else ():
            print(_line(now, self._epoch, *row), flush=self._bar is None)
        self._printed = len(now.accuracies)
        if self._bar:
            self._bar.update(0, completed=now.iteration, **_figures(now))
        elif not self._quiet and time.perf_counter() - self._last_line > LINE_SECONDS:
            self._print_line(now)

    def _begin(self, now: Progress) -> None:
        from rich.console import Console

        self._first = now
        self._printed = len(now.accuracies) if now.iteration else 0  # the others were printed before the interruption
        if self._lines:
            print(HEADING)
        if not self._quiet and is_terminal(stderr := Console(stderr=True, highlight=False)):
            self._bar = _make_bar(stderr)
            self._bar.add_task(self._name, total=self._iterations, completed=now.iteration, **_figures(now))
            self._bar.start()

    def _print_line(self, now: Progress) -> None:
        assert self._first is not None
        self._last_line = time.perf_counter()
        seconds = (self._last_line - self._start) / max(1, now.iteration - self._first.iteration)
        figures = _figures(now)
        print(
            f"{self._name}: {now.iteration:,} of {self._iterations:,} iterations, loss {figures['loss']}, "
            f"test acc {figures['accuracy']}, {seconds * (self._iterations - now.iteration):.0f} s left",
            file=sys.stderr,
        )


def track_iterations(name: str, quiet: bool, iterations: Iterable[int]) -> Iterable[int]:
    """Iterate with a bar, if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import track

    stderr = Console(stderr=True)
    shown = is_terminal(stderr) and not quiet
    return track(iterations, name, console=stderr, transient=True) if shown else iterations


def _make_bar(stderr: Any) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("acc {task.fields[accuracy]}"),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        expand=True,
        redirect_stdout=sys.stdout.isatty(),  # so that lines go above the bar; a pipe gets its lines itself
        redirect_stderr=False,
    )


def _line(now: Progress, epoch: int, iteration: float, train: float, test: float) -> str:
    """Return a line of the table whose columns HEADING names."""
    losses = now.losses[max(0, int(iteration) - 100) : int(iteration)]
    loss = f"{losses.mean():.4f}" if len(losses) else "-"
    return (
        f"{f'{iteration / epoch:.1f}'.removesuffix('.0'):>6} {iteration:>10,.0f} {loss:>8} {train:>10.4f} {test:>9.4f}"
    )


def _figures(now: Progress) -> dict[str, str]:
    """Return the mean loss of the last 100 mini-batches and the last accuracy in the test."""
    recent, accuracies = now.losses[-100:], now.accuracies
    return {
        "loss": f"{recent.mean():.4f}" if len(recent) else "-",
        "accuracy": f"{accuracies[-1, 2]:.4f}" if len(accuracies) else "-",
    }
