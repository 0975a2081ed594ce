"""A call depends only on its arguments: not on earlier calls, on the identity of an array or on who owns a result."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject, check_forward, check_gradient, on_device
from comparison.agreement.kinds import draw, has_views, recording, spoil, write
from comparison.agreement.training import check_training
from comparison.conformance.calls import BATCHES, Call, everything, good_call, on_backend
from comparison.conformance.gradients import HANDS_OVER, assert_agrees, assert_same
from comparison.conformance.problems import subjects
from reference.defaults import CLOSED_FORM, DTYPES, STRATEGIES
from reference.two_layer_net import Params

pytestmark = pytest.mark.filterwarnings(HANDS_OVER)

SHAPE = (7, 5, 3, 2)
FEW = Params(*(np.array(at) for at in ([14, 0], [1], [3], [0])))  # entries, where a call is made again and again


def a_call(seed: int) -> Call:
    """Return a call of the shapes of the good one, and of a net, inputs and labels of its own; all under one plan."""
    problem = draw(SHAPE, seed)
    return Call(problem.params, problem.x, problem.t, {})


def compare_all(subject: Subject, problem: Problem) -> None:
    assert_agrees(check_forward(subject, problem))
    for strategy in (None, *STRATEGIES):
        assert_agrees(check_gradient(subject, problem, strategy, 1e-2))


@pytest.mark.slow
@subjects("float64")
def test_dtypes_and_nets_by_turns(subject: Subject) -> None:
    for seed in (0, 1, 0):
        for dtype in (*DTYPES, *reversed(DTYPES)):
            compare_all(subject._replace(dtype=dtype), draw(SHAPE, seed))


@pytest.mark.parametrize("name", [*Params._fields, "x", "t"])
@subjects()
def test_a_net_that_differs_in_one_argument_only(subject: Subject, name: str) -> None:
    one, other = draw(SHAPE, 0), draw(SHAPE, 1)
    compare_all(subject, one)
    if name in ("x", "t"):
        changed = one._replace(**{name: getattr(other, name)})
    else:
        changed = one._replace(params=one.params._replace(**{name: getattr(other.params, name)}))
    compare_all(subject, changed)
    compare_all(subject, one)


@subjects()
def test_arrays_that_take_the_place_of_others(subject: Subject) -> None:
    """An object that is gone may have its identity taken over by the next."""
    for seed in range(12):
        problem = draw(SHAPE, seed)
        assert_agrees(check_forward(subject, problem))
        for strategy in (None, "structured", "collocated"):
            assert_agrees(check_gradient(subject, problem, strategy, 1e-2))


@subjects()
def test_results_are_the_callers_own(subject: Subject) -> None:
    """Kept, they stay as they are whatever is called; changed, they change no later result."""
    results: list[Any] = []
    recorded = subject._replace(port=recording(subject.port, results))
    call = on_backend(recorded, good_call())
    first = everything(recorded, call)
    kept, copies = list(results), [subject.port.to_numpy(array) for array in results]
    compare_all(recorded, draw(SHAPE, 3))
    everything(recorded, on_backend(recorded, good_call()))
    assert_same(map(subject.port.to_numpy, kept), copies)
    spoil(results)
    assert_same(everything(recorded, call), first)
    assert_same(everything(recorded, on_backend(recorded, good_call())), first)


@subjects("float64")
def test_a_training_that_changes_nothing_returns_arrays_of_its_own(subject: Subject) -> None:
    (params, x, t, _), port = on_backend(subject, good_call()), subject.port
    before = [port.to_numpy(array) for array in params]
    for strategy in (CLOSED_FORM, *STRATEGIES):
        trained, _ = port.train_steps(params, x, t, BATCHES, strategy=strategy, learning_rate=0.0)
        spoil([*trained])
        assert_same(map(port.to_numpy, params), before)


@pytest.mark.parametrize("strategy", [None, *STRATEGIES], ids=str)
@subjects("float64")
def test_trainings_that_differ_in_numbers_only(subject: Subject, strategy: str | None) -> None:
    """Nothing of the first is kept: neither the rate nor h, both under one plan of `collocated`."""
    for rate, h in ((0.5, 1e-2), (-0.25, 1.1e-2), (0.5, 1e-2)):
        assert_agrees(check_training(subject, draw(SHAPE, 0), strategy, h, learning_rate=rate))


@subjects("float64")
def test_arrays_changed_in_place_are_read_again(subject: Subject) -> None:
    """By every function, training included; arrays that have no views can't be changed."""
    call, other = (on_backend(subject, a_call(seed)) for seed in (0, 1))
    if not has_views(call.x):
        pytest.skip("its arrays can't be changed")
    everything(subject, call, FEW)
    for old, new in zip((*call.params, call.x), (*other.params, other.x), strict=True):
        write(old, new)
    assert_same(everything(subject, call._replace(t=other.t), FEW), everything(subject, other, FEW))


@subjects("float64")
def test_the_hundredth_call_is_as_the_first(subject: Subject) -> None:
    call = on_backend(subject, good_call())
    first = everything(subject, call, FEW)
    for _ in range(104):
        assert_same(everything(subject, call, FEW), first)


@contextmanager
def short_turns() -> Iterator[None]:
    """Let a thread of Python run for 100 us at a time, not for 5 ms, within which it would end most calls."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@subjects()
def test_threads_do_not_meet_in_what_a_port_keeps(subject: Subject) -> None:
    """Each computes another net's results again and again."""
    calls = [on_backend(subject, a_call(seed)) for seed in (0, 1)]
    alone = [everything(subject, call, FEW) for call in calls]

    def repeat(n: int) -> None:
        for _ in range(12):
            assert_same(everything(subject, calls[n % 2], FEW), alone[n % 2])

    with short_turns(), ThreadPoolExecutor(4) as pool:
        list(pool.map(repeat, range(4)))


def _aligned(array: np.ndarray) -> np.ndarray:
    """Copy an array to an address that JAX could share."""
    size, buffer = array.size, np.empty(array.size + 64 // array.itemsize, array.dtype)
    copy = buffer[-buffer.ctypes.data % 64 // array.itemsize :][:size].reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@subjects("float64")
def test_arguments_may_be_changed_as_soon_as_a_call_returns(subject: Subject, dtype: str) -> None:
    """A backend that is still computing then has copied them."""
    (params, x, t), port = draw((300, 64, 40, 10), 0), subject.port
    *own, x = (port.from_numpy(a, dtype=subject.dtype, device=subject.device) for a in (*params, x))
    params, batches = Params(*own), np.resize(np.arange(len(t)), (30, 100)).astype(dtype)
    options: dict[str, Any] = {"strategy": "collocated", "learning_rate": 0.1, "h": 1e-2}

    def results(change: bool) -> list[np.ndarray]:
        arrays: list[Any] = []
        for function in (port.loss, port.gradient, port.GRADIENTS["structured"], port.GRADIENTS["collocated"]):
            labels = _aligned(t.astype(dtype))
            result = function(params, x, labels)
            labels[...] = 0 if change else labels
            arrays += result if isinstance(result, tuple) else [result]
        labels, given = _aligned(t.astype(dtype)), _aligned(batches)
        trained, losses = port.train_steps(params, x, labels, given, **options)
        if change:
            labels[...], given[...] = 0, 0
        return [port.to_numpy(array) for array in (*arrays, *trained, losses)]

    assert_same(results(change=True), results(change=False))


@subjects()
def test_labels_and_mini_batches_changed_in_place_are_read_again(subject: Subject) -> None:
    problem, port = draw(SHAPE, 0), subject.port
    params, x = on_device(subject, problem)
    t, batches = problem.t.copy(), np.array([[0, 1, 2], [3, 4, 5]])

    def results() -> list[np.ndarray]:
        gradients = [port.gradient(params, x, t), *(port.GRADIENTS[s](params, x, t, h=1e-2) for s in STRATEGIES)]
        trained, losses = port.train_steps(params, x, t, batches, strategy="collocated", learning_rate=0.5)
        arrays = [port.loss(params, x, t), port.accuracy(params, x, t), *(g for p in gradients for g in p), *trained]
        return [port.to_numpy(array) for array in (*arrays, losses)]

    results()
    t[...], batches[...] = 1 - t, batches[::-1, ::-1] + 1
    changed = results()
    t, batches = t.copy(), batches.copy()
    assert_same(changed, results())
    assert_agrees(check_forward(subject, problem._replace(t=t)))
