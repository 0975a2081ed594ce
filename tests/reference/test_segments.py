"""The ends of segments: the same for every run of the same sizes, wherever it begins and ends."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import segments
from reference.segments import segment_length
from reference.two_layer_net import init

SIZES = {"epoch": st.integers(1, 700), "length": st.integers(1, 400), "iterations": st.integers(1, 2000)}


def segment_ends(start: int, iterations: int, epoch: int, length: int) -> list[tuple[int, bool]]:
    """List the ends; at most one too many where they never stop."""
    return list(islice(segments.segment_ends(start, iterations, epoch, length), iterations + 1))


@given(**SIZES)
def test_segments_cover_the_run_and_none_is_too_long(epoch: int, length: int, iterations: int) -> None:
    ends = [0, *(end for end, _ in segment_ends(0, iterations, epoch, length))]
    lengths = np.diff(ends)
    assert ends[-1] == iterations
    assert lengths.min() >= 1
    assert lengths.max() <= min(length, epoch)
    assert set(range(0, iterations, epoch)) <= set(ends)
    assert len(set(lengths.tolist())) <= 3  # each is compiled: the segment, the rest of an epoch, the end of the run


@given(**SIZES, further=st.integers(0, 2000), resumed=st.integers(0, 100))
def test_segments_depend_on_neither_beginning_nor_end(
    epoch: int, length: int, iterations: int, further: int, resumed: int
) -> None:
    whole = [end for end, resumable in segment_ends(0, iterations + further, epoch, length) if resumable]
    short = segment_ends(0, iterations, epoch, length)
    assert [end for end, resumable in short if resumable] == [end for end in whole if end <= iterations]
    start = ([0, *(end for end, resumable in short if resumable)] * 101)[resumed]
    assert segment_ends(start, iterations, epoch, length) == [pair for pair in short if pair[0] > start]


@given(**SIZES, start=st.integers(0, 2000))
def test_after_the_end_of_a_shorter_run_the_segments_are_the_same(
    epoch: int, length: int, iterations: int, start: int
) -> None:
    whole = segment_ends(0, iterations, epoch, length)
    assert segment_ends(start, iterations, epoch, length) == [pair for pair in whole if pair[0] > start]


def test_the_end_of_a_run_ends_a_segment_only_where_a_longer_run_has_it() -> None:
    assert segment_ends(0, 10, 4, 3) == [(2, True), (4, True), (6, True), (8, True), (10, True)]
    assert segment_ends(0, 9, 4, 3) == [(2, True), (4, True), (6, True), (8, True), (9, False)]


@pytest.mark.parametrize(("strategy", "length"), [("collocated", 301), ("structured", 18), ("batched", 1), ("loop", 1)])
def test_a_segment_of_the_chapter_is_some_tenths_of_a_second(strategy: str, length: int) -> None:
    assert segment_length(init(784, 50, 10), strategy, 100) == length


@pytest.mark.parametrize("strategy", ["batched", "loop"])
def test_two_passes_for_each_parameter_count_as_that_many_steps(strategy: str) -> None:
    params = init(2, 2, 2)
    passes = 2 * sum(p.size for p in params)
    assert segment_length(params, strategy, 10) == segment_length(params, "collocated", 10) // passes
