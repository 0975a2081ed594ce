"""What only JAX has: arrays that never change, a compiler that may be wrong, and settings that threads have each."""

import os
import re
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.comparison import Subject, disagreement_sentence
from comparison.agreement.kinds import draw
from comparison.agreement.training import check_training
from comparison.conformance.problems import loaded
from reference.defaults import CLOSED_FORM, DTYPES, STRATEGIES
from reference.two_layer_net import Params

ROOT = Path(ports.__file__).parents[1]


@pytest.fixture(scope="module")
def port() -> Any:
    return loaded("jax")


@pytest.fixture
def runtime(port: Any) -> Any:
    return import_module("ports.jax_port.runtime")


@pytest.fixture
def two_layer_net(port: Any) -> Any:
    return import_module("ports.jax_port.two_layer_net")


@pytest.fixture
def descent(port: Any) -> Any:
    return import_module("ports.jax_port.descent")


# --- arrays


def test_max_abs_of_an_array_is_computed_once_and_forgotten_with_it(
    port: Any, runtime: Any, two_layer_net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    on_host, max_abs = two_layer_net.max_abs_on_host, runtime.with_x64(two_layer_net.max_abs)
    monkeypatch.setattr(two_layer_net, "max_abs_on_host", lambda array: calls.append(array) or on_host(array))
    array = port.from_numpy(np.array([1.0, -3.0]), dtype="float64", device="cpu")
    key = id(array)
    on_device = runtime.with_x64(two_layer_net.compute_max_abs)
    assert [max_abs(array) for _ in range(3)] == [float(on_device(array))] * 3 == [3.0] * 3
    assert len(calls) == 1
    assert two_layer_net.MAX_ABS[key] == 3.0
    calls.clear()
    del array
    assert key not in two_layer_net.MAX_ABS


# --- the compiler


def test_this_build_compiles_the_canary_rightly(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more columns than the 5,000 from which on it has been compiled wrongly."""
    traced, right = [], runtime.canary_sum

    def canary_sum(d: Any) -> Any:
        traced.append((d.shape, str(d.dtype)))
        return right(d)

    monkeypatch.setattr(runtime, "canary_sum", canary_sum)
    runtime.with_x64(runtime.run_canary)(runtime.compiler_options())
    assert traced == [((3, 20_000), "float32"), ((3, 20_000), "float64")]


@pytest.fixture
def no_options_known(runtime: Any) -> Any:
    """Let the canary run again."""
    runtime.compiler_options.cache_clear()
    yield
    runtime.compiler_options.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rounding_errors", [300, None])
@pytest.mark.usefixtures("no_options_known")
def test_a_build_that_compiles_it_wrongly_in_one_dtype_is_not_run(
    runtime: Any, dtype: str, rounding_errors: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By 300 roundings; or to 0, as the fusion did that is turned off."""
    right = runtime.canary_sum
    factor, shown = (0, "by 1.") if rounding_errors is None else (1 + rounding_errors * np.finfo(dtype).eps / 2, "e-")
    monkeypatch.setattr(runtime, "canary_sum", lambda d: right(d) * (factor if d.dtype == dtype else 1))
    for _ in range(2):  # nor is it run when it is loaded again
        with pytest.raises(ports.NotRunError, match=rf"this build of jaxlib \(.*\) miscompiles expm1: .*{shown}"):
            ports.load("jax")


def test_importing_the_package_computes_nothing() -> None:
    """Several processes join before anything is computed: from then on their devices are fixed."""
    pytest.importorskip("jax", reason="jax not run: it is not installed")
    code = "import jax, ports.jax_port; jax.config.update('jax_num_cpu_devices', 3); print(ports.jax_port.devices())"
    command, environment = [sys.executable, "-c", code], os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "('cpu', 'cpu:1', 'cpu:2')\n"


# --- settings


def test_calls_that_overlap_in_two_threads_restore_each_its_own_setting(port: Any, runtime: Any) -> None:
    import jax
    import jax.numpy as jnp

    entered, leave = threading.Event(), threading.Event()

    @runtime.with_x64
    def call_elsewhere() -> None:
        entered.set()
        assert leave.wait(60)

    def with_64_bit_types() -> None:
        with jax.enable_x64(True):
            call_elsewhere()

    thread = threading.Thread(target=with_64_bit_types)

    @runtime.with_x64
    def call_here() -> None:
        thread.start()
        assert entered.wait(60)

    before = jnp.ones(1).dtype
    call_here()
    leave.set()
    thread.join()
    assert jnp.ones(1).dtype == before


# --- a GPU


@pytest.mark.parametrize("strategy", [*STRATEGIES, CLOSED_FORM])
def test_a_gpu_adds_nothing_by_atomics(
    strategy: str, port: Any, runtime: Any, descent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a repeated call would add in another order: what XLA is given for a GPU scatters no sums."""
    programs: list[str] = []

    def compiled(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            program = runtime.compiled(function)
            programs.append(program.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text())
            return program(*arguments)

        return call

    monkeypatch.setattr(descent, "compiled", compiled)
    params, x, t = draw((5, 6, 4, 3), 0)
    own = Params(*(port.from_numpy(p, dtype="float64", device="cpu") for p in params))
    x = port.from_numpy(x, dtype="float64", device="cpu")
    port.train_steps(own, x, t, np.arange(4).reshape(2, 2), strategy=strategy, learning_rate=0.1)
    (program,) = programs
    scatters = re.findall(r'"stablehlo.scatter".*?stablehlo.return', program, re.DOTALL)
    assert bool(scatters) == (strategy in ("loop", "batched", "structured"))  # what they read is not empty
    assert not [scatter for scatter in scatters if "stablehlo.add" in scatter]


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_added_by_a_product_as_by_a_scatter(dtype: str, port: Any, runtime: Any) -> None:
    numerical_gradient, rng = import_module("ports.jax_port.numerical_gradient"), np.random.default_rng(0)
    i, rows = rng.integers(0, 5, 40) * 2, rng.standard_normal((40, 3)).astype(dtype)
    expected = np.ones((9, 3))
    np.add.at(expected, i, rows)
    got = runtime.with_x64(numerical_gradient.multiply_rows)(np.ones((9, 3), dtype), i, rows)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=0, atol=50 * np.finfo(dtype).eps)


# --- training


def test_training_takes_the_strategy_that_is_named(descent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def by(strategy: str) -> Any:
        return descent.differentiate_by(strategy, 1e-4, 7, None, {"x": 1.0}, True)

    assert by(CLOSED_FORM) is descent.closed_form
    assert by("structured").func is descent.structured_gradient
    assert by("collocated").func is descent.collocated_gradient
    monkeypatch.setattr(descent, "loop_differences", lambda *arguments: "loop")
    monkeypatch.setattr(descent, "batched_differences", lambda *arguments: ("batched", *arguments[3:5]))
    monkeypatch.setattr(descent, "loss_of_labels", lambda *net: "loss")
    net = Params(*map(np.zeros, ((2, 1), 1, (1, 2), 2))), np.ones((1, 2)), np.zeros(1, int)
    assert by("loop")(*net) == ("loss", "loop")
    assert by("batched")(*net) == ("loss", ("batched", 1e-4, 7))


@pytest.mark.parametrize(("b1", "guards"), [(0.0, [False]), (-115.0, [False, True])])
def test_training_asks_again_where_float32_does_not_hold(
    b1: float, guards: list[bool], port: Any, runtime: Any, descent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of saturated units the slopes are beyond float32's range; W1 is large enough for products in float32."""
    called: list[bool] = []

    def compiled(function: Any) -> Any:
        program = runtime.compiled(function)
        return lambda *arguments: called.append(arguments[4]) or program(*arguments)

    monkeypatch.setattr(descent, "compiled", compiled)
    problem = draw((5, 101, 100, 3), 0)
    problem = problem._replace(params=problem.params._replace(b1=problem.params.b1 + b1))
    subject = Subject("jax", port, "float64", "cpu")
    for row in check_training(subject, problem, "collocated", 1e-4):
        assert row.agrees, disagreement_sentence(row)
    assert called == guards


@pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning")
def test_a_training_that_diverges_is_not_finite(port: Any) -> None:
    """However often it asks."""
    (params, x, t), rate = draw((5, 101, 100, 3), 0), 1e308
    own = Params(*(port.from_numpy(p, dtype="float64", device="cpu") for p in params))
    x = port.from_numpy(x, dtype="float64", device="cpu")
    trained, _ = port.train_steps(own, x, t, np.zeros((4, 5), int), strategy="collocated", learning_rate=rate)
    assert not np.isfinite(port.to_numpy(trained.W2)).all()


def test_weights_that_are_not_finite_are_not_planned_for(descent: Any) -> None:
    largest = [descent.largest_finite(np.array(v)) for v in ([1.0, 3.0, np.inf, np.nan], [np.nan], [2.0, 1.0])]
    assert largest == [3.0, 0.0, 2.0]
