"""The part of APSW that the store uses, with types: APSW's own stubs name a type that Python has only from 3.12 on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, cast

import apsw

Value = str | int | bytes
"""What is bound to a statement and comes out of a column; no column of ours is NULL."""


class Cursor(Protocol):
    """Runs statements. Iterating yields the rows of the last one."""

    def execute(self, statements: str, bindings: Sequence[Value] | None = None) -> Cursor:
        """Run one statement, or several without values."""
        ...

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row."""
        ...

    def __iter__(self) -> Iterator[tuple[Any, ...]]: ...

    def close(self) -> None:
        """Forget the statement, and with it the snapshot that it reads from."""
        ...


class Steps(Protocol):
    """A copy under way (``sqlite3_backup``)."""

    @property
    def done(self) -> bool:
        """Whether all pages are copied."""
        ...

    @property
    def remaining(self) -> int:
        """Pages still to copy."""
        ...

    def step(self, npages: int) -> bool:
        """Copy so many pages."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> bool | None: ...


class Connection(Protocol):
    """An open file."""

    @property
    def in_transaction(self) -> bool:
        """Whether BEGIN was said, and neither COMMIT nor ROLLBACK since."""
        ...

    @property
    def system_errno(self) -> int:
        """The operating system's word for the last failure."""
        ...

    def cursor(self) -> Cursor:
        """A fresh cursor."""
        ...

    def execute(self, statements: str, bindings: Sequence[Value] | None = None) -> Cursor:
        """As `Cursor.execute`, on a fresh cursor."""
        ...

    def executemany(self, statements: str, rows: Sequence[Sequence[Value]]) -> Cursor:
        """Run one statement for each row of values."""
        ...

    def pragma(self, name: str, value: Value | None = None) -> Any:
        """Read or set a pragma."""
        ...

    def set_busy_timeout(self, milliseconds: int) -> None:
        """How long to wait for a lock."""
        ...

    def config(self, op: int, *args: int) -> int:
        """Set an option of the connection."""
        ...

    def wal_checkpoint(self, *, mode: int) -> tuple[int, int]:
        """Move the write-ahead log into the file."""
        ...

    def backup(self, databasename: str, sourceconnection: Connection, name: str) -> Steps:
        """Begin a copy from another connection into this one."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def connect(path: str, *, readonly: bool = False, vfs: str = "") -> Connection:
    """
    Open a file through SQLite's layer ``vfs`` (the default one when empty); unless ``readonly`` it is made when it is not there.

    Raises:
        apsw.CantOpenError: It can not be opened.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    if readonly:
        flags = apsw.SQLITE_OPEN_READONLY
    return cast("Connection", apsw.Connection(path, flags=flags, vfs=vfs or None))


def first(
    at: Connection | Cursor, text: str, bindings: Sequence[Value] | None = None
) -> tuple[Any, ...] | None:
    """The first row of an answer; None without one."""
    return at.execute(text, bindings).fetchone()
