"""How a contender starts, measured where nothing is compiled yet, and what a whole run adds to its steps."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ports
from comparison.agreement.comparison import Subject
from comparison.timing.fresh_process import call_in_fresh_process
from comparison.timing.rounds import Reading, read
from comparison.timing.run_costs import RunCosts
from comparison.timing.workloads import LEARNING_RATE, Task, gradient_function, make_train
from reference.datasets import Dataset
from reference.defaults import CLOSED_FORM
from reference.segments import segment_length
from reference.training import epoch_length, train
from reference.two_layer_net import Params, init

REPETITIONS, REPEAT_SECONDS = 7, 0.3
"""How often a run of one step is repeated at most, and seconds after which it is not any more."""
LEAST_SHARE = 1 / 32
"""The least share of a call that a second step is taken to add: less would be noise."""
QUICK = 1.0
"""Seconds after which a start is not measured again."""
STATUS = Path("/proc/self/status")


class Start(NamedTuple):
    """The first call of a contender and a later one, and the costs of a run where it can be trained by."""

    first_call_s: float
    step_s: float  # one more step of a call, if a run was measured; otherwise a later call
    peak_bytes: int | None
    run: RunCosts | None
    process_s: float = 0.0  # to start the process, import the port and load the data


def measure_start(subject: Subject, strategy: str, task: Task) -> Start:
    """Measure the first call, and what a run costs, in a process where nothing is compiled.

    Of a start that takes no time it is the median of three.
    """
    starts: list[Start] = []
    began = time.perf_counter()
    while len(starts) < 3 and (not starts or time.perf_counter() - began < QUICK):
        at = time.perf_counter()
        start, seconds = call_in_fresh_process(_measure_start, *_described(subject, strategy, task))
        starts.append(start._replace(process_s=time.perf_counter() - at - seconds))
    return sorted(starts, key=lambda start: start.first_call_s)[len(starts) // 2]


def time_run(subject: Subject, strategy: str, task: Task) -> Reading:
    """Time a whole run in a process where nothing is compiled: compilation and evaluation are part of it."""
    return call_in_fresh_process(_time_run, *_described(subject, strategy, task))


def _described(subject: Subject, strategy: str, task: Task) -> tuple[str, str, str, str, Task]:
    """Describe a contender to another process, which loads the port and the data itself."""
    light = replace(task, data=task.data if task.redrawn else None, extended={})
    return subject.source or subject.name, subject.dtype, subject.device, strategy, light


def _measure_start(name: str, dtype: str, device: str, strategy: str, task: Task) -> tuple[Start, float]:
    """Return the start, and the seconds that its measurement took."""
    subject, task = _load(name, dtype, device, task)
    began = time.perf_counter()
    start = start_of_run if task.what != "gradient" and strategy != CLOSED_FORM else _start_of_calls
    return start(subject, strategy, task), time.perf_counter() - began


def _start_of_calls(subject: Subject, strategy: str, task: Task) -> Start:
    if task.what == "gradient":
        call: Callable[[], Any] = gradient_function(subject, strategy, task, None)
    else:
        call = partial(make_train(subject, strategy, task), 1)
    seconds, peak = first_call(lambda: subject.port.synchronize(call()))
    return Start(seconds, read(lambda: subject.port.synchronize(call())).seconds, peak, None)


def _time_run(name: str, dtype: str, device: str, strategy: str, task: Task) -> Reading:
    subject, task = _load(name, dtype, device, task)
    return read(lambda: [*run_from_nothing(subject.port, subject, strategy, task)])


def _load(name: str, dtype: str, device: str, task: Task) -> tuple[Subject, Task]:
    subject = Subject(name, ports.load(name), dtype, device)
    subject.port.devices()  # the checks of a framework are no part of a run
    return subject, replace(task, data=task.data or task.load(dtype=dtype))


def start_of_run(subject: Subject, strategy: str, task: Task) -> Start:
    """Run one step from nothing, take two steps in a call, and repeat both: their parts are then those of later ones.

    A single time may be off by what else the machine did, and a run has hundreds of evaluations: of the repetitions
    the median counts. A step is what a second one adds to a call, or the call itself if it takes long.
    """
    timed, one = _TimedPort(subject.port), replace(task, iterations=1)
    held = reset_peak()
    one_step = read(lambda: [*run_from_nothing(timed, subject, strategy, one)]).seconds
    peak = peak_since(held)
    train = make_train(subject, strategy, task)
    two_steps, began, pairs = read(lambda: train(2)).seconds, time.perf_counter(), list[float]()
    while len(timed.steps) < 2 or (len(timed.steps) <= REPETITIONS and time.perf_counter() - began < REPEAT_SECONDS):
        list(run_from_nothing(timed, subject, strategy, one))
        if timed.steps[-1] < REPEAT_SECONDS:
            pairs.append(read(lambda: train(2)).seconds)
    first, *later = timed.steps
    evaluations = [sum(pair) for pair in zip(timed.accuracies[2::2], timed.accuracies[3::2], strict=True)]
    call = statistics.median(later)
    step = max(min(pairs) - min(later), LEAST_SHARE * call) if pairs else call
    assert task.data is not None
    batch = len(task.problem.t)
    segment = segment_length(initial_net(subject, task), strategy, batch)
    pieces = epoch_length(task.data, batch), segment
    return Start(first, step, peak, RunCosts(one_step, call, two_steps, statistics.median(evaluations), pieces))


def run_from_nothing(port: Any, subject: Subject, strategy: str, task: Task) -> Iterator[object]:
    """Begin the run of `compare.py train` on these data and sizes."""
    data: Dataset | None = task.data
    assert data is not None
    options: dict[str, Any] = {"strategy": strategy, "iterations": task.iterations, "batch": len(task.problem.t)}
    options |= {"learning_rate": LEARNING_RATE, "h": task.h, "memory": task.memory, "seed": task.seed}
    return train(port, initial_net(subject, task), data, device=subject.device, **options)


def initial_net(subject: Subject, task: Task) -> Params:
    """Draw the chapter's initial net of the task's sizes."""
    (inputs, hidden), outputs = task.problem.params.W1.shape, len(task.problem.params.b2)
    return init(inputs, hidden, outputs, seed=task.seed, dtype=subject.dtype)


class _TimedPort:
    """A port that records the seconds of its steps and of its accuracies."""

    def __init__(self, port: Any) -> None:
        self._port = port
        self.steps: list[float] = []
        self.accuracies: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def train_steps(self, *args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = self._port.synchronize(self._port.train_steps(*args, **options))
        self.steps.append(time.perf_counter() - start)
        return result

    def accuracy(self, *args: Any) -> Any:
        start = time.perf_counter()
        result = self._port.synchronize(self._port.accuracy(*args))
        self.accuracies.append(time.perf_counter() - start)
        return result


def first_call(call: Callable[[], Any]) -> tuple[float, int | None]:
    """Time a call, and measure the peak of resident memory above what the process held before it.

    Only Linux reports the peak of a call. Memory that an allocator kept from earlier is not counted.
    """
    held = reset_peak()
    seconds = read(call).seconds
    return seconds, peak_since(held)


def reset_peak() -> int | None:
    """Let the system begin a new peak of resident memory; return what is held now, None where it has no such thing."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _resident_bytes(STATUS, "VmRSS")


def peak_since(held: int | None) -> int | None:
    """Return the peak since `reset_peak`, above what was held then."""
    return None if held is None else max(0, _resident_bytes(STATUS, "VmHWM") - held)


def _resident_bytes(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024
