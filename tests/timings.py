"""Made-up timings for the tests of advice, tables and commands."""

from comparison.timing.recommendation import Timing
from comparison.timing.rounds import Interval, Reading
from comparison.timing.workloads import Contender


def contender(
    backend: str, *, strategy: str = "collocated", dtype: str = "float64", first: float | None = 0.0
) -> Contender:
    ranked = strategy != "closed form"
    return Contender(backend, strategy, dtype, "cpu", lambda: Reading(0, 0), first, None, None, None, ranked)


def timing(
    backend: str, seconds: float, ratio: tuple[float, float, float], *, first: float = 1.0, dtype: str = "float64"
) -> Timing:
    around = Interval(seconds, 0.99 * seconds, 1.01 * seconds)
    return Timing(contender(backend, first=first, dtype=dtype), around, Interval(*ratio), None, 30, 1.0)
