"""Right ports lie within the bounds, whatever the order in which they add up."""

import numpy as np
import pytest

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Agreement, Subject, check_forward, check_gradient, random_problem
from comparison.conformance.problems import subjects
from reference import datasets
from reference.defaults import DTYPES
from reference.two_layer_net import Params, init
from right_sums import SUMS, summing

EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def ratios(subject: Subject, net: Problem, *strategies: tuple[str | None, float]) -> dict[str, Agreement]:
    """Return the rows of a subject by what they compare."""
    rows = [*check_forward(subject, net)]
    for strategy, h in ((None, 0.0), *strategies):
        rows += check_gradient(subject, net, strategy, h)
    return {f"{row.strategy} {row.quantity}": row for row in rows if row.quantity != "accuracy"}


def alike(count: int, spread: float = 0.0) -> Problem:
    """Return samples that differ by no more than their labels; or by `spread`, of their input's weight."""
    rng = np.random.default_rng(count)
    params = Params(
        np.full((1, 2), spread), rng.standard_normal(2), rng.standard_normal((2, 2)), rng.standard_normal(2)
    )
    return Problem(params, rng.random((count, 1)) if spread else np.ones((count, 1)), rng.integers(0, 2, count))


def identical(count: int) -> Problem:
    """Return samples that are all the same, so that whatever one loses all do."""
    net = init(1, 4, 2, 1.0, seed=1)
    return Problem(net._replace(W1=np.zeros((1, 4))), np.ones((count, 1)), np.zeros(count, int))


def classes(count: int, std: float = 0.01) -> Problem:
    """Return the chapter's initial net, with many classes."""
    return Problem(init(1, 1, count, std, seed=0), np.ones((3, 1)), np.arange(3))


def dominated(count: int) -> Problem:
    """Return a net whose classes but one are alike and hardly probable: each addition to that one's may be lost."""
    params = init(1, 1, count, seed=0)
    return Problem(params._replace(b2=np.where(np.arange(count) == 0, 0.0, -17.0)), np.ones((2, 1)), np.arange(2))


def equal_weights() -> Problem:
    params = Params(np.full((300, 2), 0.01), np.ones(2), np.array([[1.0, -1.0], [0.5, 2.0]]), np.zeros(2))
    return Problem(params, np.full((3, 300), 0.3), np.array([0, 1, 0]))


def many_digits() -> Problem:
    data = datasets.load("digits")
    return random_problem(data.x_train[:, 20:28], data.t_train, hidden=3, samples=1437, seed=0)


RIGHT = {
    "alike": lambda: alike(1000),
    "identical": lambda: identical(1000),
    "nearly alike": lambda: alike(1000, 1e-5),
    "many classes": lambda: classes(5000),
    "equal classes": lambda: classes(1000, 0.0),
    "nearly equal classes": lambda: classes(1000, 1e-5),
    "one class outweighs all": lambda: dominated(1000),
    "equal weights": equal_weights,
    "many digits": many_digits,
}


@EACH_DTYPE
@pytest.mark.parametrize("order", SUMS)
@pytest.mark.parametrize("name", RIGHT)
def test_no_order_of_summation_raises_an_alarm(name: str, order: str, dtype: str) -> None:
    net = RIGHT[name]()
    strategies = (("structured", 1e-2), ("loop", 1e-2)) if sum(p.size for p in net.params) < 100 else ()
    rows = ratios(Subject(order, summing(SUMS[order]), dtype, "cpu"), net, *strategies)
    worst = max(rows.values(), key=lambda row: row.ratio)
    assert worst.ratio < 0.7, worst


def test_rounding_is_what_they_are_held_to() -> None:
    """Where it adds up the bound is no more than some times what a plain loop is off by."""
    for name in ("alike", "nearly alike", "many classes", "one class outweighs all"):
        rows = ratios(Subject("plain", summing(SUMS["plain"]), "float32", "cpu"), RIGHT[name]())
        assert max(row.ratio for row in rows.values()) > 0.05, name


@subjects()
@pytest.mark.parametrize("net", ["alike", "identical", "many classes", "one class outweighs all"])
def test_a_port_raises_no_alarm_where_roundings_add_up(subject: Subject, net: str) -> None:
    rows = ratios(subject, RIGHT[net]())
    assert all(row.ratio < 0.7 for row in rows.values()), max(rows.values(), key=lambda row: row.ratio)


@subjects()
@pytest.mark.parametrize("h", [1e-4, 1e-3, 1e-2])  # in float64 from 2 to 4 nodes
@pytest.mark.parametrize("net", ["alike", "identical"])
def test_differences_raise_no_alarm_where_roundings_add_up(subject: Subject, net: str, h: float) -> None:
    """As where a product of further coefficients is added to the first's one term at a time, and loses digits in it."""
    rows = ratios(subject, RIGHT[net](), ("batched", h), ("collocated", h))
    assert all(row.ratio < 0.7 for row in rows.values()), max(rows.values(), key=lambda row: row.ratio)
