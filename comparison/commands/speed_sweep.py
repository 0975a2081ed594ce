"""`compare.py speed --sweep`: the same timing over sizes, and where one backend overtakes another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES, benchmark
from comparison.commands.agree import compare_all, exit_code
from comparison.commands.output import make_console, print_sentences, write_json
from comparison.commands.subjects import make_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comparison.agreement.comparison import Subject
    from comparison.commands.options import SpeedOptions
    from comparison.timing.ranking import Ranking
    from reference.datasets import Dataset

SIZES = {
    "hidden": (10, 25, 50, 100, 200, 400),
    "batch": (10, 30, 100, 300, 1000),
    "inputs": (16, 64, 256, 784),
}


def sweep(
    options: SpeedOptions, over: str, data: Dataset, subjects: list[Subject], not_run: list[dict[str, str]]
) -> int:
    """Rank at each size, print, and return the exit code; only the first size is compared in all cases."""
    from comparison.timing.crossovers import crossovers

    sizes, notes = _sizes_within(options.sizes or SIZES[over], over, data)
    options_of_size = replace(options, budget=options.budget / len(sizes))
    rankings: list[Ranking] = []
    code = AGREES
    for size in sizes:
        data_of_size = _with_inputs(data, size, options.seed) if over == "inputs" else data
        change: dict[str, Any] = {} if over == "inputs" else {over: size}
        options_of_size = replace(options_of_size, **change)
        problem = make_problem(options_of_size, data_of_size, options.strategy)
        task = benchmark.make_task(options_of_size, problem, data_of_size)
        calls = benchmark.make_first_calls(options_of_size, subjects, task, peer=options.peer)
        outcome = compare_all(options_of_size, subjects, problem, data_only=bool(rankings))._replace(not_run=not_run)
        rankings.append(benchmark.rank_agreeing(options_of_size, calls, outcome))
        code = max(code, exit_code(outcome), benchmark.crash_code(calls))
    crossings = crossovers(sizes, [ranking.timings for ranking in rankings])
    if options.json:
        records = [ranking.as_json() for ranking in rankings]
        rows = {"speed": [row for record in records for row in record["speed"]]}
        swept = {"sweep": {"over": over, "sizes": sizes, "left_out": notes, "crossovers": crossings}}
        write_json(options.json, "speed", options, records[-1] | rows | swept)
    if options.prints:
        _print(options, over, sizes, rankings, crossings, notes)
    return code


def _sizes_within(sizes: Sequence[int], over: str, data: Dataset) -> tuple[Sequence[int], list[str]]:
    """Return the sizes that the data are enough for, and a note on those that are left out."""
    samples = len(data.x_train)
    within = [size for size in sizes if over != "batch" or size <= samples]
    left_out = ", ".join(str(size) for size in sizes if size not in within)
    notes = [f"{over} {left_out}: left out, since the data have {samples:,} samples."] if left_out else []
    return (within or sizes), notes  # if none is left, the first one is refused with its rule


def _with_inputs(data: Dataset, count: int, seed: int) -> Dataset:
    """Return the data with `count` columns drawn from its own, so that the share of zeros stays."""
    import numpy as np

    columns = np.random.default_rng(seed).integers(0, data.x_train.shape[1], count)
    return data._replace(x_train=data.x_train[:, columns], x_test=data.x_test[:, columns])


def _print(
    options: SpeedOptions,
    over: str,
    sizes: Sequence[int],
    rankings: list[Ranking],
    crossings: list[dict[str, Any]],
    notes: list[str],
) -> None:
    from comparison.report.timing_tables import crossover_sentence, missing_notes, speed_notes, sweep_table

    console = make_console()
    print_sentences(console, f"median time of a {options.what}, {options.data}, by {over}")
    console.print(sweep_table(sizes, [ranking.timings for ranking in rankings]))
    notes += [note for r in rankings for note in (*speed_notes(r.timings), *missing_notes(r.excluded, r.not_run))]
    sentences = [crossover_sentence(row, over) for row in crossings]
    print_sentences(console, *dict.fromkeys(notes))
    print_sentences(console, *(sentences or ["No contender overtakes another beyond doubt in this range."]))
