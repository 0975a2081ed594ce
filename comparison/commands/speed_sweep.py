"""`compare.py speed --sweep`: the same timing over sizes, and where one backend overtakes another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES, benchmark
from comparison.commands.agree import compare_all, exit_code
from comparison.commands.output import make_console, print_sentences, write_json
from comparison.commands.speed_self_check import check_fields
from comparison.commands.subjects import make_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comparison.agreement.bounds import Problem
    from comparison.agreement.comparison import Subject
    from comparison.commands.options import SpeedOptions
    from comparison.timing.ranking import Field, Ranking
    from reference.datasets import Dataset

SIZES = {
    "hidden": (10, 25, 50, 100, 200, 400),
    "batch": (10, 30, 100, 300, 1000),
    "inputs": (16, 64, 256, 784),
    "outputs": (2, 10, 62, 250, 1000),
}
AGREEMENT_COST = 20_000_000
"""Samples x inputs x hidden units x outputs that agreement is computed from, at all sizes but the first."""


def sweep(
    options: SpeedOptions, over: str, data: Dataset, subjects: list[Subject], not_run: list[dict[str, str]]
) -> int:
    """Rank at each size, print, and return the exit code; only the first size is compared in all cases."""
    from comparison.timing.crossovers import Swept, count_comparisons, crossovers, fastest_by_size
    from reference.defaults import CLOSED_FORM

    sizes, notes = _sizes_within(options.sizes, over, data)
    ranked = [(s.name, strategy, s.dtype) for s in subjects for strategy in options.strategy if strategy != CLOSED_FORM]
    comparisons = max(1, count_comparisons(ranked, len(sizes)))
    at_size = replace(options, budget=options.budget / len(sizes) / (2 if options.self_check else 1))
    rankings: list[Ranking] = []
    fields: list[Field] = []
    code = AGREES
    for size in sizes:
        at_size, data_of_size = _of_size(at_size, over, size, data)
        problem = make_problem(at_size, data_of_size, options.strategy)
        task = benchmark.make_task(at_size, problem, data_of_size, redrawn=data_of_size is not data)
        if options.self_check:
            fields.append(benchmark.prepare(at_size, subjects, task, None, comparisons=comparisons))
            continue
        compared = _few_samples(problem) if rankings else problem
        limit = None if rankings else options.budget / 2
        outcome = compare_all(at_size, subjects, compared, data_only=bool(rankings), limit=limit)
        outcome = outcome._replace(not_run=not_run)
        field = benchmark.prepare(at_size, subjects, task, outcome, comparisons=comparisons)
        rankings.append(benchmark.time_and_rank(at_size, field, not_run))
        code = max(code, exit_code(outcome), benchmark.crash_code(field))
    if options.self_check:
        return check_fields(options, fields)
    swept = [Swept(n, r.timings, r.rounds.seconds) for n, r in zip(sizes, rankings, strict=True) if r.rounds]
    no_winner = next((ranking.no_winner for ranking in rankings if ranking.no_winner), None)
    fastest = [] if no_winner else fastest_by_size(swept, comparisons)
    crossings = [] if no_winner else crossovers(swept, comparisons)
    if options.json:
        results = {"fastest": fastest, "crossovers": crossings, "no_winner": no_winner}
        about = {"over": over, "sizes": sizes, "left_out": notes, "labels": LABELS if over == "outputs" else None}
        write_json(options.json, "speed", options, _records(rankings) | {"sweep": about | results})
    if options.prints:
        _print(
            options, over, sizes, rankings, notes, [no_winner] if no_winner else _sentences(over, fastest, crossings)
        )
    return code


LABELS = "drawn at random, so the times mean something and the losses do not"
"""Those of a sweep over outputs."""


def _records(rankings: Sequence[Ranking]) -> dict[str, Any]:
    """Return the last ranking as JSON records it, with the rows of all sizes."""
    records = [ranking.as_json() for ranking in rankings]
    names = ("speed", "excluded", "left_out")
    return records[-1] | {name: [row for record in records for row in record[name]] for name in names}


def _of_size(options: SpeedOptions, over: str, size: int, data: Dataset) -> tuple[SpeedOptions, Dataset]:
    """Return the options and the data of a size."""
    if over == "inputs":
        return options, _with_inputs(data, size, options.seed)
    if over == "outputs":
        return options, _with_classes(data, size, options.seed)
    change: dict[str, Any] = {over: size}
    return replace(options, **change), data


def _few_samples(problem: Problem) -> Problem:
    """Return the problem with so few samples that its agreement is soon computed."""
    params, x, t = problem
    samples = max(1, min(len(t), AGREEMENT_COST // (params.W1.size * len(params.b2))))
    return problem._replace(x=x[:samples], t=t[:samples])


def _sizes_within(given: Sequence[int] | None, over: str, data: Dataset) -> tuple[Sequence[int], list[str]]:
    """Return the sizes that the data are enough for, and a note on those that are left out.

    Of the sizes by default, all samples take the place where none is left; of those given, the first is refused later.
    """
    samples, sizes = len(data.x_train), given or SIZES[over]
    within = [size for size in sizes if over not in ("batch", "outputs") or size <= samples]
    left_out = ", ".join(str(size) for size in sizes if size not in within)
    notes = [f"{over} {left_out}: left out, since the data have {samples:,} samples."] if left_out else []
    if over == "outputs":
        notes.append(f"The labels are {LABELS}.")
    return within or given or [samples], notes


def _with_classes(data: Dataset, count: int, seed: int) -> Dataset:
    """Return the data with labels drawn from this number of classes, each of which some sample has."""
    import numpy as np

    if not 2 <= count <= len(data.x_train):
        raise ValueError(f"`sizes` must be from 2 to {len(data.x_train):,}, the number of samples, got {count}.")
    rng = np.random.default_rng(seed)
    train, test = (rng.permutation(np.arange(len(t)) % count) for t in (data.t_train, data.t_test))
    return data._replace(t_train=train, t_test=test)


def _with_inputs(data: Dataset, count: int, seed: int) -> Dataset:
    """Return the data with `count` columns drawn from its own, so that the share of zeros stays."""
    import numpy as np

    columns = np.random.default_rng(seed).integers(0, data.x_train.shape[1], count)
    return data._replace(x_train=data.x_train[:, columns], x_test=data.x_test[:, columns])


def _sentences(over: str, fastest: list[dict[str, Any]], crossings: list[dict[str, Any]]) -> list[str]:
    from comparison.report.timing_tables import crossover_sentence, fastest_sentences

    overtaking = [crossover_sentence(row, over) for row in crossings]
    return [
        *fastest_sentences(fastest, over),
        *(overtaking or ["No contender overtakes another beyond doubt in this range."]),
    ]


def _left_out(over: str, sizes: Sequence[int], rankings: Sequence[Ranking]) -> list[str]:
    """Say for each contender at which sizes it was left out, and why at the last of them."""
    at: dict[str, list[int]] = {}
    reasons: dict[str, str] = {}
    for size, ranking in zip(sizes, rankings, strict=True):
        for row in ranking.left_out:
            name = f"{row['backend']} {row['dtype']} {row['strategy']}"
            at.setdefault(name, []).append(size)
            reasons[name] = row["reason"]
    return [
        f"left out at {over} {', '.join(f'{size:,}' for size in at[name])}: {name}: {reason}"
        for name, reason in reasons.items()
    ]


def _print(
    options: SpeedOptions,
    over: str,
    sizes: Sequence[int],
    rankings: list[Ranking],
    notes: list[str],
    sentences: list[str],
) -> None:
    from comparison.report.timing_tables import data_only_notes, estimate_notes, missing_notes, number, sweep_tables

    console = make_console()
    print_sentences(console, f"median time of a {options.what}, {options.data}, by {over}")
    for table in sweep_tables(sizes, [ranking.timings for ranking in rankings], console.width):
        console.print(table)
    for ranking in rankings:
        notes += estimate_notes((t.contender.strategy, t.contender.estimated) for t in ranking.timings)
        notes += data_only_notes(ranking.data_only)
        notes += missing_notes(ranking.excluded, ranking.not_run)
    notes += _left_out(over, sizes, rankings)
    notes.append(
        f"The timing took {number(sum(r.seconds for r in rankings))} s of --budget {options.budget:g}, and "
        f"{number(sum(r.preparation_s for r in rankings))} s besides went into agreement, compilation and estimates."
    )
    print_sentences(console, *dict.fromkeys(notes))
    print_sentences(console, *sentences, style="bold")
