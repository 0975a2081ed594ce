"""What a caller may have set in NumPy, PyTorch or JAX, and the bits of what a port returns within it."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from by_night import NIGHTLY
from comparison.agreement.comparison import Subject
from comparison.agreement.kinds import arrays_in
from comparison.conformance.calls import FUNCTIONS, Call, good_call, on_backend, prepare
from reference.defaults import DTYPES, STRATEGIES

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


def settings_of(subject: Subject) -> dict[str, Setting]:
    """Return the settings of the port's framework and of NumPy, which checks the arguments of every port.

    JAX compiles anew for most of them: there each setting has one dtype by turns, except under the nightly profile.
    """
    settings = numpy_settings() | (TABLES[subject.name]() if subject.name != "numpy" else {})
    if subject.name != "jax" or NIGHTLY:
        return settings
    return dict(list(settings.items())[DTYPES.index(subject.dtype) :: len(DTYPES)])
