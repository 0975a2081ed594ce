import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ports.agreement import Problem, Subject, check_forward, check_gradient, informative
from problems import STEPS, problems, subjects


@subjects()
@given(problem=problems())
def test_forward(subject: Subject, problem: Problem) -> None:
    for row in check_forward(subject, problem):
        assert row.agrees, row


@pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning")
@pytest.mark.parametrize("strategy", ["loop", "batched", "structured", "collocated", None])
@subjects()
@given(problem=problems(), h=st.sampled_from(STEPS))
def test_gradient(subject: Subject, strategy: str | None, problem: Problem, h: float) -> None:
    for row in check_gradient(subject, problem, strategy, h):
        assert row.agrees, row
