"""The statistics, on clocks whose truth is known: a planted gain is found, none is found in noise, drift cancels."""

import gc
import math
from collections.abc import Callable

import numpy as np
import pytest

from comparison.timing import rounds as timing_rounds
from comparison.timing.rounds import (
    MAX_PAUSES,
    PAUSE,
    Interval,
    Reading,
    Rounds,
    best_of,
    calibrate,
    median,
    ratios,
    read,
    read_when_idle,
    take_rounds,
)


@pytest.fixture(autouse=True)
def no_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of rounds are taken here: collecting before each set of them would be all that takes time."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


def clocks(truths: list[float], *, noise: float, seed: int, drift: float = 0.0) -> list[Callable[[], Reading]]:
    """Return clocks of these true times on one machine, which slows down by `drift` with every reading."""
    rng, slowness = np.random.default_rng(seed), [1.0]

    def clock(truth: float) -> Callable[[], Reading]:
        def read() -> Reading:
            slowness[0] *= 1 + drift
            seconds = truth * slowness[0] * math.exp(noise * rng.standard_t(3))  # outliers, as on a busy machine
            return Reading(seconds, 1.0)

        return read

    return [clock(truth) for truth in truths]


def thirty(contenders: list[Callable[[], Reading]], seed: int = 0) -> np.ndarray:
    return take_rounds(contenders, math.inf, np.random.default_rng(seed), max_rounds=30).seconds


def apart(ratio: Interval) -> bool:
    return not ratio.low <= 1 <= ratio.high


def test_a_gain_of_a_tenth_is_found() -> None:
    intervals = [ratios(thirty(clocks([1.0, 1.1], noise=0.05, seed=seed), seed), 0)[1] for seed in range(200)]
    assert sum(ratio.low > 1 for ratio in intervals) >= 195
    assert sum(ratio.low <= 1.1 <= ratio.high for ratio in intervals) >= 180


@pytest.mark.parametrize("drift", [0.0, 0.01, -0.01])
def test_no_gain_is_found_where_there_is_none_whatever_the_drift(drift: float) -> None:
    """400 verdicts of 5% each: more than 33 or fewer than 9 have a probability below 0.5%."""
    intervals = [ratios(thirty(clocks([1.0, 1.0], noise=0.05, seed=s, drift=drift), s), 0)[1] for s in range(400)]
    assert 9 <= sum(map(apart, intervals)) <= 33


def test_drift_falls_on_all_alike() -> None:
    """In 30 rounds of two the machine becomes six times as slow; the ratios don't see it."""
    rounds = [thirty(clocks([1.0, 1.2], noise=0.02, seed=seed, drift=0.03), seed) for seed in range(100)]
    assert all(seconds[-1].mean() > 4 * seconds[0].mean() for seconds in rounds)
    intervals = [ratios(seconds, 0)[1] for seconds in rounds]
    assert sum(ratio.low <= 1.2 <= ratio.high for ratio in intervals) >= 88  # of 95: 88 or fewer in 0.3% of all cases
    assert all(ratio.width < 0.1 for ratio in intervals)


def test_turns_are_random_and_each_round_has_each_contender_once() -> None:
    order: list[int] = []

    def clock(n: int) -> Callable[[], Reading]:
        def read() -> Reading:
            order.append(n)
            return Reading(1.0 + n, 10.0 * n)

        return read

    rounds = take_rounds([clock(n) for n in range(3)], math.inf, np.random.default_rng(0), max_rounds=30)
    turns = np.array(order).reshape(30, 3)
    assert (np.sort(turns) == [0, 1, 2]).all()
    assert len({tuple(turn) for turn in turns}) == 6
    assert (rounds.seconds == [1, 2, 3]).all()
    assert (rounds.cpu_seconds == [0, 10, 20]).all()


def test_all_intervals_hold_together() -> None:
    """Five contenders that are the same as the best: one of the intervals excludes 1 in 5% of all cases, not in 20%."""
    wrong = 0
    for seed in range(200):
        intervals = ratios(thirty(clocks([1.0] * 6, noise=0.05, seed=seed), seed), 0)
        wrong += any(apart(ratio) for ratio in intervals[1:])
    assert wrong <= 20


def test_rounds_end_when_the_intervals_are_narrow() -> None:
    quiet = take_rounds(clocks([1.0, 2.0], noise=1e-4, seed=0), math.inf, np.random.default_rng(0))
    noisy = take_rounds(clocks([1.0, 2.0], noise=0.1, seed=0), math.inf, np.random.default_rng(0), max_rounds=80)
    assert len(quiet.seconds) == timing_rounds.MIN_ROUNDS
    assert len(noisy.seconds) == 80


@pytest.mark.parametrize("n", [5, 8, 30, 31, 100])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_the_interval_is_that_of_the_bootstrap(n: int, level: float) -> None:
    """Of 100,000 resamples: their quantiles lie within the exact ones, for an odd n on them."""
    rng = np.random.default_rng(0)
    values = rng.exponential(size=n)
    resampled = np.median(values[rng.integers(0, n, (100_000, n))], axis=1)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    interval = median(values, level)
    assert interval.median == np.median(values)
    if n % 2:
        assert (interval.low, interval.high) == (low, high)
    ordered = np.sort(values)
    assert ordered.searchsorted(low, "right") - ordered.searchsorted(interval.low, "right") in (0, 1)
    assert ordered.searchsorted(interval.high) - ordered.searchsorted(high) in (0, 1)


@pytest.mark.parametrize("n", range(1, 7))
@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_the_interval_is_exact(n: int, level: float) -> None:
    """Of all n^n resamples: an end is passed by the middle draw, for an even n by either, in no more than the tail."""
    draws = np.sort(np.indices((n,) * n).reshape(n, -1), axis=0)
    lower, upper = draws[(n - 1) // 2], draws[n // 2]
    low = next(k for k in range(n) if (lower <= k).mean() >= (1 - level) / 2)
    high = next(k for k in range(n) if (upper <= k).mean() >= (1 + level) / 2)
    assert median(np.arange(n), level)[1:] == (low, high)


@pytest.mark.parametrize(("contenders", "comparisons"), [(2, None), (3, None), (6, None), (2, 1), (2, 4), (2, 0)])
def test_the_error_is_shared_among_the_comparisons(contenders: int, comparisons: int | None) -> None:
    seconds = np.random.default_rng(0).lognormal(size=(300, contenders))
    level = 1 - timing_rounds.ERROR / (comparisons or max(1, contenders - 1))
    expected = [median(seconds[:, n] / seconds[:, 0], level) for n in range(contenders)]
    assert ratios(seconds, 0, comparisons) == expected


def test_the_best_has_the_smallest_median() -> None:
    assert best_of(np.array([[2.0, 1.0, 1.5], [2.0, 1.0, 1.5], [0.1, 9.0, 1.5]])) == 1


def test_cores_are_processor_time_over_wall_time() -> None:
    rounds = Rounds(np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 4.0]]), np.array([[2.0, 1.0], [1.0, 1.0], [3.0, 2.0]]))
    assert rounds.cores_used() == pytest.approx([1.5, 0.5])


class Watch:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now, self.cpu = 128.0, 64.0

    def taking(self, *seconds: float) -> Callable[[], None]:
        """Return a call that takes these seconds, one after the other, on two cores."""
        left = iter(seconds)

        def call() -> None:
            passed = next(left)
            self.now, self.cpu = self.now + passed, self.cpu + 2 * passed

        return call


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr("time.perf_counter", lambda: watch.now)
    monkeypatch.setattr("time.process_time", lambda: watch.cpu)
    return watch


def test_a_reading_is_of_one_unit(watch: Watch) -> None:
    assert read(watch.taking(6.0)) == (6.0, 12.0)
    assert read(watch.taking(1.0, 2.0, 3.0, 2.0), repetitions=4) == (2.0, 4.0)
    assert read(watch.taking(1.0, 2.0, 3.0, 2.0), repetitions=4, units=8.0) == (0.25, 0.5)


@pytest.mark.parametrize(("busy", "waited"), [(0, 1), (7, 8), (math.inf, MAX_PAUSES)])
def test_a_reading_waits_until_the_threads_of_what_ran_before_are_idle(
    busy: float, waited: int, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread takes a core for `busy` pauses."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        watch.cpu += seconds if len(pauses) <= busy else 1e-5

    monkeypatch.setattr("time.sleep", sleep)
    assert read_when_idle(watch.taking(3.0)) == (3.0, pytest.approx(6.0))
    assert pauses == [PAUSE] * waited


@pytest.mark.parametrize(
    ("takes", "repetitions"),
    [([2, 4, 4, 4], 3), ([4, 4, 1, 2], 5), ([4.9] * 4, 2), ([5], 1), ([7], 1), ([0.6] * 4, 9)],
)
def test_a_call_is_repeated_until_it_takes_long_enough(watch: Watch, takes: list[float], repetitions: int) -> None:
    """By the fastest of four; a long one is made once."""
    watch.now = 0.0
    calls = watch.taking(*(ms / 1000 for ms in takes), *[1.0] * repetitions)
    clock = calibrate(calls)
    assert clock().seconds == pytest.approx(1.0)
    with pytest.raises(StopIteration):
        calls()


def test_a_call_that_takes_no_time_is_taken_to_need_a_nanosecond(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing_rounds, "MIN_SECONDS", 1e-6)
    calls: list[int] = []
    calibrate(lambda: calls.append(0))()
    assert len(calls) == 4 + 1000


def test_no_round_starts_after_the_budget(watch: Watch) -> None:
    """But on it: as many as are needed are 6, of a second each."""
    call = watch.taking(*[1.0] * 100)
    assert len(take_rounds([lambda: read(call)], 10.0, np.random.default_rng(0)).seconds) == 11


@pytest.mark.parametrize("contenders", [1, 2, 3, 6, 30])
def test_a_spent_budget_leaves_as_many_rounds_as_the_intervals_need(watch: Watch, contenders: int) -> None:
    fewest = timing_rounds.fewest_rounds(contenders - 1)
    assert 2.0 ** (1 - fewest) <= timing_rounds.ERROR / max(1, contenders - 1) < 2.0 ** (2 - fewest)
    call, budget = watch.taking(*[1.0] * 10_000), fewest * contenders / 1.2
    rounds = take_rounds([lambda: read(call)] * contenders, budget, np.random.default_rng(0))
    assert len(rounds.seconds) == fewest


def test_more_comparisons_need_more_rounds(watch: Watch) -> None:
    fewest, call = timing_rounds.fewest_rounds(1000), watch.taking(*[1.0] * 1000)
    clocks, rng = [lambda: read(call)] * 2, np.random.default_rng(0)
    assert len(take_rounds(clocks, 2 * fewest / 1.2, rng, comparisons=1000).seconds) == fewest


def test_the_budget_is_a_limit(watch: Watch) -> None:
    """Where the estimates were too low, and there are too few rounds for a verdict; but one there is."""
    for budget, rounds in ((10.0, 4), (1e-3, 1)):
        call = watch.taking(*[4.0] * 100)
        assert len(take_rounds([lambda call=call: read(call)], budget, np.random.default_rng(0)).seconds) == rounds


def test_garbage_is_collected_again_afterwards() -> None:
    def broken() -> Reading:
        assert not gc.isenabled()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        take_rounds([broken], 1.0, np.random.default_rng(0))
    assert gc.isenabled()
