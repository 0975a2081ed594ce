import pytest

from ports.patience import patience


def test_it_is_two_minutes_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FDNET_PATIENCE", raising=False)
    assert patience() == 120
    monkeypatch.setenv("FDNET_PATIENCE", "7")
    assert patience() == 7
    monkeypatch.setenv("FDNET_PATIENCE", "1")
    assert patience() == 1


@pytest.mark.parametrize("text", ["soon", "", "0", "00", "-1", "1.5", "1000000", "nan"])
def test_what_is_no_time_is_one_sentence(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FDNET_PATIENCE", text)
    with pytest.raises(ValueError, match=rf"^`FDNET_PATIENCE` must be a whole number of seconds, .*got '{text}'\.$"):
        patience()
