"""How far a right training run may drift from the reference's: the run's own response to rounding.

Two right implementations take the same steps but for rounding. Let e_k be what lies between their parameters after k
steps. With H_k the Hessian of the k-th mini-batch's loss and r_k what the step itself was rounded by,

    e_{k+1} = (1 - rate H_k) e_k + r_k,      so that      e_K = sum_k P_k r_k

with P_k the product of the factors that follow step k. A worst-case bound on P_k grows exponentially and says nothing;
but the run itself can be measured. Beside the float64 reference run replicas: nets that take the same steps, each then
perturbed at random, every parameter p by +-d with

    d = u |p| + rate E,      E = `Bounds.gradient` / SAFETY,

which is what one step can be off by: the rounding of the new p, and of the gradient (bounds.py), in the dtype in
question. Their distance from the reference is sum_k P_k d_k: the same sum, of independent terms no smaller, in the same
matrices P_k. Its norm, the root mean square of the REPLICAS', is the drift of a member of the net; SAFETY times that is
the bound, the factor being for chance as everywhere. The curve of losses is held to the same rule as one more member:
the norm of its distance, each replica's loss being perturbed by E_L, what the evaluation of a loss can be off by. The
accuracy in the test may differ by the samples whose largest logit is closer to another than SAFETY times the
drift of this distance, or than evaluation can be off by.

E and E_L change slowly with the net; they are taken every PERIOD steps. In float64 the replicas' own roundings are of
the size of d, which would count them twice: d is magnified by MAGNIFY there and the distance divided by it, which is
the same as long as the response is linear, and that it is by far (1e-9 of the parameters). The learning rate is rounded
to the dtype first, as the inputs and the initial net are: that is what a port was given.

Measured on the digits (60 to 2,000 steps at rates of 0.1 and 3) and on MNIST (1,500 steps), both dtypes: ports lie at
0.005 to 0.13 of the bound, and the norms of two replicas within a factor of 1.5 of each other.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from comparison.agreement.bounds import Bounds, Problem
from comparison.agreement.comparison import Subject
from comparison.agreement.summation import SAFETY
from comparison.agreement.truth import is_comparable
from reference.collocation import make_plan
from reference.datasets import Dataset
from reference.defaults import MEMORY
from reference.numerical_gradient import collocated_gradient
from reference.training import Progress
from reference.two_layer_net import Params, accuracy, logits, max_abs
from reference.validation import unit_roundoff

REPLICAS = 2
"""More than one, in case a single direction of the net outgrows all others and chance leaves it out of one replica."""
PERIOD = 100
MAGNIFY = {"float64": 4096.0, "float32": 1.0}


class ReferenceRun(NamedTuple):
    """The reference's run, and how far rounding may drift from it."""

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


def run_reference(
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
) -> ReferenceRun | None:
    """Run the reference and its replicas; return None where rounding outweighs the gradient.

    Parameters are those of `reference.training.train`; `dtype` is the one that the ports train in, and `track` may show
    the progress of the iterations.
    """
    rng, noise = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    nets = [Params(*(_round_to(p, dtype) for p in start))] * (1 + REPLICAS)
    rate, magnify = float(_round_to(np.asarray(learning_rate), dtype)), MAGNIFY[dtype]
    max_abs_x = max_abs(data.x_train)
    losses = np.empty((1 + REPLICAS, iterations))
    for k in track(range(iterations)):
        rows = rng.integers(0, len(data.x_train), batch)
        now = Problem(nets[0], _round_to(data.x_train[rows], dtype), data.t_train[rows])
        if k == 0 and not is_comparable(now, strategy, dtype, h):
            return None
        if k % PERIOD == 0:
            of_step = Bounds(now, dtype)
            errors = Params(*(rate * e / SAFETY for e in of_step.gradient(strategy, h)))
            loss_error = of_step.loss() / SAFETY
        for n, net in enumerate(nets):
            plan = make_plan(h, max_abs_x, max_abs(net.W2), "float64")
            losses[n, k], slope = collocated_gradient(net, now.x, now.t, h, MEMORY, plan, max_abs_x)
            nets[n] = Params(*(p - rate * g for p, g in zip(net, slope, strict=True)))
            if n > 0:
                nets[n] = _perturb(nets[n], errors, magnify, dtype, noise)
                losses[n, k] += magnify * loss_error * _signs(noise, ())
    test = Problem(nets[0], _round_to(data.x_test, dtype), data.t_test)
    bounds = {name: SAFETY * drift for name, drift in _member_drifts(nets, losses, magnify).items()}
    bounds["accuracy"] = _changeable(nets, test.x, magnify) + Bounds(test, dtype).accuracy + 2 * unit_roundoff(dtype)
    return ReferenceRun(nets[0], losses[0], float(accuracy(*test)), bounds)


def measure_drifts(subject: Subject, end: Progress, run: ReferenceRun) -> list[Drift]:
    """Measure how far a run of `subject` lies from the reference's: each member, the losses and the accuracy."""
    got = {**end.params._asdict(), "losses": end.losses, "accuracy": end.accuracies[-1, 2]}
    expected = {**run.params._asdict(), "losses": run.losses, "accuracy": run.accuracy}
    gaps = {name: float(np.linalg.norm(got[name] - expected[name])) for name in expected}
    who = subject.name, subject.dtype, subject.device
    return [Drift(*who, name, gap, run.bounds[name]) for name, gap in gaps.items()]


def _round_to(array: np.ndarray, dtype: str) -> np.ndarray:
    """Round an array to `dtype`, and return it in float64."""
    return array.astype(dtype).astype(np.float64)


def _perturb(net: Params, errors: Params, magnify: float, dtype: str, noise: np.random.Generator) -> Params:
    """Move each parameter by as much as the rounding of a step may move it."""
    u = unit_roundoff(dtype)
    moves = (magnify * (u * np.abs(p) + e) for p, e in zip(net, errors, strict=True))
    return Params(*(p + d * _signs(noise, p.shape) for p, d in zip(net, moves, strict=True)))


def _signs(noise: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return 2.0 * noise.integers(0, 2, shape, dtype=np.int8) - 1


def _member_drifts(nets: list[Params], losses: np.ndarray, magnify: float) -> dict[str, float]:
    runs = [{**net._asdict(), "losses": curve} for net, curve in zip(nets, losses, strict=True)]
    norms = {name: [np.linalg.norm(run[name] - runs[0][name]) for run in runs[1:]] for name in runs[0]}
    return {name: math.hypot(*found) / math.sqrt(REPLICAS) / magnify for name, found in norms.items()}


def _changeable(nets: list[Params], x: np.ndarray, magnify: float) -> float:
    """Return the share of samples whose prediction the drift can change."""
    outputs = [logits(net, x) for net in nets]  # (N, O) each
    first = outputs[0].argmax(axis=1)[:, None]
    margin, *replicas = (np.take_along_axis(a, first, axis=1) - a for a in outputs)
    moved = np.sqrt(np.mean([((replica - margin) / magnify) ** 2 for replica in replicas], axis=0))
    others = np.arange(margin.shape[1]) != first
    return float(((margin <= SAFETY * moved) & others).any(axis=1).mean())
