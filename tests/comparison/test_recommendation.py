import numpy as np
import pytest

from comparison.timing.crossovers import crossovers
from comparison.timing.recommendation import GAIN, Timing, advise, machine, overtaking_steps, timings
from comparison.timing.rounds import Interval, Rounds, best_of, ratios
from timings import contender, timing

BEST = (1.0, 1.0, 1.0)


def test_a_winner_is_named_with_the_next_and_where() -> None:
    (advice,) = advise([timing("jax", 1.0, BEST), timing("numpy", 2.0, (2.0, 1.9, 2.1))], "step", "7-5-3")
    assert advice.winner is not None
    assert advice.winner.contender.backend == "jax"
    assert advice.tie == []
    assert advice.sentence.startswith("For 7-5-3 in float64 on this machine (")
    assert (
        "take jax collocated: numpy collocated, the next, takes 2.00 times as long (1.90 to 2.10)." in advice.sentence
    )


@pytest.mark.parametrize("ratio", [(1.5, 0.99, 2.0), (1.04, 1.03, 1.05)], ids=["noise", "too small a gain"])
def test_a_tie_goes_to_the_simpler(ratio: tuple[float, float, float]) -> None:
    timed = [timing("jax", 1.0, BEST), timing("numpy", ratio[0], ratio), timing("torch", 3.0, (3.0, 2.9, 3.1))]
    (advice,) = advise(timed, "step", "7-5-3")
    assert advice.winner is None
    assert [t.contender.backend for t in advice.tie] == ["numpy", "jax"]
    assert "numpy collocated and jax collocated are a tie: take numpy collocated, the simpler." in advice.sentence


def test_a_tie_of_three_is_listed() -> None:
    timed = [timing(name, 1.0, BEST) for name in ("jax", "torch", "numpy")]
    (advice,) = advise(timed, "step", "7-5-3")
    assert "numpy collocated, torch collocated and jax collocated are a tie" in advice.sentence


def test_the_next_is_the_next_in_time() -> None:
    slower = [timing("jax", 3.0, (3.0, 2.9, 3.1)), timing("torch", 2.0, (2.0, 1.9, 2.1))]
    (advice,) = advise([*slower, timing("numpy", 1.0, BEST)], "step", "7-5-3")
    assert "take numpy collocated: torch collocated, the next, takes 2.00 times as long" in advice.sentence


@pytest.mark.parametrize(("ratio", "tied"), [((1.5, 1.0, 2.0), True), ((GAIN, 1.04, 1.06), False)])
def test_an_interval_that_touches_1_is_a_tie_and_a_gain_of_just_enough_is_none(
    ratio: tuple[float, float, float], tied: bool
) -> None:
    (advice,) = advise([timing("jax", 1.0, BEST), timing("numpy", ratio[0], ratio)], "step", "7-5-3")
    assert bool(advice.tie) == tied


def test_a_port_from_outside_is_no_simpler_than_those_built_in() -> None:
    (advice,) = advise([timing("mine", 1.0, BEST), timing("jax", 1.01, (1.01, 1.0, 1.02))], "step", "7-5-3")
    assert [t.contender.backend for t in advice.tie] == ["jax", "mine"]


def test_one_contender_beats_nobody() -> None:
    (advice,) = advise([timing("jax", 1.0, BEST)], "step", "7-5-3")
    assert advice.sentence.endswith("jax collocated is all there was to time.")


def test_nothing_gives_no_advice() -> None:
    assert advise([], "step", "7-5-3") == []


def test_each_dtype_has_its_advice() -> None:
    timed = [timing("jax", 1.0, BEST, dtype="float32"), timing("numpy", 1.0, BEST)]
    assert [advice.dtype for advice in advise(timed, "step", "7-5-3")] == ["float32", "float64"]


def test_the_break_even_counts_the_first_call() -> None:
    quick, fast = timing("numpy", 1e-3, (10.0, 9.0, 11.0), first=0.01), timing("jax", 1e-4, BEST, first=1.0)
    (advice,) = advise([quick, fast], "step", "7-5-3")
    assert [(row["steps"], row["backend"]) for row in advice.break_even] == [
        (1, "numpy"),
        (100, "numpy"),
        (10_000, "jax"),
        (1_000_000, "jax"),
    ]
    steps = overtaking_steps(fast, quick)
    assert steps is not None
    assert fast.total_seconds(steps) == pytest.approx(quick.total_seconds(steps))
    assert f"its longer first call is made up for after {steps:,.0f} steps." in advice.sentence
    assert overtaking_steps(quick, fast) is None


def test_the_first_of_the_steps_is_the_first_call() -> None:
    assert [timing("jax", 2.0, BEST, first=3.0).total_seconds(steps) for steps in (1, 2, 11)] == [3.0, 5.0, 23.0]
    assert timing("jax", 2.0, BEST).total_seconds(1) == 0.0


def test_only_what_starts_later_and_is_faster_catches_up() -> None:
    quick = timing("numpy", 2.0, BEST, first=1.0)
    assert overtaking_steps(timing("jax", 1.0, BEST, first=4.0), quick) == 4.0
    for seconds, first in ((1.0, 1.0), (2.0, 4.0), (3.0, 4.0), (1.0, 0.5), (3.0, 0.5)):
        assert overtaking_steps(timing("jax", seconds, BEST, first=first), quick) is None


@pytest.mark.parametrize(("first", "mentioned"), [(2.0, False), (2.5, True)])
def test_a_first_call_made_up_for_at_once_is_not_worth_a_word(first: float, mentioned: bool) -> None:
    """After one step or two."""
    timed = [timing("jax", 1.0, BEST, first=first), timing("numpy", 2.0, (2.0, 1.9, 2.1), first=1.0)]
    (advice,) = advise(timed, "step", "7-5-3")
    assert ("made up for" in advice.sentence) == mentioned


def test_a_run_counts_its_first_call_itself() -> None:
    (advice,) = advise([timing("numpy", 1.0, BEST), timing("jax", 2.0, (2.0, 1.9, 2.1))], "run", "7-5-3")
    assert advice.break_even == []


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


def sized(*seconds: float) -> list[Timing]:
    return [timing(name, s, BEST) for name, s in zip(("numpy", "jax"), seconds, strict=True)]


def test_a_crossover_is_where_the_medians_meet() -> None:
    """One takes n, the other 10 sqrt(n): they meet at 100."""
    sizes = (1, 10, 1000, 10_000)
    (row,) = crossovers(sizes, [sized(n, 10 * n**0.5) for n in sizes])
    assert row["size"] == pytest.approx(100)
    assert (row["faster_below"]["backend"], row["faster_above"]["backend"]) == ("numpy", "jax")


def test_a_crossing_within_the_noise_is_none() -> None:
    assert crossovers((1, 2), [sized(1.0, 1.005), sized(1.005, 1.0)]) == []
    assert crossovers((1, 2), [sized(1.0, 2.0), sized(1.005, 1.0)]) == []


def test_parallel_lines_never_cross() -> None:
    assert crossovers((1, 10, 100), [sized(n, 2 * n) for n in (1, 10, 100)]) == []


def test_only_what_is_ranked_in_one_dtype_and_timed_at_either_size_crosses() -> None:
    def named(seconds: float, **changes: object) -> Timing:
        timed = timing("numpy", seconds, BEST)
        return timed._replace(contender=timed.contender._replace(**changes))  # type: ignore[arg-type]

    def crossing(other: dict[str, object]) -> int:
        sizes = [[named(1.0), named(2.0, **other)], [named(2.0), named(1.0, **other)]]
        return len(crossovers((1, 2), sizes))

    assert crossing({"backend": "jax"}) == 1
    assert crossing({"backend": "jax", "ranked": False}) == 0
    assert crossing({"dtype": "float32"}) == 0
    both = sized(1.0, 2.0)
    for left in both:
        assert crossovers((1, 2), [both, [left._replace(seconds=Interval(1.5, 1.4, 1.6))]]) == []


def test_intervals_that_touch_do_not_cross() -> None:
    fast, slow = (timing(name, 1.0, BEST) for name in ("numpy", "jax"))
    before = [fast._replace(seconds=Interval(1.0, 0.9, 1.1)), slow._replace(seconds=Interval(1.2, 1.1, 1.3))]
    assert crossovers((1, 2), [before, sized(2.0, 1.0)]) == []


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
    (won,) = advise([timing("jax", 1.0, BEST), timing("numpy", 2.0, (2.0, 1.9, 2.1), first=5.0)], "step", "7-5-3")
    rows = [{"steps": steps, **jax, "seconds": steps - 1.0} for steps in (1, 100, 10_000, 1_000_000)]
    expected = {"dtype": "float64", "winner": jax, "tie": [], "sentence": won.sentence, "break_even": rows}
    assert won.as_json() == expected
    (tied,) = advise([timing("jax", 1.0, BEST), timing("numpy", 1.0, BEST)], "run", "7-5-3")
    tie = [jax | {"backend": "numpy"}, jax]
    assert tied.as_json() == expected | {"winner": None, "tie": tie, "sentence": tied.sentence, "break_even": []}
