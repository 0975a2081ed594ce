from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.comparison import Subject, random_problem
from comparison.timing import workloads
from comparison.timing.errors import extended_gradient, relative_error
from comparison.timing.other_libraries import LIBRARIES, make_library_contenders
from comparison.timing.rounds import Reading
from comparison.timing.workloads import SAMPLED, Task, first_call, make_contender
from reference.datasets import load
from reference.defaults import CLOSED_FORM
from reference.two_layer_net import Params


def task(what: str, hidden: int = 3, iterations: int = 20) -> Task:
    data = load("random")
    net = random_problem(data.x_train, data.t_train, hidden=hidden, samples=6, seed=0)
    return Task(what, net, data, "random", iterations=iterations)


def subject(dtype: str = "float64") -> Subject:
    return Subject("numpy", ports.load("numpy"), dtype, "cpu", "numpy")


@pytest.mark.parametrize("what", ["gradient", "step", "run"])
@pytest.mark.parametrize("strategy", [CLOSED_FORM, "collocated"])
def test_a_clock_reads(what: str, strategy: str) -> None:
    contender = make_contender(subject(), strategy, task(what))
    reading = contender.clock()
    assert reading.seconds > 0
    assert reading.cpu_seconds > 0
    assert (contender.first_call_s is None) == (what == "run")
    assert contender.estimated is None
    assert contender.ranked == (strategy != CLOSED_FORM)


@pytest.mark.parametrize("strategy", ["loop", "batched"])
def test_a_sample_of_parameters_is_scaled_up(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that counts parameters in place of seconds reads all of them, and N times as many in a run of N."""
    net = task("gradient", hidden=64)
    seen: list[int] = []
    port = ports.load("numpy")

    def counting(
        params: Params,
        x: np.ndarray,
        t: np.ndarray,
        *,
        h: float = 1e-4,
        memory: float = 1,
        entries: Params | None = None,
    ) -> Params:
        assert entries is not None
        seen.append(sum(at.size for at in entries))
        assert all(np.unique(at).size == at.size for at in entries)
        assert all((at >= 0).all() and (at < p.size).all() for at, p in zip(entries, params, strict=True))
        return Params(*(np.zeros(at.size) for at in entries))

    monkeypatch.setitem(port.GRADIENTS, strategy, counting)
    contender = make_contender(subject(), strategy, net)
    count, total = SAMPLED[strategy], sum(p.size for p in net.problem.params)
    assert contender.estimated == f"{count:,} of {total:,} parameters"
    assert set(seen) == {count}
    assert contender.error == 1.0  # zeros
    one, many = contender.clock(), make_contender(subject(), strategy, task("run", hidden=64, iterations=1000)).clock()
    assert many.seconds > 10 * one.seconds


def test_a_clock_is_of_all_parameters_and_of_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that takes a second, of a sample: the whole takes as much longer as there are more parameters."""
    monkeypatch.setattr(workloads, "calibrate", lambda call: lambda: Reading(1.0, 2.0))
    for what, steps in (("gradient", 1), ("step", 1), ("run", 1000)):
        net = task(what, hidden=64, iterations=1000)
        share = SAMPLED["loop"] / sum(p.size for p in net.problem.params)
        assert make_contender(subject(), "loop", net).clock() == pytest.approx((steps / share, 2 * steps / share))


def test_a_step_is_a_share_of_the_call_and_the_first_call_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    port = ports.load("numpy")

    def train_steps(params: Params, x: np.ndarray, t: np.ndarray, batches: np.ndarray, **_: object) -> None:
        steps.append(len(batches))

    def first_call(call: Callable[[], object]) -> tuple[float, None]:
        assert steps == []
        call()
        return 1.0, None

    def read(call: Callable[[], object], repetitions: int = 1, units: float = 1.0) -> Reading:
        call()
        return Reading(0.03 / units, 0.03 / units)  # for 16 steps: so it takes 64 of them for a tenth of a second

    monkeypatch.setattr(port, "train_steps", train_steps)
    monkeypatch.setattr(workloads, "first_call", first_call)
    monkeypatch.setattr(workloads, "read", read)
    assert make_contender(subject(), "collocated", task("step")).clock().seconds == 0.03 / 4
    assert steps == [1, 1, 1, 4, 4]


@pytest.mark.parametrize(("seconds", "steps"), [(0.3, 1), (0.025, 4), (0.004, 512), (1e-9, 1024)])
def test_a_call_of_steps_takes_a_tenth_of_a_second_but_no_more_steps_than_there_are_batches(
    seconds: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps_made: list[int] = []

    def read(call: Callable[[], object], units: float = 1.0) -> Reading:
        call()
        return Reading(seconds, seconds)

    monkeypatch.setattr(workloads, "read", read)
    workloads.step_clock(steps_made.append)
    assert steps_made == ([1, 1, 16, 16, 16, steps] if seconds < 0.1 / 16 else [1, 1, steps])


def test_few_parameters_are_all_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    few = task("gradient")
    assert make_contender(subject(), "loop", few).estimated is None
    total = sum(p.size for p in few.problem.params)
    monkeypatch.setitem(SAMPLED, "loop", total / 4)
    assert make_contender(subject(), "loop", few).estimated is None


def test_the_sample_is_the_same_every_time() -> None:
    def sample(seed: int) -> list[list[int]]:
        return [entry.tolist() for entry in workloads._sample_entries("loop", replace(large, seed=seed)) or ()]

    large = task("gradient", hidden=64)
    assert sample(0) == sample(0) != sample(1)


@pytest.mark.parametrize("what", ["gradient", "step"])
def test_the_peak_is_that_of_the_first_call(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_call(call: Callable[[], object]) -> tuple[float, int]:
        call()
        return 3.0, 7

    monkeypatch.setattr(workloads, "first_call", first_call)
    assert make_contender(subject(), "collocated", task(what))[5:7] == (3.0, 7)


class Asked(list[Any]):
    """What NumPy's `train_steps` and `synchronize` are given."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(ports.load("numpy"), "train_steps", self.train_steps)
        patch.setattr(ports.load("numpy"), "synchronize", self.synchronize)

    def train_steps(self, params: Params, x: Any, t: Any, batches: Any, **options: Any) -> str:
        self.append(((params, x, t, batches), options))
        return "net"

    def synchronize(self, result: Any) -> None:
        self.append(result)


def test_what_a_step_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first samples only, all of them in some batch; and it is waited for."""
    monkeypatch.setattr(workloads, "STEP_SAMPLES", 5)
    asked, few = Asked(monkeypatch), replace(task("step"), h=1e-3, memory=1e6)
    make_contender(subject("float32"), "collocated", few)
    ((params, x, t, batches), options), waited, *_ = asked
    assert waited == "net"
    assert params.W1.dtype == x.dtype == np.float32
    np.testing.assert_array_equal(x, few.data.x_train[:5].astype(np.float32))
    np.testing.assert_array_equal(t, few.data.t_train[:5])
    assert batches.shape == (1, 6)
    assert set(batches.ravel().tolist()) == {0, 1, 2, 3, 4}
    assert options == {"strategy": "collocated", "learning_rate": 0.1, "h": 1e-3, "memory": 1e6}


def test_batches_are_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    for seed in (0, 0, 1):
        workloads.make_train(subject(), CLOSED_FORM, replace(task("step"), seed=seed))(9)
    one, same, other = (call[0][3].tolist() for call in asked[::2])
    assert one == same != other


def test_a_run_is_all_iterations_on_data_that_are_loaded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, whole = Asked(monkeypatch), replace(task("run"), data=None, seed=3)
    assert workloads._time_run("numpy", "float32", "cpu", "structured", whole).seconds > 0
    ((_, x, t, batches), options), waited = asked
    data = load("random", seed=3)
    np.testing.assert_array_equal(x, data.x_train.astype(np.float32))
    np.testing.assert_array_equal(t, data.t_train)
    assert (batches.shape, options["strategy"], waited) == ((20, 6), "structured", "net")


def test_a_run_has_one_process_of_its_own_which_is_given_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    class Here:
        def __init__(self, workers: int, mp_context: Any) -> None:
            started.append((workers, mp_context.get_start_method()))

        def __enter__(self) -> "Here":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def submit(self, function: Callable[..., Reading], *args: Any) -> "Here":
            started.append((function, *args))
            return self

        def result(self) -> Reading:
            return Reading(1.0, 1.0)

    monkeypatch.setattr(workloads, "ProcessPoolExecutor", Here)
    known = task("run")
    known.extended_gradient("float64")
    make_contender(subject(), "collocated", known).clock()
    (workers, (function, *args, light)) = started
    assert workers == (1, "spawn")
    assert (function, *args) == (workloads._time_run, "numpy", "float64", "cpu", "collocated")
    assert light == replace(known, data=None, extended={})


def test_the_error_is_that_of_the_difference() -> None:
    """Of the closed form it is the truncation: a hundred times as much at ten times the step."""
    small, large = task("gradient"), task("gradient")
    object.__setattr__(large, "h", 1e-3)
    errors = [make_contender(subject(), CLOSED_FORM, one).error for one in (small, large)]
    assert errors[1] / errors[0] == pytest.approx(100, rel=0.01)
    for one in (small, large):
        assert make_contender(subject(), "collocated", one).error < 1e-14
    rounded = Params(*(p.astype(np.float32) for p in small.problem.params)), small.problem.x.astype(np.float32)
    got = ports.load("numpy").GRADIENTS["collocated"](*rounded, small.problem.t)
    error = make_contender(subject("float32"), "collocated", small).error
    assert error == relative_error(got, small.extended_gradient("float32"))
    assert 1e-9 < error < 1e-6


def test_relative_error() -> None:
    one = Params(np.ones(4), np.zeros(0), np.zeros(0), np.zeros(0))
    assert relative_error(one._replace(W1=np.full(4, 1.5)), one) == 0.5
    large, larger = (one._replace(W1=np.full(4, size, np.float32)) for size in (1e30, 1.5e30))
    assert relative_error(larger, large) == pytest.approx(0.5)  # squares that float32 does not hold
    zero = one._replace(W1=np.zeros(4))
    assert relative_error(zero, zero) == 0
    assert relative_error(one, zero) == np.inf


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell the peak of a call")
def test_the_peak_is_what_the_call_takes() -> None:
    _, peak = first_call(lambda: np.ones(2**24).sum())
    assert peak is not None
    assert 0.9 * 2**27 < peak < 1.5 * 2**27


def test_a_call_that_takes_no_memory_has_a_peak_of_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "_resident_bytes", lambda *_: 7)
    monkeypatch.setattr(Path, "write_text", lambda *_: 1)
    assert first_call(lambda: None)[1] == 0


def test_where_the_system_does_not_tell_there_is_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refused)
    assert first_call(lambda: None)[1] is None


def test_memory_is_told_in_kibibytes(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t      20 kB\nVmRSS:\t      12 kB\n")
    assert workloads._resident_bytes(tmp_path / "status", "VmRSS") == 12 * 1024


def test_peers_differentiate_the_same_loss() -> None:
    pytest.importorskip("scipy", minversion="1.15")
    small = task("gradient", hidden=1)
    contenders, not_run = make_library_contenders(small, budget=60.0)
    assert {row["backend"] for row in not_run} | {contender.backend for contender in contenders} == {
        library.name for library in LIBRARIES
    }
    for contender in contenders:
        assert not contender.ranked
        assert contender.error < (1e-3 if "approx_fprime" in contender.backend else 1e-6), contender.backend


def test_a_peer_that_would_take_long_does_not_run() -> None:
    pytest.importorskip("scipy")
    contenders, not_run = make_library_contenders(task("gradient"), budget=0.0)
    assert contenders == []
    assert all("would take about" in row["reason"] or "not installed" in row["reason"] for row in not_run)


def test_a_peer_that_would_take_all_memory_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    monkeypatch.setattr("comparison.timing.other_libraries.MAX_BYTES", 0)
    assert make_library_contenders(task("gradient"), budget=1e9)[0] == []


def test_truth_is_the_reference_at_more_digits() -> None:
    net = task("gradient").problem
    expected = ports.load("numpy").GRADIENTS["structured"](*net)
    for got, true in zip(expected, extended_gradient(net, 1e-4), strict=True):
        np.testing.assert_allclose(got, true.astype(float), rtol=0, atol=1e-14 * np.abs(true).max())
        assert true.dtype == np.longdouble


def test_truth_is_that_of_the_numbers_that_the_dtype_holds() -> None:
    one = task("gradient")
    for dtype in ("float64", "float32"):
        expected = extended_gradient(one.problem.rounded(dtype), one.h)
        assert all((g == e).all() for g, e in zip(one.extended_gradient(dtype), expected, strict=True))
