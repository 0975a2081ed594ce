"""Which backend to take: what paired timings say, and no more than they say."""

import platform
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from comparison.timing.load import usable_cores
from comparison.timing.rounds import Interval, Rounds, best_of, median, ratios
from comparison.timing.workloads import Contender, Task
from reference.defaults import BUILT_IN, CLOSED_FORM

GAIN = 1.05
"""A smaller gain makes no winner: nobody should change the backend for it."""
BREAK_EVEN_STEPS = (1, 100, 10_000, 1_000_000)


class Timing(NamedTuple):
    """The timing of one contender, from the rounds."""

    contender: Contender
    seconds: Interval
    ratio: Interval | None  # to the best that is ranked in its dtype; None where none is
    to_closed_form: Interval | None  # to the closed form of the same backend, dtype and device
    rounds: int
    cores_used: float

    def identity(self) -> dict[str, str]:
        """Return the fields that identify the contender, as JSON records them."""
        c = self.contender
        return {"backend": c.backend, "strategy": c.strategy, "dtype": c.dtype, "device": c.device}

    def as_json(self, what: str) -> dict[str, object]:
        """Return the timing of a gradient, step or run (`what`) as JSON records it."""
        c = self.contender
        return {
            **self.identity(),
            "what": what,
            "first_call_s": c.first_call_s,
            "median_s": self.seconds.median,
            "interval_s": self.seconds[1:],
            "rounds": self.rounds,
            "ratio_to_best": self.ratio and self.ratio.median,
            "ratio_interval": self.ratio and self.ratio[1:],
            "ratio_to_closed_form": self.to_closed_form and self.to_closed_form.median,
            "cores_used": self.cores_used,
            "peak_bytes": c.peak_bytes,
            "error": c.error,
            "ranked": c.ranked,
            "estimated": c.estimated,
        }

    def total(self, steps: int) -> Interval | None:
        """Compute the time of this number of steps from nothing, in a run with its evaluations.

        The interval is that of the steps. None where the first call was not measured.
        """
        c = self.contender
        if c.first_call_s is None:
            return None
        if c.run:
            return Interval(*(c.run.total(steps, step) for step in self.seconds))
        return Interval(*(c.first_call_s + (steps - 1) * step for step in self.seconds))


class Verdict(NamedTuple):
    """Who is first: of a number of steps from nothing, or of single steps for ever."""

    winner: Timing | None
    tie: list[Timing]  # none of them is slower for sure, and by GAIN; the first is the one to take
    next: tuple[Timing, Interval] | None  # after the winner, and how many times as long it takes
    seconds: float  # of the first: the whole, or one step

    @property
    def first(self) -> Timing:
        """The one to take."""
        return self.winner or self.tie[0]


class Advice(NamedTuple):
    """What to take for one dtype."""

    dtype: str
    steady: Verdict | None  # None where no winner may be named
    runs: dict[int, Verdict]  # by the number of steps; none where first calls are unknown
    sentence: str

    def as_json(self) -> dict[str, object]:
        """Return the advice as JSON records it."""
        winner, tie = (self.steady.winner, self.steady.tie) if self.steady else (None, [])
        return {
            "dtype": self.dtype,
            "winner": winner and winner.identity(),
            "tie": [timing.identity() for timing in tie],
            "sentence": self.sentence,
            "break_even": [
                {
                    "steps": steps,
                    **verdict.first.identity(),
                    "seconds": verdict.seconds,
                    "tie": [timing.identity() for timing in verdict.tie],
                }
                for steps, verdict in self.runs.items()
            ],
        }


def timings(contenders: Sequence[Contender], rounds: Rounds) -> list[Timing]:
    """Evaluate the rounds for each contender; ratios are among those of one dtype."""
    cores = rounds.cores_used()
    return [
        Timing(
            c,
            median(rounds.seconds[:, n]),
            _ratio_to_best(contenders, rounds.seconds, n),
            _ratio_to_closed_form(contenders, rounds.seconds, n),
            len(rounds.seconds),
            float(cores[n]),
        )
        for n, c in enumerate(contenders)
    ]


def _ratio_to_best(contenders: Sequence[Contender], seconds: np.ndarray, n: int) -> Interval | None:
    ranked = [k for k, c in enumerate(contenders) if c.ranked and c.dtype == contenders[n].dtype]
    if not ranked:
        return None
    best = ranked[best_of(seconds[:, ranked])]
    return ratios(seconds[:, [best, n]], 0, len(ranked) - 1)[1]


def _ratio_to_closed_form(contenders: Sequence[Contender], seconds: np.ndarray, n: int) -> Interval | None:
    c = contenders[n]
    same = [k for k, d in enumerate(contenders) if d[:1] + d[2:4] == c[:1] + c[2:4] and d.strategy == CLOSED_FORM]
    return ratios(seconds[:, [same[0], n]], 0)[1] if same else None


def advise(timed: Sequence[Timing], task: Task, sizes: str, no_winner: str | None = None) -> list[Advice]:
    """Advise which contender to take, for each dtype.

    Parameters
    ----------
    timed : sequence of Timing
    task : Task
        What was timed: its number of iterations is one of those for which the first to finish is found.
    sizes : str
        Those of the net and the batch, such as "64-50-10 and batches of 100".
    no_winner : str, optional
        The reason why no winner may be named.
    """
    ranked = [timing for timing in timed if timing.contender.ranked]
    steps = () if task.what == "run" else sorted({*BREAK_EVEN_STEPS, task.iterations})
    by_dtype: dict[str, list[Timing]] = {}
    for timing in ranked:
        by_dtype.setdefault(timing.contender.dtype, []).append(timing)
    return [
        Advice(dtype, None, {}, no_winner) if no_winner else _advise_for_dtype(own, dtype, steps, sizes)
        for dtype, own in by_dtype.items()
    ]


def _advise_for_dtype(ranked: list[Timing], dtype: str, steps: Iterable[int], sizes: str) -> Advice:
    steady = judge([(timing, timing.seconds, timing.ratio) for timing in ranked])
    runs = {count: verdict for count in steps if (verdict := _first_to_finish(ranked, count))}
    if steady.winner is None:
        *first, last = (timing.contender.name for timing in steady.tie)
        text = f"{', '.join(first)} and {last} are a tie: take {steady.first.contender.name}, the simpler"
    elif steady.next is None:
        text = f"{steady.winner.contender.name} is all there was to time"
    else:
        text = f"take {steady.winner.contender.name}: {_compare_to_next(*steady.next)}"
    return Advice(dtype, steady, runs, f"For {sizes} in {dtype} on this machine ({machine()}), {text}.")


def judge(times: Sequence[tuple[Timing, Interval, Interval | None]]) -> Verdict:
    """Find the first by its time, and those that may be as fast.

    Parameters
    ----------
    times : sequence of (timing, seconds, ratio)
        The ratio is that to the smallest of the times.
    """
    ordered = sorted(times, key=lambda row: row[1].median)
    tie = sorted((row for row in ordered if not _is_slower(row[2])), key=_simplicity)
    following = next(((timing, ratio) for timing, _, ratio in ordered[1:] if ratio), None)
    if len(tie) == 1:
        return Verdict(tie[0][0], [], following, tie[0][1].median)
    return Verdict(None, [row[0] for row in tie], None, tie[0][1].median)


def _first_to_finish(ranked: list[Timing], steps: int) -> Verdict | None:
    """Find the contender that finishes this number of steps first, from nothing.

    Two are compared by the interval of their ratio, so what the machine did to both cancels: a slower one may be as
    fast as the low end of its ratio says, of the median of the fastest.
    """
    base = min(timing.seconds.median for timing in ranked)
    totals: list[tuple[Timing, Interval]] = []
    for timing in ranked:
        step = Interval(*(base * ratio for ratio in timing.ratio)) if timing.ratio else timing.seconds
        paired = timing._replace(seconds=Interval(timing.seconds.median, step.low, step.high))
        if total := paired.total(steps):
            totals.append((timing, total))
    if not totals:
        return None
    first = min((total for _, total in totals), key=lambda total: total.median)
    rows = []
    for timing, total in totals:
        ratio = Interval(total.median / first.median, total.low / first.high, total.high / first.low)
        rows.append((timing, total, Interval(1.0, 1.0, 1.0) if total is first else ratio))
    return judge(rows)


def machine() -> str:
    """Describe the machine in a few words."""
    cores = usable_cores()
    return f"{platform.system()} {platform.machine()}, {cores} core{'s' if cores != 1 else ''}"


def _is_slower(ratio: Interval | None) -> bool:
    """Whether it is slower than the best beyond doubt, and by enough to matter."""
    return ratio is not None and ratio.low > 1 and ratio.median >= GAIN


def _simplicity(row: tuple[Timing, Interval, Interval | None]) -> tuple[int, float]:
    """Return a sort key: numpy, torch, jax, others; the faster of one backend first."""
    name = row[0].contender.backend
    return (BUILT_IN.index(name) if name in BUILT_IN else len(BUILT_IN)), row[1].median


def _compare_to_next(second: Timing, ratio: Interval) -> str:
    median, low, high = ratio
    return f"{second.contender.name}, the next, takes {median:.2f} times as long ({low:.2f} to {high:.2f})"
