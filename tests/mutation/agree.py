"""What `compare.py agree` does, on a small problem: quick enough to be held against one mutant after the other."""

import numpy as np

from comparison.agreement.cases import check_subject
from comparison.agreement.comparison import Agreement, Subject, random_problem
from comparison.conformance.problems import subjects
from reference.defaults import STRATEGIES


@subjects()
def test_a_port_agrees(subject: Subject) -> None:
    x, t = np.random.default_rng(0).random((7, 5)), np.arange(7) % 2
    problem = random_problem(x, t, hidden=3, outputs=2, samples=7, seed=0)
    for row in check_subject(subject, problem, STRATEGIES, h=1e-4, memory=2**28, seed=0):
        assert not isinstance(row, Agreement) or row.agrees, row
