"""Right ports raise no alarm, however many nets they are tried with: the other half of what a bound must do."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ports.agreement import Agreement, Subject, check_forward, check_gradient
from ports.bounds import Problem
from ports.protocol import STRATEGIES
from problems import STEPS, problems, subjects

NETS = 10_000
pytestmark = [
    pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "nightly", reason="takes an hour: run by night"),
    pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning"),
]


def everything(subject: Subject, problem: Problem, h: float) -> Iterator[Agreement]:
    yield from check_forward(subject, problem)
    for strategy in (None, *STRATEGIES):
        yield from check_gradient(subject, problem, strategy, h)


@pytest.fixture
def forget() -> Iterator[list[int]]:
    """Count calls; JAX keeps a program for each plan, and the system runs out of memory maps."""
    calls: list[int] = []
    yield calls
    calls.clear()


@subjects()
@settings(max_examples=NETS)
@given(problem=problems(), h=st.sampled_from(STEPS))
def test_right_ports_raise_no_false_alarm(subject: Subject, problem: Problem, h: float) -> None:
    for row in everything(subject, problem, h):
        assert row.agrees, row
