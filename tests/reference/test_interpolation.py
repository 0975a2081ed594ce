"""float32 where it can't show: each guard, on nets that trip it, and with guards that never trip."""

import numpy as np
import pytest

from comparison.agreement.bounds import Bounds
from comparison.agreement.comparison import Problem
from reference import interpolation, numerical_gradient
from reference.collocation import make_plan
from reference.numerical_gradient import collocated, structured
from reference.two_layer_net import Params

SURE, FAINT = {"b2": [0.0, -115.0, -115.0]}, {"b1": -115.0}  # delta, or z (1 - z), of 1e-50
NETS = {
    "the chapter's": {},
    "a spread of W2 of 30": {"W2": 15.0},
    "large inputs": {"x": 50.0},
    "sure of its class": SURE,
    "saturated units": FAINT,
}


def draw_problem(b1=0.0, b2=(0.0, 0.0, 0.0), W2=0.5, x=1.0):
    rng = np.random.default_rng(0)
    params = Params(
        W1=0.01 * rng.uniform(-1, 1, (6, 4)),
        b1=np.full(4, b1),
        W2=W2 * rng.uniform(-1, 1, (4, 3)),
        b2=np.array(b2),
    )
    return Problem(params, x * rng.random((5, 6)), np.zeros(5, int))


def exceed(problem, h):
    """Return by how many bounds `collocated` is off, at most."""
    pairs = zip(collocated(*problem, h=h), structured(*problem, h=h), strict=True)
    bounds = Bounds(problem, "float64").gradient("collocated", h)
    return max(float((np.abs(g - e) / (bound + 1e-300)).max()) for (g, e), bound in zip(pairs, bounds, strict=True))


@pytest.fixture(autouse=True)
def mix_small_products(monkeypatch):
    monkeypatch.setattr(interpolation, "MIXED_LEAST", 0)


@pytest.mark.parametrize("h", [1e-6, 1e-4, 1e-3])
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_the_gradient_is_that_of_float64(net, h):
    assert exceed(draw_problem(**net), h) < 1


def test_float32_is_taken_at_the_chapters_step(monkeypatch):
    dtypes, odd_basis = [], interpolation.odd_basis

    def recorded(v, count):
        dtypes.append(np.asarray(v).dtype)
        return odd_basis(v, count)

    monkeypatch.setattr(interpolation, "odd_basis", recorded)
    collocated(*draw_problem())
    assert np.dtype("float32") in dtypes
    dtypes.clear()
    collocated(*draw_problem(**SURE))
    assert np.dtype("float32") not in dtypes


@pytest.mark.parametrize("net", [SURE, FAINT])
def test_a_guard_of_the_range_that_never_trips_is_caught(monkeypatch, net):
    monkeypatch.setattr(interpolation, "float32_holds", lambda first: True)
    assert exceed(draw_problem(**net), 1e-4) > 1


@pytest.mark.parametrize(("net", "h"), [({"x": 50.0}, 1e-3), ({}, 0.05), ({"W2": 15.0}, 1e-2)])
def test_a_plan_that_always_mixes_is_caught(monkeypatch, net, h):
    plan_of = make_plan
    monkeypatch.setattr(
        numerical_gradient, "make_plan", lambda *args: plan_of(*args)._replace(mixed=True, output_mixed=True)
    )
    assert exceed(draw_problem(**net), h) > 1


@pytest.mark.parametrize(("first", "holds"), [(1.0, True), (0.0, True), (2.0**-60, True), (2.0**-61, False)])
def test_a_coefficient_that_is_0_or_large_enough_is_held(first, holds):
    assert interpolation.float32_holds(np.array([[1.0, -first]])) is holds
