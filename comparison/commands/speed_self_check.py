"""`compare.py speed --self-check`: how often a contender is told apart from itself, also over the sizes of a sweep."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from comparison.commands import benchmark
from comparison.commands.output import make_console, print_sentences, status, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comparison.agreement.comparison import Subject
    from comparison.commands.options import SpeedOptions
    from comparison.timing.ranking import Field
    from comparison.timing.workloads import Task


def self_check_once(options: SpeedOptions, subjects: list[Subject], task: Task) -> int:
    """Time each contender against itself, print, and return the exit code."""
    half = replace(options, budget=options.budget / 2)  # each contender is timed twice
    return check_fields(options, [benchmark.prepare(half, subjects, task, None, comparisons=1)])


def check_fields(options: SpeedOptions, fields: Sequence[Field]) -> int:
    """Time each contender of each field, one a size, against itself; print, and return the exit code."""
    import numpy as np

    from comparison.report.timing_tables import self_check_sentence
    from comparison.timing.recommendation import GAIN
    from comparison.timing.self_check import self_check

    clocks = [[c.clock for c in field.contenders] for field in fields if field.contenders]
    if not clocks:
        rows = [row for field in fields for row in (*field.excluded, *field.left_out)]
        raise ValueError(f"Nothing to time: {rows[0]['backend']} {rows[0]['reason']}")
    count = sum(map(len, clocks))
    began = time.perf_counter()
    text = f"timing {count} contenders against themselves, {options.budget:g} s"
    with status(text, quiet=options.quiet):
        result = self_check(clocks, options.budget, GAIN, np.random.default_rng(options.seed))
    seconds = time.perf_counter() - began
    if options.json:
        write_json(options.json, "speed", options, {"self_check": result._asdict(), "timing_s": seconds})
    if options.prints:
        print_sentences(make_console(), self_check_sentence(result))
    return max(benchmark.crash_code(field) for field in fields)
