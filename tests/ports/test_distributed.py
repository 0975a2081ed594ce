"""What devices send, how long processes wait, and how those of JAX find each other."""

import pytest

from ports.distributed import Sent, jax_processes, timeout_seconds, total_sent, whole_number
from reference.validation import DeviceError

JAX = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}


def test_messages_and_bytes_add_up() -> None:
    assert total_sent([Sent(1, 800), Sent(2, 16)]) == Sent(3, 816)
    assert total_sent(iter([Sent(1, 800)] * 3)) == Sent(3, 2400)
    assert total_sent([]) == Sent(0, 0)


def test_processes_wait_two_minutes_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FDNET_PATIENCE", raising=False)
    assert timeout_seconds() == 120
    for text in ("7", "1", "999999"):
        monkeypatch.setenv("FDNET_PATIENCE", text)
        assert timeout_seconds() == int(text)


@pytest.mark.parametrize("text", ["soon", "", "0", "00", "-1", "1.5", "1000000", "nan"])
def test_a_time_that_is_none_is_one_sentence(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FDNET_PATIENCE", text)
    with pytest.raises(ValueError, match=rf"^`FDNET_PATIENCE` must be a whole number of seconds, .*got '{text}'\.$"):
        timeout_seconds()


def test_the_number_of_a_rank_is_read_or_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert whole_number("RANK", 3) == 3
    monkeypatch.setenv("RANK", "12")
    assert whole_number("RANK", 3) == 12
    monkeypatch.setenv("RANK", "-1")
    with pytest.raises(DeviceError, match=r"^RANK must be a whole number, got '-1'\.$"):
        whole_number("RANK", 3)


def test_processes_find_each_other_by_three_variables() -> None:
    assert jax_processes({**JAX, "OTHER": "x"}) == ("10.0.0.1:1234", 3, 2)
    assert jax_processes(JAX | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}) == ("10.0.0.1:1234", 1, 0)


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"JAX_PROCESS_ID": "3"}, "'3' of '3'"),
        ({"JAX_PROCESS_ID": "-1"}, "'-1' of '3'"),
        ({"JAX_PROCESS_ID": ""}, "'' of '3'"),
        ({"JAX_NUM_PROCESSES": "many"}, "'2' of 'many'"),
        ({"JAX_NUM_PROCESSES": "0", "JAX_PROCESS_ID": "0"}, "'0' of '0'"),
    ],
)
def test_an_index_that_is_none_is_one_sentence(changes: dict[str, str], got: str) -> None:
    rule = "JAX_PROCESS_ID must be a number from 0 to JAX_NUM_PROCESSES - 1 where JAX_COORDINATOR_ADDRESS is set"
    with pytest.raises(DeviceError, match=rf"^{rule}, got {got}\.$"):
        jax_processes(JAX | changes)
    if "" in changes.values():
        with pytest.raises(DeviceError, match=rf"^{rule}, got {got}\.$"):
            jax_processes({name: value for name, value in JAX.items() if name not in changes})


@pytest.mark.parametrize("address", ["localhost", "10.0.0.1:", "10.0.0.1:http", ""])
def test_an_address_without_a_port_is_one_sentence(address: str) -> None:
    rule = "JAX_COORDINATOR_ADDRESS must be of the form address:port"
    with pytest.raises(DeviceError, match=rf"^{rule}, got '{address}'\.$"):
        jax_processes(JAX | {"JAX_COORDINATOR_ADDRESS": address})
