"""What is timed: a gradient, a training step or a whole run, of one strategy on one backend, as a clock to read."""

import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import ports
from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject, on_device
from comparison.timing.errors import at_entries, extended_gradient, relative_error
from comparison.timing.rounds import Clock, Reading, calibrate, read
from reference.datasets import Dataset, load
from reference.defaults import CLOSED_FORM, MEMORY, H
from reference.two_layer_net import Params

SAMPLED = {"loop": 128, "batched": 1024}
"""How many parameters these are timed at, where a net has more than four times as many."""
FIRST_STEPS, MAX_STEPS = 16, 1024
STEPS_SECONDS = 0.1
"""The steps of one call take at least this long: what a call does once, as validation, is no part of a step."""
STEP_SAMPLES = 2000
"""Samples that steps draw their batches from: more than a cache holds, and soon validated."""
LEARNING_RATE = 0.1

Train = Callable[[int], Any]
"""Takes that many training steps, and waits for them."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is timed, and on which problem."""

    what: str  # gradient, step or run
    problem: Problem
    data: Dataset | None  # None in a process of its own, which loads it from `source`
    source: str
    h: float = H
    memory: float = MEMORY
    iterations: int = 10_000
    seed: int = 0
    extended: dict[str, Params] = field(default_factory=dict)  # by dtype

    def extended_gradient(self, dtype: str) -> Params:
        """Return the gradient in extended precision at the numbers that `dtype` holds, computed once."""
        if dtype not in self.extended:
            self.extended[dtype] = extended_gradient(self.problem.rounded(dtype), self.h)
        return self.extended[dtype]


class Contender(NamedTuple):
    """A clock, and all that is known before it is read."""

    backend: str
    strategy: str
    dtype: str
    device: str
    clock: Clock
    first_call_s: float | None  # trace, compilation and the first run; None where each reading is a first call
    peak_bytes: int | None  # of resident memory in the first call, above what was held before; None where unknown
    error: float | None  # of the gradient, relative, against extended precision
    estimated: str | None  # "128 of 39,760 parameters"
    ranked: bool

    @property
    def name(self) -> str:
        """Backend and strategy."""
        return f"{self.backend} {self.strategy}"


class _Workload(NamedTuple):
    clock: Clock
    first_call_s: float | None
    peak_bytes: int | None


def make_contender(subject: Subject, strategy: str, task: Task) -> Contender:
    """Make the first call, and set the clock."""
    entries = _sample_entries(strategy, task)
    gradient = _gradient_function(subject, strategy, task, entries)
    units, estimated = 1.0, None
    if entries is not None:
        count, total = (sum(p.size for p in params) for params in (entries, task.problem.params))
        units = count / total / (task.iterations if task.what == "run" else 1)
        estimated = f"{count:,} of {total:,} parameters"
    if entries is not None or task.what == "gradient":
        workload = _gradient_workload(subject, gradient)
    elif task.what == "step":
        workload = _step_workload(subject, strategy, task)
    else:
        workload = _Workload(lambda: _time_fresh_run(subject, strategy, task), None, None)
    return Contender(
        *(subject.name, strategy, subject.dtype, subject.device),
        clock=_divide(workload.clock, units),
        first_call_s=workload.first_call_s,
        peak_bytes=workload.peak_bytes,
        error=_error(subject, gradient(), entries, task),
        estimated=estimated,
        ranked=strategy != CLOSED_FORM,
    )


def _sample_entries(strategy: str, task: Task) -> Params | None:
    """Draw flat indices of parameters to time, or return None where all of them are to be timed."""
    sizes = [p.size for p in task.problem.params]
    count = SAMPLED.get(strategy, math.inf)
    if sum(sizes) <= 4 * count:
        return None
    flat = np.sort(np.random.default_rng(task.seed).choice(sum(sizes), int(count), replace=False))
    ends = np.cumsum(sizes)
    return Params(
        *(flat[(end - size <= flat) & (flat < end)] - (end - size) for size, end in zip(sizes, ends, strict=True))
    )


def _gradient_function(subject: Subject, strategy: str, task: Task, entries: Params | None) -> Callable[[], Params]:
    params, x = on_device(subject, task.problem)
    if strategy == CLOSED_FORM:
        return lambda: subject.port.gradient(params, x, task.problem.t)
    options: dict[str, Any] = {"h": task.h, "memory": task.memory}
    options |= {} if entries is None else {"entries": entries}
    return lambda: subject.port.GRADIENTS[strategy](params, x, task.problem.t, **options)


def _gradient_workload(subject: Subject, gradient: Callable[[], Params]) -> _Workload:
    def call() -> Any:
        return subject.port.synchronize(gradient())

    first, peak = first_call(call)
    return _Workload(calibrate(call), first, peak)


def _step_workload(subject: Subject, strategy: str, task: Task) -> _Workload:
    """Time `train_steps`, by the step; its first call takes one."""
    train = make_train(subject, strategy, task, STEP_SAMPLES)
    first, peak = first_call(lambda: train(1))
    return _Workload(step_clock(train), first, peak)


def step_clock(train: Train) -> Clock:
    """Return a clock of one step, which takes many of them in a call unless they are slow; `train` has taken one."""
    steps, step = 1, min(read(lambda: train(1)).seconds for _ in range(2))
    if step < STEPS_SECONDS / FIRST_STEPS:
        steps = FIRST_STEPS
        train(steps)  # compiles for this number
        step = min(read(lambda: train(steps)).seconds for _ in range(2)) / steps
    while steps < MAX_STEPS and steps * step < STEPS_SECONDS:
        steps *= 2
    train(steps)  # compiles for this number
    return lambda: read(lambda: train(steps), units=steps)


def make_train(
    subject: Subject, strategy: str, task: Task, samples: int | None = None, batch: int | None = None
) -> Train:
    """Return the function that trains the problem's net.

    Parameters
    ----------
    subject : Subject
    strategy : str
    task : Task
    samples : int, optional
        Batches are drawn from the first of this number; by default from all.
    batch : int, optional
        The size of a batch; by default the problem's.
    """
    assert task.data is not None
    params, _ = on_device(subject, task.problem)
    x = subject.port.from_numpy(task.data.x_train[:samples], dtype=subject.dtype, device=subject.device)
    t, rng = task.data.t_train[:samples], np.random.default_rng(task.seed)
    batches = rng.integers(0, len(t), (max(MAX_STEPS, task.iterations), batch or len(task.problem.t)))
    options: dict[str, Any] = {"learning_rate": LEARNING_RATE, "h": task.h, "memory": task.memory}

    def train(steps: int) -> Any:
        trained = subject.port.train_steps(params, x, t, batches[:steps], strategy=strategy, **options)
        return subject.port.synchronize(trained)

    return train


def _time_fresh_run(subject: Subject, strategy: str, task: Task) -> Reading:
    """Time a whole run in a process of its own, so that compilation is part of it and imports are not."""
    light = replace(task, data=None, extended={})
    with _main_module_hidden(), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        name = subject.source or subject.name
        return process.submit(_time_run, name, subject.dtype, subject.device, strategy, light).result()


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep a new process from running the caller's script again, which may be one that came through stdin."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _time_run(name: str, dtype: str, device: str, strategy: str, task: Task) -> Reading:
    subject = Subject(name, ports.load(name), dtype, device)
    train = make_train(subject, strategy, replace(task, data=load(task.source, seed=task.seed)))
    return read(lambda: train(task.iterations))


def first_call(call: Callable[[], Any]) -> tuple[float, int | None]:
    """Time a call, and measure the peak of resident memory above what the process held before it.

    Only Linux reports the peak of a call. Memory that an allocator kept from earlier is not counted.
    """
    status, held = Path("/proc/self/status"), None
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        held = _resident_bytes(status, "VmRSS")
    except OSError:
        pass
    seconds = read(call).seconds
    return seconds, None if held is None else max(0, _resident_bytes(status, "VmHWM") - held)


def _resident_bytes(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024


def _divide(clock: Clock, units: float) -> Clock:
    return clock if units == 1 else lambda: Reading(*(value / units for value in clock()))


def _error(subject: Subject, gradient: Params, entries: Params | None, task: Task) -> float:
    """Compute the relative error of a gradient at the numbers that the backend is given."""
    expected = task.extended_gradient(subject.dtype)
    if entries is not None:
        expected = at_entries(expected, entries)
    return relative_error([subject.port.to_numpy(g) for g in gradient], expected)
