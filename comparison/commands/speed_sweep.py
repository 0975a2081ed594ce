"""`compare.py speed --sweep`: the same over sizes, and where one backend overtakes another."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES
from comparison.commands.agree import compare_all, exit_code
from comparison.commands.options import problem, settings
from comparison.commands.output import console, say, write_json
from comparison.timing.ranking import Ranking, agreeing, contenders, rank

if TYPE_CHECKING:
    from comparison.agreement.comparison import Problem, Subject
    from reference.datasets import Dataset

SIZES = {
    "hidden": (10, 25, 50, 100, 200, 400),
    "batch": (10, 30, 100, 300, 1000),
    "inputs": (16, 64, 256, 784),
}


def sweep(args: argparse.Namespace, data: Dataset, found: list[Subject], not_run: list[dict[str, str]]) -> int:
    """Rank at each size, print, and return the exit code; agreement is checked in all trials at the first size."""
    from comparison.timing.recommendation import crossovers

    points = args.sizes or SIZES[args.sweep]
    each = argparse.Namespace(**vars(args) | {"budget": args.budget / len(points)})
    rankings: list[Ranking] = []
    nets: list[Problem] = []
    code = AGREES
    for point in points:
        if args.sweep == "inputs":
            narrowed = _with_inputs(data, point, args.seed)
        else:
            narrowed = data
            setattr(each, args.sweep, point)
        net = problem(each, narrowed)
        made = contenders(each, narrowed, net, found)
        outcome = compare_all(agreeing(each), found, net, data_alone=bool(nets))._replace(not_run=not_run)
        rankings.append(rank(each, made, outcome))
        nets.append(net)
        code = max(code, exit_code(outcome), made.exit_code)
    crossings = crossovers(points, [ranking.timings for ranking in rankings])
    if args.json:
        rows = [row for net, ranking in zip(nets, rankings, strict=True) for row in ranking.as_json(args, net)["speed"]]
        over = {"over": args.sweep, "sizes": points, "crossovers": crossings}
        last = rankings[-1].as_json(args, nets[-1])
        write_json(args.json, {"command": "speed", "settings": settings(args), **last, "speed": rows, "sweep": over})
    if args.json != "-" and not args.quiet:
        _show(args, points, rankings, crossings)
    return code


def _show(args: argparse.Namespace, points: Any, rankings: list[Ranking], crossings: list[dict[str, Any]]) -> None:
    from comparison.report.timing_tables import crossover_sentence, speed_notes, sweep_table

    out = console()
    say(out, f"median time of a {args.what}, {args.data}, by {args.sweep}")
    out.print(sweep_table(points, [ranking.timings for ranking in rankings]))
    notes = [note for r in rankings for note in speed_notes(r.timings, r.barred, r.not_run)]
    sentences = [crossover_sentence(row, args.sweep) for row in crossings]
    say(out, *dict.fromkeys(notes), *(sentences or ["No contender overtakes another beyond doubt in this range."]))


def _with_inputs(data: Dataset, count: int, seed: int) -> Dataset:
    """Return the data with `count` columns drawn from its own: it keeps their share of zeros."""
    import numpy as np

    chosen = np.random.default_rng(seed).integers(0, data.x_train.shape[1], count)
    return data._replace(x_train=data.x_train[:, chosen], x_test=data.x_test[:, chosen])
