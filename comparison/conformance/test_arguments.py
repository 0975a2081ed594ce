"""Arguments of every kind that NumPy has: numbers, labels, entries, mini-batches, and how arrays lie in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Arguments, Subject, check_forward, check_gradient, new_arguments
from comparison.agreement.kinds import LABELS, LAYOUTS, Shape, draw, has_views, place
from comparison.agreement.training import check_training
from comparison.conformance.calls import BATCHES, UNUSUAL, everything, good_call, on_backend, own_integers, with_option
from comparison.conformance.gradients import assert_agrees, assert_same
from comparison.conformance.problems import subjects
from reference.defaults import CLOSED_FORM, STRATEGIES
from reference.two_layer_net import Params


class WithArray:
    """An object that NumPy reads by its `__array__`, as it reads a column of pandas."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return its values."""
        return np.asarray(self.values, dtype)


FURTHER_LABELS: dict[str, Callable[[np.ndarray, int], Any]] = {
    "int8": lambda t, classes: t.astype(np.int8),
    "uint64": lambda t, classes: t.astype(np.uint64),
    "whole float64": lambda t, classes: t.astype(np.float64),
    "whole float16": lambda t, classes: t.astype(np.float16),
    "NumPy's numbers": lambda t, classes: list(t),
    "an object": lambda t, classes: WithArray(t),
    "a buffer": lambda t, classes: memoryview(t),
    "one-hot object": lambda t, classes: WithArray(np.eye(classes)[t]),
}
"""Kinds that `agree` does not try."""


@pytest.mark.parametrize("kind", [*LABELS, *FURTHER_LABELS])
@subjects()
def test_labels_of_every_kind_are_the_same_labels(subject: Subject, kind: str) -> None:
    call = on_backend(subject, good_call())
    labels = (LABELS | FURTHER_LABELS)[kind](call.t, 2)
    assert_same(everything(subject, call._replace(t=labels)), everything(subject, call))


@pytest.mark.parametrize("shape", [(5, 6, 4, 1), (1, 3, 2, 2), (1, 1, 1, 1)], ids=str)
@subjects("float64")
def test_one_hot_rows_of_one_class_or_sample(subject: Subject, shape: Shape) -> None:
    problem = draw(shape, 0)
    for kind in (kind for kind in LABELS if kind.startswith("one-hot")):
        arguments = new_arguments(subject, problem)._replace(t=LABELS[kind](problem.t, shape[3]))
        assert_agrees(check_forward(subject, problem, arguments=arguments))
        assert_agrees(check_gradient(subject, problem, None, 7e-3, arguments=arguments))


@pytest.mark.parametrize(("dtype", "classes"), [("int8", 100), ("uint8", 200), ("uint16", 40_000)])
@subjects("float64")
def test_labels_in_few_bits_that_hold_all_classes(subject: Subject, dtype: str, classes: int) -> None:
    """Where they are added up, or multiplied by the number of classes, these bits are not enough."""
    problem = draw((3, 1, 1, classes), 0)._replace(t=np.array([classes - 1, classes - 30, classes // 2]))
    arguments = new_arguments(subject, problem)._replace(t=problem.t.astype(dtype))
    assert_agrees(check_forward(subject, problem, arguments=arguments))


@subjects()
def test_labels_may_be_the_backends_own(subject: Subject) -> None:
    call = on_backend(subject, good_call())
    own = subject.port.from_numpy(np.eye(2)[call.t], dtype=subject.dtype, device=subject.device)
    assert_same(everything(subject, call._replace(t=own)), everything(subject, call))


@subjects()
def test_labels_may_be_the_backends_own_integers(subject: Subject) -> None:
    call = on_backend(subject, good_call())
    for labels in (call.t, np.eye(2)[call.t]):
        own = own_integers(subject, labels)
        if own is None:
            pytest.skip("its arrays can't be cast")
        assert_same(everything(subject, call._replace(t=own)), everything(subject, call))


@pytest.mark.parametrize("kind", UNUSUAL)
@subjects("float64")
def test_labels_may_lie_in_memory_as_they_like(subject: Subject, kind: str) -> None:
    call = on_backend(subject, good_call())
    for t in (call.t, np.eye(2)[call.t]):
        assert_same(everything(subject, call._replace(t=UNUSUAL[kind](t))), everything(subject, call))


@pytest.mark.parametrize("layout", LAYOUTS)
@subjects()
def test_arrays_may_lie_in_memory_as_they_like(subject: Subject, layout: str) -> None:
    problem = draw((6, 5, 4, 3), 0)
    if layout != "rows" and not has_views(new_arguments(subject, problem).x):
        pytest.skip("its arrays have no views")
    arguments = place(subject, problem, layout, None)
    assert_agrees(check_forward(subject, problem, arguments=arguments))
    for strategy in (None, *STRATEGIES):
        assert_agrees(check_gradient(subject, problem, strategy, 7e-3, arguments=arguments))


@pytest.mark.parametrize("kind", [*UNUSUAL, "W1 only in columns", "of stride 0"])
@subjects("float64")
def test_arrays_of_numpy_may_be_as_unusual_as_labels(subject: Subject, kind: str) -> None:
    problem = draw((6, 5, 4, 3), 0)
    if kind == "of stride 0":
        problem = problem._replace(x=np.tile(problem.x[-1:], (6, 1)))
    params, x, t = new_arguments(subject, problem)
    if not isinstance(x, np.ndarray):
        pytest.skip("its arrays are not NumPy's")
    if kind == "W1 only in columns":
        params = params._replace(W1=np.asfortranarray(params.W1))
    elif kind == "of stride 0":
        x = np.broadcast_to(x[0], x.shape)
    else:
        *own, x = (UNUSUAL[kind](array) for array in (*params, x))
        params = Params(*own)
    arguments = Arguments(params, x, t)
    assert_agrees(check_forward(subject, problem, arguments=arguments))
    for strategy in (None, *STRATEGIES):
        assert_agrees(check_gradient(subject, problem, strategy, 7e-3, arguments=arguments))
        assert_agrees(check_training(subject, problem, strategy, 7e-3, arguments=arguments))


@subjects()
def test_arrays_may_be_each_others(subject: Subject) -> None:
    """One array is both biases, and where arrays have views W2 is W1 transposed: as if each had its own numbers."""
    problem = draw((6, 4, 3, 3), 0)
    bias, square = np.array([0.5, -1.0, 0.25]), np.linspace(-0.7, 1, 9).reshape(3, 3)
    x = problem.x[:, :3]
    tied = Problem(Params(square, bias, square.T, bias), x, problem.t)
    (W1, b1, W2, _), own, t = new_arguments(subject, tied)
    arguments = Arguments(Params(W1, b1, W1.T if has_views(W1) else W2, b1), own, t)
    assert_agrees(check_forward(subject, tied, arguments=arguments))
    for strategy in (None, *STRATEGIES):
        assert_agrees(check_gradient(subject, tied, strategy, 7e-3, arguments=arguments))
        assert_agrees(check_training(subject, tied, strategy, 7e-3, learning_rate=0.5, arguments=arguments))


NUMBERS: dict[str, Callable[[float], Any]] = {
    "float32": np.float32,
    "float64": np.float64,
    "int64": np.int64,
    "int": int,
}


@pytest.mark.parametrize("kind", NUMBERS)
@subjects()
def test_numbers_of_every_kind(subject: Subject, kind: str) -> None:
    """`h`, `memory` and the rate; as whole numbers h and the rate are 1."""
    of_kind, whole = NUMBERS[kind], "int" in kind
    h, memory, rate = (of_kind(value) for value in ((1, 3000, 1) if whole else (0.017, 3000.5, 0.3)))
    call = on_backend(subject, good_call())
    params, x, t, _ = call
    plain, given = {"h": float(h), "memory": float(memory)}, {"h": h, "memory": memory}
    port = subject.port
    for strategy in ("loop", "batched", "structured") if whole else STRATEGIES:
        function = port.GRADIENTS[strategy]
        got, expected = (map(port.to_numpy, function(params, x, t, **options)) for options in (given, plain))
        assert_same(got, expected)
    for strategy in (CLOSED_FORM, "structured", "batched"):
        results = [
            port.train_steps(params, x, t, BATCHES, strategy=strategy, learning_rate=r, **options)
            for r, options in ((rate, given), (float(rate), plain))
        ]
        assert_same(*([port.to_numpy(array) for array in (*trained, losses)] for trained, losses in results))


@pytest.mark.parametrize("memory", [2**64, 1e30], ids=["2**64", "1e30"])
@subjects("float64")
def test_memory_may_be_more_than_any_machine_has(subject: Subject, memory: float) -> None:
    for strategy in ("batched", "structured", "collocated"):
        assert_agrees(check_gradient(subject, draw((7, 5, 3, 2), 0), strategy, 1e-2, memory=memory))


ENTRIES: dict[str, Params] = {
    "in no order": Params(np.array([14, 0, 3, 8]), np.array([2, 0, 1]), np.array([5, 1]), np.array([1, 0])),
    "repeated": Params(*(np.array([1, 1, 0, 1]) for _ in range(4))),
    "empty": Params(np.array([], int), np.array([], int), np.array([3]), np.array([], int)),
    "in two axes": Params(*(np.array([[1, 0], [0, 1], [1, 1]]) for _ in range(4))),
    "in columns": Params(*(np.asfortranarray([[1, 0, 1], [0, 0, 1]]) for _ in range(4))),
    "backwards": Params(*(np.arange(2)[::-1] for _ in range(4))),
    "int32": Params(*(np.array([1, 0], np.int32) for _ in range(4))),
    "uint8": Params(*(np.array([0, 1], np.uint8) for _ in range(4))),
    "a number": Params(*(np.array(1) for _ in range(4))),
}


@pytest.mark.parametrize("kind", ENTRIES)
@pytest.mark.parametrize("strategy", ["loop", "batched"])
@subjects()
def test_entries_of_every_kind(subject: Subject, strategy: str, kind: str) -> None:
    assert_agrees(check_gradient(subject, draw((7, 5, 3, 2), 0), strategy, 1e-2, entries=ENTRIES[kind]))


MINI_BATCHES: dict[str, Callable[[np.ndarray], Any]] = {
    "int32": lambda b: b.astype(np.int32),
    "uint8": lambda b: b.astype(np.uint8),
    "uint64": lambda b: b.astype(np.uint64),
    "lists": lambda b: b.tolist(),
    "big-endian": lambda b: b.astype(">i8"),
    **UNUSUAL,
}


@pytest.mark.parametrize("kind", MINI_BATCHES)
@subjects("float64")
def test_mini_batches_of_every_kind(subject: Subject, kind: str) -> None:
    call = on_backend(subject, good_call())
    changed = with_option(batches=MINI_BATCHES[kind](BATCHES))(call)
    params, x, t, options = changed
    port = subject.port
    results = [
        port.train_steps(params, x, t, batches, strategy="collocated", learning_rate=0.1)
        for batches in (options["batches"], BATCHES)
    ]
    assert_same(*([port.to_numpy(array) for array in (*trained, losses)] for trained, losses in results))
