"""A bad argument is refused by each function of each backend: one sentence that quotes it, before anything is done."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from ports.agreement import Subject
from ports.protocol import STRATEGIES
from problems import subjects
from reference.two_layer_net import Params

BATCHES = np.array([[0, 1], [2, 3]])


class Call(NamedTuple):
    """The arguments of a call, with NumPy arrays."""

    params: Params
    x: np.ndarray
    t: Any
    options: dict[str, Any]


def good_call() -> Call:
    rng = np.random.default_rng(0)
    params = Params(*(rng.uniform(-0.5, 0.5, shape) for shape in ((5, 3), (3,), (3, 2), (2,))))
    return Call(params, rng.random((7, 5)), np.array([0, 1, 1, 0, 1, 0, 1]), {})


def with_array(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Call], Call]:
    """Return what changes a call in W1, b1, W2, b2, x or t."""

    def changed(call: Call) -> Call:
        if name in ("x", "t"):
            return call._replace(**{name: change(getattr(call, name).copy())})
        return call._replace(params=call.params._replace(**{name: change(getattr(call.params, name).copy())}))

    return changed


def with_entry(name: str, value: float) -> Callable[[Call], Call]:
    def put(array: np.ndarray) -> np.ndarray:
        array.flat[-1] = value
        return array

    return with_array(name, put)


def with_option(**options: Any) -> Callable[[Call], Call]:
    return lambda call: call._replace(options={**call.options, **options})


NETS = {  # of each function; what makes the call bad, and what the sentence must say
    "W1 has a NaN": (with_entry("W1", np.nan), "`W1` must be finite, but holds nan"),
    "b1 is infinite": (with_entry("b1", np.inf), "`b1` must be finite, but holds inf"),
    "W2 is infinite": (with_entry("W2", -np.inf), "`W2` must be finite, but holds inf"),
    "b2 has a NaN": (with_entry("b2", np.nan), "`b2` must be finite, but holds nan"),
    "x has a NaN": (with_entry("x", np.nan), "`x` must be finite, but holds nan"),
    "x is infinite": (with_entry("x", np.inf), "`x` must be finite, but holds inf"),
    "b1 is too long": (with_array("b1", lambda a: np.zeros(4)), "`b1` must have shape (3,) to fit W1 (5, 3)"),
    "b1 could be broadcast": (with_array("b1", lambda a: a[:1]), "got (1,)"),
    "W2 has too few rows": (with_array("W2", lambda a: a[:1]), "`W2` must have shape (3, 2)"),
    "b2 could be broadcast": (with_array("b2", lambda a: a[:1]), "`b2` must have shape (2,)"),
    "x has a column more": (with_array("x", lambda a: np.zeros((7, 6))), "`x` must have shape (7, 5)"),
    "W1 is transposed": (with_array("W1", lambda a: a.T), "to fit W1 (3, 5)"),
    "W1 is a vector": (with_array("W1", np.ravel), "`W1` must have 2 axes, none of them empty, got shape (15,)"),
    "b1 is a row": (with_array("b1", np.atleast_2d), "`b1` must have 1 axes, none of them empty, got shape (1, 3)"),
    "x is one sample": (with_array("x", lambda a: a[0]), "`x` must have 2 axes, none of them empty, got shape (5,)"),
    "x is empty": (with_array("x", lambda a: a[:0]), "`x` must have 2 axes, none of them empty, got shape (0, 5)"),
    "there are three members": (lambda call: call._replace(params=call.params[:3]), "`params` must have ... got 3"),
    "x is a stack": (with_array("x", lambda a: a[None]), "got shape (1, 7, 5)"),
}

LABELS = {  # of each function but predict
    "a label is too large": (with_entry("t", 2), "whole class numbers from 0 to 1, got 2 at 6"),
    "a label is negative": (with_entry("t", -1), "whole class numbers from 0 to 1, got -1 at 6"),
    "a label is a half": (with_array("t", lambda t: t / 2), "whole class numbers from 0 to 1, got 0.5 at 1"),
    "a label is NaN": (
        with_array("t", lambda t: t * np.nan),
        "`t` must hold class numbers or one-hot rows, got float64",
    ),
    "a label is missing": (with_array("t", lambda t: t[:-1]), "`t` must have shape (7,) or (7, 2), got (6,)"),
    "labels are a column": (with_array("t", lambda t: t[:, None]), "`t` must have shape (7,) or (7, 2), got (7, 1)"),
    "labels are words": (
        with_array("t", lambda t: t.astype(str)),
        "`t` must hold class numbers or one-hot rows, got <U",
    ),
    "there are no labels": (with_array("t", lambda t: None), "`t` must have shape (7,) or (7, 2), got ()"),
    "rows of zeros": (with_array("t", lambda t: np.zeros((7, 2))), "`t` must hold one-hot rows"),
    "rows of ones": (with_array("t", lambda t: np.ones((7, 2), int)), "(a single 1 among 0s), got [1, 1] at 0"),
    "rows of probabilities": (with_array("t", lambda t: np.full((7, 2), 0.5)), "got [0.5, 0.5] at 0"),
    "a row that sums to one": (with_array("t", lambda t: 2 * np.eye(2)[t] - np.eye(2)[1 - t]), "got [2.0, -1.0] at 0"),
    "one-hot rows of too many classes": (with_array("t", lambda t: np.eye(3)[t]), "got (7, 3)"),
}

STEPS = {  # of each difference
    f"h is {h!r}": (with_option(h=h), f"`h` must be ... got {h!r}")
    for h in (0, 0.0, -1e-5, 1.0000001, float("inf"), float("nan"), True, "1e-4", None, 1e-4j)
}
MEMORY = {
    f"memory is {memory!r}": (with_option(memory=memory), f"`memory` must be ... got {memory!r}")
    for memory in (0, -1, float("nan"), float("inf"), "1 MB", None)
}
SMALL_STEPS = {  # of the differences that move a parameter
    "p + h is p": (with_option(h=1e-17), "so that p + h is not p, got 1e-17"),
    "the largest p + h is p": (
        lambda call: with_option(h=1e-4)(with_entry("W2", 1e13)(call)),
        "half the spacing of float64 at the largest parameter (1e+13 in `W2`)",
    ),
}


def with_entries(**entries: Any) -> Callable[[Call], Call]:
    none = np.zeros(0, int)
    return with_option(entries=Params(none, none, none, none)._replace(**entries))


ENTRIES = {
    "an entry is too large": (with_entries(W1=np.array([0, 15])), "from 0 to 14 for `W1`, got [0, 15]"),
    "an entry is negative": (with_entries(b2=np.array([-1])), "from 0 to 1 for `b2`, got [-1]"),
    "entries of three members": (with_option(entries=(np.zeros(0, int),) * 3), "`entries` must have ... got 3"),
    "an entry is a half": (with_entries(W2=np.array([0.5])), "for `W2`, got [0.5]"),
}

TRAINING = {
    "a batch index is too large": (with_option(batches=BATCHES + 4), "sample indices from 0 to 6, got 4 to 7"),
    "a batch index is negative": (with_option(batches=BATCHES - 1), "sample indices from 0 to 6, got -1 to 2"),
    "batches are floats": (with_option(batches=BATCHES / 1), "whole numbers, got float64 (2, 2)"),
    "batches are one row": (with_option(batches=BATCHES[0]), "(K, B) array of whole numbers, got int64 (2,)"),
    "there are no batches": (with_option(batches=BATCHES[:0]), "got int64 (0, 2)"),
    "batches are empty": (with_option(batches=BATCHES[:, :0]), "got int64 (2, 0)"),
    "batches are a mask": (with_option(batches=BATCHES > 0), "got bool (2, 2)"),
    **{
        f"the learning rate is {rate!r}": (with_option(learning_rate=rate), f"`learning_rate` must be ... got {rate!r}")
        for rate in (float("nan"), float("inf"), True, "0.1", None)
    },
    "the gradient is a name": (with_option(gradient="loop"), "or one of its `GRADIENTS`, got 'loop'"),
    "the gradient is another's": (with_option(gradient=max), f"or one of its `GRADIENTS`, got {max!r}"),
}

Case = tuple[str, Callable[[Call], Call], str]


def cases() -> list[Any]:
    """Return each bad call of each function that it concerns: (function, change, sentence)."""
    moving, differences = ("loop", "batched"), STRATEGIES
    tables = [
        (NETS, ("predict", "loss", "accuracy", "gradient", *differences, "train_steps")),
        (LABELS, ("loss", "accuracy", "gradient", *differences, "train_steps")),
        (STEPS | MEMORY, (*differences, "train_steps")),
        (SMALL_STEPS | ENTRIES, moving),
        (TRAINING, ("train_steps",)),
    ]
    return [
        pytest.param(function, *bad, id=f"{function}: {name}")
        for table, functions in tables
        for name, bad in table.items()
        for function in functions
    ]


def on_backend(subject: Subject, call: Call, function: str) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    """Return the function and its arguments, with the backend's own arrays."""
    port, dtype = subject.port, subject.dtype
    *params, x = (port.from_numpy(a, dtype=dtype, device="cpu") for a in (*call.params, call.x))
    arguments = [Params(*params) if len(params) == 4 else tuple(params), x] + (
        [] if function == "predict" else [call.t]
    )
    if function in STRATEGIES:
        return port.GRADIENTS[function], arguments, call.options
    if function == "train_steps":
        options = {"batches": BATCHES, "gradient": port.GRADIENTS["collocated"], "learning_rate": 0.1} | call.options
        return port.train_steps, arguments, options
    return getattr(port, function), arguments, {}


def bits(subject: Subject, arguments: list[Any], options: dict[str, Any]) -> list[bytes]:
    params, x, *t = arguments
    arrays = [*map(subject.port.to_numpy, (*params, x)), *map(np.asarray, (*t, options.get("batches", 0)))]
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize(("function", "change", "sentence"), cases())
@subjects("float64")
def test_a_bad_call_is_one_sentence(
    subject: Subject, function: str, change: Callable[[Call], Call], sentence: str
) -> None:
    call, arguments, options = on_backend(subject, change(good_call()), function)
    before = bits(subject, arguments, options)
    with pytest.raises(ValueError, match=r"^`.*\.$") as caught:
        call(*arguments, **options)
    assert all(part in str(caught.value) for part in sentence.split(" ... "))
    assert "\n" not in str(caught.value)
    assert bits(subject, arguments, options) == before


@pytest.mark.parametrize("function", ["predict", "loss", "accuracy", "gradient", *STRATEGIES, "train_steps"])
@subjects()
def test_the_good_call_is_taken(subject: Subject, function: str) -> None:
    call, arguments, options = on_backend(subject, good_call(), function)
    call(*arguments, **options)


OF_ANOTHER_KIND = {  # made of the backend's own array and a NumPy array of the same numbers
    "a list": lambda own, array: array.tolist(),
    "None": lambda own, array: None,
    "a number": lambda own, array: 1.0,
}


@pytest.mark.parametrize("kind", OF_ANOTHER_KIND)
@pytest.mark.parametrize("at", [*Params._fields, "x"])
@pytest.mark.parametrize("function", ["predict", "loss", "collocated", "train_steps"])
@subjects("float64")
def test_what_is_no_array_is_refused(subject: Subject, function: str, at: str, kind: str) -> None:
    good = good_call()
    call, (params, x, *t), options = on_backend(subject, good, function)
    wrong = OF_ANOTHER_KIND[kind](None, good.x)
    if at == "x":
        x = wrong
    else:
        params = params._replace(**{at: wrong})
    with pytest.raises(
        ValueError, match=rf"^`{at}` must be a .* \(the port's from_numpy makes one\), got builtins\.\w+\.$"
    ):
        call(params, x, *t, **options)


@pytest.mark.parametrize("function", ["predict", "loss", "collocated", "train_steps"])
@subjects("float64")
def test_another_backends_array_is_refused(subject: Subject, function: str) -> None:
    good = good_call()
    call, (params, _, *t), options = on_backend(subject, good, function)
    stranger = memoryview(good.x) if subject.name == "numpy" else good.x
    with pytest.raises(ValueError, match=r"^`x` must be a .*, got "):
        call(params, stranger, *t, **options)


@pytest.mark.parametrize("function", ["predict", "loss", "accuracy", "gradient", *STRATEGIES, "train_steps"])
@pytest.mark.parametrize("at", ["b1", "W2", "b2", "x"])
@subjects("float64")
def test_mixed_dtypes_are_refused(subject: Subject, at: str, function: str) -> None:
    good = good_call()
    call, (params, x, *t), options = on_backend(subject, good, function)
    source = good.x if at == "x" else getattr(good.params, at)
    single = subject.port.from_numpy(source, dtype="float32", device="cpu")
    if at == "x":
        x = single
    else:
        params = params._replace(**{at: single})
    message = rf"^`{at}` must have the dtype of W1 \(float64\), got float32: mixed dtypes are refused.*\.$"
    with pytest.raises(ValueError, match=message):
        call(params, x, *t, **options)
