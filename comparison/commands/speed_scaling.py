"""`compare.py speed --devices 1,2,4`: how the time of a step changes with the number of devices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from comparison.commands import processes
from comparison.commands.agree import compare_all, exit_code
from comparison.commands.benchmark import make_task
from comparison.commands.output import make_console, print_sentences, status, write_json
from comparison.commands.subjects import load_subjects

if TYPE_CHECKING:
    from comparison.agreement.bounds import Problem
    from comparison.agreement.comparison import Outcome, Subject
    from comparison.commands.options import SpeedOptions
    from comparison.timing.scaling import Point, Runs
    from reference.datasets import Dataset


def time_scaling(options: SpeedOptions, counts: tuple[int, ...], data: Dataset, problem: Problem) -> int:
    """Time steps on each number of devices, print, and return the exit code."""
    from comparison.timing.rank_calls import repeat_calls
    from comparison.timing.ranking import sizes_of
    from comparison.timing.scaling import make_runs, on_devices

    processes.check_same("data", data)
    subjects, not_run = load_subjects(replace(options, devices=counts[-1]))
    subjects, unscalable = _scalable(subjects)
    task = make_task(options, problem, data)
    placed = [[on_devices(subject, count) for count in counts] for subject in subjects]
    here = [subject for row in placed for subject in row if subject]
    outcome = compare_all(options, here, problem, data_only=True)._replace(not_run=not_run + unscalable)
    runs = [
        make_runs(subject, strategy, counts, row, task)
        for subject, row in zip(subjects, placed, strict=True)
        for strategy in options.strategy
    ]
    if not processes.is_first():
        repeat_calls(processes.gather, [train for run in runs for train in run.all])
        return int(processes.gather(None)[0])
    curves, excluded = _measure(options, runs, outcome)
    if options.json:
        rows = [point.as_json() | {"sizes": sizes_of(problem)} for curve in curves for point in curve]
        results = {"scaling": rows, "excluded": excluded, "not_run": outcome.not_run}
        write_json(options.json, "speed", options, results)
    if options.prints:
        _print(options, counts, curves, excluded, outcome, problem)
    return int(processes.gather(exit_code(outcome))[0])


def _scalable(subjects: list[Subject]) -> tuple[list[Subject], list[dict[str, str]]]:
    """Return the subjects whose port runs on some of its devices, and in all ranks; rows for the others."""
    from ports.protocol import DistributedPort

    ranks = processes.count()
    reason = "in ranks of torchrun" if ranks > 1 else "on a part of its devices"
    scalable: list[Subject] = []
    names: dict[str, None] = {}
    for subject in subjects:
        port: Any = subject.port
        if isinstance(port, DistributedPort) and len(port.gather(None)) == ranks:
            scalable.append(subject)
        else:
            names[subject.name] = None
    rows = [{"backend": name, "reason": f"it does not run {reason}."} for name in names]
    if not scalable:
        raise ValueError("Nothing to time: " + " ".join(f"{row['backend']}: {row['reason']}" for row in rows))
    return scalable, rows


def _measure(
    options: SpeedOptions, runs: list[Runs], outcome: Outcome
) -> tuple[list[list[Point]], list[dict[str, Any]]]:
    """Time the runs that agree on every number of devices; return their curves, and a row for each other."""
    import numpy as np

    from comparison.timing.rank_calls import broadcast_calls, end_calls
    from comparison.timing.ranking import exclusion
    from comparison.timing.rounds import take_rounds
    from comparison.timing.scaling import first_steps_and_clock, scaling_curve, sent_each_step

    trains = iter(broadcast_calls(processes.gather, [train for run in runs for train in run.all]))
    curves, excluded = [], []
    budget = options.budget / len(runs)
    for run in runs:
        own = [next(trains) for _ in run.all]
        keys = [(where.name, run.strategy, where.dtype, where.device) for where in run.placed if where]
        if wrong := [row for key in keys if (row := exclusion(key, outcome))]:
            excluded += wrong
            continue
        text = f"timing {run.subject.name} {run.strategy} {run.subject.dtype} for {budget:g} s"
        with status(text, quiet=options.quiet):
            clocks = [first_steps_and_clock(train) for train in own]
            sent = [sent_each_step(where, train) for where, train in zip(run.placed, own, strict=False)]
            rounds = take_rounds(clocks, budget, np.random.default_rng(options.seed))
        curves.append(scaling_curve(run, options.batch, sent, rounds))
    end_calls(processes.gather)
    return curves, excluded


def _print(
    options: SpeedOptions,
    counts: tuple[int, ...],
    curves: list[list[Point]],
    excluded: list[dict[str, Any]],
    outcome: Outcome,
    problem: Problem,
) -> None:
    from comparison.report.agreement_tables import headings
    from comparison.report.scaling_tables import scaling_notes, scaling_table
    from comparison.report.timing_tables import missing_notes
    from comparison.timing.ranking import sizes_in_words
    from comparison.timing.scaling import advise_devices

    console = make_console()
    devices = ", ".join(map(str, counts))
    print_sentences(console, f"a training step, {options.data}, {sizes_in_words(problem)}, on {devices} devices")
    table = scaling_table(curves, console.width)
    if curves:
        console.print(table)
    print_sentences(console, *scaling_notes(curves, headings(table)), *missing_notes(excluded, outcome.not_run))
    print_sentences(console, *(f"\n{advise_devices(curve)}" for curve in curves))
