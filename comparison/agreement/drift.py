"""How far a right training run may drift from the reference's: the run's own response to rounding.

Two right implementations take the same steps but for rounding. Let e_k be what lies between their parameters after k
steps. With H_k the Hessian of the k-th mini-batch's loss and r_k what the step itself was rounded by,

    e_{k+1} = (1 - rate H_k) e_k + r_k,      so that      e_K = sum_k P_k r_k

with P_k the product of the factors that follow step k. A worst-case bound on P_k grows exponentially and says nothing;
but the run can be asked. The float64 reference is followed by shadows: nets that take the same steps, each then moved
at random, every parameter p by +-d with

    d = u |p| + rate E,      E = `gradient_bound` / CHANCE,

which is what one step can be off by: the rounding of the new p, and of the gradient (bounds.py), in the dtype in
question. Their distance from the reference is sum_k P_k d_k: the same sum, of independent terms no smaller, in the same
matrices P_k. Its norm, the root mean square of the SHADOWS', is the drift of a member of the net; CHANCE times that is
the bound, the factor being for chance as everywhere. The curve of losses is held to the same rule as one more member:
the norm of its distance, each shadow's loss being moved by E_L, what the evaluation of a loss can be off by. The
accuracy in the test may differ by the samples whose largest logit is closer to another than CHANCE times what this
distance is moved by, or than evaluation can be off by.

E and E_L change slowly with the net; they are taken every PERIOD steps. In float64 the shadows' own roundings are of
the size of d, which would count them twice: d is magnified by MAGNIFY there and the distance divided by it, which is
the same as long as the response is linear, and that it is by far (1e-9 of the parameters). The learning rate is rounded
to the dtype first, as the inputs and the initial net are: that is what a port was given.

Measured on the digits (60 to 2,000 steps at rates of 0.1 and 3) and on MNIST (1,500 steps), both dtypes: ports lie at
0.005 to 0.13 of the bound, and the norms of two shadows within a factor of 1.5 of each other.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from comparison.agreement.bounds import CHANCE, Problem, accuracy_bound, gradient_bound, loss_bound
from comparison.agreement.comparison import Subject, informative
from reference.datasets import Dataset
from reference.numerical_gradient import collocated_step
from reference.training import Progress
from reference.two_layer_net import Params, accuracy, logits
from reference.validation import MEMORY, unit_roundoff

SHADOWS = 2
"""More than one, in case a single direction of the net outgrows all others and chance spares it in one shadow."""
PERIOD = 100
MAGNIFY = {"float64": 4096.0, "float32": 1.0}


class Course(NamedTuple):
    """Where the reference's run leads, and how far rounding may drift from it."""

    params: Params  # float64
    losses: np.ndarray  # (K,)
    accuracy: float  # in the test, at the end
    bounds: dict[str, float]  # on the norms of the distances


class Drift(NamedTuple):
    """How far a member of a run lies from the reference's, by the norm of the difference."""

    backend: str
    dtype: str
    device: str
    quantity: str
    gap: float
    bound: float

    @property
    def ratio(self) -> float:
        """Gap / bound; infinite where the bound is 0, as for parts that nothing moves."""
        return self.gap / self.bound if self.bound else math.inf if self.gap else 0.0

    @property
    def agrees(self) -> bool:
        """Whether the gap is within the bound; NaN never is."""
        return self.gap <= self.bound


def course(
    start: Params,
    data: Dataset,
    *,
    dtype: str,
    strategy: str,
    iterations: int,
    batch: int,
    learning_rate: float,
    h: float,
    seed: int,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Course | None:
    """Follow the reference and its shadows through a run, or return None where rounding outweighs the gradient.

    Parameters are those of `reference.training.train`; `dtype` is the one that the ports train in, and `track` may show
    how far the iterations have come.
    """
    draw, noise = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    nets = [Params(*(_held(p, dtype) for p in start))] * (1 + SHADOWS)
    rate, magnify = float(_held(np.asarray(learning_rate), dtype)), MAGNIFY[dtype]
    largest_input = float(np.abs(data.x_train).max())
    losses = np.empty((1 + SHADOWS, iterations))
    for k in track(range(iterations)):
        rows = draw.integers(0, len(data.x_train), batch)
        now = Problem(nets[0], _held(data.x_train[rows], dtype), data.t_train[rows])
        if k == 0 and not informative(now, strategy, dtype, h):
            return None
        if k % PERIOD == 0:
            errors = Params(*(rate * e / CHANCE for e in gradient_bound(now, dtype, strategy, h)))
            loss_error = loss_bound(now, dtype) / CHANCE
        for n, net in enumerate(nets):
            losses[n, k], slope = collocated_step(net, now.x, now.t, h, MEMORY, largest_input)
            nets[n] = Params(*(p - rate * g for p, g in zip(net, slope, strict=True)))
            if n > 0:
                nets[n] = _moved(nets[n], errors, magnify, dtype, noise)
                losses[n, k] += magnify * loss_error * _signs(noise, ())
    test = Problem(nets[0], _held(data.x_test, dtype), data.t_test)
    bounds = {name: CHANCE * drift for name, drift in _drift(nets, losses, magnify).items()}
    bounds["accuracy"] = _turnable(nets, test.x, magnify) + accuracy_bound(test, dtype) + 2 * unit_roundoff(dtype)
    return Course(nets[0], losses[0], float(accuracy(*test)), bounds)


def drifts(subject: Subject, end: Progress, along: Course) -> list[Drift]:
    """Return how far a run of `subject` lies from the reference's: each member, the losses and the accuracy."""
    got = {**end.params._asdict(), "losses": end.losses, "accuracy": end.accuracies[-1, 2]}
    expected = {**along.params._asdict(), "losses": along.losses, "accuracy": along.accuracy}
    gaps = {name: float(np.linalg.norm(got[name] - expected[name])) for name in expected}
    who = subject.name, subject.dtype, subject.device
    return [Drift(*who, name, gap, along.bounds[name]) for name, gap in gaps.items()]


def _held(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return in float64 what `dtype` holds of an array."""
    return array.astype(dtype).astype(np.float64)


def _moved(net: Params, errors: Params, magnify: float, dtype: str, noise: np.random.Generator) -> Params:
    """Return the net as a step that rounds as much as it may could have left it."""
    u = unit_roundoff(dtype)
    sizes = (magnify * (u * np.abs(p) + e) for p, e in zip(net, errors, strict=True))
    return Params(*(p + d * _signs(noise, p.shape) for p, d in zip(net, sizes, strict=True)))


def _signs(noise: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return 2.0 * noise.integers(0, 2, shape, dtype=np.int8) - 1


def _drift(nets: list[Params], losses: np.ndarray, magnify: float) -> dict[str, float]:
    runs = [{**net._asdict(), "losses": curve} for net, curve in zip(nets, losses, strict=True)]
    norms = {name: [np.linalg.norm(run[name] - runs[0][name]) for run in runs[1:]] for name in runs[0]}
    return {name: math.hypot(*found) / math.sqrt(SHADOWS) / magnify for name, found in norms.items()}


def _turnable(nets: list[Params], x: np.ndarray, magnify: float) -> float:
    """Return the share of samples whose prediction the drift can turn."""
    outputs = [logits(net, x) for net in nets]  # (N, O) each
    first = outputs[0].argmax(axis=1)[:, None]
    apart, *shadows = (np.take_along_axis(a, first, axis=1) - a for a in outputs)
    moved = np.sqrt(np.mean([((shadow - apart) / magnify) ** 2 for shadow in shadows], axis=0))
    others = np.arange(apart.shape[1]) != first
    return float(((apart <= CHANCE * moved) & others).any(axis=1).mean())
