"""Runs of training on the digits, for the tests of every port and of the reference."""

from typing import Any

import numpy as np

from comparison.agreement.comparison import Subject
from reference import datasets
from reference.datasets import Dataset
from reference.training import Progress, train
from reference.two_layer_net import Params, init

OPTIONS: dict[str, Any] = {"batch": 100, "learning_rate": 3.0}  # so large that W2 outgrows its plan several times
EPOCH = 14  # of the digits


def digits(dtype: str = "float64") -> tuple[Dataset, Params]:
    """Load the digits, and draw a small net for them."""
    return datasets.load("digits", dtype=dtype), init(64, 5, 10, seed=0, dtype=dtype)


def run(subject: Subject, params: Params | Progress, data: Dataset, **options: Any) -> list[Progress]:
    """Train with OPTIONS, except for `options`, and return the progress after each segment."""
    return list(train(subject.port, params, data, device=subject.device, **{**OPTIONS, **options}))


def assert_same_bits(got: Progress, expected: Progress) -> None:
    """Assert that two runs have come equally far, with the same numbers to the last bit."""
    assert got.iteration == expected.iteration
    assert got.generator == expected.generator
    for g, e in zip((*got.params, *got[2:4]), (*expected.params, *expected[2:4]), strict=True):
        assert g.dtype == e.dtype
        np.testing.assert_array_equal(g, e)
