"""What a caller has set in NumPy does not change a result, nor end a call."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def numpy_errors() -> np.errstate:
    """Return a context in which no error of NumPy's raises, calls, prints or logs, as the caller may have set it.

    An overflow gives inf and at most a warning; an underflow gives 0, or a number with fewer digits.
    """
    kept: Any = {
        kind: "ignore" if mode == "ignore" or kind == "under" else "warn" for kind, mode in np.geterr().items()
    }
    return np.errstate(**kept)


def isolated(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run `function` in the context of `numpy_errors`."""

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with numpy_errors():
            return function(*args, **kwargs)

    return run
