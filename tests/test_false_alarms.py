"""Right ports raise no alarm, however many nets they are tried with: the other half of what a bound must do."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject, check_forward, check_gradient, disagreement_sentence
from comparison.conformance.problems import SHAPES, STEPS, problems, subjects
from reference.defaults import DTYPES, STRATEGIES
from right_sums import SUMS, summing

NETS = 10_000
FEW_SHAPES = (SHAPES[1], SHAPES[5])  # JAX compiles for each, and for each plan

pytestmark = [
    pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "nightly", reason="takes an hour or two: run by night"),
    pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning"),
]


@pytest.mark.parametrize("strategy", [None, *STRATEGIES], ids=str)
@subjects()
@settings(max_examples=NETS)
@given(data=st.data())
def test_right_ports_raise_no_false_alarm(subject: Subject, strategy: str | None, data: st.DataObject) -> None:
    shapes = FEW_SHAPES if subject.name == "jax" else SHAPES
    problem: Problem = data.draw(problems(shapes=shapes))
    for row in check_gradient(subject, problem, strategy, data.draw(st.sampled_from(STEPS))):
        assert row.agrees, disagreement_sentence(row)
    if strategy is None:
        for row in check_forward(subject, problem):
            assert row.agrees, disagreement_sentence(row)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", SUMS)
@settings(max_examples=NETS // 10)
@given(problem=problems())
def test_no_order_of_summation_raises_a_false_alarm(order: str, dtype: str, problem: Problem) -> None:
    subject = Subject(order, summing(SUMS[order]), dtype, "cpu")
    for row in (*check_forward(subject, problem), *check_gradient(subject, problem, None, 0.0)):
        assert row.agrees, disagreement_sentence(row)


@pytest.fixture(autouse=True)
def forget_programs(request: pytest.FixtureRequest) -> None:
    """Let JAX forget what it has compiled: it runs out of memory maps after some thousand programs."""
    if "subject" in request.fixturenames and request.getfixturevalue("subject").name == "jax":
        import jax

        jax.clear_caches()
