"""Whether this machine had time for what was timed: how much of its cores other processes used meanwhile."""

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from comparison.timing.rounds import Rounds

OTHERS = 0.2
"""Cores that other processes may use: what a desktop does of its own."""
WAITING = 0.05
"""The share of its processor time that a process may wait for a core, before it has got less than it could use."""
ONE_CORE = 0.8
"""What computes on the processor uses one core at least, if it gets it."""


class Load(NamedTuple):
    """How busy the machine was while the rounds were taken."""

    cores: int  # that this process may use
    others: float | None  # cores used by other processes; None where the system does not report it
    waiting: float | None  # the time that threads waited for a core, as a share of their processor time
    starved: bool  # a contender that computes on the processor got less than one core

    @property
    def is_busy(self) -> bool:
        """Whether a contender may have got less than it could use."""
        if self.others is None or self.waiting is None:
            return self.starved
        return self.others > OTHERS and (self.waiting > WAITING or self.starved)

    @property
    def sentence(self) -> str:
        """Say that a busy machine names no winner, and what to do."""
        who = "this process did not get the cores it could use"
        if self.others is not None and self.others > OTHERS:
            who = f"other processes used {self.others:.1f} of its {self.cores} core{'s' if self.cores > 1 else ''}"
        fewer = ", or leave them a core by --threads" if self.cores > 1 else ""
        return (
            f"No winner is named: the machine was busy ({who}), so these times are not the contenders' own. "
            f"Run it again when nothing else runs{fewer}."
        )

    def as_json(self) -> dict[str, Any]:
        """Return the load as JSON records it."""
        return {**self._asdict(), "busy": self.is_busy}


class LoadMeter:
    """Measures the load from its creation on."""

    def __init__(self) -> None:
        self._begin = self._read()

    def measure(self, rounds: Rounds, on_cpu: list[bool], *, one_process: bool = True) -> Load:
        """Measure the load since the creation.

        Parameters
        ----------
        rounds : Rounds
        on_cpu : list of bool
            Which of the contenders compute on the processor.
        one_process : bool
            Whether this process did all of it: others of its own could not be told from those of other programs.
        """
        (t, cpu, busy, waited), (t0, cpu0, busy0, waited0) = self._read(), self._begin
        seconds, own = max(t - t0, 1e-9), max(cpu - cpu0, 1e-9)
        others = (
            max(0.0, busy - busy0 - own) / seconds if one_process and busy is not None and busy0 is not None else None
        )
        waiting = None if waited is None or waited0 is None else max(0.0, waited - waited0) / own
        used = rounds.cores_used()
        starved = any(cores < ONE_CORE for cores, on in zip(used, on_cpu, strict=True) if on)
        return Load(usable_cores(), others, waiting, starved)

    @staticmethod
    def _read() -> tuple[float, float, float | None, float | None]:
        return time.perf_counter(), time.process_time(), _busy_seconds(), _waiting_seconds()


def usable_cores() -> int:
    """Count the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return int(os.environ.get("FDNET_THREADS", cores or 1))


def _busy_seconds() -> float | None:
    """Return the time that the cores of this process have worked for anyone since the start, as Linux reports it."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        own = {f"cpu{n}" for n in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return None
    ticks = 0
    for name, *times in map(str.split, lines):
        if name in own:
            user, nice, system, _, _, irq, softirq, steal, *_ = map(int, times)
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def _waiting_seconds() -> float | None:
    """Return how long the threads of this process have waited for a core, as Linux reports it."""
    try:
        threads = [path.read_text().split() for path in Path("/proc/self/task").glob("*/schedstat")]
    except OSError:  # a thread has ended meanwhile, or it is another system
        return None
    return sum(int(waited) for _, waited, _ in threads) / 1e9 if threads else None
