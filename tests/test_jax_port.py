"""What is JAX's alone: its arrays never change, so each is looked through once; its compiler may be wrong."""

import gc
from typing import Any

import numpy as np
import pytest

import ports
from problems import loaded
from reference.two_layer_net import Params


@pytest.fixture(scope="module")
def port() -> Any:
    return loaded("jax")


def test_an_array_is_looked_through_once_and_forgotten_with_it(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    largest = port._with_x64(port._largest)
    compiled = port._compiled
    monkeypatch.setattr(port, "_compiled", lambda function: calls.append(function) or compiled(function))
    array = port.from_numpy(np.array([1.0, -3.0]), dtype="float64", device="cpu")
    key = id(array)
    assert [largest(array) for _ in range(3)] == [3.0, 3.0, 3.0]
    assert len(calls) == 1
    assert port._LARGEST[key] == 3.0
    del array
    gc.collect()
    assert key not in port._LARGEST


def test_this_build_compiles_the_canary_rightly(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At more columns than the 5,000 from which on it has been compiled wrongly."""
    traced, right = [], port._canary_sum

    def canary_sum(d: Any) -> Any:
        traced.append((d.shape, str(d.dtype)))
        return right(d)

    monkeypatch.setattr(port, "_canary_sum", canary_sum)
    port._with_x64(port._canary)()
    assert traced == [((3, 20_000), "float32"), ((3, 20_000), "float64")]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_build_that_compiles_it_wrongly_in_one_dtype_is_not_run(
    port: Any, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By 300 roundings; or to 0, as the fusion did that is turned off."""
    right = port._canary_sum
    for factor, told in ((1 + 300 * np.finfo(dtype).eps / 2, "e-"), (0, "by 1.")):
        monkeypatch.setattr(port, "_canary_sum", lambda d, f=factor: right(d) * (f if d.dtype == dtype else 1))
        with pytest.raises(ports.NotRunError, match=rf"this build of jaxlib \(.*\) miscompiles expm1: .*{told}"):
            port._with_x64(port._canary)()


def test_training_takes_the_strategy_that_it_is_told(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {name: port._loss_and(port.GRADIENTS[name], None, 1, None) for name in ("structured", "collocated")}
    assert {name: step.func for name, step in taken.items()} == {
        "structured": port._structured,
        "collocated": port._collocated,
    }
    rooms = []
    monkeypatch.setattr(port, "_differences", lambda *args: rooms.append(args[-1]))
    monkeypatch.setattr(port, "_loss", lambda *net: None)
    net = Params(*map(np.zeros, ((2, 1), 1, (1, 2), 2)))
    for name in ("loop", "batched"):
        port._loss_and(port.GRADIENTS[name], port.Shifts(1e-4, 1e-4, 1), 7, None)(
            net, np.ones((1, 2)), np.zeros(1, int)
        )
    assert rooms == [0, 7]  # bytes: one net at a time
