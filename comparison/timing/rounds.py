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
"""A reading takes at least this long: a call is repeated until it does."""
PAUSE, MAX_PAUSES = 0.002, 25
"""Seconds of a pause before a reading, in which the process shall be idle, and how many pauses wait for that at most:
the threads of OpenBLAS and OpenMP spin for some 25 ms after their work, on cores that the next contender needs."""
MIN_ROUNDS, MAX_ROUNDS = 30, 1000
"""The rounds that are aimed at, and their limit."""
LIMIT = 1.3
"""The share of its budget that a timing may take, where the estimates of its steps were too low."""
ERROR = 0.05
"""The share of verdicts that may name a winner where there is none."""
NARROW = 0.02
"""Rounds end once each interval is narrower than this share of its ratio. The width decides and never the verdict: to
stop as soon as there is a winner would find one in noise."""


class Reading(NamedTuple):
    """The times of one repetition."""

    seconds: float
    cpu_seconds: float  # of all threads of the process


Clock = Callable[[], Reading]


class Rounds(NamedTuple):
    """The readings of R rounds of C contenders."""

    seconds: np.ndarray  # (R, C)
    cpu_seconds: np.ndarray  # (R, C)

    def cores_used(self) -> np.ndarray:
        """Compute processor time over wall time, (C,)."""
        return self.cpu_seconds.sum(0) / self.seconds.sum(0)


class Interval(NamedTuple):
    """A median and its interval."""

    median: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """The interval's width as a share of the median."""
        return (self.high - self.low) / self.median


def read(call: Callable[[], Any], repetitions: int = 1, units: float = 1.0) -> Reading:
    """Time `call`, which must wait for its device; each call does `units` repetitions of it."""
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(repetitions):
        call()
    share = 1 / (repetitions * units)
    return Reading((time.perf_counter() - start) * share, (time.process_time() - cpu) * share)


def read_when_idle(call: Callable[[], Any], repetitions: int = 1, units: float = 1.0) -> Reading:
    """Time `call` as `read` does, once the threads of earlier work are idle."""
    for _ in range(MAX_PAUSES):
        before = time.process_time()
        time.sleep(PAUSE)
        if time.process_time() - before < PAUSE / 4:
            break
    return read(call, repetitions, units)


def calibrate(call: Callable[[], Any], seconds: float = 0.0) -> Clock:
    """Return a clock that repeats `call` often enough for a reading to take `seconds`, at least MIN_SECONDS."""
    seconds = max(seconds, MIN_SECONDS)
    fastest = read(call).seconds
    if fastest < seconds:
        fastest = min(fastest, *(read(call).seconds for _ in range(3)))
    repetitions = max(1, math.ceil(seconds / max(fastest, 1e-9)))
    return lambda: read_when_idle(call, repetitions)


def take_rounds(
    clocks: Sequence[Clock],
    budget: float,
    rng: np.random.Generator,
    *,
    max_rounds: int = MAX_ROUNDS,
    comparisons: int | None = None,
) -> Rounds:
    """Read all clocks, round by round, each round in random order.

    Parameters
    ----------
    clocks : sequence of C clocks
    budget : float
        Seconds after which no further round starts, once there are as many as the intervals need; after LIMIT of it
        none does.
    rng : Generator
        Draws the orders.
    max_rounds : int
        The limit.
    comparisons : int, optional
        Intervals that shall hold together; by default C - 1.

    Returns
    -------
    Rounds
        The readings.
    """
    import scipy.special  # noqa: F401, before the first round: the intervals need it, and to import it takes a while

    taken: list[list[Reading]] = []
    fewest = fewest_rounds(len(clocks) - 1 if comparisons is None else comparisons)
    start = time.perf_counter()
    with _no_garbage_collection():
        while len(taken) < max_rounds:
            spent = time.perf_counter() - start
            if spent > (budget if len(taken) >= fewest else LIMIT * budget) and taken:
                break
            if len(taken) >= MIN_ROUNDS and len(taken) % 10 == 0 and _all_narrow(taken):
                break
            by_contender = {c: clocks[c]() for c in rng.permutation(len(clocks))}
            taken.append([by_contender[c] for c in range(len(clocks))])
    readings = np.array(taken)  # (R, C, 2)
    return Rounds(readings[..., 0], readings[..., 1])


def fewest_rounds(comparisons: int) -> int:
    """Compute the number of rounds that an interval needs: by chance all n ratios lie above 1 in 2^-n of all cases."""
    return math.ceil(1 + math.log2(max(1, comparisons) / ERROR))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _all_narrow(taken: list[list[Reading]]) -> bool:
    seconds = np.array(taken)[..., 0]
    return all(ratio.width < NARROW for ratio in ratios(seconds, best_of(seconds)))


def best_of(seconds: np.ndarray) -> int:
    """Find the contender with the smallest median; `seconds` is (R, C)."""
    return int(np.argmin(np.median(seconds, axis=0)))


def ratios(seconds: np.ndarray, base: int, comparisons: int | None = None) -> list[Interval]:
    """Compute how many times as long as contender `base` each takes: the median of the rounds' ratios and its interval.

    All intervals hold together with 95%: each has the level 1 - ERROR / comparisons (Bonferroni); by default there are
    C - 1 comparisons.
    """
    count = seconds.shape[1] - 1 if comparisons is None else comparisons
    level = 1 - ERROR / max(1, count)
    paired = np.sort(seconds / seconds[:, [base]], axis=0)
    return [_median(column, level) for column in paired.T]


def median(values: np.ndarray, level: float = 1 - ERROR) -> Interval:
    """Compute the median of `values` and its bootstrap interval."""
    return _median(np.sort(values), level)


def _median(ordered: np.ndarray, level: float) -> Interval:
    low, high = _interval_places(len(ordered), level)
    return Interval(float(np.median(ordered)), float(ordered[low]), float(ordered[high]))


@cache
def _interval_places(n: int, level: float) -> tuple[int, int]:
    """Compute the places, among n ordered values, of the ends of the median's bootstrap interval.

    No resampling is needed: the r-th smallest of n draws is at most the k-th smallest value exactly if r of the draws
    are among the k smallest values, so its distribution is binomial (B. Efron, Bootstrap methods: another look at the
    jackknife, Annals of Statistics 7, 1979, section 3). For an even n the interval reaches from the lower of the two
    middle draws to the upper.
    """
    from scipy.special import bdtrc  # the binomial survival function; scipy.stats would take a second to import

    share, tail = np.arange(1, n) / n, (1 - level) / 2
    low = int((bdtrc((n + 1) // 2 - 1, n, share) < tail).sum())  # P(at least (n + 1) // 2 draws among the k smallest)
    high = int((bdtrc(n // 2, n, share) < 1 - tail).sum())
    return low, high
