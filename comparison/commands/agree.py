"""`compare.py agree`: hold every backend to the float64 reference."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES, CRASHED, DISAGREES
from comparison.commands import processes as ranks
from comparison.commands.options import add_comparison, new_command, problem, settings, subjects
from comparison.commands.output import console, say, where, write_json

if TYPE_CHECKING:
    from comparison.agreement.comparison import Outcome, Problem, Subject


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        help="compare predictions, losses, accuracy and gradients with the float64 reference",
        description="Compare every backend x strategy x dtype with the float64 reference, within derived bounds, "
        "at the step h and at 0.01.",
    )
    add_comparison(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, print, and return the exit code."""
    from reference.datasets import load

    data = load(args.data, seed=args.seed)
    net = problem(args, data)
    ranks.check_same("data", data)
    found, not_run = subjects(args)
    outcome = compare_all(args, found, net)._replace(not_run=not_run)
    if args.json:
        write_json(args.json, {"command": "agree", "settings": settings(args), **as_json(outcome)})
    if args.json != "-" and not args.quiet:
        _print(args, outcome)
    tell_github(outcome)
    return exit_code(outcome)


def exit_code(outcome: Outcome) -> int:
    """Return what a comparison ends with."""
    return CRASHED if outcome.crashed else AGREES if outcome.agrees else DISAGREES


def compare_all(args: argparse.Namespace, found: list[Subject], net: Problem, *, data_alone: bool = False) -> Outcome:
    """Compare each subject, in all trials or on the data alone; what it raises is kept as a crash."""
    from rich.console import Console
    from rich.progress import track

    from comparison.agreement.cases import check, check_data
    from comparison.agreement.comparison import Agreement, Outcome

    look = check_data if data_alone else check
    outcome = Outcome([], [], [], [])
    stderr = Console(stderr=True)
    shown = stderr.is_terminal and not args.quiet
    for subject in track(found, "comparing", console=stderr, transient=True) if shown else found:
        try:
            for row in look(subject, net, args.strategy, h=args.step, memory=args.chunk_memory, seed=args.seed):
                if isinstance(row, Agreement):
                    outcome.rows.append(row)
                else:
                    outcome.not_compared.append(row)
        except ConnectionAbortedError:  # other ranks wait no more
            raise
        except Exception as error:  # a port may fail in any way: it is reported, and the exit code says so
            outcome.crashed.append({"backend": subject.name, "dtype": subject.dtype, "reason": where(error)})
    return outcome


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return what JSON records of a comparison."""
    from dataclasses import asdict

    return {
        "agreement": [asdict(row) for row in outcome.rows],
        "not_compared": [row._asdict() for row in outcome.not_compared],
        "not_run": outcome.not_run,
        "crashed": outcome.crashed,
        "agrees": outcome.agrees,
    }


def _print(args: argparse.Namespace, outcome: Outcome) -> None:
    from comparison.report.agreement_tables import agreement_notes, agreement_summary, agreement_table

    out = console()
    say(out, heading(args))
    out.print(agreement_table(outcome))
    say(out, "", *agreement_notes(outcome), agreement_summary(outcome))


def heading(args: argparse.Namespace) -> str:
    """Return what was compared at."""
    return f"{args.data}, batch {args.batch}, {args.hidden} hidden units, h = {args.step:g} and 0.01, seed {args.seed}"


def tell_github(outcome: Outcome) -> None:
    """Append the table to the step summary, and annotate each disagreement, where GitHub Actions runs us."""
    if not ranks.first():
        return
    from comparison.report.agreement_tables import agreement_markdown, disagreement_sentence

    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(path, "a", encoding="utf-8") as summary:
            summary.write(agreement_markdown(outcome))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for row in outcome.rows:
            if not row.agrees:
                print(f"::error::{disagreement_sentence(row)}", file=sys.stderr)
