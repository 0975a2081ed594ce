"""Arrays, devices and settings of PyTorch: what a port needs besides the mathematics."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from reference import validation

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@contextmanager
def true_float32() -> Iterator[None]:
    """Forbid for a while that float32 products are rounded to TF32 or bfloat16, on GPUs and on CPUs."""
    backends: Any = torch.backends
    settings = (backends.cuda.matmul, backends.mkldnn.matmul)
    reduced = [(s, s.fp32_precision) for s in settings if s.fp32_precision not in ("none", "ieee")]
    for setting, _ in reduced:
        setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        for setting, precision in reduced:  # "none" where it was inherited
            setting.fp32_precision = "none" if precision == backends.fp32_precision else precision


def isolated(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run `function` without autograd's records and with true float32 products, whatever the caller has set."""

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with torch.no_grad(), true_float32():
            return function(*args, **kwargs)

    return run


@isolated
def from_numpy(array: np.ndarray, *, dtype: str, device: str) -> Tensor:
    """Copy `array` to a device of `devices()`."""
    name = validation.check_device(device, devices())
    if name == "mps" and validation.check_dtype(dtype) == "float64":
        raise ValueError("`dtype` must be float32 on mps, which has no float64, got 'float64'.")
    copy = np.array(validation.check_numbers(array), dtype=validation.check_dtype(dtype), order="C")
    return torch.from_numpy(copy).to(name)  # it aliases its argument


@isolated
def to_numpy(array: Tensor) -> np.ndarray:
    """Copy `array` to a NumPy array."""
    return array.cpu().numpy().copy()


def devices() -> tuple[str, ...]:
    """Return the devices that can be used here, the default one first: "cuda", "cuda:1", ..., "mps", "cpu"."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = tuple(f"cuda:{n}" if n else "cuda" for n in range(gpus))
    return (*cuda, "mps", "cpu") if torch.backends.mps.is_available() else (*cuda, "cpu")


def synchronize(result: Any) -> Any:
    """Wait until `result`, a tensor or tuples of them, has been computed, and return it."""
    if isinstance(result, (tuple, list)):
        for part in result:
            synchronize(part)
    elif isinstance(result, Tensor) and result.device.type == "cuda":
        torch.cuda.synchronize(result.device)
    elif isinstance(result, Tensor) and result.device.type == "mps":
        torch.mps.synchronize()
    return result


def scalar(value: float, like: Tensor) -> Tensor:
    """Return `value` as a tensor: in float32 a small operation with a Python number takes twice as long."""
    return _scalar_on(value, like.dtype, like.device)


@cache
def _scalar_on(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=dtype, device=device)
