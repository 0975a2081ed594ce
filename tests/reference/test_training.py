"""The whole run: the chapter's loop on every backend, and the same bits wherever it was interrupted."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from comparison.conformance.nets import NUMPY
from comparison.conformance.trainings import EPOCH, OPTIONS, assert_same_bits, digits, run
from ports import numpy_port
from reference import datasets, segments, two_layer_net
from reference.defaults import MEMORY
from reference.numerical_gradient import collocated
from reference.training import DivergedError, Progress, begin, epoch_length, train
from reference.two_layer_net import Params, init


def test_it_is_the_chapters_loop() -> None:
    data, params = digits()
    end = run(NUMPY, params, data, iterations=40)[-1]
    rng, losses, accuracies = np.random.default_rng(0), [], []
    for i in range(41):
        if i % EPOCH == 0 or i == 40:
            parts = ((data.x_train, data.t_train), (data.x_test, data.t_test))
            accuracies.append((i, *(two_layer_net.accuracy(params, x, t) for x, t in parts)))
        batch = rng.integers(0, len(data.x_train), 100)
        x, t = data.x_train[batch], data.t_train[batch]
        if i < 40:
            losses.append(two_layer_net.loss(params, x, t))
            params = Params(*(p - 3.0 * g for p, g in zip(params, collocated(params, x, t), strict=True)))
    for got, expected in zip(end.params, params, strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_allclose(end.losses, losses, rtol=4e-16)
    np.testing.assert_array_equal(end.accuracies, accuracies)


def test_the_end_of_a_shorter_run_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    data, params = digits()
    monkeypatch.setattr(segments, "WORK", 4.0 * 100 * sum(p.size for p in params))  # segments of 4 iterations
    short = run(NUMPY, params, data, iterations=18)[-1]
    assert (short.resumable, short.accuracies[:, 0].tolist()) == (True, [0, 14, 18])
    assert_same_bits(run(NUMPY, short, data, iterations=28)[-1], run(NUMPY, params, data, iterations=28)[-1])
    assert_same_bits(run(NUMPY, short, data, iterations=18)[-1], short)


def test_draws_do_not_depend_on_where_they_are_cut() -> None:
    for samples in (7, 1437, 60_000, 2**33):
        whole, parts = np.random.default_rng(1), np.random.default_rng(1)
        cut = [parts.integers(0, samples, (k, 7)) for k in (1, 5, 3)]
        np.testing.assert_array_equal(whole.integers(0, samples, (9, 7)), np.concatenate(cut))


def test_a_progress_that_was_yielded_never_changes() -> None:
    data, params = digits()
    copied = []
    for now in train(numpy_port, params, data, iterations=42, **OPTIONS):
        copied.append((now, now.losses.copy(), now.accuracies.copy(), *(p.copy() for p in now.params)))
    for now, *copies in copied:
        for array, copy in zip((now.losses, now.accuracies, *now.params), copies, strict=True):
            np.testing.assert_array_equal(array, copy)
    np.testing.assert_array_equal(params.W1, init(64, 5, 10, seed=0).W1)


def test_numpy_does_not_warn_of_the_numbers_that_stop_a_run() -> None:
    data, params = datasets.load("random"), init(64, 5, 10, 0.3, seed=0)
    params = params._replace(W2=100 * params.W2)  # a slope above 1, so that the largest rate times it overflows
    options = {"strategy": "structured", "batch": 20, "learning_rate": float(np.finfo("float64").max)}
    with pytest.raises(DivergedError, match="the loss is no longer finite"):
        run(NUMPY, params, data, **options, iterations=9)


def test_numpy_does_not_warn_of_the_numbers_that_an_accuracy_is_of() -> None:
    data, params = digits("float32")
    start = next(train(numpy_port, params._replace(W1=np.float32(1e38) * np.sign(params.W1)), data))
    assert (start.accuracies[0, 1:] < 0.3).all()


def test_the_first_loss_that_is_not_finite_is_named() -> None:
    data, params = digits()
    losses = np.array([1.0, 1.0, np.nan, 1.0, np.inf, *np.ones(9)])
    port = SimpleNamespace(**{n: getattr(numpy_port, n) for n in numpy_port.__all__})
    port.train_steps = lambda net, *_, **__: (net, losses)
    with pytest.raises(DivergedError, match="the loss is no longer finite at iteration 3;"):
        run(NUMPY._replace(port=port), params, data, iterations=28)


def calls_of_a_port(**options: Any) -> tuple[list[dict[str, Any]], list[Progress]]:
    """Train; return the options and the shape of the batches of each call of `train_steps`, and the progress."""
    data, params = digits()
    calls: list[dict[str, Any]] = []

    def train_steps(
        net: Params, x: np.ndarray, t: np.ndarray, batches: np.ndarray, **given: Any
    ) -> tuple[Params, np.ndarray]:
        calls.append({**given, "batches": batches.shape})
        return net, np.ones(len(batches))

    port = SimpleNamespace(**{n: getattr(numpy_port, n) for n in numpy_port.__all__})
    port.train_steps, port.accuracy = train_steps, lambda *_: np.ones(())
    return calls, list(train(port, params, data, **options))


def test_the_default_options_are_the_chapters() -> None:
    calls, steps = calls_of_a_port()
    options = {"strategy": "collocated", "learning_rate": 0.1, "h": 1e-4, "memory": MEMORY}
    assert calls[0] == options | {"batches": (EPOCH, 100)}
    assert steps[-1].iteration == 10_000
    assert steps[0].resumable
    assert (steps[0].losses.shape, steps[0].generator) == ((0,), begin(steps[0].params, 0).generator)
    assert begin(steps[0].params).generator == begin(steps[0].params, 0).generator
    assert begin(steps[0].params).losses.shape == (0,)


def test_the_options_reach_the_port() -> None:
    options = {"learning_rate": 0.3, "h": 1e-2, "memory": 12345}
    calls, _ = calls_of_a_port(strategy="structured", batch=50, iterations=3, **options)
    assert calls == [options | {"strategy": "structured", "batches": (3, 50)}]


def test_segments_are_as_long_as_the_strategy_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    _, params = digits()
    monkeypatch.setattr(segments, "WORK", 4.0 * 16 * 100 * sum(p.size for p in params))
    _, steps = calls_of_a_port(strategy="structured", iterations=EPOCH)
    assert [now.iteration for now in steps] == [0, 4, 8, 12, 14]


def test_an_epoch_is_one_iteration_at_least() -> None:
    data, _ = digits()
    samples = len(data.x_train)
    assert [epoch_length(data, batch) for batch in (1, samples // 2, samples, samples + 1)] == [samples, 2, 1, 1]


def test_one_iteration_on_one_sample_is_a_run() -> None:
    data, params = digits()
    assert run(NUMPY, params, data, iterations=1, batch=1)[-1].iteration == 1


def test_a_parameter_that_is_not_finite_at_the_end_of_a_segment_stops_the_run() -> None:
    data, params = digits()
    port = type(
        "Port", (), {**{n: staticmethod(getattr(numpy_port, n)) for n in numpy_port.__all__ if n != "GRADIENTS"}}
    )
    port.GRADIENTS = numpy_port.GRADIENTS

    def train_steps(net: Params, *_: Any, **__: Any) -> tuple[Params, np.ndarray]:
        return net._replace(b1=net.b1 + np.inf), np.ones(EPOCH)

    port.train_steps = staticmethod(train_steps)
    with pytest.raises(DivergedError, match="a parameter is no longer finite at iteration 14;"):
        run(NUMPY._replace(port=port), params, data, iterations=28)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"strategy": "fast"}, "`strategy` must be one of loop, batched, structured, collocated, got 'fast'."),
        ({"iterations": 0}, "`iterations` must be at least 1, got 0."),
        ({"batch": 0}, "`batch` must be at least 1, got 0."),
        ({"learning_rate": np.nan}, "`learning_rate` must be a finite number, got nan."),
        ({"learning_rate": 1e39, "dtype": "float32"}, "`learning_rate` must be a number of float32, got 1e+39."),
        ({"h": 2.0}, "`h` must be from 1e-20 to 1, got 2.0."),
        ({"h": 1e-19, "strategy": "loop"}, "`h` must be above "),
        ({"h": 1e-19, "strategy": "batched"}, "`h` must be above "),
        ({"h": 1e-10, "strategy": "loop", "dtype": "float32"}, "`h` must be above "),
        ({"memory": 0}, "`memory` must be a positive number of bytes, got 0."),
        ({"seed": -1}, "`seed` must not be negative, got -1."),
        ({"device": "tpu"}, "`device` must be auto or one of cpu here, got 'tpu'."),
    ],
)
def test_bad_arguments_are_refused_at_once(options: dict[str, Any], sentence: str) -> None:
    options = dict(options)
    data, params = digits(options.pop("dtype", "float64"))
    with pytest.raises(ValueError, match=r"^`") as caught:
        next(train(numpy_port, params, data, **options))
    assert str(caught.value).startswith(sentence)


def test_a_run_can_not_end_before_it_is_resumed() -> None:
    data, params = digits()
    with pytest.raises(ValueError, match=r"^`iterations` must be at least 9, got 5\.$"):
        next(train(numpy_port, begin(params)._replace(iteration=9, losses=np.ones(9)), data, iterations=5))
