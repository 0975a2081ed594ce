"""Faults that show only in a kind of training, memory or step: wrappers of a right port."""

from collections.abc import Callable
from typing import Any

import numpy as np

from faults_of_arguments import Call, Fault, Function, changed_if, replaced, wrong_if
from reference.defaults import STRATEGIES
from reference.two_layer_net import Params


def steps_of(c: Call) -> int:
    return len(np.asarray(c.options["batches"]))


def rate(c: Call) -> float:
    return float(c.options["learning_rate"])


def by_steps(change: Callable[[Call, int, Params, Params], Params]) -> Fault:
    """Return the change by which a port trains step by step and changes the net after each, given it before and after."""

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
