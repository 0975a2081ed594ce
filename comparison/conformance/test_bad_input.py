"""A bad argument is a ValueError of each function, before anything is done; what its sentence says is the port's own.

A sample: one case of each rule. The functions of `reference.validation` find all of them.
"""

from collections.abc import Callable
from timeit import timeit

import numpy as np
import pytest

from comparison.agreement.comparison import Subject
from comparison.conformance.calls import (
    BATCHES,
    FUNCTIONS,
    Call,
    everything,
    good_call,
    on_backend,
    own_integers,
    prepare,
    refused,
    with_array,
    with_entry,
    with_option,
    with_own,
)
from comparison.conformance.problems import subjects
from reference.defaults import STRATEGIES
from reference.two_layer_net import Params

LABELLED = tuple(function for function in FUNCTIONS if function != "predict")
DIFFERENCES = (*STRATEGIES, "train_steps")
NO_ENTRIES = Params(*(np.zeros(0, int) for _ in Params._fields))

Case = tuple[tuple[str, ...], Callable[[Call], Call]]
CASES: dict[str, Case] = {  # the functions that it concerns, and what makes the call bad
    "a weight is NaN": (FUNCTIONS, with_entry("W1", np.nan)),
    "a hidden bias is NaN": (FUNCTIONS, with_entry("b1", np.nan)),
    "a weight of the second layer is NaN": (FUNCTIONS, with_entry("W2", np.nan)),
    "a bias is infinite": (FUNCTIONS, with_entry("b2", np.inf)),
    "an input is NaN": (FUNCTIONS, with_entry("x", np.nan)),
    "b1 could be broadcast": (FUNCTIONS, with_array("b1", lambda a: a[:1])),
    "b2 could be broadcast": (FUNCTIONS, with_array("b2", lambda a: a[:1])),
    "W2 could be broadcast": (FUNCTIONS, with_array("W2", lambda a: a[:, :1])),
    "b1 is a row": (FUNCTIONS, with_array("b1", lambda a: a[None])),
    "W2 has too few rows": (FUNCTIONS, with_array("W2", lambda a: a[:1])),
    "x has a column more": (FUNCTIONS, with_array("x", lambda a: np.zeros((7, 6)))),
    "x is one sample": (FUNCTIONS, with_array("x", lambda a: a[0])),
    "x is empty": (FUNCTIONS, with_array("x", lambda a: a[:0])),
    "a label is too large": (LABELLED, with_entry("t", 2)),
    "a label is negative": (LABELLED, with_entry("t", -1)),
    "a label is a half": (LABELLED, with_array("t", lambda t: t / 2)),
    "a label is missing": (LABELLED, with_array("t", lambda t: t[:-1])),
    "labels are a column": (LABELLED, with_array("t", lambda t: t[:, None])),
    "rows of probabilities": (LABELLED, with_array("t", lambda t: np.full((7, 2), 0.5))),
    "a one-hot row is all 0": (LABELLED, with_array("t", lambda t: np.eye(2)[t] * (np.arange(7) > 0)[:, None])),
    "a one-hot row has two classes": (LABELLED, with_array("t", lambda t: np.ones((7, 2)))),
    "a one-hot row adds up to 1 and is none": (
        LABELLED,
        with_array("t", lambda t: np.where(np.arange(2) == t[:, None], 2, -1)),
    ),
    "labels are masked": (LABELLED, with_array("t", lambda t: np.ma.masked_array(t, mask=t > 0))),
    "one-hot rows of too many classes": (LABELLED, with_array("t", lambda t: np.eye(3)[t])),
    "h is 0": (DIFFERENCES, with_option(h=0.0)),
    "h is negative": (DIFFERENCES, with_option(h=-1e-4)),
    "h is above 1": (DIFFERENCES, with_option(h=1.1)),
    "h is NaN": (DIFFERENCES, with_option(h=float("nan"))),
    "memory is 0": (DIFFERENCES, with_option(memory=0)),
    "memory is NaN": (DIFFERENCES, with_option(memory=float("nan"))),
    "p + h is p": (("loop", "batched"), with_option(h=1e-17)),
    "an entry is too large": (("loop", "batched"), with_option(entries=NO_ENTRIES._replace(W1=np.array([0, 15])))),
    "an entry is negative": (("loop", "batched"), with_option(entries=NO_ENTRIES._replace(b2=np.array([-1])))),
    "a batch index is too large": (("train_steps",), with_option(batches=BATCHES + 4)),
    "a batch index is negative": (("train_steps",), with_option(batches=BATCHES - 1)),
    "batches are one": (("train_steps",), with_option(batches=BATCHES[0])),
    "batches are floats": (("train_steps",), with_option(batches=BATCHES / 1)),
    "batches are bools": (("train_steps",), with_option(batches=BATCHES > 1)),
    "there are no batches": (("train_steps",), with_option(batches=BATCHES[:0])),
    "the learning rate is NaN": (("train_steps",), with_option(learning_rate=float("nan"))),
    "the learning rate is infinite": (("train_steps",), with_option(learning_rate=float("inf"))),
    "the learning rate is text": (("train_steps",), with_option(learning_rate="1")),
    "h is text": (DIFFERENCES, with_option(h="1e-4")),
    "memory is text": (DIFFERENCES, with_option(memory="1MiB")),
    "no strategy has this name": (("train_steps",), with_option(strategy="fast")),
    "the strategy is None": (("train_steps",), with_option(strategy=None)),
    "training by differences that move no parameter": (("train_steps",), with_option(strategy="batched", h=1e-17)),
}


@pytest.mark.parametrize("case", CASES)
@subjects("float64")
def test_a_bad_argument_is_a_value_error(subject: Subject, case: str) -> None:
    functions, change = CASES[case]
    call = on_backend(subject, change(good_call()))
    for function in functions:
        refused(subject, call, function)


@subjects("float64")
def test_a_label_too_large_is_a_value_error_in_the_backends_own_integers_too(subject: Subject) -> None:
    call = on_backend(subject, good_call())
    own = own_integers(subject, call.t + 1)
    if own is None:
        pytest.skip("its arrays can't be cast")
    for function in LABELLED:
        refused(subject, call._replace(t=own), function)


@subjects("float64")
def test_params_of_three_members_are_a_value_error(subject: Subject) -> None:
    call = on_backend(subject, good_call())
    for function in FUNCTIONS:
        refused(subject, call._replace(params=call.params[:3]), function)  # type: ignore[arg-type]


@pytest.mark.parametrize("at", ["W1", "x"])
@subjects("float64")
def test_what_is_no_array_is_a_value_error(subject: Subject, at: str) -> None:
    call = on_backend(subject, good_call())
    for value in (good_call().x.tolist(), None, "x"):
        for function in FUNCTIONS:
            refused(subject, with_own(call, at, value), function)


@pytest.mark.parametrize("at", ["b1", "x"])
@subjects("float64")
def test_mixed_dtypes_are_a_value_error(subject: Subject, at: str) -> None:
    call, single = (on_backend(subject._replace(dtype=dtype), good_call()) for dtype in ("float64", "float32"))
    for function in FUNCTIONS:
        refused(subject, with_own(call, at, single.x if at == "x" else single.params.b1), function)


@subjects("float64")
def test_mixed_devices_are_a_value_error(subject: Subject) -> None:
    others = [device for device in subject.port.devices() if device != subject.device]
    if not others:
        pytest.skip(f"{subject.name} has no second device here")
    call, other = (on_backend(subject._replace(device=device), good_call()) for device in (subject.device, others[0]))
    for function in FUNCTIONS:
        refused(subject, with_own(call, "x", other.x), function)


@subjects("float32")
def test_a_learning_rate_that_the_dtype_does_not_hold_is_a_value_error(subject: Subject) -> None:
    refused(subject, on_backend(subject, with_option(learning_rate=1e300)(good_call())), "train_steps")


@subjects("float64")
def test_a_refusal_takes_no_work(subject: Subject) -> None:
    """The last index of the last of many mini-batches is bad: a port that begins takes 40 times as long as allowed."""
    train_steps, arguments, options = prepare(subject, on_backend(subject, good_call()), "train_steps")
    options["batches"] = np.zeros((50, 1), int)
    train_steps(*arguments, **options)
    allowed = 1.0 + 10 * timeit(lambda: subject.port.synchronize(train_steps(*arguments, **options)), number=1)
    options["batches"] = np.zeros((20_000, 1), int)
    options["batches"][-1] = 7
    call = on_backend(subject, with_option(**options)(good_call()))
    assert timeit(lambda: refused(subject, call, "train_steps"), number=1) < allowed


@pytest.mark.parametrize(
    "values", [np.ones(2, complex), np.array(["1.5"]), np.array([1.0, None])], ids=lambda a: a.dtype.name
)
@subjects("float64")
def test_what_holds_no_numbers_is_a_value_error(subject: Subject, values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"."):
        subject.port.from_numpy(values, dtype=subject.dtype, device=subject.device)


@subjects()
def test_the_good_call_is_taken(subject: Subject) -> None:
    assert all(np.isfinite(result).all() for result in everything(subject))


@pytest.mark.parametrize("strategy", ["structured", "collocated"])
@subjects("float64")
def test_training_by_differences_that_move_none_may_take_a_smaller_step(subject: Subject, strategy: str) -> None:
    call = on_backend(subject, with_option(h=1e-17, strategy=strategy)(good_call()))
    train_steps, arguments, options = prepare(subject, call, "train_steps")
    assert np.isfinite(subject.port.to_numpy(train_steps(*arguments, **options)[1])).all()
