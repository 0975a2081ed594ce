"""What is timed: a gradient, a training step or a whole run, of one strategy on one backend, as a clock to read."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject, on_device
from comparison.timing.errors import at_entries, extended_gradient, relative_error
from comparison.timing.rounds import MIN_SECONDS, Clock, Reading, read, read_when_idle
from comparison.timing.run_costs import RunCosts
from reference.datasets import Dataset
from reference.defaults import CLOSED_FORM, MEMORY, H
from reference.two_layer_net import Params

MAX_STEPS = 1024
STEPS_SECONDS = 0.1
"""The steps of one reading take at least this long where the budget allows: what a call does once is no part of one."""
STEP_SAMPLES = 2000
"""Samples that steps draw their batches from: more than a cache holds, and soon validated."""
LEARNING_RATE = 0.1
EXTENDED_COST = 4_000_000
"""Samples x inputs x hidden units x outputs that are differentiated in extended precision: some tenths of a second."""

Train = Callable[[int], Any]
"""Takes that many training steps, and waits for them."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is timed, and on which problem."""

    what: str  # gradient, step or run
    problem: Problem
    data: Dataset | None  # None in a process of its own, which loads it
    load: Callable[..., Dataset]  # takes a dtype; a process of its own unpickles it
    h: float = H
    memory: float = MEMORY
    iterations: int = 10_000
    seed: int = 0
    redrawn: bool = False  # the data are not as `load` returns them
    extended: dict[str, Params] = field(default_factory=dict)  # by dtype

    @property
    def call(self) -> str:
        """What one call of a contender computes."""
        return "gradient" if self.what == "gradient" else "step"

    @property
    def measured(self) -> Problem:
        """The part of the problem that errors are measured on: as many samples as extended precision has time for."""
        params, x, t = self.problem
        terms = params.W1.size * len(params.b2)  # of a sample
        samples = min(len(t), EXTENDED_COST // terms)
        return Problem(params, x[:samples], t[:samples])

    def extended_gradient(self, dtype: str) -> Params:
        """Return the gradient in extended precision at the numbers that `dtype` holds, computed once."""
        if dtype not in self.extended:
            self.extended[dtype] = extended_gradient(self.measured.rounded(dtype), self.h)
        return self.extended[dtype]


class Contender(NamedTuple):
    """A clock, and all that is known before it is read."""

    backend: str
    strategy: str
    dtype: str
    device: str
    clock: Clock
    first_call_s: float | None  # in a process of its own; None where it was not measured, or each reading is one
    peak_bytes: int | None  # of resident memory in the first call, above what was held before; None where unknown
    error: float | None  # of the gradient, relative, against extended precision; None where that would take long
    estimated: str | None  # "128 of 39,760 parameters"
    ranked: bool
    run: RunCosts | None = None  # what a run adds to its steps

    @property
    def name(self) -> str:
        """Backend and strategy."""
        return f"{self.backend} {self.strategy}"


def sample_entries(task: Task, count: int) -> Params | None:
    """Draw `count` flat indices of parameters to time, or return None where those are all."""
    sizes = [p.size for p in task.problem.params]
    if count >= sum(sizes):
        return None
    flat = np.sort(np.random.default_rng(task.seed).choice(sum(sizes), count, replace=False))
    ends = np.cumsum(sizes)
    return Params(
        *(flat[(end - size <= flat) & (flat < end)] - (end - size) for size, end in zip(sizes, ends, strict=True))
    )


def gradient_function(
    subject: Subject, strategy: str, task: Task, entries: Params | None, problem: Problem | None = None
) -> Callable[[], Params]:
    """Return the function that computes the gradient of the task's problem, or of another one."""
    problem = problem or task.problem
    params, x = on_device(subject, problem)
    if strategy == CLOSED_FORM:
        return lambda: subject.port.gradient(params, x, problem.t)
    options: dict[str, Any] = {"h": task.h, "memory": task.memory}
    options |= {} if entries is None else {"entries": entries}
    return lambda: subject.port.GRADIENTS[strategy](params, x, problem.t, **options)


def step_clock(train: Train, step: float, seconds: float = STEPS_SECONDS) -> Clock:
    """Return a clock of one step, which takes them for `seconds` in a call unless one takes longer.

    JAX compiles for each number of steps in a call: so it is a power of two, chosen from the estimate `step` of the
    seconds of one, and only changed if that was far too high.
    """
    steps = _number_of_steps(seconds, step)
    train(steps)  # compiles for this number
    step = read(lambda: train(steps), units=steps).seconds
    if steps * step < seconds / 2 and steps < MAX_STEPS:
        steps = _number_of_steps(seconds, step)
        train(steps)
    return lambda: read_when_idle(lambda: train(steps), units=steps)


def _number_of_steps(seconds: float, step: float) -> int:
    return min(MAX_STEPS, 2 ** max(0, math.ceil(math.log2(max(seconds, MIN_SECONDS) / max(step, 1e-9)))))


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


def divide(clock: Clock, units: float) -> Clock:
    """Return a clock that reads the share of one unit."""
    return clock if units == 1 else lambda: Reading(*(value / units for value in clock()))


def error_of(subject: Subject, strategy: str, task: Task, entries: Params | None) -> float | None:
    """Compute the relative error of a gradient at the numbers that the backend is given."""
    if not len(task.measured.t):
        return None
    expected = task.extended_gradient(subject.dtype)
    if entries is not None:
        expected = at_entries(expected, entries)
    gradient = gradient_function(subject, strategy, task, entries, task.measured)()
    return relative_error([subject.port.to_numpy(g) for g in gradient], expected)
