"""Subjects that are compared side by side: the results of one after the other, and a port may end its process."""

import gc
import json
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import ports
from command_lines import COMPARE, CRASHING, QUICK, WRONG, run_python, two_cores
from comparison import worker_processes
from comparison.agreement.cases import check_data_only
from comparison.agreement.comparison import Agreement, Subject
from comparison.agreement.kinds import draw
from comparison.commands import AGREES, comparisons
from comparison.commands.comparisons import compare_subjects, undisturbed
from reference.defaults import DTYPES

DYING = """
import os
from ports.numpy_port import *
import ports.numpy_port as right


def dies(*args, **options):
    os._exit(9)


GRADIENTS = {**right.GRADIENTS, "structured": dies}
"""
NOISY = """
import os
from ports.numpy_port import *
import ports.numpy_port as right

print("on import")


def loss(*args):
    print("by Python")
    os.write(1, b"by the system")
    return right.loss(*args)
"""
SLOW = """
import time
from ports.numpy_port import *
import ports.numpy_port as right


def loss(*args):
    time.sleep(1)
    return right.loss(*args)
"""
ONLY_ONCE = """
import os
from ports.numpy_port import *

os.mkdir({path!r})
"""
STRATEGIES = ("structured", "collocated")
CHECK = partial(check_data_only, h=1e-3, memory=2**20, seed=0)

Shown = list[tuple[int, str]]


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparisons, "MOST_PROCESSES", 2)
    monkeypatch.setattr(comparisons, "usable_cores", lambda: 2)


def subjects(*sources: str) -> list[Subject]:
    loaded = [(Path(source).stem, ports.load(source), source) for source in ("numpy", *sources)]
    return [Subject(name, port, dtype, "cpu", source) for name, port, source in loaded for dtype in DTYPES]


def compare(who: list[Subject], *, side_by_side: bool = True, shown: Shown | None = None) -> list[list[Any]]:
    show = [] if shown is None else shown
    return compare_subjects(
        CHECK, who, draw((4, 3, 2, 2), 0), STRATEGIES, lambda *now: show.append(now), side_by_side=side_by_side
    )


def write(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.py"
    path.write_text(text)
    return str(path)


def test_side_by_side_everything_is_as_one_after_the_other(tmp_path: Path) -> None:
    who, shown = subjects(write(tmp_path, "wrong", WRONG), write(tmp_path, "crashing", CRASHING)), Shown()
    results = compare(who, shown=shown)
    assert results == compare(who, side_by_side=False)
    names = [(subject.name, subject.dtype) for subject in who]
    assert [{(row.backend, row.dtype) for row in rows if isinstance(row, Agreement)} for rows in results[:4]] == [
        {name} for name in names[:4]
    ]
    assert {row.agrees for row in results[2]} == {True, False}
    [crash] = (row for row in results[4] if isinstance(row, dict))
    assert crash["reason"] == "TypeError at crashing.py:6: no such loss"
    assert [done for done, _ in shown] == sorted(done for done, _ in shown)
    assert shown[-1][0] == len(who)


def test_progress_names_what_is_being_compared(tmp_path: Path) -> None:
    shown = Shown()
    compare(subjects(write(tmp_path, "slow", SLOW)), shown=shown)
    texts = {what for _, what in shown}
    assert "slow float64 forward; slow float32 forward" in texts or (
        "slow float32 forward; slow float64 forward" in texts
    )


def test_a_port_that_ends_its_process_costs_one_strategy_and_no_other_port(tmp_path: Path) -> None:
    who = subjects(write(tmp_path, "dying", DYING))
    *right, dying, _ = compare(who)
    assert right == compare(who[:2], side_by_side=False)
    assert [(row["strategy"], row["reason"]) for row in dying if isinstance(row, dict)] == [
        ("structured", comparisons.ENDED)
    ]
    compared = {row.strategy for row in dying if isinstance(row, Agreement)}
    assert compared == {None, "collocated"}
    assert all(row.agrees for row in dying if isinstance(row, Agreement))


def test_a_death_costs_the_other_ports_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone: list[str] = []

    def attempt(say: object, check: object, subject: Subject, *_: object) -> tuple[list[Any], str]:
        alone.append(subject.name)
        return [], "ended"

    monkeypatch.setattr(comparisons, "_attempt_in_a_process", attempt)
    compare(subjects(write(tmp_path, "dying", DYING)))
    assert {*alone} == {"dying"}


def test_no_port_changes_what_another_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes over the table of another's gradients, in place of a copy, is compared first."""
    changing = "from ports.numpy_port import *\n\nGRADIENTS['structured'] = lambda params, *rest, **options: params\n"
    monkeypatch.setattr("ports.numpy_port.GRADIENTS", {**ports.load("numpy").GRADIENTS})
    who = subjects(write(tmp_path, "changing", changing))
    for subject, rows in zip(who, compare(who), strict=True):
        agree = all(row.agrees for row in rows if row.strategy == "structured")
        assert agree == (subject.name == "numpy")


def test_a_port_that_loads_only_once_is_compared_here(tmp_path: Path) -> None:
    who = subjects(write(tmp_path, "once", ONLY_ONCE.format(path=str(tmp_path / "made"))))
    assert compare(who) == compare(who, side_by_side=False)


@pytest.mark.parametrize("name", ["get_context", "ProcessPoolExecutor", "start_method"])
def test_where_no_process_can_be_started_they_are_compared_here(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    who = subjects()
    monkeypatch.setattr(worker_processes, name, fail)
    assert compare(who) == compare(who, side_by_side=False)


@two_cores
def test_stdout_is_the_commands_whatever_a_port_prints(tmp_path: Path) -> None:
    path = write(tmp_path, "noisy", NOISY)
    done = run_python(COMPARE, *QUICK, "--dtype", "float32", "--port", path, "--json")
    assert done.returncode == AGREES, done.stderr
    assert {row["backend"] for row in json.loads(done.stdout)["agreement"]} == {"numpy", "noisy"}
    assert "by the system" in done.stderr
    done = run_python("-E", COMPARE, *QUICK, "--dtype", "float32", "--port", path)  # nothing is preloaded
    assert ("by the system" in done.stdout, "by the system" in done.stderr) == (False, True)


def test_what_takes_longest_begins_first(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def call(count: int, calls: list[tuple[Any, ...]], show: object) -> list[Future[Any]]:
        begun.extend(f"{call[2].name} {call[2].dtype}" for call in calls)
        futures: list[Future[Any]] = [Future() for _ in calls]
        for future, call in zip(futures, calls, strict=True):
            future.set_result([call[2].name])
        return futures

    monkeypatch.setattr(comparisons, "_call_in_workers", call)
    port = ports.load("numpy")
    who = [Subject(name, port, dtype, "cpu") for name in ("numpy", "jax", "other") for dtype in DTYPES]
    assert compare(who) == [["numpy"], ["numpy"], ["jax"], ["jax"], ["other"], ["other"]]
    assert [name.split()[0] for name in begun] == ["jax", "jax", "other", "other", "numpy", "numpy"]


@pytest.mark.parametrize("why", ["one core", "one subject", "a GPU", "ranks", "in a child process", "not asked for"])
def test_they_are_compared_here(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    who = subjects()
    if why == "one core":
        monkeypatch.setattr(comparisons, "usable_cores", lambda: 1)
    if why == "one subject":
        del who[1:]
    if why == "a GPU":
        who[1] = who[1]._replace(device="cuda")
    if why == "ranks":
        monkeypatch.setattr("comparison.commands.processes.count", lambda: 2)
    if why == "in a child process":
        monkeypatch.setattr(comparisons, "parent_process", lambda: object())
    here = object()
    monkeypatch.setattr(comparisons, "_call_in_workers", None)
    monkeypatch.setattr(comparisons, "_compare", lambda *_: here)
    assert compare(who, side_by_side=why != "not asked for") == [here] * len(who)


@pytest.mark.parametrize("by_caller", [True, False])
def test_the_collector_is_left_as_the_caller_had_it(by_caller: bool) -> None:
    try:
        if by_caller:
            gc.freeze()
        with undisturbed():
            assert gc.get_freeze_count() > 0
        assert (gc.get_freeze_count() > 0) == by_caller
    finally:
        gc.unfreeze()
