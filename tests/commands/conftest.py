"""Fixtures for the tests of more than one command."""

import pytest

from comparison.timing.load import Load
from few_nets import few_nets


@pytest.fixture(autouse=True)
def _few_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare ports on fewer nets, in this process; `run` does so in another."""
    for module, name, value in few_nets():
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine seem idle, whatever else runs on it, and let everything fit and have rounds enough."""
    monkeypatch.setattr(Load, "is_busy", False)
    monkeypatch.setattr("comparison.timing.rounds.LIMIT", 1e9)
    monkeypatch.setattr("comparison.timing.contenders._fit", lambda candidate, _: (None, candidate.seconds))


@pytest.fixture
def outside_github(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
