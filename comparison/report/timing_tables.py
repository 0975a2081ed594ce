"""The tables and sentences that show timings."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from rich.table import Table

from comparison import PROGRAM
from comparison.report.agreement_tables import fitted_table, plain_table
from comparison.timing.baseline import Change
from comparison.timing.recommendation import Timing
from comparison.timing.rounds import ERROR, Interval
from comparison.timing.self_check import SelfCheck
from comparison.timing.sentences import duration as seconds_of

LEFT = ("backend", "strategy")
DROPPABLE = ("peak", "error", "cores", "95% interval", "x closed form", "first call")
"""The columns that a narrow terminal does without, in the order in which they are dropped; JSON has all."""


def seconds(value: float | None) -> str:
    """Format a duration in the unit that fits it, or "-" where it is unknown."""
    return "-" if value is None else seconds_of(value)


def number(value: float) -> str:
    """Format a number to three digits, a large one in full."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def interval_of_ratio(ratio: Interval | None) -> str:
    """Format a ratio with its interval; 1 for the base itself."""
    if ratio is None:
        return "-"
    return "1" if ratio[:] == (1, 1, 1) else _interval(ratio)


def speed_table(timings: Sequence[Timing], width: int) -> Table:
    """Build a table with a line for each contender, without those of DROPPABLE that do not fit into `width`."""
    by_dtype: dict[str, list[dict[str, str]]] = {}
    for timing in timings:
        by_dtype.setdefault(timing.contender.dtype, []).append(_speed_cells(timing))
    return fitted_table(list(by_dtype.values()), DROPPABLE, width, LEFT)


def _speed_cells(timing: Timing) -> dict[str, str]:
    c, mark = timing.contender, "~" if timing.contender.estimated else ""
    device = "" if c.device.startswith("cpu") else f" {c.device}"
    return {
        "backend": f"{c.backend} {c.dtype}{device}",
        "strategy": c.strategy,
        "first call": seconds(c.first_call_s),
        "median": mark + seconds(timing.seconds.median),
        "95% interval": f"{seconds(timing.seconds.low)} to {seconds(timing.seconds.high)}",
        "x best": interval_of_ratio(timing.ratio),
        "x closed form": number(timing.to_closed_form.median) if timing.to_closed_form else "-",
        "cores": f"{timing.cores_used:.1f}",
        "error": "-" if c.error is None else f"{c.error:.1e}",
        "peak": "-" if c.peak_bytes is None else f"{c.peak_bytes / 2**20:,.0f} MiB",
    }


def speed_notes(timings: Sequence[Timing], shown: Sequence[str]) -> list[str]:
    """Return the sentences that the table of timings needs to be understood; `shown` are its headings."""
    contenders = [timing.contender for timing in timings]
    notes = estimate_notes((c.strategy, c.estimated) for c in contenders)
    if "first call" in shown:
        later = "the median and its interval are" if "95% interval" in shown else "the median is"
        notes.append(
            "The first call is one step or gradient in a process of its own, where nothing is compiled; "
            f"{later} of later ones."
        )
    return notes


def estimate_notes(estimates: Iterable[tuple[str, str | None]]) -> list[str]:
    """Say of each strategy what its times are estimated from, such as "128 of 39,760 parameters"."""
    samples: dict[str, dict[str, list[int]]] = {}
    for strategy, text in estimates:
        if text:
            count, of, whole = text.partition(" of ")
            number_of = [int(count.replace(",", ""))] if of else []
            samples.setdefault(strategy, {}).setdefault(whole if of else text, []).extend(number_of)
    notes = []
    for strategy, wholes in samples.items():
        texts = []
        for whole, counts in wholes.items():
            ends = dict.fromkeys(f"{count:,}" for count in (min(counts), max(counts))) if counts else {}
            texts.append(f"{' to '.join(ends)} of {whole}" if ends else whole)
        notes.append(f"~ {strategy} is estimated from {' or '.join(texts)}.")
    return notes


def missing_notes(
    excluded: Iterable[dict[str, Any]], not_run: Iterable[dict[str, str]], left_out: Iterable[dict[str, str]] = ()
) -> list[str]:
    """Describe everything that was not timed, in a sentence each."""
    notes = [f"excluded: {row['backend']} {row['dtype']} {row['strategy']}: {row['reason']}" for row in excluded]
    notes += [f"left out: {row['backend']} {row['dtype']} {row['strategy']}: {row['reason']}" for row in left_out]
    return [*notes, *(f"{row['backend']}: not run: {row['reason']}" for row in not_run)]


def data_only_notes(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Describe what was compared on the data only, in a sentence each."""
    return [
        f"{row['backend']} {row['dtype']}: compared on the data only, since other nets would take it at least "
        f"{seconds_of(row['seconds'])}, more than half of --budget. `{PROGRAM} agree` compares there, too."
        for row in rows
    ]


def break_even_table(advice: Iterable[dict[str, Any] | None]) -> Table | None:
    """Build a table of what finishes first, by the number of steps, from advice as JSON records it.

    None where no advice has any.
    """
    shown = [row for row in advice if row and row["break_even"]]
    table = plain_table(("steps", "right"), *((f"first in {row['dtype']}", "left") for row in shown))
    for rows in zip(*(row["break_even"] for row in shown), strict=True):
        cells = (_first_cell(row) for row in rows)
        table.add_row(f"{rows[0]['steps']:,}", *cells)
    return table if shown else None


def _first_cell(row: dict[str, Any]) -> str:
    return f"{names_in_words(row.get('tie') or [row])}, {seconds(row['seconds'])}"


def names_in_words(contenders: Sequence[dict[str, Any]]) -> str:
    """Name contenders by backend and strategy, such as "numpy or jax collocated"."""
    strategies = {c["strategy"] for c in contenders}
    names = [c["backend"] if len(strategies) == 1 else f"{c['backend']} {c['strategy']}" for c in contenders]
    return " or ".join(names) + (f" {strategies.pop()}" if len(strategies) == 1 else "")


def self_check_sentence(result: SelfCheck) -> str:
    """Describe the result of an A/A test, with Wilson's interval."""
    from scipy.stats import binomtest

    if not result.verdicts:
        return "Each contender against itself: --budget was spent before there was a verdict; give it more."
    share, named = result.told_apart / result.verdicts, result.winners / result.verdicts
    low, high = binomtest(result.told_apart, result.verdicts).proportion_ci(method="wilson")
    sweeps = ""
    if result.sweeps:
        sweeps = f" In {result.crossing_sweeps} of {result.sweeps} sweeps over the sizes one overtakes itself."
    return (
        f"Each contender against itself, {result.verdicts} verdicts: {result.told_apart} told apart, {share:.1%} "
        f"({low:.1%} to {high:.1%}; nominal {ERROR:.0%}); {result.winners} named as a winner, {named:.1%}.{sweeps}"
    )


def change_table(changes: Sequence[Change]) -> Table:
    """Build a table of what has become faster or slower since a baseline."""
    table = plain_table(("contender", "left"), ("before", "right"), ("now", "right"), ("now / before", "right"))
    for change in changes:
        table.add_row(change.name, number(change.before.median), number(change.now.median), _interval(change.ratio))
    return table


def _interval(ratio: Interval) -> str:
    return f"{number(ratio.median)} ({number(ratio.low)} to {number(ratio.high)})"


def sweep_tables(sizes: Sequence[int], timings: Sequence[Sequence[Timing]], width: int) -> list[Table]:
    """Build tables of the medians, a column for each size; there are several where they would not fit into `width`."""
    medians = [{timing.contender[:4]: timing.seconds.median for timing in column} for column in timings]
    keys = dict.fromkeys(key for column in medians for key in column)
    names = [(f"{key[0]} {key[2]}", key[1]) for key in keys]
    used = sum(max((len(row[n]) for row in names), default=0) + 2 for n in range(2))
    columns = max(1, (width - used) // 10)  # of "1,234 ms" and a gap
    tables = []
    for first in range(0, len(sizes), columns):
        part = range(first, min(first + columns, len(sizes)))
        table = plain_table(("backend", "left"), ("strategy", "left"), *((f"{sizes[n]:,}", "right") for n in part))
        for key, name in zip(keys, names, strict=True):
            table.add_row(*name, *(seconds(medians[n].get(key)) for n in part))
        tables.append(table)
    return tables


def fastest_sentences(rows: Sequence[dict[str, Any]], over: str) -> list[str]:
    """Say who is fastest where, a sentence for each dtype; sizes with the same answer are put together."""
    sentences = []
    for dtype, of_dtype in groupby(sorted(rows, key=lambda row: row["dtype"]), lambda row: row["dtype"]):
        parts = []
        for names, same in groupby(of_dtype, _names_of_fastest):
            sizes = [row["size"] for row in same]
            span = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
            parts.append(f"at {span} {names}")
        sentences.append(f"Fastest in {dtype} by {over}: {'; '.join(parts)}.")
    return sentences


def _names_of_fastest(row: dict[str, Any]) -> str:
    return names_in_words(row["fastest"]) + (" (a tie)" if len(row["fastest"]) > 1 else "")


def crossover_sentence(row: dict[str, Any], over: str) -> str:
    """Say where one contender becomes faster than another."""
    below, above = (f"{row[key]['backend']} {row[key]['strategy']}" for key in ("faster_below", "faster_above"))
    return f"In {row['faster_above']['dtype']}, {above} overtakes {below} at about {over} = {row['size']:.0f}."
