"""What a caller has set in a framework neither changes a result nor is changed, from several threads at once either."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.comparison import Subject
from comparison.conformance.calls import BATCHES, FUNCTIONS, Call, good_call, on_backend, prepare
from comparison.conformance.problems import loaded
from reference.defaults import DTYPES, STRATEGIES
from reference.two_layer_net import Params, init

ROOT = Path(__file__).parents[2]
Setting = Callable[[], AbstractContextManager[Any]]


def steep_call() -> Call:
    """Return a call some of whose numbers underflow on the way, and overflow in float32."""
    call = good_call()
    params = call.params._replace(W1=call.params.W1 * 1e3, b1=call.params.b1 - 800.0, W2=call.params.W2 * 400.0)
    return call._replace(params=params)


def bits(subject: Subject) -> list[bytes]:
    """Call each function of a port, and each strategy of train_steps; return the bits of all that they return."""
    results: list[Any] = []
    for call in (on_backend(subject, good_call()), on_backend(subject, steep_call())):
        calls = [(name, call) for name in FUNCTIONS]
        calls += [("train_steps", call._replace(options={"strategy": strategy})) for strategy in STRATEGIES]
        for name, changed in calls:
            function, arguments, options = prepare(subject, changed, name)
            results += list(arrays_in(function(*arguments, **options)))
    return [subject.port.to_numpy(array).tobytes() for array in results]


def arrays_in(result: Any) -> Iterator[Any]:
    if isinstance(result, tuple):
        for part in result:
            yield from arrays_in(part)
    else:
        yield result


# --- settings: each is a context that makes one


@contextmanager
def assigned(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def called(set_it: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    set_it(value)
    try:
        yield
    finally:
        set_it(before)


def numpy_settings() -> dict[str, Setting]:
    def fail(*_: object) -> None:
        raise AssertionError("NumPy called the caller's handler")

    return {
        "errstate(all=raise)": lambda: np.errstate(all="raise"),
        "errstate(all=call)": lambda: np.errstate(all="call", call=fail),
        "errstate(all=ignore)": lambda: np.errstate(all="ignore"),
        "printoptions": lambda: np.printoptions(precision=1, threshold=0, legacy="1.13"),
        "setbufsize": lambda: called(np.setbufsize, 64, np.getbufsize()),
        "warnings are errors": warnings_are_errors,
    }


@contextmanager
def warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def numpy_state() -> Any:
    return np.geterr(), np.geterrcall(), np.getbufsize(), str(np.get_printoptions()), str(np.random.get_state())


def torch_settings() -> dict[str, Setting]:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return function(*args, **(kwargs or {}))

    @contextmanager
    def functorch_level(kind: str) -> Iterator[None]:
        functions = torch._C._functorch
        up, down = {
            "grad": (functions._grad_increment_nesting, functions._grad_decrement_nesting),
            "vmap": (lambda: functions._vmap_increment_nesting(3, "error"), functions._vmap_decrement_nesting),
            "jvp": (functions._jvp_increment_nesting, functions._jvp_decrement_nesting),
        }[kind]
        up()
        try:
            yield
        finally:
            down()

    backends: Any = torch.backends
    matmul, mkldnn = backends.cuda.matmul, backends.mkldnn
    deterministic = torch.are_deterministic_algorithms_enabled()
    return {
        "autocast(cpu, bfloat16)": lambda: torch.autocast("cpu"),
        "autocast(cpu, float16)": lambda: torch.autocast("cpu", torch.float16),
        "autocast(cuda)": lambda: called(lambda on: torch.set_autocast_enabled("cuda", on), True, False),
        "default dtype float16": lambda: called(torch.set_default_dtype, torch.float16, torch.get_default_dtype()),
        "default dtype float64": lambda: called(torch.set_default_dtype, torch.float64, torch.get_default_dtype()),
        "default device meta": lambda: torch.device("meta"),
        "set_default_device(meta)": lambda: called(torch.set_default_device, "meta", None),
        "cuda.matmul tf32": lambda: assigned(matmul, "fp32_precision", "tf32"),
        "mkldnn.matmul bf16": lambda: assigned(mkldnn.matmul, "fp32_precision", "bf16"),
        "backends.fp32_precision tf32": lambda: assigned(torch.backends, "fp32_precision", "tf32"),
        "inference mode": torch.inference_mode,
        "grad mode": torch.enable_grad,
        "no_grad": torch.no_grad,
        "functorch grad": lambda: functorch_level("grad"),
        "functorch vmap": lambda: functorch_level("vmap"),
        "functorch jvp": lambda: functorch_level("jvp"),
        "forward AD": torch.autograd.forward_ad.dual_level,
        "dispatch mode": Mode,
        "deterministic": lambda: called(torch.use_deterministic_algorithms, True, deterministic),
        "anomaly mode": lambda: torch.autograd.set_detect_anomaly(True),
        "num_threads": lambda: called(torch.set_num_threads, 1, torch.get_num_threads()),
        "sparse invariants": torch.sparse.check_sparse_tensor_invariants,
    }


def torch_state() -> Any:
    import torch

    backends: Any = torch.backends
    return (
        [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
        (torch.get_default_dtype(), torch.get_default_device()),
        [(s, s.fp32_precision) for s in (backends, backends.cuda.matmul, backends.mkldnn, backends.mkldnn.matmul)],
        (torch.is_inference_mode_enabled(), torch.is_grad_enabled()),
        (torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled(), torch.get_num_threads()),
        (torch._C._functorch.maybe_current_level(), torch.get_rng_state().tolist()),
    )


def jax_settings() -> dict[str, Setting]:
    import jax
    from jax._src import config

    contexts: dict[str, tuple[Any, Any]] = {
        "enable_x64": (jax.enable_x64, True),
        "transfer_guard": (jax.transfer_guard, "disallow_explicit"),
        "transfer_guard_host_to_device": (jax.transfer_guard_host_to_device, "disallow"),
        "transfer_guard_device_to_host": (jax.transfer_guard_device_to_host, "disallow"),
        "numpy_rank_promotion": (jax.numpy_rank_promotion, "raise"),
        "numpy_dtype_promotion": (jax.numpy_dtype_promotion, "strict"),
        "default_matmul_precision": (jax.default_matmul_precision, "bfloat16"),
        "debug_nans": (jax.debug_nans, True),
        "debug_infs": (jax.debug_infs, True),
        "disable_jit": (jax.disable_jit, True),
        "default_device": (jax.default_device, jax.devices("cpu")[-1]),
        "checking_leaks": (config.check_tracer_leaks, True),
        "log_compiles": (jax.log_compiles, True),
        "debug_key_reuse": (jax.debug_key_reuse, True),
        "threefry_partitionable": (jax.threefry_partitionable, False),
        "set_mesh": (jax.set_mesh, jax.make_mesh((1,), ("a",))),
        "explicit_x64_dtypes": (config.explicit_x64_dtypes, config.ExplicitX64Mode.ERROR),
    }
    values = {
        "jax_transfer_guard": "disallow",
        "jax_enable_x64": True,
        "jax_numpy_rank_promotion": "raise",
        "jax_numpy_dtype_promotion": "strict",
        "jax_default_matmul_precision": "bfloat16",
        "jax_debug_nans": True,
        "jax_disable_jit": True,
        "jax_check_tracer_leaks": True,
        "jax_default_device": jax.devices("cpu")[-1],
        "jax_enable_checks": True,
    }
    settings: dict[str, Setting] = {name: lambda c=c, v=v: c(v) for name, (c, v) in contexts.items()}
    for name, value in values.items():
        settings[name] = lambda n=name, v=value: called(
            lambda new: jax.config.update(n, new), v, getattr(jax.config, n)
        )
    return settings


def jax_state() -> Any:
    import jax
    import jax.numpy as jnp

    values = [getattr(jax.config, name) for name in dir(jax.config) if name.startswith("jax_")]
    return values, jnp.result_type(float), jax.sharding.get_mesh()


TABLES = {"numpy": numpy_settings, "torch": torch_settings, "jax": jax_settings}
STATES = {"numpy": numpy_state, "torch": torch_state, "jax": jax_state}


def settings_of(backend: str) -> dict[str, Setting]:
    """Return the settings of the backend's framework and of NumPy, which checks the arguments of every port."""
    return numpy_settings() | (TABLES[backend]() if backend != "numpy" else {})


@pytest.fixture(scope="module", params=[(name, dtype) for name in TABLES for dtype in DTYPES], ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Subject, list[bytes]]:
    """Return a port in a dtype, and the bits of its results under the framework's own settings."""
    backend, dtype = request.param
    subject = Subject(backend, loaded(backend), dtype, "cpu")
    return subject, bits(subject)


def test_a_setting_neither_changes_a_result_nor_is_changed(case: tuple[Subject, list[bytes]]) -> None:
    subject, expected = case
    faults = []
    for name, setting in settings_of(subject.name).items():
        with setting():
            before = str(STATES[subject.name]())
            try:
                same = bits(subject) == expected
            except Exception as error:
                faults.append(f"{name}: {type(error).__name__}: {error}")
                continue
            if not same or str(STATES[subject.name]()) != before:
                faults.append(f"{name}: " + ("the setting has changed" if same else "other bits"))
    assert not faults, "\n".join(faults)


def test_two_threads_do_not_disturb_each_other(case: tuple[Subject, list[bytes]]) -> None:
    """One thread is within the setting; where that is the thread's own, the other has the framework's default."""
    subject, expected = case
    faults = []
    for name, setting in settings_of(subject.name).items():
        with setting(), ThreadPoolExecutor(1) as other:
            before = str(STATES[subject.name]())
            running = other.submit(loss_bits, subject)
            outcomes = [loss_bits(subject) == expected[1], running.result() == expected[1]]
            if outcomes != [True, True] or str(STATES[subject.name]()) != before:
                faults.append(f"{name}: {outcomes}")
    assert not faults, "\n".join(faults)


def loss_bits(subject: Subject) -> bytes:
    """Return the bits of a loss, the second result of `bits`, computed several times."""
    call = on_backend(subject, good_call())
    losses = {subject.port.to_numpy(subject.port.loss(*call[:3])).tobytes() for _ in range(20)}
    return losses.pop() if len(losses) == 1 else b""


def test_the_precision_of_torch_is_restored_by_the_last_call_that_ends() -> None:
    loaded("torch")
    import torch

    from ports.torch_port.runtime import isolated

    backends: Any = torch.backends
    matmul = backends.mkldnn.matmul
    entered, leave = threading.Event(), threading.Event()

    @isolated
    def wait() -> None:
        entered.set()
        leave.wait()

    with assigned(matmul, "fp32_precision", "bf16"):
        thread = threading.Thread(target=wait)
        thread.start()
        entered.wait()
        isolated(lambda: None)()  # entered later, ended earlier
        assert matmul.fp32_precision == "ieee"
        leave.set()
        thread.join()
        assert matmul.fp32_precision == "bf16"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_subnormals_are_kept_where_the_caller_has_them_flushed(backend: str, dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="torch not run: it is not installed")
    subject, good = Subject(backend, loaded(backend), dtype, "cpu"), good_call()
    scale = np.where(np.arange(good.x.shape[1]) == 0, float(np.finfo(dtype).smallest_normal) / 100, 1)
    small = good._replace(x=good.x * scale)

    def small_bits() -> list[bytes]:
        call = on_backend(subject, small)
        gradients = (subject.port.gradient, *(subject.port.GRADIENTS[name] for name in ("structured", "collocated")))
        small_parts = [call.x[:, 0], *(gradient(*call[:3]).W1[0] for gradient in gradients)]
        return [subject.port.to_numpy(array).tobytes() for array in small_parts]

    expected = small_bits()
    assert any(expected[0])
    assert any(expected[1])
    with called(torch.set_flush_denormal, True, False):
        assert small_bits() == expected
        assert sys.float_info.min / 2 == 0


def test_what_a_call_returns_in_inference_mode_can_be_changed_later() -> None:
    port: Any = loaded("torch")
    import torch

    call = on_backend(Subject("torch", port, "float64", "cpu"), good_call())
    with torch.inference_mode():
        y = port.predict(call.params, call.x)
    y += 1
    assert not y.is_inference()


def test_a_call_within_the_callers_torch_compile_is_not_compiled() -> None:
    port: Any = loaded("torch")
    import torch

    subject, graphs = Subject("torch", port, "float64", "cpu"), []

    def keep(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda z: (bits(subject), z + 1), backend=keep)
    assert compiled(torch.ones(1))[0] == bits(subject)
    assert {node.target for graph in graphs for node in graph.graph.nodes if node.op.startswith("call")} <= {add}


@pytest.mark.parametrize("transform", ["jit", "grad", "vmap"])
def test_a_call_within_a_transform_of_jax_computes_at_once(transform: str) -> None:
    port: Any = loaded("jax")
    import jax

    subject = Subject("jax", port, "float64", "cpu")
    call, results = on_backend(subject, good_call()), []

    def traced(z: Any) -> Any:
        results.append([port.loss(*call[:3]), port.GRADIENTS["collocated"](*call[:3])])
        results[-1].append(port.train_steps(*call[:3], BATCHES, strategy="collocated", learning_rate=0.1))
        return z

    traced(1.0)
    z = jax.numpy.ones(2) if transform == "vmap" else 1.0
    getattr(jax, transform)(traced)(z)
    expected, got = ([np.asarray(a).tobytes() for a in jax.tree.leaves(result)] for result in results)
    assert got == expected


def test_a_warning_within_a_transform_of_jax_names_the_callers_line() -> None:
    port: Any = loaded("jax")
    import jax

    arrays = (*init(2, 2, 2, 1.0, seed=0), np.full((1, 2), 900.0))
    *params, x = (port.from_numpy(array, dtype="float64", device="cpu") for array in arrays)
    with pytest.warns(RuntimeWarning, match="`collocated` needs more than 8 nodes") as warned:
        jax.jit(lambda z: (port.GRADIENTS["collocated"](Params(*params), x, [0], h=1.0), z)[1])(1.0)
    assert [warning.filename for warning in warned] == [__file__]


@pytest.mark.parametrize(
    "name", ["JAX_TRANSFER_GUARD", "JAX_DEBUG_NANS", "JAX_DISABLE_JIT", "JAX_NUMPY_RANK_PROMOTION"]
)
def test_a_setting_in_the_environment_stops_no_backend(name: str) -> None:
    loaded("jax")
    values = {"JAX_TRANSFER_GUARD": "disallow", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    code = "import ports; p = ports.load('jax'); print(p.devices()[-1])"
    env = {**os.environ, name: values.get(name, "true")}
    run = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "cpu\n"), run.stderr


# --- the examples of bug reports


def test_autocast_does_not_change_the_loss() -> None:
    port: Any = loaded("torch")
    import torch

    params = Params(*(port.from_numpy(p, dtype="float32", device="cpu") for p in init(2, 2, 3, 1.0, seed=0)))
    x = port.from_numpy(np.array([[1, 0.3]]), dtype="float32", device="cpu")
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            assert float(port.loss(params, x, [1])) == pytest.approx(1.2877, abs=5e-5)
            for gradient in (port.gradient, *port.GRADIENTS.values()):
                result = gradient(params, x, [1])
                assert {g.dtype for g in result} == {torch.float32}
                assert all(bool(g.isfinite().all()) for g in result)


def test_a_loop_of_losses_leaves_jax_in_32_bits_whatever_another_thread_does() -> None:
    loaded("jax")
    import jax
    import jax.numpy as jnp

    before = jnp.ones(1).dtype
    net = ports.TwoLayerNet(4, 2, 2, seed=0, backend="jax")
    x, t = np.ones((1, 4)), np.array([0])
    expected = net.loss(x, t)

    def others() -> None:
        for _ in range(20):
            with jax.enable_x64(True):
                assert net.loss(x, t) == expected

    thread = threading.Thread(target=others)
    thread.start()
    while thread.is_alive():
        assert net.loss(x, t) == expected
    assert jnp.ones(1).dtype == before
