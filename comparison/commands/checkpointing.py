"""The checkpoint of a run of training: written now and then, at the end, and where the run is asked to stop.

Of several ranks only the first has the file; it sends the others the progress to resume from.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, Self

from comparison import PROGRAM
from comparison.commands import processes

if TYPE_CHECKING:
    from reference.files import ExclusiveFile
    from reference.training import Progress

FORMER_NAMES = {"step": "h", "chunk_memory": "memory"}
"""Settings in older checkpoints."""


class CheckpointWriter:
    """Writes the last resumable progress of a run to a file, from which it keeps other runs; with no `path`, nothing.

    Parameters
    ----------
    path : str or None
        The checkpoint.
    every : int
        Iterations between two of them: it is written at the first resumable progress after.
    settings, environment : dict
        As in `reference.checkpoints.Checkpoint`.
    """

    def __init__(self, path: str | None, every: int, settings: dict[str, Any], environment: dict[str, Any]) -> None:
        self.path, self.settings, self._every, self._environment = path, settings, every, environment
        self._written = -1
        self._last: Progress | None = None
        self._file: ExclusiveFile | None = None  # on the first rank only

    @property
    def iteration(self) -> int | None:
        """The iteration that the file holds; None where nothing was written, as on all ranks but the first."""
        return self._written if self._written >= 0 else None

    def __enter__(self) -> Self:
        """Lock the file if it is there; BusyFileError if another run is writing it."""
        from reference.files import ExclusiveFile

        if self.path is not None and processes.is_first():
            self._file = ExclusiveFile(self.path).__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def load(self, start: Progress, *, resume: bool, overwrite: bool) -> Progress:
        """Return the progress to begin from: `start`, or that of the file if it is to be resumed.

        Raises
        ------
        CheckpointError
            If the file is damaged or another run's, or exists without `resume` or `overwrite`. It is left as it is.
        """
        if self.path is None:
            return start
        progress = self._load(self.path, start, resume, overwrite) if processes.is_first() else None
        return processes.gather(progress)[0]

    def _load(self, path: str, start: Progress, resume: bool, overwrite: bool) -> Progress:
        from reference.checkpoints import CheckpointError

        exists = os.path.lexists(path)
        if exists and not (resume or overwrite):
            raise CheckpointError(f"{path} already exists: --resume resumes it, --overwrite begins anew.")
        if resume and not exists:
            print(f"{PROGRAM}: {path} is not there yet: training begins anew.", file=sys.stderr)
        return self._read(path, start) if resume and exists else start

    def _read(self, path: str, start: Progress) -> Progress:
        from reference import checkpoints

        checkpoint = checkpoints.load(path)
        settings = {FORMER_NAMES.get(name, name): value for name, value in checkpoint.settings.items()}
        checkpoints.check_same(path, settings, self.settings)
        got, expected = ([(p.shape, p.dtype) for p in now.params] for now in (checkpoint.progress, start))
        if got != expected:
            raise checkpoints.CheckpointError(f"{path} must hold a net of the settings' sizes, got another.")
        changed = [name for name, value in self._environment.items() if checkpoint.environment.get(name) != value]
        if changed:
            print(
                f"{PROGRAM}: {path} was written with another {', '.join(changed)}: the run continues, but the same "
                "bits as without the interruption are no longer promised.",
                file=sys.stderr,
            )
        return checkpoint.progress

    def write_first(self, start: Progress, iterations: int) -> None:
        """Write the beginning of the run, before any work: a full disk or a closed folder loses nothing yet."""
        from reference.files import remove_stale

        if self.path is None or self._file is None:
            return
        folder = os.path.dirname(os.path.realpath(self.path))
        remove_stale(folder)
        self.update(start)
        size = sum(p.nbytes for p in start.params) + 32 * iterations  # of a loss, and an epoch's accuracies
        if shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({size:,} bytes)", self.path)

    def update(self, now: Progress) -> None:
        """Take notice of the progress, and write it if it is time to."""
        if now.resumable:
            self._last = now
            if self._written < 0 or now.iteration // self._every > self._written // self._every:
                self.write()

    def write(self) -> None:
        """Write the last resumable progress, unless it is written already."""
        from reference import checkpoints

        if self._file is None or self._last is None or self._last.iteration == self._written:
            return
        with processes.delay_stop_requests():
            try:
                checkpoints.save(self._file, checkpoints.Checkpoint(self._last, self.settings, self._environment))
            except OSError as error:
                is_kept = self._written >= 0 and os.path.exists(self._file.path)
                kept = f"; the checkpoint of iteration {self._written} is kept" if is_kept else ""
                raise OSError(error.errno, f"{error.strerror}{kept}", self.path) from error
            self._written = self._last.iteration
