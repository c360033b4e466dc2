"""A disk that fails on purpose: a layer of SQLite's own, below which the real files are."""

from __future__ import annotations

from types import TracebackType

import apsw


class FaultyDisk(apsw.VFS):
    """
    The default disk for SQLite between ``with`` and its end.

    ``fail_from("sync", 3)`` lets two flushes pass and the third fail with an input/output error.
    """

    def __init__(self) -> None:
        self.name = f"faulty-{id(self)}"
        self.operation = ""
        self.passing = 0
        self.left = 0
        self.failed = 0
        self.below = apsw.vfs_names()[0]  # the default so far
        super().__init__(self.name, self.below, makedefault=True)

    def fail_from(self, operation: str, nth: int, times: int = 10**6) -> None:
        self.operation, self.passing, self.left = operation, nth - 1, times

    def mend(self) -> None:
        self.left = 0

    def pass_or_fail(self, operation: str) -> None:
        if operation != self.operation or not self.left:
            return
        if self.passing:
            self.passing -= 1
            return
        self.left -= 1
        self.failed += 1
        raise apsw.IOError(f"the disk fails at {operation}")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> FaultyFile:  # noqa: N802  SQLite's name
        self.pass_or_fail("open")
        return FaultyFile(name, flags, self)

    def __enter__(self) -> FaultyDisk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unregister()


class FaultyFile(apsw.VFSFile):
    def __init__(
        self, name: str | apsw.URIFilename | None, flags: list[int], disk: FaultyDisk
    ) -> None:
        self.disk = disk
        super().__init__(disk.below, name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802  SQLite's name
        self.disk.pass_or_fail("sync")
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  SQLite's name
        self.disk.pass_or_fail("write")
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802  SQLite's name
        self.disk.pass_or_fail("truncate")
        super().xTruncate(newsize)
