"""Copies to the port and back, dtypes and devices."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.comparison import Subject
from comparison.conformance.calls import everything, good_call, on_backend
from comparison.conformance.problems import subjects

ROOT = Path(ports.__file__).parents[1]
FRAMEWORKS = {"jax", "torch"}


# --- copies to the port and back

ARRAYS = {
    "matrix": np.arange(12.0).reshape(3, 4) / 7,
    "large": np.random.default_rng(0).standard_normal((300, 70)),  # a small array may be copied for other reasons
    "float32": np.arange(5, dtype=np.float32) / 3,
    "integers": np.arange(6).reshape(2, 3),
    "bytes": np.array([0, 128, 255], np.uint8),
    "bools": np.array([True, False]),
    "transposed": np.arange(12.0).reshape(3, 4).T,
    "every other": np.arange(12.0)[::2],
    "backwards": np.arange(12.0)[::-1],
    "big-endian": np.arange(4, dtype=">f8"),
    "scalar": np.array(0.1),
    "empty": np.empty((0, 3)),
}


@pytest.mark.parametrize("case", ARRAYS)
@subjects()
def test_an_array_is_copied_to_the_port_and_back(subject: Subject, case: str) -> None:
    array = ARRAYS[case]
    back = subject.port.to_numpy(subject.port.from_numpy(array, dtype=subject.dtype, device=subject.device))
    assert (back.dtype.name, back.shape) == (subject.dtype, array.shape)
    np.testing.assert_array_equal(back, array.astype(subject.dtype))


@subjects()
def test_a_read_only_array_is_taken(subject: Subject) -> None:
    array = ARRAYS["matrix"].astype(subject.dtype)
    array.flags.writeable = False
    back = subject.port.to_numpy(subject.port.from_numpy(array, dtype=subject.dtype, device=subject.device))
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("size", [3, 4096])
@subjects()
def test_from_numpy_copies(subject: Subject, size: int) -> None:
    buffer = np.zeros(size + 64, subject.dtype)
    source = buffer[-buffer.ctypes.data % 64 // buffer.itemsize :][:size]  # aligned to 64 bytes: JAX could share it
    array = subject.port.from_numpy(source, dtype=subject.dtype, device=subject.device)
    source[:] = 1
    assert not subject.port.to_numpy(array).any()


@pytest.mark.parametrize("size", [3, 4096])
@subjects()
def test_to_numpy_copies(subject: Subject, size: int) -> None:
    array = subject.port.from_numpy(np.zeros(size), dtype=subject.dtype, device=subject.device)
    subject.port.to_numpy(array)[:] = 1
    assert not subject.port.to_numpy(array).any()


@pytest.mark.parametrize("dtype", ["float16", "int64", "double", "", None])
@subjects("float64")
def test_another_dtype_is_refused(subject: Subject, dtype: Any) -> None:
    with pytest.raises(ValueError, match=r"^`dtype` must be one of float64, float32, got"):
        subject.port.from_numpy(np.zeros(1), dtype=dtype, device=subject.device)


@pytest.mark.parametrize("device", ["tpu", "cpu:7", "", None])
@subjects("float64")
def test_another_device_is_refused(subject: Subject, device: Any) -> None:
    with pytest.raises(ValueError, match=rf"^`device` must be .*{subject.device}.*, got"):
        subject.port.from_numpy(np.zeros(1), dtype="float64", device=device)


@subjects("float32")
def test_each_device_can_be_used(subject: Subject) -> None:
    port = subject.port
    assert subject.device in port.devices()
    for device in ("auto", *port.devices()):
        assert port.to_numpy(port.from_numpy(np.ones(2), dtype="float32", device=device)).tolist() == [1, 1]


# --- results


@subjects()
def test_results_have_the_dtype_of_the_net(subject: Subject) -> None:
    assert {str(result.dtype) for result in everything(subject)} == {subject.dtype}


@subjects("float64")
def test_synchronize_returns_its_argument(subject: Subject) -> None:
    params, x = on_backend(subject, good_call())[:2]
    for result in (x, params, (params, x)):
        assert subject.port.synchronize(result) is result
