"""The plan changes where the derivation says so: each limit in h, by bisection, against its formula in 50 digits."""

import math
from collections.abc import Callable, Iterator

import mpmath as mp
import pytest

from reference.collocation import MAX_TERMS, Plan, make_plan

SPREADS = (1.0, 4.0, 32.0)  # powers of sqrt(2), which the plan does not round up
UNIT = {"float64": mp.mpf(2) ** -53, "float32": mp.mpf(2) ** -24}

dtypes = pytest.mark.parametrize("dtype", UNIT)
spreads = pytest.mark.parametrize("spread", SPREADS)


@pytest.fixture(autouse=True)
def fifty_digits() -> Iterator[None]:
    with mp.workdps(50):
        yield


def limit(holds: Callable[[Plan], bool], dtype: str, spread: float = 1.0) -> float:
    """Return the largest h up to 1 at which a plan is as `holds` says."""
    low, high = 1e-18, 1.0
    assert holds(make_plan(low, 1.0, spread / 2, dtype))
    if holds(make_plan(high, 1.0, spread / 2, dtype)):
        return high
    while high / low > 1 + 1e-11:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(make_plan(middle, 1.0, spread / 2, dtype)) else (low, middle)
    return low


def root(error: Callable[[mp.mpf], mp.mpf], allowed: mp.mpf) -> float:
    """Return the largest h up to 1 at which an error that grows with h is no larger than allowed."""
    low, high = mp.mpf(10) ** -18, mp.mpf(1)
    if error(high) <= allowed:
        return 1.0
    for _ in range(60):
        middle = mp.sqrt(low * high)
        low, high = (middle, high) if error(middle) <= allowed else (low, middle)
    return float(low)


def assert_same(found: float, derived: float) -> None:
    assert found == pytest.approx(derived, rel=1e-9)


def theta(h: mp.mpf, spread: float) -> mp.mpf:
    """Bound dz V, for the largest shift h: the output moves by at most tanh(h / 4)."""
    return mp.tanh(h / 4) * spread


def cut_of_expm1(exponent: mp.mpf, terms: int) -> mp.mpf:
    return exponent**terms * mp.exp(exponent) / mp.factorial(terms + 1) if exponent <= 1 else mp.inf


def cut_of_sums(h: mp.mpf, spread: float, terms: int) -> mp.mpf:
    t = theta(h, spread)
    plain = cut_of_expm1(t, terms)
    if terms % 2 == 0 or t > 1:
        return plain
    odd = t**terms / mp.factorial(terms) * (mp.tanh(h / 2) + 3 * t / (terms + 1)) * mp.exp(6 * t)
    return min(plain, odd)


def cut_of_arctanh(argument: mp.mpf, terms: int) -> mp.mpf:
    if argument >= 1:
        return mp.inf
    return argument ** (2 * terms) / ((2 * terms + 1) * (1 - argument**2))


def linear_error(h: mp.mpf, spread: float) -> mp.mpf:
    t = theta(h, spread)
    return max(
        2 * t * mp.tanh(h / 2) + t**2,
        cut_of_sums(h, spread, 1),
        cut_of_arctanh(mp.tanh(h / 2) * spread / 2, 1),
    )


@dtypes
@pytest.mark.parametrize("terms", range(1, MAX_TERMS + 1))
def test_terms_of_a_shift(terms: int, dtype: str) -> None:
    derived = root(lambda h: cut_of_expm1(h, terms), UNIT[dtype])
    assert_same(limit(lambda plan: 0 < plan.shift_terms <= terms, dtype), derived)
    assert_same(limit(lambda plan: 0 < plan.output_shift_terms <= terms, dtype), derived)


@dtypes
@spreads
@pytest.mark.parametrize("terms", range(1, MAX_TERMS + 1))
def test_terms_of_the_power_sums(terms: int, spread: float, dtype: str) -> None:
    derived = root(lambda h: min(cut_of_sums(h, spread, n) for n in range(1, terms + 1)), UNIT[dtype])
    assert_same(limit(lambda plan: 0 < plan.terms <= terms, dtype, spread), derived)


@dtypes
@spreads
@pytest.mark.parametrize("terms", [1, 2, 3, 5, 8])
def test_terms_of_arctanh(terms: int, spread: float, dtype: str) -> None:
    derived = root(lambda h: cut_of_arctanh(mp.tanh(h / 2) * spread / 2, terms), UNIT[dtype])
    assert_same(limit(lambda plan: 0 < plan.arctanh_terms <= terms, dtype, spread), derived)
    derived = root(lambda h: cut_of_arctanh(h, terms), UNIT[dtype])
    assert_same(limit(lambda plan: 0 < plan.output_arctanh_terms <= terms, dtype), derived)


@dtypes
@spreads
def test_where_the_differences_are_linear(spread: float, dtype: str) -> None:
    assert_same(limit(lambda plan: plan.linear, dtype, spread), root(lambda h: linear_error(h, spread), UNIT[dtype]))
    derived = root(lambda h: max(2 * h**2, cut_of_arctanh(h, 1)), UNIT[dtype])
    assert_same(limit(lambda plan: plan.output_linear, dtype), derived)


@spreads
def test_where_float32_serves_for_the_later_coefficients(spread: float) -> None:
    unit, of_float32, slopes = UNIT["float64"], UNIT["float32"], 1 + 1.5 * spread + 0.28 * spread**2

    def hidden(h: mp.mpf) -> mp.mpf:
        return h**2 / 24 * mp.exp(h + 2 * theta(h, spread)) * slopes * of_float32

    derived = root(hidden, 4 * unit)
    assert_same(limit(lambda plan: plan.mixed, "float64", spread), derived)
    derived = root(lambda h: h**2 / 24 * mp.exp(2 * h) * 4.5 * of_float32, 4 * unit)
    assert_same(limit(lambda plan: plan.output_mixed, "float64"), derived)


def test_float32_is_no_lower_precision_for_float32() -> None:
    plans = [make_plan(h, 1.0, 0.5, "float32") for h in (1e-20, 1e-6, 1e-4, 1e-2, 1.0)]
    assert not any(plan.mixed or plan.output_mixed for plan in plans)


@dtypes
def test_where_shifts_are_small(dtype: str) -> None:
    """And so power sums apply at all, whatever the weights."""
    for h, max_abs_x in ((1.0, 1.0), (0.25, 4.0), (0.5, 2.0000001), (1e-3, 1001.0)):
        plan, shift = make_plan(h, max_abs_x, 1e-9, dtype), h * max(1.0, max_abs_x)
        assert plan.small_shifts == (shift <= 1)
        assert plan.terms == 0 or shift <= 1
