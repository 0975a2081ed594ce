"""From subjects to contenders that fit into the budget: one step of each is estimated, and some are sampled."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject
from comparison.timing.rounds import MIN_SECONDS, Clock, Reading, calibrate, fewest_rounds, read
from comparison.timing.sentences import duration
from comparison.timing.starts import Start, time_run
from comparison.timing.workloads import (
    STEP_SAMPLES,
    STEPS_SECONDS,
    Contender,
    Task,
    divide,
    error_of,
    gradient_function,
    make_train,
    sample_entries,
    step_clock,
)
from ports.protocol import DistributedPort
from reference.defaults import CLOSED_FORM
from reference.two_layer_net import Params

PROBED = {"loop": 16, "batched": 64}
"""How many parameters these are estimated from; they are the strategies that can be timed at a sample."""
FEWEST, MOST = 4, {"loop": 128, "batched": 1024}
"""The least and the most parameters of a sample."""
PREPARATION = 4
"""Readings that it takes to set a clock."""
OPERATION_SECONDS = 1e-9
"""What a sample x input x hidden unit takes at most, and with `structured` each output too: only to tell slow nets."""


class Candidate(NamedTuple):
    """What may be timed, and an estimate of what one gradient or step of it takes."""

    subject: Subject
    strategy: str
    seconds: float
    per_parameter: float | None = None  # where it can be timed at a sample
    start: Start | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Backend, strategy, dtype and device."""
        return self.subject.name, self.strategy, self.subject.dtype, self.subject.device

    @property
    def name(self) -> str:
        """The key in words."""
        return f"{self.subject.name} {self.subject.dtype} {self.strategy}"


MeasureStart = Callable[[Subject, str, Task], Start]
"""Measures a start, as `comparison.timing.starts.measure_start` does."""


class Planned(NamedTuple):
    """A candidate that fits into the budget."""

    candidate: Candidate
    sample: int | None  # parameters that it is timed at; None: all
    reading: float  # seconds that a reading should take, unless one step takes longer
    share: float  # seconds that a reading may take if all take as much


class Plan(NamedTuple):
    """What is timed, what is left out with the reason, and how long the rounds take at least."""

    planned: list[Planned]
    left_out: list[tuple[Candidate, str]]
    seconds: float


def estimate(subject: Subject, strategy: str, task: Task, budget: float, start: MeasureStart | None) -> Candidate:
    """Estimate what one gradient or step takes, from a call after the first one.

    A part of the parameters is enough where the strategy can be timed at a sample, and a part of the batch where
    one call could take longer than the whole `budget`. With `start`, that is measured too, except of these.
    """
    total = sum(p.size for p in task.problem.params)
    if strategy in PROBED:
        count = min(total, PROBED[strategy])
        seconds = _later_call(subject, gradient_function(subject, strategy, task, sample_entries(task, count)))
        return Candidate(subject, strategy, seconds * total / count, seconds / count)
    params, x, t = task.problem
    operations = len(t) * params.W1.size * (len(params.b2) if strategy == "structured" else 10)
    if operations * OPERATION_SECONDS > budget:
        part = max(1, len(t) // 16)
        few = Problem(params, x[:part], t[:part])
        seconds = _later_call(subject, gradient_function(subject, strategy, task, None, few)) * len(t) / part
        if seconds > budget:
            return Candidate(subject, strategy, seconds)
    if start and not isinstance(subject.port, DistributedPort):  # another process would not be one of its ranks
        measured = start(subject, strategy, task)
        return Candidate(subject, strategy, measured.step_s, start=measured)
    if task.what == "gradient":
        return Candidate(subject, strategy, _later_call(subject, gradient_function(subject, strategy, task, None)))
    train = make_train(subject, strategy, task, STEP_SAMPLES)
    return Candidate(subject, strategy, _later_call(subject, lambda: train(1)))


def _later_call(subject: Subject, call: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of three calls after the first, or of one that takes long."""
    subject.port.synchronize(call())
    seconds = [read(lambda: subject.port.synchronize(call())).seconds]
    while len(seconds) < 3 and seconds[0] < STEPS_SECONDS:
        seconds.append(read(lambda: subject.port.synchronize(call())).seconds)
    return min(seconds)


def plan_rounds(candidates: Sequence[Candidate], budget: float, comparisons: int) -> Plan:
    """Share out the budget: the quickest first, so that what they leave is for the slower ones.

    Each contender needs as many readings as the intervals do, and those that set its clock. What exceeds its share is
    timed at a sample of parameters where that is possible, and left out otherwise. `comparisons` are the intervals
    that shall hold together.
    """
    fewest = fewest_rounds(comparisons)
    readings = fewest + PREPARATION
    # So long that twice the fewest rounds fit: a call has costs of its own, and a training hundreds of steps in one.
    reading = min(STEPS_SECONDS, max(MIN_SECONDS, budget / (2 * fewest * max(1, len(candidates)))))
    plans: dict[int, Planned] = {}
    left_out, spent = [], 0.0
    for n, at in enumerate(sorted(range(len(candidates)), key=lambda at: candidates[at].seconds)):
        candidate = candidates[at]
        share = max(0.0, budget - spent) / (len(candidates) - n) / readings
        sample, seconds = _fit(candidate, max(share, reading))
        if seconds is None:
            left_out.append((candidate, _reason(candidate, readings, share)))
        else:
            plans[at] = Planned(candidate, sample, reading, budget / len(candidates) / readings)
            spent += readings * max(seconds, reading)
    return Plan([planned for _, planned in sorted(plans.items())], left_out, spent)


def _fit(candidate: Candidate, share: float) -> tuple[int | None, float | None]:
    """Return the size of the sample, None for all parameters, and the seconds of a reading, None if it does not fit."""
    if candidate.seconds <= share:
        return None, candidate.seconds
    per_parameter = candidate.per_parameter
    if per_parameter is None or FEWEST * per_parameter > share:
        return None, None
    count = min(MOST[candidate.strategy], max(FEWEST, int(share / per_parameter)))
    return count, count * per_parameter


def _reason(candidate: Candidate, readings: int, share: float) -> str:
    seconds, what = candidate.seconds, "one"
    if candidate.per_parameter is not None:
        seconds, what = FEWEST * candidate.per_parameter, f"{FEWEST} parameters of one"
    return (
        f"{what} takes about {duration(seconds)}, and {readings} times that is more than its share of --budget, "
        f"{duration(readings * share)}."
    )


def make_contender(planned: Planned, task: Task, start: MeasureStart | None) -> Contender:
    """Set the clock, and put together what was measured; with `start`, measure that where it is still unknown."""
    subject, strategy, first = planned.candidate.subject, planned.candidate.strategy, planned.candidate.start
    entries = None if planned.sample is None else sample_entries(task, planned.sample)
    if first is None and start and entries is None and not isinstance(subject.port, DistributedPort):
        first = start(subject, strategy, task)
    clock, estimated = _clock(planned, task, entries)
    of_run = task.what == "run"
    if of_run:
        clock, estimated = _run_clock(planned, task, first, (clock, estimated))
    return Contender(
        *(subject.name, strategy, subject.dtype, subject.device),
        clock=clock,
        first_call_s=None if first is None or of_run else first.first_call_s,
        peak_bytes=first and first.peak_bytes,
        error=error_of(subject, strategy, task, entries),
        estimated=estimated,
        ranked=strategy != CLOSED_FORM,
        run=None if first is None or of_run else first.run,
    )


Timed = tuple[Clock, str | None]
"""A clock, and what it estimates from."""


def _clock(planned: Planned, task: Task, entries: Params | None) -> Timed:
    """Return a clock of one gradient or step."""
    subject, strategy = planned.candidate.subject, planned.candidate.strategy
    if entries is None and task.what != "gradient":
        train = make_train(subject, strategy, task, STEP_SAMPLES)
        return step_clock(train, planned.candidate.seconds, planned.reading), None
    gradient = gradient_function(subject, strategy, task, entries)
    clock = calibrate(lambda: subject.port.synchronize(gradient()), planned.reading)
    if entries is None:
        return clock, None
    count, total = (sum(p.size for p in params) for params in (entries, task.problem.params))
    return divide(clock, count / total), f"{count:,} of {total:,} parameters"


def _run_clock(planned: Planned, task: Task, start: Start | None, step: Timed) -> Timed:
    """Return a clock of whole runs where they fit into the budget, and else of their steps, with the rest as measured.

    Where nothing of a run was measured, it is as many steps.
    """
    clock, sample = step
    if start is None or start.run is None:
        return divide(clock, 1 / task.iterations), sample or "its steps"
    costs = start.run
    if start.process_s + costs.total(task.iterations, planned.candidate.seconds) <= planned.share:
        return lambda: time_run(planned.candidate.subject, planned.candidate.strategy, task), None

    def read_run() -> Reading:
        seconds, cpu_seconds = clock()
        whole = costs.total(task.iterations, seconds)
        return Reading(whole, whole * cpu_seconds / seconds)

    return read_run, "its evaluations, its steps and its start, which the interval leaves out"
