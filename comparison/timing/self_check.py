"""An A/A test: each contender against itself, where whatever tells them apart is wrong."""

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from comparison.timing.rounds import MIN_ROUNDS, Clock, Interval, fewest_rounds, ratios, take_rounds


class SelfCheck(NamedTuple):
    """How often a clock was told apart from itself."""

    verdicts: int
    told_apart: int  # the interval of the ratio excludes 1
    winners: int  # and the ratio is so large that advice would name a winner
    sweeps: int = 0  # over all sizes
    crossing_sweeps: int = 0  # in which a contender overtakes itself between two sizes


def self_check(clocks: Sequence[Sequence[Clock]], budget: float, gain: float, rng: np.random.Generator) -> SelfCheck:
    """Time each contender against itself, again and again for `budget` seconds.

    A share of ERROR of the verdicts tells them apart if the intervals have the level that they claim, and in no more
    than that share of the sweeps over all sizes a contender overtakes itself.

    Parameters
    ----------
    clocks : sequence of sequences of clocks
        Those of each size; of one size there are no sweeps.
    budget : float
        Seconds.
    gain : float
        The least ratio of a winner.
    rng : Generator
        Draws the orders.
    """
    verdicts: list[Interval] = []
    crossings: list[bool] = []
    comparisons, start, longest, left = sum(map(len, clocks)), time.perf_counter(), 0.0, budget
    while longest <= left:
        taken = [_against_itself(row, left * len(row) / comparisons, comparisons, rng) for row in clocks]
        verdicts += [ratios(seconds, 0)[1] for row in taken for seconds in row if len(seconds) >= fewest_rounds(1)]
        if len(clocks) > 1:
            crossings.append(any(_crosses(over, comparisons) for over in zip(*taken, strict=False)))
        longest = max(longest, left - (left := budget - (time.perf_counter() - start)))
    apart = [ratio for ratio in verdicts if not ratio.low <= 1 <= ratio.high]
    winners = sum(max(ratio.median, 1 / ratio.median) >= gain for ratio in apart)
    return SelfCheck(len(verdicts), len(apart), winners, len(crossings), sum(crossings))


def _against_itself(
    clocks: Sequence[Clock], budget: float, comparisons: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Read each clock twice a round; return (R, 2) seconds for each."""
    twice = [clock for clock in clocks for _ in range(2)]
    rounds = max(MIN_ROUNDS, fewest_rounds(comparisons))
    seconds = take_rounds(twice, budget, rng, max_rounds=rounds, comparisons=comparisons).seconds
    return [seconds[:, n : n + 2] for n in range(0, len(twice), 2)]


def _crosses(over: Sequence[np.ndarray], comparisons: int) -> bool:
    """Whether a contender, by its seconds at each size, is faster than itself at one size and slower at the next."""
    signs = [_sign(ratios(seconds, 0, comparisons)[1]) for seconds in over]
    return any(a * b < 0 for a, b in pairwise(signs))


def _sign(ratio: Interval) -> int:
    return 1 if ratio.low > 1 else -1 if ratio.high < 1 else 0
