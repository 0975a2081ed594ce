"""`compare.py` without a command: agreement first, then speed, then the advice, on one screen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from comparison.commands import agree, benchmark
from comparison.commands.options import TimingOptions, add_comparison, new_command
from comparison.commands.output import make_console, print_sentences, write_json
from comparison.commands.subjects import load_data, load_subjects, make_problem

if TYPE_CHECKING:
    from comparison.agreement.comparison import Outcome


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        TimingOptions,
        help="agree, then speed, then the advice (the default command)",
        description="Compare every backend with the reference, time collocated where it agrees, and say which to take "
        "for a run of --iterations steps, for a short one, and for ever.",
        examples=(
            ("", "for the chapter's run, on the digits"),
            ("advise --data mnist --iterations 2000", "for 2,000 steps on MNIST"),
            ("advise --dtype float32 --threads 1", "in float32 on one core"),
        ),
    )
    add_comparison(parser)
    benchmark.add_timing(parser, budget=8.0)


def run(options: TimingOptions) -> int:
    """Compare, time, print, and return the exit code."""
    benchmark.check_timing(options)
    benchmark.prepare_process(options.threads)
    from comparison.timing.starts import measure_start

    data = load_data(options, quiet=options.quiet)
    problem = make_problem(options, data, options.strategy)
    subjects, not_run = load_subjects(options, workers=True)
    timed = replace(options, strategy=("collocated",) if "collocated" in options.strategy else options.strategy)
    task = benchmark.make_task(options, problem, data)
    outcome = agree.compare_all(options, subjects, problem)._replace(not_run=not_run)
    if options.prints:
        _print_agreement(options, outcome)
    field = benchmark.prepare(timed, subjects, task, outcome, start=measure_start)
    ranking = benchmark.time_and_rank(options, field, not_run)
    if options.json:
        write_json(options.json, "advise", options, agree.as_json(outcome) | ranking.as_json())
    if options.prints:
        benchmark.print_ranking(options, ranking)
    agree.report_to_github(outcome, subjects)
    return agree.exit_code(outcome) or benchmark.crash_code(field)


def _print_agreement(options: TimingOptions, outcome: Outcome) -> None:
    from comparison.report.agreement_tables import agreement_notes, agreement_summary, backends_table

    console = make_console()
    print_sentences(console, agree.heading(options))
    console.print(backends_table(outcome, console.width))
    print_sentences(console, *agreement_notes(outcome), agreement_summary(outcome), "")
