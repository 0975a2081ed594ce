"""The drift between runs: right ports lie within its bound, and a fault of a millionth lies far outside."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ports import numpy_port
from ports.agreement import Subject
from ports.trajectory import Course, Drift, _turnable, course, drifts
from problems import subjects
from reference import datasets
from reference.datasets import Dataset
from reference.gradient import collocated_step
from reference.training import begin, train
from reference.two_layer_net import Params, init, loss, loss_and_gradient

DATA = datasets.load("digits")
OPTIONS: dict[str, Any] = {"strategy": "collocated", "iterations": 140, "batch": 50, "learning_rate": 1.0, "h": 1e-4}
MEMORY = 2.0**28


def initial(dtype: str, inputs: int = 64) -> Params:
    return init(inputs, 10, 10, 0.3, seed=0, dtype=dtype)


def followed(subject: Subject, data: Dataset = DATA, **options: Any) -> list[Drift]:
    """Return how far a run of the subject drifts."""
    start, options = initial(subject.dtype, data.x_train.shape[1]), OPTIONS | options
    data = data._replace(x_train=data.x_train.astype(subject.dtype), x_test=data.x_test.astype(subject.dtype))
    along = course(start, data, dtype=subject.dtype, seed=0, **options)
    assert along is not None
    *_, end = train(subject.port, start, data, **options)
    return drifts(subject, end, along)


@pytest.mark.parametrize("rate", [0.1, 3.0])
@subjects()
def test_right_ports_lie_within_the_bound(subject: Subject, rate: float) -> None:
    rows = followed(subject, learning_rate=rate)
    assert [row.quantity for row in rows] == ["W1", "b1", "W2", "b2", "losses", "accuracy"]
    assert all(row.agrees for row in rows), rows
    if (subject.name, subject.dtype) != ("numpy", "float64"):
        assert max(row.ratio for row in rows) > 1e-4  # the bound is no more than it must be


@pytest.mark.parametrize("strategy", ["loop", "batched", "structured"])
def test_every_strategy_has_a_bound(strategy: str) -> None:
    x_train, t_train, x_test, t_test = datasets.load("random")
    data = Dataset(x_train[:60, :5].copy(), t_train[:60], x_test[:20, :5].copy(), t_test[:20])
    rows = followed(Subject("numpy", numpy_port, "float64", "cpu"), data, strategy=strategy, batch=20, iterations=30)
    assert all(row.agrees for row in rows), rows
    assert max(row.ratio for row in rows) > 1e-4


# --- faults

Step = Callable[[Params, np.ndarray, np.ndarray, float], tuple[Any, Params]]


def right(params: Params, x: np.ndarray, t: np.ndarray, h: float) -> tuple[Any, Params]:
    return collocated_step(params, x, t, h, MEMORY, 1.0)


def forward(params: Params, x: np.ndarray, t: np.ndarray, h: float) -> tuple[Any, Params]:
    """Return forward differences, (loss(p + h) - loss(p)) / h."""
    moved, here = Params(*(p.copy() for p in params)), loss(params, x, t)
    gradient = Params(*map(np.empty_like, params))
    for p, g in zip(moved, gradient, strict=True):
        for n, value in enumerate(p.flat):
            p.flat[n] = value + h
            g.flat[n] = (loss(moved, x, t) - here) / h
            p.flat[n] = value
    return here, gradient


def closed_form(params: Params, x: np.ndarray, t: np.ndarray, h: float) -> tuple[Any, Params]:
    return loss_and_gradient(params, x, t)


def lost_bias(params: Params, x: np.ndarray, t: np.ndarray, h: float) -> tuple[Any, Params]:
    here, gradient = right(params, x, t, h)
    return here, gradient._replace(b2=gradient.b2 * (1 - 1e-6))


def descent(step: Step, *, rate: float = 1.0, h: float = 1.0) -> Any:
    """Return a port whose descent takes `step`, with a rate and an h off by factors."""

    def train_steps(
        params: Params, x: np.ndarray, t: np.ndarray, batches: np.ndarray, **options: Any
    ) -> tuple[Params, np.ndarray]:
        losses = []
        for batch in batches:
            here, slope = step(params, x[batch], t[batch], h * options["h"])
            losses.append(here)
            by = x.dtype.type(rate * options["learning_rate"])
            params = Params(*(p - by * g for p, g in zip(params, slope, strict=True)))
        return params, np.array(losses)

    return SimpleNamespace(
        **{name: getattr(numpy_port, name) for name in numpy_port.__all__} | {"train_steps": train_steps}
    )


def drift_of(port: Any, dtype: str = "float64", **options: Any) -> float:
    return max(row.ratio for row in followed(Subject("wrong", port, dtype, "cpu"), **options))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_right_descent_is_right(dtype: str) -> None:
    assert drift_of(descent(right), dtype) < 1


FAULTS = {
    "rate off by a millionth": descent(right, rate=1 + 1e-6),
    "b2 off by a millionth": descent(lost_bias),
    "closed form": descent(closed_form),
    "h doubled": descent(right, h=2),
    "h off by a hundredth": descent(right, h=1.01),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_breaks_the_bound_in_float64(name: str) -> None:
    assert drift_of(FAULTS[name]) > 10


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_forward_differences_break_the_bound(dtype: str) -> None:
    data = datasets.load("random")
    few = data._replace(x_train=data.x_train[:, :8].copy(), x_test=data.x_test[:, :8].copy())
    h = 1e-4 if dtype == "float64" else 1e-2  # in float32 it would be off by rounding first
    rows = followed(Subject("wrong", descent(forward), dtype, "cpu"), few, iterations=40, h=h)
    assert max(row.ratio for row in rows) > 1


@pytest.mark.parametrize("rate", [1 + 1e-4, 1 - 1e-4])
def test_in_float32_a_ten_thousandth_breaks_the_bound(rate: float) -> None:
    assert drift_of(descent(right, rate=rate), "float32") > 1


# --- what the bound is made of


def test_the_response_is_linear_in_the_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for magnify in (2.0**10, 2.0**14):
        monkeypatch.setattr("ports.trajectory.MAGNIFY", {"float64": magnify})
        found.append(course(initial("float64"), DATA, dtype="float64", seed=0, **OPTIONS))
    for name in (*Params._fields, "losses"):
        assert found[1].bounds[name] == pytest.approx(found[0].bounds[name], rel=1e-2)


def test_loop_in_float32_is_not_compared() -> None:
    options = OPTIONS | {"strategy": "loop", "iterations": 1, "h": 1e-6}
    assert course(initial("float32"), DATA, dtype="float32", seed=0, **options) is None


@pytest.mark.parametrize("moved", [0, 1])
def test_a_prediction_that_the_drift_can_turn_is_counted(moved: int) -> None:
    net = Params(np.zeros((1, 1)), np.zeros(1), np.zeros((1, 2)), np.array([0.0, 1.0]))
    near, far = (net._replace(b2=np.array([0.0, 1.0 + by])) for by in (0.24, 0.26))
    assert _turnable([net, (near, far)[moved], (near, far)[moved]], np.ones((3, 1)), 1.0) == moved
    assert _turnable([net, far, far], np.ones((3, 1)), 2.0) == 0


def test_a_drift_that_is_no_number_does_not_agree() -> None:
    net = init(2, 2, 2, seed=0)
    along = Course(net, np.ones(3), 0.5, dict.fromkeys((*Params._fields, "losses", "accuracy"), 0.1))
    end = begin(net._replace(b1=np.full(2, np.nan)))._replace(losses=np.ones(3), accuracies=np.array([[3, 0.5, 0.65]]))
    rows = drifts(Subject("wrong", numpy_port, "float64", "cpu"), end, along)
    assert [row.agrees for row in rows] == [True, False, True, True, True, False]
    assert Drift("a", "b", "c", "d", 0.0, 0.0).ratio == 0
    assert Drift("a", "b", "c", "d", 1.0, 0.0).ratio == np.inf
