"""A port leaves the process as it has found it: its settings, its generators of random numbers, its environment."""

import gc
import importlib
import logging
import os
import random
import signal
import sys
import warnings
from typing import Any

import numpy as np
import pytest

import ports
from comparison.agreement.comparison import Subject
from comparison.conformance.calls import everything
from comparison.conformance.problems import subjects
from comparison.conformance.processes import run_in_process
from reference.defaults import DTYPES


def of_torch(torch: Any) -> dict[str, Any]:
    """Read the settings of PyTorch that a call could leave changed."""
    return {
        "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "threads": torch.get_num_threads(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "generator": torch.random.get_rng_state().tolist(),
        "subnormal numbers": float(torch.tensor(1e-40) / 2) > 0,
    }


def of_process() -> dict[str, str]:
    """Read what a call could leave changed, by name."""
    state: dict[str, Any] = {
        "NumPy's error state": np.geterr(),
        "NumPy's print options": np.get_printoptions(),
        "NumPy's generator": [part if np.isscalar(part) else list(part) for part in np.random.get_state()],
        "Python's generator": random.getstate(),
        "filters of all warnings": [f for f in warnings.filters if is_general(*f)],
        "garbage collector": (gc.isenabled(), gc.get_threshold()),
        "logging": (logging.root.level, logging.root.disabled, logging.root.manager.disable),
        "recursion limit": sys.getrecursionlimit(),
        "NumPy's buffer": np.getbufsize(),
        "handlers of signals": [repr(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "environment": dict(os.environ),
        "working directory": os.getcwd(),
    }
    if torch := sys.modules.get("torch"):
        state |= {f"torch's {name}": value for name, value in of_torch(torch).items()}
    if jax := sys.modules.get("jax"):
        state |= {f"jax.config's {name}": value for name, value in jax.config.values.items()}
    return {name: repr(value) for name, value in state.items()}


def is_general(_: Any, message: Any, category: type[Warning], module: Any, line: Any) -> bool:
    """Whether a filter concerns warnings in general: frameworks add filters for their own while they are used."""
    return not message and not module and category.__module__ == "builtins"


def set_otherwise() -> None:
    """Change some settings from their defaults, as a user may have."""
    np.seterr(under="warn", divide="ignore")
    warnings.simplefilter("error", UserWarning)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(2)
        torch.set_float32_matmul_precision("medium")
        torch.set_default_dtype(torch.float64)


def changes(before: dict[str, str]) -> list[str]:
    """Name what is no longer as it was."""
    after = of_process()
    return [name for name in before if before[name] != after[name]]


def changes_of_load(source: str, frameworks: list[str]) -> list[str]:
    """Load a port; name what has changed, but for what an imported library may set: environment and warnings."""
    for name in frameworks:
        importlib.import_module(name)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(2)  # not 1, which a port may set
    before = of_process()
    ports.load(source)
    return [name for name in changes(before) if name not in ("environment", "filters of all warnings")]


def changes_of_calls(subject: Subject) -> list[str]:
    """Call every function in both dtypes, under default settings and others; name what has changed."""
    changed = []
    for prepare in (lambda: None, set_otherwise):
        prepare()
        before = of_process()
        for dtype in DTYPES:
            everything(subject._replace(dtype=dtype))
        changed += changes(before)
    return changed


PROCESS = """
import json, sys, ports
from comparison.conformance import test_process
from comparison.agreement.comparison import Subject
source, device, *frameworks = sys.argv[1:]
loaded = test_process.changes_of_load(source, frameworks)
called = test_process.changes_of_calls(Subject(source, ports.load(source), "float64", device))
print(json.dumps([loaded, called]))
"""


@pytest.mark.slow
@subjects("float64")
def test_the_process_is_as_before(subject: Subject) -> None:
    """In a process of its own: elsewhere an earlier call may have made the change already."""
    frameworks = [name for name in ("jax", "torch") if name in sys.modules]
    loaded, called = run_in_process(PROCESS, subject.source, subject.device, *frameworks)
    assert not loaded, f"loading the port has changed {', '.join(loaded)}"
    assert not called, f"a call has changed {', '.join(called)}"
