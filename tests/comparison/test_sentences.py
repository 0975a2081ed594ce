"""The advice as a user reads it, of timings that are known."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from comparison.timing.recommendation import Timing, advise
from comparison.timing.sentences import sentences
from comparison.timing.workloads import Task
from reference.datasets import load
from timings import timing

PROBLEM: Any = None
STEP = Task("step", PROBLEM, None, partial(load, "random"))
BEST = (1.0, 1.0, 1.0)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.timing.sentences.machine", lambda: "a machine")


def told(timed: list[Timing], task: Task = STEP) -> list[str]:
    return sentences(advise(timed, task, "7-5-3"), timed, task, "7-5-3")


def numpy_and_jax(dtype: str = "float64", faster: float = 1.0) -> list[Timing]:
    slow = timing("numpy", 1e-3 / faster, (10.0, 9.0, 11.0), first=0.01, dtype=dtype)
    return [slow, timing("jax", 1e-4 / faster, BEST, first=2.0, dtype=dtype)]


def test_it_answers_for_a_short_run_the_chapters_and_for_ever() -> None:
    assert told(numpy_and_jax()) == [
        "On this machine (a machine), for 7-5-3:",
        "For a short run of 100 steps from nothing, evaluation included, take numpy in float64 (109 ms; jax, the next, "
        "takes 18.4 times as long).",
        "For the chapter's run of 10,000 steps from nothing, evaluation included, take jax in float64 (3 s; numpy, the "
        "next, takes 3.34 times as long).",
        "For ever, counting only the steps, take jax in float64 (100 us; numpy, the next, takes 10 times as long).",
    ]


def test_the_users_run_is_asked_for_by_its_steps() -> None:
    lines = told(numpy_and_jax(), replace(STEP, iterations=1000))
    assert lines[2].startswith("For 1,000 steps from nothing, evaluation included, take numpy in float64 (1.01 s; ")
    assert not any("chapter" in line for line in lines)
    assert sum("100 steps" in line for line in told(numpy_and_jax(), replace(STEP, iterations=100))) == 1


def test_dtypes_share_a_sentence_and_are_compared() -> None:
    timed = numpy_and_jax("float32", 2.0) + numpy_and_jax()
    error = {"float32": 1.6e-7, "float64": 3.8e-16}
    timed = [t._replace(contender=t.contender._replace(error=error[t.contender.dtype])) for t in timed]
    *_, ever, dtypes = told(timed)
    assert ever.startswith("For ever, counting only the steps, take jax in float32 (50 us; ")
    assert ", and jax in float64 (100 us; " in ever
    assert dtypes == (
        "float32 or float64: the fastest step takes 50 us in float32 and 100 us in float64, 2 times as long; float32's "
        "gradient is off by 2e-07 of its length, float64's by 4e-16."
    )


def test_a_tie_names_the_simpler() -> None:
    tied = [timing("jax", 1.0, BEST), timing("numpy", 1.01, (1.01, 0.9, 1.1))]
    assert told(tied)[-1] == (
        "For ever, counting only the steps, take numpy or jax in float64 (1.01 s; a tie, and numpy is the simpler)."
    )


def test_of_several_strategies_each_is_named() -> None:
    one, other = numpy_and_jax()
    other = other._replace(contender=other.contender._replace(strategy="structured"))
    assert "take jax structured in float64 (100 us; numpy collocated, the next," in told([one, other])[-1]


@pytest.mark.parametrize(
    ("backends", "sentence"),
    [
        (("numpy", "jax"), None),
        (
            ("numpy", "torch"),
            "Eager or compiled: torch is eager PyTorch; --backend torch-compiled compiles PyTorch's whole step.",
        ),
        (
            ("torch", "jax"),
            "Eager or compiled: torch is eager PyTorch and jax compiled JAX; --backend torch-compiled compiles "
            "PyTorch's whole step.",
        ),
        (
            ("torch", "torch-compiled", "jax"),
            "Eager or compiled: torch is eager PyTorch and jax compiled JAX; torch-compiled compiles PyTorch's whole "
            "step, in its first call.",
        ),
    ],
)
def test_eager_or_compiled_is_said_where_torch_took_part(backends: tuple[str, ...], sentence: str | None) -> None:
    timed = [timing(name, 1.0 + n, (1.0 + n,) * 3) for n, name in enumerate(backends)]
    assert [line for line in told(timed) if line.startswith("Eager")] == ([sentence] if sentence else [])


def test_gradients_have_the_sentence_of_each_dtype() -> None:
    lines = told(numpy_and_jax() + numpy_and_jax("float32"), replace(STEP, what="gradient"))
    assert len(lines) == 2
    assert all("take jax collocated: numpy collocated, the next, takes 10.00 times as long" in line for line in lines)


def test_only_the_reason_is_said_where_no_winner_may_be_named() -> None:
    timed = numpy_and_jax() + numpy_and_jax("float32")
    assert sentences(advise(timed, STEP, "7-5-3", "It was busy."), timed, STEP, "7-5-3") == ["It was busy."]
    assert told([]) == []
