"""Who is fastest at which size, and between which sizes one contender becomes faster than another.

All intervals of a sweep hold together with 95%: of all pairs, at all sizes.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np

from comparison.timing.recommendation import Timing, judge
from comparison.timing.rounds import Interval, ratios


class Swept(NamedTuple):
    """What was timed at one size."""

    size: int
    timings: Sequence[Timing]
    seconds: np.ndarray  # (R, C), of its rounds

    def ranked(self) -> dict[tuple[str, ...], int]:
        """Return the column of each contender that is ranked, by backend, strategy, dtype and device."""
        return {t.contender[:4]: n for n, t in enumerate(self.timings) if t.contender.ranked}

    def ratio(self, slow: int, fast: int, comparisons: int) -> Interval:
        """Compute how many times as long as the contender of one column that of another takes."""
        return ratios(self.seconds[:, [fast, slow]], 0, comparisons)[1]


def count_comparisons(contenders: Sequence[tuple[str, ...]], sizes: int) -> int:
    """Count the pairs of contenders of one dtype, (backend, strategy, dtype, ...), at all sizes."""
    return sizes * sum(a[2] == b[2] for a, b in combinations(contenders, 2))


def fastest_by_size(swept: Sequence[Swept], comparisons: int) -> list[dict[str, Any]]:
    """Find, for each dtype and size, the contender that is fastest, or those that may be."""
    rows = []
    for at in swept:
        ranked = at.ranked()
        for dtype in dict.fromkeys(key[2] for key in ranked):
            columns = [n for key, n in ranked.items() if key[2] == dtype]
            best = min(columns, key=lambda n: at.timings[n].seconds.median)
            times = [(at.timings[n], at.timings[n].seconds, at.ratio(n, best, comparisons)) for n in columns]
            verdict = judge(times)
            fastest = [timing.identity() for timing in verdict.tie or [verdict.first]]
            rows.append({"dtype": dtype, "size": at.size, "fastest": fastest})
    return rows


def crossovers(swept: Sequence[Swept], comparisons: int) -> list[dict[str, Any]]:
    """Find where, between two sizes, one contender becomes faster than another.

    That is where the ratio of their medians passes 1, by a straight line in logarithms; only if the two are told apart
    at both sizes, since a crossing within the noise is none.
    """
    return [row for low, high in pairwise(swept) for row in _crossings(low, high, comparisons)]


def _crossings(low: Swept, high: Swept, comparisons: int) -> Iterator[dict[str, Any]]:
    before, after = low.ranked(), high.ranked()
    for a, b in combinations([key for key in before if key in after], 2):
        if a[2] != b[2]:
            continue
        for fast, slow in ((a, b), (b, a)):
            lead = low.ratio(before[slow], before[fast], comparisons)
            lag = high.ratio(after[fast], after[slow], comparisons)
            if lead.low > 1 and lag.low > 1:
                share = math.log(lead.median) / (math.log(lead.median) + math.log(lag.median))
                size = math.exp(math.log(low.size) + math.log(high.size / low.size) * share)
                below, above = (low.timings[before[key]].identity() for key in (fast, slow))
                yield {"size": size, "faster_below": below, "faster_above": above}
