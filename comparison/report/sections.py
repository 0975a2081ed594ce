"""What the report says and shows, section by section, from what the commands wrote as JSON."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from comparison.agreement.comparison import Agreement, NotCompared, Outcome
from comparison.report import agreement_figures, figures, timing_figures
from comparison.report.agreement_tables import agreement_notes, agreement_summary, agreement_table, plain_table
from comparison.report.figures import Row
from comparison.report.page import Section
from comparison.report.timing_tables import break_even_table, crossover_sentence, number, seconds
from comparison.report.training_figure import Curves, training_figure


def sections(
    results: dict[str, Any], units: Sequence[int], pictures: dict[str, np.ndarray], epoch: int
) -> list[Section]:
    """Build the sections in their order.

    Parameters
    ----------
    results : dict
        What `agree`, `speed`, the sweeps over `hidden` and `batch`, and `train` wrote, and `errors_by_step`.
    units : sequence of U ints
        The hidden units of the pictures.
    pictures : dict
        (U, side, side) by backend.
    epoch : int
        Iterations of an epoch, for a training that ends before its first epoch does.
    """
    return [
        _ladder(results["speed"]),
        _agreement(results["agree"]),
        _step_errors(results["errors_by_step"]),
        *_pictures(units, pictures),
        *_training(results["train"], epoch),
        *(_sizes(results[over], over) for over in ("hidden", "batch")),
        *_break_even(results["speed"]),
    ]


def _svg(draw: Callable[..., None], *arguments: Any, height: float = 3.4) -> str:
    return figures.svg(figures.single_figure(draw, *arguments, height=height))


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
        f"{row['backend']} {row['dtype']} {row['strategy']} was excluded: {row['reason']}" for row in speed["excluded"]
    ]
    notes += [f"{row['backend']} was not run: {row['reason']}" for row in speed["not_run"]]
    figure = _svg(timing_figures.draw_ladder, rows, height=3.6) if rows else None
    return Section("The ladder", sentence, figure, _speed_table(rows), notes)


def _speed_table(rows: Sequence[Row]) -> Table:
    numbers = ("first call", "median", "95% interval", "x best", "x closed form", "cores", "peak", "error")
    names = ("backend", "dtype", "strategy")
    table = plain_table(*((name, "left") for name in names), *((name, "right") for name in numbers))
    for row in rows:
        mark = "~" if row["estimated"] else ""
        low, high = row["interval_s"]
        ratios = (
            "-" if (ratio := row[key]) is None else number(ratio) for key in ("ratio_to_best", "ratio_to_closed_form")
        )
        peak = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:,.0f} MiB"
        times = (seconds(row["first_call_s"]), mark + seconds(row["median_s"]), f"{seconds(low)} to {seconds(high)}")
        rest = (*ratios, f"{row['cores_used']:.1f}", peak, f"{row['error']:.1e}")
        table.add_row(*(row[name] for name in names), *times, *rest)
    return table


def _agreement(agree: Row) -> Section:
    rows = agree["agreement"]
    outcome = Outcome(
        [Agreement(**row) for row in rows],
        [NotCompared(**row) for row in agree["not_compared"]],
        agree["not_run"],
        agree["crashed"],
    )
    sentence = (
        "Every quantity of every backend, by its distance from the float64 reference as a share of what rounding can "
        f"explain: all marks must lie left of the bound. {agreement_summary(outcome)}"
    )
    figure = _svg(agreement_figures.draw_agreement, rows) if rows else None
    return Section("Agreement", sentence, figure, agreement_table(outcome), agreement_notes(outcome))


def _step_errors(rows: Sequence[Row]) -> Section:
    sentence = (
        "Towards the right the truncation of the difference, which both have in common; towards the left the rounding "
        "of two losses, which grows as h falls and only loop has: collocated subtracts no losses, and has no left arm."
    )
    figure = _svg(agreement_figures.draw_step_errors, rows, height=3.8)
    return Section("The error by the step", sentence, figure, None)


def _pictures(units: Sequence[int], pictures: dict[str, np.ndarray]) -> Iterator[Section]:
    if pictures:
        sentence = (
            "The gradient of the weights that lead to some hidden units, as the images they look at, in each backend; "
            "below, what the others differ by from the first, on a scale of its own: rounding, and no pattern."
        )
        figure = figures.svg(agreement_figures.gradient_pictures(units, pictures))
        yield Section("The gradient itself", sentence, figure, None)


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
    _, first, *later = (row["iteration"] for row in runs[0]["accuracies"])  # at 0, each epoch, and the end
    curves = {
        (row["backend"], row["dtype"]): Curves(
            np.array(row["losses"]), np.array([tuple(entry.values()) for entry in row["accuracies"]])
        )
        for row in runs
    }
    with figures.style():
        return training_figure(curves, first if later else epoch, stacked=True)


def _sizes(sweep: Row, over: str) -> Section:
    rows, crossings = sweep["speed"], sweep["sweep"]["crossovers"]
    what = {"hidden": "the number of hidden units", "batch": "the size of the batch"}[over]
    ends = "where one overtakes another is marked" if crossings else "nobody overtakes another beyond doubt"
    sentence = f"How the time of one step grows with {what}, with its 95% interval as a band; {ends}."
    figure = _svg(timing_figures.draw_sizes, rows, over, crossings) if rows else None
    return Section(f"Time against {what}", sentence, figure, None, [crossover_sentence(row, over) for row in crossings])


def _break_even(speed: Row) -> Iterator[Section]:
    rows = [row for row in speed["speed"] if row["ranked"] and row["first_call_s"] is not None]
    rows = [row for row in rows if row["strategy"] == "collocated"] or rows
    if rows:
        sentence = (
            "The total time of the steps with collocated: a backend that compiles starts late and catches up; the dots "
            "are where the lead changes."
        )
        table = break_even_table((speed["advice"], *speed["advice_for_other_dtypes"]))
        yield Section("Break-even", sentence, _svg(timing_figures.draw_break_even, rows), table)
