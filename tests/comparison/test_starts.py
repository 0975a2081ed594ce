"""First calls and whole runs, on contenders of known cost whose clock is a number."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ports
from command_lines import ROOT
from comparison import worker_processes
from comparison.agreement.comparison import Subject, random_problem
from comparison.timing import starts
from comparison.timing.fresh_process import call_in_fresh_process
from comparison.timing.recommendation import Timing, advise
from comparison.timing.rounds import Interval
from comparison.timing.run_costs import RunCosts, pieces_of_run
from comparison.timing.starts import (
    REPEAT_SECONDS,
    first_call,
    measure_start,
    run_from_nothing,
    start_of_run,
    time_run,
)
from comparison.timing.workloads import Task
from reference.datasets import load
from reference.defaults import CLOSED_FORM
from reference.two_layer_net import Params
from timings import contender


def task(what: str = "step", batch: int = 60, **changes: Any) -> Task:
    data = load("random")
    net = random_problem(data.x_train, data.t_train, hidden=3, samples=batch, seed=0)
    return replace(Task(what, net, data, partial(load, "random", seed=0)), **changes)


class Clock:
    """A clock that only moves when a contender works."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        patch.setattr("time.perf_counter", lambda: self.now)


class KnownPort(SimpleNamespace):
    """A port that does nothing, for as long as it is told; it compiles for each number of steps and each data set."""

    GRADIENTS: dict[str, Any] = {"collocated": None}  # noqa: RUF012, as ports have it

    def __init__(self, clock: Clock, compilation: float, call: float, step: float, evaluation: float) -> None:
        super().__init__(clock=clock, compilation=compilation, call=call, step=step, evaluation=evaluation)
        self.compiled: set[object] = set()

    def devices(self) -> tuple[str]:
        return ("cpu",)

    def from_numpy(self, array: np.ndarray, *, dtype: str, device: str) -> np.ndarray:
        return array

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(array)

    def synchronize(self, result: Any) -> Any:
        return result

    def train_steps(self, params: Params, x: Any, t: Any, batches: np.ndarray, **_: Any) -> tuple[Params, np.ndarray]:
        self.compile(len(batches))
        self.clock.now += self.call + len(batches) * self.step
        return params, np.ones(len(batches))

    def accuracy(self, params: Params, x: np.ndarray, t: Any) -> np.ndarray:
        self.compile(("accuracy", len(x)))
        self.clock.now += self.evaluation / 2  # of two sets
        return np.array(0.5)

    def compile(self, what: object) -> None:
        if what not in self.compiled:
            self.compiled.add(what)
            self.clock.now += self.compilation


COSTS = {
    "quick to start": (0.0, 1e-5, 1e-3, 1e-4),
    "in between": (0.03, 1e-4, 4e-4, 1e-4),
    "compiled": (1.0, 1e-3, 1e-4, 1e-3),
    "fast steps, slow accuracies": (0.0, 1e-5, 9e-5, 2e-2),
    "slow calls": (0.02, 6e-3, 1e-4, 1e-3),
    "slow steps": (0.0, 1e-3, 0.4, 1e-3),
}
"""Seconds of compilation, of a call, of a step and of an evaluation."""


@pytest.mark.parametrize("costs", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("steps", [1, 2, 16, 17, 100, 10_000])
def test_the_time_of_a_run_is_that_of_whole_runs(
    costs: tuple[float, ...], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the pieces: 16 steps of 60 samples are an epoch of 1,000."""
    clock = Clock(monkeypatch)
    start = start_of_run(Subject("known", KnownPort(clock, *costs), "float64", "cpu"), "collocated", task())
    subject = Subject("known", KnownPort(clock, *costs), "float64", "cpu")
    began = clock.now
    list(run_from_nothing(subject.port, subject, "collocated", task(iterations=steps)))
    assert start.run is not None
    assert start.run.total(steps, costs[2]) == pytest.approx(clock.now - began)
    assert start.first_call_s == pytest.approx(sum(costs[:3]))
    call = sum(costs[1:3])
    assert start.step_s == pytest.approx(call if call > REPEAT_SECONDS else max(costs[2], call / 32))


def test_break_even_names_the_first_of_whole_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the fastest steps come with slow evaluations, or after a long compilation."""
    clock, timed = Clock(monkeypatch), []
    best = min(step for _, _, step, _ in COSTS.values())
    whole: dict[int, dict[str, float]] = {1: {}, 100: {}, 10_000: {}, 1_000_000: {}}
    for name, costs in COSTS.items():
        subject = Subject(name, KnownPort(clock, *costs), "float64", "cpu")
        start = start_of_run(subject, "collocated", task())
        c = contender(name, first=start.first_call_s)._replace(run=start.run)
        ratio = Interval(*[costs[2] / best] * 3)
        timed.append(Timing(c, Interval(*[costs[2]] * 3), ratio, None, 30, 1.0))
        for steps in (1, 100, 10_000):
            fresh, began = Subject(name, KnownPort(clock, *costs), "float64", "cpu"), clock.now
            list(run_from_nothing(fresh.port, fresh, "collocated", task(iterations=steps)))
            whole[steps][name] = clock.now - began
    (advice,) = advise(timed, task(), "7-5-3")
    firsts = {steps: verdict.first.contender.backend for steps, verdict in advice.runs.items()}
    assert len(set(firsts.values())) > 2
    assert {steps: firsts[steps] for steps in (1, 100, 10_000)} == {
        steps: min(times, key=times.__getitem__) for steps, times in whole.items() if times
    }
    assert advice.steady is not None
    assert advice.steady.first.contender.backend == "fast steps, slow accuracies"


def test_a_run_of_one_step_is_the_one_that_was_measured() -> None:
    costs = RunCosts(one_step=7.0, call=3.0, two_steps=20.0, evaluation=0.5, pieces=(16, 100))
    assert costs.total(1, 2.0) == 7.0
    assert costs.total(2, 2.0) == 9.0
    assert costs.total(17, 2.0) == 7.0 + 16 * 2 + 1 + 15 + 0.5  # a second call, of another length, and an epoch's end


@pytest.mark.parametrize(
    ("iterations", "pieces"),
    [(1, (1, 1, 2)), (16, (2, 1, 2)), (17, (3, 2, 3)), (40, (5, 1, 4)), (10_000, (1250, 1, 626))],
)
def test_the_pieces_of_a_run(iterations: int, pieces: tuple[int, int, int]) -> None:
    """Of epochs of 16 steps, in pieces of 8."""
    assert pieces_of_run(iterations, 16, 8) == pieces


@pytest.mark.parametrize("strategy", [CLOSED_FORM, "collocated"])
@pytest.mark.parametrize("what", ["gradient", "step"])
def test_a_start_is_measured_in_another_process(what: str, strategy: str) -> None:
    subject = Subject("numpy", ports.load("numpy"), "float32", "cpu", "numpy")
    start = measure_start(subject, strategy, task(what))
    assert start.first_call_s > 0
    assert start.process_s > 0
    assert (start.run is not None) == (what == "step" and strategy == "collocated")
    if start.run:
        assert start.run.one_step > start.first_call_s
        assert start.run.evaluation > 0


def _state() -> tuple[int, dict[str, str | None]]:
    import os

    names = ("JAX_ENABLE_COMPILATION_CACHE", "TORCHINDUCTOR_CACHE_DIR", "NUMBA_CACHE_DIR")
    return os.getpid(), {name: os.environ.get(name) for name in names}


def test_nothing_compiled_is_reused() -> None:
    """Each call has a process of its own, where JAX leaves its cache alone and the others have an empty one."""
    before = _state()
    (one, variables), (other, others) = (call_in_fresh_process(_state) for _ in range(2))
    assert len({one, other, before[0]}) == 3
    assert variables["JAX_ENABLE_COMPILATION_CACHE"] == others["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    for name in ("TORCHINDUCTOR_CACHE_DIR", "NUMBA_CACHE_DIR"):
        assert len({variables[name], others[name], before[1][name]}) == 3
        assert not Path(str(variables[name])).exists()
    assert _state() == before


def test_nothing_compiled_by_torch_is_reused() -> None:
    """PyTorch reads some variables as it is imported, before the process is forked."""
    pytest.importorskip("torch")
    assert len({call_in_fresh_process(_inductor_cache) for _ in range(2)}) == 2


def _inductor_cache() -> str:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return cache_dir()


def _jax_cache() -> bool:
    import jax

    return bool(jax.config.jax_enable_compilation_cache)


def test_jax_has_no_cache_there_though_it_was_imported_before() -> None:
    pytest.importorskip("jax")
    worker_processes.preload(["jax"])
    assert not call_in_fresh_process(_jax_cache)


def test_a_run_is_all_iterations_and_its_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """On data that are loaded anew, in the dtype of the run, from the chapter's initial net."""
    steps: list[Any] = []
    port = ports.load("numpy")
    real = port.train_steps

    def train_steps(params: Params, x: Any, t: Any, batches: np.ndarray, **options: Any) -> Any:
        steps.append((x.dtype, len(batches), options["strategy"], options["learning_rate"]))
        return real(params, x, t, batches, **options)

    monkeypatch.setattr(port, "train_steps", train_steps)
    whole = task("run", data=None, seed=3, iterations=20)
    assert starts._time_run("numpy", "float32", "cpu", "structured", whole).seconds > 0
    assert steps == [(np.float32, 16, "structured", 0.1), (np.float32, 4, "structured", 0.1)]


def test_a_run_in_another_process_takes_time() -> None:
    subject = Subject("numpy", ports.load("numpy"), "float64", "cpu", "numpy")
    assert time_run(subject, "collocated", task("run", iterations=2)).seconds > 0


def test_data_that_were_changed_are_sent_along() -> None:
    """Others are loaded there: 376 MB of MNIST would be pickled for each contender."""
    subject = Subject("numpy", ports.load("numpy"), "float64", "cpu")
    known = task()
    known.extended_gradient("float64")
    assert starts._described(subject, "collocated", known)[-1] == replace(known, data=None, extended={})
    changed = replace(known, redrawn=True)
    assert starts._described(subject, "collocated", changed)[-1].data is known.data


def test_the_peak_is_what_the_call_takes() -> None:
    if starts.reset_peak() is None:
        pytest.skip("the system does not tell the peak of a call")
    _, peak = first_call(lambda: np.ones(2**24).sum())
    assert peak is not None
    assert 0.9 * 2**27 < peak < 1.5 * 2**27


def test_a_call_that_takes_no_memory_has_a_peak_of_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "_resident_bytes", lambda *_: 7)
    monkeypatch.setattr("pathlib.Path.write_text", lambda *_: 1)
    assert first_call(lambda: None)[1] == 0


def test_where_the_system_does_not_tell_there_is_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.write_text", refused)
    assert first_call(lambda: None)[1] is None


def test_memory_is_told_in_kibibytes(tmp_path: Any) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t      20 kB\nVmRSS:\t      12 kB\n")
    assert starts._resident_bytes(tmp_path / "status", "VmRSS") == 12 * 1024


def test_another_package_of_the_same_name_is_not_taken(tmp_path: Any) -> None:
    """A user's folder may have a `comparison` of its own, which fdnet's console command does not take either."""
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "__init__.py").write_text("raise ImportError('not this one')\n")
    script = tmp_path / "run.py"
    script.write_text(
        f"import sys\n\nsys.path.append({str(ROOT)!r})\nimport fdnet\n\nif __name__ == '__main__':\n"
        "    sys.exit(fdnet.main())\n"
    )
    small = ("--data", "random", "--batch", "6", "--hidden", "3", "--backend", "numpy", "--dtype", "float64")
    command = [sys.executable, str(script), "speed", *small, "--budget", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "excluded" not in done.stdout
    assert "numpy float64" in done.stdout
