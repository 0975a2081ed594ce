"""`compare.py speed`: time what agrees, and advise which backend to take."""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, Any

from comparison import PROGRAM
from comparison.commands import AGREES, BAD_INPUT, DISAGREES, EXIT_CODES, argument_types, benchmark, processes
from comparison.commands.agree import compare_all, exit_code
from comparison.commands.options import (
    SpeedOptions,
    add_output,
    add_problem,
    add_selection,
    new_command,
)
from comparison.commands.output import status, write_json
from comparison.commands.speed_baseline import (
    NOTHING_IN_COMMON,
    check_baseline,
    compare_with,
    print_changes,
    read_baseline,
)
from comparison.commands.speed_scaling import time_scaling
from comparison.commands.speed_self_check import self_check_once
from comparison.commands.speed_sweep import SIZES, sweep
from comparison.commands.subjects import load_data, load_subjects, make_problem
from reference.defaults import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comparison.timing.baseline import Change
    from comparison.timing.ranking import Field, Ranking
    from comparison.timing.recommendation import Timing
    from comparison.timing.workloads import Task

SINGLE_COUNT = ("sweep", "self_check", "peer", "baseline", "fail_if_slower")
"""Options that can't be combined with several numbers of devices."""
SINGLE_TIMING = ("baseline", "fail_if_slower", "peer")
"""Options that can't be combined with --sweep or --self-check."""


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
        examples=(
            ("speed --data mnist --strategy all", "the ladder from the chapter's loop down"),
            ("speed --sweep hidden", "who is fastest at which number of hidden units"),
            ("speed --what run --iterations 100", "whole runs of 100 steps"),
            ("speed --json before.json", "in CI, before a change and after it"),
            ("speed --baseline before.json --fail-if-slower 1.2", ""),
        ),
        epilog=EXIT_CODES + "; how fast it is fails a run only with --fail-if-slower, and exit code 2 says that it "
        "could not be judged: the machine was busy, or --budget too small",
    )
    add_selection(parser, several_counts=True)
    add_problem(parser)
    add_output(parser)
    benchmark.add_timing(parser, budget=20.0, peer=True)
    add = parser.add_argument
    known = f"{', '.join(STRATEGIES)}, closed-form, by comma, or all"
    add("--strategy", metavar="NAMES", type=argument_types.timed_strategies, default="collocated", help=known)
    add("--peer", action="store_true", help="also time the finite differences of SciPy and numdifftools")
    add("--sweep", choices=tuple(SIZES), help="repeat it over sizes, and find where one overtakes another")
    sizes = "the sizes of the sweep (default: some about the chapter's)"
    add("--sizes", metavar="N,N,...", type=argument_types.increasing, help=sizes)
    add("--self-check", action="store_true", help="time each contender against itself: how often is it told apart?")
    baseline = "compare with what speed --json wrote on this machine with these settings"
    add("--baseline", metavar="FILE.json", type=argument_types.name, help=baseline)
    slower = "exit 1 if one takes RATIO times the best, with --baseline RATIO times what it took there, for sure"
    add("--fail-if-slower", metavar="RATIO", type=float, help=slower)


def _derive(arguments: argparse.Namespace) -> dict[str, object]:
    return {"what": getattr(arguments, "what", "gradient" if arguments.peer else "step")}


def run(options: SpeedOptions) -> int:
    """Time, print, and return the exit code."""
    _check(options)
    baseline = read_baseline(options.baseline, options) if options.baseline else None
    benchmark.prepare_process(options.threads)
    from comparison.timing.baseline import ratios_to_reference
    from comparison.timing.starts import measure_start

    data = load_data(options, quiet=options.quiet)
    problem = make_problem(options, data, options.strategy)
    if isinstance(options.devices, tuple):
        return time_scaling(options, options.devices, data, problem)
    subjects, not_run = load_subjects(options, workers=True)
    if baseline is not None:
        check_baseline(baseline, options, subjects)
    if options.sweep:
        return sweep(options, options.sweep, data, subjects, not_run)
    task = benchmark.make_task(options, problem, data)
    if options.self_check:
        return self_check_once(options, subjects, task)
    outcome = compare_all(options, subjects, problem, limit=options.budget / 2)._replace(not_run=not_run)
    field = benchmark.prepare(options, subjects, task, outcome, start=measure_start)
    if options.peer:
        field = _with_libraries(options, field, task)
    ranking = benchmark.time_and_rank(options, field, not_run)
    changes = None if baseline is None else compare_with(baseline, ranking)
    if options.json:
        more = {"baseline": [change.as_json() for change in changes]} if changes is not None else {}
        ratios = {"ratios_to_reference": ratios_to_reference(ranking)}
        write_json(options.json, "speed", options, ranking.as_json() | ratios | more)
    if options.prints:
        benchmark.print_ranking(options, ranking)
        if changes:
            print_changes(changes)
    return exit_code(outcome) or benchmark.crash_code(field) or _check_slower(ranking, changes, options.fail_if_slower)


def _with_libraries(options: SpeedOptions, field: Field, task: Task) -> Field:
    """Add the libraries that can finish within their share of the budget."""
    from comparison.timing.other_libraries import LIBRARIES, make_library_contenders
    from comparison.timing.rounds import fewest_rounds

    count = len(field.contenders) + len(LIBRARIES)
    with status("first calls of other libraries", quiet=options.quiet):
        contenders, not_run = make_library_contenders(task, options.budget / count / fewest_rounds(count))
    rows = [{"strategy": "peer", "dtype": "float64", "device": "cpu", **row} for row in not_run]
    return field._replace(contenders=field.contenders + contenders, left_out=field.left_out + rows)


def _check(options: SpeedOptions) -> None:
    """Raise ValueError for options that break a rule, or can't be combined."""
    benchmark.check_timing(options)
    if options.fail_if_slower is not None and not 1 < options.fail_if_slower < math.inf:
        raise ValueError(f"`fail-if-slower` must be above 1 and finite, got {options.fail_if_slower}.")
    if options.sizes and not options.sweep:
        raise ValueError(f"`sizes` must come with --sweep, got {','.join(map(str, options.sizes))}.")
    for name in SINGLE_TIMING if options.sweep or options.self_check else ():
        if value := getattr(options, name):
            other = "sweep" if options.sweep else "self-check"
            raise ValueError(f"`{name}` must be left out with --{other}, got {value}.")
    if options.peer and options.what != "gradient":
        raise ValueError(f"`what` must be gradient with --peer, got {options.what}.")
    if not isinstance(options.devices, tuple):
        return
    counts = ",".join(map(str, options.devices))
    if options.what != "step":
        raise ValueError(f"`what` must be step with --devices {counts}, got {options.what}.")
    for name in SINGLE_COUNT:
        if getattr(options, name):
            raise ValueError(f"`devices` must be one number with --{name.replace('_', '-')}, got {counts}.")


def _check_slower(ranking: Ranking, changes: Sequence[Change] | None, limit: float | None) -> int:
    """Print the contenders that are slower than the limit beyond doubt, and return the exit code of --fail-if-slower.

    With a baseline that is slower than there, and otherwise than the best. Where no winner may be named, nothing is
    judged, and neither where a contender was left out: it may be what has become slow.
    """
    if changes is not None and not changes:
        processes.print_error(f"{PROGRAM}: `--baseline` {NOTHING_IN_COMMON}.")
        return BAD_INPUT
    if limit is None:
        return AGREES
    unjudged = [f"left out: {row['backend']}: {row['reason']}" for row in ranking.left_out if row["strategy"] != "peer"]
    if ranking.no_winner or unjudged:
        reasons = " ".join([ranking.no_winner] if ranking.no_winner else unjudged)
        processes.print_error(f"{PROGRAM}: --fail-if-slower can't be judged. {reasons}")
        return BAD_INPUT
    if changes is not None:
        sentences = [change.sentence(limit) for change in changes if change.ratio.low > limit]
    else:
        sentences = [
            _sentence(t, limit) for t in ranking.timings if t.contender.ranked and t.ratio and t.ratio.low > limit
        ]
    for sentence in sentences:
        print(f"{PROGRAM}: {sentence}", file=sys.stderr)
    return DISAGREES if sentences else AGREES


def _sentence(timing: Timing, limit: float) -> str:
    assert timing.ratio is not None
    name = f"{timing.contender.name} {timing.contender.dtype}"
    return f"{name} takes {timing.ratio.median:.3g} times the best, for sure more than {limit:g}."
