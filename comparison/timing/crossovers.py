"""Between which sizes one contender becomes faster than another."""

import math
from collections.abc import Sequence
from itertools import pairwise

from comparison.timing.recommendation import Timing


def crossovers(sizes: Sequence[float], timed: Sequence[Sequence[Timing]]) -> list[dict[str, object]]:
    """Find where, between two sizes, one ranked contender becomes faster than another.

    That is where the ratio of their medians passes 1, by a straight line in logarithms; only if the two are told apart
    at both sizes, since a crossing within the noise is none.
    """
    rows: list[dict[str, object]] = []
    for (low, before), (high, after) in pairwise(zip(sizes, timed, strict=True)):
        at_high = {timing.contender[:4]: timing for timing in after}
        for a in before:
            for b in before:
                rows += _crossing(low, high, (a, b), (at_high.get(a.contender[:4]), at_high.get(b.contender[:4])))
    return rows


def _crossing(
    low: float, high: float, before: tuple[Timing, Timing], after: tuple[Timing | None, Timing | None]
) -> list[dict[str, object]]:
    """Return a row if `before[0]` loses its lead over `before[1]`."""
    (a, b), (c, d) = before, after
    if c is None or d is None or not (a.contender.ranked and b.contender.ranked):
        return []
    if a.contender.dtype != b.contender.dtype or not (_faster(a, b) and _faster(d, c)):
        return []
    lead, lag = math.log(b.seconds.median / a.seconds.median), math.log(c.seconds.median / d.seconds.median)
    size = math.exp(math.log(low) + math.log(high / low) * lead / (lead + lag))
    return [{"size": size, "faster_below": a.identity(), "faster_above": b.identity()}]


def _faster(fast: Timing, slow: Timing) -> bool:
    """Whether it is faster beyond doubt: the intervals of the medians don't touch."""
    return fast.seconds.high < slow.seconds.low
