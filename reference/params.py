"""Parameters as an npz file: the arrays W1, b1, W2 and b2."""

import io
import os
from pathlib import Path

import numpy as np

from reference.files import write_atomically
from reference.npz import read_npz
from reference.reading import DataError
from reference.two_layer_net import Params, max_abs
from reference.validation import check_net


def save_params(path: str | os.PathLike[str], params: Params) -> None:
    """Write the parameters; the file is there as a whole or not at all."""
    packed = io.BytesIO()
    np.savez(packed, **params._asdict())
    write_atomically(path, [packed.getvalue()])


def load_params(path: str | os.PathLike[str]) -> Params:
    """Read the parameters of one net, all float32 or all float64.

    Raises
    ------
    DataError
        If the file is missing or damaged, or what it holds is no net.
    """
    if not os.path.isfile(path):  # a pipe would be waited for
        raise DataError(f"{path} must be a file, got none.")
    arrays = read_npz(Path(path), {"W1": 2, "b1": 1, "W2": 2, "b2": 1}, floats=True)
    params = Params(*(np.ascontiguousarray(a, a.dtype.newbyteorder("=")) for a in arrays.values()))
    try:
        check_net(params, np.zeros((1, len(params.W1)), params.W1.dtype), np.ndarray, max_abs)
    except ValueError as error:
        raise DataError(f"{path} must hold one net: {error}") from error
    return params
