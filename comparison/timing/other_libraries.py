"""The finite differences of SciPy and numdifftools, on the same loss, as contenders that are timed and never ranked.

Each is called as its documentation tells a user to: with the loss as a function of all parameters in one vector.
"""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from comparison.agreement.bounds import Problem
from comparison.timing.rounds import calibrated, reading
from comparison.timing.workloads import Contender, Task, first_call, relative_error
from reference.two_layer_net import Params, loss

Loss = Callable[[np.ndarray], float]


class Peer(NamedTuple):
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

    def of_many(points: np.ndarray) -> np.ndarray:  # (n, ...) -> (...)
        return np.apply_along_axis(loss, 0, points)

    return jacobian(of_many, at).df


def _numdifftools(loss: Loss, at: np.ndarray, h: float) -> np.ndarray:
    from numdifftools import Gradient

    return Gradient(loss)(at)


PEERS = (
    Peer("scipy approx_fprime", "scipy", _approx_fprime, lambda n: n + 1, lambda n: 8 * n),
    Peer("scipy 3-point", "scipy", _three_point, lambda n: 2 * n + 1, lambda n: 8 * n),
    Peer("scipy jacobian", "scipy", _jacobian, lambda n: 27 * n, lambda n: 64 * n * n),
    Peer("numdifftools Gradient", "numdifftools", _numdifftools, lambda n: 30 * n, lambda n: 240 * n),
)
"""The counts were seen on nets of 85 to 385 parameters; the last two extrapolate from several steps."""
LARGEST = 2 * 2**30


def peers(task: Task, budget: float) -> tuple[list[Contender], list[dict[str, str]]]:
    """Return a contender for each peer that is installed and can finish, and a reason for each other.

    Parameters
    ----------
    task : Task
        Its problem is differentiated, in float64.
    budget : float
        Seconds that a gradient may take.
    """
    found: list[Contender] = []
    not_run: list[dict[str, str]] = []
    flat = _Flat(task.problem)
    each = reading(lambda: flat.loss(flat.at), 20).seconds
    for peer in PEERS:
        if reason := _reason_not_to_run(peer, flat.at.size, each, budget):
            not_run.append({"backend": peer.name, "reason": reason})
        else:
            found.append(_contender(peer, flat, task))
    return found, not_run


class _Flat:
    """The loss as a function of all parameters in one vector."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.at = np.concatenate([p.ravel() for p in problem.params])
        self.ends = np.cumsum([p.size for p in problem.params])[:-1]

    def loss(self, at: np.ndarray) -> float:
        parts = zip(np.split(at, self.ends), self.problem.params, strict=True)
        params = Params(*(part.reshape(p.shape) for part, p in parts))
        return float(loss(params, self.problem.x, self.problem.t))


def _reason_not_to_run(peer: Peer, count: int, each: float, budget: float) -> str | None:
    if importlib.util.find_spec(peer.package) is None:
        return f"{peer.package} is not installed."
    seconds, size = peer.evaluations(count) * each, peer.bytes(count)
    if seconds <= budget and size <= LARGEST:
        return None
    return f"a gradient of {count:,} parameters would take about {seconds:.0f} s and {size / 2**30:.1f} GiB."


def _contender(peer: Peer, flat: _Flat, task: Task) -> Contender:
    def call() -> np.ndarray:
        return peer.gradient(flat.loss, flat.at, task.h)

    first, peak = first_call(call)
    true = np.concatenate([g.ravel() for g in task.truth("float64")])
    error = relative_error(Params(call(), *[np.empty(0)] * 3), Params(true, *[np.empty(0)] * 3))
    return Contender(peer.name, "peer", "float64", "cpu", calibrated(call), first, peak, error, None, False)
