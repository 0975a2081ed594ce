"""What is timed: a gradient, a training step or a whole run, of one strategy on one backend, as a clock to read."""

import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ports
from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject, on_device
from comparison.timing.rounds import Clock, Reading, calibrated, reading
from ports.protocol import Port
from reference.datasets import load
from reference.numerical_gradient import structured_step
from reference.two_layer_net import Params

CLOSED_FORM = "closed form"
"""The chapter's `gradient`: a yardstick beside the strategies, and never ranked."""
SAMPLED = {"loop": 128, "batched": 1024}
"""Parameters that these are timed at where a net has more than four times as many."""
FIRST_STEPS, MOST_STEPS = 16, 1024
STEPS_SECONDS = 0.1
"""Steps in one call take at least so long, and what a call does once, as to look its inputs over, is no part of one."""
STEP_SAMPLES = 2000
"""Samples that steps draw their batches from: more than a cache holds, and soon looked over."""
LEARNING_RATE = 0.1


@dataclass(frozen=True, slots=True)
class Task:
    """What is timed, and on what."""

    what: str  # gradient, step or run
    problem: Problem
    data: Any  # Dataset
    source: str  # of the data, for a process of its own
    h: float = 1e-4
    memory: float = 256 * 2**20
    iterations: int = 10_000
    seed: int = 0
    truths: dict[str, Params] = field(default_factory=dict)  # the gradient in extended precision, by dtype

    def truth(self, dtype: str) -> Params:
        """Return the gradient in extended precision at the numbers that `dtype` holds."""
        if dtype not in self.truths:
            self.truths[dtype] = truth(self.problem.rounded(dtype), self.h)
        return self.truths[dtype]


class Contender(NamedTuple):
    """A clock with all that is known before it is read."""

    backend: str
    strategy: str
    dtype: str
    device: str
    clock: Clock
    first_call_s: float | None  # trace, compilation and the first run; None where each reading is a first call
    peak_bytes: int | None  # of resident memory in the first call, above what was held before; None where not told
    error: float | None  # of the gradient, relative, against extended precision
    estimated: str | None  # "128 of 39,760 parameters"
    ranked: bool

    @property
    def name(self) -> str:
        """Backend and strategy."""
        return f"{self.backend} {self.strategy}"


def contender(subject: Subject, strategy: str, task: Task) -> Contender:
    """Make the first call, and return the clock."""
    gradient = function_of(subject.port, strategy)
    options = {} if strategy == CLOSED_FORM else {"h": task.h, "memory": task.memory}
    chosen = _sample(strategy, task)
    if chosen is not None:
        made = _gradient(subject, gradient, options | {"entries": chosen}, task)
    elif task.what == "gradient":
        made = _gradient(subject, gradient, options, task)
    elif task.what == "step":
        made = _steps(subject, gradient, task)
    else:
        made = _Made(lambda: _fresh_run(subject, strategy, task), None, None)
    count = sum(p.size for p in chosen) if chosen is not None else 0
    total = sum(p.size for p in task.problem.params)
    units = 1.0
    if chosen is not None:
        units = count / total / (task.iterations if task.what == "run" else 1)
    return Contender(
        *(subject.name, strategy, subject.dtype, subject.device),
        clock=_scaled(made.clock, units),
        first_call_s=made.first_call_s,
        peak_bytes=made.peak_bytes,
        error=_error(subject, gradient, options, chosen, task),
        estimated=f"{count:,} of {total:,} parameters" if chosen is not None else None,
        ranked=strategy != CLOSED_FORM,
    )


def function_of(port: Port, strategy: str) -> Callable[..., Params]:
    """Return the gradient of a port, by the name of a strategy or of the closed form."""
    return port.gradient if strategy == CLOSED_FORM else port.GRADIENTS[strategy]


class _Made(NamedTuple):
    clock: Clock
    first_call_s: float | None
    peak_bytes: int | None


def _scaled(clock: Clock, units: float) -> Clock:
    return clock if units == 1 else lambda: Reading(*(value / units for value in clock()))


def _sample(strategy: str, task: Task) -> Params | None:
    """Return flat indices of a random sample of parameters, or None where all of them are to be timed."""
    sizes = [p.size for p in task.problem.params]
    count = SAMPLED.get(strategy, math.inf)
    if sum(sizes) <= 4 * count:
        return None
    flat = np.sort(np.random.default_rng(task.seed).choice(sum(sizes), int(count), replace=False))
    ends = np.cumsum(sizes)
    return Params(
        *(flat[(end - size <= flat) & (flat < end)] - (end - size) for size, end in zip(sizes, ends, strict=True))
    )


def _gradient(subject: Subject, gradient: Callable[..., Params], options: dict[str, Any], task: Task) -> _Made:
    params, x = on_device(subject, task.problem)

    def call() -> Any:
        return subject.port.synchronize(gradient(params, x, task.problem.t, **options))

    first, peak = first_call(call)
    return _Made(calibrated(call), first, peak)


def _steps(subject: Subject, gradient: Callable[..., Params], task: Task) -> _Made:
    """Time `train_steps`, by the step; its first call makes FIRST_STEPS of them."""
    train = training(subject, gradient, task, STEP_SAMPLES)
    first, peak = first_call(lambda: train(FIRST_STEPS))
    return _Made(steps_clock(train), first, peak)


def steps_clock(train: Callable[[int], Any]) -> Clock:
    """Return a clock of one step, which makes many of them in a call; `train` has made FIRST_STEPS before."""
    step = min(reading(lambda: train(FIRST_STEPS)).seconds for _ in range(2)) / FIRST_STEPS
    steps = FIRST_STEPS
    while steps < MOST_STEPS and steps * step < STEPS_SECONDS:
        steps *= 2
    train(steps)  # compiled for as many
    return lambda: reading(lambda: train(steps), units=steps)


def training(
    subject: Subject, gradient: Callable[..., Params], task: Task, samples: int | None = None, batch: int | None = None
) -> Callable[[int], Any]:
    """Return the function that makes so many steps from the problem's net, and waits for them.

    `samples` are those that batches are drawn from, all unless told; a batch is as large as the problem's unless told.
    """
    params, _ = on_device(subject, task.problem)
    x = subject.port.from_numpy(task.data.x_train[:samples], dtype=subject.dtype, device=subject.device)
    t, rng = task.data.t_train[:samples], np.random.default_rng(task.seed)
    batches = rng.integers(0, len(t), (max(MOST_STEPS, task.iterations), batch or len(task.problem.t)))

    def train(steps: int) -> Any:
        trained = subject.port.train_steps(
            params, x, t, batches[:steps], gradient=gradient, learning_rate=LEARNING_RATE, h=task.h, memory=task.memory
        )
        return subject.port.synchronize(trained)

    return train


def _fresh_run(subject: Subject, strategy: str, task: Task) -> Reading:
    """Time a whole run in a process of its own, so that compilation is a part of it and imports are not."""
    light = replace(task, data=None, truths={})  # loaded there anew
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        name = subject.source or subject.name
        return process.submit(_run, name, subject.dtype, subject.device, strategy, light).result()


def _run(name: str, dtype: str, device: str, strategy: str, task: Task) -> Reading:
    subject = Subject(name, ports.load(name), dtype, device)
    gradient = function_of(subject.port, strategy)
    train = training(subject, gradient, replace(task, data=load(task.source, seed=task.seed)))
    return reading(lambda: train(task.iterations))


def first_call(call: Callable[[], Any]) -> tuple[float, int | None]:
    """Return the seconds of a call, and the peak of resident memory above what the process held before it.

    Linux alone tells the peak of a call. Memory that an allocator kept from earlier is not counted.
    """
    status, held = Path("/proc/self/status"), None
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        held = _resident(status, "VmRSS")
    except OSError:
        pass
    seconds = reading(call).seconds
    return seconds, None if held is None else max(0, _resident(status, "VmHWM") - held)


def _resident(status: Path, field: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def _error(
    subject: Subject, gradient: Callable[..., Params], options: dict[str, Any], chosen: Params | None, task: Task
) -> float:
    """Return the error of the gradient in the Frobenius norm, relative, at the numbers that the backend is given."""
    params, x = on_device(subject, task.problem)
    sampled = {} if chosen is None else {"entries": chosen}
    got = gradient(params, x, task.problem.t, **options, **sampled)
    true = task.truth(subject.dtype)
    if chosen is not None:
        true = Params(*(g.ravel()[at] for g, at in zip(true, chosen, strict=True)))
    return relative_error(Params(*map(subject.port.to_numpy, got)), true)


def truth(problem: Problem, h: float) -> Params:
    """Return the central differences in NumPy's longest precision: 64 bits of mantissa on x86, 53 on others."""
    *params, x = (a.astype(np.longdouble) for a in (*problem.params, problem.x))
    return structured_step(Params(*params), x, problem.t, h, 2**28, float(np.abs(x).max()))[1]


def relative_error(got: Params, true: Params) -> float:
    """Return |got - true| / |true|, over all members together."""
    gap, size = (
        math.sqrt(sum(float((np.asarray(a, np.longdouble) ** 2).sum()) for a in arrays))
        for arrays in ([g - t for g, t in zip(got, true, strict=True)], true)
    )
    return gap / size if size else math.inf if gap else 0.0
