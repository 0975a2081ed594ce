"""Write a file so that it is either there as a whole or not at all, also after a crash.

A regular file is written beside its place, under a temporary name, and then put in its place. Its writer holds a lock
on the temporary for as long as it lives, by which `remove_stale` tells what a killed writer left behind. Anything else
that exists (a device, a FIFO, /dev/stdout) is opened and written, and so is a file that may be written but not replaced
(a mount point, one of another user's). Where the system has no `fcntl`, nothing is locked.
"""

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

StrPath = str | os.PathLike[str]
_PREFIX, _SUFFIX = ".fdnet-", ".tmp"
_BINARY = getattr(os, "O_BINARY", 0)


class BusyFileError(ValueError):
    """A file that another process is writing."""


def write_atomically(path: StrPath, pieces: Iterable[bytes]) -> None:
    """Write a file; whatever happens on the way, a file that was there before stays until it is replaced.

    A file that is replaced keeps its mode and, where permitted, its owner. One that can't be replaced is overwritten.

    Raises
    ------
    OSError
        If it can't be written; the error names `path`.
    """
    with _naming(path):
        target = Path(os.path.realpath(path))
        if is_special(path):
            _write_through(path, pieces)
        elif _is_in_closed_folder(target):
            _overwrite(target, pieces)
        else:
            with _written_beside(target, pieces) as (temporary, _):
                _put_in_place(temporary, target)
            _sync_folder(target.parent)


def check_writable(path: StrPath) -> None:
    """Raise OSError where `write_atomically` could not write, by doing all of it but the last step."""
    with _naming(path):
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if os.path.exists(path) and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        target = Path(os.path.realpath(path))
        if not is_special(path) and not _is_in_closed_folder(target):
            with contextlib.suppress(FileNotFoundError):
                os.lstat(target)  # raises for a name that is too long
            with _written_beside(target, []):
                pass


class ExclusiveFile:
    """A file that only this process writes, from its first write on or, if the file is there, from `__enter__` on.

    The lock dies with the process. It is held on the file itself: each write locks the new file before it replaces the
    old one.

    Parameters
    ----------
    path : path-like
        A regular file, or none yet.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = path
        self._target = Path(os.path.realpath(path))
        self._handle: int | None = None

    def __enter__(self) -> Self:
        """Lock the file if it is there; BusyFileError if another process has locked it.

        ValueError if it is no regular file: a FIFO would be waited for, and a device replaced.
        """
        if is_special(self.path):
            raise ValueError(f"{self.path} must be a regular file, got something else.")
        with _naming(self.path), contextlib.suppress(FileNotFoundError):
            self._handle = os.open(self._target, os.O_RDONLY | _BINARY)
            if _lock(self._handle) is False or not self._is_in_place():  # or replaced since it was opened
                self.close()
                raise self._busy()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def write(self, pieces: Iterable[bytes]) -> None:
        """Replace the file as a whole, or create it.

        Raises
        ------
        BusyFileError
            If another process has created or replaced it.
        OSError
            If it can't be written; the error names the path.
        """
        with _naming(self.path), _written_beside(self._target, pieces) as (temporary, handle):
            if self._handle is None:
                self._create(temporary)
            elif self._is_in_place():
                os.replace(temporary, self._target)
            else:
                raise self._busy()
            self.close()
            self._handle = os.dup(handle)
        _sync_folder(self._target.parent)

    def _create(self, temporary: Path) -> None:
        """Put the file in its place unless one is there; a file system without links can't tell."""
        try:
            os.link(temporary, self._target)
        except FileExistsError:
            raise self._busy() from None
        except OSError:
            os.replace(temporary, self._target)

    def _is_in_place(self) -> bool:
        """Whether the file that is locked is the one at the path."""
        assert self._handle is not None
        try:
            return os.path.samestat(os.fstat(self._handle), os.stat(self._target))
        except FileNotFoundError:
            return True  # removed: nothing is lost by writing it again

    def _busy(self) -> BusyFileError:
        return BusyFileError(f"{self.path} must not be in use by another run, but one is writing it.")


def remove_stale(folder: StrPath) -> None:
    """Remove the temporaries that killed writers left in a folder; those of living writers are locked."""
    with os.scandir(folder) as entries:
        names = [e.path for e in entries if e.name.startswith(_PREFIX) and e.name.endswith(_SUFFIX)]
    for name in names:
        with contextlib.suppress(OSError):  # another process may have removed it
            handle = os.open(name, os.O_RDONLY | _BINARY)
            try:
                if _lock(handle):
                    os.unlink(name)
            finally:
                os.close(handle)


@contextmanager
def _written_beside(target: Path, pieces: Iterable[bytes]) -> Iterator[tuple[Path, int]]:
    """Write a temporary file in the target's folder, and remove it at the end unless it has been moved."""
    temporary, handle = _create_temporary(target.parent)
    try:
        _keep_mode(handle, target)
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(handle)
        yield temporary, handle
    finally:
        os.close(handle)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _create_temporary(folder: Path) -> tuple[Path, int]:
    """Create a temporary file, and lock it before a clean-up can take it for one that was left behind."""
    while True:
        path = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _BINARY, 0o666)
        _lock(handle)
        if os.fstat(handle).st_nlink > 0:
            return path, handle
        os.close(handle)


def _keep_mode(handle: int, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        before = os.stat(target)
        if hasattr(os, "fchmod"):
            os.fchmod(handle, stat.S_IMODE(before.st_mode))
            with contextlib.suppress(PermissionError):
                os.fchown(handle, before.st_uid, before.st_gid)


def _lock(handle: int) -> bool | None:
    """Lock a file, and return whether no other process had; None where files can't be locked."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def is_special(path: StrPath) -> bool:
    """Whether something is there that a file must not replace; /dev/stdout may lead to one, /dev/shm holds some."""
    where = os.path.abspath(path)
    if where.startswith(("/dev/", "/proc/")) and not where.startswith("/dev/shm/"):
        return os.path.exists(path) and not os.path.isdir(path)
    return os.path.exists(path) and not os.path.isfile(path)


def _is_in_closed_folder(target: Path) -> bool:
    """Whether the file is there, and nothing can be written beside it."""
    return target.is_file() and not os.access(target.parent, os.W_OK)


def _put_in_place(temporary: Path, target: Path) -> None:
    """Replace the target or, where the system refuses that, overwrite it: EBUSY of a mount point, EPERM of /tmp."""
    try:
        os.replace(temporary, target)
    except OSError:
        if not target.is_file():
            raise
        _overwrite(target, [temporary.read_bytes()])


def _overwrite(target: Path, pieces: Iterable[bytes]) -> None:
    """Write a file that is there, without O_CREAT: in /tmp that is refused for another user's."""
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_TRUNC | _BINARY), "wb") as file:
        file.writelines(pieces)


def _write_through(path: StrPath, pieces: Iterable[bytes]) -> None:
    """Write to a device, a FIFO or a descriptor, after what this process has printed there."""
    sys.stdout.flush()
    sys.stderr.flush()
    number = _descriptor_of(path)  # opened anew, a file would be written from its beginning
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | _BINARY) if number is None else os.dup(number)
    with os.fdopen(handle, "wb") as file:
        file.writelines(pieces)


def _descriptor_of(path: StrPath) -> int | None:
    """Return this process's descriptor that a path in /dev or /proc stands for; None if it stands for another file."""
    absolute = os.path.abspath(path)
    match = re.fullmatch(r"/(?:dev|proc/([\w-]+))/fd/(\d+)", absolute)
    if match and match[1] in (None, "self", "thread-self", str(os.getpid())):
        return int(match[2])
    return {"/dev/stdout": 1, "/dev/stderr": 2}.get(absolute)


@contextmanager
def _naming(path: StrPath) -> Iterator[None]:
    """Let an error name the file that the user named: a temporary name means nothing to anyone."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder can't be opened, and need not be
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
