"""The losses and accuracies of runs as text: csv for spreadsheets, JSON for programs."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reference.training import Progress

ENDINGS = (".csv", ".json")
COLUMNS = ("backend", "dtype", "iteration", "loss", "train_accuracy", "test_accuracy")


def history_text(histories: Mapping[tuple[str, str], Progress], ending: str) -> str:
    """Return the histories, by (backend, dtype), in the format of a file's ending."""
    if ending == ".json":
        return json.dumps([_record(*key, history) for key, history in histories.items()], allow_nan=False) + "\n"
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for key, history in histories.items():
        table.writerows((*key, *row) for row in _rows(history))
    return text.getvalue()


def _record(backend: str, dtype: str, history: Progress) -> dict[str, Any]:
    return {"backend": backend, "dtype": dtype, "losses": history.losses.tolist(), "accuracies": accuracies(history)}


def accuracies(history: Progress) -> list[dict[str, float]]:
    """Return the accuracies as JSON records them."""
    return [{"iteration": int(at), "train": train, "test": test} for at, train, test in history.accuracies.tolist()]


def _rows(history: Progress) -> Iterator[tuple[object, ...]]:
    """Yield iteration 0, which has no loss, and then each iteration's loss before its step and accuracies after it."""
    found = {int(at): both for at, *both in history.accuracies.tolist()}
    for iteration, loss in enumerate(["", *history.losses.tolist()]):
        yield (iteration, loss, *found.get(iteration, ("", "")))
