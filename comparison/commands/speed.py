"""`compare.py speed`: time what agrees, and say which backend to take."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES, DISAGREES, EXIT_CODES
from comparison.commands.agree import compare_all, exit_code
from comparison.commands.options import (
    STRATEGIES,
    add_output,
    add_problem,
    add_subjects,
    among,
    increasing,
    new_command,
    problem,
    settings,
    subjects,
)
from comparison.commands.output import console, say, waiting, write_json
from comparison.commands.speed_scaling import check_alone, scaling
from comparison.commands.speed_sweep import SIZES, sweep
from comparison.timing.ranking import Made, Ranking, agreeing, contenders, rank, sizes_in_words

if TYPE_CHECKING:
    from comparison.agreement.comparison import Problem
    from comparison.timing.recommendation import Timing

CLOSED_FORM = "closed form"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        help="time the backends that agree, and say which to take",
        description="Time backends x strategies x dtypes x devices in rounds of random order, and say which to take. "
        "Only what agrees with the reference is timed.",
        epilog=EXIT_CODES + "; how fast it is fails a run only with --fail-if-slower",
    )
    add_subjects(parser, scaling=True)
    add_problem(parser)
    add_output(parser)
    add_timing(parser, budget=20.0)
    add = parser.add_argument
    known = f"{', '.join(STRATEGIES)}, {CLOSED_FORM}, by comma, or all"
    add("--strategy", metavar="NAMES", type=strategies, default="collocated", help=known)
    add("--peer", action="store_true", help="time the finite differences of SciPy and numdifftools besides")
    add("--sweep", choices=tuple(SIZES), help="repeat it over sizes, and find where one overtakes another")
    add(
        "--sizes", metavar="N,N,...", type=increasing, help="the sizes of the sweep (default: some about the chapter's)"
    )
    add("--self-check", action="store_true", help="time each contender against itself: how often is it told apart?")
    add("--fail-if-slower", metavar="RATIO", type=float, help="exit 1 if one takes RATIO times the best, for sure")


def add_timing(parser: argparse.ArgumentParser, *, budget: float) -> None:
    """Add what is timed and for how long."""
    add = parser.add_argument
    add("--what", choices=("gradient", "step", "run"), help="a gradient, a training step, or a whole run, compilation "
        "included (default: step; gradient with --peer)")  # fmt: skip
    add("--iterations", metavar="N", type=int, default=10_000, help="steps of a run")
    add("--budget", metavar="SECONDS", type=float, default=budget, help="what the rounds may take, first calls apart")
    add("--threads", metavar="N", type=int, help="cores for each backend (default: all that the process may use)")


def strategies(text: str) -> tuple[str, ...]:
    """Parse names of strategies and of the closed form."""
    known = (CLOSED_FORM, *reversed(STRATEGIES))
    return known if text == "all" else among(text.replace("closed-form", CLOSED_FORM), known)


def run(args: argparse.Namespace) -> int:
    """Time, print, and return the exit code."""
    prepare(args)
    from reference.datasets import load

    data = load(args.data, seed=args.seed)
    net = problem(args, data)
    if isinstance(args.devices, tuple):
        return scaling(args, data, net)
    found, not_run = subjects(args)
    if args.sweep:
        return sweep(args, data, found, not_run)
    made = contenders(args, data, net, found)
    if args.self_check:
        return _self_check(args, made)
    outcome = compare_all(agreeing(args), found, net)._replace(not_run=not_run)
    ranking = rank(args, made, outcome)
    if args.json:
        write_json(args.json, {"command": "speed", "settings": settings(args), **ranking.as_json(args, net)})
    if args.json != "-" and not args.quiet:
        show(args, net, ranking)
    return exit_code(outcome) or made.exit_code or _too_slow(args, ranking.timings)


def prepare(args: argparse.Namespace) -> None:
    """Check the options, and set the environment that frameworks read as they are imported."""
    check_budget(args.budget)
    if args.iterations < 1:
        raise ValueError(f"`iterations` must be at least 1, got {args.iterations}.")
    ratio = getattr(args, "fail_if_slower", None)
    if ratio is not None and not ratio > 1:
        raise ValueError(f"`fail-if-slower` must be above 1, got {ratio}.")
    if args.devices not in (None, 1) and args.what == "run":
        raise ValueError("`what` must be gradient or step with --devices, got run.")
    if getattr(args, "peer", False) and args.what not in (None, "gradient"):
        raise ValueError(f"`what` must be gradient with --peer, got {args.what}.")
    args.what = args.what or ("gradient" if getattr(args, "peer", False) else "step")
    check_alone(args)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU's memory is not ours alone
    if args.threads is not None:
        restart_with_threads(args.threads)


def check_budget(seconds: float) -> None:
    """Raise ValueError for a time that can't be spent."""
    if not 0 < seconds < float("inf"):
        raise ValueError(f"`budget` must be positive and finite, got {seconds}.")


def restart_with_threads(count: int) -> None:
    """Run this very command again on `count` cores, unless it is already: libraries count cores as they are loaded."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if not 1 <= count <= len(cores):
        raise ValueError(f"`threads` must be from 1 to {len(cores)}, the cores of this process, got {count}.")
    wanted = dict.fromkeys((*THREADS, "FDNET_THREADS"), str(count))
    if os.environ.get("FDNET_THREADS") == str(count):
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores[:count])
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)


def show(args: argparse.Namespace, net: Problem, ranking: Ranking) -> None:
    """Print the table and the advice."""
    from comparison.report.timing_tables import break_even_table, speed_notes, speed_table

    out = console()
    what = {"gradient": "a gradient", "step": "a training step", "run": f"a run of {args.iterations:,} steps"}
    rounds = ranking.timings[0].rounds if ranking.timings else 0
    say(out, f"{what[args.what]}, {args.data}, {sizes_in_words(net)}, {rounds} rounds in random order")
    if ranking.timings:
        out.print(speed_table(ranking.timings, out.width))
    say(out, *speed_notes(ranking.timings, ranking.barred, ranking.not_run))
    say(out, *(f"\n{advice.sentence}" for advice in ranking.advice))
    if any(advice.break_even for advice in ranking.advice):
        out.print(break_even_table(ranking.advice))


def _too_slow(args: argparse.Namespace, found: list[Timing]) -> int:
    if args.fail_if_slower is None:
        return AGREES
    slow = [
        f"{t.contender.name} {t.contender.dtype} takes {t.ratio.median:.3g} times the best, "
        f"for sure more than {args.fail_if_slower:g}."
        for t in found
        if t.contender.ranked and t.ratio and t.ratio.low > args.fail_if_slower
    ]
    for sentence in slow:
        print(f"compare.py: {sentence}", file=sys.stderr)
    return DISAGREES if slow else AGREES


def _self_check(args: argparse.Namespace, made: Made) -> int:
    import numpy as np

    from comparison.report.timing_tables import self_check_sentence
    from comparison.timing.recommendation import GAIN
    from comparison.timing.rounds import self_check

    found = made.contenders
    if not found:
        raise ValueError(f"Nothing to time: {made.barred[0]['backend']} {made.barred[0]['reason']}")
    with waiting(f"timing {len(found)} contenders against themselves for {args.budget:g} s", args.quiet):
        result = self_check([c.clock for c in found], args.budget, GAIN, np.random.default_rng(args.seed))
    if args.json:
        write_json(args.json, {"command": "speed", "settings": settings(args), "self_check": result._asdict()})
    if args.json != "-" and not args.quiet:
        say(console(), self_check_sentence(result))
    return made.exit_code
