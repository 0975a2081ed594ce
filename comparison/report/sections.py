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
from comparison.report.step_study import Pictures
from comparison.report.timing_tables import break_even_table, crossover_sentence, estimate_notes, number, seconds
from comparison.report.training_figure import Curves, training_figure
from reference.defaults import H


def verdict(agree: Row) -> tuple[str, bool]:
    """Return the verdict on agreement in a sentence, and whether all agree."""
    outcome = _outcome(agree)
    return (agreement_summary(outcome) if outcome.rows else "Nothing was compared."), outcome.agrees


def sections(results: dict[str, Any], pictures: Pictures, epoch: int) -> list[Section]:
    """Build the sections in their order.

    Parameters
    ----------
    results : dict
        What `agree`, `speed`, the sweeps over `hidden` and `batch`, and `train` wrote, and `errors_by_step`.
    pictures : Pictures
    epoch : int
        Iterations of an epoch, for a training that ends before its first epoch does.
    """
    return [
        _ladder(results["speed"]),
        _agreement(results["agree"]),
        _step_errors(results["errors_by_step"]),
        *_pictures(pictures),
        *_training(results["train"], epoch),
        *(_sizes(results[over], over) for over in ("hidden", "batch")),
        *_break_even(results["speed"]),
    ]


def _svg(draw: Callable[..., None], *arguments: Any, height: float = 3.4) -> str:
    return figures.svg(figures.single_figure(draw, *arguments, height=height))


def _ladder(speed: Row) -> Section:
    rows = speed["speed"]
    what = {"step": "training step", "gradient": "gradient", "run": "run"}[rows[0]["what"]] if rows else "step"
    sentence = f"One {what} by strategy.{_price(rows)}"
    notes = estimate_notes((row["strategy"], row["estimated"]) for row in rows)
    notes += [
        f"{row['backend']} {row['dtype']} {row['strategy']} was left out: {row['reason']}"
        for row in speed.get("left_out", [])
    ]
    notes += [
        f"{row['backend']} {row['dtype']} {row['strategy']} was excluded: {row['reason']}" for row in speed["excluded"]
    ]
    notes += [f"{row['backend']} was not run: {row['reason']}" for row in speed["not_run"]]
    figure = _svg(timing_figures.draw_ladder, rows, height=3.6) if rows else None
    return Section("The ladder", sentence, figure, _speed_table(rows), notes, "The axis is logarithmic.")


def _price(rows: Sequence[Row]) -> str:
    """Say how collocated compares with the closed form, where both were timed."""
    priced = [row for row in rows if row["strategy"] == "collocated" and row["ratio_to_closed_form"] is not None]
    if not priced:
        return ""
    prices = [number(ratio) for ratio in sorted(row["ratio_to_closed_form"] for row in priced)]
    backends = ", ".join(dict.fromkeys(row["backend"] for row in priced))
    return (
        f" Collocated takes {_range(prices)} times as long as the closed form, backpropagation, of the same backend "
        f"({backends})."
    )


def _range(sorted_texts: Sequence[str]) -> str:
    """Return "least to largest", or the one where they read the same."""
    least, largest = sorted_texts[0], sorted_texts[-1]
    return least if least == largest else f"{least} to {largest}"


def _speed_table(rows: Sequence[Row]) -> Table:
    numbers = ("first call", "median", "95% interval", "x best", "x closed form", "cores", "peak", "error")
    names = ("backend", "dtype", "strategy")
    table = plain_table(*((name, "left") for name in names), *((name, "right") for name in numbers))
    backends, dtypes = (list(dict.fromkeys(row[key] for row in rows)) for key in ("backend", "dtype"))
    rank = {strategy: n for n, strategy in enumerate(figures.LADDER)}
    for row in sorted(
        rows, key=lambda row: (dtypes.index(row["dtype"]), backends.index(row["backend"]), rank[row["strategy"]])
    ):
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


def _outcome(agree: Row) -> Outcome:
    return Outcome(
        [Agreement(**row) for row in agree["agreement"]],
        [NotCompared(**row) for row in agree["not_compared"]],
        agree["not_run"],
        agree["crashed"],
    )


def _agreement(agree: Row) -> Section:
    rows, outcome = agree["agreement"], _outcome(agree)
    sentence = (
        "Every quantity of every backend: its gap to the float64 reference as a share of its bound, which is what "
        "rounding can explain."
    )
    figure = _svg(agreement_figures.draw_agreement, rows, height=3.8) if rows else None
    notes = agreement_notes(outcome)
    return Section("Agreement", sentence, figure, agreement_table(outcome), notes, "What lies left of 1 agrees.")


def _step_errors(rows: Sequence[Row]) -> Section:
    sentence = (
        "The error against the derivative: towards large h the truncation of the difference, towards small h the "
        "rounding of the two losses."
    )
    at_chapter = []
    for row in rows:
        nearest = min(row["steps"], key=lambda h: abs(np.log(h / H)))
        if np.isclose(nearest, H):
            error = row["errors"][row["steps"].index(nearest)]
            at_chapter.append(f"{row['strategy']} {error:.0e} in {row['dtype']}")
    note = [f"At the chapter's h = {H:g}: {', '.join(at_chapter)}."] if at_chapter else []
    figure = _svg(agreement_figures.draw_step_errors, rows, height=4.0)
    return Section("The error by the step", sentence, figure, None, note)


def _pictures(pictures: Pictures) -> Iterator[Section]:
    if pictures.images:
        first, *others = pictures.images
        notes = []
        base = pictures.images[first]
        if others and (scale := np.abs(base).max()):
            worst = max(np.abs(pictures.images[name] - base).max() for name in others) / scale
            notes = [f"The other backends differ from {first} by at most {worst:.0e} of its largest entry."]
        figure = figures.svg(agreement_figures.gradient_pictures(pictures.units, pictures.images))
        sentence, caption = "The gradient of W1.", "Weights that lead to some hidden units, as the images they look at."
        yield Section("The gradient itself", sentence, figure, None, notes, caption)


def _training(runs: Sequence[Row], epoch: int) -> Iterator[Section]:
    if not runs:
        yield Section("Training", "No run came to its end: each of them diverged or crashed.", None, None)
    else:
        ends = plain_table(
            ("backend", "left"), ("dtype", "left"), ("steps", "right"), ("training", "right"), ("test", "right")
        )
        for row in runs:
            last = row["accuracies"][-1]
            cells = (f"{len(row['losses']):,}", f"{last['train']:.4f}", f"{last['test']:.4f}")
            ends.add_row(row["backend"], row["dtype"], *cells)
        tests = sorted(row["accuracies"][-1]["test"] for row in runs)
        sentence = (
            "All runs begin with the same net and see the same mini-batches; at the end they are right on "
            f"{_range([f'{share:.1%}' for share in tests])} of the test set."
        )
        caption = "The figures of the chapter's sections 4.5.2 and 4.5.3."
        yield Section("Training", sentence, figures.svg(_training_figure(runs, epoch)), ends, caption=caption)


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
    sentence = f"How the time of one step grows with {what}."
    notes = [*_who_overtakes(sweep, over), *_left_out(sweep, over)]
    lines = "; a dotted line is where one overtakes another" if crossings else ""
    caption = f"A band is the 95% interval{lines}."
    figure = _svg(timing_figures.draw_sizes, rows, over, crossings) if rows else None
    return Section(f"Time against {what}", sentence, figure, None, notes, caption)


def _who_overtakes(sweep: Row, over: str) -> list[str]:
    results, backends = sweep["sweep"], sorted({row["backend"] for row in sweep["speed"]})
    if results.get("no_winner"):
        return [results["no_winner"]]
    if len(backends) < 2:
        return [f"Only {backends[0]} was timed." if backends else "Nothing was timed."]
    return [crossover_sentence(row, over) for row in results["crossovers"]] or [
        "Nobody overtakes another beyond doubt."
    ]


def _left_out(sweep: Row, over: str) -> list[str]:
    """Name the sizes at which a contender was left out, all of them in one sentence."""
    keys = ("backend", "dtype", "strategy")
    timed = {(*(row[key] for key in keys), row["sizes"][over]) for row in sweep["speed"]}
    missing = []
    for name in dict.fromkeys(tuple(row[key] for key in keys) for row in sweep.get("left_out", [])):
        sizes = [f"{size:,}" for size in sweep["sweep"]["sizes"] if (*name, size) not in timed]
        missing.append(f"{' '.join(name)} at {', '.join(sizes)}")
    return [f"Left out, for want of --budget: {'; '.join(missing)}."] if missing else []


def _break_even(speed: Row) -> Iterator[Section]:
    rows = [row for row in speed["speed"] if row["ranked"] and row["first_call_s"] is not None]
    rows = [row for row in rows if row["strategy"] == "collocated"] or rows
    if rows:
        changes = timing_figures.lead_changes(rows)
        several = len({row["backend"] for row in rows}) > 1
        unchanged = "The lead never changes." if several else ""
        caption = "A dot is where another takes the lead." if any(changes.values()) else unchanged
        sentence = "The total time by the number of training steps, the first call included."
        table = break_even_table((speed["advice"], *speed["advice_for_other_dtypes"]))
        yield Section("Break-even", sentence, _svg(timing_figures.draw_break_even, rows), table, caption=caption)
