"""Work stays within its memory, on each backend by the count of its own framework, and leaves nothing behind."""

import gc
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.comparison import Subject
from comparison.agreement.kinds import draw
from comparison.conformance.calls import Call, everything, on_backend
from comparison.conformance.problems import subjects
from reference.collocation import make_plan
from reference.defaults import BUILT_IN, CLOSED_FORM
from reference.two_layer_net import Params, init


@contextmanager
def of_numpy(_: Any) -> Iterator[list[int]]:
    peaks: list[int] = []
    tracemalloc.start()
    try:
        yield peaks
        peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


@contextmanager
def of_torch(_: Any) -> Iterator[list[int]]:
    """Add up what each operation allocates, until it is freed."""
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    alive: set[int] = set()
    now, peaks = [0], [0]

    def free(key: int, nbytes: int) -> None:
        alive.discard(key)
        now[0] -= nbytes

    class Meter(TorchDispatchMode):
        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            before = {a.untyped_storage().data_ptr() for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)}
            result = operation(*args, **(kwargs or {}))
            for tensor in (r for r in tree_leaves(result) if isinstance(r, Tensor)):
                storage = tensor.untyped_storage()
                key, nbytes = storage.data_ptr(), storage.nbytes()
                if key not in before and key not in alive:
                    alive.add(key)
                    now[0] += nbytes
                    weakref.finalize(tensor, free, key, nbytes)
            peaks[0] = max(peaks[0], now[0])
            return result

    with Meter():
        yield peaks


@contextmanager
def of_jax(port: Any) -> Iterator[list[int]]:
    """Ask XLA how much memory the programs that are called need beside their arguments and results."""
    from jax.tree import leaves as tree_leaves

    modules = [getattr(port, name, None) for name in ("numerical_gradient", "descent")]
    if not all(hasattr(module, "compiled") for module in modules):
        pytest.skip("which programs this port calls is not known")
    peaks, compiled = [], port.descent.compiled

    def counted(*program: Any) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            key = *program, str([getattr(a, "shape", a) for a in tree_leaves(args)])
            if key not in NEEDED:
                NEEDED[key] = compiled(*program).lower(*args).compile().memory_analysis().temp_size_in_bytes
            peaks.append(NEEDED[key])
            return compiled(*program)(*args)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "compiled", counted)
        yield peaks


NEEDED: dict[tuple[Any, ...], int] = {}
"""By a program of JAX, its shapes and what is compiled in: the bytes that it needs."""
METERS = {"numpy": of_numpy, "array_api_strict": of_numpy, "torch": of_torch, "jaxlib": of_jax}


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["gradient", "training"])
@pytest.mark.parametrize(
    ("strategy", "samples", "mib", "h", "weight"),
    [
        ("batched", 100, 2, 1e-4, 4.0),
        ("structured", 250, 1, 1e-4, 4.0),
        ("collocated", 2000, 1, 1e-4, 4.0),
        ("collocated", 200, 1, 0.0265, 20.3),  # 8 nodes, and no power sums are exact
    ],
)
@subjects("float64")
def test_work_stays_within_memory(
    subject: Subject, strategy: str, samples: int, mib: int, h: float, weight: float, training: bool
) -> None:
    port, rng = subject.port, np.random.default_rng(0)
    units, room = 50, mib * 2**20
    if subject.name not in ports.BUILT_IN:  # counting slows down what is written in Python
        units, samples, room = (24, 25, 2**19) if strategy == "batched" else (12, 100, 2**19)
    net = init(units, units, 10, 1.0, seed=0)
    net.W2[0, 0] = weight
    plan = make_plan(h, 1.0, weight, "float64")
    assert (plan.collocates, plan.terms) == (True, 4 if h == 1e-4 else 0)
    arrays = (*net, rng.random((samples, units)) * (rng.random((samples, units)) < 0.5))
    *p, x = (port.from_numpy(a, dtype="float64", device=subject.device) for a in arrays)
    params, t, batches = Params(*p), rng.integers(0, 10, samples), np.arange(samples)[None]
    framework = type(x).__module__.partition(".")[0]
    if framework not in METERS:
        pytest.skip(f"the memory that {framework} takes is not counted")

    def peak(strategy: str, **options: Any) -> int:
        with METERS[framework](port) as peaks:
            if training:
                port.train_steps(params, x, t, batches, strategy=strategy, learning_rate=0.1, **options)
            else:
                port.GRADIENTS[strategy](params, x, t, **options)
        return max(peaks)

    peak(strategy, h=h, memory=room)  # a first call compiles, and leaves caches behind
    copies = peak(CLOSED_FORM) if training else 0  # training copies the net and the mini-batch
    if subject.name in BUILT_IN:  # otherwise the budget would not be what limits them; others may need little
        assert peak(strategy, h=h, memory=2**40) > 2 * room
    # What other threads of the process allocate is counted, too. That can only add, so one count of three must hold.
    peaks = []
    while len(peaks) < 3 and min(peaks, default=room + copies + 1) > room + copies:
        peaks.append(peak(strategy, h=h, memory=room))
    assert min(peaks) <= room + copies


def objects_left_by(call: Callable[[], object]) -> float:
    """Count the blocks of Python's memory that a call leaves behind once all caches are full: one an object at least.

    Those of other threads, and what a framework now and then lets go, are counted, too: the median of five counts.
    """
    blocks = []
    for calls in (250, 30, 30, 30, 30, 30):  # first more than an lru_cache holds by default
        for _ in range(calls):
            call()
        gc.collect()
        blocks.append(sys.getallocatedblocks())
    return median(after - before for before, after in pairwise(blocks)) / calls


@pytest.mark.slow
@subjects("float64")
def test_calls_leave_nothing_behind(subject: Subject) -> None:
    """However many there are, each with new inputs, the largest of which is in the key of a plan that is kept."""
    rng, (params, x, t) = np.random.default_rng(0), draw((5, 4, 3, 2), 0)
    few = Params(*(np.array([0]) for _ in Params._fields))

    def call() -> None:  # every time under the same plan
        everything(subject, on_backend(subject, Call(params, x * rng.uniform(1, 1.1), t, {})), few)

    left = objects_left_by(call)
    assert left < 0.9, f"each call leaves {left:.3g} objects behind"
