"""The backend `torch-compiled`: what torch.compile adds to PyTorch's port, and what it must not change."""

import sys

import numpy as np
import pytest

import ports
from comparison.conformance.problems import loaded
from interpreters import python
from reference.collocation import make_plan
from reference.two_layer_net import Params, init
from reference.validation import unit_roundoff

rng = np.random.default_rng(0)
X, T, BATCHES = rng.random((30, 6)), rng.integers(0, 3, 30), rng.integers(0, 30, (12, 10))


@pytest.fixture(scope="module")
def compiled():
    return loaded("torch-compiled")


@pytest.fixture(scope="module")
def eager():
    return loaded("torch")


def train(port, dtype, strategy="collocated", kind=lambda a: a, **options):
    params = Params(*(kind(port.from_numpy(p, dtype=dtype, device="cpu")) for p in init(6, 4, 3, 1.0, seed=0)))
    x = kind(port.from_numpy(X, dtype=dtype, device="cpu"))
    trained, losses = port.train_steps(params, x, T, BATCHES, **{"strategy": strategy, "learning_rate": 0.3} | options)
    return [port.to_numpy(array) for array in (*trained, losses)]


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "dtype"), [("collocated", "float64"), ("closed form", "float32")])
def test_compiled_steps_are_the_ports_own_to_rounding(strategy, dtype, compiled, eager):
    for got, expected in zip(train(compiled, dtype, strategy), train(eager, dtype, strategy), strict=True):
        # Each of 12 steps rounds anew, and nothing amplifies it in a net this tame: some roundings of numbers below 10.
        assert np.abs(got - expected).max() <= 12 * 10 * unit_roundoff(dtype)


def test_a_graph_sees_that_a_view_is_negated(compiled, eager):
    import torch

    got = train(compiled, "float64", kind=lambda a: torch.complex(a, -a).conj().imag)
    for array, expected in zip(got, train(eager, "float64"), strict=True):
        assert np.abs(array - expected).max() <= 12 * 10 * unit_roundoff("float64")  # as above


def test_another_rate_and_other_numbers_compile_nothing_anew(compiled):
    from torch._dynamo.utils import counters

    train(compiled, "float64")
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    train(compiled, "float64", learning_rate=0.7)
    assert counters["stats"]["unique_graphs"] == graphs


def test_a_step_that_needs_expm1_or_atanh_is_not_compiled(compiled):
    plans = {h: make_plan(h, 1.0, 1.0, "float64") for h in (1e-4, 1.0)}
    assert compiled.choose_step("collocated", plans[1e-4]) is compiled.compiled_step
    assert compiled.choose_step("collocated", plans[1.0]) is compiled.take_step
    assert compiled.choose_step("structured", plans[1e-4]) is compiled.take_step
    assert compiled.choose_step("closed form", plans[1.0]) is compiled.compiled_step


def test_many_graphs_are_allowed_within_and_the_limit_is_as_before_after(compiled):
    from torch._dynamo import config

    train(compiled, "float32", "closed form")
    with config.patch(recompile_limit=1):
        train(compiled, "float64", "closed form")
        assert config.recompile_limit == 1


def test_a_compiler_that_errs_is_not_run(compiled, monkeypatch):
    import torch

    monkeypatch.setattr(compiled, "canary_functions", lambda inputs: [torch.sigmoid(v) * (1 + 1e-4) for v in inputs])
    with pytest.raises(ports.NotRunError, match=r"miscompiles exp: it is off by 0\.0001\."):
        compiled.run_canary("cpu")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="another compiler is looked for there")
def test_without_a_compiler_it_is_not_run(compiled, tmp_path):
    code = "import ports\ntry: ports.load('torch-compiled')\nexcept ports.NotRunError as reason: print(reason)"
    environment = {"CXX": "/nonexistent", "PATH": "", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    assert python(code, **environment).startswith("torch.compile does not work here: ")


def test_it_runs_only_where_it_is_named():
    assert "torch-compiled" not in ports.names()
    assert "torch-compiled" in ports.names(optional=True)
