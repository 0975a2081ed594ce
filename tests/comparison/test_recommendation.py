from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from comparison.timing.recommendation import GAIN, Timing, advise, machine, timings
from comparison.timing.rounds import Interval, Rounds, best_of, ratios
from comparison.timing.workloads import Task
from reference.datasets import load
from timings import contender, timing

BEST = (1.0, 1.0, 1.0)
PROBLEM: Any = None
STEP, RUN = (Task(what, PROBLEM, None, partial(load, "random")) for what in ("step", "run"))


def test_a_winner_is_named_with_the_next_and_where() -> None:
    (advice,) = advise([timing("jax", 1.0, BEST), timing("numpy", 2.0, (2.0, 1.9, 2.1))], STEP, "7-5-3")
    assert advice.steady is not None
    assert advice.steady.winner is not None
    assert advice.steady.winner.contender.backend == "jax"
    assert advice.steady.tie == []
    assert advice.sentence.startswith("For 7-5-3 in float64 on this machine (")
    assert (
        "take jax collocated: numpy collocated, the next, takes 2.00 times as long (1.90 to 2.10)." in advice.sentence
    )


@pytest.mark.parametrize("ratio", [(1.5, 0.99, 2.0), (1.04, 1.03, 1.05)], ids=["noise", "too small a gain"])
def test_a_tie_goes_to_the_simpler(ratio: tuple[float, float, float]) -> None:
    timed = [timing("jax", 1.0, BEST), timing("numpy", ratio[0], ratio), timing("torch", 3.0, (3.0, 2.9, 3.1))]
    (advice,) = advise(timed, STEP, "7-5-3")
    assert advice.steady is not None
    assert advice.steady.winner is None
    assert [t.contender.backend for t in advice.steady.tie] == ["numpy", "jax"]
    assert "numpy collocated and jax collocated are a tie: take numpy collocated, the simpler." in advice.sentence


def test_a_tie_of_three_is_listed() -> None:
    timed = [timing(name, 1.0, BEST) for name in ("jax", "torch", "numpy")]
    (advice,) = advise(timed, STEP, "7-5-3")
    assert "numpy collocated, torch collocated and jax collocated are a tie" in advice.sentence


def test_the_next_is_the_next_in_time() -> None:
    slower = [timing("jax", 3.0, (3.0, 2.9, 3.1)), timing("torch", 2.0, (2.0, 1.9, 2.1))]
    (advice,) = advise([*slower, timing("numpy", 1.0, BEST)], STEP, "7-5-3")
    assert "take numpy collocated: torch collocated, the next, takes 2.00 times as long" in advice.sentence


@pytest.mark.parametrize(("ratio", "tied"), [((1.5, 1.0, 2.0), True), ((GAIN, 1.04, 1.06), False)])
def test_an_interval_that_touches_1_is_a_tie_and_a_gain_of_just_enough_is_none(
    ratio: tuple[float, float, float], tied: bool
) -> None:
    (advice,) = advise([timing("jax", 1.0, BEST), timing("numpy", ratio[0], ratio)], STEP, "7-5-3")
    assert advice.steady is not None
    assert bool(advice.steady.tie) == tied


def test_a_port_from_outside_is_no_simpler_than_those_built_in() -> None:
    (advice,) = advise([timing("mine", 1.0, BEST), timing("jax", 1.01, (1.01, 1.0, 1.02))], STEP, "7-5-3")
    assert advice.steady is not None
    assert [t.contender.backend for t in advice.steady.tie] == ["jax", "mine"]


def test_one_contender_beats_nobody() -> None:
    (advice,) = advise([timing("jax", 1.0, BEST)], STEP, "7-5-3")
    assert advice.sentence.endswith("jax collocated is all there was to time.")


def test_nothing_gives_no_advice() -> None:
    assert advise([], STEP, "7-5-3") == []


def test_each_dtype_has_its_advice() -> None:
    timed = [timing("jax", 1.0, BEST, dtype="float32"), timing("numpy", 1.0, BEST)]
    assert [advice.dtype for advice in advise(timed, STEP, "7-5-3")] == ["float32", "float64"]


def test_the_break_even_counts_the_first_call() -> None:
    quick, fast = timing("numpy", 1e-3, (10.0, 9.0, 11.0), first=0.01), timing("jax", 1e-4, BEST, first=1.0)
    (advice,) = advise([quick, fast], STEP, "7-5-3")
    assert [(steps, verdict.first.contender.backend) for steps, verdict in advice.runs.items()] == [
        (1, "numpy"),
        (100, "numpy"),
        (10_000, "jax"),
        (1_000_000, "jax"),
    ]


def test_the_users_number_of_steps_is_one_of_them() -> None:
    (advice,) = advise([timing("jax", 1.0, BEST)], replace(STEP, iterations=300), "7-5-3")
    assert list(advice.runs) == [1, 100, 300, 10_000, 1_000_000]


def test_the_first_of_the_steps_is_the_first_call() -> None:
    one = timing("jax", 2.0, BEST, first=3.0)
    assert [total.median for steps in (1, 2, 11) if (total := one.total(steps))] == [3.0, 5.0, 23.0]
    assert one.total(11) == pytest.approx((23.0, 3 + 10 * 1.98, 3 + 10 * 2.02))


def test_estimates_have_no_part_in_the_break_even() -> None:
    """What was timed at a sample has no first call."""
    sampled = timing("numpy", 1e-3, BEST)
    sampled = sampled._replace(contender=sampled.contender._replace(first_call_s=None))
    slow = timing("jax", 1.0, (1e3, 9e2, 1.1e3), first=5.0)
    (advice,) = advise([sampled, slow], STEP, "7-5-3")
    assert {verdict.first.contender.backend for verdict in advice.runs.values()} == {"jax"}
    assert sampled.total(10) is None
    assert advise([sampled], STEP, "7-5-3")[0].runs == {}


@pytest.mark.parametrize(("low", "tied"), [(0.9, True), (1.2, False)])
def test_a_run_is_won_by_what_is_faster_beyond_doubt(low: float, tied: bool) -> None:
    """Paired, as the ratios are: the intervals of the two themselves may overlap."""
    wide = Interval(1.0, 0.2, 5.0)
    timed = [timing("jax", 1.0, BEST), timing("numpy", 1.3, (1.3, low, 1.5))]
    (advice,) = advise([t._replace(seconds=wide._replace(median=t.seconds.median)) for t in timed], STEP, "7-5-3")
    verdict = advice.runs[10_000]
    assert [t.contender.backend for t in verdict.tie] == (["numpy", "jax"] if tied else [])
    assert verdict.first.contender.backend == ("numpy" if tied else "jax")


def test_where_no_winner_may_be_named_none_is() -> None:
    advices = advise([timing("jax", 1.0, BEST), timing("numpy", 9.0, (9.0, 8.0, 10.0))], STEP, "7-5-3", "It was busy.")
    assert [advice.as_json() for advice in advices] == [
        {"dtype": "float64", "winner": None, "tie": [], "sentence": "It was busy.", "break_even": []}
    ]


def test_a_run_counts_its_first_call_itself() -> None:
    (advice,) = advise([timing("numpy", 1.0, BEST), timing("jax", 2.0, (2.0, 1.9, 2.1))], RUN, "7-5-3")
    assert advice.runs == {}


def test_ratios_are_among_one_dtype_and_never_to_what_is_not_ranked() -> None:
    contenders = [
        contender("numpy", strategy="closed form"),
        contender("numpy"),
        contender("jax"),
        contender("jax", dtype="float32"),
    ]
    seconds = np.tile([1.0, 4.0, 2.0, 0.5], (30, 1))
    timed = timings(contenders, Rounds(seconds, seconds))
    assert [t.ratio and t.ratio.median for t in timed] == [0.5, 2.0, 1.0, 1.0]
    assert [t.to_closed_form and t.to_closed_form.median for t in timed] == [1.0, 4.0, None, None]
    assert [t.cores_used for t in timed] == [1.0] * 4
    assert [t.contender for t in timed] == contenders
    assert [t.seconds.median for t in timed] == [1.0, 4.0, 2.0, 0.5]
    assert [t.rounds for t in timed] == [30] * 4


def test_the_ratio_is_taken_within_the_round() -> None:
    """The rounds differ by a factor of 100; the pairs by 10% in each of them."""
    rounds = np.exp(np.random.default_rng(0).uniform(0, np.log(100), 30))[:, None] * [1.0, 1.1]
    slow = timings([contender("numpy"), contender("jax")], Rounds(rounds, rounds))[1]
    assert slow.ratio is not None
    assert slow.ratio == pytest.approx((1.1, 1.1, 1.1))


@pytest.mark.parametrize("ranked", [1, 2, 3])
def test_all_intervals_of_what_is_ranked_hold_together(ranked: int) -> None:
    """The more there are the wider is each; the closed form is none of them."""
    seconds = np.random.default_rng(0).lognormal(size=(200, 4))
    contenders = [contender(f"port {n}", strategy="collocated" if n < ranked else "closed form") for n in range(4)]
    timed = timings(contenders, Rounds(seconds, seconds))
    best = best_of(seconds[:, :ranked])
    assert [t.ratio for t in timed[:ranked]] == ratios(seconds[:, :ranked], best)
    assert timed[3].ratio == ratios(seconds[:, [best, 3]], 0, ranked - 1)[1]


@pytest.mark.parametrize(
    ("affinity", "count", "threads", "cores"),
    [
        ({0}, 8, None, "1 core"),
        ({2, 3, 5}, 8, None, "3 cores"),
        ({2, 3, 5}, 8, "2", "2 cores"),
        (None, 8, None, "8 cores"),
        (None, None, None, "1 core"),
    ],
)
def test_the_machine_has_the_cores_that_may_be_used(
    affinity: set[int] | None, count: int | None, threads: str | None, cores: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those given to the process, where the system reports them, or the threads of --threads."""
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("os.cpu_count", lambda: count)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: affinity if pid == 0 else set(), raising=False)
    if affinity is None:
        monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.delenv("FDNET_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("FDNET_THREADS", threads)
    assert machine() == f"Linux x86_64, {cores}"


# --- what JSON records


def test_a_timing_is_recorded_whole() -> None:
    c = contender("jax", dtype="float32", first=3.0)._replace(peak_bytes=7, error=1e-7, estimated="2 of 9 parameters")
    row = Timing(c, Interval(2.0, 1.9, 2.1), Interval(1.5, 1.4, 1.6), Interval(1.2, 1.1, 1.3), 30, 0.5)
    assert row.as_json("step") == {
        **{"backend": "jax", "strategy": "collocated", "dtype": "float32", "device": "cpu", "what": "step"},
        **{"first_call_s": 3.0, "median_s": 2.0, "interval_s": (1.9, 2.1), "rounds": 30},
        **{"ratio_to_best": 1.5, "ratio_interval": (1.4, 1.6), "ratio_to_closed_form": 1.2},
        **{"cores_used": 0.5, "peak_bytes": 7, "error": 1e-7, "estimated": "2 of 9 parameters", "ranked": True},
    }
    unranked = row._replace(ratio=None, to_closed_form=None).as_json("step")
    assert (unranked["ratio_to_best"], unranked["ratio_interval"], unranked["ratio_to_closed_form"]) == (
        None,
        None,
        None,
    )


def test_advice_is_recorded_whole() -> None:
    jax = {"backend": "jax", "strategy": "collocated", "dtype": "float64", "device": "cpu"}
    (won,) = advise([timing("jax", 1.0, BEST), timing("numpy", 2.0, (2.0, 1.9, 2.1), first=5.0)], STEP, "7-5-3")
    rows = [{"steps": steps, **jax, "seconds": steps, "tie": []} for steps in (1, 100, 10_000, 1_000_000)]
    expected = {"dtype": "float64", "winner": jax, "tie": [], "sentence": won.sentence, "break_even": rows}
    assert won.as_json() == expected
    (tied,) = advise([timing("jax", 1.0, BEST), timing("numpy", 1.0, BEST)], RUN, "7-5-3")
    tie = [jax | {"backend": "numpy"}, jax]
    assert tied.as_json() == expected | {"winner": None, "tie": tie, "sentence": tied.sentence, "break_even": []}
