"""Which backend to take: what paired timings say, and no more than they say."""

import os
import platform
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from comparison.timing.rounds import Interval, Rounds, best_of, median, ratios
from comparison.timing.workloads import Contender
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

    def total_seconds(self, steps: float) -> float:
        """Compute the time of this number of steps, the first call included."""
        return (self.contender.first_call_s or 0.0) + (steps - 1) * self.seconds.median


class Advice(NamedTuple):
    """What to take for one dtype."""

    dtype: str
    winner: Timing | None
    tie: list[Timing]  # none of them is slower for sure, and by GAIN; the first is the one to take
    sentence: str
    break_even: list[dict[str, object]]

    def as_json(self) -> dict[str, object]:
        """Return the advice as JSON records it."""
        return {
            "dtype": self.dtype,
            "winner": self.winner and self.winner.identity(),
            "tie": [timing.identity() for timing in self.tie],
            "sentence": self.sentence,
            "break_even": self.break_even,
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


def advise(timed: Sequence[Timing], what: str, sizes: str) -> list[Advice]:
    """Advise which contender to take, for each dtype.

    Parameters
    ----------
    timed : sequence of Timing
    what : str
        gradient, step or run.
    sizes : str
        Those of the net and the batch, such as "64-50-10 and batches of 100".
    """
    ranked = [timing for timing in timed if timing.contender.ranked]
    return [
        _advise_for_dtype([timing for timing in ranked if timing.contender.dtype == dtype], dtype, what, sizes)
        for dtype in dict.fromkeys(timing.contender.dtype for timing in ranked)
    ]


def _advise_for_dtype(ranked: list[Timing], dtype: str, what: str, sizes: str) -> Advice:
    ordered = sorted(ranked, key=lambda timing: timing.seconds.median)
    tie = sorted((timing for timing in ordered if not _is_slower(timing)), key=_simplicity)
    winner = tie[0] if len(tie) == 1 else None
    if winner is None:
        *first, last = (timing.contender.name for timing in tie)
        verdict = f"{', '.join(first)} and {last} are a tie: take {tie[0].contender.name}, the simpler"
    elif len(ordered) == 1:
        verdict = f"{winner.contender.name} is all there was to time"
    else:
        verdict = f"take {winner.contender.name}: {_compare_to_next(ordered[1])}{_late_start(winner, ordered)}"
    sentence = f"For {sizes} in {dtype} on this machine ({machine()}), {verdict}."
    break_even = [] if what == "run" else [_first_to_finish(ranked, steps) for steps in BREAK_EVEN_STEPS]
    return Advice(dtype, winner, tie if winner is None else [], sentence, break_even)


def machine() -> str:
    """Describe the machine in a few words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = int(os.environ.get("FDNET_THREADS", cores or 1))
    return f"{platform.system()} {platform.machine()}, {cores} core{'s' if cores != 1 else ''}"


def _is_slower(timing: Timing) -> bool:
    """Whether it is slower than the best beyond doubt, and by enough to matter."""
    return timing.ratio is not None and timing.ratio.low > 1 and timing.ratio.median >= GAIN


def _simplicity(timing: Timing) -> tuple[int, float]:
    """Return a sort key: numpy, torch, jax, others; the faster of one backend first."""
    name = timing.contender.backend
    return (BUILT_IN.index(name) if name in BUILT_IN else len(BUILT_IN)), timing.seconds.median


def _compare_to_next(second: Timing) -> str:
    assert second.ratio is not None
    ratio, low, high = second.ratio
    return f"{second.contender.name}, the next, takes {ratio:.2f} times as long ({low:.2f} to {high:.2f})"


def _late_start(winner: Timing, ordered: list[Timing]) -> str:
    """Describe after how many steps the winner has caught up with all that have a shorter first call."""
    steps = [count for other in ordered if (count := overtaking_steps(winner, other)) is not None]
    return f"; its longer first call is made up for after {max(steps):,.0f} steps" if steps and max(steps) > 2 else ""


def overtaking_steps(late: Timing, early: Timing) -> float | None:
    """Compute after how many steps the one with the longer first call has caught up, or None if it never does."""
    lead = late.total_seconds(1) - early.total_seconds(1)
    gain = early.seconds.median - late.seconds.median
    return 1 + lead / gain if lead > 0 and gain > 0 else None


def _first_to_finish(ranked: list[Timing], steps: int) -> dict[str, object]:
    """Find the contender that finishes this number of steps first, the first call included, and its time."""
    first = min(ranked, key=lambda timing: timing.total_seconds(steps))
    return {"steps": steps, **first.identity(), "seconds": first.total_seconds(steps)}
