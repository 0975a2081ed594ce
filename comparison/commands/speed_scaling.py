"""`compare.py speed --devices 1,2,4`: how the time of a step changes with the number of devices."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from comparison.commands import processes as ranks
from comparison.commands.agree import compare_all, exit_code
from comparison.commands.options import settings, subjects
from comparison.commands.output import console, say, waiting, write_json
from comparison.timing.ranking import agreeing, disagreement, sizes_in_words, sizes_of

if TYPE_CHECKING:
    from comparison.agreement.comparison import Outcome, Problem, Subject
    from comparison.timing.scaling import Point, Runs
    from reference.datasets import Dataset

ALONE = ("sweep", "self_check", "peer", "fail_if_slower")
"""Options that several numbers of devices can't go with."""


def check_alone(args: argparse.Namespace) -> None:
    """Raise ValueError for options that can't be had together."""
    if not isinstance(getattr(args, "devices", None), tuple):
        return
    shown = ",".join(map(str, args.devices))
    if args.threads is not None and ranks.count() > 1:
        raise ValueError(f"`threads` must be left to OMP_NUM_THREADS in ranks of torchrun, got {args.threads}.")
    if args.what != "step":
        raise ValueError(f"`what` must be step with --devices {shown}, got {args.what}.")
    for name in ALONE:
        if getattr(args, name):
            raise ValueError(f"`devices` must be one number with --{name.replace('_', '-')}, got {shown}.")


def scaling(args: argparse.Namespace, data: Dataset, net: Problem) -> int:
    """Time steps on each number of devices, print, and return the exit code."""
    from comparison.timing.scaling import follow, on, runs
    from comparison.timing.workloads import Task

    ranks.check_same("data", data)
    most = argparse.Namespace(**vars(args) | {"devices": args.devices[-1]})
    found, not_run = subjects(most)
    found, strangers = _scalable(found)
    task = Task("step", net, data, args.data, args.step, args.chunk_memory, seed=args.seed)
    placed = [[on(subject, count) for count in args.devices] for subject in found]
    outcome = compare_all(agreeing(args), [where for each in placed for where in each if where], net, data_alone=True)
    outcome = outcome._replace(not_run=not_run + strangers)
    made = [
        runs(subject, strategy, args.devices, where, task)
        for subject, where in zip(found, placed, strict=True)
        for strategy in args.strategy
    ]
    if not ranks.first():
        follow(ranks.gather, [train for each in made for train in each.all])
        return int(ranks.gather(None)[0])
    courses, barred = _measure(args, made, outcome)
    if args.json:
        rows = [point.as_json() | {"sizes": sizes_of(net)} for course in courses for point in course]
        result = {"scaling": rows, "barred": barred, "not_run": outcome.not_run}
        write_json(args.json, {"command": "speed", "settings": settings(args), **result})
    if args.json != "-" and not args.quiet:
        _show(args, net, courses, barred, outcome)
    return int(ranks.gather(exit_code(outcome))[0])


def _scalable(found: list[Subject]) -> tuple[list[Subject], list[dict[str, str]]]:
    """Return the subjects that run on a part of their devices, and in ranks if there are any; the others as rows."""
    needed, reason = ("rank", "in ranks of torchrun") if ranks.count() > 1 else ("subset", "on a part of its devices")
    fit = [subject for subject in found if hasattr(subject.port, needed)]
    others = dict.fromkeys(subject.name for subject in found if subject not in fit)
    rows = [{"backend": name, "reason": f"it does not run {reason}."} for name in others]
    if not fit:
        raise ValueError("Nothing to time: " + " ".join(f"{row['backend']}: {row['reason']}" for row in rows))
    return fit, rows


def _measure(
    args: argparse.Namespace, made: list[Runs], outcome: Outcome
) -> tuple[list[list[Point]], list[dict[str, Any]]]:
    """Return the points of all that agrees, and what was barred: nothing is timed of what is wrong on any number."""
    import numpy as np

    from comparison.timing.rounds import take_rounds
    from comparison.timing.scaling import clock, led, points, sent_each_step

    trains = iter(led(ranks.gather, [train for each in made for train in each.all]))
    courses, barred = [], []
    share = args.budget / len(made)
    for each in made:
        mine = [next(trains) for _ in each.all]
        keys = [(where.name, each.strategy, where.dtype, where.device) for where in each.placed if where]
        if wrong := [row for key in keys if (row := disagreement(key, outcome))]:
            barred += wrong
            continue
        with waiting(f"timing {each.subject.name} {each.strategy} {each.subject.dtype} for {share:g} s", args.quiet):
            clocks = [clock(train) for train in mine]
            sent = [sent_each_step(where, train) for where, train in zip(each.placed, mine, strict=False)]
            rounds = take_rounds(clocks, share, np.random.default_rng(args.seed))
        courses.append(points(each, args.batch, sent, rounds))
    ranks.gather(None)  # there is no more to follow
    return courses, barred


def _show(
    args: argparse.Namespace,
    net: Problem,
    courses: list[list[Point]],
    barred: list[dict[str, Any]],
    outcome: Outcome,
) -> None:
    from comparison.report.timing_tables import scaling_notes, scaling_table, speed_notes
    from comparison.timing.scaling import verdict

    out = console()
    say(out, f"a training step, {args.data}, {sizes_in_words(net)}, on {', '.join(map(str, args.devices))} devices")
    if courses:
        out.print(scaling_table(courses, out.width))
    say(out, *scaling_notes(courses), *speed_notes([], barred, outcome.not_run))
    say(out, *(f"\n{verdict(course)}" for course in courses))
