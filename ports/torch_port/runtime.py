"""Arrays, devices and settings of PyTorch: what a port needs besides the mathematics."""

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache, wraps
from threading import Lock
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch._C import _functorch as functorch  # there is no public way to ask for these levels, nor to leave them
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from reference import validation
from reference.surroundings import default_arithmetic

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class _TrueFloat32:
    """Forbids for a while that float32 products are rounded to TF32 or bfloat16, on GPUs and on CPUs.

    PyTorch has these settings once for all threads. So the first call that runs makes them, and the last one that ends
    restores them; a call in between would not know which of them are the caller's.
    """

    def __init__(self) -> None:
        self._lock, self._running = Lock(), 0
        self._reduced: dict[str, tuple[Any, str]] = {}

    def __enter__(self) -> None:
        backends: Any = torch.backends
        with self._lock:
            self._running += 1
            for name, setting in (("cuda", backends.cuda.matmul), ("mkldnn", backends.mkldnn.matmul)):
                precision = setting.fp32_precision
                if precision not in ("none", "ieee"):  # "none" where it is inherited, and nothing was set
                    self._reduced[name] = (setting, "none" if precision == backends.fp32_precision else precision)
                    setting.fp32_precision = "ieee"

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            for setting, precision in () if self._running else self._reduced.values():
                if setting.fp32_precision == "ieee":  # otherwise the caller has set it in the meantime
                    setting.fp32_precision = precision
            if not self._running:
                self._reduced.clear()


_true_float32 = _TrueFloat32()
_PLAIN = frozenset({Tensor, torch.nn.Parameter})
_AUTOCAST = ("cpu", "cuda", "mps")


def isolated(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run `function` on plain tensors, without autograd's records and with true float32, whatever the caller has set.

    Switched off are autocast, gradients, inference mode (whose tensors could not be changed later), the levels of
    torch.func that the call stands in, what NumPy's errors do, and that subnormal numbers are flushed to 0. A tensor
    that is not plain is a ValueError.
    """
    names = tuple(inspect.signature(function).parameters)

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if torch.compiler.is_compiling():  # by the caller's torch.compile, whose kernels are not the port's
            return torch.compiler.disable(run)(*args, **kwargs)
        for name, value in validation.named_arguments(names, args, kwargs):
            if isinstance(value, Tensor):
                _check_plain(name, value)
        with ExitStack() as stack:
            for kind in _AUTOCAST:
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if functorch.peek_interpreter_stack() is not None:
                stack.enter_context(temporarily_clear_interpreter_stack())
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
            with torch.no_grad(), _true_float32, default_arithmetic():
                return function(*args, **kwargs)

    return run


def _check_plain(name: str, tensor: Tensor) -> None:
    if type(tensor) not in _PLAIN:  # a subclass may have a mask, or operations that mean something else
        raise ValueError(f"`{name}` must be a plain torch.Tensor, got a {type(tensor).__name__}.")
    if tensor.is_nested or tensor.layout != torch.strided:
        kind = "nested" if tensor.is_nested else str(tensor.layout).rpartition(".")[2]
        raise ValueError(f"`{name}` must be a dense tensor, got a {kind} one.")
    if functorch.is_functorch_wrapped_tensor(tensor):
        raise ValueError(f"`{name}` must hold numbers, got a tensor of a transform of torch.func: call it outside.")
    if torch._VF._unpack_dual(tensor, level=0)[1] is not None:
        raise ValueError(f"`{name}` must carry no tangent, got a dual tensor of forward-mode AD.")
    if tensor.data_ptr() == 0 and tensor.numel():
        raise ValueError(f"`{name}` must hold numbers, got a tensor on {tensor.device} whose storage holds none.")


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
    if not isinstance(array, Tensor):
        raise ValueError(f"`array` must be a torch.Tensor, got {validation.shown(array)}.")
    try:
        return array.cpu().resolve_conj().resolve_neg().numpy().copy()
    except TypeError as error:
        raise ValueError(f"`array` must have a dtype that NumPy has, got {validation.dtype_name(array)}.") from error


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
    if torch.compiler.is_compiling():  # the graph has it as a constant
        return torch.full((), value, dtype=like.dtype, device=like.device)
    return _scalar_on(value, like.dtype, like.device)


@lru_cache  # bounded: the learning rate may differ from call to call
def _scalar_on(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=dtype, device=device)
