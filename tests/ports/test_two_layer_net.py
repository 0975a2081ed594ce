"""The chapter's class: on any backend, of a single sample, copied and pickled, with what it must refuse."""

import copy
import pickle
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ports
from comparison.conformance.problems import loaded
from ports import numpy_port
from reference import chapter
from reference.defaults import STRATEGIES

X = np.random.default_rng(0).random((6, 5))
T = np.arange(6) % 3
EACH_BACKEND = pytest.mark.parametrize("backend", ports.BUILT_IN)


def net(backend: Any = "numpy", **options: Any) -> ports.TwoLayerNet:
    if isinstance(backend, str):
        loaded(backend)
    return ports.TwoLayerNet(5, 4, 3, 1.0, seed=0, backend=backend, **options)


@EACH_BACKEND
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_computes_what_the_reference_computes(backend: str, strategy: str) -> None:
    got, expected = net(backend, strategy=strategy), chapter.TwoLayerNet(5, 4, 3, 1.0, seed=0, strategy=strategy)
    np.testing.assert_allclose(got.predict(X), expected.predict(X), rtol=1e-13)
    assert got.loss(X, T) == pytest.approx(expected.loss(X, T), rel=1e-13)
    assert got.accuracy(X, T) == expected.accuracy(X, T)
    for method in ("gradient", "numerical_gradient"):
        ours, theirs = getattr(got, method)(X, T), getattr(expected, method)(X, T)
        assert list(ours) == list(theirs) == ["W1", "b1", "W2", "b2"]
        for name in ours:  # of loop and batched, to the rounding of two losses
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-7, atol=1e-10)


@EACH_BACKEND
@pytest.mark.parametrize("t", [2, [2], np.int64(2), np.array([0, 0, 1])])
def test_a_single_sample_is_a_batch_of_one(backend: str, t: Any) -> None:
    one, batch = X[0], X[:1]
    some = net(backend)
    assert some.predict(one).shape == (3,)
    np.testing.assert_array_equal(some.predict(one), some.predict(batch)[0])
    assert some.loss(one, t) == some.loss(batch, [2])
    assert some.accuracy(one, t) == some.accuracy(batch, [2])
    for name, g in some.numerical_gradient(one, t).items():
        np.testing.assert_array_equal(g, some.numerical_gradient(batch, [2])[name])


@EACH_BACKEND
def test_a_net_is_copied_and_pickled(backend: str) -> None:
    some = net(backend)
    for again in (copy.deepcopy(some), copy.copy(some), pickle.loads(pickle.dumps(some))):
        assert again.loss(X, T) == some.loss(X, T)
    again = copy.deepcopy(some)
    again.params["b2"][0] += 1
    assert again.loss(X, T) != some.loss(X, T)


def test_a_net_on_a_module_is_pickled_by_its_name() -> None:
    some = net(numpy_port)
    assert pickle.loads(pickle.dumps(some)).loss(X, T) == some.loss(X, T)


DOUBLED = """
from ports.numpy_port import *
import ports.numpy_port as right


def loss(params, x, t):
    return {factor} * right.loss(params, x, t)
"""


@pytest.fixture
def two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Write two ports of one name, in the current folder and in another, and give the latter."""
    (tmp_path / "other").mkdir()
    for factor, folder in enumerate((tmp_path, tmp_path / "other"), 1):
        (folder / "fdnet_test_net.py").write_text(DOUBLED.format(factor=factor))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "other/fdnet_test_net.py"
    sys.modules.pop("fdnet_port_fdnet_test_net", None)


@pytest.mark.parametrize("by_path", [True, False])
def test_a_net_on_a_file_keeps_its_port(by_path: bool, two_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = net("fdnet_test_net.py" if by_path else ports.load("fdnet_test_net.py"))
    expected, pickled = net().loss(X, T), pickle.dumps(some)
    ports.load(str(two_files))
    monkeypatch.chdir(two_files.parent)
    assert pickle.loads(pickled).loss(X, T) == pickle.loads(pickle.dumps(some)).loss(X, T) == expected
    (two_files.parents[1] / "fdnet_test_net.py").unlink()
    for again in (some, copy.copy(some), copy.deepcopy(some), copy.deepcopy([some])[0]):
        assert again.loss(X, T) == expected


def test_a_net_on_an_object_is_copied() -> None:
    some = net(SimpleNamespace(**vars(numpy_port)))
    for again in (copy.copy(some), copy.deepcopy(some)):
        assert again.loss(X, T) == some.loss(X, T)
    assert copy.deepcopy(some).params["W1"] is not some.params["W1"]


@pytest.mark.parametrize("backend", [None, 3, object(), np])
def test_what_is_no_backend_is_one_sentence(backend: Any) -> None:
    with pytest.raises(ValueError, match=r"^`.*` must be .*, got .*\.$"):
        net(backend)


def test_a_framework_is_no_port() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"^`torch\.\w+` must be a function"):
        net(torch)


@EACH_BACKEND
@pytest.mark.parametrize(
    "x",
    [np.ma.masked_array(X, X > 0.5), [[1.0, 2.0], [3.0]], X.astype(complex), X.astype(object), [["a"] * 5], None],
    ids=["masked", "ragged", "complex", "objects", "words", "None"],
)
def test_nothing_is_stripped_on_the_way_to_the_check(backend: str, x: Any) -> None:
    some = net(backend)
    for call in (some.predict, lambda x: some.loss(x, T), lambda x: some.numerical_gradient(x, T)):
        with pytest.raises(ValueError, match=r"^`\w+` must .*\.$"):
            call(x)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@EACH_BACKEND
def test_tensors_that_numpy_can_hold_are_inputs_and_others_are_one_sentence(backend: str) -> None:
    torch = pytest.importorskip("torch")
    some, x = net(backend), torch.from_numpy(X)
    assert some.loss(x, torch.from_numpy(T)) == some.loss(X, T)
    for wrong in (x.clone().requires_grad_(), x.to_sparse(), x.to(torch.bfloat16), x.to_sparse_csr()):
        with pytest.raises(ValueError, match=r"^`x` must be an array, got .*\.$"):
            some.predict(wrong)


@EACH_BACKEND
def test_building_a_net_leaves_the_global_generators_alone(backend: str) -> None:
    np.random.seed(0)
    random.seed(0)
    expected = np.random.random(), random.random()
    np.random.seed(0)
    random.seed(0)
    net(backend)
    assert (np.random.random(), random.random()) == expected
