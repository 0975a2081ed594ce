"""The tables and sentences that show agreement: for a terminal, and as Markdown."""

import re
from collections.abc import Iterable
from itertools import groupby

import numpy as np
from rich.table import Table
from rich.text import Text

from comparison.agreement.comparison import FORWARD, Agreement, NotCompared, Outcome, disagreement_sentence
from comparison.agreement.drift import Drift

COLUMNS = ("backend", "strategy", "worst", "entries", "gap", "bound", "gap/bound", "verdict")
NUMBERS = ("gap", "bound", "gap/bound")
VERDICTS = {True: ("agrees", "green"), False: ("DISAGREES", "bold red")}
"""Words and style."""


UNSEEN = (
    "This is a quick look: at the data, other nets of a few sizes and trainings of up to 37 steps; on JAX, which "
    "compiles each, at fewer. Every size, value and kind of argument in every strategy, longer trainings, later calls "
    "and other devices are left to `compare.py conform PORT`."
)
"""What `agree` does not look at."""


def plain_table(*columns: tuple[str, str], fold: bool = False) -> Table:
    """Build a table with these columns, (heading, left or right), without lines.

    A cell that is too wide is cut, or with `fold` continues on the next line.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(
            name,
            justify="left" if justify == "left" else "right",
            no_wrap=not fold,
            overflow="fold" if fold else "ellipsis",
        )
    return table


def agreement_table(outcome: Outcome) -> Table:
    """Build a table with a line for each backend x dtype x strategy, showing its worst quantity."""
    table = plain_table(*((name, "right" if name in NUMBERS else "left") for name in COLUMNS), fold=True)
    for name, group in groupby(_agreement_lines(outcome), lambda line: line[0][0]):
        table.add_row()
        for n, ((_, *cells, verdict), style) in enumerate(group):
            table.add_row("" if n else name, *cells, Text(verdict, style))
    return table


def agreement_markdown(outcome: Outcome) -> str:
    """Write the same table in Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(cells for cells, _ in _agreement_lines(outcome))]
    return "".join(f"| {' | '.join(map(markdown_cell, line))} |\n" for line in lines)


def markdown_cell(text: str) -> str:
    """Escape what would end a cell of a table in Markdown, or be markup in it."""
    return " ".join(re.sub(r"([\\|`*<\[\]])", r"\\\1", text).split())


def _agreement_lines(outcome: Outcome) -> list[tuple[list[str], str]]:
    """Return the cells of each line, and the style of its verdict."""
    groups: dict[tuple[str, str], list[Agreement]] = {}
    for row in outcome.rows:
        groups.setdefault((f"{row.backend} {row.dtype}", row.strategy or FORWARD), []).append(row)
    return [_agreement_line(name, strategy, group) for (name, strategy), group in groups.items()]


def _agreement_line(name: str, strategy: str, group: list[Agreement]) -> tuple[list[str], str]:
    worst = max(group, key=lambda row: (not row.agrees, row.ratio))
    numbers = ["-", "-"] if worst.gap is None or worst.bound is None else [f"{worst.gap:.1e}", f"{worst.bound:.1e}"]
    verdict, style = VERDICTS[all(row.agrees for row in group)]
    return [name, strategy, worst.quantity, _entries(group), *numbers, f"{worst.ratio:.3f}", verdict], style


def _entries(group: list[Agreement]) -> str:
    """Say how many entries were compared of how many, on the data."""
    on_data = [row for row in group if row.problem == "data"] or group
    counts = {row.quantity: (row.checked, row.entries) for row in sorted(on_data, key=lambda row: row.checked)}
    checked, entries = (sum(numbers) for numbers in zip(*counts.values(), strict=True))
    return f"{entries:,}" if checked == entries else f"{checked:,} of {entries:,}"


def backends_table(outcome: Outcome) -> Table:
    """Build a table with one line for each backend x dtype: enough where all agree."""
    table = plain_table(
        ("backend", "left"), ("quantities", "right"), ("worst gap/bound", "right"), ("of", "left"), ("verdict", "left")
    )
    for name, rows in groupby(outcome.rows, lambda row: f"{row.backend} {row.dtype}"):
        group = list(rows)
        worst = max(group, key=lambda row: (not row.agrees, row.ratio))
        verdict, style = VERDICTS[worst.agrees]
        quantity = f"{worst.strategy or FORWARD} {worst.quantity}"
        table.add_row(name, str(len(group)), f"{worst.ratio:.3f}", quantity, Text(verdict, style))
    return table


def agreement_summary(outcome: Outcome) -> str:
    """Describe the verdict on the whole comparison, in a sentence."""
    wrong = sum(not row.agrees for row in outcome.rows)
    if wrong or outcome.crashed:
        verdict = f"DISAGREES: {wrong} of {len(outcome.rows)} quantities"
        if not wrong:
            verdict = f"CRASHED: the {len(outcome.rows)} quantities that were compared agree"
        crashes = f"; crashed: {len(outcome.crashed)}" if outcome.crashed else ""
        return f"{verdict}{crashes}."
    worst = max(outcome.rows, key=lambda row: row.ratio)
    return (
        f"All {len(outcome.rows)} quantities agree with the float64 reference; the largest gap is {worst.ratio:.2f} of "
        f"its bound ({worst.backend} {worst.dtype} {worst.strategy or FORWARD} {worst.quantity})."
    )


def agreement_notes(outcome: Outcome) -> list[str]:
    """Describe each disagreement, and everything that is missing from the table, in a sentence each."""
    notes = {f"{row['backend']}: not run: {row['reason']}": None for row in outcome.not_run}
    for key, group in groupby(sorted(outcome.not_compared, key=_reason_key), _reason_key):
        strategies = ", ".join(dict.fromkeys(row.strategy for row in group))
        notes[f"{strategies} in {key[0]} at h = {key[1]:g}: not compared: {key[2]}"] = None
    crashes = {f"{row['backend']} {row['dtype']}: crashed: {row['reason']}": None for row in outcome.crashed}
    return [*notes, *crashes, *disagreements(outcome.rows)]


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
    table = plain_table(*((name, "right" if name in NUMBERS else "left") for name in columns), fold=True)
    for name, group in groupby(rows, lambda row: f"{row.backend} {row.dtype}"):
        for n, row in enumerate(group):
            verdict, style = VERDICTS[row.agrees]
            numbers = f"{row.gap:.1e}", f"{row.bound:.1e}", f"{row.ratio:.3f}"
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
