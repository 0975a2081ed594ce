"""A slow port is compared on the data only where other nets would take it too long, and the estimate knows when."""

import math
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from types import SimpleNamespace
from typing import Any

import pytest

import ports
from comparison.agreement.bounds import Problem
from comparison.agreement.cases import check_subject_in_time
from comparison.agreement.comparison import Agreement, Subject
from comparison.agreement.kinds import draw
from comparison.agreement.slow_ports import CALLS, DataOnly, seconds_of_other_nets
from comparison.agreement.training import check_trainings
from comparison.agreement.trials import check_trials
from reference.defaults import CLOSED_FORM, STRATEGIES

NUMPY = ports.load("numpy")
FUNCTIONS = ("predict", "loss", "accuracy", "gradient", "train_steps")


def changed(change: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> Subject:
    """Return NumPy's port with each function changed."""
    functions = {name: change(name, getattr(NUMPY, name)) for name in FUNCTIONS}
    gradients = {name: change(name, function) for name, function in NUMPY.GRADIENTS.items()}
    others = {name: getattr(NUMPY, name) for name in ("from_numpy", "to_numpy", "synchronize")}
    return Subject("changed", SimpleNamespace(**functions, **others, GRADIENTS=gradients), "float64", "cpu")


def with_calls(seen: Callable[[str, int], None]) -> Subject:
    """Return NumPy's port that tells each call, and of a training each step."""

    def change(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            seen(name, len(args[3]) if name == "train_steps" else 1)
            return function(*args, **options)

        return call

    return changed(change)


def data() -> Problem:
    return draw((9, 4, 3, 5), 1)


def check(subject: Subject, limit: float, strategies: tuple[str, ...] = STRATEGIES) -> list[Any]:
    options: dict[str, Any] = {"h": 1e-2, "memory": 2**20, "seed": 0}
    return list(check_subject_in_time(subject, data(), strategies, limit=limit, **options))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning")
def test_the_number_of_calls_is_that_of_the_trials_and_trainings() -> None:
    calls: Counter[str] = Counter()
    subject = with_calls(lambda name, count: calls.update({name: count}))
    for rows in (check_trials(subject, STRATEGIES, 0), check_trainings(subject, STRATEGIES, 0)):
        for _ in rows:
            pass
    by_strategy = max(calls[strategy] for strategy in STRATEGIES)
    counted = {name: calls[name] for name in ("predict", "loss", "accuracy", "gradient")}
    assert {**counted, "strategy": by_strategy, "step": calls["train_steps"]} == CALLS


@pytest.mark.parametrize(("slow", "count"), [("loss", 128), ("structured", 67), ("train_steps", 98)])
def test_whatever_is_slow_is_in_the_estimate(slow: str, count: int) -> None:
    def change(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            time.sleep(0.05 if name == slow else 0)
            return function(*args, **options)

        return call

    assert seconds_of_other_nets(changed(change), ("structured",), 0, math.inf) >= 0.05 * count


def test_a_first_call_is_not_in_the_estimate() -> None:
    """It may compile."""
    called: set[str] = set()

    def compile_once(name: str, _: int) -> None:
        if name not in called:
            time.sleep(0.3)
        called.add(name)

    assert seconds_of_other_nets(with_calls(compile_once), ("collocated",), 0, math.inf) < 0.3 * CALLS["step"]
    assert called == {*FUNCTIONS, "collocated"}


def test_no_call_is_made_once_the_limit_is_exceeded() -> None:
    called: list[str] = []

    def seen(name: str, _: int) -> None:
        called.append(name)
        time.sleep(0.05)

    assert seconds_of_other_nets(with_calls(seen), STRATEGIES, 0, 1.0) > 1.0
    assert called == ["predict", "predict"]


def test_a_slow_port_is_compared_on_the_data_and_in_a_training_on_them() -> None:
    first, *rows = check(changed(lambda _, function: function), limit=0.0)
    assert isinstance(first, DataOnly)
    assert first.seconds > 0
    assert all(isinstance(row, Agreement) and row.agrees and row.problem == "data" for row in rows)
    of_gradients = {(row.strategy, row.quantity) for row in rows}
    for strategy in (CLOSED_FORM, *STRATEGIES):
        assert {(strategy, "W1"), (strategy, "trained b2"), (strategy, "losses")} <= of_gradients


def test_a_slow_port_that_does_not_train_disagrees() -> None:
    def change(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            return (args[0], result[1]) if name == "train_steps" else result

        return call

    wrong = [row.quantity for row in check(changed(change), 0.0) if isinstance(row, Agreement) and not row.agrees]
    assert "trained W1" in wrong


@pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning")
def test_with_time_enough_everything_is_compared() -> None:
    rows = check(changed(lambda _, function: function), limit=1e6, strategies=("collocated",))
    assert not any(isinstance(row, DataOnly) for row in rows)
    assert {"data", "7x5x5x3, drawn", "20x4x3x7"} <= {row.problem for row in rows}
