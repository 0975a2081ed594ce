"""What a port is held to: the reference's own results, in float64, and the bounds on the rounding of others."""

from functools import cached_property
from typing import Any

import numpy as np

from comparison.agreement.bounds import Bounds, Problem
from reference import two_layer_net
from reference.collocation import make_plan
from reference.numerical_gradient import structured
from reference.two_layer_net import Params, max_abs
from reference.validation import unit_roundoff

BOUNDED_ALIKE = {"batched": "loop", "collocated": "structured"}


class Truth:
    """The results of a problem at the numbers that a dtype holds, and the bounds on them; each is computed once."""

    def __init__(self, problem: Problem, dtype: str, h: float = 0.0) -> None:
        self._problem, self._dtype, self._h = problem.rounded(dtype), dtype, float(h)
        self._bounds, self._of_gradients = Bounds(self._problem, dtype), dict[str | None, Params]()

    @cached_property
    def forward(self) -> dict[str, tuple[Any, Any]]:
        """Predictions, loss and accuracy, each with its bound."""
        (params, x, t), bounds = self._problem, self._bounds
        of_the_mean = 2 * unit_roundoff(self._dtype)
        return {
            "predictions": (two_layer_net.predict(params, x), bounds.predictions),
            "loss": (two_layer_net.loss(params, x, t), bounds.loss()),
            "accuracy": (two_layer_net.accuracy(params, x, t), bounds.accuracy + of_the_mean),
        }

    @cached_property
    def differences(self) -> Params:
        """The central differences."""
        return structured(*self._problem, h=self._h)

    @cached_property
    def derivative(self) -> Params:
        """The closed form."""
        return two_layer_net.gradient(*self._problem)

    def bounds(self, strategy: str | None) -> Params:
        """Return the bounds on a strategy's rounding; None stands for the closed form."""
        kind = BOUNDED_ALIKE.get(strategy or "", strategy)
        if kind not in self._of_gradients:
            self._of_gradients[kind] = self._bounds.gradient(kind, self._h if kind else 0.0)
        return self._of_gradients[kind]

    @property
    def is_handed_over(self) -> bool:
        """Whether `collocated` hands over to `structured`, with a warning."""
        params, x, _ = self._problem
        return not make_plan(self._h, max_abs(x), max_abs(params.W2), self._dtype).collocates

    def is_comparable(self, strategy: str) -> bool:
        """Whether the bound of `loop` or `batched` is below the largest entry of each member of the gradient.

        In float32 at h = 1e-4 it is not: two losses are subtracted that differ by less than their own rounding.
        """
        if strategy not in ("loop", "batched"):
            return True
        pairs = zip(self.bounds(strategy), self.differences, strict=True)
        return all(float(b.min()) < float(np.abs(g).max()) for b, g in pairs)


def is_comparable(problem: Problem, strategy: str, dtype: str, h: float) -> bool:
    """Whether rounding leaves something of the differences by a strategy; see `Truth.is_comparable`."""
    return Truth(problem, dtype, h).is_comparable(strategy)
