from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.comparison import Subject, random_problem
from comparison.timing import contenders, workloads
from comparison.timing.contenders import Candidate, Planned, make_contender
from comparison.timing.errors import extended_gradient, relative_error
from comparison.timing.other_libraries import LIBRARIES, make_library_contenders
from comparison.timing.rounds import Reading
from comparison.timing.workloads import Task
from reference.datasets import load
from reference.defaults import CLOSED_FORM
from reference.two_layer_net import Params


def task(what: str, hidden: int = 3, iterations: int = 20) -> Task:
    data = load("random")
    net = random_problem(data.x_train, data.t_train, hidden=hidden, samples=6, seed=0)
    return Task(what, net, data, partial(load, "random"), iterations=iterations)


def subject(dtype: str = "float64") -> Subject:
    return Subject("numpy", ports.load("numpy"), dtype, "cpu", "numpy")


@pytest.mark.parametrize(("seconds", "steps"), [(0.3, 1), (0.025, 4), (0.004, 32), (1e-9, 1024)])
def test_a_call_of_steps_takes_a_tenth_of_a_second_but_no_more_steps_than_there_are_batches(
    seconds: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the estimate, which is right here: no other number of steps is compiled."""
    steps_made: list[int] = []

    def read(call: Callable[[], object], units: float = 1.0) -> Reading:
        call()
        return Reading(seconds, seconds)

    for name in ("read", "read_when_idle"):
        monkeypatch.setattr(workloads, name, read)
    clock = workloads.step_clock(steps_made.append, seconds)
    assert steps_made == [steps, steps]
    assert clock().seconds == seconds
    assert steps_made == [steps] * 3


def test_an_estimate_that_was_far_too_high_is_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a busy machine, or of a call whose overhead outweighs the step."""
    steps_made: list[int] = []

    def read(call: Callable[[], object], units: float = 1.0) -> Reading:
        call()
        return Reading(1e-3, 1e-3)

    for name in ("read", "read_when_idle"):
        monkeypatch.setattr(workloads, name, read)
    workloads.step_clock(steps_made.append, 0.05, 0.04)()
    assert steps_made == [1, 1, 64, 64]


@pytest.mark.parametrize("strategy", ["loop", "batched"])
def test_a_sample_of_parameters_is_scaled_up(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading of a sample that takes a second: the whole takes as much longer as there are more parameters."""
    net, seen = task("gradient", hidden=64), []
    port = ports.load("numpy")

    def counting(
        params: Params,
        x: np.ndarray,
        t: np.ndarray,
        *,
        h: float = 1e-4,
        memory: float = 1,
        entries: Params | None = None,
    ) -> Params:
        assert entries is not None
        seen.append(sum(at.size for at in entries))
        assert all(np.unique(at).size == at.size for at in entries)
        assert all((at >= 0).all() and (at < p.size).all() for at, p in zip(entries, params, strict=True))
        return Params(*(np.zeros(at.size) for at in entries))

    def clock_of_a_second(call: Callable[[], object], _: float) -> Callable[[], Reading]:
        call()
        return lambda: Reading(1.0, 2.0)

    monkeypatch.setitem(port.GRADIENTS, strategy, counting)
    monkeypatch.setattr(contenders, "calibrate", clock_of_a_second)
    total = sum(p.size for p in net.problem.params)
    for what, units in (("gradient", 1), ("step", 1), ("run", 1000)):
        planned = Planned(Candidate(subject(), strategy, 1.0, 1.0), 40, 0.01, 0.01)
        contender = make_contender(planned, task(what, hidden=64, iterations=1000), None)
        assert contender.estimated == f"40 of {total:,} parameters"
        assert contender.error == 1.0  # zeros
        assert contender.clock() == pytest.approx((units * total / 40, 2 * units * total / 40))
        assert contender.first_call_s is None
    assert set(seen) == {40}


def test_the_sample_is_the_same_every_time() -> None:
    def sample(seed: int) -> list[list[int]]:
        return [entry.tolist() for entry in workloads.sample_entries(replace(large, seed=seed), 40) or ()]

    large = task("gradient", hidden=64)
    assert sample(0) == sample(0) != sample(1)
    assert workloads.sample_entries(large, sum(p.size for p in large.problem.params)) is None


class Asked(list[Any]):
    """What NumPy's `train_steps` and `synchronize` are given."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(ports.load("numpy"), "train_steps", self.train_steps)
        patch.setattr(ports.load("numpy"), "synchronize", self.synchronize)

    def train_steps(self, params: Params, x: Any, t: Any, batches: Any, **options: Any) -> str:
        self.append(((params, x, t, batches), options))
        return "net"

    def synchronize(self, result: Any) -> None:
        self.append(result)


def test_what_a_step_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first samples only, all of them in some batch; and it is waited for."""
    asked, few = Asked(monkeypatch), replace(task("step"), h=1e-3, memory=1e6)
    workloads.make_train(subject("float32"), "collocated", few, 5)(1)
    ((params, x, t, batches), options), waited = asked
    assert waited == "net"
    assert params.W1.dtype == x.dtype == np.float32
    np.testing.assert_array_equal(x, few.data.x_train[:5].astype(np.float32))
    np.testing.assert_array_equal(t, few.data.t_train[:5])
    assert batches.shape == (1, 6)
    assert set(batches.ravel().tolist()) <= {0, 1, 2, 3, 4}
    assert options == {"strategy": "collocated", "learning_rate": 0.1, "h": 1e-3, "memory": 1e6}


def test_batches_are_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    for seed in (0, 0, 1):
        workloads.make_train(subject(), CLOSED_FORM, replace(task("step"), seed=seed))(9)
    one, same, other = (call[0][3].tolist() for call in asked[::2])
    assert one == same != other


def test_the_error_is_that_of_the_difference() -> None:
    """Of the closed form it is the truncation: a hundred times as much at ten times the step."""
    small, large = task("gradient"), replace(task("gradient"), h=1e-3)
    errors = [workloads.error_of(subject(), CLOSED_FORM, one, None) for one in (small, large)]
    assert errors[0] is not None
    assert errors[1] == pytest.approx(100 * errors[0], rel=0.01)
    for one in (small, large):
        error = workloads.error_of(subject(), "collocated", one, None)
        assert error is not None
        assert error < 1e-14
    rounded = Params(*(p.astype(np.float32) for p in small.problem.params)), small.problem.x.astype(np.float32)
    got = ports.load("numpy").GRADIENTS["collocated"](*rounded, small.problem.t)
    error = workloads.error_of(subject("float32"), "collocated", small, None)
    assert error == relative_error(got, small.extended_gradient("float32"))
    assert 1e-9 < error < 1e-6


def test_the_error_of_a_large_net_is_that_of_a_few_samples_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extended precision takes seconds there."""
    each = 64 * 3 * 10
    for cost, samples in ((4 * each, 4), (each, 1), (each - 1, 0), (100 * each, 6)):
        monkeypatch.setattr(workloads, "EXTENDED_COST", cost)
        one = task("gradient")
        assert len(one.measured.t) == samples
        error = workloads.error_of(subject(), "collocated", one, None)
        assert error is None if samples == 0 else error < 1e-14


def test_relative_error() -> None:
    one = Params(np.ones(4), np.zeros(0), np.zeros(0), np.zeros(0))
    assert relative_error(one._replace(W1=np.full(4, 1.5)), one) == 0.5
    large, larger = (one._replace(W1=np.full(4, size, np.float32)) for size in (1e30, 1.5e30))
    assert relative_error(larger, large) == pytest.approx(0.5)  # squares that float32 does not hold
    zero = one._replace(W1=np.zeros(4))
    assert relative_error(zero, zero) == 0
    assert relative_error(one, zero) == np.inf


def test_peers_differentiate_the_same_loss() -> None:
    pytest.importorskip("scipy", minversion="1.15")
    small = task("gradient", hidden=1)
    libraries, not_run = make_library_contenders(small, budget=60.0)
    assert {row["backend"] for row in not_run} | {contender.backend for contender in libraries} == {
        library.name for library in LIBRARIES
    }
    for contender in libraries:
        assert not contender.ranked
        assert contender.error < (1e-3 if "approx_fprime" in contender.backend else 1e-6), contender.backend


def test_a_peer_that_would_take_long_does_not_run() -> None:
    pytest.importorskip("scipy")
    libraries, not_run = make_library_contenders(task("gradient"), budget=0.0)
    assert libraries == []
    assert all("its share of --budget" in row["reason"] or "not installed" in row["reason"] for row in not_run)


def test_a_peer_that_would_take_all_memory_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    monkeypatch.setattr("comparison.timing.other_libraries.MAX_BYTES", 0)
    assert make_library_contenders(task("gradient"), budget=1e9)[0] == []


def test_truth_is_the_reference_at_more_digits() -> None:
    net = task("gradient").problem
    expected = ports.load("numpy").GRADIENTS["structured"](*net)
    for got, true in zip(expected, extended_gradient(net, 1e-4), strict=True):
        np.testing.assert_allclose(got, true.astype(float), rtol=0, atol=1e-14 * np.abs(true).max())
        assert true.dtype == np.longdouble


def test_truth_is_that_of_the_numbers_that_the_dtype_holds() -> None:
    one = task("gradient")
    for dtype in ("float64", "float32"):
        expected = extended_gradient(one.problem.rounded(dtype), one.h)
        assert all((g == e).all() for g, e in zip(one.extended_gradient(dtype), expected, strict=True))
