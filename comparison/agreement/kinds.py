"""The kinds of values, labels and arrays that a port is tried with: what users have, and images of digits do not.

Images show neither the sign nor the scale of an input, a tame net nothing of the digits lost where a unit or a
probability saturates or where exp overflows. A cache shows only where only one argument has changed since the last
call, most of all in the same array.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from comparison.agreement.bounds import Problem
from comparison.agreement.comparison import Agreement, Arguments, Subject, check_forward, new_arguments
from comparison.agreement.truth import Truth
from reference.two_layer_net import Params

Shape = tuple[int, int, int, int]
"""B, I, H, O."""


def draw(shape: Shape, seed: int, max_abs_x: float = 1.0) -> Problem:
    """Draw a net and a mini-batch with units that are not saturated and inputs of both signs, about a third of them 0.

    The largest input is negative, and so is the largest entry of W2, 1: whatever the seed, JAX compiles for one plan.
    Inputs up to more than 1 are whole numbers and none is negative, as the pixels of images are.
    """
    samples, inputs, hidden, outputs = shape
    rng = np.random.default_rng(seed)
    params = Params(
        W1=rng.standard_normal((inputs, hidden)) * (1.5 / np.sqrt(inputs) / max_abs_x),
        b1=rng.standard_normal(hidden),
        W2=rng.uniform(-0.9, 0.9, (hidden, outputs)),
        b2=rng.uniform(-1, 1, outputs),
    )
    x = rng.uniform(-0.9, 0.9, (samples, inputs)) * (rng.random((samples, inputs)) < 0.7)
    x.flat[-1] = params.W2.flat[0] = -1.0
    x = x if max_abs_x == 1 else np.round(max_abs_x * np.abs(x))
    labels = np.resize(rng.permutation(outputs), samples)  # as many classes as samples allow
    return Problem(params, x, rng.permutation(labels))


def _with(**changes: Callable[[np.ndarray], np.ndarray]) -> Callable[[Problem], Problem]:
    """Return the function that changes members of a problem."""

    def changed(problem: Problem) -> Problem:
        new = {
            name: change(getattr(problem.params, name)) for name, change in changes.items() if name not in ("x", "t")
        }
        x, t = (changes.get(name, np.copy)(getattr(problem, name)) for name in ("x", "t"))
        return Problem(problem.params._replace(**new), x, t)

    return changed


def _saturated(b1: np.ndarray) -> np.ndarray:
    return b1 + np.array([25, -25, 0])[np.arange(len(b1)) % 3]


def _apart(b2: np.ndarray) -> np.ndarray:
    """Add 1000 to all logits, which changes nothing unless something overflows; the first falls 300 behind.

    The last is 40 ahead: 1 minus its probability would be nothing but rounding.
    """
    classes = np.arange(len(b2))
    return b2 + 1000 - 300 * (classes == 0) + 40 * (classes == classes[-1])


VALUES: dict[str, Callable[[Problem], Problem]] = {
    "drawn": lambda problem: problem,
    "inputs negative": _with(x=lambda x: -np.abs(x) - (x == 0) / 16),
    "again": lambda problem: problem,
    "W1 reversed": _with(W1=lambda W1: W1[::-1, ::-1]),
    "W2 grown": _with(W2=lambda W2: 6 * W2),
    "W2 negative": _with(W2=lambda W2: -np.abs(W2)),
    "one class": _with(t=lambda t: np.full_like(t, t.max())),
    "units saturated": _with(b1=_saturated),
    "logits far apart": _with(b2=_apart),
    "inputs tiny": _with(x=lambda x: x * 1e-30),
}
"""Each but "again" changes one member of the problem that the one before has left.

Neither max|x| nor max|W2| grows, so that the plan stays as it is, but in "W2 grown"."""

FORWARD_VALUES: dict[str, Callable[[Problem], Problem]] = {
    "tied": _with(W2=lambda W2: 0 * W2, b2=lambda b2: 0 * b2),  # the first class is predicted
    "samples far apart": _with(W2=lambda W2: 2000 * W2),
    "nearly tied": _with(W2=lambda W2: 1e-9 * W2, b2=lambda b2: 0 * b2 + 1),
}
"""Further values for predictions, loss and accuracy: logits that are alike, or far from those of other samples."""


def forward_truths(problem: Problem, dtype: str) -> tuple[tuple[Problem, str, Truth], ...]:
    """Compute what every port must have for these values; float32 can't tell nearly tied logits apart."""
    kinds = [kind for kind in FORWARD_VALUES if dtype == "float64" or kind != "nearly tied"]
    changed = [FORWARD_VALUES[kind](problem) for kind in kinds]
    return tuple((one, kind, Truth(one, dtype)) for one, kind in zip(changed, kinds, strict=True))


def check_forward_values(subject: Subject, truths: tuple[tuple[Problem, str, Truth], ...]) -> Iterator[Agreement]:
    """Compare predictions, loss and accuracy for these values."""
    for problem, kind, truth in truths:
        yield from (replace(row, problem=kind) for row in check_forward(subject, problem, truth=truth))


LABELS: dict[str, Callable[[np.ndarray, int], Any]] = {
    "int64": lambda t, classes: t.copy(),
    "uint8": lambda t, classes: t.astype(np.uint8 if classes <= 256 else np.uint16),
    "int32": lambda t, classes: t.astype(np.int32),
    "bools": lambda t, classes: t.astype(bool if classes == 2 else np.int16),
    "whole floats": lambda t, classes: t.astype(np.float32),
    "list": lambda t, classes: t.tolist(),
    "tuple": lambda t, classes: tuple(t.tolist()),
    "reversed": lambda t, classes: t[::-1].copy()[::-1],
    "big-endian": lambda t, classes: t.astype(">i4"),
    "one-hot floats": lambda t, classes: np.eye(classes, dtype=np.float32)[t],
    "one-hot integers": lambda t, classes: np.eye(classes, dtype=np.uint8)[t],
    "one-hot bools": lambda t, classes: np.eye(classes, dtype=bool)[t],
    "one-hot columns": lambda t, classes: np.asfortranarray(np.eye(classes)[t]),
    "one-hot lists": lambda t, classes: np.eye(classes, dtype=int)[t].tolist(),
}


def _transposed(array: Any) -> Any:
    return array.T.copy().T if isinstance(array, np.ndarray) else array.t().contiguous().t()


def _every_other(array: Any) -> Any:
    return (array.repeat(2, axis=0) if isinstance(array, np.ndarray) else array.repeat_interleave(2, dim=0))[::2]


def _offset(array: Any) -> Any:
    twice = (
        np.concatenate([array, array]) if isinstance(array, np.ndarray) else array.repeat(2, *[1] * (array.ndim - 1))
    )
    return twice[len(array) :]


def _reversed(array: Any) -> Any:
    return array[::-1].copy()[::-1] if isinstance(array, np.ndarray) else array.flip(0).flip(0)


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "rows": lambda array: array,
    "columns": _transposed,
    "every other": _every_other,
    "offset": _offset,
    "reversed": _reversed,
}
"""How an array may lie in memory; of NumPy's arrays and PyTorch's, which have views."""


def has_views(array: Any) -> bool:
    """Whether an array is of a kind that can lie in memory in several ways, and can be written to."""
    return isinstance(array, np.ndarray) or hasattr(array, "repeat_interleave")


def write(array: Any, values: Any) -> None:
    """Overwrite an array that has views, as its owner may."""
    if isinstance(array, np.ndarray):
        array[...] = values
        return
    try:
        array.copy_(values)
    except RuntimeError as error:
        raise RuntimeError(f"an array that the port has made or returned can't be written to: {error}") from error


def place(subject: Subject, problem: Problem, layout: str, before: Arguments | None) -> Arguments:
    """Place a problem on the port: in new arrays, or in those of the problem before, of which few have changed."""
    new = new_arguments(subject, problem)
    if not has_views(new.x):
        return new
    if before is None:
        *params, x = (LAYOUTS[layout](array) for array in (*new.params, new.x))
        return Arguments(Params(*params), x, new.t)
    for old, array in zip((*before.params, before.x), (*new.params, new.x), strict=True):
        write(old, array)
    return before._replace(t=new.t)


def recording(port: Any, results: list[Any]) -> Any:
    """Return a port that appends each array that it returns to `results`."""

    def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            results.extend(arrays_in(result))
            return result

        return call

    names = ("predict", "loss", "accuracy", "gradient", "train_steps")
    functions = {name: recorded(getattr(port, name)) for name in names}
    gradients = {name: recorded(function) for name, function in port.GRADIENTS.items()}
    return SimpleNamespace(from_numpy=port.from_numpy, to_numpy=port.to_numpy, GRADIENTS=gradients, **functions)


def arrays_in(result: Any) -> Iterator[Any]:
    """Yield the arrays of a result, however its tuples are nested."""
    if isinstance(result, tuple):
        for part in result:
            yield from arrays_in(part)
    else:
        yield result


def spoil(results: list[Any]) -> None:
    """Overwrite results, as their owner may."""
    for array in results:
        if isinstance(array, np.ndarray):
            if array.flags.writeable:
                array[...] = np.nan
        elif has_views(array):
            write(array, array.new_full((), float("nan")))
