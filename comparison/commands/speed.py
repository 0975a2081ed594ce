"""`compare.py speed`: time what agrees, and advise which backend to take."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from comparison.commands import AGREES, DISAGREES, EXIT_CODES, argument_types, benchmark, processes
from comparison.commands.agree import compare_all, exit_code
from comparison.commands.options import SpeedOptions, add_output, add_problem, add_selection, new_command
from comparison.commands.output import make_console, print_sentences, status, write_json
from comparison.commands.speed_scaling import time_scaling
from comparison.commands.speed_sweep import SIZES, sweep
from comparison.commands.subjects import load_subjects, make_problem
from reference.defaults import CLOSED_FORM, STRATEGIES

if TYPE_CHECKING:
    from comparison.timing.ranking import FirstCalls
    from comparison.timing.recommendation import Timing

SINGLE_COUNT = ("sweep", "self_check", "peer", "fail_if_slower")
"""Options that can't be combined with several numbers of devices."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        run,
        SpeedOptions,
        derive=_derive,
        help="time the backends that agree, and say which to take",
        description="Time backends x strategies x dtypes x devices in rounds of random order, and say which to take. "
        "Only what agrees with the reference is timed.",
        epilog=EXIT_CODES + "; how fast it is fails a run only with --fail-if-slower",
    )
    add_selection(parser, several_counts=True)
    add_problem(parser)
    add_output(parser)
    benchmark.add_timing(parser, budget=20.0, peer=True)
    add = parser.add_argument
    known = f"{', '.join(STRATEGIES)}, {CLOSED_FORM}, by comma, or all"
    add("--strategy", metavar="NAMES", type=argument_types.timed_strategies, default="collocated", help=known)
    add("--peer", action="store_true", help="also time the finite differences of SciPy and numdifftools")
    add("--sweep", choices=tuple(SIZES), help="repeat it over sizes, and find where one overtakes another")
    sizes = "the sizes of the sweep (default: some about the chapter's)"
    add("--sizes", metavar="N,N,...", type=argument_types.increasing, help=sizes)
    add("--self-check", action="store_true", help="time each contender against itself: how often is it told apart?")
    add("--fail-if-slower", metavar="RATIO", type=float, help="exit 1 if one takes RATIO times the best, for sure")


def _derive(arguments: argparse.Namespace) -> dict[str, object]:
    return {"what": getattr(arguments, "what", "gradient" if arguments.peer else "step")}


def run(options: SpeedOptions) -> int:
    """Time, print, and return the exit code."""
    _check(options)
    benchmark.prepare_process(options.threads)
    from reference.datasets import load

    data = load(options.data, seed=options.seed)
    problem = make_problem(options, data, options.strategy)
    if isinstance(options.devices, tuple):
        return time_scaling(options, options.devices, data, problem)
    subjects, not_run = load_subjects(options)
    if options.sweep:
        return sweep(options, options.sweep, data, subjects, not_run)
    task = benchmark.make_task(options, problem, data)
    calls = benchmark.make_first_calls(options, subjects, task, peer=options.peer)
    if options.self_check:
        return _self_check(options, calls)
    outcome = compare_all(options, subjects, problem)._replace(not_run=not_run)
    ranking = benchmark.rank_agreeing(options, calls, outcome)
    if options.json:
        write_json(options.json, "speed", options, ranking.as_json())
    if options.prints:
        benchmark.print_ranking(options, ranking)
    return exit_code(outcome) or benchmark.crash_code(calls) or _check_slower(ranking.timings, options.fail_if_slower)


def _check(options: SpeedOptions) -> None:
    """Raise ValueError for options that break a rule, or can't be combined."""
    benchmark.check_timing(options)
    if options.fail_if_slower is not None and not options.fail_if_slower > 1:
        raise ValueError(f"`fail-if-slower` must be above 1, got {options.fail_if_slower}.")
    if options.peer and options.what != "gradient":
        raise ValueError(f"`what` must be gradient with --peer, got {options.what}.")
    if not isinstance(options.devices, tuple):
        return
    counts = ",".join(map(str, options.devices))
    if options.threads is not None and processes.count() > 1:
        raise ValueError(f"`threads` must be left to OMP_NUM_THREADS in ranks of torchrun, got {options.threads}.")
    if options.what != "step":
        raise ValueError(f"`what` must be step with --devices {counts}, got {options.what}.")
    for name in SINGLE_COUNT:
        if getattr(options, name):
            raise ValueError(f"`devices` must be one number with --{name.replace('_', '-')}, got {counts}.")


def _check_slower(timings: list[Timing], limit: float | None) -> int:
    """Print what is slower than the limit for sure, and return the exit code of --fail-if-slower."""
    if limit is None:
        return AGREES
    slower = [t for t in timings if t.contender.ranked and t.ratio and t.ratio.low > limit]
    for timing in slower:
        assert timing.ratio is not None
        print(
            f"compare.py: {timing.contender.name} {timing.contender.dtype} takes {timing.ratio.median:.3g} times the "
            f"best, for sure more than {limit:g}.",
            file=sys.stderr,
        )
    return DISAGREES if slower else AGREES


def _self_check(options: SpeedOptions, calls: FirstCalls) -> int:
    import numpy as np

    from comparison.report.timing_tables import self_check_sentence
    from comparison.timing.recommendation import GAIN
    from comparison.timing.rounds import self_check

    contenders = calls.contenders
    if not contenders:
        raise ValueError(f"Nothing to time: {calls.excluded[0]['backend']} {calls.excluded[0]['reason']}")
    text = f"timing {len(contenders)} contenders against themselves for {options.budget:g} s"
    with status(text, quiet=options.quiet):
        result = self_check([c.clock for c in contenders], options.budget, GAIN, np.random.default_rng(options.seed))
    if options.json:
        write_json(options.json, "speed", options, {"self_check": result._asdict()})
    if options.prints:
        print_sentences(make_console(), self_check_sentence(result))
    return benchmark.crash_code(calls)
