"""`compare.py agree`: compare every backend with the float64 reference."""

from __future__ import annotations

import os
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES, CRASHED, DISAGREES, benchmark, processes
from comparison.commands.options import ComparisonOptions, add_comparison, add_threads, new_command
from comparison.commands.output import (
    annotate,
    append_to_step_summary,
    make_console,
    print_sentences,
    status,
    write_json,
)
from comparison.commands.subjects import load_data, load_subjects, make_problem
from reference.defaults import CLOSED_FORM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from comparison.agreement.bounds import Problem
    from comparison.agreement.comparison import Outcome, Subject
    from comparison.commands.comparisons import Check


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        ComparisonOptions,
        help="compare predictions, losses, accuracy and gradients with the float64 reference",
        description="Compare every backend x strategy x dtype with the float64 reference, within derived bounds, "
        "on the data at the step h, and on other small nets.",
        examples=(
            ("agree", "every backend, on the digits"),
            ("agree --backend torch --data mnist --json", "one backend on MNIST, as JSON"),
            ("agree --port path/to/port.py", "a port of your own as well"),
        ),
    )
    add_comparison(parser)
    add_threads(parser)


def run(options: ComparisonOptions) -> int:
    """Compare, print, and return the exit code."""
    benchmark.prepare_process(options.threads)
    data = load_data(options, quiet=options.quiet)
    problem = make_problem(options, data, options.strategy)
    processes.check_same("data", data)
    subjects, not_run = load_subjects(options, workers=True)
    outcome = compare_all(options, subjects, problem)._replace(not_run=not_run)
    if options.json:
        write_json(options.json, "agree", options, as_json(outcome))
    if options.prints:
        _print(options, outcome)
    report_to_github(outcome, subjects)
    return exit_code(outcome)


def compare_all(
    options: ComparisonOptions,
    subjects: list[Subject],
    problem: Problem,
    *,
    data_only: bool = False,
    limit: float | None = None,
) -> Outcome:
    """Compare each subject, in all cases or only on the data; an error that it raises is recorded as a crash.

    With `limit` a subject is compared on the data only if other nets would take it more seconds than that.
    """
    from comparison.agreement.cases import check_data_only, check_subject, check_subject_in_time
    from comparison.agreement.comparison import Agreement, Outcome
    from comparison.agreement.slow_ports import DataOnly
    from comparison.commands.comparisons import compare_subjects

    settings: dict[str, Any] = {"h": options.h, "memory": options.memory, "seed": options.seed}
    function: Callable[..., Any] = check_data_only if data_only else check_subject
    if limit is not None and processes.count() == 1:  # ranks would not all find the same
        function, settings["limit"] = check_subject_in_time, limit
    check: Check = partial(function, **settings)
    strategies = tuple(strategy for strategy in options.strategy if strategy != CLOSED_FORM)  # always compared
    outcome, began = Outcome([], [], [], []), time.perf_counter()
    compared_on_data_only: list[dict[str, Any]] = []
    with status("comparing", quiet=options.quiet) as say:

        def show(done: int, what: str) -> None:
            say(f"comparing {what}", min(done + 1, len(subjects)), len(subjects))

        side_by_side = not data_only and options.devices in (None, 1)
        for results in compare_subjects(check, subjects, problem, strategies, show, side_by_side=side_by_side):
            for row in results:
                if isinstance(row, Agreement):
                    outcome.rows.append(row)
                elif isinstance(row, dict):
                    outcome.crashed.append(row)
                elif isinstance(row, DataOnly):
                    compared_on_data_only.append(row._asdict())
                else:
                    outcome.not_compared.append(row)
    return outcome._replace(data_only=compared_on_data_only, seconds=time.perf_counter() - began)


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
    console.print(agreement_table(outcome, console.width))
    print_sentences(console, "", *agreement_notes(outcome), agreement_summary(outcome), UNSEEN)


def heading(options: ComparisonOptions) -> str:
    """Describe the problem of a comparison."""
    net = f"{options.data}, batch {options.batch}, {options.hidden} hidden units"
    return f"{net}, h = {options.h:g}, seed {options.seed}; and other nets, each at its own h"


def report_to_github(outcome: Outcome, subjects: Iterable[Subject]) -> None:
    """In GitHub Actions append the verdict and the table to the step summary, and annotate each fault."""
    if not processes.is_first():
        return
    from comparison.agreement.comparison import disagreement_sentence
    from comparison.report.agreement_tables import agreement_markdown, crash_sentence

    append_to_step_summary(agreement_markdown(outcome))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        files = {subject.name: _file_of(subject) for subject in subjects}
        for crash in outcome.crashed:
            _annotate(files[crash["backend"]], f"{crash['backend']} crashes", crash_sentence(crash))
        for row in outcome.rows:
            if not row.agrees:
                _annotate(files[row.backend], f"{row.backend} disagrees", disagreement_sentence(row))


def _file_of(subject: Subject) -> str:
    """Return the file of the port, from the folder of the checkout where it lies there."""
    file = getattr(subject.port, "__file__", None) or subject.source
    workspace = os.environ.get("GITHUB_WORKSPACE", os.getcwd())
    relative = os.path.relpath(file, workspace) if file else ""
    return file if relative.startswith("..") else relative


def _annotate(file: str, title: str, sentence: str) -> None:
    """Mark the file; the line is that of the port's file that the sentence names."""
    at = re.search(rf"\b{re.escape(os.path.basename(file))}:(\d+)", sentence) if file else None
    annotate(file, at[1] if at else "1", title, sentence)
