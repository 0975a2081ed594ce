"""`compare.py` alone: agreement first, then speed, then the advice, on one screen."""

from __future__ import annotations

import argparse
from typing import Any

from comparison.commands import agree, speed
from comparison.commands.options import add_comparison, new_command, problem, settings, subjects
from comparison.commands.output import console, say, write_json
from comparison.timing import ranking


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        help="agree, then speed, then the advice; what runs unless told",
        description="Compare every backend with the reference, time collocated where it agrees, and say which to take.",
    )
    add_comparison(parser)
    speed.add_timing(parser, budget=8.0)


def run(args: argparse.Namespace) -> int:
    """Compare, time, print, and return the exit code."""
    speed.prepare(args)
    from reference.datasets import load

    data = load(args.data, seed=args.seed)
    net = problem(args, data)
    found, not_run = subjects(args)
    strategies = ("collocated",) if "collocated" in args.strategy else args.strategy
    timed = argparse.Namespace(**vars(args) | {"strategy": strategies})
    made = ranking.contenders(timed, data, net, found)
    outcome = agree.compare_all(args, found, net)._replace(not_run=not_run)
    shown = args.json != "-" and not args.quiet
    if shown:
        _print_agreement(args, outcome)
    ranked = ranking.rank(timed, made, outcome)
    if args.json:
        results = {**agree.as_json(outcome), **ranked.as_json(args, net)}
        write_json(args.json, {"command": "advise", "settings": settings(args), **results})
    if shown:
        speed.show(timed, net, ranked)
    agree.tell_github(outcome)
    return agree.exit_code(outcome) or made.exit_code


def _print_agreement(args: argparse.Namespace, outcome: Any) -> None:
    from comparison.report.agreement_tables import agreement_notes, agreement_summary, backends_table

    out = console()
    say(out, agree.heading(args))
    out.print(backends_table(outcome))
    say(out, *agreement_notes(outcome), agreement_summary(outcome), "")
