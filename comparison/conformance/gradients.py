"""Gradients of a port, what they are compared with, and the largest gap / bound that was met."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from comparison.agreement.bounds import Bounds, Problem
from comparison.agreement.comparison import (
    FORWARD,
    Agreement,
    Subject,
    disagreement_sentence,
    on_device,
    random_problem,
)
from comparison.agreement.trials import compiles_each_shape
from comparison.conformance.nets import SHAPE
from reference import datasets
from reference.defaults import CLOSED_FORM, STRATEGIES
from reference.two_layer_net import Params

HANDS_OVER = "ignore:`collocated` needs more than:RuntimeWarning"

worst_ratios: dict[str, float] = {}
"""The largest gap / bound of each strategy, of all that the present test has compared; the plugin empties it."""

gradients = pytest.mark.parametrize("strategy", [*STRATEGIES, None], ids=lambda name: name or CLOSED_FORM)


def record_ratio(strategy: str, ratio: float) -> None:
    """Note a gap / bound."""
    worst_ratios[strategy] = max(ratio, worst_ratios.get(strategy, 0.0))


def skip_by_turns(subject: Subject, n: int) -> None:
    """Skip the n-th of several shapes in one of the two dtypes where each shape costs a compilation."""
    if compiles_each_shape(subject) and (n + (subject.dtype == "float32")) % 2:
        pytest.skip("each shape is compiled in one dtype only")


def assert_agrees(rows: Iterable[Agreement]) -> None:
    """Record each gap / bound; fail with a sentence at the first that is above 1."""
    for row in rows:
        record_ratio(row.strategy or FORWARD, row.ratio)
        assert row.agrees, disagreement_sentence(row)


def digits(hidden: int = 5, samples: int = 20) -> Problem:
    """Draw a net and a mini-batch of the digits."""
    data = datasets.load("digits")
    return random_problem(data.x_train, data.t_train, hidden=hidden, outputs=10, samples=samples, seed=0)


def gradient_of(subject: Subject, problem: Problem, strategy: str | None, t: Any = None, **options: Any) -> Params:
    """Return a gradient as NumPy arrays, by default at h = 1e-2; the closed form has no options."""
    port, (params, x) = subject.port, on_device(subject, problem)
    labels = problem.t if t is None else t
    if strategy is None:
        return Params(*map(port.to_numpy, port.gradient(params, x, labels)))
    return Params(*map(port.to_numpy, port.GRADIENTS[strategy](params, x, labels, **({"h": 1e-2} | options))))


def assert_same(got: Any, expected: Any) -> None:
    """Fail unless all arrays have the same bits."""
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_array_equal(g, e, strict=True)


def assert_close(strategy: str | None, got: Params, expected: Params, *bounds: Params) -> None:
    """Fail unless the distance is within the sum of the bounds: both are off by their own at most."""
    for name, g, e, *b in zip(Params._fields, got, expected, *bounds, strict=True):
        gap, bound = np.abs(g.astype(np.float64) - e), sum(b)
        assert (gap <= bound).all(), (
            f"{name} is off by {gap.max():.3g}, the bound there is {bound.flat[gap.argmax()]:.3g}"
        )
        ratios = gap[bound > 0] / bound[bound > 0]
        record_ratio(strategy or CLOSED_FORM, float(ratios.max(initial=0.0)))


def bound_of(subject: Subject, problem: Problem, strategy: str | None, h: float) -> Params:
    """Return the bound on the rounding errors of a gradient."""
    return Bounds(problem.rounded(subject.dtype), subject.dtype).gradient(strategy, h if strategy else 0.0)


def of_both(subject: Subject, one: Problem, other: Problem, strategy: str | None) -> list[Params]:
    """Return the two gradients, then their bounds."""
    gradients = [gradient_of(subject, problem, strategy) for problem in (one, other)]
    return gradients + [bound_of(subject, problem, strategy, 1e-2) for problem in (one, other)]


def moderate(seed: int, max_abs_x: float = 1.0) -> Problem:
    """Return a net of the one shape with inputs in [0, max_abs_x], no unit of which is saturated."""
    samples, inputs, hidden, outputs = SHAPE[0]
    rng = np.random.default_rng(seed)
    params = Params(
        W1=rng.standard_normal((inputs, hidden)) / max_abs_x,
        b1=rng.standard_normal(hidden),
        W2=rng.uniform(-0.5, 0.5, (hidden, outputs)),  # whatever the seed, JAX compiles for one plan
        b2=rng.standard_normal(outputs),
    )
    x = max_abs_x * rng.random((samples, inputs)) * (rng.random((samples, inputs)) < 0.7)
    return Problem(params, x, rng.integers(0, outputs, samples))
