"""The tests of the tests: what `compare.py agree` does, and the property tests, each catch every wrong port.

The nightly profile tries each fault of the catalogue; the others a sample.
"""

import gc
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import faults_by_kind
import faults_in_jax
import faults_in_numpy
import faults_in_torch
import ports
from by_night import NIGHTLY
from comparison.agreement.bounds import Problem
from comparison.agreement.cases import check_subject
from comparison.agreement.comparison import Agreement, Subject, random_problem
from comparison.conformance.problems import loaded
from reference import datasets
from reference.defaults import STRATEGIES
from wrong_ports import apply_edits, around, by_module, edited

ROOT = Path(ports.__file__).parents[1]
FAULTS = {"numpy": faults_in_numpy.FAULTS, "torch": faults_in_torch.FAULTS, "jax": faults_in_jax.FAULTS}
MIRRORED = ("torch", "jax")

pytestmark = pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")


def sample(names: Any, one_in: int) -> list[str]:
    return list(names)[:: 1 if NIGHTLY else one_in]


UNSEEN_BY_AGREE = {
    "float32's range is not watched",
    "float32's range is not watched in training",
    "NaN where float32 does not hold",
    "the guard is inverted",
    "labels are shared with the caller",
}
"""Faults that `agree` does not see: it has no net of 10,000 weights with samples beyond float32's range, and it changes
no labels while a backend may still be computing."""


def each_fault(backends: tuple[str, ...], one_in: int, *, unseen: Collection[str] = ()) -> pytest.MarkDecorator:
    """Run a test on the faults of these backends; on one in `one_in` of them except under the nightly profile."""
    names = {backend: [name for name in FAULTS[backend] if name not in unseen] for backend in backends}
    faults = [(backend, name) for backend in backends for name in sample(names[backend], one_in)]
    return pytest.mark.parametrize(("backend", "name"), faults, ids=[f"{backend}: {name}" for backend, name in faults])


@cache
def digits() -> Problem:
    """Return the problem that `compare.py` compares by default."""
    data = datasets.load("digits")
    return random_problem(data.x_train, data.t_train, hidden=50, samples=100, seed=0)


def agrees(make: Callable[[], Any]) -> bool:
    """Whether `compare.py agree` would find nothing in a port: no disagreement, and no crash once it is loaded."""
    port = make()
    for dtype in ("float64", "float32"):
        subject = Subject("wrong", port, dtype, "cpu")
        try:
            for row in check_subject(subject, digits(), STRATEGIES, h=1e-4, memory=2**28, seed=0):
                if isinstance(row, Agreement) and not row.agrees:
                    return False
        except Exception:
            return False
    return True


@pytest.fixture(autouse=True)
def _forget_programs() -> Iterator[None]:
    """Let JAX forget the programs of a port: those of all ports together would be more mappings than Linux allows."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.mark.parametrize("backend", FAULTS)
def test_every_edit_applies_once(backend: str) -> None:
    """Of all faults, though only a sample is tried: the catalogue must follow the code."""
    for edits in FAULTS[backend].values():
        for module, own in by_module(backend, edits).items():
            source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
            assert apply_edits(source, own, module) != source


@pytest.mark.parametrize("backend", MIRRORED)
def test_there_are_faults_of_every_kind(backend: str) -> None:
    faults = importlib.import_module(f"faults_in_{backend}")
    names = ("STEP", "LOSS", "FORWARD", "INDEXING", "PRECISION", "DIRECT", "STATE", "KERNELS")
    kinds = [getattr(faults, name) for name in names]
    assert sum(map(len, kinds)) == len(faults.FAULTS) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("backend", FAULTS if NIGHTLY else ("numpy",))
def test_a_right_port_that_is_imported_again_agrees(backend: str) -> None:
    loaded(backend)
    port = edited(backend, ())
    assert port is not ports.load(backend)
    assert agrees(lambda: port)


@each_fault(("numpy",), 9, unseen=UNSEEN_BY_AGREE)
def test_agreement_catches_a_fault_in_numpy(backend: str, name: str) -> None:
    assert not agrees(lambda: edited(backend, FAULTS[backend][name]))


@pytest.mark.slow
@each_fault(MIRRORED, 50, unseen=UNSEEN_BY_AGREE)
def test_agreement_catches_a_fault(backend: str, name: str) -> None:
    loaded(backend)
    assert not agrees(lambda: edited(backend, FAULTS[backend][name]))


@pytest.mark.parametrize("name", sample(around(ports.load("numpy")), 6))
def test_agreement_catches_a_fault_around_a_port(name: str) -> None:
    assert not agrees(around(ports.load("numpy"))[name])


UNSEEN_KINDS = {
    "training: more than 1,000 steps",
    "sizes: samples beyond 4,096",
    "arguments: training of biases that are one array",
    "arguments: uint64 labels",
    "arguments: float64 labels",
    "arguments: labels in 7 bits",
    "arguments: one-hot rows of one class",
    "arguments: one-hot rows of one sample",
    "arguments: labels of an object",
    "arguments: read-only weights",
    "arguments: x of stride 0",
    "arguments: h as an int",
    "arguments: the rate as an int",
    "arguments: memory beyond 64 bits",
    "state: the labels of another thread",
    "state: the inputs of another thread",
    "state: the first inputs of a training",
    "state: the first rate of a closed form",
    "state: the first h of batched",
    "state: its arguments at a rate of 0",
    "state: all predictions are kept",
}
"""What `agree` leaves to the property tests, on a backend that it does not compile for."""


@pytest.mark.slow
@pytest.mark.parametrize("name", sample((name for name in faults_by_kind.FAULTS if name not in UNSEEN_KINDS), 9))
def test_agreement_catches_a_fault_of_a_kind(name: str) -> None:
    assert not agrees(lambda: faults_by_kind.FAULTS[name](ports.load("numpy")))


def test_each_kind_has_faults() -> None:
    assert all(len(faults) >= 2 for faults in faults_by_kind.KINDS.values())
    assert faults_by_kind.FAULTS.keys() >= UNSEEN_KINDS


EDITED = ("agreement", "symmetries", "descent", "ports", "sizes", "state")
OF_A_KIND = ("sizes", "values", "arguments", "state", "steps", "memory")


def property_tests(backend: str, fault: str, *, port: str = "", names: Collection[str] = EDITED) -> Any:
    """Run the property tests of a backend with a fault in it, up to the first failure."""
    files = (f"comparison/conformance/test_{name}.py" for name in names)
    options = ("-p", "fault_plugin", "--fault", backend, fault, "-x", "--port", port or backend)
    command = [sys.executable, "-m", "pytest", "-n", "0", "-m", "", *options, *files]
    environment = {name: value for name, value in os.environ.items() if name != "HYPOTHESIS_PROFILE"}
    environment |= {"CI": "1", "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@each_fault(MIRRORED if NIGHTLY else ("torch",), 150)  # JAX compiles for minutes
def test_the_property_tests_catch_a_fault(backend: str, name: str) -> None:
    loaded(backend)
    run = property_tests(backend, name)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout


IN_A_PROCESS = {"state: a constant of the first dtype"}
"""Faults that show only where float32 comes first in a process: that of test_determinism loads the right port."""


@pytest.mark.slow
@pytest.mark.parametrize("name", sample((name for name in faults_by_kind.FAULTS if name not in IN_A_PROCESS), 30))
def test_the_property_tests_catch_a_fault_of_a_kind(name: str) -> None:
    run = property_tests("numpy", name, port="wrong_port", names=OF_A_KIND)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout


@pytest.mark.skipif(not NIGHTLY, reason="as long as the property tests themselves: run by night")
@pytest.mark.parametrize("backend", MIRRORED)
def test_the_property_tests_let_a_right_port_pass(backend: str) -> None:
    loaded(backend)
    run = property_tests(backend, "")
    assert run.returncode == pytest.ExitCode.OK, run.stdout
