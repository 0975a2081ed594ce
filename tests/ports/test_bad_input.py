"""A bad argument is refused by each function of each backend: one sentence that quotes it, before anything is done."""

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from comparison.agreement.comparison import Subject
from comparison.conformance.calls import (
    BATCHES,
    FUNCTIONS,
    Call,
    good_call,
    on_backend,
    prepare,
    with_array,
    with_entry,
    with_option,
    with_own,
)
from comparison.conformance.problems import subjects
from reference.defaults import STRATEGIES
from reference.two_layer_net import Params
from refusals import refusal

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
    "x is a stack": (with_array("x", lambda a: a[None]), "got shape (1, 7, 5)"),
    "x has no columns": (
        with_array("x", lambda a: a[:, :0]),
        "`x` must have 2 axes, none of them empty, got shape (7, 0)",
    ),
    "there are no hidden units": (with_array("b1", lambda a: a[:0]), "none of them empty, got shape (0,)"),
    "b2 is a number": (with_array("b2", lambda a: a[0]), "`b2` must have 1 axes, none of them empty, got shape ()"),
}

OWN = {  # of each function; made of the backend's own arrays
    "params are a tuple": (
        lambda call: call._replace(params=tuple(call.params)),
        "`params` must be a Params ... a tuple.",
    ),
    "params are a list": (
        lambda call: call._replace(params=list(call.params)),
        "`params` must be a Params ... a list.",
    ),
    "params are a dict": (lambda call: call._replace(params=call.params._asdict()), "W1, b1, W2, b2, got a dict."),
    "there are three members": (
        lambda call: call._replace(params=call.params[:3]),
        "`params` must be a Params of W1, b1",
    ),
    "there are no params": (lambda call: call._replace(params=None), "`params` must be a Params ... got a NoneType."),
    "params are an array": (lambda call: call._replace(params=call.x), "`params` must be a Params of W1, b1, W2, b2"),
    "x is bool": (lambda call: call._replace(x=call.x != call.x), "`x` must be float32 or float64, got bool."),
    "W2 is bool": (
        lambda call: call._replace(params=call.params._replace(W2=call.params.W2 != call.params.W2)),
        "`W2` must be float32 or float64, got bool.",
    ),
    "x is one number": (lambda call: call._replace(x=call.x[0, 0]), "`x` must "),
    "x is params": (lambda call: call._replace(x=call.params), "`x` must be a ... from_numpy makes one), got "),
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
    "one-hot rows of too few samples": (with_array("t", lambda t: np.eye(2)[t[:-1]]), "got (6, 2)"),
    "one-hot rows in a stack": (with_array("t", lambda t: np.eye(2)[t][None]), "got (1, 7, 2)"),
    "one-hot rows of NaN": (with_array("t", lambda t: np.eye(2)[t] * np.nan), "`t` must hold class numbers or one-hot"),
    "a label is infinite": (
        with_array("t", lambda t: np.where(t, np.inf, 0.0)),
        "got float64 with a value that is neither",
    ),
    "a label is past all integers": (with_array("t", lambda t: [10**30, *t[1:]]), "or one-hot rows, got object"),
    "a label is None": (with_array("t", lambda t: [None, *t[1:]]), "or one-hot rows, got object"),
    "labels are objects": (with_array("t", lambda t: t.astype(object)), "or one-hot rows, got object"),
    "labels are complex": (with_array("t", lambda t: t.astype(complex)), "or one-hot rows, got complex128"),
    "labels are days": (with_array("t", lambda t: t.astype("M8[D]")), "or one-hot rows, got datetime64[D]"),
    "labels are masked": (with_array("t", lambda t: np.ma.masked_less(t, 1)), "`t` must have no mask, got"),
    "labels are ragged": (
        with_array("t", lambda t: [[0], [1, 0]] * 3 + [[1]]),
        "`t` must be an array, got [[0], [1, 0]",
    ),
    "labels are a set": (with_array("t", lambda t: set(t.tolist())), "`t` must have shape (7,) or (7, 2), got ()"),
    "labels are one number": (with_array("t", lambda t: 1), "`t` must have shape (7,) or (7, 2), got ()"),
    "labels are a large word": (with_array("t", lambda t: "7" * 10_000), "`t` must have shape (7,) or (7, 2), got ()"),
}

BAD_H = {  # of each difference
    f"h is {h!r}": (with_option(h=h), f"`h` must be ... got {h!r}")
    for h in (0, 0.0, -1e-5, 1.0000001, 1e-21, float("inf"), float("nan"), True, "1e-4", None, 1e-4j, [1e-4])
}
BAD_H["h is an array"] = (
    with_option(h=np.full((3, 3), 1e-4)),
    "`h` must be from 1e-20 to 1, got array([[0.0001, 0.0001",
)
BAD_H["h is a NumPy NaN"] = (with_option(h=np.float32("nan")), "`h` must be from 1e-20 to 1, got np.float32(nan)")
MEMORY = {
    f"memory is {memory!r}": (with_option(memory=memory), f"`memory` must be ... got {memory!r}")
    for memory in (0, -1, float("nan"), float("inf"), "1 MB", None, True, [1], 1j)
}
OWN_CHANGES = [change for change, _ in OWN.values()]
SMALL_H = {  # of the differences that move a parameter
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
    "entries of three members": (
        with_option(entries=(np.zeros(0, int),) * 3),
        "`entries` must hold an array for each of",
    ),
    "entries are a number": (with_option(entries=7), "`entries` must hold an array for each of W1, b1, W2, b2, got 7."),
    "entries are one array": (with_option(entries=np.arange(4)), "`entries` must hold ... got array([0, 1, 2, 3])."),
    "entries are a mask": (with_entries(b1=np.array([True, False, True])), "for `b1`, got [True, False, True]"),
    "entries are ragged": (with_entries(b1=[[0], [1, 2]]), "`entries` must be an array, got [[0], [1, 2]]"),
    "many entries are wrong": (with_entries(W1=np.arange(10_000)), "from 0 to 14 for `W1`, got [0, 1, 2"),
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
    "batches are ragged": (with_option(batches=[[0, 1], [2]]), "`batches` must be an array, got [[0, 1], [2]]."),
    "batches are masked": (with_option(batches=np.ma.masked_equal(BATCHES, 1)), "`batches` must have no mask"),
    "batches are objects": (with_option(batches=BATCHES.astype(object)), "got object (2, 2)"),
    "batches are words": (with_option(batches=[["0", "1"]]), "got <U1 (1, 2)"),
    "batches are None": (with_option(batches=None), "got object ()"),
    "batches are an empty list": (with_option(batches=[]), "got float64 (0,)"),
    "batches are a stack": (with_option(batches=BATCHES[None]), "got int64 (1, 2, 2)"),
    "a batch index is past int64": (
        with_option(batches=np.array([[2**63 + 1]], np.uint64)),
        "got 9223372036854775809 to",
    ),
    **{
        f"the learning rate is {rate!r}": (with_option(learning_rate=rate), f"`learning_rate` must be ... got {rate!r}")
        for rate in (float("nan"), float("inf"), True, "0.1", None, 0.1j, [0.1])
    },
    **{
        f"the strategy is {strategy!r}": (
            with_option(strategy=strategy),
            f"{', '.join(STRATEGIES)}, closed form, got {strategy!r}.",
        )
        for strategy in ("fast", "Loop", "", "gradient", "closed_form", None, 0, True, ["loop"], {}, max)
    },
    "the strategy is a function": (with_option(strategy=lambda *net, **options: net), "closed form, got <function"),
    "the strategy is an array": (with_option(strategy=np.zeros((2, 2))), "got array([[0., 0.], [0., 0.]])."),
    "the strategy is a large word": (with_option(strategy="7" * 10_000), "closed form, got '7777"),
}

Case = tuple[str, Callable[[Call], Call], str]


def cases() -> list[Any]:
    """Return each bad call of each function that it concerns: (function, change, sentence)."""
    moving, differences = ("loop", "batched"), STRATEGIES
    tables = [
        (NETS, FUNCTIONS),
        (OWN, FUNCTIONS),
        (LABELS, ("loss", "accuracy", "gradient", *differences, "train_steps")),
        (BAD_H | MEMORY, (*differences, "train_steps")),
        (SMALL_H | ENTRIES, moving),
        (TRAINING, ("train_steps",)),
    ]
    return [
        pytest.param(function, *bad, id=f"{function}: {name}")
        for table, functions in tables
        for name, bad in table.items()
        for function in functions
    ]


@pytest.mark.parametrize(("function", "change", "sentence"), cases())
@subjects("float64")
def test_a_bad_call_is_one_sentence(
    subject: Subject, function: str, change: Callable[[Call], Call], sentence: str
) -> None:
    own = change in OWN_CHANGES
    call = change(on_backend(subject, good_call())) if own else on_backend(subject, change(good_call()))
    message = refusal(subject, call, function)
    assert all(part in message for part in sentence.split(" ... ")), message


@pytest.mark.parametrize("strategy", ["loop", "batched"])
@pytest.mark.parametrize("bad", SMALL_H)
@subjects("float64")
def test_training_by_differences_that_move_no_parameter_is_refused(subject: Subject, bad: str, strategy: str) -> None:
    change, sentence = SMALL_H[bad]
    call = with_option(strategy=strategy)(on_backend(subject, change(good_call())))
    assert sentence in refusal(subject, call, "train_steps")


@subjects("float32")
def test_a_learning_rate_that_the_dtype_does_not_hold_is_refused(subject: Subject) -> None:
    call = on_backend(subject, with_option(learning_rate=1e300)(good_call()))
    assert "`learning_rate` must be a number of float32, got 1e+300" in refusal(subject, call, "train_steps")


@pytest.mark.parametrize("strategy", ["structured", "collocated"])
@subjects("float64")
def test_training_by_differences_that_move_none_may_take_a_smaller_step(subject: Subject, strategy: str) -> None:
    call = on_backend(subject, with_option(h=1e-17, strategy=strategy)(good_call()))
    train_steps, arguments, options = prepare(subject, call, "train_steps")
    assert np.isfinite(subject.port.to_numpy(train_steps(*arguments, **options)[1])).all()


@pytest.mark.parametrize("function", FUNCTIONS)
@subjects()
def test_the_good_call_is_taken(subject: Subject, function: str) -> None:
    call, arguments, options = prepare(subject, on_backend(subject, good_call()), function)
    call(*arguments, **options)


OF_ANOTHER_KIND = {  # made of a NumPy array
    "a list": lambda array: array.tolist(),
    "None": lambda array: None,
    "a number": lambda array: 1.0,
    "a view of memory": memoryview,
    "a word": lambda array: "x",
}
SOME = ("predict", "loss", "collocated", "train_steps")


@pytest.mark.parametrize("kind", OF_ANOTHER_KIND)
@pytest.mark.parametrize("at", [*Params._fields, "x"])
@pytest.mark.parametrize("function", SOME)
@subjects("float64")
def test_what_is_no_array_is_refused(subject: Subject, function: str, at: str, kind: str) -> None:
    good = good_call()
    call = with_own(on_backend(subject, good), at, OF_ANOTHER_KIND[kind](good.x))
    message = refusal(subject, call, function)
    assert re.fullmatch(rf"`{at}` must be a .* \(the port's from_numpy makes one\), got builtins\.\w+\.", message)


@subjects("float64")
def test_another_backends_arrays_are_refused(subject: Subject) -> None:
    good, call = good_call(), on_backend(subject, good_call())
    if isinstance(call.x, np.ndarray):
        pytest.skip("its own arrays are NumPy's")
    for at, function in product(("W1", "x"), FUNCTIONS):
        message = refusal(subject, with_own(call, at, good.x if at == "x" else good.params.W1), function)
        assert re.fullmatch(rf"`{at}` must be a .* \(the port's from_numpy makes one\), got numpy\.ndarray\.", message)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("at", ["b1", "W2", "b2", "x"])
@subjects("float64")
def test_mixed_dtypes_are_refused(subject: Subject, at: str, function: str) -> None:
    call = on_backend(subject, good_call())
    single = on_backend(subject._replace(dtype="float32"), good_call())
    call = with_own(call, at, single.x if at == "x" else getattr(single.params, at))
    start = f"`{at}` must have the dtype of W1 (float64), got float32: mixed dtypes are refused"
    assert refusal(subject, call, function).startswith(start)


@subjects("float64")
def test_mixed_devices_are_refused(subject: Subject) -> None:
    others = [device for device in subject.port.devices() if device != subject.device]
    if not others:
        pytest.skip(f"{subject.name} has no second device here")
    call, other = (on_backend(subject._replace(device=device), good_call()) for device in (subject.device, others[0]))
    for at, function in product(("b1", "W2", "b2", "x"), FUNCTIONS):
        stranger = with_own(call, at, other.x if at == "x" else getattr(other.params, at))
        assert refusal(subject, stranger, function).startswith(f"`{at}` must be on the device of W1 (")


NO_NUMBERS = {
    "complex numbers": (np.ones(2, complex), "must hold real numbers, got complex128."),
    "objects": (np.array([1.0, None]), "must hold real numbers, got object."),
    "words": (np.array(["1.5"]), "must hold real numbers, got <U3."),
    "days": (np.zeros(2, "M8[D]"), "must hold real numbers, got datetime64[D]."),
    "records": (np.zeros(2, "f8,f8"), "must hold real numbers, got [('f0', '<f8'), ('f1', '<f8')]."),
    "nothing": (None, "must hold real numbers, got object."),
    "a mask": (np.ma.masked_invalid([1.0, np.nan]), "must have no mask, got a numpy.ma.MaskedArray."),
    "ragged rows": ([[1.0], [1.0, 2.0]], "must be an array, got [[1.0], [1.0, 2.0]]."),
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
@subjects()
def test_what_holds_no_numbers_is_refused(subject: Subject, kind: str) -> None:
    values, sentence = NO_NUMBERS[kind]
    with pytest.raises(ValueError, match=rf"^`array` {re.escape(sentence)}$"):
        subject.port.from_numpy(values, dtype=subject.dtype, device=subject.device)
