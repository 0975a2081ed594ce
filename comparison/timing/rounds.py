"""Fair timing: contenders take turns in random order, and only paired statistics tell them apart.

One function timed after another is told apart by what else the machine does meanwhile. Here every round times each
contender once, in random order, so that drift and noise fall on all alike, and a ratio is taken within its round.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np

MIN_SECONDS = 0.005
"""A reading takes at least so long: a call is repeated until it does."""
MIN_ROUNDS, MAX_ROUNDS = 30, 1000
"""Rounds that are aimed at, and that are never passed."""
ERROR = 0.05
"""The share of all verdicts that may name a winner where there is none."""
NARROW = 0.02
"""Rounds end once each interval is narrower than this share of its ratio. The width decides and never the verdict: to
stop as soon as a winner shows would find one in noise."""


class Reading(NamedTuple):
    """What one repetition of what is timed took."""

    seconds: float
    cpu_seconds: float  # of all threads of the process


Clock = Callable[[], Reading]


class Rounds(NamedTuple):
    """The readings of R rounds of C contenders."""

    seconds: np.ndarray  # (R, C)
    cpu_seconds: np.ndarray  # (R, C)

    def cores_used(self) -> np.ndarray:
        """Return processor time over wall time (C,)."""
        return self.cpu_seconds.sum(0) / self.seconds.sum(0)


class Interval(NamedTuple):
    """A median and the interval that holds it."""

    median: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """The interval's width as a share of the median."""
        return (self.high - self.low) / self.median


def reading(call: Callable[[], Any], repetitions: int = 1, units: float = 1.0) -> Reading:
    """Time `call`, which must wait for its device; it does `units` of what is timed."""
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(repetitions):
        call()
    share = 1 / (repetitions * units)
    return Reading((time.perf_counter() - start) * share, (time.process_time() - cpu) * share)


def calibrated(call: Callable[[], Any]) -> Clock:
    """Return a clock that repeats `call` often enough for a reading to take MIN_SECONDS."""
    fastest = reading(call).seconds
    if fastest < MIN_SECONDS:
        fastest = min(fastest, *(reading(call).seconds for _ in range(3)))
    repetitions = max(1, math.ceil(MIN_SECONDS / max(fastest, 1e-9)))
    return lambda: reading(call, repetitions)


def take_rounds(
    clocks: Sequence[Clock], budget: float, rng: np.random.Generator, *, max_rounds: int = MAX_ROUNDS
) -> Rounds:
    """Read all clocks, round by round, each round in random order.

    Parameters
    ----------
    clocks : sequence of C clocks
    budget : float
        Seconds after which no further round starts, once there are as many as the intervals need.
    rng : Generator
        What the orders are drawn from.
    max_rounds : int
        Rounds after which it ends in any case.

    Returns
    -------
    Rounds
        The readings.
    """
    taken: list[list[Reading]] = []
    fewest = fewest_rounds(len(clocks))
    start = time.perf_counter()
    with _no_garbage_collection():
        while len(taken) < max_rounds:
            if len(taken) >= fewest and time.perf_counter() - start > budget:
                break
            if len(taken) >= MIN_ROUNDS and len(taken) % 10 == 0 and _all_narrow(taken):
                break
            found = {c: clocks[c]() for c in rng.permutation(len(clocks))}
            taken.append([found[c] for c in range(len(clocks))])
    readings = np.array(taken)  # (R, C, 2)
    return Rounds(readings[..., 0], readings[..., 1])


def fewest_rounds(contenders: int) -> int:
    """Return the rounds without which no interval holds: all n ratios lie above 1 by chance in 2^-n of all cases."""
    return math.ceil(1 + math.log2(max(1, contenders - 1) / ERROR))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class SelfCheck(NamedTuple):
    """How often two clocks that are one and the same were told apart."""

    verdicts: int
    told_apart: int  # the interval of the ratio excludes 1
    winners: int  # and the ratio is so large that advice would name a winner


def self_check(clocks: Sequence[Clock], budget: float, gain: float, rng: np.random.Generator) -> SelfCheck:
    """Time each contender against itself: MIN_ROUNDS rounds for a verdict on each, over and over for `budget` seconds.

    By construction ERROR of the verdicts tell them apart, if the intervals are what they are said to be.
    """
    verdicts: list[Interval] = []
    start = time.perf_counter()
    while not verdicts or time.perf_counter() - start < budget:
        twice = [clock for clock in clocks for _ in range(2)]
        seconds = take_rounds(twice, math.inf, rng, max_rounds=MIN_ROUNDS).seconds
        verdicts += [ratios(seconds[:, n : n + 2], 0)[1] for n in range(0, len(twice), 2)]
    apart = [ratio for ratio in verdicts if not ratio.low <= 1 <= ratio.high]
    return SelfCheck(len(verdicts), len(apart), sum(max(r.median, 1 / r.median) >= gain for r in apart))


def _all_narrow(taken: list[list[Reading]]) -> bool:
    seconds = np.array(taken)[..., 0]
    return all(ratio.width < NARROW for ratio in ratios(seconds, best_of(seconds)))


def best_of(seconds: np.ndarray) -> int:
    """Return the contender with the smallest median; `seconds` is (R, C)."""
    return int(np.argmin(np.median(seconds, axis=0)))


def ratios(seconds: np.ndarray, base: int, comparisons: int | None = None) -> list[Interval]:
    """Return how many times as long as contender `base` each takes: the median of the rounds' ratios, with an interval.

    All intervals hold together with 95%: each is made for 1 - ERROR / comparisons (Bonferroni), of which there are
    C - 1 unless told.
    """
    count = seconds.shape[1] - 1 if comparisons is None else comparisons
    level = 1 - ERROR / max(1, count)
    paired = np.sort(seconds / seconds[:, [base]], axis=0)
    return [_median(column, level) for column in paired.T]


def median(values: np.ndarray, level: float = 1 - ERROR) -> Interval:
    """Return the median of `values` and its bootstrap interval."""
    return _median(np.sort(values), level)


def _median(ordered: np.ndarray, level: float) -> Interval:
    low, high = _ranks(len(ordered), level)
    return Interval(float(np.median(ordered)), float(ordered[low]), float(ordered[high]))


@cache
def _ranks(n: int, level: float) -> tuple[int, int]:
    """Return the places, among n values in order, of the ends of the median's bootstrap interval.

    No resampling is needed: the r-th smallest of n draws is at most the k-th smallest value exactly if r of the draws
    are among the k smallest values, so its distribution is binomial (B. Efron, Bootstrap methods: another look at the
    jackknife, Annals of Statistics 7, 1979, section 3). For an even n the interval reaches from the lower of the two
    middle draws to the upper.
    """
    draws = np.arange(n + 1)
    logs = np.array([math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1) for j in draws])
    share = np.arange(1, n)[:, None] / n  # (n - 1, 1)
    mass = np.exp(logs + draws * np.log(share) + (n - draws) * np.log1p(-share))  # (n - 1, n + 1)
    at_least = np.cumsum(mass[:, ::-1], axis=1)[:, ::-1]  # P(at least r of n draws among the k smallest)
    tail = (1 - level) / 2
    low = int((at_least[:, (n + 1) // 2] < tail).sum())
    high = int((at_least[:, n // 2 + 1] < 1 - tail).sum())
    return low, high
