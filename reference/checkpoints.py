"""The state of a training run in a file.

The format: MAGIC, the SHA-256 of all that follows (32 bytes), the header's length (8 bytes, little-endian), the header
in JSON, then the numbers of W1, b1, W2, b2, the losses and the accuracies, little-endian, one after the other. There is
no pickle, and a header is a claim: sizes are compared with the bytes that are there before any array is made.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reference.defaults import DTYPES
from reference.files import ExclusiveFile
from reference.training import Progress
from reference.two_layer_net import Params
from reference.validation import shown

MAGIC = b"fdnet checkpoint\n"
FORMAT = 1
_ENDLESS = 1 << 40  # more than any file holds
_START = len(MAGIC) + 32 + 8  # of the header
_FIELDS = {
    "format": int,
    "iteration": int,
    "accuracies": int,
    "sizes": list,
    "dtype": str,
    "generator": dict,
    "settings": dict,
    "environment": dict,
}


class CheckpointError(ValueError):
    """A file that is no checkpoint, or one that a run can't go on from."""


class Checkpoint(NamedTuple):
    """Where a run was, and what it was: `settings` must be the same for it to go on, `environment` should be."""

    progress: Progress
    settings: dict[str, Any]
    environment: dict[str, Any]


def save(file: ExclusiveFile, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; whatever happens on the way, the file that was there before stays until it is replaced.

    Raises
    ------
    BusyFileError
        If another run has written the file.
    OSError
        If it can't be written.
    """
    now = checkpoint.progress
    header = {
        "format": FORMAT,
        "iteration": now.iteration,
        "accuracies": len(now.accuracies),
        "sizes": [*now.params.W1.shape, len(now.params.b2)],
        "dtype": str(now.params.W1.dtype),
        "generator": now.generator,
        "settings": checkpoint.settings,
        "environment": checkpoint.environment,
    }
    text = json.dumps(header, allow_nan=False).encode()
    arrays = (*now.params, now.losses, now.accuracies)
    numbers = (np.ascontiguousarray(a, a.dtype.newbyteorder("<")).tobytes() for a in arrays)
    content = b"".join((len(text).to_bytes(8, "little"), text, *numbers))
    file.write((MAGIC, hashlib.sha256(content).digest(), content))


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    CheckpointError
        If the file is not exactly what `save` writes.
    """
    if not os.path.isfile(path):  # a pipe would be waited for
        raise CheckpointError(f"{path} must be a file, got something else.")
    content = Path(path).read_bytes()
    header = _header(path, content)
    progress = Progress(
        header["iteration"], *_arrays(path, header, content), generator=_generator(path, header["generator"])
    )
    return Checkpoint(progress, header["settings"], header["environment"])


def check_same(path: str | os.PathLike[str], found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise CheckpointError unless the settings `found` in the file are those that are wanted."""
    for key in dict.fromkeys((*wanted, *found)):
        if (got := found.get(key)) != (want := wanted.get(key)) or type(got) is not type(want):
            raise CheckpointError(f"{path} must be of a run with `{key}` {want!r}, got one with {got!r}.")


def data_hash(data: Iterable[NDArray[Any]]) -> str:
    """Return the SHA-256 of a data set or of other arrays, shapes and dtypes included."""
    total = hashlib.sha256()
    for array in data:
        total.update(f"{array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def _header(path: Any, content: bytes) -> dict[str, Any]:
    if not content.startswith(MAGIC):
        raise CheckpointError(f"{path} must begin with {MAGIC!r}, got {content[: len(MAGIC)]!r}.")
    start, digest = len(MAGIC) + 32, content[len(MAGIC) : len(MAGIC) + 32]
    if hashlib.sha256(memoryview(content)[start:]).digest() != digest:
        raise CheckpointError(f"{path} must have the SHA-256 that it says, got other bytes: it is damaged.")
    length = int.from_bytes(content[start:_START], "little")
    try:
        header = json.loads(content[_START : _START + length], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} must have a header in JSON, got {type(error).__name__}.") from error
    _check_header(path, header)
    return {**header, "start": _START + length}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")


def _check_header(path: Any, header: Any) -> None:
    if not isinstance(header, dict) or {*header} != {*_FIELDS}:
        raise CheckpointError(f"{path} must have the fields {', '.join(_FIELDS)}, got others.")
    for name, kind in _FIELDS.items():
        if type(header[name]) is not kind:
            raise CheckpointError(f"{path} must hold `{name}` as {kind.__name__}, got {type(header[name]).__name__}.")
    rules = {
        "format": header["format"] == FORMAT,
        "iteration": 0 <= header["iteration"] < _ENDLESS,
        "accuracies": 0 <= header["accuracies"] < _ENDLESS,
        "sizes": len(header["sizes"]) == 3 and all(type(n) is int and 0 < n < _ENDLESS for n in header["sizes"]),
        "dtype": header["dtype"] in DTYPES,
        "settings": _is_flat(header["settings"]),
        "environment": _is_flat(header["environment"]),
    }
    for name, kept in rules.items():
        if not kept:
            raise CheckpointError(f"{path} must hold a `{name}` that can be, got {shown(header[name])}.")


def _is_flat(values: dict[str, Any]) -> bool:
    return all(isinstance(value, (str, int, float, type(None))) for value in values.values())


def _arrays(path: Any, header: dict[str, Any], content: bytes) -> tuple[Params, NDArray[Any], NDArray[Any]]:
    """Return the parameters, the losses and the accuracies."""
    inputs, hidden, outputs = header["sizes"]
    shapes: list[tuple[int, ...]] = [(inputs, hidden), (hidden,), (hidden, outputs), (outputs,)]
    shapes += [(header["iteration"],), (header["accuracies"], 3)]
    dtypes = [np.dtype(header["dtype"])] * 4 + [np.dtype(np.float64)] * 2
    ends = [header["start"]]
    for shape, dtype in zip(shapes, dtypes, strict=True):
        ends.append(ends[-1] + math.prod(shape) * dtype.itemsize)
    if ends[-1] != len(content):
        raise CheckpointError(f"{path} must have {ends[-1]} bytes by its header, got {len(content)}.")
    arrays = []
    for shape, dtype, start in zip(shapes, dtypes, ends[:-1], strict=True):
        array = np.frombuffer(content, dtype.newbyteorder("<"), math.prod(shape), start).reshape(shape).astype(dtype)
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path} must hold finite numbers, got one that is not.")
        arrays.append(array)
    return Params(*arrays[:4]), arrays[4], arrays[5]


def _generator(path: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return a generator's state that NumPy takes."""
    bits: Any = np.random.PCG64()
    try:
        bits.state = state
        taken = bits.state == state  # NumPy takes what is no state at all, as far as it can
    except (TypeError, ValueError, KeyError, OverflowError):
        taken = False
    if not taken:
        raise CheckpointError(f"{path} must hold the state of a PCG64 generator, got {shown(state)}.")
    return state
