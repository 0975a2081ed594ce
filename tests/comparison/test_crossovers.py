"""Sweeps over sizes of contenders whose times are known."""

import numpy as np
import pytest

from comparison.report.timing_tables import crossover_sentence, fastest_sentences
from comparison.timing.crossovers import Swept, count_comparisons, crossovers, fastest_by_size
from comparison.timing.recommendation import Timing, timings
from comparison.timing.rounds import Rounds
from comparison.timing.workloads import Contender
from timings import contender

NUMPY, JAX = contender("numpy"), contender("jax")


def at(
    size: int, *truths: float, noise: float = 0.01, rounds: int = 30, of: tuple[Contender, ...] = (NUMPY, JAX)
) -> Swept:
    """Measure contenders of these times at a size, in `rounds` rounds."""
    rng = np.random.default_rng(size)
    seconds = np.array(truths) * np.exp(noise * rng.standard_normal((rounds, len(truths))))
    return Swept(size, timings(of, Rounds(seconds, seconds)), seconds)


def test_a_crossover_is_where_the_medians_meet() -> None:
    """One takes n, the other 10 sqrt(n): they meet at 100."""
    (row,) = crossovers([at(n, n, 10 * n**0.5, noise=1e-6) for n in (1, 10, 1000, 10_000)], 4)
    assert row["size"] == pytest.approx(100, rel=1e-4)
    assert (row["faster_below"]["backend"], row["faster_above"]["backend"]) == ("numpy", "jax")
    assert crossover_sentence(row, "hidden") == (
        "In float64, jax collocated overtakes numpy collocated at about hidden = 100."
    )


def test_a_crossing_within_the_noise_is_none() -> None:
    assert crossovers([at(1, 1.0, 1.005, noise=0.2), at(2, 1.005, 1.0, noise=0.2)], 2) == []
    assert crossovers([at(1, 1.0, 2.0), at(2, 1.0, 1.0, noise=0.2)], 2) == []


def test_parallel_lines_never_cross() -> None:
    assert crossovers([at(n, n, 2 * n) for n in (1, 10, 100)], 3) == []


def test_drift_within_rounds_hides_no_crossing() -> None:
    """Paired: the machine becomes a hundred times as slow, for both alike."""

    def drifting(swept: Swept) -> Swept:
        seconds = swept.seconds * np.geomspace(1, 100, len(swept.seconds))[:, None]
        return Swept(swept.size, timings((NUMPY, JAX), Rounds(seconds, seconds)), seconds)

    assert len(crossovers([drifting(at(1, 1.0, 1.2)), drifting(at(2, 1.2, 1.0))], 2)) == 1


def test_the_more_pairs_and_sizes_the_more_rounds_a_crossing_needs() -> None:
    """Six rounds of six are enough for one comparison and not for a hundred."""
    sizes = [at(1, 1.0, 2.0, rounds=6), at(2, 2.0, 1.0, rounds=6)]
    assert len(crossovers(sizes, 1)) == 1
    assert crossovers([at(1, 1.0, 1.02, noise=0.02, rounds=30), at(2, 1.02, 1.0, noise=0.02, rounds=30)], 10**6) == []


@pytest.mark.slow
def test_noise_crosses_in_no_more_than_a_share_of_sweeps() -> None:
    """Six contenders that are the same, at six sizes, 100 times: uncorrected, nearly every sweep has a crossing."""
    of = tuple(contender(f"port {n}") for n in range(6))
    comparisons = count_comparisons([c[:4] for c in of], 6)
    found = 0
    for sweep in range(100):
        found += bool(crossovers([at(100 * sweep + n, *[1.0] * 6, noise=0.1, of=of) for n in range(1, 7)], comparisons))
    assert found <= 5


def test_comparisons_are_pairs_of_one_dtype_at_all_sizes() -> None:
    keys = [(name, "collocated", dtype) for name in ("numpy", "torch", "jax") for dtype in ("float32", "float64")]
    assert count_comparisons(keys, 5) == 5 * 6


def test_only_what_is_ranked_in_one_dtype_and_timed_at_either_size_crosses() -> None:
    def crossings(other: Contender) -> int:
        return len(crossovers([at(1, 1.0, 2.0, of=(NUMPY, other)), at(2, 2.0, 1.0, of=(NUMPY, other))], 2))

    assert crossings(JAX) == 1
    assert crossings(JAX._replace(ranked=False)) == 0
    assert crossings(JAX._replace(dtype="float32")) == 0
    assert crossovers([at(1, 1.0, 2.0), at(2, 1.0, of=(JAX,))], 2) == []


def test_who_is_fastest_where() -> None:
    of = (contender("numpy"), contender("torch"), contender("jax"), contender("jax", dtype="float32"))
    swept = [at(10, 1, 2, 3, 1, of=of), at(25, 1, 1, 3, 1, of=of), at(50, 3, 2, 1, 1, of=of), at(99, 4, 2, 1, 1, of=of)]
    assert fastest_sentences(fastest_by_size(swept, 16), "hidden") == [
        "Fastest in float32 by hidden: at 10 to 99 jax collocated.",
        "Fastest in float64 by hidden: at 10 numpy collocated; at 25 numpy or torch collocated (a tie); "
        "at 50 to 99 jax collocated.",
    ]


def test_a_size_at_which_nothing_was_ranked_has_no_fastest() -> None:
    one: list[Timing] = []
    assert fastest_by_size([Swept(1, one, np.zeros((0, 0)))], 1) == []
