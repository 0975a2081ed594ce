"""A checkpoint is whole or absent, and nothing but a whole one is read."""

import hashlib
import json
import math
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference import checkpoints, datasets
from reference.checkpoints import MAGIC, Checkpoint, CheckpointError, load, save
from reference.files import ExclusiveFile, remove_stale, write_atomically
from reference.idx import DataError
from reference.params import load_params, save_params
from reference.training import Progress, begin
from reference.two_layer_net import Params, init

HEADER = len(MAGIC) + 32


def a_checkpoint(dtype: str = "float32") -> Checkpoint:
    start = begin(init(5, 4, 3, seed=0, dtype=dtype), seed=1)
    now = start._replace(iteration=7, losses=np.linspace(2, 1, 7), accuracies=np.array([[0, 0.1, 0.2], [5, 0.3, 0.4]]))
    return Checkpoint(now, {"backend": "numpy", "rate": 0.1, "seed": 0}, {"numpy": "2.1", "threads": None})


def save_at(path: Path, checkpoint: Checkpoint) -> None:
    with ExclusiveFile(path) as file:
        save(file, checkpoint)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_at(tmp_path / "run.ckpt", a_checkpoint())
    return tmp_path / "run.ckpt"


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


# --- writing


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    with ExclusiveFile(tmp_path / "run") as file:
        for checkpoint in (a_checkpoint("float64"), a_checkpoint("float32")):
            save(file, checkpoint)
            assert load(tmp_path / "run").progress.params.W1.dtype == checkpoint.progress.params.W1.dtype
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize(("umask", "mode"), [(0o027, 0o640), (0o002, 0o664)])
def test_a_new_file_follows_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        save_at(tmp_path / "run", a_checkpoint())
        save_at(tmp_path / "run", a_checkpoint())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == mode


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "inner" / "run")
    save_at(tmp_path / "run", a_checkpoint())
    assert (tmp_path / "run").is_symlink()
    load(tmp_path / "inner" / "run")


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", fail)
    save_at(tmp_path / "run", a_checkpoint())
    assert os.listdir(tmp_path) == ["run"]
    load(tmp_path / "run")


@pytest.mark.parametrize("broken", ["fsync", "replace", "fchmod"])
def test_whatever_fails_leaves_the_file_that_was_there(
    saved: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    before = saved.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device", "a temporary name")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space left") as caught:
        save_at(saved, a_checkpoint("float64"))
    assert caught.value.filename == str(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_temporary_that_is_gone_already_need_not_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(temporary: Path, _: Path) -> None:
        os.unlink(temporary)
        raise OSError(5, "Input/output error", temporary)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        write_atomically(tmp_path / "run", [b"one"])
    assert caught.value.filename == str(tmp_path / "run")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", [lambda path: save_at(path, a_checkpoint()), lambda path: write_atomically(path, [])])
def test_the_order_survives_a_crash_of_the_machine(
    saved: Path, write: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def recorded(name: str) -> Callable[..., Any]:
        function = getattr(os, name)

        def call(*args: Any) -> Any:
            calls.append((name, stat.S_ISDIR(os.fstat(args[0]).st_mode) if name == "fsync" else None))
            return function(*args)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, recorded(name))
    write(saved)
    assert calls == [("fsync", False), ("replace", None), ("fsync", True)]


def test_only_the_files_that_killed_writers_left_behind_are_removed(tmp_path: Path) -> None:
    others = {"run", ".fdnet-1.txt", "fdnet-1.tmp", ".fdnet.tmp", ".other-1.tmp", ".fdnet-1.tmp.gz"}
    for name in (*others, ".fdnet-1.tmp", ".fdnet-0123456789abcdef.tmp"):
        (tmp_path / name).write_bytes(b"x")
    remove_stale(tmp_path)
    assert {*os.listdir(tmp_path)} == others


def test_two_processes_may_remove_the_same_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".fdnet-1.tmp").write_bytes(b"x")
    unlink = os.unlink

    def after_the_other(name: str) -> None:
        unlink(name)
        unlink(name)

    monkeypatch.setattr(os, "unlink", after_the_other)
    remove_stale(tmp_path)
    assert os.listdir(tmp_path) == []


FULL = """
import resource, sys
sys.path[:0] = {folders!r}
from test_checkpoints import a_checkpoint, save_at
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
save_at(sys.argv[1], a_checkpoint("float64"))
"""


@pytest.mark.parametrize("limit", [0, 1, 100, 600])
def test_a_full_disk_leaves_the_last_good_checkpoint(saved: Path, limit: int) -> None:
    before, folder = saved.read_bytes(), Path(__file__).parent
    code = FULL.format(folders=[str(folder), *map(str, folder.parents[:2])], limit=limit)
    done = subprocess.run([sys.executable, "-c", code, str(saved)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"OSError: [Errno 27] File too large: '{saved}'"
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]
    load(saved)


# --- parameters


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


def test_types_are_as_they_say() -> None:
    assert isinstance(a_checkpoint().progress, Progress)
    assert isinstance(a_checkpoint().progress.params, Params)
