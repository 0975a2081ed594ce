"""Faults that show only in a kind of size, value or argument: wrappers of a right port.

Each wrapper works on any backend: it looks at shapes, and at numbers by the port's `to_numpy`.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from reference.defaults import STRATEGIES, H
from reference.two_layer_net import Params
from wrong_ports import altered

FORWARD = ("predict", "loss", "accuracy")
GRADIENTS = ("gradient", *STRATEGIES)
ALL = (*FORWARD, *GRADIENTS, "train_steps")


class Call(NamedTuple):
    """A call of a port's function, with the port's arrays."""

    port: Any
    function: str
    params: Params
    x: Any
    t: Any
    options: dict[str, Any]

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return *self.x.shape, *self.params.W2.shape

    def value(self, name: str) -> np.ndarray:
        return self.port.to_numpy(self.x if name == "x" else getattr(self.params, name))

    @property
    def h(self) -> Any:
        return self.options.get("h", H)


Function = Callable[[Call], Any]
Fault = Callable[[Any], Any]


def replaced(port: Any, names: Iterable[str], make: Callable[[str, Function], Function]) -> Any:
    """Replace functions of a port: `make` gets the name of each, and the right one, which takes a `Call`."""

    def wrapped(name: str, right: Any) -> Any:
        def run(call: Call) -> Any:
            labels = () if name == "predict" else (call.t,)
            options = dict(call.options)
            batches = (options.pop("batches"),) if name == "train_steps" else ()
            return right(call.params, call.x, *labels, *batches, **options)

        function = make(name, run)

        def call(params: Params, x: Any, t: Any = None, batches: Any = None, **options: Any) -> Any:
            given = options if batches is None else {"batches": batches, **options}
            return function(Call(port, name, params, x, t, given))

        return call

    names = tuple(names)
    changes = {name: wrapped(name, getattr(port, name)) for name in names if name not in STRATEGIES}
    gradients = {s: wrapped(s, f) if s in names else f for s, f in port.GRADIENTS.items()}
    return altered(port, **changes, GRADIENTS=gradients)


def off(call: Call, result: Any, by: float = 1e-3) -> Any:
    """Make the first array of a result larger."""
    if isinstance(result, tuple):
        changed = (off(call, result[0], by), *result[1:])
        return type(result)(*changed) if hasattr(result, "_fields") else changed
    array = call.port.to_numpy(result)
    return call.port.from_numpy(array * (1 + by) + by / 1e3, dtype=str(array.dtype), device=call.port.devices()[0])


def wrong_if(happens: Callable[[Call], Any], *names: str, change: Callable[[Call, Any], Any] = off) -> Fault:
    """Return the change that makes these functions of a port wrong where a condition holds."""

    def make(_: str, right: Function) -> Function:
        return lambda call: change(call, right(call)) if happens(call) else right(call)

    return lambda port: replaced(port, names or (*FORWARD[:2], *GRADIENTS), make)


def changed_if(happens: Callable[[Call], Any], change: Callable[[Call], Call], *names: str) -> Fault:
    """Return the change that makes a port compute something else where a condition holds."""

    def make(_: str, right: Function) -> Function:
        return lambda call: right(change(call)) if happens(call) else right(call)

    return lambda port: replaced(port, names or GRADIENTS, make)


def is_prime(n: int) -> bool:
    return n > 1 and all(n % k for k in range(2, n))


def transposed(name: str) -> Callable[[Call, Any], Any]:
    """Return the function that transposes a member of a gradient, which must be square."""

    def change(call: Call, result: Params) -> Params:
        array = call.port.to_numpy(getattr(result, name)).T.copy()
        own = call.port.from_numpy(array, dtype=str(array.dtype), device=call.port.devices()[0])
        return result._replace(**{name: own})

    return change


def entries_in_16_bits(c: Call) -> Call:
    entries = Params(*(np.asarray(at).astype(np.uint16).astype(int) for at in c.options["entries"]))
    return c._replace(options=c.options | {"entries": entries})


SIZES: dict[str, Fault] = {
    "W1 transposed where I = H": wrong_if(
        lambda c: c.sizes[1] == c.sizes[2] and "entries" not in c.options, *GRADIENTS, change=transposed("W1")
    ),
    "W2 transposed where H = O": wrong_if(
        lambda c: c.sizes[2] == c.sizes[3] and "entries" not in c.options, *GRADIENTS, change=transposed("W2")
    ),
    "predictions where B = I": wrong_if(lambda c: c.sizes[0] == c.sizes[1], "predict"),
    "labels taken for one-hot where B = O": wrong_if(lambda c: c.sizes[0] == c.sizes[3] > 1, "loss", "structured"),
    "collocated beyond 64 units": wrong_if(lambda c: c.sizes[2] > 64, "collocated"),
    "batched beyond 256 units": wrong_if(lambda c: c.sizes[2] > 256, "batched"),
    "loss of an odd number of classes": wrong_if(lambda c: c.sizes[3] % 2 and c.sizes[3] > 1, "loss"),
    "structured of an odd number of classes": wrong_if(lambda c: c.sizes[3] % 2 and c.sizes[3] > 1, "structured"),
    "loop beyond 128 samples": wrong_if(lambda c: c.sizes[0] > 128, "loop"),
    "predictions beyond 1,024 samples": wrong_if(lambda c: c.sizes[0] > 1024, "predict"),
    "classes beyond 256": wrong_if(lambda c: c.sizes[3] > 256, "gradient"),
    "classes beyond 1,024": wrong_if(lambda c: c.sizes[3] > 1024, "collocated"),
    "inputs beyond 128": wrong_if(lambda c: c.sizes[1] > 128, "batched"),
    "inputs beyond 1,024": wrong_if(lambda c: c.sizes[1] > 1024, "structured"),
    "one sample": wrong_if(lambda c: c.sizes[0] == 1, "collocated"),
    "two classes": wrong_if(lambda c: c.sizes[3] == 2, "collocated"),
    "one unit": wrong_if(lambda c: c.sizes[2] == 1, "predict"),
    "one input": wrong_if(lambda c: c.sizes[1] == 1, "batched"),
    "a prime number of units": wrong_if(lambda c: is_prime(c.sizes[2]), "gradient"),
    "predictions of a data set": wrong_if(lambda c: c.sizes[0] > 2**15, "predict"),
    "the loss of a data set": wrong_if(lambda c: c.sizes[0] > 5000, "loss"),
    "inputs beyond 16 bits": wrong_if(lambda c: c.sizes[0] * c.sizes[1] > 2**16, "structured"),
    "entries beyond 16 bits": changed_if(
        lambda c: c.options.get("entries") is not None, entries_in_16_bits, "loop", "batched"
    ),
    "samples beyond 4,096": wrong_if(lambda c: c.sizes[0] > 4096, "gradient", "structured"),
    "two equal sizes": wrong_if(lambda c: len(set(c.sizes)) < 4, "accuracy"),
}


def all_(c: Call, name: str, test: Callable[[np.ndarray], Any]) -> bool:
    return bool(np.all(test(c.value(name))))


def logits(c: Call) -> np.ndarray:
    W1, b1, W2, b2 = (c.value(name).astype(float) for name in Params._fields)
    return 1 / (1 + np.exp(-np.clip(c.value("x") @ W1 + b1, -700, 700))) @ W2 + b2


def labels_of(c: Call) -> np.ndarray:
    t = np.asarray(c.t)
    return t.argmax(axis=1) if t.ndim == 2 else t


def last_of_ties(call: Call, result: Any) -> Any:
    y = logits(call)
    predicted = y.shape[1] - 1 - y[:, ::-1].argmax(axis=1)
    share = np.asarray((predicted == labels_of(call)).mean(), str(call.port.to_numpy(result).dtype))
    return call.port.from_numpy(share, dtype=str(share.dtype), device=call.port.devices()[0])


def of_float32_logits(call: Call, result: Any) -> Any:
    predicted = logits(call).astype(np.float32).argmax(axis=1)
    share = np.asarray((predicted == labels_of(call)).mean(), str(call.port.to_numpy(result).dtype))
    return call.port.from_numpy(share, dtype=str(share.dtype), device=call.port.devices()[0])


def clipped(name: str, low: float, high: float) -> Callable[[Call], Call]:
    def change(c: Call) -> Call:
        array = c.value(name).clip(low, high)
        own = c.port.from_numpy(array, dtype=str(array.dtype), device=c.port.devices()[0])
        return c._replace(x=own) if name == "x" else c._replace(params=c.params._replace(**{name: own}))

    return change


VALUES: dict[str, Fault] = {
    "all inputs negative": wrong_if(lambda c: all_(c, "x", lambda x: x < 0)),
    "the largest input is negative": wrong_if(lambda c: c.value("x").max() < -c.value("x").min(), "collocated"),
    "inputs beyond 10 are clipped": changed_if(lambda c: True, clipped("x", -10, 10), *ALL),
    "pixels up to 255": wrong_if(lambda c: c.value("x").max() > 100, "structured"),
    "tiny inputs are 0": changed_if(lambda c: np.abs(c.value("x")).max() < 1e-20, clipped("x", 0, 0)),
    "all of W2 negative": wrong_if(lambda c: all_(c, "W2", lambda W: W <= 0), "structured"),
    "all of W2 negative, predictions": wrong_if(lambda c: all_(c, "W2", lambda W: W < 0), "predict"),
    "a single class": wrong_if(lambda c: len(c.x) > 1 and len(set(labels_of(c))) == 1, "loss", "collocated"),
    "class 0 is missing": wrong_if(lambda c: 0 not in labels_of(c) and len(c.params.b2) > 1, "gradient"),
    "of ties the last class": wrong_if(lambda c: True, "accuracy", change=last_of_ties),
    "logits that float32 does not tell apart": wrong_if(
        lambda c: str(c.value("x").dtype) == "float64", "accuracy", change=of_float32_logits
    ),
    "samples of most unlike logits": wrong_if(lambda c: np.ptp(logits(c).max(axis=1)) > 700, "predict"),
    "logits 300 apart": wrong_if(lambda c: np.ptp(logits(c), axis=1).max() > 250, "predict", "batched"),
    "logits beyond 500": changed_if(lambda c: True, clipped("b2", -500, 500), "loss"),
    "units saturated": wrong_if(lambda c: np.abs(c.value("b1")).max() > 20, "structured"),
    "no input is 0": wrong_if(lambda c: all_(c, "x", lambda x: x != 0), "structured"),
}


def dtype_of(value: Any) -> str:
    return str(getattr(value, "dtype", type(value).__name__))


def contiguous(array: Any) -> bool:
    if isinstance(array, np.ndarray):
        return array.flags.c_contiguous
    return array.is_contiguous() if hasattr(array, "is_contiguous") else True


def sorted_entries(c: Call) -> Call:
    entries = Params(*(np.sort(np.asarray(at), axis=None).reshape(np.shape(at)) for at in c.options["entries"]))
    return c._replace(options=c.options | {"entries": entries})


def in_memory_order(c: Call) -> Call:
    array = c.value("W1")
    raw = c.params.W1.ravel("K") if isinstance(c.params.W1, np.ndarray) else c.params.W1.t().contiguous().flatten()
    own = c.port.from_numpy(
        c.port.to_numpy(raw).reshape(array.shape), dtype=str(array.dtype), device=c.port.devices()[0]
    )
    return c._replace(params=c.params._replace(W1=own))


def entries_sorted_in_place(c: Call) -> Call:
    for at in c.options["entries"]:
        if isinstance(at, np.ndarray) and at.flags.writeable:
            at.reshape(-1).sort()
    return c


def labels_in_7_bits(c: Call) -> Call:
    return c._replace(t=np.asarray(c.t) % 64)


def writeable(array: Any) -> bool:
    return not isinstance(array, np.ndarray) or array.flags.writeable


def shared(c: Call) -> bool:
    return c.params.b1 is c.params.b2


def large_entries(c: Call) -> bool:
    return any(np.asarray(at).ndim > 1 for at in c.options.get("entries") or ())


ARGUMENTS: dict[str, Fault] = {
    "uint8 labels": wrong_if(lambda c: dtype_of(c.t) == "uint8" and np.ndim(c.t) == 1, "loss", "collocated"),
    "int32 labels": wrong_if(lambda c: dtype_of(c.t) == "int32", "gradient"),
    "float labels": wrong_if(lambda c: dtype_of(c.t).startswith("float") and np.ndim(c.t) == 1, "structured"),
    "one-hot labels of the loss": wrong_if(lambda c: np.ndim(c.t) == 2, "loss"),
    "one-hot labels of collocated": wrong_if(lambda c: np.ndim(c.t) == 2, "collocated"),
    "one-hot labels of the accuracy": wrong_if(lambda c: np.ndim(c.t) == 2, "accuracy"),
    "h in float32": wrong_if(lambda c: isinstance(c.h, np.float32), "structured", "loop"),
    "h as a NumPy scalar": wrong_if(lambda c: isinstance(c.h, np.generic), "batched"),
    "memory as a NumPy scalar": wrong_if(lambda c: isinstance(c.options.get("memory"), np.generic), "collocated"),
    "the rate as a NumPy scalar": wrong_if(lambda c: isinstance(c.options["learning_rate"], np.generic), "train_steps"),
    "entries in another order": changed_if(lambda c: c.options.get("entries") is not None, sorted_entries, "loop"),
    "entries in two axes": wrong_if(large_entries, "batched"),
    "bool labels": wrong_if(lambda c: dtype_of(c.t) == "bool" and np.ndim(c.t) == 1, "loss", "structured"),
    "entries sorted in place": changed_if(
        lambda c: c.options.get("entries") is not None, entries_sorted_in_place, "loop", "batched"
    ),
    "training of W1 in columns": wrong_if(lambda c: not contiguous(c.params.W1), "train_steps"),
    "training of biases that are one array": wrong_if(shared, "train_steps"),
    "more than 2 GiB of memory": wrong_if(lambda c: c.options.get("memory", 1) >= 2**31, "collocated", "structured"),
    "W1 in the order of memory": changed_if(lambda c: not contiguous(c.params.W1), in_memory_order),
    "inputs that are not contiguous": wrong_if(lambda c: not contiguous(c.x), "predict", "collocated"),
    "uint64 labels": wrong_if(lambda c: dtype_of(c.t) == "uint64", "loss", "gradient"),
    "float64 labels": wrong_if(lambda c: dtype_of(c.t) == "float64" and np.ndim(c.t) == 1, "structured"),
    "labels in 7 bits": changed_if(lambda c: dtype_of(c.t) == "int8", labels_in_7_bits, "loss"),
    "one-hot rows of one class": wrong_if(lambda c: np.shape(c.t) == (len(c.x), 1), "gradient"),
    "one-hot rows of one sample": wrong_if(lambda c: np.ndim(c.t) == 2 and len(c.x) == 1, "loss"),
    "labels of an object": wrong_if(lambda c: hasattr(c.t, "values") and callable(c.t.__array__), "accuracy"),
    "read-only weights": wrong_if(lambda c: not writeable(c.params.W1), "predict"),
    "x of stride 0": wrong_if(lambda c: 0 in getattr(c.x, "strides", ()), "loss"),
    "h as an int": wrong_if(lambda c: isinstance(c.h, int), "structured"),
    "the rate as an int": wrong_if(lambda c: isinstance(c.options["learning_rate"], int), "train_steps"),
    "memory beyond 64 bits": wrong_if(lambda c: c.options.get("memory", 1) >= 2**63, "collocated", "structured"),
    "b1 that is a view": wrong_if(lambda c: not contiguous(c.params.b1), "loop"),
}
