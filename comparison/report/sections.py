"""What the report says and shows, section by section, from what the commands wrote as JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from comparison.agreement.comparison import Agreement, NotCompared, Outcome
from comparison.report import figures
from comparison.report import timing_figures as speed_figures
from comparison.report.agreement_tables import agreement_notes, agreement_summary, agreement_table, plain_table
from comparison.report.page import Section
from comparison.report.timing_tables import crossover_sentence, number, seconds
from reference.training import Progress
from reference.two_layer_net import Params

Row = dict[str, Any]


def sections(found: dict[str, Any], units: Sequence[int], pictures: dict[str, np.ndarray], epoch: int) -> list[Section]:
    """Return the sections in their order.

    Parameters
    ----------
    found : dict
        What `agree`, `speed`, the sweeps over `hidden` and `batch`, and `train` wrote, and `errors_by_step`.
    units : sequence of U ints
        The hidden units of the pictures.
    pictures : dict
        (U, side, side) by backend.
    epoch : int
        Iterations of an epoch, for a training that has not come to the end of its first.
    """
    return [
        _ladder(found["speed"]),
        _agreement(found["agree"]),
        _errors(found["errors_by_step"]),
        *_pictures(units, pictures),
        *_training(found["train"], epoch),
        *(_size(found[over], over) for over in ("hidden", "batch")),
        *_break_even(found["speed"]),
    ]


def _ladder(speed: Row) -> Section:
    rows = speed["speed"]
    what = {"step": "training step", "gradient": "gradient", "run": "run"}[rows[0]["what"]] if rows else "step"
    sentence = (
        f"One {what} by strategy, on a logarithmic scale: from the chapter's loop down to collocated, which computes "
        "the same differences in about the time of the closed form."
    )
    samples = {row["strategy"]: row["estimated"] for row in rows if row["estimated"]}
    notes = [f"The time of {strategy} is estimated from {sample}." for strategy, sample in samples.items()]
    notes += [
        f"{row['backend']} {row['dtype']} {row['strategy']} was barred: {row['reason']}" for row in speed["barred"]
    ]
    figure = figures.svg(figures.one(speed_figures.ladder, rows, height=3.6)) if rows else None
    return Section("The ladder", sentence, figure, _speed_table(rows), [*notes, *_not_run(speed)])


def _not_run(result: Row) -> list[str]:
    return [f"{row['backend']} was not run: {row['reason']}" for row in result["not_run"]]


def _speed_table(rows: Sequence[Row]) -> Table:
    names = ("first call", "median", "95% interval", "x best", "x closed form", "cores", "peak", "error")
    table = plain_table(
        ("backend", "left"), ("dtype", "left"), ("strategy", "left"), *((name, "right") for name in names)
    )
    for row in rows:
        mark = "~" if row["estimated"] else ""
        low, high = row["interval_s"]
        ratios = (
            "-" if (ratio := row[key]) is None else number(ratio) for key in ("ratio_to_best", "ratio_to_closed_form")
        )
        peak = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:,.0f} MiB"
        times = (seconds(row["first_call_s"]), mark + seconds(row["median_s"]), f"{seconds(low)} to {seconds(high)}")
        rest = (*ratios, f"{row['cores_used']:.1f}", peak, f"{row['error']:.1e}")
        table.add_row(row["backend"], row["dtype"], row["strategy"], *times, *rest)
    return table


def _agreement(agree: Row) -> Section:
    outcome = Outcome(
        [Agreement(**row) for row in agree["agreement"]],
        [NotCompared(**row) for row in agree["not_compared"]],
        agree["not_run"],
        agree["crashed"],
    )
    sentence = (
        "Every quantity of every backend, by its distance from the float64 reference as a share of what rounding can "
        f"explain: all marks must lie left of the bound. {agreement_summary(outcome)}"
    )
    figure = figures.svg(figures.one(figures.agreement, agree["agreement"], height=3.4)) if agree["agreement"] else None
    return Section("Agreement", sentence, figure, agreement_table(outcome), agreement_notes(outcome))


def _errors(rows: Sequence[Row]) -> Section:
    sentence = (
        "Towards the right the truncation of the difference, which both have in common; towards the left the rounding "
        "of two losses, which grows as h falls and only loop has: collocated subtracts no losses, and has no left arm."
    )
    return Section(
        "The error by the step", sentence, figures.svg(figures.one(figures.step_errors, rows, height=3.8)), None
    )


def _pictures(units: Sequence[int], pictures: dict[str, np.ndarray]) -> Iterator[Section]:
    if pictures:
        sentence = (
            "The gradient of the weights that lead to some hidden units, as the images they look at, in each backend; "
            "below, what the others differ by from the first, on a scale of its own: rounding, and no pattern."
        )
        yield Section("The gradient itself", sentence, figures.svg(figures.pictures(units, pictures)), None)


def _training(runs: Sequence[Row], epoch: int) -> Iterator[Section]:
    if runs:
        sentence = (
            "The chapter's two figures, 4.5.2 and 4.5.3, one line for each run: all begin with the same net and see "
            "the same mini-batches, so the lines lie on each other."
        )
        ends = plain_table(
            ("backend", "left"), ("dtype", "left"), ("steps", "right"), ("train", "right"), ("test", "right")
        )
        for row in runs:
            last = row["accuracies"][-1]
            cells = (f"{len(row['losses']):,}", f"{last['train']:.4f}", f"{last['test']:.4f}")
            ends.add_row(row["backend"], row["dtype"], *cells)
        yield Section("Training", sentence, figures.svg(_training_figure(runs, epoch)), ends)


def _training_figure(runs: Sequence[Row], epoch: int) -> Figure:
    ends = {}
    _, first, *later = (row["iteration"] for row in runs[0]["accuracies"])  # at 0, each epoch, and the end
    epoch = first if later else epoch
    for row in runs:
        accuracies = np.array([tuple(each.values()) for each in row["accuracies"]])
        losses = np.array(row["losses"])
        ends[row["backend"], row["dtype"]] = Progress(len(losses), Params(*[np.empty(0)] * 4), losses, accuracies, {})
    with figures.style():
        return figures.training_figure(ends, epoch, stacked=True)


def _size(sweep: Row, over: str) -> Section:
    crossings = sweep["sweep"]["crossovers"]
    what = {"hidden": "the number of hidden units", "batch": "the size of the batch"}[over]
    ends = "where one overtakes another is marked" if crossings else "nobody overtakes another beyond doubt"
    sentence = f"How the time of one step grows with {what}, with its 95% interval as a band; {ends}."
    figure = figures.svg(figures.one(speed_figures.sizes, sweep["speed"], over, crossings)) if sweep["speed"] else None
    return Section(f"Time against {what}", sentence, figure, None, [crossover_sentence(row, over) for row in crossings])


def _break_even(speed: Row) -> Iterator[Section]:
    rows = [row for row in speed["speed"] if row["ranked"] and row["first_call_s"] is not None]
    rows = [row for row in rows if row["strategy"] == "collocated"] or rows
    if rows:
        sentence = (
            "What so many steps take in all with collocated: a backend that compiles starts late and catches up; the "
            "dots are where the lead changes."
        )
        yield Section("Break-even", sentence, figures.svg(figures.one(speed_figures.break_even, rows)), _totals(speed))


def _totals(speed: Row) -> Table | None:
    advice = [row for row in (speed["advice"], *speed["advice_for_other_dtypes"]) if row and row["break_even"]]
    table = plain_table(("steps", "right"), *((f"first in {row['dtype']}", "left") for row in advice))
    for rows in zip(*(row["break_even"] for row in advice), strict=True):
        cells = (f"{row['backend']} {row['strategy']}, {seconds(row['seconds'])}" for row in rows)
        table.add_row(f"{rows[0]['steps']:,}", *cells)
    return table if advice else None
