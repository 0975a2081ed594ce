"""`compare.py agree`: compare every backend with the float64 reference."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES, CRASHED, DISAGREES, processes
from comparison.commands.options import ComparisonOptions, add_comparison, new_command
from comparison.commands.output import is_terminal, make_console, print_sentences, write_json
from comparison.commands.subjects import load_subjects, make_problem
from reference.defaults import CLOSED_FORM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from comparison.agreement.bounds import Problem
    from comparison.agreement.comparison import Outcome, Subject


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        ComparisonOptions,
        help="compare predictions, losses, accuracy and gradients with the float64 reference",
        description="Compare every backend x strategy x dtype with the float64 reference, within derived bounds, "
        "on the data at the step h, and on other small nets.",
    )
    add_comparison(parser)


def run(options: ComparisonOptions) -> int:
    """Compare, print, and return the exit code."""
    from reference.datasets import load

    data = load(options.data, seed=options.seed)
    problem = make_problem(options, data, options.strategy)
    processes.check_same("data", data)
    subjects, not_run = load_subjects(options)
    with one_thread():
        outcome = compare_all(options, subjects, problem)._replace(not_run=not_run)
    if options.json:
        write_json(options.json, "agree", options, as_json(outcome))
    if options.prints:
        _print(options, outcome)
    report_to_github(outcome)
    return exit_code(outcome)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch, if it is loaded, use one thread: for small nets its threads only wait, on the processor."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    try:
        if torch:
            torch.set_num_threads(1)
        yield
    finally:
        if torch:
            torch.set_num_threads(before)


def compare_all(
    options: ComparisonOptions, subjects: list[Subject], problem: Problem, *, data_only: bool = False
) -> Outcome:
    """Compare each subject, in all cases or only on the data; an error that it raises is recorded as a crash."""
    from rich.console import Console
    from rich.progress import track

    from comparison.agreement.cases import check_data_only, check_subject
    from comparison.agreement.comparison import Agreement, Outcome
    from ports.registry import describe_error

    check = check_data_only if data_only else check_subject
    strategies = tuple(strategy for strategy in options.strategy if strategy != CLOSED_FORM)  # always compared
    outcome = Outcome([], [], [], [])
    stderr = Console(stderr=True)
    shown = is_terminal(stderr) and not options.quiet
    for subject in track(subjects, "comparing", console=stderr, transient=True) if shown else subjects:
        try:
            for row in check(subject, problem, strategies, h=options.h, memory=options.memory, seed=options.seed):
                if isinstance(row, Agreement):
                    outcome.rows.append(row)
                else:
                    outcome.not_compared.append(row)
        except (ConnectionAbortedError, BrokenPipeError):  # the other ranks, or whoever reads, are gone
            raise
        except Exception as error:  # a port may fail in any way: it is reported, and the exit code says so
            reason = describe_error(error, subject.source)
            crash = {"backend": subject.name, "dtype": subject.dtype, "reason": reason}
            outcome.crashed.append(crash)
    return outcome


def exit_code(outcome: Outcome) -> int:
    """Return the exit code of a comparison."""
    return CRASHED if outcome.crashed else AGREES if outcome.agrees else DISAGREES


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return a comparison as JSON records it."""
    from dataclasses import asdict

    return {
        "agreement": [asdict(row) for row in outcome.rows],
        "not_compared": [row._asdict() for row in outcome.not_compared],
        "not_run": outcome.not_run,
        "crashed": outcome.crashed,
        "agrees": outcome.agrees,
    }


def _print(options: ComparisonOptions, outcome: Outcome) -> None:
    from comparison.report.agreement_tables import UNSEEN, agreement_notes, agreement_summary, agreement_table

    console = make_console()
    print_sentences(console, heading(options))
    console.print(agreement_table(outcome))
    print_sentences(console, "", *agreement_notes(outcome), agreement_summary(outcome), UNSEEN)


def heading(options: ComparisonOptions) -> str:
    """Describe the problem of a comparison."""
    return (
        f"{options.data}, batch {options.batch}, {options.hidden} hidden units, h = {options.h:g} and 0.01, seed "
        f"{options.seed}"
    )


def report_to_github(outcome: Outcome) -> None:
    """In GitHub Actions append the table to the step summary, and annotate each disagreement."""
    if not processes.is_first():
        return
    from comparison.agreement.comparison import disagreement_sentence
    from comparison.report.agreement_tables import agreement_markdown

    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with open(path, "a", encoding="utf-8") as summary:
                summary.write(agreement_markdown(outcome))
        except OSError as error:  # the verdict does not depend on it
            print(f"compare.py: GITHUB_STEP_SUMMARY can't be written: {error.strerror}: {path!r}.", file=sys.stderr)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for row in outcome.rows:
            if not row.agrees:
                sentence = disagreement_sentence(row).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
                print(f"::error::{sentence}", file=sys.stderr)
