"""The hypothesis strategy for nets and mini-batches, and the ports that tests run on."""

import os
from functools import cache

import numpy as np
import pytest
from hypothesis import strategies as st

import ports
from comparison.agreement.bounds import Problem
from reference.defaults import DTYPES
from reference.two_layer_net import Params
from reference.validation import check_device

SHAPES = (  # B, I, H, O: few, since JAX compiles for each; 1s and odd sizes among them
    (1, 1, 1, 1),
    (1, 3, 2, 2),
    (4, 1, 3, 2),
    (3, 5, 1, 4),
    (5, 6, 4, 1),
    (7, 5, 3, 2),
    (8, 13, 7, 10),
)
EDITS = (0.0, 1.0, -1.0, 30.0, -30.0, 1e3, -1e3)
SCALES = (0.01, 0.3, 1.0, 4.0)
STEPS = (1e-4, 1e-2)


@st.composite
def problems(draw: st.DrawFn, *, shapes: tuple[tuple[int, int, int, int], ...] = SHAPES) -> Problem:
    """Draw a net and a mini-batch: a seed and scales, then a few single entries set to something extreme."""
    samples, inputs, hidden, outputs = draw(st.sampled_from(shapes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from(SCALES))
    params = Params(
        W1=scale * rng.standard_normal((inputs, hidden)),
        b1=scale * rng.standard_normal(hidden),
        W2=scale * rng.standard_normal((hidden, outputs)),
        b2=scale * rng.standard_normal(outputs),
    )
    x = draw(st.sampled_from((rng.random, lambda size: rng.uniform(-1, 1, size))))((samples, inputs))
    x *= rng.random(x.shape) < draw(st.sampled_from((1.0, 0.3, 0.0)))  # share of inputs that are not 0
    for name, index, value in draw(st.lists(_edits(), max_size=3)):
        array = getattr(params, name)
        array.flat[index % array.size] = value
    return Problem(params, x, rng.integers(0, outputs, samples))


def _edits() -> st.SearchStrategy[tuple[str, int, float]]:
    return st.tuples(st.sampled_from(Params._fields), st.integers(0, 99), st.sampled_from(EDITS))


def subjects(*dtypes: str) -> pytest.MarkDecorator:
    """Run a test, which takes the fixture `subject`, on each port in each of these dtypes (default: both)."""
    return pytest.mark.subjects(*(dtypes or DTYPES))


@cache  # a file would be another module each time
def load(name: str) -> ports.Port:
    """Load a port once."""
    return ports.load(name)


def choose_device(devices: tuple[str, ...], name: str | None) -> str:
    """Choose the device to test on: the one named, by default the CPU if the port has it."""
    if name:
        return check_device(name, devices)
    return "cpu" if "cpu" in devices else devices[0]


def loaded(name: str) -> ports.Port:
    """Load a port, or skip the test with the reason why it can't run; fail where FDNET_REQUIRE names it."""
    try:
        return load(name)
    except ports.NotRunError as reason:
        if name in os.environ.get("FDNET_REQUIRE", "").split(","):
            pytest.fail(f"{name} is required by FDNET_REQUIRE but did not run: {reason}")
        pytest.skip(f"{name} not run: {reason}")
