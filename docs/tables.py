"""The tables of README.md and docs/ that are computed from several results, each under the name of its block."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from comparison.report.timing_tables import number, seconds
from reference.defaults import BUILT_IN, CLOSED_FORM, DTYPES

Row = dict[str, Any]
Read = Callable[[str], Any]
"""From the name of a block to what its command wrote as JSON."""
GAIN = 1.05
"""As in comparison/timing/recommendation.py: less makes no winner."""


def goals(read: Read) -> str:
    """Say which backend to take by what one wants to do."""
    speed = read("speed")["speed"]
    by_goal = {
        "run the chapter: 10,000 steps from nothing": (_runs(read), "`train --data mnist`"),
        "one gradient, again and again": (read("gradient")["speed"], "`speed --data mnist --what gradient`"),
        "a wide net": (_widest(read, "hidden"), "`speed --data mnist --sweep hidden`"),
        "many classes, on the digits": (_widest(read, "outputs"), "`speed --sweep outputs`"),
        "no compiler": ([row for row in speed if row["backend"] in ("numpy", "torch")], "`speed --data mnist`"),
    }
    rows = []
    for goal, (timed, command) in by_goal.items():
        size = f", {timed[0]['at']}" if "at" in timed[0] else ""
        rows.append((f"{goal}{size}", *(_fastest(timed, dtype) for dtype in DTYPES), command))
    on_gpu = (_fastest(read("gpu")["speed"], dtype) for dtype in DTYPES)
    rows.append(("a GPU, an H100", *on_gpu, "`speed --data mnist --device cuda` ([more](docs/devices.md))"))
    return _table(("you want", *DTYPES, "measured by"), rows)


def _runs(read: Read) -> list[Row]:
    """Return the whole runs of a training, which have no interval, as timings."""
    same = {"ranked": True, "strategy": "collocated", "ratio_interval": None}
    return [row | same | {"median_s": row["seconds"]} for row in read("training")["runs"]]


def _widest(read: Read, over: str) -> list[Row]:
    """Return the timings of the largest size of a sweep, with its verdict, which allows for all sizes."""
    rows, sweep = read(over)["speed"], read(over)["sweep"]
    size = max(row["sizes"][over] for row in rows)
    fastest = [
        (verdict["dtype"], best["backend"])
        for verdict in sweep["fastest"]
        for best in verdict["fastest"]
        if verdict["size"] == size
    ]
    at = f"{over[0].upper()} = {size:,}"
    widest = [row for row in rows if row["sizes"][over] == size]
    return [row | {"at": at, "is_fastest": (row["dtype"], row["backend"]) in fastest} for row in widest]


def _fastest(rows: Iterable[Row], dtype: str) -> str:
    """Name the backend that is fastest in a dtype, its time, and those that tie with it."""
    ranked = [row for row in rows if row["dtype"] == dtype and row["ranked"] and row["strategy"] == "collocated"]
    first, *others = sorted(ranked, key=lambda row: row["median_s"])
    ties = [row["backend"] for row in others if _ties(row, first)]
    return f"{first['backend']}, {seconds(first['median_s'])}" + (f"; a tie with {' and '.join(ties)}" if ties else "")


def _ties(row: Row, first: Row) -> bool:
    """Whether it is not slower than the fastest, or by too little; intervals are of the ratio to the best of all."""
    if "is_fastest" in row:
        return bool(row["is_fastest"])
    doubtful = first["ratio_interval"] and row["ratio_interval"][0] <= first["ratio_interval"][1]
    return bool(doubtful) or row["median_s"] < GAIN * first["median_s"]


def price(read: Read) -> str:
    """Compare a step by collocated with one by the closed form, backend by backend."""
    rows = read("price-of-a-step")["speed"]
    timed = {(row["backend"], row["dtype"], row["strategy"]): row for row in rows}
    cells = []
    for backend in (name for name in BUILT_IN if any(row["backend"] == name for row in rows)):
        prices = []
        for dtype in DTYPES:
            times = [timed[backend, dtype, strategy]["median_s"] for strategy in ("collocated", CLOSED_FORM)]
            ratio = timed[backend, dtype, "collocated"]["ratio_to_closed_form"]
            prices.append(f"**{number(ratio)}** ({seconds(times[0])} and {seconds(times[1])})")
        cells.append((backend, *prices))
    heading = "collocated / closed form, by `speed --data mnist --strategy collocated,closed-form`"
    return _table((heading, *DTYPES), cells)


def versions(read: Read) -> str:
    """Say with what, and when, the big tables were measured."""
    result = read("speed")
    python, numpy, torch, jax, cores = result["versions"].values()
    made_with = f"Python {python}, NumPy {numpy}, PyTorch {torch}, JAX {jax}"
    return f"{cores} cores, {made_with}, on {result['date']}.\n"


def training(read: Read) -> str:
    """List the time and the accuracies of whole trainings."""
    rows = [
        (
            row["backend"],
            row["dtype"],
            seconds(row["seconds"]),
            f"{row['accuracies'][-1]['train']:.4f}",
            f"{row['accuracies'][-1]['test']:.4f}",
        )
        for row in read("training")["runs"]
    ]
    drifts = read("training")["drifts"]
    worst = max(row["gap"] / row["bound"] for row in drifts if row["bound"])
    verdict = "All agree" if all(row["agrees"] for row in drifts) else "Some DISAGREE"
    table = _table(("backend", "dtype", "whole run", "training set", "test set"), rows)
    return f"{table}\n{verdict}: what they end with lies apart by at most {worst:.2g} of what rounding can explain.\n"


def model(read: Read) -> str:
    """Find the constants of the model of a step on two ranks, and compare it with what was not used to find them."""
    narrow, middle, wide = (_two_ranks(read(name), "float32") for name in ("model", "model-2", "ranks"))
    bandwidth = (wide["bytes"] - narrow["bytes"]) / (wide["messages"] - narrow["messages"])
    latency = (narrow["messages"] - narrow["bytes"] / bandwidth) / 2
    lines = []
    for point in (narrow, middle, wide):
        need = 4 * latency + 2 * point["bytes"] / bandwidth
        c = _between(narrow, wide, point["hidden"], "c")
        pay = "yes" if c > 1.1 * need else "no" if c < need / 1.1 else "hardly"
        low, high = point["interval"]
        measured = f"{point['speedup']:.2f} times as fast as one ({low:.2f} to {high:.2f})"
        lines.append((f"{point['hidden']:,}", f"{seconds(c)}", seconds(need), pay, measured))
    table = _table(("hidden units", "`c`", "`4 l + 2 b / w`", "do two ranks pay?", "measured"), lines)
    messages = 2 * latency + middle["bytes"] / bandwidth
    c, s = (_between(narrow, wide, middle["hidden"], key) for key in ("c", "s"))
    step = c / 2 + s + messages
    return (
        f"`l` = {seconds(latency)} and `w` = {bandwidth / 1e9:.2g} GB/s, so:\n\n{table}\n"
        f"Of what was not used to find the constants, a step of {middle['hidden']} units takes {seconds(step)} by the "
        f"model and took {seconds(middle['step'])}; its messages {seconds(messages)} and "
        f"{seconds(middle['messages'])}.\n"
    )


def _two_ranks(result: Row, dtype: str) -> Row:
    """Split a step on two ranks into shared computing (c), computing of each (s), and messages."""
    one, two = sorted((row for row in result["scaling"] if row["dtype"] == dtype), key=lambda row: row["devices"])
    messages = two["in_messages"] * two["median_s"]
    c = 2 * (one["median_s"] - two["median_s"] + messages)
    return {
        "hidden": two["sizes"]["hidden"],
        "bytes": two["payload_bytes"],
        "messages": messages,
        "c": c,
        "s": one["median_s"] - c,
        "step": two["median_s"],
        "speedup": two["speedup"],
        "interval": two["speedup_interval"],
    }


def _between(a: Row, b: Row, hidden: int, key: str) -> float:
    """Interpolate a time that is linear in the number of hidden units."""
    slope = (b[key] - a[key]) / (b["hidden"] - a["hidden"])
    return float(a[key] + slope * (hidden - a["hidden"]))


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
