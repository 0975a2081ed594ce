"""Arrays of a kind that only one backend has: refused where they could be misread, taken as they lie in memory."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject, check_forward, check_gradient, disagreement_sentence
from comparison.conformance.calls import FUNCTIONS, UNUSUAL, good_call, on_backend, prepare, snapshot
from reference.defaults import DTYPES, STRATEGIES

# --- what only one backend has

NUMPYS: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "a masked array": (lambda a: np.ma.masked_array(a, mask=a > 2), "got numpy.MaskedArray."),
    "a matrix": (np.asmatrix, "got numpy.matrix."),
    "a subclass": (lambda a: a.view(type("Subclass", (np.ndarray,), {})), "Subclass."),
    "a scalar": (lambda a: a[0, 0], "got numpy.float64."),
    "objects": (lambda a: a.astype(object), "must be float32 or float64, got object."),
    "complex": (lambda a: a.astype(complex), "must be float32 or float64, got complex128."),
    "big-endian": (lambda a: a.astype(">f8"), "must be float32 or float64, got >f8."),
    "half": (lambda a: a.astype(np.float16), "must be float32 or float64, got float16."),
    "long": (lambda a: a.astype(np.longdouble), "must be float32 or float64, got "),
    "whole numbers": (lambda a: a.astype(int), "must be float32 or float64, got int64."),
    "words": (lambda a: a.astype(str), "must be float32 or float64, got <U32."),
}
TORCHS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "half": (lambda a: a.half(), "must be float32 or float64, got float16."),
    "bfloat16": (lambda a: a.bfloat16(), "must be float32 or float64, got bfloat16."),
    "whole numbers": (lambda a: a.long(), "must be float32 or float64, got int64."),
    "complex": (lambda a: a + 0j, "must be float32 or float64, got complex128."),
    "of another device": (lambda a: a.to("meta"), "must hold numbers, got a tensor on meta whose storage holds none."),
}
JAXS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "half": (lambda a: a.astype("float16"), "must be float32 or float64, got float16."),
    "bfloat16": (lambda a: a.astype("bfloat16"), "must be float32 or float64, got bfloat16."),
    "whole numbers": (lambda a: a.astype("int32"), "must be float32 or float64, got int32."),
    "complex": (lambda a: a.astype("complex64"), "must be float32 or float64, got complex64."),
}
KINDS = [
    pytest.param(backend, *table[kind], id=f"{backend}: {kind}")
    for backend, table in {"numpy": NUMPYS, "torch": TORCHS, "jax": JAXS}.items()
    for kind in table
]


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("backend", "change", "sentence"), KINDS)
def test_an_array_of_another_kind_is_refused(
    backend: str, change: Callable[[Any], Any], sentence: str, function: str
) -> None:
    pytest.importorskip(backend, reason=f"{backend} not run: it is not installed")
    subject = Subject(backend, ports.load(backend), "float64", "cpu")
    call = on_backend(subject, good_call())
    called, arguments, options = prepare(subject, call._replace(x=change(call.x)), function)
    before = snapshot(subject, call)
    with pytest.raises(ValueError, match=r"^`x` must .*\.$") as caught:
        called(*arguments, **options)
    assert sentence in str(caught.value)
    assert snapshot(subject, call) == before


def test_jax_refuses_arrays_of_two_devices() -> None:
    pytest.importorskip("jax", reason="jax not run: it is not installed")
    code = """
import jax, ports, comparison.conformance.calls as bad
from refusals import refusal
from comparison.agreement.comparison import Subject
subject, good = Subject("jax", ports.load("jax"), "float64", "cpu"), bad.good_call()
call, other = bad.on_backend(subject, good), bad.on_backend(subject._replace(device="cpu:1"), good)
for function in bad.FUNCTIONS:
    print(refusal(subject, call._replace(x=other.x), function))
"""
    folder = Path(__file__).parents[1]
    paths = os.pathsep.join((str(folder), str(folder.parent)))
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": paths}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == len(FUNCTIONS)
    assert set(lines) == {"`x` must be on the device of W1 (cpu:0), got cpu:1."}


# --- unusual arrays that are right


TENSORS: dict[str, Callable[[Any], Any]] = {
    "in Fortran's order": lambda a: a.T.contiguous().T,
    "every other": lambda a: a.repeat_interleave(2, 0)[::2],
}
LAYOUTS = [
    pytest.param(backend, change, id=f"{backend}: {kind}")
    for backend, changes in {"numpy": UNUSUAL, "torch": TENSORS}.items()
    for kind, change in changes.items()
]


@pytest.mark.filterwarnings("ignore:The use of `x.T` on tensors:UserWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("backend", "change"), LAYOUTS)
def test_arrays_may_lie_in_memory_as_they_like(backend: str, change: Callable[[Any], Any], dtype: str) -> None:
    pytest.importorskip(backend, reason=f"{backend} not run: it is not installed")
    port = ports.load(backend)
    port_with_change = SimpleNamespace(**vars(port))
    port_with_change.from_numpy = lambda *array, **options: change(port.from_numpy(*array, **options))
    subject, problem = Subject(backend, port_with_change, dtype, "cpu"), Problem(*good_call()[:3])
    for row in check_forward(subject, problem):
        assert row.agrees, disagreement_sentence(row)
    for strategy in (*STRATEGIES, None):
        for row in check_gradient(subject, problem, strategy, 1e-2):
            assert row.agrees, disagreement_sentence(row)
