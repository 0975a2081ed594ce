"""What a caller has set in NumPy, or in the processor, does not change a result, nor end a call."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


SMALLEST_NORMAL = sys.float_info.min


def default_arithmetic() -> AbstractContextManager[object]:
    """Return a context in which numbers overflow and underflow as they do by default, whatever the caller has set.

    An overflow gives inf and at most a warning; an underflow gives 0, or a number with fewer digits. No error of
    NumPy's raises, calls, prints or logs.
    """
    if SMALLEST_NORMAL / 2 == 0 and "torch" in sys.modules:
        return _subnormals_kept()
    return _numpy_errors()


@contextmanager
def _subnormals_kept() -> Iterator[None]:
    """Keep numbers below the normal range, which torch.set_flush_denormal makes 0 in all that this thread computes."""
    set_flush_denormal = sys.modules["torch"].set_flush_denormal
    set_flush_denormal(False)
    try:
        with _numpy_errors():
            yield
    finally:
        set_flush_denormal(True)


def _numpy_errors() -> np.errstate:
    kept: Any = {
        kind: "ignore" if mode == "ignore" or kind == "under" else "warn" for kind, mode in np.geterr().items()
    }
    return np.errstate(**kept)


def isolated(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run `function` in the context of `default_arithmetic`."""

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with default_arithmetic():
            return function(*args, **kwargs)

    return run
