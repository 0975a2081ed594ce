"""What a caller has set in a framework neither changes a result nor is changed, from several threads at once either."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.comparison import Subject
from comparison.conformance.calls import good_call, on_backend
from comparison.conformance.problems import loaded
from reference.defaults import DTYPES
from reference.two_layer_net import Params, init
from surroundings import STATES, TABLES, assigned, bits, called, settings_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=[(name, dtype) for name in TABLES for dtype in DTYPES], ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Subject, list[bytes]]:
    """Return a port in a dtype, and the bits of its results under the framework's own settings."""
    backend, dtype = request.param
    subject = Subject(backend, loaded(backend), dtype, "cpu")
    return subject, bits(subject)


@pytest.mark.slow
def test_a_setting_neither_changes_a_result_nor_is_changed(case: tuple[Subject, list[bytes]]) -> None:
    subject, expected = case
    faults = []
    for name, setting in settings_of(subject).items():
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


@pytest.mark.slow
def test_two_threads_do_not_disturb_each_other(case: tuple[Subject, list[bytes]]) -> None:
    """One thread is within the setting; where that is the thread's own, the other has the framework's default."""
    subject, expected = case
    faults = []
    for name, setting in settings_of(subject).items():
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
