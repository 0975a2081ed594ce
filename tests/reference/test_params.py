"""Parameters are loaded as they were saved, and a file that holds no net is refused in a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reference.idx import DataError
from reference.params import load_params, save_params
from reference.two_layer_net import init


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_are_loaded_as_they_were_saved(tmp_path: Path, dtype: str) -> None:
    expected = init(5, 4, 3, seed=0, dtype=dtype)
    save_params(tmp_path / "net.npz", expected)
    for g, e in zip(load_params(tmp_path / "net.npz"), expected, strict=True):
        assert g.dtype == e.dtype
        np.testing.assert_array_equal(g, e)


def test_parameters_of_the_other_byte_order_are_the_same(tmp_path: Path) -> None:
    expected = init(5, 4, 3, seed=0)
    np.savez(
        tmp_path / "net.npz", **{name: np.asfortranarray(p.astype(">f8")) for name, p in expected._asdict().items()}
    )
    np.testing.assert_array_equal(load_params(tmp_path / "net.npz").W1, expected.W1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"W1": None}, "must hold the arrays W1, b1, W2, b2, got no W1."),
        ({"W1": np.ones((5, 4), np.float16)}, "must be float32 or float64, got float16."),
        ({"W1": np.ones((5, 4), int)}, "must be float32 or float64, got int64."),
        ({"W1": np.array([[{}]])}, "must be float32 or float64, got object."),
        ({"b1": np.ones((4, 1))}, "must be 1-dimensional, got the shape (4, 1)."),
        ({"b1": np.ones(5)}, "must hold one net: `b1` must have shape (4,) to fit W1 (5, 4) and W2 (4, 3), got (5,)."),
        ({"b2": np.ones(3, np.float32)}, "must hold one net: `b2` must have the dtype of W1 (float64), got float32"),
        ({"W2": np.full((4, 3), np.nan)}, "must hold one net: `W2` must be finite, but holds nan."),
    ],
)
def test_parameters_that_are_no_net_are_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    arrays = {**init(5, 4, 3, seed=0)._asdict(), **change}
    np.savez(tmp_path / "net.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DataError) as caught:
        load_params(tmp_path / "net.npz")
    assert sentence in str(caught.value)


def test_damaged_parameters_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    save_params(path, init(5, 4, 3, seed=0))
    content = path.read_bytes()
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(DataError):
            load_params(path)
    for missing in (tmp_path, tmp_path / "none.npz"):
        with pytest.raises(DataError, match="must be a file"):
            load_params(missing)
