"""Fixtures for the tests of more than one command."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import compare
from command_lines import FEW_NETS, SMALL
from comparison.timing.load import Load
from few_nets import leave_few_nets
from reports import NET


@pytest.fixture(scope="module", autouse=True)
def _few_nets() -> Iterator[None]:
    """Compare ports on fewer nets, in this process and in those that `report` starts, as `run` does in its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("comparison.commands.report_parts.COMPARE", FEW_NETS)
        leave_few_nets(patch.setattr)
        yield


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a report on a small net."""
    out = tmp_path_factory.mktemp("report")
    sweeps = []
    for over in ("hidden", "batch"):
        path = out / f"{over}.json"
        timing = ("--budget", "0.1", "--dtype", "float64", "--quiet", "--json", str(path))
        assert compare.main(["speed", *SMALL[1:], *timing, "--sweep", over, "--sizes", "2,5"]) == 0
        sweeps.append(f"--{over}-file={path}")
    assert compare.main(["report", *NET, "--out", str(out), "--quiet", *sweeps]) == 0
    return out
