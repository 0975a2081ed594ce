"""Which backend to take: what paired timings say, and no more than they say."""

import os
import platform
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

import ports
from comparison.timing.rounds import Interval, Rounds, best_of, median, ratios
from comparison.timing.workloads import CLOSED_FORM, Contender

GAIN = 1.05
"""A smaller gain makes no winner: nobody should change the backend for it."""
STEPS = (1, 100, 10_000, 1_000_000)
"""Where the table of break-even looks."""


class Timing(NamedTuple):
    """What the rounds say of one contender."""

    contender: Contender
    seconds: Interval
    ratio: Interval | None  # to the best that is ranked in its dtype; None where none is
    to_closed_form: Interval | None  # to the closed form of the same backend, dtype and device
    rounds: int
    cores_used: float

    def as_json(self, what: str) -> dict[str, object]:
        """Return what JSON records."""
        c = self.contender
        return {
            "backend": c.backend,
            "strategy": c.strategy,
            "dtype": c.dtype,
            "device": c.device,
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


class Advice(NamedTuple):
    """What to take for one dtype."""

    dtype: str
    winner: Timing | None
    tie: list[Timing]  # none of them is slower for sure, and by GAIN; the one to take is the first
    sentence: str
    break_even: list[dict[str, object]]

    def as_json(self) -> dict[str, object]:
        """Return what JSON records."""
        return {
            "dtype": self.dtype,
            "winner": self.winner and _identity(self.winner),
            "tie": [_identity(timing) for timing in self.tie],
            "sentence": self.sentence,
            "break_even": self.break_even,
        }


def _identity(timing: Timing) -> dict[str, str]:
    c = timing.contender
    return {"backend": c.backend, "strategy": c.strategy, "dtype": c.dtype, "device": c.device}


def timings(contenders: Sequence[Contender], rounds: Rounds) -> list[Timing]:
    """Return what the rounds say of each contender; ratios are among those of one dtype."""
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


def advise(found: Sequence[Timing], what: str, sizes: str) -> list[Advice]:
    """Return the advice for each dtype.

    Parameters
    ----------
    found : sequence of Timing
    what : str
        gradient, step or run.
    sizes : str
        What it was measured on, such as "64-50-10 and batches of 100".
    """
    ranked = [timing for timing in found if timing.contender.ranked]
    return [
        _advice([timing for timing in ranked if timing.contender.dtype == dtype], dtype, what, sizes)
        for dtype in dict.fromkeys(timing.contender.dtype for timing in ranked)
    ]


def _advice(ranked: list[Timing], dtype: str, what: str, sizes: str) -> Advice:
    ordered = sorted(ranked, key=lambda timing: timing.seconds.median)
    tie = sorted((timing for timing in ordered if not _is_slower(timing)), key=_simplicity)
    winner = tie[0] if len(tie) == 1 else None
    where = f"For {sizes} in {dtype} on this machine ({machine()})"
    if winner is None:
        tied = _listed([timing.contender.name for timing in tie])
        verdict = f"{tied} are a tie: take {tie[0].contender.name}, the simpler"
    elif len(ordered) == 1:
        verdict = f"{winner.contender.name} is all there was to time"
    else:
        verdict = f"take {winner.contender.name}: {_beats(ordered[1])}{_made_up_for(winner, ordered)}"
    break_even = [] if what == "run" else _break_even(ranked)
    return Advice(dtype, winner, tie if winner is None else [], f"{where}, {verdict}.", break_even)


def machine() -> str:
    """Return a few words on the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = int(os.environ.get("FDNET_THREADS", cores or 1))
    return f"{platform.system()} {platform.machine()}, {cores} core{'s' if cores != 1 else ''}"


def _is_slower(timing: Timing) -> bool:
    """Whether it's slower than the best beyond doubt, and by enough to matter."""
    return timing.ratio is not None and timing.ratio.low > 1 and timing.ratio.median >= GAIN


def _simplicity(timing: Timing) -> tuple[int, float]:
    """Order numpy, torch, jax, others; of one backend the faster first."""
    known = ports.BUILT_IN
    name = timing.contender.backend
    return (known.index(name) if name in known else len(known)), timing.seconds.median


def _beats(second: Timing) -> str:
    assert second.ratio is not None
    ratio, low, high = second.ratio
    return f"{second.contender.name}, the next, takes {ratio:.2f} times as long ({low:.2f} to {high:.2f})"


def _made_up_for(winner: Timing, ordered: list[Timing]) -> str:
    """Return after how many steps the winner has caught up with whatever starts before it."""
    steps = [count for other in ordered if (count := overtaking(winner, other)) is not None]
    return f"; its longer first call is made up for after {max(steps):,.0f} steps" if steps and max(steps) > 2 else ""


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _break_even(ranked: list[Timing]) -> list[dict[str, object]]:
    """Return, for each number of STEPS, which ends first, counting its first call, and what it then takes."""
    rows: list[dict[str, object]] = []
    for steps in STEPS:
        first = min(ranked, key=lambda timing: total_seconds(timing, steps))
        rows.append({"steps": steps, **_identity(first), "seconds": total_seconds(first, steps)})
    return rows


def total_seconds(timing: Timing, steps: float) -> float:
    """Return what so many steps take, the first call among them."""
    return (timing.contender.first_call_s or 0.0) + (steps - 1) * timing.seconds.median


def overtaking(slow_start: Timing, quick_start: Timing) -> float | None:
    """Return after how many steps the one whose first call is longer has caught up, or None if it never does."""
    lead = total_seconds(slow_start, 1) - total_seconds(quick_start, 1)
    gain = quick_start.seconds.median - slow_start.seconds.median
    return 1 + lead / gain if lead > 0 and gain > 0 else None


def crossovers(sizes: Sequence[float], found: Sequence[Sequence[Timing]]) -> list[dict[str, object]]:
    """Return where, between two sizes, one ranked contender becomes faster than another.

    Where the ratio of two medians passes 1, by a straight line in logarithms; only if the two are told apart at either
    size, since a crossing within the noise is none.
    """
    rows: list[dict[str, object]] = []
    for (low, before), (high, after) in pairwise(zip(sizes, found, strict=True)):
        at_high = {timing.contender[:4]: timing for timing in after}
        for a in before:
            for b in before:
                rows += _crossing(low, high, (a, b), (at_high.get(a.contender[:4]), at_high.get(b.contender[:4])))
    return rows


def _crossing(
    low: float, high: float, before: tuple[Timing, Timing], after: tuple[Timing | None, Timing | None]
) -> list[dict[str, object]]:
    """Return the row for `before[0]` losing its lead over `before[1]`, if it does."""
    (a, b), (c, d) = before, after
    if (
        c is None
        or d is None
        or not (a.contender.ranked and b.contender.ranked)
        or a.contender.dtype != b.contender.dtype
    ):
        return []
    lead, lag = np.log(b.seconds.median / a.seconds.median), np.log(c.seconds.median / d.seconds.median)
    if not (_apart(a, b) and _apart(d, c)):
        return []
    size = float(np.exp(np.log(low) + np.log(high / low) * lead / (lead + lag)))
    return [{"size": size, "faster_below": _identity(a), "faster_above": _identity(b)}]


def _apart(fast: Timing, slow: Timing) -> bool:
    """Whether the intervals of the two medians don't touch."""
    return fast.seconds.high < slow.seconds.low
