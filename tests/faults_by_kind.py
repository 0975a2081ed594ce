"""Faults that show only in a kind of size, value, argument, state, training, memory or step: wrappers of a right port.

Each wrapper works on any backend: it looks at shapes, and at numbers by the port's `to_numpy`.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from reference.defaults import CLOSED_FORM, STRATEGIES, H
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
    """Return what makes a port wrong where something happens, in these functions."""

    def make(_: str, right: Function) -> Function:
        return lambda call: change(call, right(call)) if happens(call) else right(call)

    return lambda port: replaced(port, names or (*FORWARD[:2], *GRADIENTS), make)


def changed_if(happens: Callable[[Call], Any], change: Callable[[Call], Call], *names: str) -> Fault:
    """Return what makes a port compute something else where something happens."""

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
    "W1 in the order of memory": changed_if(lambda c: not contiguous(c.params.W1), in_memory_order),
    "inputs that are not contiguous": wrong_if(lambda c: not contiguous(c.x), "predict", "collocated"),
    "b1 that is a view": wrong_if(lambda c: not contiguous(c.params.b1), "loop"),
}


def cached(key: Callable[[Call], Any], *names: str) -> Fault:
    """Return what makes a port keep its results by a key that is not enough."""

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
    """Return what makes a port wrong from a number of calls on."""

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


def own_labels_kept(port: Any) -> Any:
    """Convert the labels of an object once."""
    return cached(lambda c: (id(c.t), *of(c._replace(t=None), "W1", "b1", "W2", "b2", "x")), "loss", "gradient")(port)


STATE: dict[str, Fault] = {
    "results by the shape and W1": cached(lambda c: of(c, "W1", "x"), "collocated"),
    "predictions by x": cached(lambda c: of(c, "x", "W1", "b1", "W2"), "predict"),
    "results by the weights": cached(lambda c: of(c, "W1", "b1", "W2", "b2"), "structured"),
    "results by the identity of W1": cached(lambda c: (id(c.params.W1), *of(c, "b1", "W2", "b2", "x")), "gradient"),
    "results by the identity of x": cached(lambda c: (id(c.x), *of(c, "W1", "b1", "W2", "b2")), "loss", "collocated"),
    "the labels of the first call": cached(lambda c: of(c._replace(t=None), "W1", "b1", "W2", "b2", "x"), "loss"),
    "the same result again": cached(lambda c: of(c, "W1", "b1", "W2", "b2", "x"), "gradient", "collocated"),
    "a shared buffer": shared_buffers,
    "a constant of the first dtype": constant_of_the_first_dtype,
    "the 100th call": counted(100, "structured"),
    "the 60th prediction": counted(60, "predict"),
}


def steps_of(c: Call) -> int:
    return len(np.asarray(c.options["batches"]))


def rate(c: Call) -> float:
    return float(c.options["learning_rate"])


def by_steps(change: Callable[[Call, int, Params, Params], Params]) -> Fault:
    """Return what makes a port take its steps one by one, and change the net after each: from before and after."""

    def make(_: str, right: Function) -> Function:
        def run(call: Call) -> Any:
            batches, losses, params, state = np.asarray(call.options["batches"]), [], call.params, {}
            for k in range(len(batches)):
                one = call._replace(params=params, options=call.options | {"batches": batches[k : k + 1]})
                after, loss = right(one)
                old, new = (Params(*map(call.port.to_numpy, p)) for p in (params, after))
                new = change(call._replace(options=call.options | {"state": state}), k, old, new)
                params = Params(
                    *(call.port.from_numpy(p, dtype=str(p.dtype), device=call.port.devices()[0]) for p in new)
                )
                losses.append(call.port.to_numpy(loss))
            all_losses = np.concatenate(losses)
            return params, call.port.from_numpy(all_losses, dtype=str(all_losses.dtype), device=call.port.devices()[0])

        return run

    return lambda port: replaced(port, ("train_steps",), make)


def _momentum(c: Call, k: int, old: Params, new: Params) -> Params:
    before, state = c.options["state"].get("step"), c.options["state"]
    moved = [n - o for n, o in zip(new, old, strict=True)]
    if before is not None:
        moved = [m + m.dtype.type(1e-4) * b for m, b in zip(moved, before, strict=True)]
    state["step"] = moved
    return Params(*(o + m for o, m in zip(old, moved, strict=True)))


def _clip_steps(limit: float) -> Callable[[Call, int, Params, Params], Params]:
    def change(c: Call, k: int, old: Params, new: Params) -> Params:
        length = np.sqrt(sum(float(((n - o) ** 2).sum()) for n, o in zip(new, old, strict=True))) / abs(rate(c) or 1)
        factor = min(1.0, limit / length) if length else 1.0
        return Params(*(o + (n - o) * o.dtype.type(factor) for n, o in zip(new, old, strict=True)))

    return change


def _wrapped_batches(bits: int) -> Callable[[Call], Call]:
    def change(c: Call) -> Call:
        return c._replace(options=c.options | {"batches": np.asarray(c.options["batches"]) % 2**bits})

    return change


def unique_rows(c: Call) -> Call:
    batches = np.asarray(c.options["batches"]).copy()
    for batch in batches:
        kept = np.unique(batch)
        batch[:] = np.resize(kept, len(batch))
    return c._replace(options=c.options | {"batches": batches})


def has_repeats(c: Call) -> bool:
    return any(len(np.unique(batch)) < len(batch) for batch in np.asarray(c.options["batches"]))


def in_order(c: Call) -> Call:
    return c._replace(options=c.options | {"batches": np.sort(np.asarray(c.options["batches"]), axis=0)})


TRAINING: dict[str, Fault] = {
    "one step": wrong_if(lambda c: steps_of(c) == 1, "train_steps"),
    "two steps": wrong_if(lambda c: steps_of(c) == 2, "train_steps"),
    "more than 1,000 steps": wrong_if(lambda c: steps_of(c) > 1000, "train_steps"),
    "steps that are no power of two": wrong_if(
        lambda c: steps_of(c) & (steps_of(c) - 1) and steps_of(c) > 32, "train_steps"
    ),
    "rates above 10": wrong_if(lambda c: rate(c) > 10, "train_steps"),
    "rates above 1 are 1": changed_if(
        lambda c: rate(c) > 1, lambda c: c._replace(options=c.options | {"learning_rate": 1.0}), "train_steps"
    ),
    "rates in steps of 0.01": changed_if(
        lambda c: 0.01 < rate(c) < 0.1,
        lambda c: c._replace(options=c.options | {"learning_rate": round(rate(c), 2)}),
        "train_steps",
    ),
    "repeated samples count once": changed_if(has_repeats, unique_rows, "train_steps"),
    "mini-batches sorted": changed_if(lambda c: steps_of(c) > 1, in_order, "train_steps"),
    "indices in 15 bits": changed_if(lambda c: True, _wrapped_batches(15), "train_steps"),
    "indices in 16 bits": changed_if(lambda c: True, _wrapped_batches(16), "train_steps"),
    "class indices": wrong_if(lambda c: np.ndim(c.t) == 1, "train_steps"),
    "one-hot rows": wrong_if(lambda c: np.ndim(c.t) == 2, "train_steps"),
    "long gradients are clipped": by_steps(_clip_steps(3.0)),
    "weights decay": by_steps(lambda c, k, old, new: Params(*(p * p.dtype.type(1 - 1e-5) for p in new))),
    "momentum": by_steps(_momentum),
    "weights beyond 5 are clipped": by_steps(lambda c, k, old, new: Params(*(p.clip(-5, 5) for p in new))),
    "the rate decays from the 20th step": by_steps(
        lambda c, k, old, new: Params(
            *(o + (n - o) * o.dtype.type(1 - 1e-3 * (k >= 20)) for o, n in zip(old, new, strict=True))
        )
    ),
}

MEMORY: dict[str, Fault] = {
    "little memory in float32": wrong_if(
        lambda c: "32" in str(c.x.dtype) and c.options.get("memory", 1e9) < 5000, "structured"
    ),
    "little memory in float32, batched": wrong_if(
        lambda c: "32" in str(c.x.dtype) and c.options.get("memory", 1e9) < 5000, "batched"
    ),
    "more samples than a chunk": wrong_if(
        lambda c: c.options.get("memory", 1e9) < 100 * c.sizes[0] * c.sizes[2], "collocated"
    ),
    "more entries than a chunk": wrong_if(
        lambda c: c.options.get("memory", 1e9) < 16 * c.sizes[0] * c.sizes[2], "batched"
    ),
    "one byte": wrong_if(lambda c: c.options.get("memory", 1e9) == 1, "structured"),
}


def step_between(low: float, high: float, *names: str) -> Fault:
    return wrong_if(lambda c: low < float(c.h) < high, *names)


STEPS: dict[str, Fault] = {
    "collocated from 0.03 on": step_between(0.03, 1.1, "collocated"),
    "loop from 0.1 on": step_between(0.1, 1.1, "loop"),
    "batched at 3e-3": step_between(2e-3, 9e-3, "batched"),
    "structured from 0.2 on": step_between(0.2, 1.1, "structured"),
    "collocated below 1e-4": step_between(0, 9e-5, "collocated"),
    "steps rounded to a power of ten": changed_if(
        lambda c: True,
        lambda c: c._replace(options=c.options | {"h": 10.0 ** round(np.log10(float(c.h)))}),
        *STRATEGIES,
    ),
    "structured below 1e-6": step_between(0, 9e-7, "structured"),
}

KINDS = {
    "sizes": SIZES,
    "values": VALUES,
    "arguments": ARGUMENTS,
    "state": STATE,
    "training": TRAINING,
    "memory": MEMORY,
    "steps": STEPS,
}
FAULTS = {f"{kind}: {name}": fault for kind, faults in KINDS.items() for name, fault in faults.items()}
assert CLOSED_FORM  # the wrappers pass it on
