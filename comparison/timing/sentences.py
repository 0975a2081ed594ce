"""The advice in sentences: for a short run, for the user's, for ever, and what the dtypes and a compiler change."""

from collections.abc import Callable, Iterator, Sequence

from comparison.timing.recommendation import Advice, Timing, Verdict, machine
from comparison.timing.workloads import Task

SHORT, CHAPTER = 100, 10_000
"""Steps of a short run, and of the chapter's."""


def sentences(advice: Sequence[Advice], timed: Sequence[Timing], task: Task, sizes: str) -> list[str]:
    """Answer what a user asks, a sentence each; where no winner may be named, say only why.

    Parameters
    ----------
    advice : sequence of Advice
        One for each dtype.
    timed : sequence of Timing
        All that was timed.
    task : Task
    sizes : str
        Those of the net and the batch.
    """
    if not advice:
        return []
    if any(row.steady is None for row in advice):
        return [advice[0].sentence]
    if task.what != "step":
        return [row.sentence for row in advice]
    ranked = [timing for timing in timed if timing.contender.ranked]
    name = _namer(ranked)
    rows = [f"On this machine ({machine()}), for {sizes}:"]
    for steps, what in _runs(task.iterations):
        if verdicts := {row.dtype: row.runs[steps] for row in advice if steps in row.runs}:
            rows.append(f"{what} from nothing, evaluation included, {_take(verdicts, name)}.")
    steady = {row.dtype: row.steady for row in advice if row.steady}
    rows.append(f"For ever, counting only the steps, {_take(steady, name)}.")
    return [*rows, *_dtypes(steady), *_eager_or_compiled({timing.contender.backend for timing in ranked})]


def _runs(iterations: int) -> Iterator[tuple[int, str]]:
    if iterations != SHORT:
        yield SHORT, f"For a short run of {SHORT} steps"
    yield iterations, "For the chapter's run of 10,000 steps" if iterations == CHAPTER else f"For {iterations:,} steps"


def _namer(ranked: Sequence[Timing]) -> Callable[[Timing], str]:
    """Return the function that names a contender: with its strategy and device where there are several."""
    strategies, devices = ({key(t) for t in ranked} for key in (_strategy, _device))

    def name(timing: Timing) -> str:
        words = [timing.contender.backend]
        words += [timing.contender.strategy] * (len(strategies) > 1)
        return " ".join(words + [f"on {timing.contender.device}"] * (len(devices) > 1))

    return name


def _strategy(timing: Timing) -> str:
    return timing.contender.strategy


def _device(timing: Timing) -> str:
    return timing.contender.device.partition(":")[0]


def _take(verdicts: dict[str, Verdict], name: Callable[[Timing], str]) -> str:
    """Say which to take in each dtype."""
    return "take " + ", and ".join(f"{_which(v, name)} in {dtype} ({_why(v, name)})" for dtype, v in verdicts.items())


def _which(verdict: Verdict, name: Callable[[Timing], str]) -> str:
    return " or ".join(map(name, verdict.tie or [verdict.first]))


def _why(verdict: Verdict, name: Callable[[Timing], str]) -> str:
    time = duration(verdict.seconds)
    if verdict.winner is None:
        return f"{time}; a tie, and {name(verdict.first)} is the simpler"
    if verdict.next is None:
        return f"{time}; there was no other"
    second, ratio = verdict.next
    return f"{time}; {name(second)}, the next, takes {ratio.median:.3g} times as long"


def _dtypes(steady: dict[str, Verdict]) -> Iterator[str]:
    """Say what float32 saves and costs."""
    if not {"float32", "float64"} <= set(steady):
        return
    single, double = (steady[dtype].first for dtype in ("float32", "float64"))
    sentence = (
        f"float32 or float64: the fastest step takes {duration(single.seconds.median)} in float32 and "
        f"{duration(double.seconds.median)} in float64, {double.seconds.median / single.seconds.median:.2g} times as "
        "long"
    )
    if single.contender.error is not None and double.contender.error is not None:
        sentence += (
            f"; float32's gradient is off by {single.contender.error:.0e} of its length, float64's by "
            f"{double.contender.error:.0e}"
        )
    yield f"{sentence}."


def _eager_or_compiled(backends: set[str]) -> Iterator[str]:
    """Say how the backends run, where PyTorch took part."""
    if "torch" not in backends:
        return
    what = "eager PyTorch" + (" and jax compiled JAX" if "jax" in backends else "")
    if "torch-compiled" in backends:
        yield f"Eager or compiled: torch is {what}; torch-compiled compiles PyTorch's whole step, in its first call."
    else:
        yield f"Eager or compiled: torch is {what}; --backend torch-compiled compiles PyTorch's whole step."


def duration(value: float) -> str:
    """Format a duration in the unit that fits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if value * scale >= 1:
            return f"{value * scale:,.3g} {unit}" if value * scale < 1000 else f"{value * scale:,.0f} {unit}"
    return f"{value * 1e6:.3g} us"
