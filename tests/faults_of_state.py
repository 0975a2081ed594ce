"""Faults that show only in what a port keeps from earlier calls or other threads: wrappers of a right port."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from faults_of_arguments import Call, Fault, Function, labels_of, off, replaced, wrong_if
from reference.defaults import CLOSED_FORM


def cached(key: Callable[[Call], Any], *names: str) -> Fault:
    """Return the change that makes a port keep its results by a key that is not enough."""

    def fault(port: Any) -> Any:
        cache: dict[Any, Any] = {}

        def make(name: str, right: Function) -> Function:
            def run(call: Call) -> Any:
                whole = name, str(call.x.dtype), call.sizes, repr(call.options.keys()), key(call)
                if whole not in cache:
                    cache[whole] = call, right(call)
                return cache[whole][1]

            return run

        return replaced(port, names, make)

    return fault


def digest(array: Any) -> bytes:
    return np.asarray(array).tobytes()


def of(c: Call, *names: str) -> tuple[Any, ...]:
    return (*(c.value(name).tobytes() for name in names), repr(c.h), digest(labels_of(c)) if c.t is not None else 0)


def counted(threshold: int, *names: str) -> Fault:
    """Return the change that makes a port wrong after a number of calls."""

    def fault(port: Any) -> Any:
        count = [0]

        def happens(_: Call) -> bool:
            count[0] += 1
            return count[0] >= threshold

        return wrong_if(happens, *names)(port)

    return fault


def shared_buffers(port: Any) -> Any:
    """Let results of one shape share a buffer, where arrays can be written to."""
    buffers: dict[Any, Any] = {}

    def make(name: str, right: Function) -> Function:
        def run(call: Call) -> Any:
            result = right(call)
            array = call.port.to_numpy(result)
            buffer = buffers.setdefault((array.shape, str(array.dtype)), result)
            if isinstance(buffer, np.ndarray):
                buffer[...] = array
            else:
                buffer.copy_(result)
            return buffer

        return run

    return replaced(port, ("predict",), make)


def constant_of_the_first_dtype(port: Any) -> Any:
    """Make 1/3 in the dtype of the first call, and count on it."""
    first: list[Any] = []

    def make(_: str, right: Function) -> Function:
        def run(call: Call) -> Any:
            if not first:
                first.append(np.asarray(1 / 3, str(call.value("x").dtype)))
            error = float(first[0]) * 3 - 1
            return off(call, right(call), error) if str(first[0].dtype) != str(call.value("x").dtype) else right(call)

        return run

    return replaced(port, ("loss", "collocated"), make)



def first_h(port: Any) -> Any:
    """Keep the h of the first call for nets of one size, as a program does that was traced with it."""
    kept: dict[Any, Any] = {}

    def make(name: str, right: Function) -> Function:
        def run(call: Call) -> Any:
            h = kept.setdefault((name, call.sizes, str(call.value("x").dtype), len(call.options)), call.h)
            return right(call._replace(options=call.options | {"h": h}))

        return run

    return replaced(port, ("structured", "collocated"), make)


def first_number(option: str, *strategies: str) -> Fault:
    """Return the change by which a training keeps an option of the first call for nets of one size."""

    def fault(port: Any) -> Any:
        kept: dict[Any, Any] = {}

        def make(_: str, right: Function) -> Function:
            def run(call: Call) -> Any:
                if call.options["strategy"] not in strategies or option not in call.options:
                    return right(call)
                key = call.sizes, np.shape(call.options["batches"]), call.options["strategy"], str(call.x.dtype)
                first = kept.setdefault(key, call.options[option])
                return right(call._replace(options=call.options | {option: first}))

            return run

        return replaced(port, ("train_steps",), make)

    return fault


def first_inputs(port: Any) -> Any:
    """Train on a copy of x that is kept by its identity."""
    kept: dict[int, Any] = {}

    def make(_: str, right: Function) -> Function:
        def run(call: Call) -> Any:
            if id(call.x) not in kept or kept[id(call.x)][0] is not call.x:
                copy = call.port.from_numpy(call.value("x"), dtype=str(call.value("x").dtype), device="auto")
                kept[id(call.x)] = call.x, copy
            return right(call._replace(x=kept[id(call.x)][1]))

        return run

    return replaced(port, ("train_steps",), make)


def arguments_where_nothing_changes(port: Any) -> Any:
    """Return the caller's own net at a rate of 0."""

    def make(_: str, right: Function) -> Function:
        def run(call: Call) -> Any:
            trained, losses = right(call)
            return (trained if call.options["learning_rate"] else call.params), losses

        return run

    return replaced(port, ("train_steps",), make)


def everything_kept(port: Any) -> Any:
    """Keep each prediction for ever."""
    kept: list[Any] = []

    def make(_: str, right: Function) -> Function:
        def run(call: Call) -> Any:
            kept.append(right(call))
            return kept[-1]

        return run

    return replaced(port, ("predict",), make)


def of_another_thread(argument: str, function: str) -> Fault:
    """Return the change that keeps an argument of a call where that of a call in another thread may take its place."""

    def fault(port: Any) -> Any:
        kept: list[Any] = [None]

        def make(_: str, right: Function) -> Function:
            def run(call: Call) -> Any:
                kept[0] = getattr(call, argument)
                time.sleep(1e-3)
                return right(call._replace(**{argument: kept[0]}))

            return run

        return replaced(port, (function,), make)

    return fault


STATE: dict[str, Fault] = {
    "the first h of a size": first_h,
    "results by the shape and W1": cached(lambda c: of(c, "W1", "x"), "collocated"),
    "predictions by x": cached(lambda c: of(c, "x", "W1", "b1", "W2"), "predict"),
    "results by the weights": cached(lambda c: of(c, "W1", "b1", "W2", "b2"), "structured"),
    "results by the identity of W1": cached(lambda c: (id(c.params.W1), *of(c, "b1", "W2", "b2", "x")), "gradient"),
    "results by the identity of x": cached(lambda c: (id(c.x), *of(c, "W1", "b1", "W2", "b2")), "loss", "collocated"),
    "the labels of the first call": cached(lambda c: of(c._replace(t=None), "W1", "b1", "W2", "b2", "x"), "loss"),
    "the same result again": cached(lambda c: of(c, "W1", "b1", "W2", "b2", "x"), "gradient", "collocated"),
    "a shared buffer": shared_buffers,
    "a constant of the first dtype": constant_of_the_first_dtype,
    "the labels of another thread": of_another_thread("t", "loss"),
    "the inputs of another thread": of_another_thread("x", "gradient"),
    "the first inputs of a training": first_inputs,
    "the first rate of a closed form": first_number("learning_rate", CLOSED_FORM),
    "the first h of batched": first_number("h", "batched"),
    "its arguments at a rate of 0": arguments_where_nothing_changes,
    "all predictions are kept": everything_kept,
    "the 100th call": counted(100, "structured"),
    "the 60th prediction": counted(60, "predict"),
}
