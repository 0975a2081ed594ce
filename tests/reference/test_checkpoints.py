"""A checkpoint is loaded as it was saved, and nothing but a whole one is read."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference import checkpoints, datasets
from reference.checkpoints import MAGIC, Checkpoint, CheckpointError, load
from reference.training import Progress, begin
from reference.two_layer_net import Params, init
from saved_checkpoints import a_checkpoint, save_at

HEADER = len(MAGIC) + 32


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the header and the numbers of a checkpoint."""
    content = path.read_bytes()
    length = int.from_bytes(content[HEADER : HEADER + 8], "little")
    return json.loads(content[HEADER + 8 : HEADER + 8 + length]), content[HEADER + 8 + length :]


def forge(path: Path, header: Any, numbers: bytes, *, length: int | None = None) -> None:
    """Write a checkpoint whose SHA-256 is right, whatever else is not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = (len(text) if length is None else length).to_bytes(8, "little") + text + numbers
    path.write_bytes(MAGIC + hashlib.sha256(content).digest() + content)


def refusal(path: Path) -> str:
    """Return the sentence that a file is refused with, having checked that it is one."""
    before = path.read_bytes()
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert path.read_bytes() == before
    sentence = str(caught.value)
    assert sentence.startswith(f"{path} must ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


A_HEADER = {"format": 1, "iteration": 0, "accuracies": 0, "sizes": [1, 1, 1], "dtype": "float32"}
A_HEADER |= {"generator": dict(np.random.PCG64(0).state), "settings": {}, "environment": {}}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_saved_is_loaded(tmp_path: Path, dtype: str) -> None:
    expected = a_checkpoint(dtype)
    save_at(tmp_path / "run.ckpt", expected)
    got = load(tmp_path / "run.ckpt")
    assert (got.settings, got.environment) == (expected.settings, expected.environment)
    assert got.progress.iteration == 7
    assert got.progress.generator == expected.progress.generator
    for g, e in zip(
        (*got.progress.params, *got.progress[2:4]), (*expected.progress.params, *expected.progress[2:4]), strict=True
    ):
        assert g.dtype == e.dtype
        assert g.flags.writeable
        np.testing.assert_array_equal(g, e)


def test_a_run_of_the_least_net_that_has_not_begun_is_loaded(tmp_path: Path) -> None:
    save_at(tmp_path / "run.ckpt", Checkpoint(begin(init(1, 1, 1, seed=0), seed=1), {}, {}))
    got = load(tmp_path / "run.ckpt").progress
    assert (got.iteration, got.losses.shape, got.accuracies.shape) == (0, (0,), (0, 3))


def test_numbers_are_little_endian_in_a_file(saved: Path) -> None:
    before, expected = saved.read_bytes(), a_checkpoint()
    numbers = {name: getattr(expected.progress, name).astype(">f8") for name in ("losses", "accuracies")}
    save_at(saved, expected._replace(progress=expected.progress._replace(**numbers)))
    assert saved.read_bytes() == before


def test_what_could_not_be_read_again_is_not_written(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_at(saved, a_checkpoint()._replace(settings={"rate": math.nan}))
    assert saved.read_bytes() == before


def test_the_forger_can_forge(saved: Path) -> None:
    before = saved.read_bytes()
    forge(saved, *parts(saved))
    assert saved.read_bytes() == before


WRONG: dict[str, list[Any]] = {
    "format": [2, 0, "1", True, None],
    "iteration": [8, 6, -1, 2**80, 7.0, "7"],
    "accuracies": [3, 1, -2, 2**80, None],
    "sizes": [[5, 4], [5, 4, 2], [5, 4, 0], [-5, -4, 3], [10**18, 10**18, 10**18], [5.0, 4, 3], "543", [True, 4, 3]],
    "dtype": ["float16", "object", "O", ">f4", "float64", 4, "float32\n"],
    "generator": [
        {},
        {"bit_generator": "MT19937"},
        {"bit_generator": "PCG64", "state": {"state": -1, "inc": 1}, "has_uint32": 0, "uinteger": 0},
        {"bit_generator": "PCG64", "state": {"state": 2**200, "inc": 1}, "has_uint32": 0, "uinteger": 0},
        {"bit_generator": "PCG64", "state": {"state": 5.5, "inc": 1}, "has_uint32": 0, "uinteger": 0},
        {"bit_generator": "PCG64", "state": 5, "has_uint32": 0, "uinteger": 0},
        {"bit_generator": "PCG64", "state": {"state": 5, "inc": 1}, "has_uint32": 0, "uinteger": 0, "more": 1},
        [],
    ],
    "settings": [{"backend": ["numpy"]}, [], None, {"rate": math.nan}, {"rate": -math.inf}],
    "environment": [{"numpy": {}}, "2.1"],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_each_field_is_checked_even_if_the_hash_is_right(saved: Path, field: str, value: Any) -> None:
    header, numbers = parts(saved)
    forge(saved, {**header, field: value}, numbers)
    refusal(saved)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("iteration", "7", "must hold `iteration` as int, got str."),
        ("format", 2, "must hold a `format` that can be, got 2."),
        ("iteration", 2**40, "must hold a `iteration` that can be, got 1099511627776."),
        ("accuracies", 2**40, "must hold a `accuracies` that can be, got 1099511627776."),
        ("sizes", [5, 2**40, 3], "must hold a `sizes` that can be, got [5, 1099511627776, 3]."),
        ("sizes", [5, 4, 0], "must hold a `sizes` that can be, got [5, 4, 0]."),
        ("settings", {"rates": [0.1, 0.2]}, "must hold a `settings` that can be, got {'rates': [0.1, 0.2]}."),
        ("generator", {"bits": "1" * 60}, f"must hold the state of a PCG64 generator, got {{'bits': '{'1' * 47}...."),
        ("settings", {"rate": math.nan}, "must have a header in JSON, got ValueError."),
    ],
)
def test_the_message_says_what_is_wrong_with_a_field(saved: Path, field: str, value: Any, sentence: str) -> None:
    header, numbers = parts(saved)
    forge(saved, {**header, field: value}, numbers)
    assert refusal(saved) == f"{saved} {sentence}"


def test_the_bytes_that_a_header_claims_are_in_the_message(saved: Path) -> None:
    header, numbers = parts(saved)
    forge(saved, {**header, "iteration": 8}, numbers)
    size = saved.stat().st_size
    assert refusal(saved) == f"{saved} must have {size + 8} bytes by its header, got {size}."


def test_every_field_is_in_the_test_above(saved: Path) -> None:
    header, numbers = parts(saved)
    assert {*WRONG} == {*header}
    for field in header:
        forge(saved, {name: value for name, value in header.items() if name != field}, numbers)
        assert f"must have the fields {', '.join(header)}, got others." in refusal(saved)
    forge(saved, {**header, "more": 1}, numbers)
    assert "must have the fields" in refusal(saved)


@pytest.mark.parametrize("at", range(0, 4 * (5 * 4 + 4 + 4 * 3 + 3) + 8 * (7 + 6) - 7, 8))
def test_numbers_that_are_not_finite_are_refused(saved: Path, at: int) -> None:
    header, numbers = parts(saved)
    forge(saved, header, numbers[:at] + b"\xff" * 8 + numbers[at + 8 :])
    assert "finite" in refusal(saved)


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"format": ' + b"9" * 5000 + b"}", b'{"format": NaN}', b"\xff\xfe"],
)
def test_headers_that_are_none(saved: Path, header: bytes) -> None:
    forge(saved, header, parts(saved)[1])
    refusal(saved)


@pytest.mark.parametrize("length", [0, 1, 10**6, 2**63, 2**64 - 1])
def test_a_length_of_the_header_that_is_wrong(saved: Path, length: int) -> None:
    header, numbers = parts(saved)
    forge(saved, header, numbers, length=length)
    refusal(saved)


def test_a_changed_byte_is_seen_wherever_it_is(saved: Path) -> None:
    content = saved.read_bytes()
    for at in range(0, len(content), 3):
        saved.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        refusal(saved)


def test_truncations_and_a_tail_are_seen(saved: Path) -> None:
    content = saved.read_bytes()
    for size in range(0, len(content), 3):
        saved.write_bytes(content[:size])
        refusal(saved)
    saved.write_bytes(content + b"\0")
    refusal(saved)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=400),
    st.booleans(),
    st.dictionaries(
        st.sampled_from([*WRONG]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
    ),
)
def test_hostile_bytes_are_refused(saved: Path, tail: bytes, whole: bool, changes: dict[str, Any]) -> None:
    forge(saved, {**A_HEADER, **changes} if whole else tail, tail)
    refusal(saved)


@pytest.mark.parametrize(
    ("settings", "wanted", "sentence"),
    [
        ({"hidden": 50}, {"hidden": 10}, "run must be of a run with `hidden` 10, got one with 50."),
        ({"rate": 1}, {"rate": 1.0}, "run must be of a run with `rate` 1.0, got one with 1."),
        ({}, {"seed": 0}, "run must be of a run with `seed` 0, got one with None."),
        ({"seed": 0}, {}, "run must be of a run with `seed` None, got one with 0."),
    ],
)
def test_another_run_is_refused(settings: dict[str, Any], wanted: dict[str, Any], sentence: str) -> None:
    checkpoints.check_same("run", wanted, wanted)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.check_same("run", settings, wanted)
    assert str(caught.value) == sentence


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "", "missing"):
        with pytest.raises(CheckpointError, match="must be a file"):
            load(tmp_path / name)


def test_data_sets_that_differ_in_anything_have_other_hashes() -> None:
    data = datasets.load("random", dtype="float32")
    moved = data.x_test.copy()
    moved[-1, -1] = np.nextafter(moved[-1, -1], np.float32(2))
    others = [data._replace(x_test=moved), data._replace(t_train=data.t_train[::-1])]
    others += [data._replace(x_train=data.x_train.reshape(-1, 32)), data._replace(x_train=data.x_train.view(np.int32))]
    hashes = {checkpoints.data_hash(arrays) for arrays in (data, data, *others)}
    assert len(hashes) == 5


def test_types_are_as_they_say() -> None:
    assert isinstance(a_checkpoint().progress, Progress)
    assert isinstance(a_checkpoint().progress.params, Params)
