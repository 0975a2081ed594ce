"""Print what each strategy costs: a training step at 784-50-10 and B = 100, by backend and dtype.

    python tests/benchmarks/ladder.py --data mnist

Contenders take turns in random order, round by round; ratios are paired within a round. A step of `loop` or `batched`
is estimated from a random sample of entries of W1, marked with ~. The error is that of the whole gradient (Frobenius
norm, relative) against `structured` in extended precision, at the numbers that the backend was given.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))

import ports
from ports.protocol import Port
from reference.datasets import Dataset, load
from reference.gradient import structured_step
from reference.two_layer_net import Params, init

HIDDEN, OUTPUTS, BATCH, RATE = 50, 10, 100, 0.1
SAMPLES = 10_000  # few enough that looking each of them over, once a run, is no part of a step
CLOSED_FORM = "closed form"
STEPS = {CLOSED_FORM: 600, "collocated": 600, "structured": 10}
SAMPLED = {"batched": 1024, "loop": 128}  # entries of W1


class Contender(NamedTuple):
    backend: str
    dtype: str
    strategy: str
    run: Callable[[], Any]
    scale: float  # from a run to a training step
    error: float


def contenders(backend: str, port: Port, dtype: str, device: str, data: Dataset, warm: Params) -> list[Contender]:
    rng = np.random.default_rng(0)
    x = port.from_numpy(data.x_train, dtype=dtype, device=device)
    params = Params(*(port.from_numpy(p, dtype=dtype, device=device) for p in warm))
    rows = rng.integers(0, len(data.x_train), BATCH)
    batch = port.from_numpy(data.x_train[rows], dtype=dtype, device=device)
    true = truth(warm, data.x_train[rows], data.t_train[rows], dtype)
    found = []
    for strategy, steps in STEPS.items():
        gradient = port.gradient if strategy == CLOSED_FORM else port.GRADIENTS[strategy]
        batches = rng.integers(0, len(data.x_train), (steps, BATCH))

        def train(gradient: Any = gradient, batches: np.ndarray = batches) -> Any:
            return port.train_steps(params, x, data.t_train, batches, gradient=gradient, learning_rate=RATE)

        error = relative_error(port, gradient(params, batch, data.t_train[rows]), true)
        found.append(Contender(backend, dtype, strategy, train, 1 / steps, error))
    for strategy, count in SAMPLED.items():
        at = np.sort(rng.choice(params.W1.shape[0] * HIDDEN, count, replace=False))
        entries = Params(at, *(np.arange(0) for _ in range(3)))

        def sample(strategy: str = strategy, entries: Params = entries) -> Any:
            return port.GRADIENTS[strategy](params, batch, data.t_train[rows], entries=entries)

        at_entries = Params(true.W1.ravel()[at], *(np.empty(0) for _ in range(3)))
        scale = sum(p.size for p in warm) / count
        error = relative_error(port, sample(), at_entries)
        found.append(Contender(backend, dtype, strategy, sample, scale, error))
    return found


def truth(params: Params, x: np.ndarray, t: np.ndarray, dtype: str) -> Params:
    extended = (a.astype(dtype).astype(np.longdouble) for a in (*params, x))
    *params_, x = extended
    return structured_step(Params(*params_), x, t, 1e-4, 2**28, float(np.abs(x).max()))[1]


def relative_error(port: Port, got: Params, true: Params) -> float:
    gap, size = (
        np.sqrt(sum((np.asarray(a, np.longdouble) ** 2).sum() for a in arrays))
        for arrays in ([port.to_numpy(g) - t for g, t in zip(got, true, strict=True)], true)
    )
    return float(gap / size)


def matmul_contender(backend: str, port: Port, dtype: str, device: str, nets: int = 64) -> Callable[[], Any]:
    """A product like the one that `batched` spends its time in, alone: (B, I) by (I, nets x H)."""
    rng = np.random.default_rng(0)
    a, b = (
        port.from_numpy(rng.random(shape), dtype=dtype, device=device) for shape in ((BATCH, 784), (784, nets * HIDDEN))
    )
    if backend == "jax":
        import jax

        product = jax.jit(lambda a, b: jax.numpy.matmul(a, b, precision="highest"))
    else:
        product = type(a).__matmul__
    return lambda: product(a, b)


def measure(runs: dict[Any, Callable[[], Any]], synchronize: dict[Any, Any], rounds: int) -> dict[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    keys = list(runs)
    times = {key: np.empty(rounds) for key in keys}
    for key in keys:
        synchronize[key](runs[key]())  # compiles
    for n in range(rounds):
        for key in (keys[i] for i in rng.permutation(len(keys))):
            start = time.perf_counter()
            synchronize[key](runs[key]())
            times[key][n] = time.perf_counter() - start
    return times


def median_interval(values: np.ndarray) -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    medians = np.median(values[rng.integers(0, len(values), (2000, len(values)))], axis=1)
    return float(np.median(values)), *(float(q) for q in np.quantile(medians, (0.025, 0.975)))


def seconds(value: float) -> str:
    unit, scale = next((u, s) for u, s in (("s", 1.0), ("ms", 1e3), ("us", 1e6)) if value * s >= 1 or u == "us")
    return f"{value * scale:.3g} {unit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--backend", default=",".join(ports.BUILT_IN))
    parser.add_argument("--dtype", default="float64,float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    data = load(args.data)
    data = data._replace(x_train=data.x_train[:SAMPLES], t_train=data.t_train[:SAMPLES])
    numpy_port = ports.load("numpy")
    batches = np.random.default_rng(1).integers(0, len(data.x_train), (3000, BATCH))
    start = init(data.x_train.shape[1], HIDDEN, OUTPUTS, seed=0)
    warm, _ = numpy_port.train_steps(
        start, data.x_train, data.t_train, batches, gradient=numpy_port.gradient, learning_rate=RATE
    )
    found, products, loaded = [], {}, {}
    for backend in args.backend.split(","):
        loaded[backend] = port = ports.load(backend)
        for dtype in args.dtype.split(","):
            found += contenders(backend, port, dtype, args.device, data, warm)
            products[backend, dtype, "product"] = matmul_contender(backend, port, dtype, args.device)
    runs = {c[:3]: c.run for c in found} | products
    times = measure(runs, {key: loaded[key[0]].synchronize for key in runs}, args.rounds)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(table(found, times))
    console.print(flops_table(found, times))


def table(found: list[Contender], times: dict[Any, np.ndarray]) -> Table:
    result = Table(title=f"a training step, 784-{HIDDEN}-{OUTPUTS}, B = {BATCH}", box=None)
    for column in ("backend", "dtype", "strategy", "median", "95% interval", "x closed form", "loop / it", "error"):
        result.add_column(
            column, justify="left" if column in ("backend", "dtype", "strategy") else "right", no_wrap=True
        )
    for c in found:
        step = times[c[:3]] * c.scale
        by = {d.strategy: times[d[:3]] * d.scale for d in found if d[:2] == c[:2]}
        median, low, high = median_interval(step)
        mark = "~" if c.strategy in SAMPLED else ""
        ratios = [np.median(step / by[CLOSED_FORM]), np.median(by["loop"] / step)]
        interval = f"{seconds(low)} to {seconds(high)}"
        cells = [mark + seconds(median), interval, f"{ratios[0]:,.3g}", f"{ratios[1]:,.0f}", f"{c.error:.1e}"]
        result.add_row(*c[:3], *cells)
    return result


def flops_table(found: list[Contender], times: dict[Any, np.ndarray]) -> Table:
    result = Table(title="batched on W1 beside a plain matrix product", box=None)
    for column in ("backend", "dtype", "batched", "product", "ratio"):
        result.add_column(column, no_wrap=True)
    for c in found:
        if c.strategy == "batched":
            rate = 4 * BATCH * 784 * HIDDEN * SAMPLED["batched"] / times[c[:3]]
            plain = 2 * BATCH * 784 * 64 * HIDDEN / times[c.backend, c.dtype, "product"]
            figures = [f"{np.median(r) / 1e9:.3g} GFLOP/s" for r in (rate, plain)]
            result.add_row(c.backend, c.dtype, *figures, f"{np.median(rate / plain):.2f}")
    return result


if __name__ == "__main__":
    main()
