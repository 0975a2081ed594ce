"""What a port keeps of its calls: nothing that grows with their number."""

import gc
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from comparison.conformance.problems import loaded
from reference.defaults import STRATEGIES
from reference.two_layer_net import Params, init

BACKENDS = pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])


def bytes_per_call(call: Callable[[], object]) -> float:
    """Measure the memory of Python that a call leaves behind once all caches are full.

    What other threads of the process allocate is counted, too, and so the least of three measurements is taken.
    """
    kept = []
    tracemalloc.start()
    for calls in (200, 100, 100, 100):  # first more than an lru_cache holds by default
        for _ in range(calls):
            call()
        gc.collect()
        kept.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    return min(after - before for before, after in pairwise(kept)) / calls


@BACKENDS
@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s not in ("loop", "batched")])
def test_gradients_of_new_inputs_leave_nothing_behind(backend: str, strategy: str) -> None:
    port, rng = loaded(backend), np.random.default_rng(0)
    params = Params(*(port.from_numpy(p, dtype="float64", device="cpu") for p in init(4, 3, 2, seed=0)))
    x = rng.uniform(-1, 1, (5, 4))

    def call() -> None:  # every time with a new max|x|, but always under the same plan
        inputs = port.from_numpy(x * rng.uniform(1.5, 1.6), dtype="float64", device="cpu")
        port.synchronize(port.GRADIENTS[strategy](params, inputs, np.arange(5) % 2))

    assert bytes_per_call(call) < 100


@BACKENDS
def test_steps_at_new_learning_rates_leave_nothing_behind(backend: str) -> None:
    port, rng = loaded(backend), np.random.default_rng(0)
    params = Params(*(port.from_numpy(p, dtype="float64", device="cpu") for p in init(4, 3, 2, seed=0)))
    x = port.from_numpy(rng.uniform(-1, 1, (5, 4)), dtype="float64", device="cpu")

    def call() -> None:
        batches, rate = np.arange(5)[None], rng.uniform(1e-3, 1e-2)
        steps = port.train_steps(params, x, np.arange(5) % 2, batches, strategy="collocated", learning_rate=rate)
        port.synchronize(steps[1])

    assert bytes_per_call(call) < 100
