"""The drift between runs: right ports lie within its bound, and a fault of a millionth lies far outside."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from comparison.agreement import drift
from comparison.agreement.bounds import Bounds, Problem
from comparison.agreement.comparison import Subject
from comparison.agreement.drift import (
    Drift,
    ReferenceRun,
    _changeable,
    _member_drifts,
    _perturb,
    _signs,
    measure_drifts,
    run_reference,
)
from comparison.agreement.summation import SAFETY
from comparison.conformance.problems import subjects
from ports import numpy_port
from reference import datasets, two_layer_net
from reference.collocation import make_plan
from reference.datasets import Dataset
from reference.defaults import MEMORY
from reference.numerical_gradient import collocated_gradient
from reference.training import begin, train
from reference.two_layer_net import Params, accuracy, init, loss, max_abs
from reference.validation import unit_roundoff

DATA = datasets.load("digits")
OPTIONS: dict[str, Any] = {"strategy": "collocated", "iterations": 140, "batch": 50, "learning_rate": 1.0, "h": 1e-4}


def initial(dtype: str, inputs: int = 64) -> Params:
    return init(inputs, 10, 10, 0.3, seed=0, dtype=dtype)


def drifts_of(subject: Subject, data: Dataset = DATA, **options: Any) -> list[Drift]:
    """Train on the subject, and measure how far that run lies from the reference's."""
    start, options = initial(subject.dtype, data.x_train.shape[1]), OPTIONS | options
    data = data._replace(x_train=data.x_train.astype(subject.dtype), x_test=data.x_test.astype(subject.dtype))
    reference_run = run_reference(start, data, dtype=subject.dtype, seed=0, **options)
    assert reference_run is not None
    *_, end = train(subject.port, start, data, **options)
    return measure_drifts(subject, end, reference_run)


@pytest.mark.parametrize("rate", [0.1, 3.0])
@subjects()
def test_right_ports_lie_within_the_bound(subject: Subject, rate: float) -> None:
    rows = drifts_of(subject, learning_rate=rate)
    assert [row.quantity for row in rows] == ["W1", "b1", "W2", "b2", "losses", "accuracy"]
    assert all(row.agrees for row in rows), rows
    exact = subject.dtype == "float64" and all(row.gap == 0 for row in rows)  # it takes the reference's own steps
    assert exact or max(row.ratio for row in rows) > 1e-4  # the bound is no more than it must be


@pytest.mark.parametrize("strategy", ["loop", "batched", "structured"])
def test_every_strategy_has_a_bound(strategy: str) -> None:
    x_train, t_train, x_test, t_test = datasets.load("random")
    data = Dataset(x_train[:60, :5].copy(), t_train[:60], x_test[:20, :5].copy(), t_test[:20])
    rows = drifts_of(Subject("numpy", numpy_port, "float64", "cpu"), data, strategy=strategy, batch=20, iterations=30)
    assert all(row.agrees for row in rows), rows
    assert max(row.ratio for row in rows) > 1e-4


# --- faults

Step = Callable[[Params, np.ndarray, np.ndarray, float], tuple[Any, Params]]


def right(params: Params, x: np.ndarray, t: np.ndarray, h: float) -> tuple[Any, Params]:
    plan = make_plan(h, 1.0, max_abs(params.W2), str(x.dtype))
    return collocated_gradient(params, x, t, h, MEMORY, plan, 1.0)


def forward(params: Params, x: np.ndarray, t: np.ndarray, h: float) -> tuple[Any, Params]:
    """Compute forward differences, (loss(p + h) - loss(p)) / h."""
    moved, here = Params(*(p.copy() for p in params)), loss(params, x, t)
    gradient = Params(*map(np.empty_like, params))
    for p, g in zip(moved, gradient, strict=True):
        for n, value in enumerate(p.flat):
            p.flat[n] = value + h
            g.flat[n] = (loss(moved, x, t) - here) / h
            p.flat[n] = value
    return here, gradient


def closed_form(params: Params, x: np.ndarray, t: np.ndarray, h: float) -> tuple[Any, Params]:
    return two_layer_net.closed_form(params, x, t)


def lost_bias(params: Params, x: np.ndarray, t: np.ndarray, h: float) -> tuple[Any, Params]:
    here, gradient = right(params, x, t, h)
    return here, gradient._replace(b2=gradient.b2 * (1 - 1e-6))


def port_that_descends_by(step: Step, *, rate: float = 1.0, h: float = 1.0) -> Any:
    """Return a port whose training takes `step`, with a learning rate and an h off by factors."""

    def train_steps(
        params: Params, x: np.ndarray, t: np.ndarray, batches: np.ndarray, **options: Any
    ) -> tuple[Params, np.ndarray]:
        losses = []
        for batch in batches:
            here, slope = step(params, x[batch], t[batch], h * options["h"])
            losses.append(here)
            learning_rate = x.dtype.type(rate * options["learning_rate"])
            params = Params(*(p - learning_rate * g for p, g in zip(params, slope, strict=True)))
        return params, np.array(losses)

    return SimpleNamespace(
        **{name: getattr(numpy_port, name) for name in numpy_port.__all__} | {"train_steps": train_steps}
    )


def largest_ratio(port: Any, dtype: str = "float64", **options: Any) -> float:
    return max(row.ratio for row in drifts_of(Subject("wrong", port, dtype, "cpu"), **options))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_right_descent_is_right(dtype: str) -> None:
    assert largest_ratio(port_that_descends_by(right), dtype) < 1


FAULTS = {
    "rate off by a millionth": port_that_descends_by(right, rate=1 + 1e-6),
    "b2 off by a millionth": port_that_descends_by(lost_bias),
    "closed form": port_that_descends_by(closed_form),
    "h doubled": port_that_descends_by(right, h=2),
    "h off by a hundredth": port_that_descends_by(right, h=1.01),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_breaks_the_bound_in_float64(name: str) -> None:
    assert largest_ratio(FAULTS[name]) > 10


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_forward_differences_break_the_bound(dtype: str) -> None:
    data = datasets.load("random")
    few = data._replace(x_train=data.x_train[:, :8].copy(), x_test=data.x_test[:, :8].copy())
    h = 1e-4 if dtype == "float64" else 1e-2  # in float32 it would be off by rounding first
    rows = drifts_of(Subject("wrong", port_that_descends_by(forward), dtype, "cpu"), few, iterations=40, h=h)
    assert max(row.ratio for row in rows) > 1


@pytest.mark.parametrize("rate", [1 + 1e-4, 1 - 1e-4])
def test_in_float32_a_ten_thousandth_breaks_the_bound(rate: float) -> None:
    assert largest_ratio(port_that_descends_by(right, rate=rate), "float32") > 1


# --- the parts of the bound


def test_the_response_is_linear_in_the_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for magnify in (2.0**10, 2.0**14):
        monkeypatch.setattr("comparison.agreement.drift.MAGNIFY", {"float64": magnify})
        runs.append(run_reference(initial("float64"), DATA, dtype="float64", seed=0, **OPTIONS))
    for name in (*Params._fields, "losses"):
        assert runs[1].bounds[name] == pytest.approx(runs[0].bounds[name], rel=1e-2)


def test_loop_in_float32_is_not_compared() -> None:
    options = OPTIONS | {"strategy": "loop", "iterations": 1, "h": 1e-6}
    assert run_reference(initial("float32"), DATA, dtype="float32", seed=0, **options) is None


def test_the_reference_runs_on_the_numbers_that_the_dtype_holds() -> None:
    rng = np.random.default_rng(0)
    data = DATA._replace(x_train=DATA.x_train * rng.random(DATA.x_train.shape))
    held = data._replace(x_train=data.x_train.astype("float32"))
    options = OPTIONS | {"dtype": "float32", "seed": 0, "iterations": 3}
    one = run_reference(initial("float64"), data, **options | {"learning_rate": 0.1})
    same = run_reference(initial("float32"), held, **options | {"learning_rate": float(np.float32(0.1))})
    assert one is not None
    assert same is not None
    for p, q in zip((*one.params, one.losses), (*same.params, same.losses), strict=True):
        np.testing.assert_array_equal(p, q)
    assert one.bounds == same.bounds


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_after_one_step_a_net_is_off_by_what_a_step_can_be_off_by(dtype: str) -> None:
    """By u |p| + rate E: the rounding of p and of the gradient, times SAFETY; its loss by that of the loss."""
    start, u = initial(dtype), unit_roundoff(dtype)
    reference_run = run_reference(start, DATA, dtype=dtype, seed=0, **OPTIONS | {"iterations": 1, "learning_rate": 0.5})
    rows = np.random.default_rng(0).integers(0, len(DATA.x_train), 50)
    first = Problem(start, DATA.x_train[rows], DATA.t_train[rows]).rounded(dtype)
    assert reference_run is not None
    bounds = Bounds(first, dtype).gradient("collocated", 1e-4)
    for name, p, bound in zip(Params._fields, reference_run.params, bounds, strict=True):
        expected = np.linalg.norm(SAFETY * u * np.abs(p) + 0.5 * bound)
        assert reference_run.bounds[name] == pytest.approx(expected, rel=1e-3)
    assert reference_run.bounds["losses"] == pytest.approx(Bounds(first, dtype).loss(), rel=1e-3)


def test_what_a_step_can_be_off_by_is_computed_again_every_period(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Problem] = []

    class Counting(Bounds):
        def gradient(self, *arguments: Any) -> Params:
            calls.append(self._problem)
            return super().gradient(*arguments)

    monkeypatch.setattr(drift, "Bounds", Counting)
    monkeypatch.setattr(drift, "PERIOD", 10)
    run_reference(initial("float64"), DATA, dtype="float64", seed=0, **OPTIONS | {"iterations": 21})
    assert len(calls) == 3


def test_the_accuracy_is_the_references_whatever_the_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "MAGNIFY", {"float64": 2.0**45})
    reference_run = run_reference(initial("float64"), DATA, dtype="float64", seed=0, **OPTIONS)
    assert reference_run is not None
    assert reference_run.accuracy == accuracy(reference_run.params, DATA.x_test, DATA.t_test) > 0.8


def test_the_accuracy_is_that_of_the_test_set_that_its_dtype_holds() -> None:
    """Of an input a billionth below the boundary between two classes, which in float32 is the boundary."""
    net = Params(np.array([[1.0, 0.0]]), np.array([0.0, 1.0]), np.eye(2), np.zeros(2))
    x, t = np.array([[1 - 1e-9]]), np.zeros(1, int)
    options = OPTIONS | {"iterations": 1, "batch": 1, "learning_rate": 0.0}
    for dtype, right in (("float64", 0.0), ("float32", 1.0)):
        reference_run = run_reference(net, Dataset(x, t, x, t), dtype=dtype, seed=0, **options)
        assert reference_run is not None
        assert reference_run.accuracy == right


def test_a_tie_may_be_changed_by_the_drift_and_by_evaluation() -> None:
    """Of all classes; and a mean is rounded twice."""
    start = initial("float32")
    tied = start._replace(W2=np.full_like(start.W2, 0.3), b2=0 * start.b2)
    options = OPTIONS | {"iterations": 1, "learning_rate": 1e-12}
    reference_run = run_reference(tied, DATA, dtype="float32", seed=0, **options)
    assert reference_run is not None
    assert reference_run.bounds["accuracy"] == 1 + 1 + 2 * unit_roundoff("float32")


def test_signs_are_of_either_kind() -> None:
    signs = _signs(np.random.default_rng(0), (3, 40))
    assert signs.shape == (3, 40)
    assert all(set(row) == {-1.0, 1.0} for row in signs)


def test_each_entry_of_a_net_is_perturbed_by_as_much_as_rounding_may_move_it() -> None:
    net = initial("float64")
    errors = Params(*(np.full(p.shape, 1e-9) for p in net))
    for p, q in zip(net, _perturb(net, errors, 8.0, "float32", np.random.default_rng(0)), strict=True):
        np.testing.assert_allclose(np.abs(q - p), 8 * (2.0**-24 * np.abs(p) + 1e-9), rtol=1e-6)
        assert (q > p).any()
        assert (q < p).any()


def test_the_drift_is_the_root_mean_square_of_the_replicas_distances() -> None:
    """Of 3 and 5 times 2, and of 1 and 7, in units of their magnification."""
    net = Params(np.zeros((2, 2)), np.zeros(1), np.zeros((1, 1)), np.zeros(1))
    near, far = net._replace(W1=net.W1 + 3), net._replace(W1=net.W1 + 5)
    drifts = _member_drifts([net, near, far], np.array([[0.0], [1.0], [-7.0]]), 8.0)
    mean = [2 * math.sqrt((3**2 + 5**2) / 2) / 8, 0, 0, 0, math.sqrt((1 + 7**2) / 2) / 8]
    assert list(drifts) == [*Params._fields, "losses"]
    assert list(drifts.values()) == pytest.approx(mean)


@pytest.mark.parametrize(
    ("by", "magnify", "share"),
    [(0.24, 1.0, 0.0), (0.25, 1.0, 0.5), (0.26, 1.0, 0.5), (0.6, 1.0, 1.0), (3.0, 16.0, 0.0)],
)
def test_a_prediction_that_the_drift_can_change_is_counted(by: float, magnify: float, share: float) -> None:
    """Of two samples the second class leads by 1 and by 2, and the replicas move the first by `by`: SAFETY is 4."""
    net = Params(np.full((1, 1), 1e3), np.zeros(1), np.array([[0.0, 2.0, -5.0]]), np.full(3, 10.0))
    replica = net._replace(b2=net.b2 + np.array([by, 0, 0]))
    assert _changeable([net, replica, replica], np.array([[0.0], [1.0]]), magnify) == share


def test_a_tie_is_changed_without_any_drift() -> None:
    net = Params(np.zeros((1, 1)), np.zeros(1), np.zeros((1, 2)), np.zeros(2))
    assert _changeable([net, net, net], np.ones((1, 1)), 1.0) == 1


def test_a_drift_of_nan_does_not_agree() -> None:
    net = init(2, 2, 2, seed=0)
    reference_run = ReferenceRun(net, np.ones(3), 0.5, dict.fromkeys((*Params._fields, "losses", "accuracy"), 0.1))
    end = begin(net._replace(b1=np.full(2, np.nan)))._replace(losses=np.ones(3), accuracies=np.array([[3, 0.5, 0.65]]))
    rows = measure_drifts(Subject("wrong", numpy_port, "float64", "cpu"), end, reference_run)
    assert [row.agrees for row in rows] == [True, False, True, True, True, False]
    assert Drift("a", "b", "c", "d", 0.0, 0.0).ratio == 0
    assert Drift("a", "b", "c", "d", 1.0, 0.0).ratio == np.inf
