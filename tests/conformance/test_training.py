"""The whole run: the chapter's loop on every backend, and the same bits wherever it was interrupted."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.comparison import Subject
from ports import numpy_port
from problems import subjects
from reference import checkpoints, datasets, segments, two_layer_net
from reference.datasets import Dataset, load_mnist
from reference.defaults import MEMORY
from reference.files import ExclusiveFile
from reference.numerical_gradient import collocated
from reference.training import DivergedError, Progress, begin, epoch_length, train
from reference.two_layer_net import Params, init

OPTIONS: dict[str, Any] = {"batch": 100, "learning_rate": 3.0}  # so large that W2 outgrows its plan several times
EPOCH = 14  # of the digits


def digits(dtype: str = "float64") -> tuple[Dataset, Params]:
    return datasets.load("digits", dtype=dtype), init(64, 5, 10, seed=0, dtype=dtype)


def run(port: Any, params: Params | Progress, data: Dataset, **options: Any) -> list[Progress]:
    return list(train(port, params, data, **{**OPTIONS, **options}))


def assert_same_bits(got: Progress, expected: Progress) -> None:
    assert got.iteration == expected.iteration
    assert got.generator == expected.generator
    for g, e in zip((*got.params, *got[2:4]), (*expected.params, *expected[2:4]), strict=True):
        assert g.dtype == e.dtype
        np.testing.assert_array_equal(g, e)


def test_it_is_the_chapters_loop() -> None:
    data, params = digits()
    end = run(numpy_port, params, data, iterations=40)[-1]
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


@subjects()
def test_a_resumed_run_ends_with_the_same_bits(subject: Subject, tmp_path: Path) -> None:
    data, params = digits(subject.dtype)
    steps = run(subject.port, params, data, iterations=70)
    assert np.abs(params.W2).max() * 8 < np.abs(steps[-1].params.W2).max()  # the plan has changed on the way
    assert steps[-1].params.W1.dtype == subject.dtype
    for n in (0, 2, 4):
        with ExclusiveFile(tmp_path / "run") as file:
            checkpoints.save(file, checkpoints.Checkpoint(steps[n], {}, {}))
        loaded = checkpoints.load(tmp_path / "run").progress
        assert_same_bits(loaded, steps[n])
        assert_same_bits(run(subject.port, loaded, data, iterations=70)[-1], steps[-1])


@subjects("float64")
def test_a_longer_run_resumed_at_the_end_of_a_segment_ends_with_the_same_bits(subject: Subject) -> None:
    data, params = digits(subject.dtype)
    *_, segment, end = run(subject.port, params, data, iterations=38)
    assert (segment.iteration, segment.resumable, end.iteration, end.resumable) == (28, True, 38, False)
    whole = run(subject.port, params, data, iterations=56)
    assert_same_bits(run(subject.port, segment, data, iterations=56)[-1], whole[-1])


@pytest.mark.parametrize("strategy", ["collocated", "structured"])
@subjects("float64")
def test_a_port_that_wraps_another_and_replaces_a_strategy_trains(subject: Subject, strategy: str) -> None:
    """By the wrapped port's own strategy of that name, since `train_steps` is the wrapped port's."""
    members = {name: getattr(subject.port, name) for name in dir(subject.port) if not name.startswith("_")}
    wrapper = SimpleNamespace(**members)
    wrapper.GRADIENTS = {**subject.port.GRADIENTS, strategy: lambda *net, **options: pytest.fail("it was called")}
    data, params = digits()
    got, expected = (run(port, params, data, strategy=strategy, iterations=14)[-1] for port in (wrapper, subject.port))
    assert_same_bits(got, expected)


def test_the_end_of_a_shorter_run_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    data, params = digits()
    monkeypatch.setattr(segments, "WORK", 4.0 * 100 * sum(p.size for p in params))  # segments of 4 iterations
    short = run(numpy_port, params, data, iterations=18)[-1]
    assert (short.resumable, short.accuracies[:, 0].tolist()) == (True, [0, 14, 18])
    assert_same_bits(run(numpy_port, short, data, iterations=28)[-1], run(numpy_port, params, data, iterations=28)[-1])
    assert_same_bits(run(numpy_port, short, data, iterations=18)[-1], short)


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


@pytest.mark.filterwarnings("ignore:`collocated` needs more than 8 nodes")
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")  # of a port that is on NumPy
@subjects()
def test_a_loss_that_is_not_finite_stops_the_run(subject: Subject) -> None:
    data = datasets.load("random", dtype=subject.dtype)
    params = init(64, 5, 10, 10.0, seed=0, dtype=subject.dtype)
    rate = float(np.finfo(subject.dtype).max)
    steps = train(subject.port, params, data, batch=20, learning_rate=rate, iterations=60)
    assert next(steps).iteration == 0
    try:
        *_, last = steps
    except DivergedError as error:
        sentence = str(error)
        assert sentence.startswith("Training diverged: the loss is no longer finite at iteration ")
        assert sentence.endswith(f"; the likely cause is the learning rate, {rate:g}: try a smaller one.")
        assert 2 <= int(sentence.split("iteration ")[1].split(";")[0]) <= 9
    else:  # a port from outside may saturate where others overflow
        assert subject.name not in ports.BUILT_IN
        assert np.isfinite(last.losses).all()


def test_numpy_does_not_warn_of_the_numbers_that_stop_a_run() -> None:
    data, params = datasets.load("random"), init(64, 5, 10, 10.0, seed=0)
    options = {"strategy": "structured", "batch": 20, "learning_rate": float(np.finfo("float64").max)}
    with pytest.raises(DivergedError, match="the loss is no longer finite"):
        run(numpy_port, params, data, **options, iterations=9)


@subjects("float64")
def test_parameters_that_outgrow_the_step_stop_the_run(subject: Subject) -> None:
    data, params = datasets.load("random"), init(64, 2, 10, seed=0)
    steps = train(subject.port, params, data, strategy="batched", batch=500, learning_rate=1e30, iterations=6)
    assert next(steps).iteration == 0
    with pytest.raises(DivergedError) as caught:
        list(steps)
    assert re.fullmatch(
        r"Training diverged: `h` no longer moves the largest parameter after iteration [0-4]; "
        r"the likely cause is the learning rate, 1e\+30: try a smaller one\.",
        str(caught.value),
    )


@subjects("float64")
def test_parameters_that_outgrow_the_step_at_the_end_stop_the_run(subject: Subject) -> None:
    """A backend looks at them before its steps, and no further steps are taken."""
    options = {"strategy": "batched", "batch": 5, "learning_rate": 1e15, "iterations": 1}
    with pytest.raises(DivergedError, match="`h` no longer moves the largest parameter after iteration 0; "):
        run(subject.port, init(64, 2, 10, seed=0), datasets.load("random"), **options)


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
        run(port, params, data, iterations=28)


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
    assert run(numpy_port, params, data, iterations=1, batch=1)[-1].iteration == 1


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
        run(port, params, data, iterations=28)


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


@subjects("float64")
def test_the_chapters_listing_runs_with_only_its_imports_changed(subject: Subject) -> None:
    backend = subject.source

    # from dataset.mnist import load_mnist
    def load() -> Any:
        return load_mnist(normalize=True, one_hot_label=True, source="digits")

    # from two_layer_net import TwoLayerNet
    def make(input_size: int, hidden_size: int, output_size: int) -> ports.TwoLayerNet:
        return ports.TwoLayerNet(input_size, hidden_size, output_size, backend=backend, seed=0)

    (x_train, t_train), (x_test, t_test) = load()
    network = make(input_size=64, hidden_size=50, output_size=10)

    iters_num = 300
    train_size = x_train.shape[0]
    batch_size = 100
    learning_rate = 1.0

    train_loss_list = []
    train_acc_list = []
    test_acc_list = []

    iter_per_epoch = max(train_size / batch_size, 1)

    for i in range(iters_num):
        batch_mask = np.random.choice(train_size, batch_size)
        x_batch = x_train[batch_mask]
        t_batch = t_train[batch_mask]

        grad = network.numerical_gradient(x_batch, t_batch)

        for key in ("W1", "b1", "W2", "b2"):
            network.params[key] -= learning_rate * grad[key]

        loss = network.loss(x_batch, t_batch)
        train_loss_list.append(loss)

        if i % iter_per_epoch == 0:
            train_acc = network.accuracy(x_train, t_train)
            test_acc = network.accuracy(x_test, t_test)
            train_acc_list.append(train_acc)
            test_acc_list.append(test_acc)
            print("train acc, test acc | " + str(train_acc) + ", " + str(test_acc))

    assert len(train_loss_list) == 300
    assert np.mean(train_loss_list[-20:]) < 0.5 < 2 < train_loss_list[0]
    assert network.accuracy(x_test, t_test) > 0.8
    assert len(train_acc_list) == len(test_acc_list) >= 1
