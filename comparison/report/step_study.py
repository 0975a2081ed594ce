"""Two looks at the differences for the report: their error by the step, and the gradient as pictures."""

import math
import warnings
from typing import Any

import numpy as np

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject, on_device
from comparison.timing.workloads import relative_error
from reference.numerical_gradient import GRADIENTS
from reference.two_layer_net import Params, largest, loss_and_gradient
from reference.validation import check_net, check_step_moves

STEPS = tuple(float(h) for h in np.geomspace(1e-12, 1, 49))
SAMPLE = 60
"""Parameters whose loop is followed over all steps."""


def errors_by_step(problem: Problem, seed: int = 0) -> list[dict[str, Any]]:
    """Return the error of `loop` and `collocated` against the derivative for each of STEPS, in both dtypes.

    The derivative is the closed form in NumPy's longest precision. Both are looked at on the same random sample of
    parameters. `loop` has no value where h is too small to move a parameter at all.
    """
    rng = np.random.default_rng(seed)
    chosen = Params(*(np.sort(rng.choice(p.size, min(p.size, SAMPLE), replace=False)) for p in problem.params))
    *params, x = (array.astype(np.longdouble) for array in (*problem.params, problem.x))
    true = _at(chosen, loss_and_gradient(Params(*params), x, problem.t)[1])
    rows = []
    for dtype in ("float64", "float32"):
        for strategy in ("loop", "collocated"):
            errors = {h: _error(problem, strategy, dtype, h, chosen, true) for h in STEPS}
            kept = {h: error for h, error in errors.items() if error is not None}
            rows.append({"strategy": strategy, "dtype": dtype, "steps": list(kept), "errors": list(kept.values())})
    return rows


def _at(chosen: Params, whole: Params) -> Params:
    return Params(*(g.ravel()[at] for g, at in zip(whole, chosen, strict=True)))


def _error(problem: Problem, strategy: str, dtype: str, h: float, chosen: Params, true: Params) -> float | None:
    params = Params(*(p.astype(dtype) for p in problem.params))
    x = problem.x.astype(dtype)
    if strategy == "collocated":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`collocated` needs")  # at a large step: structured takes over
            return relative_error(_at(chosen, GRADIENTS["collocated"](params, x, problem.t, h=h)), true)
    try:
        check_step_moves(h, check_net(params, x, np.ndarray, largest), dtype)
    except ValueError:
        return None
    return relative_error(GRADIENTS["loop"](params, x, problem.t, h=h, entries=chosen), true)


def images(subjects: list[Subject], problem: Problem, units: int = 4) -> tuple[list[int], dict[str, np.ndarray]]:
    """Return the gradient of W1 for the hidden units where it is largest, as square images.

    Parameters
    ----------
    subjects : list of Subject
        One for each backend.
    problem : Problem
    units : int
        At most so many.

    Returns
    -------
    list of U ints
        The hidden units; none if the inputs are no square.
    dict
        (U, side, side) arrays by the subject's name.
    """
    inputs, hidden = problem.params.W1.shape
    side = math.isqrt(inputs)
    if side * side != inputs:
        return [], {}
    found = {}
    for subject in subjects:
        params, x = on_device(subject, problem)
        got = subject.port.to_numpy(subject.port.GRADIENTS["collocated"](params, x, problem.t).W1)
        found[subject.name] = got.astype(float)
    largest = np.argsort(-np.abs(next(iter(found.values()))).max(0))[: min(units, hidden)]
    return largest.tolist(), {name: g[:, largest].T.reshape(-1, side, side) for name, g in found.items()}
