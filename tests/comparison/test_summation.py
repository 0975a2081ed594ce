"""How many roundings the bounds charge a sum, written out term by term."""

import cmath
import math
from collections.abc import Callable
from itertools import accumulate

import numpy as np
import pytest

from comparison.agreement.summation import RESOLUTION, roundings
from reference.defaults import DTYPES

U = {"float64": 2.0**-53, "float32": 2.0**-24}
EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def written_out(terms: list[float], u: float) -> float:
    """Return r of one sum."""
    n, total, largest = len(terms), sum(map(abs, terms)), max(map(abs, terms))
    cells = [round(c / (max(u, RESOLUTION) * largest)) for c in terms]
    equal = [cells.count(cell) for cell in cells]
    mean = sum(accumulate(sorted(map(abs, terms), reverse=True))) / n / total

    def lost(c: float, blocks: int) -> float:
        return min(1.0, abs(c) * blocks / (u * total))

    alike, blocks = 0.0, 1
    while n / blocks >= 4 * math.sqrt(n):
        turns = [lost(c, blocks) * cmath.exp(2j * math.pi * c * blocks / (2 * u * total)) for c in terms]
        longest = max(map(abs, accumulate(turns)))
        if longest > 4 * math.sqrt(sum(lost(c, blocks) ** 2 for c in terms)):
            alike = max(alike, longest / blocks)
        blocks *= 2
    r = math.sqrt(sum(m * lost(c, 1) ** 2 for c, m in zip(terms, equal, strict=True))) / 2 + mean * alike / 4
    return max(math.sqrt(n) / 2, min(r, mean * n / 4))


def groups(rng: np.random.Generator) -> np.ndarray:
    return rng.choice(rng.random(40), 300)


def near(rng: np.random.Generator) -> np.ndarray:
    """Return numbers that differ by a fifth of an ulp of their sum, in float32."""
    return 1 + 0.2 * 2 * U["float32"] * 300 * rng.standard_normal(300)


def near_in_two_places(rng: np.random.Generator) -> np.ndarray:
    """Return the same around two numbers that lie half an ulp apart: at that ulp they cancel, at half of it not."""
    return near(rng) + U["float32"] * 300 * (np.arange(300) % 2)


def one_of_weight(rng: np.random.Generator) -> np.ndarray:
    return np.where(np.arange(300) == 7, 1.0, 0.4 * U["float32"] * rng.random(300))


def rising(rng: np.random.Generator) -> np.ndarray:
    """Return numbers that are spread over an ulp of their sum, but a plain loop meets them in their order."""
    return np.linspace(1, 1 + 2 * U["float32"] * 300, 300)


DRAWN: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "groups": groups,
    "near": near,
    "near in two places": near_in_two_places,
    "few that are near": lambda rng: 1 + 0.1 * 2 * U["float32"] * 40 * rng.standard_normal(40),
    "one of weight": one_of_weight,
    "rising": rising,
    "equal": lambda rng: np.full(300, -0.3),
    "random": lambda rng: rng.standard_normal(300),
    "five": lambda rng: np.full(5, 0.3),
    "four": lambda rng: np.full(4, 0.3),
}


@EACH_DTYPE
@pytest.mark.parametrize("name", DRAWN)
def test_roundings(name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    columns = np.stack([DRAWN[name](rng) for _ in range(3)], axis=1)
    expected = [written_out(list(column), U[dtype]) for column in columns.T]
    np.testing.assert_allclose(roundings(columns, U[dtype]), expected, rtol=1e-6)


def of(terms: np.ndarray) -> float:
    return float(roundings(terms[:, None], U["float32"])[0])


def test_the_more_alike_terms_are_the_more_roundings_they_take() -> None:
    rng, chance = np.random.default_rng(0), math.sqrt(300) / 2
    assert of(rng.random(300)) == of(np.zeros(300)) == chance
    assert of(np.full(300, 0.3)) == pytest.approx(301 / 8)  # partial sums of equal terms are S/2 in the mean
    assert of(np.repeat(rng.random(150), 2)) == pytest.approx(math.sqrt(2) * chance)
    assert chance < of(near(rng)) < 301 / 8
    assert chance < of(near_in_two_places(rng)) < of(near(rng))
    assert chance < of(rising(rng)) < 301 / 8
    assert of(1 + 10 * (near(rng) - 1)) == pytest.approx(chance, rel=0.1)  # over more than an ulp
    assert of(one_of_weight(rng)) > 300 / 20  # of S itself, each a fifth of half an ulp
    assert of(one_of_weight(rng) ** 2) == chance  # too small to lose anything


def test_ordinary_terms_are_taken_for_random() -> None:
    for count in (5, 100, 2000):
        rng = np.random.default_rng(count)
        for terms in (rng.standard_normal((count, 100)), rng.random((count, 100)), rng.lognormal(size=(count, 100))):
            for u in U.values():
                np.testing.assert_allclose(roundings(terms, u), math.sqrt(count) / 2, rtol=0.02)
