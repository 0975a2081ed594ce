"""What fits into the budget, by the estimates of one step."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

import ports
from comparison.agreement.comparison import Outcome, Subject, random_problem
from comparison.timing import contenders
from comparison.timing.contenders import (
    FEWEST,
    MOST,
    PREPARATION,
    Candidate,
    Planned,
    estimate,
    make_contender,
    plan_rounds,
)
from comparison.timing.ranking import prepare
from comparison.timing.rounds import MIN_SECONDS, Reading, fewest_rounds
from comparison.timing.run_costs import RunCosts
from comparison.timing.starts import Start
from comparison.timing.workloads import STEPS_SECONDS, Task
from reference.datasets import load
from reference.defaults import CLOSED_FORM

READINGS = fewest_rounds(4) + PREPARATION


def candidate(seconds: float, per_parameter: float | None = None, strategy: str = "collocated") -> Candidate:
    return Candidate(Subject("numpy", SimpleNamespace(), "float64", "cpu"), strategy, seconds, per_parameter)  # type: ignore[arg-type]


def task(what: str = "step", **sizes: int) -> Task:
    data = load("random")
    net = random_problem(data.x_train, data.t_train, **{"hidden": 3, "samples": 6, "seed": 0} | sizes)
    return Task(what, net, data, partial(load, "random"))


def seconds_of(planned: Planned) -> float:
    """Return the estimated seconds of a reading."""
    c = planned.candidate
    return max(planned.reading, c.seconds if planned.sample is None else planned.sample * (c.per_parameter or 0))


@pytest.mark.parametrize("budget", [0.1, 1.0, 3.0, 20.0, 1000.0])
@pytest.mark.parametrize("count", [1, 5, 30])
def test_what_is_planned_fits_into_the_budget(budget: float, count: int) -> None:
    """Steps of 0.1 ms to 100 s: whatever is asked, the fewest rounds take no longer than the budget."""
    field = [candidate(10.0 ** (n % 7 - 4)) for n in range(count)]
    field += [candidate(10.0**n, 10.0 ** (n - 4), "loop") for n in range(count)]
    comparisons = len(field)
    plan = plan_rounds(field, budget, comparisons)
    readings = fewest_rounds(comparisons) + PREPARATION
    needed = readings * sum(map(seconds_of, plan.planned))
    assert needed <= max(budget, readings * MIN_SECONDS * len(field)) * 1.0001
    assert plan.seconds == pytest.approx(needed)
    assert len(plan.planned) + len(plan.left_out) == len(field)


def test_what_the_quick_leave_is_for_the_slow() -> None:
    slow = 0.34 / READINGS  # of a second that is shared by five
    plan = plan_rounds([candidate(slow), *(candidate(1e-5) for _ in range(4))], 1.0, 4)
    assert plan.left_out == []
    plan = plan_rounds([candidate(slow), *(candidate(0.17 / READINGS) for _ in range(4))], 1.0, 4)
    assert [c.seconds for c, _ in plan.left_out] == [slow]


def test_a_step_that_exceeds_its_share_is_sampled_and_only_if_it_does() -> None:
    (planned,) = plan_rounds([candidate(1.0, 1e-4, "loop")], 1000.0, 1).planned
    assert planned.sample is None
    (planned,) = plan_rounds([candidate(1.0, 1e-3, "loop")], 0.5, 1).planned
    share = 0.5 / (fewest_rounds(1) + PREPARATION)
    assert planned.sample == int(share / 1e-3)
    (planned,) = plan_rounds([candidate(1e6, 1e-5, "loop")], 1000.0, 1).planned
    assert planned.sample == MOST["loop"]


def test_what_does_not_fit_is_left_out_with_the_reason() -> None:
    plan = plan_rounds([candidate(2.0), candidate(1e3, 1.0, "batched")], 3.0, 1)
    readings = fewest_rounds(1) + PREPARATION
    assert plan.planned == []
    assert [reason for _, reason in plan.left_out] == [
        f"one takes about 2 s, and {readings} times that is more than its share of --budget, 1.5 s.",
        f"{FEWEST} parameters of one takes about 4 s, and {readings} times that is more than its share of --budget, "
        "3 s.",
    ]


def test_long_durations_are_written_out() -> None:
    [(_, reason)] = plan_rounds([candidate(1234.0)], 60.0, 1).left_out
    assert reason.startswith("one takes about 1,234 s, and ")


def test_the_agreement_is_part_of_the_preparation() -> None:
    outcome = Outcome([], [], [], [], seconds=1000.0)
    assert 1000 < prepare([], [], task(), 1.0, outcome=outcome).preparation_s < 2000


def test_readings_are_as_long_as_the_budget_allows() -> None:
    for budget, seconds in ((0.01, MIN_SECONDS), (1.2, 0.05), (100.0, STEPS_SECONDS)):
        plan = plan_rounds([candidate(1e-5), candidate(1e-5)], budget, 1)
        assert [planned.reading for planned in plan.planned] == pytest.approx([seconds] * 2)


class Counted:
    """Clocks that say what was called, and that each call took a second."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[Any] = []
        patch.setattr(contenders, "read", self.read)
        patch.setattr(contenders, "gradient_function", self.gradient_function)

    def gradient_function(self, subject: Subject, strategy: str, of: Task, entries: Any, problem: Any = None) -> Any:
        count = None if entries is None else sum(at.size for at in entries)
        return lambda: self.calls.append((strategy, count, len((problem or of.problem).t)))

    def read(self, call: Callable[[], object]) -> Reading:
        call()
        return Reading(1.0, 1.0)


def numpy() -> Subject:
    return Subject("numpy", ports.load("numpy"), "float64", "cpu", "numpy")


def test_loops_are_estimated_from_a_few_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    large = task("step", hidden=64)
    total = sum(p.size for p in large.problem.params)
    for strategy, count in contenders.PROBED.items():
        got = estimate(numpy(), strategy, large, 3.0, None)
        assert (got.seconds, got.per_parameter) == (total / count, 1 / count)
        assert counted.calls == [(strategy, count, 6)] * 2  # the first one compiles
        counted.calls.clear()


def test_a_call_that_may_take_the_whole_budget_is_tried_with_a_part_of_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = Counted(monkeypatch)
    slow = estimate(numpy(), "structured", task("gradient", samples=64), 64 * 64 * 3 * 10 * 0.9e-9, None)
    assert slow.seconds == 16.0
    assert counted.calls == [("structured", None, 4)] * 2
    counted.calls.clear()
    assert estimate(numpy(), "structured", task("gradient", samples=64), 1.0, None).seconds == 1.0
    assert counted.calls == [("structured", None, 64)] * 2


def test_a_measured_start_is_the_estimate() -> None:
    measured = Start(3.0, 2.0, 7, None)
    got = estimate(numpy(), CLOSED_FORM, task(), 3.0, lambda *_: measured)
    assert (got.seconds, got.start) == (2.0, measured)


@pytest.mark.parametrize("what", ["gradient", "step", "run"])
@pytest.mark.parametrize("strategy", [CLOSED_FORM, "collocated"])
def test_a_contender_is_put_together(what: str, strategy: str) -> None:
    costs = RunCosts(0.5, 1e-4, 1e-4, 1e-4, (10, 10)) if strategy != CLOSED_FORM and what != "gradient" else None
    start = Start(3.0, 1e-4, 7, costs)
    planned = Planned(Candidate(numpy(), strategy, 1e-4, start=start), None, 0.005, 1e-3)
    contender = make_contender(planned, task(what), None)
    reading = contender.clock()
    assert reading.seconds > 0
    assert reading.cpu_seconds > 0
    assert contender.first_call_s == (None if what == "run" else 3.0)
    assert contender.peak_bytes == 7
    assert contender.ranked == (strategy != CLOSED_FORM)
    assert (contender.estimated is None) == (what != "run")
    assert contender.run == (costs if what == "step" else None)


def test_a_run_is_real_where_it_fits_and_else_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "time_run", lambda *_: Reading(77.0, 77.0))
    monkeypatch.setattr(contenders, "step_clock", lambda *_: lambda: Reading(0.5, 1.0))
    costs = RunCosts(5.0, 0.5, 1.0, 0.25, (10_000, 10_000))
    for process_s, share, seconds in ((1.0, 5100.0, 77.0), (200.0, 5100.0, 5004.5), (1.0, 10.0, 5004.5)):
        start = Start(3.0, 0.5, None, costs, process_s)
        planned = Planned(Candidate(numpy(), "collocated", 0.5, start=start), None, 0.005, share)
        contender = make_contender(planned, task("run"), None)
        assert contender.clock().seconds == seconds
        assert contender.clock().cpu_seconds == (77.0 if seconds == 77 else 2 * seconds)
        parts = "its evaluations, its steps and its start, which the interval leaves out"
        assert contender.estimated == (None if seconds == 77 else parts)
