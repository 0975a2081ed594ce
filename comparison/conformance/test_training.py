"""The whole run: the chapter's loop on every backend, and the same bits wherever it was interrupted."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.comparison import Subject
from comparison.conformance.problems import subjects
from comparison.conformance.trainings import assert_same_bits, digits, run
from reference import checkpoints, datasets
from reference.datasets import load_mnist
from reference.files import ExclusiveFile
from reference.training import DivergedError, train
from reference.two_layer_net import init


@subjects()
def test_a_resumed_run_ends_with_the_same_bits(subject: Subject, tmp_path: Path) -> None:
    data, params = digits(subject.dtype)
    steps = run(subject, params, data, iterations=70)
    assert np.abs(params.W2).max() * 8 < np.abs(steps[-1].params.W2).max()  # the plan has changed on the way
    assert steps[-1].params.W1.dtype == subject.dtype
    for n in (0, 2, 4):
        with ExclusiveFile(tmp_path / "run") as file:
            checkpoints.save(file, checkpoints.Checkpoint(steps[n], {}, {}))
        loaded = checkpoints.load(tmp_path / "run").progress
        assert_same_bits(loaded, steps[n])
        assert_same_bits(run(subject, loaded, data, iterations=70)[-1], steps[-1])


@subjects("float64")
def test_a_longer_run_resumed_at_the_end_of_a_segment_ends_with_the_same_bits(subject: Subject) -> None:
    data, params = digits(subject.dtype)
    *_, segment, end = run(subject, params, data, iterations=38)
    assert (segment.iteration, segment.resumable, end.iteration, end.resumable) == (28, True, 38, False)
    whole = run(subject, params, data, iterations=56)
    assert_same_bits(run(subject, segment, data, iterations=56)[-1], whole[-1])


@pytest.mark.parametrize("strategy", ["collocated", "structured"])
@subjects("float64")
def test_a_port_that_wraps_another_and_replaces_a_strategy_trains(subject: Subject, strategy: str) -> None:
    """By the wrapped port's own strategy of that name, since `train_steps` is the wrapped port's."""
    members = {name: getattr(subject.port, name) for name in dir(subject.port) if not name.startswith("_")}
    wrapper = SimpleNamespace(**members)
    wrapper.GRADIENTS = {**subject.port.GRADIENTS, strategy: lambda *net, **options: pytest.fail("it was called")}
    data, params = digits()
    by_wrapper = subject._replace(port=wrapper)
    got, expected = (run(by, params, data, strategy=strategy, iterations=14)[-1] for by in (by_wrapper, subject))
    assert_same_bits(got, expected)


@pytest.mark.filterwarnings("ignore:`collocated` needs more than 8 nodes")
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")  # of a port that is on NumPy
@subjects()
def test_a_loss_that_is_not_finite_stops_the_run(subject: Subject) -> None:
    data = datasets.load("random", dtype=subject.dtype)
    params = init(64, 5, 10, 0.3, seed=0, dtype=subject.dtype)
    params = params._replace(W2=100 * params.W2)  # so that a slope is above 1, and the largest rate times it overflows
    rate = float(np.finfo(subject.dtype).max)
    steps = train(subject.port, params, data, device=subject.device, batch=20, learning_rate=rate, iterations=12)
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


@subjects("float64")
def test_parameters_that_outgrow_the_step_stop_the_run(subject: Subject) -> None:
    data, params = datasets.load("random"), init(64, 2, 10, seed=0)
    options = {"strategy": "batched", "batch": 500, "learning_rate": 1e30, "iterations": 6}
    steps = train(subject.port, params, data, device=subject.device, **options)
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
        run(subject, init(64, 2, 10, seed=0), datasets.load("random"), **options)


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
