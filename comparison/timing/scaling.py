"""How the time of a step changes with the number of devices, and how much of it they spend on messages.

Strong scaling keeps the batch, weak scaling gives each device as many samples as one had. What messages take is found
by leaving them out: the same step with nothing sent, and wrong results, takes less by what is sent and waited for.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ports
from comparison.agreement.comparison import Subject
from comparison.timing.recommendation import GAIN
from comparison.timing.rounds import Clock, Interval, Rounds, median, ratios
from comparison.timing.workloads import FIRST_STEPS, STEP_SAMPLES, Task, function_of, steps_clock, training
from ports.messages import Sent

Train = Callable[[int], Any]
"""Makes so many steps and waits until all devices have made them."""
Gather = Callable[[Any], list[Any]]
"""Returns what each rank gives; a process that is alone gives itself what it gives."""


class Runs(NamedTuple):
    """The steps of one backend, strategy and dtype on some numbers of devices, the least of them first."""

    subject: Subject
    strategy: str
    counts: Sequence[int]
    placed: Sequence[Subject | None]  # the subject on each number of devices; see `on`
    strong: list[Train]
    weak: list[Train]  # of all counts but the first
    silent: list[Train]  # of all counts but 1

    @property
    def all(self) -> list[Train]:
        """All of them."""
        return [*self.strong, *self.weak, *self.silent]

    def columns(self, n: int) -> tuple[int, int, int | None]:
        """Return where in `all` the runs of the n-th count are: strong, weak and silent."""
        several = len(self.counts)
        silent = n + 2 * several - 1 - (self.counts[0] == 1)
        return n, several + n - 1 if n else 0, silent if self.counts[n] > 1 else None


class Point(NamedTuple):
    """What a number of devices does for a step; intervals hold together with 95%."""

    backend: str
    strategy: str
    dtype: str
    device: str
    devices: int
    base: int  # the least number
    batch: int
    seconds: Interval
    speedup: Interval  # the time of the least number of devices over this one's
    weak_seconds: Interval
    weak_efficiency: Interval  # the same where each device has its own batch
    in_messages: Interval | None  # the share of a step; None where nothing is sent
    sent: Sent  # by each device in a step

    @property
    def efficiency(self) -> float:
        """Speedup as a share of what as many devices could be."""
        return self.speedup.median * self.base / self.devices

    def as_json(self) -> dict[str, object]:
        """Return what JSON records."""
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


def on(subject: Subject, count: int, *, silent: bool = False) -> Subject | None:
    """Return the subject on so many of its port's devices; None where this process has none of them.

    On one it is the plain port: what several are worth is told by the best that one can do.
    """
    whole: Any = subject.port
    if count == 1:
        port = ports.load(subject.source) if getattr(whole, "rank", 0) == 0 else None
    else:
        port = whole.subset(count, silent=silent)
    name = f"{subject.name} on {count} device{'s' if count > 1 else ''}"
    return subject._replace(name=name, port=port) if port else None


def runs(subject: Subject, strategy: str, counts: Sequence[int], placed: Sequence[Subject | None], task: Task) -> Runs:
    """Return the steps of a subject."""
    batch = len(task.problem.t)

    def train(where: Subject | None, samples: int = batch) -> Train:
        return _train(where, strategy, task, samples)

    return Runs(
        *(subject, strategy, counts, placed),
        strong=[train(where) for where in placed],
        weak=[train(where, batch * n // counts[0]) for n, where in zip(counts[1:], placed[1:], strict=True)],
        silent=[train(on(subject, count, silent=True)) for count in counts if count > 1],
    )


def _train(subject: Subject | None, strategy: str, task: Task, batch: int) -> Train:
    if subject is None:
        return lambda steps: None
    train = training(subject, function_of(subject.port, strategy), task, STEP_SAMPLES, batch)
    meet = getattr(subject.port, "meet", lambda: None)  # devices of one process are waited for as it is

    def together(steps: int) -> None:
        train(steps)
        meet()

    return together


# --- ranks, of which the first decides by its clock what runs next


def led(gather: Gather, trains: Sequence[Train]) -> list[Train]:
    """Return the same for the first rank: each call lets all others make it as well."""

    def lead(which: int) -> Train:
        def train(steps: int) -> Any:
            gather((which, steps))
            return trains[which](steps)

        return train

    return [lead(which) for which in range(len(trains))]


def follow(gather: Gather, trains: Sequence[Train]) -> None:
    """Make on this rank what the first makes, until it gives None."""
    while (order := gather(None)[0]) is not None:
        which, steps = order
        trains[which](steps)


# --- what is measured


def sent_each_step(where: Subject | None, train: Train) -> Sent:
    """Return what each device sends in a step: what twice as many send more, and no call but once."""
    port: Any = where and where.port
    if not hasattr(port, "sent"):
        return Sent(0, 0)
    few, many = (port.sent(lambda steps=steps: train(steps)) for steps in (FIRST_STEPS, 2 * FIRST_STEPS))
    return Sent(*((b - a) // FIRST_STEPS for a, b in zip(few, many, strict=True)))


def clock(train: Train) -> Clock:
    """Return the clock of a step."""
    train(FIRST_STEPS)
    return steps_clock(train)


def points(found: Runs, batch: int, sent: Sequence[Sent], rounds: Rounds) -> list[Point]:
    """Return what the rounds say; their columns are those of `found.all`."""
    seconds, comparisons = rounds.seconds, len(found.all) - 1

    def over(column: int, base: int) -> Interval:
        return ratios(seconds[:, [base, column]], 0, comparisons)[1]

    name, _, dtype, device, _ = found.subject
    made = []
    for n, count in enumerate(found.counts):
        strong, weak, silent = found.columns(n)
        quiet = None if silent is None else over(silent, strong)
        made.append(
            Point(
                *(name, found.strategy, dtype, device, count, found.counts[0], batch),
                *(median(seconds[:, strong]), over(0, strong), median(seconds[:, weak]), over(0, weak)),
                in_messages=quiet and Interval(1 - quiet.median, 1 - quiet.high, 1 - quiet.low),
                sent=sent[n],
            )
        )
    return made


def verdict(found: Sequence[Point]) -> str:
    """Return which number of devices to take, in a sentence."""
    first, best = found[0], max(found, key=lambda point: point.speedup.median)
    of = f"{first.backend} {first.strategy} in {first.dtype}"
    if best.speedup.low <= 1 or best.speedup.median < GAIN:
        return f"{of} is not faster on more than {_devices(first.devices)}."
    ratio, low, high = best.speedup
    return (
        f"{of} is fastest on {_devices(best.devices)}: {ratio:.2f} times as fast as on {first.devices} "
        f"({low:.2f} to {high:.2f})."
    )


def _devices(count: int) -> str:
    return f"{count} device{'s' if count > 1 else ''}"
