"""What keeps a run of training: its checkpoint, written now and then, and at the end or where it was asked to stop.

Of several ranks the first alone has the file; where the run begins it tells the others.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from comparison.commands import processes as ranks

if TYPE_CHECKING:
    from reference.training import Progress


class Keeper:
    """Keeps the last border of a run in a file; with no `path`, nothing.

    Parameters
    ----------
    path : str or None
        The checkpoint.
    every : int
        Iterations between two of them: it is written at the first border after.
    settings, environment : dict
        As in `reference.checkpoints.Checkpoint`.
    """

    def __init__(self, path: str | None, every: int, settings: dict[str, Any], environment: dict[str, Any]) -> None:
        self.path, self.settings, self._every, self._environment = path, settings, every, environment
        self._kept = -1
        self._last: Progress | None = None

    def begin(self, start: Progress, *, resume: bool, overwrite: bool) -> Progress:
        """Return where the run begins: `start`, or what the file holds if it is to be resumed.

        Raises
        ------
        CheckpointError
            If the file is damaged or another run's, or is there and nothing was said about it. It is left as it is.
        """
        if self.path is None:
            return start
        return ranks.gather(self._begun(self.path, start, resume, overwrite) if ranks.first() else None)[0]

    def _begun(self, path: str, start: Progress, resume: bool, overwrite: bool) -> Progress:
        from reference import checkpoints

        there = os.path.lexists(path)
        if there and not (resume or overwrite):
            raise checkpoints.CheckpointError(
                f"{path} must not be there yet, got one: --resume goes on from it, --overwrite begins anew."
            )
        if resume and not there:
            print(f"compare.py: {path} is not there yet: training begins anew.", file=sys.stderr)
        return self._loaded(path, start) if resume and there else start

    def _loaded(self, path: str, start: Progress) -> Progress:
        from reference import checkpoints

        found = checkpoints.load(path)
        checkpoints.check_same(path, found.settings, self.settings)
        sizes, dtypes = ({getattr(p, name) for p in found.progress.params} for name in ("shape", "dtype"))
        if sizes != {p.shape for p in start.params} or dtypes != {p.dtype for p in start.params}:
            raise checkpoints.CheckpointError(f"{path} must hold a net of the settings' sizes, got another.")
        changed = [key for key, value in self._environment.items() if found.environment.get(key) != value]
        if changed:
            print(
                f"compare.py: {path} was written with another {', '.join(changed)}: the run goes on, but the same bits "
                "as without the interruption are no longer promised.",
                file=sys.stderr,
            )
        return found.progress

    def open(self, start: Progress, iterations: int) -> None:
        """Keep where the run begins, before any work: a full disk or a closed folder has nothing to lose yet."""
        from reference import checkpoints

        if self.path is None or not ranks.first():
            return
        checkpoints.sweep(self.path)
        self.offer(start)
        numbers = sum(p.nbytes for p in start.params) + 32 * iterations  # of a loss, and an epoch's accuracies
        free = shutil.disk_usage(os.path.dirname(os.path.realpath(self.path))).free
        if free < numbers:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({numbers:,} bytes)", self.path)

    def offer(self, now: Progress) -> None:
        """Keep where the run is if it is time to."""
        if now.border:
            self._last = now
            if self._kept < 0 or now.iteration // self._every > self._kept // self._every:
                self.keep()

    def keep(self) -> None:
        """Keep the last border, unless it is kept already."""
        from reference import checkpoints

        if self.path is None or self._last is None or self._last.iteration == self._kept or not ranks.first():
            return
        try:
            checkpoints.save(self.path, checkpoints.Checkpoint(self._last, self.settings, self._environment))
        except OSError as error:
            good = f"; the checkpoint of iteration {self._kept} is kept" if self._kept >= 0 else ""
            raise OSError(error.errno, f"{error.strerror}{good}", self.path) from error
        self._kept = self._last.iteration
