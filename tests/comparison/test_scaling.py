"""What is said of several numbers of devices; test_jax_mesh.py and test_torch_ranks.py time real ones."""

from collections.abc import Callable
from functools import partial
from queue import Queue
from threading import Thread
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from rich.console import Console

import ports
from comparison.agreement.comparison import Subject, random_problem
from comparison.report.agreement_tables import headings
from comparison.report.scaling_tables import scaling_notes, scaling_table
from comparison.timing.rank_calls import broadcast_calls, end_calls, repeat_calls
from comparison.timing.recommendation import GAIN
from comparison.timing.rounds import Interval, Rounds, ratios
from comparison.timing.scaling import (
    COUNTED_STEPS,
    Point,
    Runs,
    advise_devices,
    first_steps_and_clock,
    make_runs,
    on_devices,
    scaling_curve,
    sent_each_step,
)
from comparison.timing.workloads import MAX_STEPS, Task
from ports.distributed import Sent, total_sent
from reference.datasets import load


def some_runs(*counts: int) -> Runs:
    def nothing(steps: int) -> None:
        pass

    several = sum(count > 1 for count in counts)
    subject = Subject("torch", SimpleNamespace(), "float64", "cpu")  # type: ignore[arg-type]
    return Runs(
        subject,
        "collocated",
        counts,
        [subject] * len(counts),
        [nothing] * len(counts),
        [nothing] * (len(counts) - 1),
        [nothing] * several,
    )


def timed(counts: tuple[int, ...], *seconds: float) -> list[Point]:
    """Return the curve where each run takes this long, but for the drift of a round."""
    drift = np.random.default_rng(0).uniform(1, 2, (30, 1))
    readings = np.array(seconds) * drift
    sent = [Sent(1, 800)] * len(counts)
    return scaling_curve(some_runs(*counts), 100, sent, Rounds(readings, readings))


def test_drift_of_the_machine_falls_out_of_all_shares() -> None:
    #                            strong      weak      silent
    one, two, four = timed((1, 2, 4), 8, 5, 4, 10, 16, 4, 1)
    assert [point.speedup.median for point in (one, two, four)] == pytest.approx([1, 1.6, 2])
    assert [point.efficiency for point in (one, two, four)] == pytest.approx([1, 0.8, 0.5])
    assert [point.weak_efficiency.median for point in (two, four)] == pytest.approx([0.8, 0.5])
    assert (one.weak_seconds, one.weak_efficiency, one.in_messages) == (one.seconds, (1, 1, 1), None)
    assert two.in_messages == pytest.approx((0.2, 0.2, 0.2))
    assert four.in_messages == pytest.approx((0.75, 0.75, 0.75))
    assert four.sent == (1, 800)


def test_the_least_number_need_not_be_one() -> None:
    two, four = timed((2, 4), 8, 4, 10, 6, 1)
    assert (two.base, two.efficiency, four.efficiency) == pytest.approx((2, 1, 1))
    assert four.weak_efficiency.median == pytest.approx(0.8)
    assert two.in_messages == pytest.approx((0.25, 0.25, 0.25))
    assert four.in_messages == pytest.approx((0.75, 0.75, 0.75))


def test_the_intervals_of_a_curve_hold_together() -> None:
    """Of the seven runs one is what the others are measured by: each ratio is one of six."""
    readings = np.random.default_rng(1).uniform(1, 2, (1000, 7))
    _, two, four = scaling_curve(some_runs(1, 2, 4), 100, [Sent(0, 0)] * 3, Rounds(readings, readings))

    def ratio(of: int, to: int) -> Interval:
        return ratios(readings[:, [to, of]], 0, comparisons=6)[1]

    assert (two.speedup, four.speedup) == (ratio(0, 1), ratio(0, 2))
    assert (two.weak_efficiency, four.weak_efficiency) == (ratio(0, 3), ratio(0, 4))
    assert four.in_messages is not None
    assert four.in_messages == pytest.approx(tuple(1 - ratio(6, 2)[n] for n in (0, 2, 1)))
    assert four.in_messages.low < four.in_messages.median < four.in_messages.high


def test_several_devices_are_named_only_if_they_are_faster_beyond_doubt() -> None:
    assert advise_devices(timed((1, 2, 4), 8, 5, 4, 10, 16, 4, 1)) == (
        "torch collocated in float64 is fastest on 4 devices: 2.00 times as fast as on 1 (2.00 to 2.00)."
    )
    assert "fastest on 2 devices" in advise_devices(timed((1, 2, 4), 8, 4, 5, 10, 16, 4, 1))
    slower = "torch collocated in float64 is not faster on more than 1 device."
    assert advise_devices(timed((1, 2), 8, 9, 10, 4)) == slower
    assert advise_devices(timed((1, 2), 8, 7.9, 10, 4)) == slower  # who would start two for this?
    readings = np.random.default_rng(1).uniform(1, 2, (30, 4))
    assert advise_devices(scaling_curve(some_runs(1, 2), 100, [Sent(0, 0)] * 2, Rounds(readings, readings))) == slower
    assert (
        advise_devices(timed((2, 4), 8, 9, 10, 6, 1))
        == "torch collocated in float64 is not faster on more than 2 devices."
    )


@pytest.mark.parametrize(
    ("speedup", "named"), [((GAIN, 1.01, 2), True), ((GAIN - 1e-9, 1.01, 2), False), ((GAIN, 1.0, 2), False)]
)
def test_the_least_that_is_named(speedup: tuple[float, float, float], named: bool) -> None:
    one, two = timed((1, 2), 8, 5, 10, 4)
    assert ("is fastest on 2 devices" in advise_devices([one, two._replace(speedup=Interval(*speedup))])) == named


def test_a_point_is_recorded_with_its_intervals() -> None:
    one, two = timed((1, 2), 8, 5, 10, 4)
    place = {"backend": "torch", "strategy": "collocated", "dtype": "float64", "device": "cpu", "devices": 2}
    assert two.as_json() == {
        **place,
        "batch": 100,
        "median_s": two.seconds.median,
        "interval_s": (two.seconds.low, two.seconds.high),
        "speedup": two.speedup.median,
        "speedup_interval": (two.speedup.low, two.speedup.high),
        "efficiency": two.efficiency,
        "weak_median_s": two.weak_seconds.median,
        "weak_interval_s": (two.weak_seconds.low, two.weak_seconds.high),
        "weak_efficiency": two.weak_efficiency.median,
        "weak_efficiency_interval": (two.weak_efficiency.low, two.weak_efficiency.high),
        "in_messages": two.in_messages and two.in_messages.median,
        "in_messages_interval": two.in_messages and (two.in_messages.low, two.in_messages.high),
        "messages": 1,
        "payload_bytes": 800,
    }
    assert (one.as_json()["in_messages"], one.as_json()["in_messages_interval"]) == (None, None)


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_table_leaves_columns_out_and_cuts_none(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=width).print(scaling_table([timed((1, 2, 4), 8, 5, 4, 10, 16, 4, 1)], width))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "1.6 (1.6 to 1.6)" in shown
    assert ("20% (20% to 20%)" in shown) == (width > 60)
    assert ("5.53 s to 6.92 s" in shown) == (width == 160)
    assert ("collocated" in shown) == (width > 80)


def test_of_several_strategies_each_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    curves = [[p._replace(strategy=name) for p in timed((1, 2), 8, 5, 10, 4)] for name in ("collocated", "structured")]
    Console(width=60).print(scaling_table(curves, 60))
    shown = capsys.readouterr().out
    assert shown.count("collocated") == shown.count("structured") == 2


WIDE = ("weak: a step", "weak: efficiency", "in messages", "messages", "bytes")


def test_notes_say_what_is_shared() -> None:
    notes = " ".join(scaling_notes([timed((1, 2), 8, 5, 10, 4)], WIDE))
    assert "These devices share one machine" in notes
    assert "weak: 100 on each." in notes
    assert "weak: 100 on each 2 of them." in " ".join(scaling_notes([timed((2, 4), 8, 4, 10, 6, 1)], WIDE))
    assert scaling_notes([], WIDE) == []


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (160, {"weak", "In messages", "Messages and bytes"}),
        (120, {"weak", "In messages", "Bytes"}),
        (80, {"In messages"}),
        (50, set()),
    ],
)
def test_notes_speak_of_columns_that_are_shown(width: int, words: set[str]) -> None:
    curves = [timed((1, 2), 8, 5, 10, 4)]
    notes = " ".join(scaling_notes(curves, headings(scaling_table(curves, width))))
    assert {word for word in ("weak", "In messages", "Messages and bytes", "Bytes") if word in notes} == words


# --- what is run


class Several:
    """A port of many devices that notes its steps of training."""

    GRADIENTS: ClassVar = {"collocated": "collocated"}
    rank = 0

    def __init__(self, calls: list[Any], count: int = 4, silent: bool = False) -> None:
        self.calls, self.count, self.silent = calls, count, silent

    def subset(self, count: int, *, silent: bool = False) -> "Several":
        return Several(self.calls, count, silent)

    def from_numpy(self, array: np.ndarray, *, dtype: str, device: str) -> np.ndarray:
        return array

    def train_steps(self, params: Any, x: Any, t: Any, batches: np.ndarray, *, strategy: str, **options: Any) -> None:
        self.calls.append((self.count, self.silent, strategy, batches.shape, len(x)))

    def synchronize(self, result: Any) -> Any:
        return result

    def sent(self, call: Callable[[], Any]) -> Sent:
        raise NotImplementedError

    def barrier(self) -> None:
        self.calls.append("waited")

    def gather(self, value: Any) -> list[Any]:
        return [value]


def subject_of(port: Any, source: str = "numpy") -> Subject:
    return Subject("torch", port, "float64", "cpu", source)


@pytest.fixture
def task() -> Task:
    data = load("random")
    return Task(
        "step", random_problem(data.x_train, data.t_train, hidden=3, samples=10, seed=0), data, partial(load, "random")
    )


@pytest.mark.parametrize("strategy", ["collocated", "closed form"])
def test_a_run_makes_its_steps_on_its_devices_and_waits_for_them(
    strategy: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comparison.timing.scaling.STEP_SAMPLES", 30)
    steps_made: list[Any] = []
    subject = subject_of(Several(steps_made))
    placed = [on_devices(subject, count) for count in (2, 4)]
    assert [where.name for where in placed if where] == ["torch on 2 devices", "torch on 4 devices"]
    runs = make_runs(subject, strategy, (2, 4), placed, task)
    assert runs[:4] == (subject, strategy, (2, 4), placed)
    for train in runs.all:
        train(3)
    sizes = [(2, False, 10), (4, False, 10), (4, False, 20), (2, True, 10), (4, True, 10)]
    expected = [(count, silent, strategy, (3, batch), 30) for count, silent, batch in sizes]
    assert steps_made[::2] == expected
    assert steps_made[1::2] == ["waited"] * 5


def test_on_one_device_a_plain_port_runs_and_only_on_the_first_rank(task: Task) -> None:
    port = Several([])
    one = on_devices(subject_of(port), 1)
    assert one is not None
    assert (one.name, one.port, one.dtype) == ("torch on 1 device", ports.load("numpy"), "float64")
    port.rank = 1
    assert on_devices(subject_of(port), 1) is None
    runs = make_runs(subject_of(port), "collocated", (1, 2), [None, on_devices(subject_of(port), 2)], task)
    assert len(runs.silent) == 1
    assert runs.strong[0](3) is None
    runs.strong[1](3)
    assert len(port.calls) == 2
    make_runs(subject_of(port), "collocated", (1,), [one], task).strong[0](3)  # a plain port: nobody to wait for


def test_the_first_steps_are_made_before_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled then is no part of how long a step is taken to be."""
    steps_made: list[int] = []
    read = first_steps_and_clock(steps_made.append)  # which takes no time
    assert steps_made[:4] == [1] * 3 + [MAX_STEPS]
    before = len(steps_made)
    assert read().seconds > 0
    assert steps_made[before:] == [steps_made[-1]] == [MAX_STEPS]


def two_ranks() -> tuple[Callable[[Any], list[Any]], Callable[[Any], list[Any]]]:
    """Return the gather functions of two ranks."""
    there: Queue[Any] = Queue()
    back: Queue[Any] = Queue()

    def first(value: Any) -> list[Any]:
        there.put(value)
        return [value, back.get(timeout=10)]

    def second(value: Any) -> list[Any]:
        back.put(value)
        return [there.get(timeout=10), value]

    return first, second


def test_the_other_ranks_make_what_the_first_makes_until_it_ends() -> None:
    calls: dict[str, list[Any]] = {"first": [], "second": []}
    runs = {
        rank: [lambda steps, rank=rank, name=name: calls[rank].append((name, steps)) for name in "abc"]
        for rank in calls
    }
    first, second = two_ranks()
    other = Thread(target=repeat_calls, args=(second, runs["second"]))
    other.start()
    a, _, c = broadcast_calls(first, runs["first"])
    for run, steps in ((c, 3), (a, 16), (c, 32)):
        run(steps)
    end_calls(first)
    other.join(timeout=10)
    assert not other.is_alive()
    assert calls["first"] == calls["second"] == [("c", 3), ("a", 16), ("c", 32)]


def test_what_a_call_sends_once_is_no_part_of_a_step() -> None:
    steps_made = []

    def sent(call: Callable[[], Any]) -> Sent:
        call()
        return Sent(1 + 2 * steps_made[-1], 7 + 800 * steps_made[-1])

    port = Several([])
    port.sent = sent  # type: ignore[method-assign]
    per_step = sent_each_step(subject_of(port), steps_made.append)
    assert per_step == (2, 800)
    assert {type(number) for number in per_step} == {int}
    assert steps_made == [COUNTED_STEPS, 2 * COUNTED_STEPS]


def test_a_port_of_one_device_sends_nothing() -> None:
    assert sent_each_step(subject_of(ports.load("numpy")), lambda steps: None) == (0, 0)
    assert sent_each_step(None, lambda steps: None) == (0, 0)
    assert total_sent([]) == (0, 0)
