import pytest

from ports.distributed import timeout_seconds


def test_it_is_two_minutes_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FDNET_PATIENCE", raising=False)
    assert timeout_seconds() == 120
    monkeypatch.setenv("FDNET_PATIENCE", "7")
    assert timeout_seconds() == 7
    monkeypatch.setenv("FDNET_PATIENCE", "1")
    assert timeout_seconds() == 1


@pytest.mark.parametrize("text", ["soon", "", "0", "00", "-1", "1.5", "1000000", "nan"])
def test_what_is_no_time_is_one_sentence(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FDNET_PATIENCE", text)
    with pytest.raises(ValueError, match=rf"^`FDNET_PATIENCE` must be a whole number of seconds, .*got '{text}'\.$"):
        timeout_seconds()
