"""
A disk below the real store that writes down all that is done to it, and fails where it is told to.

The bytes lie in a folder, so the store works as it always does. Flushes are only written down: nobody cuts the power of this machine.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

import apsw
import attrs

from orchestra.storage.disk import Disk
from orchestra.testing.power_loss.medium import Image
from orchestra.testing.power_loss.operations import Kind, Operation

_NUMBERS = itertools.count(1)
_JOURNALS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


SQLITE_SYNCS_NAMES = "DISABLE_DIRSYNC" not in apsw.compile_options
"""Whether this SQLite flushes the directory of its own accord when a new log or journal is flushed for the first time."""


class Fails(StrEnum):
    """What a fault meets: an input/output error, or for `FULL` a medium that is full."""

    READ = "read"
    WRITE = "write"
    FULL = "full"
    SYNC = "sync"
    NAMES = "names"


_CODES = {
    Fails.READ: apsw.SQLITE_IOERR_READ,
    Fails.WRITE: apsw.SQLITE_IOERR_WRITE,
    Fails.SYNC: apsw.SQLITE_IOERR_FSYNC,
    Fails.NAMES: apsw.SQLITE_IOERR_DELETE,
}


@attrs.define(slots=True, eq=False)
class Fault:
    """
    What goes wrong.

    Args:
        fails: What kind of operation.
        nth: Which one of that kind, from 1.
        forever: All that follow fail too.
        met: How many have failed.
    """

    fails: Fails
    nth: int
    forever: bool = False
    met: int = 0
    _seen: int = 0

    def meets(self, fails: Fails) -> bool:
        """Count one operation. Whether it fails."""
        if fails is not self.fails:
            return False
        self._seen += 1
        if self._seen < self.nth or (self.met and not self.forever):
            return False
        self.met += 1
        return True

    def __str__(self) -> str:
        return f"{self.fails} {self.nth} {'for ever' if self.forever else 'once'}"


@attrs.define(slots=True, eq=False)
class Pair:
    """A fault, and a second one among the operations that follow it: while whoever met the first recovers from it."""

    first: Fault
    second: Fault

    @property
    def forever(self) -> bool:
        """Each of the two fails once."""
        return False

    @property
    def met(self) -> int:
        """How many have failed."""
        return self.first.met + self.second.met

    def meets(self, fails: Fails) -> bool:
        """Count one operation. Whether it fails."""
        return (self.second if self.first.met else self.first).meets(fails)

    def __str__(self) -> str:
        return f"{self.first}, then {self.second}"


class RecordingDisk(Disk):
    """
    A folder as a disk, and the tape of what was done to it.

    Args:
        folder: Where the bytes lie. What is in it at the beginning counts as durable.
        sqlite_syncs_names: Count the flushes of the directory that SQLite makes of its own accord for a new log or journal. Left out,
            the store has to see to its names alone, as with a SQLite that was built without them (``SQLITE_DISABLE_DIRSYNC``).
        syncs_names: False takes the store's own flushes of the directory away.
        fault: What goes wrong.

    Use it as a context: SQLite knows its layer from the first use until the end.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sqlite_syncs_names: bool = SQLITE_SYNCS_NAMES,
        syncs_names: bool = True,
        fault: Fault | Pair | None = None,
    ) -> None:
        self.folder = folder
        self.sqlite_syncs_names = sqlite_syncs_names
        self.syncs_names = syncs_names
        self.fault = fault
        self.vfs = f"power-loss-{os.getpid()}-{next(_NUMBERS)}"
        self.tape: list[Operation] = []
        self.durable: Image = {}
        self._files: dict[str, int] = {}
        self._next = 1
        self._layer = _Layer(self)
        self.rewind()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._layer.unregister()

    def rewind(self) -> None:
        """Forget the tape: what is in the folder now is durable. Nothing may be open."""
        self.durable = {
            each.name: each.read_bytes()
            for each in sorted(self.folder.iterdir())
            if not each.name.endswith("-shm")
        }
        self._files = {name: number for number, name in enumerate(sorted(self.durable), 1)}
        self._next = len(self._files) + 1
        self.tape.clear()

    def kill(self) -> None:
        """The process ends where it stands. Whoever opens files from now on finds them in another folder, as they are."""
        before = self.folder
        self.folder = before.with_name(f"{before.name}-again")
        self.folder.mkdir()
        for each in before.iterdir():
            if not each.name.endswith("-shm"):
                shutil.copyfile(each, self.folder / each.name)

    def put(self, operation: Operation) -> None:
        """Put an operation on the tape. All that is done to the disk comes through here, when it is done."""
        self.tape.append(operation)

    def note(self, kind: Kind, name: str = "", number: int = 0) -> None:
        """Put a note on the tape."""
        self.put(Operation(kind, name=name, offset=number))

    def is_here(self, path: str) -> bool:
        """Whether a file is on this disk still, and not only in the hands of a process that was killed."""
        return Path(path).parent == self.folder

    def number_of(self, path: str) -> int:
        """The number of the file with this name; 0 of one that only a process which was killed still holds."""
        return self._files[Path(path).name] if self.is_here(path) else 0

    def record(
        self, kind: Kind, path: str, *, number: int = 0, offset: int = 0, content: bytes = b""
    ) -> None:
        """Put an operation on a file's content on the tape; ``number`` is known of a file that was opened before."""
        if self.is_here(path):
            number = number or self.number_of(path)
            name = Path(path).name
            self.put(Operation(kind, number, name, offset=offset, content=content))

    def made(self, path: str) -> None:
        """A new file is there."""
        if self.is_here(path):
            name = Path(path).name
            self._files[name] = self._next
            self._next += 1
            self.record(Kind.MAKE, path)

    def gone(self, path: str) -> None:
        """A name is gone."""
        name = Path(path).name
        if self.is_here(path) and name in self._files:
            self.record(Kind.REMOVE, path)
            del self._files[name]

    def names_synced(self, path: str) -> None:
        """The directory was flushed."""
        if self.is_here(path):
            self.put(Operation(Kind.SYNC_NAMES))

    def met(self, fails: Fails) -> bool:
        """Count an operation. Whether it has to fail."""
        return self.fault is not None and self.fault.meets(fails)

    def refuse(self, fails: Fails) -> None:
        """Raise what the operating system would, if the operation has to fail."""
        if self.met(fails):
            raise OSError(errno.EIO, f"the disk fails: {fails}")

    # what the store does beside SQLite ---------------------------------------------------------------------------

    def reserve(self, path: str) -> None:
        """As `Disk.reserve`."""
        self.refuse(Fails.NAMES)
        super().reserve(path)
        self.made(path)

    def write_new(self, path: str, content: bytes) -> None:
        """As `Disk.write_new`."""
        self.refuse(Fails.NAMES)
        super().write_new(path, b"")
        self.made(path)
        self.refuse(Fails.WRITE)
        if self.met(Fails.FULL):
            raise OSError(errno.ENOSPC, "the disk is full")
        Path(path).write_bytes(content)
        self.record(Kind.WRITE, path, content=content)

    def remove(self, path: str) -> None:
        """As `Disk.remove`."""
        self.refuse(Fails.NAMES)
        super().remove(path)
        self.gone(path)

    def replace(self, source: str, target: str) -> None:
        """As `Disk.replace`."""
        self.refuse(Fails.NAMES)
        super().replace(source, target)
        if self.is_here(source):
            old, new = Path(source).name, Path(target).name
            number = self._files.pop(old)
            self._files[new] = number
            self.put(Operation(Kind.RENAME, number, old, new))

    def sync_file(self, path: str) -> None:
        """As `Disk.sync_file`, on the tape alone."""
        if self.met(Fails.SYNC):
            self.record(Kind.SYNC_FAILED, path)
            raise OSError(errno.EIO, "the disk fails: sync")
        self.record(Kind.SYNC, path)

    def write_again(self, path: str) -> None:
        """As `Disk.write_again`, with the flush on the tape alone."""
        content = Path(path).read_bytes()
        if self.met(Fails.WRITE) or self.met(Fails.FULL):
            raise OSError(errno.EIO, "the disk fails: write")
        self.record(Kind.WRITE, path, content=content)
        self.sync_file(path)

    def lengthen(self, path: str, length: int) -> None:
        """As `Disk.lengthen`, with the flush on the tape alone and room for all."""
        size = Path(path).stat().st_size
        zeros = bytes(max(0, length - size))
        if self.met(Fails.WRITE) or self.met(Fails.FULL):
            raise OSError(errno.ENOSPC, "the disk is full")
        with Path(path).open("ab") as file:
            file.write(zeros)
        self.record(Kind.WRITE, path, offset=size, content=zeros)
        self.sync_file(path)

    def sync_directory(self, path: str) -> None:
        """As `Disk.sync_directory`, on the tape alone."""
        self.refuse(Fails.SYNC)
        if self.syncs_names:
            self.names_synced(path)


def _failed(fails: Fails) -> apsw.Error:
    if fails is Fails.FULL:
        return apsw.FullError("the disk is full")
    error = apsw.IOError(f"the disk fails: {fails}")
    vars(error)["extendedresult"] = _CODES[fails]  # APSW hands it on to SQLite
    return error


class _Layer(apsw.VFS):
    """SQLite's way to the disk; below it are the default one and the folder."""

    def __init__(self, disk: RecordingDisk) -> None:
        self.disk = disk
        super().__init__(disk.vfs, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  SQLite's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None:  # a temporary file: nothing that has to survive
            return apsw.VFSFile("", name, flags)
        is_new = not Path(path).exists()
        if is_new and self.disk.met(Fails.NAMES):
            raise apsw.CantOpenError("the disk fails: open")
        return _File(path, name, flags, self.disk, is_new=is_new)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802  SQLite's name and order
        if self.disk.met(Fails.NAMES):
            raise _failed(Fails.NAMES)
        super().xDelete(filename, syncdir)
        self.disk.gone(filename)
        if syncdir and self.disk.sqlite_syncs_names:
            self.disk.names_synced(filename)


class _File(apsw.VFSFile):
    def __init__(
        self,
        path: str,
        name: str | apsw.URIFilename | None,
        flags: list[int],
        disk: RecordingDisk,
        *,
        is_new: bool,
    ) -> None:
        self.path = path
        self.disk = disk
        self.names_due = is_new and bool(flags[0] & _JOURNALS) and disk.sqlite_syncs_names
        super().__init__("", name, flags)
        if is_new:
            disk.made(path)
        self.number = disk.number_of(path)

    def _record(self, kind: Kind, offset: int = 0, content: bytes = b"") -> None:
        self.disk.record(kind, self.path, number=self.number, offset=offset, content=content)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802  SQLite's name
        if self.disk.met(Fails.READ):
            raise _failed(Fails.READ)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  SQLite's name
        for fails in (Fails.WRITE, Fails.FULL):
            if self.disk.met(fails):
                raise _failed(fails)
        super().xWrite(data, offset)  # pyright: ignore[reportUnknownMemberType]  APSW's stub names a type of Python 3.12
        self._record(Kind.WRITE, offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802  SQLite's name
        if self.disk.met(Fails.WRITE):
            raise _failed(Fails.WRITE)
        super().xTruncate(newsize)
        self._record(Kind.TRUNCATE, newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802  SQLite's name
        del flags
        if self.disk.met(Fails.SYNC):
            self._record(Kind.SYNC_FAILED)
            raise _failed(Fails.SYNC)
        self._record(Kind.SYNC)
        if self.names_due:
            self.names_due = False
            self.disk.names_synced(self.path)
