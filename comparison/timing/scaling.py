"""How the time of a step changes with the number of devices, and how much of it they spend on messages.

Strong scaling keeps the batch, weak scaling gives each device as many samples as one had. The time of messages is found
by leaving them out: the same step with nothing sent, and wrong results, takes less by what is sent and waited for.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import ports
from comparison.agreement.comparison import Subject
from comparison.timing.recommendation import GAIN
from comparison.timing.rounds import Clock, Interval, Rounds, median, ratios, read
from comparison.timing.workloads import STEP_SAMPLES, Task, Train, make_train, step_clock
from ports.distributed import Sent
from ports.protocol import DistributedPort

COUNTED_STEPS = 16
"""Steps of the shorter one of two trainings whose messages are counted."""


class Runs(NamedTuple):
    """The trainings of one backend, strategy and dtype on several numbers of devices, the smallest number first."""

    subject: Subject
    strategy: str
    counts: Sequence[int]
    placed: Sequence[Subject | None]  # the subject on each number of devices; see `on_devices`
    strong: list[Train]
    weak: list[Train]  # of all counts but the first
    silent: list[Train]  # of all counts but 1

    @property
    def all(self) -> list[Train]:
        """All trainings, in the order of the columns."""
        return [*self.strong, *self.weak, *self.silent]

    def columns(self, n: int) -> tuple[int, int, int | None]:
        """Return the places in `all` of the n-th count: strong, weak and silent."""
        several = len(self.counts)
        silent = n + 2 * several - 1 - (self.counts[0] == 1)
        return n, several + n - 1 if n else 0, silent if self.counts[n] > 1 else None


class Point(NamedTuple):
    """The time of a step on one number of devices; intervals hold together with 95%."""

    backend: str
    strategy: str
    dtype: str
    device: str
    devices: int
    base: int  # the smallest number
    batch: int
    seconds: Interval
    speedup: Interval  # the time on the smallest number of devices over this one's
    weak_seconds: Interval
    weak_efficiency: Interval  # the same where each device has its own batch
    in_messages: Interval | None  # the share of a step; None where nothing is sent
    sent: Sent  # by each device in a step

    @property
    def efficiency(self) -> float:
        """Speedup as a share of the ideal."""
        return self.speedup.median * self.base / self.devices

    def as_json(self) -> dict[str, object]:
        """Return the point as JSON records it."""
        return {
            "backend": self.backend,
            "strategy": self.strategy,
            "dtype": self.dtype,
            "device": self.device,
            "devices": self.devices,
            "batch": self.batch,
            "median_s": self.seconds.median,
            "interval_s": self.seconds[1:],
            "speedup": self.speedup.median,
            "speedup_interval": self.speedup[1:],
            "efficiency": self.efficiency,
            "weak_median_s": self.weak_seconds.median,
            "weak_interval_s": self.weak_seconds[1:],
            "weak_efficiency": self.weak_efficiency.median,
            "weak_efficiency_interval": self.weak_efficiency[1:],
            "in_messages": self.in_messages and self.in_messages.median,
            "in_messages_interval": self.in_messages and self.in_messages[1:],
            "messages": self.sent.messages,
            "payload_bytes": self.sent.payload,
        }


def on_devices(subject: Subject, count: int, *, silent: bool = False) -> Subject | None:
    """Put the subject on the first `count` of its port's devices; None where this process has none of them.

    On one device it is the plain port, the fastest there: several devices must be worth more than that.
    """
    distributed: Any = subject.port  # a DistributedPort
    if count > 1:
        port = distributed.subset(count, silent=silent)
    else:
        port = ports.load(subject.source) if distributed.rank == 0 else None
    return subject._replace(name=f"{subject.name} on {_devices(count)}", port=port) if port else None


def make_runs(
    subject: Subject, strategy: str, counts: Sequence[int], placed: Sequence[Subject | None], task: Task
) -> Runs:
    """Make the trainings of a subject: strong and weak scaling, and those with nothing sent."""
    batch = len(task.problem.t)
    silent = [on_devices(subject, count, silent=True) for count in counts if count > 1]
    weak = zip(counts[1:], placed[1:], strict=True)
    return Runs(
        *(subject, strategy, counts, placed),
        strong=[_make_joint_train(where, strategy, task, batch) for where in placed],
        weak=[_make_joint_train(where, strategy, task, batch * n // counts[0]) for n, where in weak],
        silent=[_make_joint_train(where, strategy, task, batch) for where in silent],
    )


def _make_joint_train(subject: Subject | None, strategy: str, task: Task, batch: int) -> Train:
    """Return the function that trains and waits for all processes that take part; it does nothing in the others."""
    if subject is None:
        return lambda steps: None
    train, port = make_train(subject, strategy, task, STEP_SAMPLES, batch), subject.port
    if not isinstance(port, DistributedPort):
        return train

    def train_jointly(steps: int) -> None:
        train(steps)
        port.barrier()

    return train_jointly


def sent_each_step(subject: Subject | None, train: Train) -> Sent:
    """Count what each device sends in a step: the difference of two trainings, without what a call sends once."""
    port = subject and subject.port
    if not isinstance(port, DistributedPort):
        return Sent(0, 0)
    few, many = (port.sent(lambda steps=steps: train(steps)) for steps in (COUNTED_STEPS, 2 * COUNTED_STEPS))
    return Sent(*((b - a) // COUNTED_STEPS for a, b in zip(few, many, strict=True)))


def first_steps_and_clock(train: Train) -> Clock:
    """Take the first steps, and return the clock of a step."""
    train(1)
    return step_clock(train, min(read(lambda: train(1)).seconds for _ in range(2)))


def scaling_curve(runs: Runs, batch: int, sent: Sequence[Sent], rounds: Rounds) -> list[Point]:
    """Evaluate the rounds, whose columns are those of `runs.all`, for each number of devices."""
    seconds, comparisons = rounds.seconds, len(runs.all) - 1

    def ratio(column: int, base: int) -> Interval:
        return ratios(seconds[:, [base, column]], 0, comparisons)[1]

    name, _, dtype, device, _ = runs.subject
    curve = []
    for n, count in enumerate(runs.counts):
        strong, weak, silent = runs.columns(n)
        computing = None if silent is None else ratio(silent, strong)
        curve.append(
            Point(
                *(name, runs.strategy, dtype, device, count, runs.counts[0], batch),
                *(median(seconds[:, strong]), ratio(0, strong), median(seconds[:, weak]), ratio(0, weak)),
                in_messages=computing and Interval(1 - computing.median, 1 - computing.high, 1 - computing.low),
                sent=sent[n],
            )
        )
    return curve


def advise_devices(curve: Sequence[Point]) -> str:
    """Advise which number of devices to take."""
    first, best = curve[0], max(curve, key=lambda point: point.speedup.median)
    what = f"{first.backend} {first.strategy} in {first.dtype}"
    if best.speedup.low <= 1 or best.speedup.median < GAIN:
        return f"{what} is not faster on more than {_devices(first.devices)}."
    ratio, low, high = best.speedup
    return (
        f"{what} is fastest on {_devices(best.devices)}: {ratio:.2f} times as fast as on {first.devices} "
        f"({low:.2f} to {high:.2f})."
    )


def _devices(count: int) -> str:
    return f"{count} device{'s' if count > 1 else ''}"
