"""Nets that several tests put before a port, and NumPy's port as a subject."""

import numpy as np
from hypothesis import settings

import ports
from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject
from comparison.conformance.problems import SHAPES, problems

MAX_EXAMPLES = (settings.default or settings()).max_examples
FEW = settings(max_examples=max(1, MAX_EXAMPLES // 8))
SHAPE = SHAPES[5:6]  # one is enough where each example is run by a backend several times
NUMPY = Subject("numpy", ports.load("numpy"), "float64", "cpu")


def of_one_plan(problem: Problem) -> Problem:
    """Return the problem with W2 scaled to max|W2| = 0.7, so that JAX compiles only once for each h."""
    W2 = problem.params.W2
    return problem._replace(params=problem.params._replace(W2=W2 * (0.7 / (np.abs(W2).max() or 1))))


nets = problems(shapes=SHAPE).map(of_one_plan)
