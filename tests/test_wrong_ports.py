"""The tests of the tests: agreement catches every wrong port of the catalogue, wherever its fault lies."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

import ports
import test_ports
from ports.agreement import Agreement, Subject, check_forward, check_gradient, random_problem
from ports.bounds import Problem
from problems import STEPS
from reference import datasets
from reference.two_layer_net import Params
from wrong_ports import DIRECT, EVERYWHERE, FORWARD, IN_JAX, IN_NUMPY, LOSSES, Fault, altered, edited, on_any_backend


@cache
def digits() -> Problem:
    """Return what `compare.py` compares by default."""
    data = datasets.load("digits")
    return random_problem(data.x_train, data.t_train, hidden=50, outputs=10, samples=100, seed=0)


@cache
def stretched() -> Problem:
    """Return the same with inputs in [-3, 3] and the first of them not 0: pixels show no fault of sign or of scale."""
    params, x, t = digits()
    x = 3 * np.random.default_rng(0).uniform(-1, 1, x.shape) * (x > 0)
    x[0, 0] = 1.0
    return Problem(params, x, t)


@cache
def saturated() -> Problem:
    """Return the same with hidden units and probabilities near 0 and 1, where what is subtracted from 1 is lost."""
    params, x, t = digits()
    b1, b2 = params.b1 + 25 * (-1.0) ** np.arange(50), params.b2 + 25 * (np.arange(10) == 3)
    return Problem(params._replace(b1=b1, b2=b2), x, t)


PROBLEMS = (digits, stretched, saturated)


def some(size: int) -> np.ndarray:
    """Return flat indices of at least 80 of `size` entries, the last one among them; so many make two chunks."""
    return np.arange(size)[:: -max(1, size // 80)][::-1]


def rows(port: Any, where: str | None, problem: Problem) -> Iterator[Agreement]:
    """Compare the forward pass, or a gradient at both steps; in `loop` and `batched` at some entries."""
    subject = Subject("wrong", port, "float64", "cpu")
    if where == FORWARD:
        yield from check_forward(subject, problem)
        return
    entries = Params(*(some(p.size) for p in problem.params)) if where in LOSSES else None
    for h in STEPS if where else STEPS[:1]:
        yield from check_gradient(subject, problem, where, h, entries=entries)


def assert_caught(fault: Fault) -> None:
    """It is, in each function that has the fault."""
    port = fault.make()
    for where in fault.where:
        found = (row for problem in PROBLEMS for row in rows(port, where, problem()))
        assert any(not row.agrees for row in found), where


def needs(backend: str) -> None:
    try:
        ports.load(backend)
    except ports.NotRunError as reason:
        pytest.skip(f"{backend} not run: {reason}")


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_a_right_port_that_is_imported_anew_agrees(backend: str) -> None:
    needs(backend)
    port = edited(backend)
    assert port is not ports.load(backend)
    for where in EVERYWHERE:
        for problem in PROBLEMS[: 1 if backend == "jax" else None]:  # each compiles anew
            for row in rows(port, where, problem()):
                assert row.agrees, row


@pytest.mark.parametrize("name", IN_NUMPY)
def test_a_fault_in_numpys_source_is_caught(name: str) -> None:
    assert_caught(IN_NUMPY[name])


@pytest.mark.parametrize("name", IN_JAX)
def test_a_fault_in_jaxs_source_is_caught(name: str) -> None:
    needs("jax")
    assert_caught(IN_JAX[name])


NUMPY, JAX = on_any_backend("numpy", gradients=DIRECT + LOSSES), on_any_backend("jax", gradients=("collocated",))


@pytest.mark.parametrize("name", NUMPY)
def test_a_fault_around_numpy_is_caught(name: str) -> None:
    assert_caught(NUMPY[name])


@pytest.mark.parametrize("name", JAX)
def test_a_fault_around_jax_is_caught(name: str) -> None:
    needs("jax")
    assert_caught(JAX[name])


def test_an_alias_is_no_matter_of_agreement_but_is_caught() -> None:
    port = altered(ports.load("numpy"), from_numpy=lambda array, *, dtype, device: np.asarray(array, dtype))
    with pytest.raises(AssertionError):
        test_ports.test_from_numpy_copies(Subject("wrong", port, "float64", "cpu"), 3)
