"""A repeated call gives the same bits: in one process, and in another one of the same settings.

Where settings differ it need not: the number of threads may decide how a library cuts a product into parts, and so in
which order its terms are added.
"""

import hashlib
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.comparison import Subject, on_device, random_problem
from comparison.conformance.problems import subjects
from comparison.conformance.processes import run_in_process
from reference import datasets
from reference.defaults import DTYPES, STRATEGIES
from reference.two_layer_net import Params

SOME = Params(np.arange(0, 640, 37), np.arange(10), np.arange(0, 100, 7), np.arange(10))
"""Entries for `loop` and `batched`."""


def digests(subject: Subject) -> dict[str, str]:
    """Hash all results of each function of a port on the digits, by name."""
    data, port = datasets.load("digits"), subject.port
    sizes = {"hidden": 50, "samples": 100} if subject.name in ports.BUILT_IN else {"hidden": 10, "samples": 40}
    problem = random_problem(data.x_train, data.t_train, **sizes, seed=0)
    (params, x), t, batches = on_device(subject, problem), problem.t, np.arange(40).reshape(4, 10)
    results: dict[str, Any] = {
        "forward": (port.predict(params, x), port.loss(params, x, t), port.accuracy(params, x, t)),
        "closed form": port.gradient(params, x, t),
    }
    for name in STRATEGIES:
        entries = {"entries": SOME} if name in ("loop", "batched") else {}
        results[name] = port.GRADIENTS[name](params, x, t, **entries)
    for name in ("structured", "collocated"):
        trained, losses = port.train_steps(params, x, t, batches, strategy=name, learning_rate=0.1)
        results[f"trained by {name}"] = (*trained, losses)
    return {name: _digest([port.to_numpy(array) for array in arrays]) for name, arrays in results.items()}


def _digest(arrays: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


PROCESS = """
import json, sys, ports
from comparison.conformance import test_determinism
from comparison.agreement.comparison import Subject
port = ports.load(sys.argv[1])
subjects = [Subject(sys.argv[1], port, dtype, sys.argv[2]) for dtype in sys.argv[3:]]
print(json.dumps([[test_determinism.digests(subject) for subject in subjects] for _ in range(2)]))
"""


def in_a_process(subject: Subject, dtypes: tuple[str, ...]) -> list[list[dict[str, str]]]:
    """Return the hashes of a first and of a repeated call, in the dtypes in this order."""
    results: list[list[dict[str, str]]] = run_in_process(PROCESS, subject.source, subject.device, *dtypes)
    return results


def differing(one: list[dict[str, str]], other: list[dict[str, str]]) -> str:
    """Name the functions whose results are not the same in some dtype."""
    return ", ".join(dict.fromkeys(name for a, b in zip(one, other, strict=True) for name in a if a[name] != b[name]))


@pytest.mark.slow
@subjects("float64")
def test_a_repeated_call_gives_the_same_bits_here_and_in_another_process(subject: Subject) -> None:
    """The other process begins in the other dtype: a constant that a port makes once is right for both."""
    first, repeated = in_a_process(subject, DTYPES)
    assert not (names := differing(first, repeated)), f"{names}: a repeated call gives other bits"
    other, repeated = in_a_process(subject, DTYPES[::-1])
    assert not (names := differing(other, repeated)), f"{names}: a repeated call gives other bits"
    assert not (names := differing(first, other[::-1])), f"{names}: another process gives other bits"
