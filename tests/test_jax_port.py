"""What is JAX's alone: its arrays never change, so each is looked through once."""

import gc

import numpy as np
import pytest

import ports


def test_an_array_is_looked_through_once_and_forgotten_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        port = ports.load("jax")
    except ports.NotRunError as reason:
        pytest.skip(f"jax not run: {reason}")
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
