"""No number leaves the range of its dtype where the result lies in it: nets of any size against 700 digits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from comparison.agreement.bounds import Bounds
from comparison.agreement.comparison import Problem
from comparison.conformance.problems import loaded
from reference.two_layer_net import Params

DIGITS = 700  # of float64's range, 616; 150 take entries below 1e-150 for 0
PORTS = pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
EXACT = pytest.mark.parametrize("strategy", ["structured", "collocated"])
DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])
pytestmark = [
    pytest.mark.filterwarnings("ignore:`collocated` needs more than:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:(overflow|underflow) encountered in:RuntimeWarning"),  # where a1 leaves it
]


def gradient_of(name, strategy, params, x, t, h, dtype):
    port = loaded(name)
    *members, x = (port.from_numpy(array, dtype=dtype, device="cpu") for array in (*params, x))
    return Params(*map(port.to_numpy, port.GRADIENTS[strategy](Params(*members), x, t, h=h)))


def exact_gradient(problem, h, monkeypatch):
    monkeypatch.setattr(oracle, "DIGITS", DIGITS)
    return oracle.central_differences(*problem, h)


def one_unit(W1=0.5, b1=0.0, W2=(1.0, -1.0), b2=(0.0, 0.0), x=1.0, label=0):
    params = Params(*(np.array(array, float) for array in ([[W1]], [b1], [W2], b2)))
    return Problem(params, np.array([[x]]), np.array([label]))


CASES = {
    "powers of V beyond the range": (one_unit(b1=-15.5, W2=(1e4, -1e4)), 1e-4),
    "equal logits": (one_unit(b1=0.0, W2=(-1e4, 1e4)), 1e-4),
    "h = 1e-6": (one_unit(W2=(4.2e5, -4.2e5)), 1e-6),
    "h = 1e-8": (one_unit(W2=(2.5e7, -2.5e7)), 1e-8),
    "h = 1e-20": (one_unit(W2=(2.5e19, -2.5e19), b1=-60), 1e-20),
    "a small gradient at a small h": (one_unit(W2=(1e-20, -1e-20)), 1e-20),
    "small inputs at a small h": (one_unit(x=1e-25), 1e-20),
    "large inputs": (one_unit(x=1e15, W1=1e-15), 1e-20),
    "the largest weights": (one_unit(W2=(3e38, -3e38), b1=-3), 1e-4),
    "the largest weights, saturated": (one_unit(W2=(3e38, -3e38), b1=-80), 1e-4),
    "large inputs and shifts": (one_unit(x=1e6, W1=1e-6), 1e-3),
    "a sure class": (one_unit(b2=(60.0, 0.0)), 1e-4),
}


@PORTS
@EXACT
@DTYPES
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_single_units_at_the_ends_of_the_range(name, strategy, dtype, case, monkeypatch):
    problem, h = case
    problem = problem.rounded(dtype)
    got = gradient_of(name, strategy, *problem, h, dtype)
    expected, bounds = exact_gradient(problem, h, monkeypatch), Bounds(problem, dtype).gradient(strategy, h)
    for g, e, bound in zip(got, expected, bounds, strict=True):
        assert np.isfinite(g).all()
        assert (np.abs(g - e) <= bound).all()


@st.composite
def wide_problems(draw, dtype):
    """Draw a net each of whose arrays has its own magnitude, anywhere in the range that leaves the logits in it."""
    most = int(np.log10(np.finfo(dtype).max))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    powers = st.integers(-most, most)
    exponent = {name: draw(powers) for name in ("x", "W2", "b1", "b2")}
    exponent["W1"] = draw(st.integers(-most, min(most, most - 2 - max(0, exponent["x"]))))
    exponent["b1"], exponent["b2"] = (min(exponent[name], most - 2) for name in ("b1", "b2"))
    exponent["W2"] = min(exponent["W2"], most - 2)
    shapes = {"W1": (2, 2), "b1": 2, "W2": (2, 2), "b2": 2, "x": (1, 2)}
    arrays = {name: 10.0 ** exponent[name] * rng.uniform(-1, 1, shape) for name, shape in shapes.items()}
    params = Params(*(arrays[name] for name in Params._fields))
    return Problem(params, arrays["x"], rng.integers(0, 2, 1)).rounded(dtype)


@pytest.mark.slow
@PORTS
@EXACT
@DTYPES
@settings(max_examples=4, deadline=None)
@given(data=st.data(), h=st.sampled_from((1e-20, 1e-12, 1e-4, 0.1)))
def test_any_magnitude_of_any_array_leaves_the_gradient_within_its_bound(name, strategy, dtype, data, h):
    problem = data.draw(wide_problems(dtype))
    with pytest.MonkeyPatch.context() as monkeypatch:
        expected = exact_gradient(problem, h, monkeypatch)
    with np.errstate(all="ignore"):
        bounds = Bounds(problem, dtype).gradient(strategy, h)
    got = gradient_of(name, strategy, *problem, h, dtype)
    least, most = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
    for g, e, bound in zip(got, expected, bounds, strict=True):
        inside = np.abs(e) < most
        assert np.isfinite(g[inside]).all()
        assert (np.abs(g - e)[inside] <= np.nan_to_num(bound, nan=np.inf)[inside] + least).all()
