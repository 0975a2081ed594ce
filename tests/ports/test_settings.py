"""Settings of JAX and PyTorch that a call ignores and leaves as they are."""

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Subject, on_device
from comparison.conformance.calls import everything, good_call
from comparison.conformance.problems import subjects
from interpreters import ROOT, python
from ports.protocol import check_port
from reference.defaults import DTYPES

NET = Problem(*good_call()[:3])


def digest(results: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(result.tobytes() for result in results)).hexdigest()


X64 = """
import jax, ports
from comparison.conformance.calls import everything
from test_settings import digest
from comparison.agreement.comparison import Subject
subjects = [Subject("jax", ports.load("jax"), dtype, "cpu") for dtype in ("float64", "float32")]
results = [result for subject in subjects for result in everything(subject)]
print({str(r.dtype) for r in results} == {"float64", "float32"}, jax.config.jax_enable_x64, digest(results))
"""


@pytest.mark.slow
def test_jax_has_float64_whatever_the_callers_flag() -> None:
    pytest.importorskip("jax", reason="jax not run: it is not installed")
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests/ports"), str(ROOT / "tests")))
    printed = {flag: python(X64, JAX_ENABLE_X64=flag, PYTHONPATH=path).split() for flag in "01"}
    assert printed["0"][:2] == ["True", "False"]
    assert printed["1"][:2] == ["True", "True"]
    assert printed["0"][2] == printed["1"][2]


@subjects()
def test_a_call_leaves_the_settings_of_jax(subject: Subject) -> None:
    if subject.name != "jax":
        pytest.skip("a matter of jax")
    import jax

    for flag in (False, True):
        with jax.enable_x64(flag):
            everything(subject)
            with pytest.raises(ValueError, match="`h` must be"):
                subject.port.GRADIENTS["loop"](*on_device(subject, NET), NET.t, h=-1.0)
            assert jax.config.jax_enable_x64 == flag  # type: ignore[attr-defined]


@pytest.fixture
def torch() -> Iterator[Any]:
    """Give torch, whose settings are restored afterwards."""
    torch = pytest.importorskip("torch", reason="torch not run: it is not installed")
    dtype, precision = torch.get_default_dtype(), torch.backends.fp32_precision
    yield torch
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(True)
    torch.backends.fp32_precision = precision


def torch_settings(torch: Any) -> tuple[Any, ...]:
    of_products = (torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision)
    return torch.is_grad_enabled(), torch.get_default_dtype(), torch.backends.fp32_precision, of_products


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("precision", ["none", "ieee", "tf32"])
def test_a_call_leaves_the_settings_of_torch_and_ignores_them(torch: Any, dtype: str, precision: str) -> None:
    subject = Subject("torch", check_port(ports.load("torch")), dtype, "cpu")  # type: ignore[arg-type]
    expected = digest(everything(subject))
    for grad in (False, True):
        for default in (torch.float32, torch.float64):
            torch.set_grad_enabled(grad)
            torch.set_default_dtype(default)
            torch.backends.fp32_precision = precision
            before = torch_settings(torch)
            assert digest(everything(subject)) == expected
            with pytest.raises(ValueError, match="`h` must be"):
                subject.port.GRADIENTS["loop"](*on_device(subject, NET), NET.t, h=-1.0)
            assert torch_settings(torch) == before


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_call_ignores_the_default_device_of_torch(torch: Any, dtype: str) -> None:
    subject = Subject("torch", check_port(ports.load("torch")), dtype, "cpu")  # type: ignore[arg-type]
    from ports.torch_port import runtime

    expected = digest(everything(subject))
    runtime._scalar_on.cache_clear()
    with torch.device("meta"):  # an array there has no numbers, and goes with none of another device
        assert digest(everything(subject)) == expected


def test_results_of_torch_require_no_gradient(torch: Any) -> None:
    port = ports.load("torch")
    params, x = on_device(Subject("torch", port, "float64", "cpu"), NET)
    for gradient in (port.gradient, *port.GRADIENTS.values()):
        assert not any(g.requires_grad for g in gradient(params, x, NET.t))
