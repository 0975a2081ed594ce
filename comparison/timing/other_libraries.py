"""The finite differences of SciPy and numdifftools, on the same loss: contenders that are timed and never ranked.

Each is called as its documentation tells a user to: with the loss as a function of all parameters in one vector.
"""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from comparison.agreement.bounds import Problem
from comparison.timing.errors import relative_error
from comparison.timing.rounds import calibrate, read
from comparison.timing.sentences import duration
from comparison.timing.starts import first_call
from comparison.timing.workloads import Contender, Task
from reference.two_layer_net import Params, loss

Loss = Callable[[np.ndarray], float]


class Library(NamedTuple):
    """A function of a library that differentiates a function of a vector."""

    name: str
    package: str
    gradient: Callable[[Loss, np.ndarray, float], np.ndarray]
    evaluations: Callable[[int], int]  # of the loss, for a gradient of n parameters
    bytes: Callable[[int], int]  # that it holds at once


def _approx_fprime(loss: Loss, at: np.ndarray, h: float) -> np.ndarray:
    from scipy.optimize import approx_fprime

    return approx_fprime(at, loss, h)


def _three_point(loss: Loss, at: np.ndarray, h: float) -> np.ndarray:
    """Take `approx_derivative(method="3-point")` by its public entry, the Jacobian of `least_squares`."""
    from scipy.optimize import least_squares

    return least_squares(loss, at, jac="3-point", max_nfev=1).jac[0]


def _jacobian(loss: Loss, at: np.ndarray, h: float) -> np.ndarray:
    from scipy.differentiate import jacobian

    def loss_of_many(points: np.ndarray) -> np.ndarray:  # (n, ...) -> (...)
        return np.apply_along_axis(loss, 0, points)

    return jacobian(loss_of_many, at).df


def _numdifftools(loss: Loss, at: np.ndarray, h: float) -> np.ndarray:
    from numdifftools import Gradient

    return Gradient(loss)(at)


LIBRARIES = (
    Library("scipy approx_fprime", "scipy", _approx_fprime, lambda n: n + 1, lambda n: 8 * n),
    Library("scipy 3-point", "scipy", _three_point, lambda n: 2 * n + 1, lambda n: 8 * n),
    Library("scipy jacobian", "scipy", _jacobian, lambda n: 27 * n, lambda n: 64 * n * n),
    Library("numdifftools Gradient", "numdifftools", _numdifftools, lambda n: 30 * n, lambda n: 240 * n),
)
"""The counts were seen on nets of 85 to 385 parameters; the last two extrapolate from several steps."""
MAX_BYTES = 2 * 2**30


def make_library_contenders(task: Task, budget: float) -> tuple[list[Contender], list[dict[str, str]]]:
    """Make a contender of each library that is installed and can finish; return a row with the reason for each other.

    Parameters
    ----------
    task : Task
        Its problem is differentiated, in float64.
    budget : float
        Seconds that a gradient may take.
    """
    contenders: list[Contender] = []
    not_run: list[dict[str, str]] = []
    flat = _FlatProblem(task.problem)
    seconds = read(lambda: flat.loss(flat.at), 20).seconds
    for library in LIBRARIES:
        if reason := _reason_not_to_run(library, flat.at.size, seconds, budget):
            not_run.append({"backend": library.name, "reason": reason})
        else:
            contenders.append(_make_contender(library, flat, task))
    return contenders, not_run


class _FlatProblem:
    """The loss as a function of all parameters in one vector."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.at = np.concatenate([p.ravel() for p in problem.params])
        self.ends = np.cumsum([p.size for p in problem.params])[:-1]

    def loss(self, at: np.ndarray) -> float:
        parts = zip(np.split(at, self.ends), self.problem.params, strict=True)
        params = Params(*(part.reshape(p.shape) for part, p in parts))
        return float(loss(params, self.problem.x, self.problem.t))


def _reason_not_to_run(library: Library, count: int, seconds_of_loss: float, budget: float) -> str | None:
    if importlib.util.find_spec(library.package) is None:
        return f"{library.package} is not installed."
    seconds, size = library.evaluations(count) * seconds_of_loss, library.bytes(count)
    would = f"a gradient of {count:,} parameters would take about"
    if size > MAX_BYTES:
        return f"{would} {size / 2**30:.1f} GiB, more than {MAX_BYTES / 2**30:g}."
    if seconds > budget:
        return f"{would} {duration(seconds)}, more than its share of --budget, {duration(budget)}."
    return None


def _make_contender(library: Library, flat: _FlatProblem, task: Task) -> Contender:
    def call() -> np.ndarray:
        return library.gradient(flat.loss, flat.at, task.h)

    first, peak = first_call(call)
    error = None
    if len(task.measured.t) == len(task.problem.t):
        error = relative_error([call()], [np.concatenate([g.ravel() for g in task.extended_gradient("float64")])])
    return Contender(library.name, "peer", "float64", "cpu", calibrate(call), first, peak, error, None, False)
