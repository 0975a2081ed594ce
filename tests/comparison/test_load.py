"""When a machine is taken to be busy, by what Linux reports, and elsewhere by what the contenders got."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from comparison.timing import load, ranking
from comparison.timing.load import Load, LoadMeter
from comparison.timing.rounds import Rounds

STAT = """cpu  9000 0 0 0 0 0 0 0 0 0
cpu0 {0} 20 30 4000 50 6 7 8 0 0
cpu1 1000 0 0 0 0 0 0 0 0 0
cpu10 7777 0 0 0 0 0 0 0 0 0
intr 1 2 3
"""


@pytest.mark.parametrize(
    ("others", "waiting", "starved", "busy"),
    [
        (0.0, 0.0, False, False),
        (0.1, 0.5, True, False),  # what a desktop does of its own
        (1.0, 0.0, False, False),  # there are cores enough
        (1.0, 0.3, False, True),
        (1.0, 0.0, True, True),
        (None, None, False, False),
        (None, None, True, True),
        (2.0, None, False, False),
        (2.0, None, True, True),
    ],
)
def test_busy_is_a_machine_that_others_use_while_contenders_wait(
    others: float | None, waiting: float | None, starved: bool, busy: bool
) -> None:
    assert Load(2, others, waiting, starved).is_busy == busy


def test_the_sentence_says_who_and_what_to_do() -> None:
    assert Load(2, 1.26, 0.5, False).sentence == (
        "No winner is named: the machine was busy (other processes used 1.3 of its 2 cores), so these times are not "
        "the contenders' own. Run it again when nothing else runs, or leave them a core by --threads."
    )
    sentence = Load(1, None, None, True).sentence
    assert "(this process did not get the cores it could use)" in sentence
    assert "--threads" not in sentence


def test_the_time_of_this_process_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds, in which the two cores worked for 12, this process for 5 of them, and its threads waited for 2."""
    states: Iterator[tuple[float, float, float, float]] = iter([(100.0, 50.0, 1000.0, 7.0), (110.0, 55.0, 1012.0, 9.0)])
    monkeypatch.setattr(LoadMeter, "_read", lambda *_: next(states))
    monkeypatch.setattr(load, "usable_cores", lambda: 2)
    rounds = Rounds(np.array([[1.0, 1.0]]), np.array([[0.5, 1.0]]))
    assert LoadMeter().measure(rounds, [False, True]) == Load(2, pytest.approx(0.7), pytest.approx(0.4), False)


def test_a_contender_on_the_processor_gets_a_core_or_is_starved() -> None:
    rounds = Rounds(np.array([[1.0, 1.0]]), np.array([[0.5, 1.0]]))
    assert LoadMeter().measure(rounds, [True, True]).starved
    assert not LoadMeter().measure(rounds, [False, True]).starved  # it waits for a GPU


def test_processes_of_its_own_are_not_told_from_others() -> None:
    rounds = Rounds(np.ones((1, 1)), np.ones((1, 1)))
    assert LoadMeter().measure(rounds, [True], one_process=False).others is None


def test_only_the_cores_of_this_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: STAT.format(100) if str(self) == "/proc/stat" else "")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    assert load._busy_seconds() == (100 + 20 + 30 + 6 + 7 + 8 + 1000) / 100


def test_where_the_system_reports_nothing_it_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refused)
    assert load._busy_seconds() is None
    assert load._waiting_seconds() is None


def test_too_few_rounds_name_no_winner_either() -> None:
    idle = Load(2, 0.0, 0.0, False)
    assert ranking._reason_for_no_winner(idle, 6, 1) is None
    reason = ranking._reason_for_no_winner(idle, 5, 1)
    assert reason is not None
    assert reason.startswith("No winner is named: --budget was spent after 5 rounds, and it takes 6 to tell")
    assert ranking._reason_for_no_winner(idle, 6, 100) is not None


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system reports no waiting")
def test_a_process_that_works_is_seen() -> None:
    begin = load._busy_seconds()
    assert begin is not None
    for _, _ in zip(range(10**6), cycle([1]), strict=False):
        pass
    end, waited = load._busy_seconds(), load._waiting_seconds()
    assert end is not None
    assert end >= begin
    assert waited is not None
    assert waited >= 0
