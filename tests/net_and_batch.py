"""A net and a batch, one array of which may be another, and the sentence of a refusal."""

import re

import numpy as np
import pytest

from reference.two_layer_net import Params, init

NET = init(3, 5, 2, 1.0, seed=0)
ARRAYS = {**NET._asdict(), "x": np.random.default_rng(0).random((4, 3))}
X, T = ARRAYS["x"], np.array([0, 1, 1, 0])


def refuses(sentence):
    return pytest.raises(ValueError, match=f"^{re.escape(sentence)}$")


def net_with(name, array):
    """Return the net and the batch, one array of which is another."""
    *params, x = {**ARRAYS, name: array}.values()
    return Params(*params), x
