"""Two studies of the differences for the report: their error by the step h, and the gradient as pictures."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject, on_device
from comparison.timing.errors import at_entries, relative_error
from reference.defaults import DTYPES, MEMORY, H
from reference.numerical_gradient import GRADIENTS
from reference.two_layer_net import Params, closed_form, max_abs
from reference.validation import SmallHError, check_h_moves, check_net

STEPS = tuple(float(h) for h in np.geomspace(1e-12, 1, 49))
SAMPLE = 60
"""Parameters of a member that `loop` is evaluated at."""


class Pictures(NamedTuple):
    """The gradient of W1 for some hidden units, as images; none where the inputs are no square."""

    units: list[int]
    images: dict[str, np.ndarray]  # (U, side, side) by the subject's name


def errors_by_step(problem: Problem, seed: int = 0) -> list[dict[str, Any]]:
    """Compute the error of `loop` and `collocated` against the derivative for each of STEPS, in both dtypes.

    The derivative is the closed form in NumPy's longest precision. Both strategies are evaluated at the same random
    sample of parameters. `loop` has no value where h is too small to move a parameter at all.
    """
    rng = np.random.default_rng(seed)
    entries = Params(*(np.sort(rng.choice(p.size, min(p.size, SAMPLE), replace=False)) for p in problem.params))
    *params, x = (array.astype(np.longdouble) for array in (*problem.params, problem.x))
    derivative = at_entries(closed_form(Params(*params), x, problem.t)[1], entries)
    rows = []
    for dtype in DTYPES:
        for strategy in ("loop", "collocated"):
            errors = {h: _error(problem, strategy, dtype, h, entries, derivative) for h in STEPS}
            defined = {h: error for h, error in errors.items() if error is not None}
            steps, errors_defined = list(defined), list(defined.values())
            rows.append({"strategy": strategy, "dtype": dtype, "steps": steps, "errors": errors_defined})
    return rows


def _error(problem: Problem, strategy: str, dtype: str, h: float, entries: Params, derivative: Params) -> float | None:
    params = Params(*(p.astype(dtype) for p in problem.params))
    x = problem.x.astype(dtype)
    if strategy == "collocated":
        with _structured_may_take_over():
            gradient = GRADIENTS["collocated"](params, x, problem.t, h=h)
        return relative_error(at_entries(gradient, entries), derivative)
    try:
        check_h_moves(h, check_net(params, x, np.ndarray, max_abs), dtype)
    except SmallHError:
        return None
    return relative_error(GRADIENTS["loop"](params, x, problem.t, h=h, entries=entries), derivative)


@contextmanager
def _structured_may_take_over() -> Iterator[None]:
    """Say nothing where the step is so large that `collocated` is computed by `structured`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`collocated` needs")
        yield


def gradient_images(
    subjects: list[Subject], problem: Problem, *, h: float = H, memory: int = MEMORY, units: int = 4
) -> Pictures:
    """Compute the gradient of W1 by `collocated` for the hidden units where it is largest, as square images.

    Parameters
    ----------
    subjects : list of Subject
        One for each backend, whose gradients agree.
    problem : Problem
    h : float
    memory : int
        As in `reference.numerical_gradient`.
    units : int
        The largest number of hidden units.
    """
    inputs, hidden = problem.params.W1.shape
    side = math.isqrt(inputs)
    if side * side != inputs or not subjects:
        return Pictures([], {})
    gradients = {}
    for subject in subjects:
        params, x = on_device(subject, problem)
        with _structured_may_take_over():
            gradient = subject.port.GRADIENTS["collocated"](params, x, problem.t, h=h, memory=memory)
        gradients[subject.name] = subject.port.to_numpy(gradient.W1).astype(float)
    first = next(iter(gradients.values()))
    shown = np.argsort(-np.abs(first).max(0))[: min(units, hidden)]
    images = {name: g[:, shown].T.reshape(-1, side, side) for name, g in gradients.items()}
    return Pictures(shown.tolist(), images)
