"""How a slow port is compared where time is limited: on the data, and on other nets only if there is time for them."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Agreement, Subject, new_arguments
from comparison.agreement.kinds import draw
from comparison.agreement.training import LEARNING_RATE, check_training
from comparison.agreement.trials import TRIALS, compiles_each_shape, other_dtype
from comparison.agreement.truth import is_comparable
from reference.defaults import CLOSED_FORM

CALLS = {"predict": 128, "loss": 128, "accuracy": 128, "gradient": 67, "strategy": 67, "step": 98}
"""How often the trials and trainings call each function at most, each strategy by itself, and steps of descent."""


class DataOnly(NamedTuple):
    """A subject that was compared on the data only, since other nets would have taken too long."""

    backend: str
    dtype: str
    seconds: float  # that other nets would have taken at least
    strategy: None = None


def seconds_of_other_nets(subject: Subject, strategies: tuple[str, ...], seed: int, limit: float) -> float:
    """Estimate how long a port takes in all trials and trainings, compilation left out.

    Each function is called twice on a small net, in the other dtype, and the second call counts. Once they sum up to
    more than `limit` seconds, no further one is called.
    """
    total = 0.0
    for count, call in _small_calls(other_dtype(subject), strategies, seed):
        subject.port.synchronize(call())
        began = time.perf_counter()
        subject.port.synchronize(call())
        total += count * (time.perf_counter() - began)
        if total > limit:
            break
    return total


def _small_calls(subject: Subject, strategies: tuple[str, ...], seed: int) -> Iterator[tuple[int, Callable[[], Any]]]:
    port, trial = subject.port, TRIALS[0]
    params, x, t = new_arguments(subject, draw(trial.shape, seed))
    yield CALLS["predict"], partial(port.predict, params, x)
    yield CALLS["loss"], partial(port.loss, params, x, t)
    yield CALLS["accuracy"], partial(port.accuracy, params, x, t)
    yield CALLS["gradient"], partial(port.gradient, params, x, t)
    compiles = compiles_each_shape(subject)
    for strategy in strategies:
        if not compiles or (subject.dtype, strategy) in trial.compiled:
            yield CALLS["strategy"], partial(port.GRADIENTS[strategy], params, x, t, h=trial.h)
    if not compiles:  # no trial has this program
        batches, strategy = np.arange(len(t))[None], CLOSED_FORM
        yield (
            CALLS["step"],
            partial(port.train_steps, params, x, t, batches, strategy=strategy, learning_rate=LEARNING_RATE),
        )


def check_data_training(
    subject: Subject, problem: Problem, strategies: tuple[str, ...], *, h: float, memory: float
) -> Iterator[Agreement]:
    """Compare two steps of descent on the data, by the closed form and by differences."""
    yield from check_training(subject, problem, None, h, memory=memory)
    for strategy in strategies:
        if is_comparable(problem, strategy, subject.dtype, h):
            yield from check_training(subject, problem, strategy, h, memory=memory)
