"""
The folders that the attempts of a job share on one machine: made for the first, kept while one runs, and gone afterwards if empty.

Most programs put nothing there, and without an end there would be a folder for each job that ever ran here. What has something in it
stays: it may be the only copy of a result.

Several workers of a machine may use the same place. Whoever uses a folder holds a shared lock on it, which the system takes back however
the process ends; only who gets the lock for itself alone removes the folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os

import attrs

TRIES_MAX = 1_000
"""How often a folder is made that another process removes at once; each time that one was done with it."""


@attrs.define(slots=True)
class _Used:
    descriptor: int
    users: int = 1


class SharedFolders:
    """Those of one process, in ``place``, which is made if absent."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._used: dict[str, _Used] = {}

    def path(self, name: str) -> str:
        """Where the folder ``name`` is, whether it is there or not."""
        return f"{self._place}/{name}"

    def use(self, name: str) -> None:
        """It is there from now on, until as many times was said `leave`. Raises OSError."""
        used = self._used.get(name)
        if used is not None:
            used.users += 1
            return
        os.makedirs(self._place, exist_ok=True)
        self._used[name] = _Used(_held(self.path(name)))

    def leave(self, name: str) -> None:
        """One user less, if there was one; the last of all processes removes it, if it is empty."""
        used = self._used.get(name)
        if used is None:
            return
        used.users -= 1
        if used.users == 0:
            del self._used[name]
            try:
                _remove_unused(self.path(name), used.descriptor)
            finally:
                os.close(used.descriptor)

    def sweep(self) -> None:
        """Remove what killed processes left empty. Raises OSError: the place can not be made or read."""
        os.makedirs(self._place, exist_ok=True)
        with os.scandir(self._place) as entries:
            for entry in entries:
                if entry.name not in self._used and entry.is_dir(follow_symlinks=False):
                    _remove_left(entry.path)


def _held(path: str) -> int:
    """A descriptor of the folder, which is there and has a shared lock. Raises OSError."""
    for _ in range(TRIES_MAX):
        with contextlib.suppress(FileExistsError):  # what is no folder can not be opened as one
            os.mkdir(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another process has just removed it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if _is_at(path, descriptor):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed between the two: the lock is on what has no name any more
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove_unused(path: str, descriptor: int) -> None:
    # Nobody waits here: who else has the lock uses it, and removes it later. What is not empty can not be removed.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rmdir(path)


def _remove_left(path: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _remove_unused(path, descriptor)
        finally:
            os.close(descriptor)
