"""Arguments of every kind that NumPy has: numbers, labels, entries, mini-batches, and how arrays lie in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Arguments, Subject, check_forward, check_gradient, new_arguments
from comparison.agreement.kinds import LABELS, LAYOUTS, draw, has_views, place
from comparison.agreement.training import check_training
from comparison.conformance.calls import BATCHES, UNUSUAL, everything, good_call, on_backend, own_integers, with_option
from comparison.conformance.gradients import assert_agrees, assert_same
from comparison.conformance.problems import subjects
from reference.defaults import CLOSED_FORM, STRATEGIES
from reference.two_layer_net import Params


@pytest.mark.parametrize("kind", LABELS)
@subjects()
def test_labels_of_every_kind_are_the_same_labels(subject: Subject, kind: str) -> None:
    call = on_backend(subject, good_call())
    assert_same(everything(subject, call._replace(t=LABELS[kind](call.t, 2))), everything(subject, call))


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


NUMBERS: dict[str, Callable[[float], Any]] = {"float32": np.float32, "float64": np.float64, "int64": np.int64}


@pytest.mark.parametrize("kind", NUMBERS)
@subjects()
def test_numbers_may_be_numpys(subject: Subject, kind: str) -> None:
    """`h`, `memory` and the rate; as whole numbers h and the rate are 1."""
    of_kind = NUMBERS[kind]
    h, memory, rate = (of_kind(value) for value in ((0.017, 3000.5, 0.3) if kind != "int64" else (1, 3000, 1)))
    call = on_backend(subject, good_call())
    params, x, t, _ = call
    plain, given = {"h": float(h), "memory": float(memory)}, {"h": h, "memory": memory}
    port = subject.port
    for strategy in STRATEGIES if kind != "int64" else ("loop", "batched", "structured"):
        function = port.GRADIENTS[strategy]
        got, expected = (map(port.to_numpy, function(params, x, t, **options)) for options in (given, plain))
        assert_same(got, expected)
    for strategy in (CLOSED_FORM, "structured", "batched"):
        results = [
            port.train_steps(params, x, t, BATCHES, strategy=strategy, learning_rate=r, **options)
            for r, options in ((rate, given), (float(rate), plain))
        ]
        assert_same(*([port.to_numpy(array) for array in (*trained, losses)] for trained, losses in results))


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
