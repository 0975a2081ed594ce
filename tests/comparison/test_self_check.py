"""The test of the tests: clocks against themselves, and clocks that only pretend to be."""

import gc
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from comparison.timing.rounds import MIN_ROUNDS, Interval, Reading, ratios
from comparison.timing.self_check import SelfCheck, self_check


@pytest.fixture(autouse=True)
def no_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of rounds are taken here: collecting before each set of them would be all that takes time."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


class Watch:
    """A clock that moves by a second with each reading."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        patch.setattr("time.perf_counter", lambda: self.now)

    def clock(self, seconds: Callable[[], float]) -> Callable[[], Reading]:
        def read() -> Reading:
            self.now += 1.0
            return Reading(seconds(), 1.0)

        return read


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


class Ordered:
    """A generator that leaves everything in its place."""

    def permutation(self, n: int) -> np.ndarray:
        return np.arange(n)


IN_ORDER: Any = Ordered()
PASS = 2.0 * MIN_ROUNDS
"""Seconds of a verdict, a second a reading."""


def apart(ratio: Interval) -> bool:
    return not ratio.low <= 1 <= ratio.high


def test_it_tells_apart_by_pairs(watch: Watch) -> None:
    """Each verdict is on MIN_ROUNDS readings of a clock beside as many of the same."""
    rng, taken = np.random.default_rng(0), [[], [], []]  # type: tuple[np.random.Generator, list[list[float]]]

    def noise(n: int) -> float:
        taken[n].append(math.exp(rng.standard_normal()))
        return taken[n][-1]

    clocks = [watch.clock(lambda n=n: noise(n)) for n in range(3)]  # type: ignore[misc]
    checks = [self_check([clocks], 3 * PASS, 1.05, IN_ORDER) for _ in range(100)]
    pairs = np.array(taken).reshape(-1, MIN_ROUNDS, 2)
    assert len(pairs) == sum(check.verdicts for check in checks) == 300
    assert sum(check.told_apart for check in checks) == sum(apart(ratios(pair, 0)[1]) for pair in pairs) > 0


@pytest.mark.parametrize(
    ("first", "second", "counted"),
    [
        (1.0, 2.0, (1, 1, 1)),
        (2.0, 1.0, (1, 1, 1)),
        (1.0, 1.25, (1, 1, 1)),
        (1.0, 1.2, (1, 1, 0)),
        (1.0, 1.0, (1, 0, 0)),
    ],
)
def test_it_counts(first: float, second: float, counted: tuple[int, int, int], watch: Watch) -> None:
    """Of a clock that isn't itself, of which every other reading takes longer."""
    turns = iter([first, second] * 1000)
    check = self_check([[watch.clock(lambda: next(turns))]], PASS, 1.25, IN_ORDER)
    assert check == (*counted, 0, 0)


def test_it_goes_on_until_its_budget_is_spent(watch: Watch) -> None:
    rng = np.random.default_rng(0)
    noisy = watch.clock(lambda: math.exp(rng.standard_normal()))
    assert self_check([[noisy]], 2 * PASS, 1.05, IN_ORDER).verdicts == 2
    assert self_check([[noisy]], 2.9 * PASS, 1.05, IN_ORDER).verdicts == 2


def test_too_few_rounds_give_no_verdict(watch: Watch) -> None:
    assert self_check([[watch.clock(lambda: 1.0)]], 5.0, 1.05, IN_ORDER) == SelfCheck(0, 0, 0)


def test_a_sweep_in_which_one_overtakes_itself_is_counted(watch: Watch) -> None:
    """At the first size the first of the pair is faster, at the second size the other one."""
    faster, slower = (iter(pair * 1000) for pair in ([1.0, 2.0], [2.0, 1.0]))
    sizes = [[watch.clock(lambda: next(faster))], [watch.clock(lambda: next(slower))]]
    check = self_check(sizes, 2 * PASS, 1.05, IN_ORDER)
    assert (check.sweeps, check.crossing_sweeps) == (1, 1)
    same = [[watch.clock(lambda: 1.0)], [watch.clock(lambda: 1.0)]]
    assert self_check(same, 2 * PASS, 1.05, IN_ORDER) == SelfCheck(2, 0, 0, 1, 0)


def test_sweeps_over_noise_hardly_ever_cross(watch: Watch) -> None:
    """40 sweeps over four sizes of three contenders: all intervals of a sweep hold together."""
    rng = np.random.default_rng(0)
    noisy = watch.clock(lambda: math.exp(0.1 * rng.standard_t(3)))
    check = self_check([[noisy] * 3] * 4, 40 * 12 * PASS, 1.05, np.random.default_rng(1))
    assert check.sweeps == 40
    assert check.crossing_sweeps <= 1
    assert check.told_apart <= 0.09 * check.verdicts
