"""The tables and sentences that show agreement: for a terminal, and as Markdown."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from comparison import PROGRAM
from comparison.agreement.comparison import FORWARD, Agreement, NotCompared, Outcome, disagreement_sentence
from comparison.agreement.drift import Drift

COLUMNS = ("backend", "strategy", "worst", "entries", "gap", "bound", "gap/bound", "verdict")
NUMBERS = ("gap", "bound", "gap/bound")
CRASHED = ("CRASHED", "bold red")
LEFT = ("backend", "strategy", "worst", "of", "verdict")
DROPPABLE = ("entries", "bound", "gap", "worst")
"""The columns that a narrow terminal does without, in the order in which they are dropped; JSON has all."""
VERDICTS = {True: ("agrees", "green"), False: ("DISAGREES", "bold red")}
"""Words and style."""


UNSEEN = (
    "This is a quick look: at the data, other nets of a few sizes and trainings of up to 37 steps; on JAX, which "
    "compiles each, at fewer. Every size, value and kind of argument in every strategy, longer trainings, later calls "
    f"and other devices are left to `{PROGRAM} conform PORT`."
)
"""What `agree` does not look at."""


def plain_table(*columns: tuple[str, str]) -> Table:
    """Build a table with these columns, (heading, left or right), without lines.

    In a narrow terminal what is aligned left wraps, so that numbers, which are aligned right, need not be cut.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(
            name,
            justify="left" if justify == "left" else "right",
            no_wrap=justify == "right",
            overflow="fold" if justify == "left" else "ellipsis",
        )
    return table


def fitted_table(
    groups: Sequence[Sequence[Mapping[str, str | Text]]],
    droppable: Sequence[str],
    width: int | None,
    left: Sequence[str],
) -> Table:
    """Build a table of groups of rows, without empty columns and without those of `droppable` that do not fit."""
    rows = [row for group in groups for row in group]
    shown = [name for name in rows[0] if any(str(row[name]) != "-" for row in rows)] if rows else []
    for name in droppable:
        lengths = [max(len(text) for text in (key, *(row[key] for row in rows))) for key in shown]
        if width is not None and sum(lengths) + 2 * len(lengths) > width and name in shown:
            shown.remove(name)
    table = plain_table(*((name, "left" if name in left else "right") for name in shown))
    for group in groups:
        if len(groups) > 1:
            table.add_row()
        for row in group:
            table.add_row(*(row[name] for name in shown))
    return table


def headings(table: Table) -> list[str]:
    """Return the headings of the columns that a table has."""
    return [str(column.header) for column in table.columns]


def agreement_table(outcome: Outcome, width: int | None = None) -> Table:
    """Build a table with a line for each backend x dtype x strategy, showing its worst quantity.

    It is as wide as it needs to be, or with a `width` does without those of DROPPABLE that do not fit.
    """
    groups = []
    for name, group in groupby(_agreement_lines(outcome), lambda line: line[0][0]):
        rows: list[dict[str, str | Text]] = []
        for n, ((_, *cells, verdict), style) in enumerate(group):
            texts: tuple[str | Text, ...] = ("" if n else name, *cells, Text(verdict, style))
            rows.append(dict(zip(COLUMNS, texts, strict=True)))
        groups.append(rows)
    return fitted_table(groups, DROPPABLE, width, LEFT)


def agreement_markdown(outcome: Outcome) -> str:
    """Write the verdict and the same table in Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(cells for cells, _ in _agreement_lines(outcome))]
    table = "".join(f"| {' | '.join(map(markdown_cell, line))} |\n" for line in lines)
    notes = "".join(f"- {markdown_cell(note)}\n" for note in agreement_notes(outcome))
    return f"**{markdown_cell(agreement_summary(outcome))}**\n\n{table}\n{notes}"


def markdown_cell(text: str) -> str:
    """Escape what would end a cell of a table in Markdown, or be markup in it."""
    return " ".join(re.sub(r"([\\|`*<\[\]])", r"\\\1", text).split())


def _agreement_lines(outcome: Outcome) -> list[tuple[list[str], str]]:
    """Return the cells of each line, and the style of its verdict."""
    groups: dict[tuple[str, str], list[Agreement]] = {}
    for row in outcome.rows:
        groups.setdefault((f"{row.backend} {row.dtype}", row.strategy or FORWARD), []).append(row)
    lines = [_agreement_line(name, strategy, group) for (name, strategy), group in groups.items()]
    names = [cells[0] for cells, _ in lines]
    for crash in outcome.crashed:  # after the other lines of its subject
        name = f"{crash['backend']} {crash['dtype']}"
        at = len(names) - names[::-1].index(name) if name in names else len(names)
        names.insert(at, name)
        blank = ["-"] * (len(COLUMNS) - 3)
        lines.insert(at, ([name, crash.get("strategy") or FORWARD, *blank, CRASHED[0]], CRASHED[1]))
    return lines


def _agreement_line(name: str, strategy: str, group: list[Agreement]) -> tuple[list[str], str]:
    worst = max(group, key=lambda row: (not row.agrees, row.ratio))
    numbers = ["-", "-"] if worst.gap is None or worst.bound is None else [f"{worst.gap:.1e}", f"{worst.bound:.1e}"]
    verdict, style = VERDICTS[all(row.agrees for row in group)]
    return [name, strategy, worst.quantity, _entries(group), *numbers, _ratio(worst.ratio), verdict], style


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 1000 else f"{value:.1e}"


def _entries(group: list[Agreement]) -> str:
    """Say how many entries were compared of how many, on the data."""
    on_data = [row for row in group if row.problem == "data"] or group
    counts = {row.quantity: (row.checked, row.entries) for row in sorted(on_data, key=lambda row: row.checked)}
    checked, entries = (sum(numbers) for numbers in zip(*counts.values(), strict=True))
    return f"{entries:,}" if checked == entries else f"{checked:,} of {entries:,}"


def backends_table(outcome: Outcome, width: int | None = None) -> Table:
    """Build a table with one line for each backend x dtype: enough where all agree."""
    rows: list[dict[str, str | Text]] = []
    for name, group in groupby(outcome.rows, lambda row: f"{row.backend} {row.dtype}"):
        own = list(group)
        worst = max(own, key=lambda row: (not row.agrees, row.ratio))
        quantity = f"{worst.strategy or FORWARD} {worst.quantity}"
        cells: tuple[str | Text, ...] = (
            name,
            str(len(own)),
            _ratio(worst.ratio),
            quantity,
            Text(*VERDICTS[worst.agrees]),
        )
        rows.append(dict(zip(("backend", "quantities", "gap/bound", "of", "verdict"), cells, strict=True)))
    for crash in outcome.crashed:
        cells = (f"{crash['backend']} {crash['dtype']}", "-", "-", crash.get("strategy") or FORWARD, Text(*CRASHED))
        rows.append(dict(zip(("backend", "quantities", "gap/bound", "of", "verdict"), cells, strict=True)))
    return fitted_table([rows], ("quantities", "of"), width, LEFT)


def agreement_summary(outcome: Outcome) -> str:
    """Describe the verdict on the whole comparison, in a sentence."""
    wrong = sum(not row.agrees for row in outcome.rows)
    if wrong or outcome.crashed:
        verdict = f"DISAGREES: {wrong:,} of {len(outcome.rows):,} quantities"
        if not wrong:
            verdict = f"CRASHED: the {len(outcome.rows):,} quantities that were compared agree"
        crashes = f"; crashed: {len(outcome.crashed)}" if outcome.crashed else ""
        return f"{verdict}{crashes}."
    if not outcome.rows:
        return "Nothing was compared."
    worst = max(outcome.rows, key=lambda row: row.ratio)
    return (
        f"All {len(outcome.rows):,} quantities agree with the float64 reference; the largest gap is "
        f"{worst.ratio:.2f} of its bound ({worst.backend} {worst.dtype} {worst.strategy or FORWARD} {worst.quantity})."
    )


def agreement_notes(outcome: Outcome) -> list[str]:
    """Describe each disagreement, and everything that is missing from the table, in a sentence each."""
    notes = {f"{row['backend']}: not run: {row['reason']}": None for row in outcome.not_run}
    for key, group in groupby(sorted(outcome.not_compared, key=_reason_key), _reason_key):
        strategies = ", ".join(dict.fromkeys(row.strategy for row in group))
        notes[f"{strategies} in {key[0]} at h = {key[1]:g}: not compared: {key[2]}"] = None
    crashes = {crash_sentence(crash): None for crash in outcome.crashed}
    return [*notes, *crashes, *disagreements(outcome.rows)]


def crash_sentence(crash: Mapping[str, Any]) -> str:
    """Describe a crash; without a strategy it is one of forward quantities."""
    name = " ".join(filter(None, (crash["backend"], crash["dtype"], crash.get("strategy"))))
    return f"{name}: crashed: {crash['reason']}"


def disagreements(rows: Iterable[Agreement]) -> list[str]:
    """Return a sentence for each backend, dtype and strategy that disagrees: its worst quantity; the worst first."""
    wrong = sorted((row for row in rows if not row.agrees), key=_fault)
    groups = [list(group) for _, group in groupby(wrong, _fault)]
    sentences = []
    for group in sorted(groups, key=lambda group: -max(row.ratio for row in group)):
        worst = max(group, key=lambda row: row.ratio)
        others = dict.fromkeys(row.quantity for row in group if row.quantity != worst.quantity)
        more = f" So do {len(group) - 1} more ({', '.join(others) or worst.quantity})." if len(group) > 1 else ""
        sentences.append(disagreement_sentence(worst) + more)
    return sentences


def _fault(row: Agreement) -> tuple[str, str, str]:
    return row.backend, row.dtype, row.strategy or FORWARD


def _reason_key(row: NotCompared) -> tuple[str, float, str]:
    return row.dtype, row.h, row.reason


def confusion_table(counts: np.ndarray) -> Table:
    """Build a table of a confusion matrix: a row for each class, a column for each prediction."""
    table = plain_table(("", "right"), *((str(n), "right") for n in range(len(counts))))
    table.title, table.columns[0].style = "true (row), predicted (column)", "bold"
    for n, row in enumerate(counts):
        cells = (Text(str(count), "green") if n == k else str(count) if count else "." for k, count in enumerate(row))
        table.add_row(str(n), *cells)
    return table


def drift_table(rows: list[Drift]) -> Table:
    """Build a table of how far runs of training have drifted from the reference's."""
    columns = ("backend", "quantity", *NUMBERS, "verdict")
    table = plain_table(*((name, "right" if name in NUMBERS else "left") for name in columns))
    for name, group in groupby(rows, lambda row: f"{row.backend} {row.dtype}"):
        for n, row in enumerate(group):
            verdict, style = VERDICTS[row.agrees]
            numbers = f"{row.gap:.1e}", f"{row.bound:.1e}", _ratio(row.ratio)
            table.add_row("" if n else name, row.quantity, *numbers, Text(verdict, style))
    return table


def drift_summary(rows: list[Drift]) -> str:
    """Describe the verdict on all runs, in a sentence."""
    wrong = sum(not row.agrees for row in rows)
    worst = max(rows, key=lambda row: row.ratio)
    verdict = f"DISAGREES: {wrong} of {len(rows)} quantities" if wrong else f"All {len(rows)} quantities agree"
    return (
        f"{verdict}; the largest gap is {worst.ratio:.2g} of its bound ({worst.backend} {worst.dtype} "
        f"{worst.quantity})."
    )
