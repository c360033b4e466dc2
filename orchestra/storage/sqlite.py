"""The durable store: one SQLite file, one writer, readers that never hold it up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import apsw

from orchestra.errors import Malformed, StoreFailed, shortage
from orchestra.ports import Batch, Loaded, Log, LogRead, Moved, Rows, Story
from orchestra.statemachine.records import Record
from orchestra.storage import log_length
from orchestra.storage import sqlite_files as files
from orchestra.storage import sqlite_reads as reads
from orchestra.storage.codec import RowCodec
from orchestra.storage.disk import THE_DISK, Disk
from orchestra.storage.sql import Connection, Cursor
from orchestra.storage.sqlite_writes import PreparedBatch, write

T = TypeVar("T")


HERE_ENTRIES_MAX = 24
HERE_S_MAX = 0.002
HERE_RUN = 64
"""
A batch of so few rows and entries of the story is committed in the event loop itself while the medium is quick: handing it to a thread and
back costs as much as a quick flush. After one that took longer than 2 ms, and every 64, the thread measures the medium anew.
"""

LAID_OUT = -1
"""In the place of a count: the log has its length, or does without."""


async def _in_thread(work: Callable[[], T], limiter: anyio.CapacityLimiter | None = None) -> T:
    """Do it in a thread. Raises `StoreFailed` when the system gives none; then nothing was done."""
    try:
        return await anyio.to_thread.run_sync(work, limiter=limiter)
    except RuntimeError as error:
        if shortage(error) is None:
            raise
        raise StoreFailed(str(error)) from error


class SqliteStore:
    """
    A `Store` in one SQLite file (with ``-wal``, ``-shm`` and ``.lock`` beside it while it is open). Made by `open`.

    Commits run in a thread of their own, one at a time; pages of history are read through a second connection, in another thread, and
    see what is committed. Durable on return of `commit`: with ``durability="full"`` through a power cut, with ``"normal"`` through
    a crash of the process only.
    """

    def __init__(self, path: str, durability: str, codec: RowCodec, disk: Disk = THE_DISK) -> None:
        self.path = path
        self.migrated_from = ""
        """The copy that was made before a migration when this store was opened; empty without one."""
        self._durability = durability
        self._codec = codec
        self._disk = disk
        self._lock: Connection | None = None
        self._writer: Connection | None = None
        self._reader: Connection | None = None
        self._failed = False
        self._entries = LAID_OUT if durability == "normal" else 0
        """Rows and entries of the story until the log was given its length, which ``normal`` does without: it seldom flushes the log."""
        self._here = 0
        """Small batches that may still be committed in the event loop before the medium is timed in the thread again."""
        self._writing = anyio.CapacityLimiter(1)
        self._reading = anyio.CapacityLimiter(1)
        self._copying = anyio.CapacityLimiter(1)
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: str,
        *,
        durability: str = "full",
        codec: RowCodec | None = None,
        disk: Disk = THE_DISK,
    ) -> Self:
        """
        Open the store at ``path``; the file is made when it is not there. Its existence is durable on return.

        Args:
            path: The file. Its directory must exist.
            durability: ``full`` or ``normal``.
            codec: How rows become bytes; for tests of upgrades.
            disk: What it lies on; for tests of what a disk can do.

        Raises:
            StoreTaken: Another orchestrator, in this process or another, has it open.
            StoreFailed: The medium failed, or is full.
            Malformed: It is not a store of ours.
            Conflict: A newer orchestra wrote it.
        """
        if durability not in files.SYNCHRONOUS:
            raise Malformed(f"{durability!r} is not full or normal", where="durability")

        store = cls(path, durability, codec or RowCodec(), disk)
        await anyio.to_thread.run_sync(store._begin)
        return store

    def _begin(self) -> None:
        place = Path(self.path).absolute()
        if not place.parent.is_dir():
            raise Malformed("its directory does not exist", where=self.path)
        self.path = str(place)
        self._lock = files.take_lock(self.path, self._disk)
        self._failed = True  # until it is open: what makes it fail leaves the log as it is
        try:
            writer = self._writer = files.open_writer(self.path, self._durability, self._disk)
            self.migrated_from = files.prepare(writer, self.path, self._disk)
            self._reader = files.open_reader(self.path, self._disk)
            self._failed = False
        except apsw.NotADBError as error:
            self._release()
            raise Malformed(
                "is no database", where=self.path, remedy="name another file"
            ) from error
        except apsw.Error as error:
            full = files.is_full(self._writer, error)
            self._release()
            raise StoreFailed(f"{self.path}: {error}", full=full) from error
        except OSError as error:
            self._release()
            raise StoreFailed(f"{self.path}: {error}", full=files.is_full_error(error)) from error
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        """Close everything. The writer's close moves the log into the file, unless that failed; the lock goes last."""
        self._close()
        if self._lock is not None:
            with contextlib.suppress(apsw.Error):  # nothing was ever written to it
                self._lock.close()
        self._lock = None

    def _close(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                with contextlib.suppress(apsw.Error):  # the medium failed; what is durable stays so
                    if self._failed:
                        files.close_as_it_is(connection)
                    else:
                        connection.close()
        self._reader = self._writer = None

    def _reopen(self) -> None:
        self._close()
        try:
            self._writer = files.open_writer(self.path, self._durability, self._disk)
            # After a failed flush the system may show what is not on the disk: the log is flushed once more, so that what is
            # loaded now is durable.
            files.keep_log(self._writer, self.path, self._disk)
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._reader = files.open_reader(self.path, self._disk)
        except apsw.Error as error:
            full = files.is_full(self._writer, error)
            raise StoreFailed(f"{self.path}: {error}", full=full) from error
        self._failed = False
        self._entries = LAID_OUT if self._durability == "normal" else 0

    def _failure(self, connection: Connection, error: apsw.Error) -> StoreFailed:
        """What the medium said. Unless it is only full or locked, nothing is committed until the next `load`."""
        full = files.is_full(connection, error)
        if not full and not isinstance(error, apsw.BusyError):
            self._failed = True
        return StoreFailed(f"{self.path}: {error}", full=full)

    async def load(self) -> Loaded:
        """
        Read what is live; opens the file anew after a failure.

        Raises:
            StoreFailed: The medium still fails.
        """
        async with self._writing:
            if self._failed and not self._closed:
                async with self._reading:
                    await _in_thread(self._reopen)
            return await _in_thread(self._load)

    def _load(self) -> Loaded:
        writer = self._usable(self._writer)
        try:
            return reads.load(writer, self._codec)
        except apsw.Error as error:
            raise self._failure(writer, error) from error

    async def commit(self, batch: Batch) -> None:
        """
        Store a batch, as `Store.commit` says.

        Cancellation is heard before it begins or after it ended, never in between.

        Raises:
            StoreTaken: The number does not follow. Nothing was stored.
            StoreFailed: The medium is full and nothing was stored (``full``), or the outcome is unknown.
        """
        if (
            self._here > 0
            and len(batch.puts) + len(batch.story) <= HERE_ENTRIES_MAX
            and not batch.logs
            and self._entries <= log_length.ENTRIES_BEFORE
        ):
            await anyio.lowlevel.checkpoint_if_cancelled()
            began_s = time.perf_counter()
            self._commit(batch)
            self._here -= 1 + (HERE_RUN if time.perf_counter() - began_s > HERE_S_MAX else 0)
            return
        await _in_thread(partial(self._timed_commit, batch), self._writing)

    def _timed_commit(self, batch: Batch) -> None:
        """In the thread. A medium that is quick there may be trusted in the event loop for a while."""
        began_s = time.perf_counter()
        self._commit(batch)
        quick = time.perf_counter() - began_s < HERE_S_MAX / 2
        self._here = HERE_RUN if quick else 0
        if self._entries > log_length.ENTRIES_BEFORE and self._writer is not None:
            self._entries = LAID_OUT
            log_length.lay_out_log(self._writer, self.path, self._disk)

    def _commit(self, batch: Batch) -> None:
        if self._failed:
            raise StoreFailed(f"{self.path} failed before; load it again")
        writer = self._usable(self._writer)
        try:
            write(writer, PreparedBatch(batch, self._codec))
        except apsw.Error as error:
            raise self._failure(writer, error) from error
        except MemoryError as error:
            self._failed = True  # it may be stored or not
            raise StoreFailed(f"{self.path}: no memory to write it") from error
        if self._entries != LAID_OUT:
            self._entries += len(batch.puts) + len(batch.story)

    async def rows(self, query: Rows) -> tuple[Record, ...]:
        """A page of committed rows."""
        return await self._read(lambda cursor: reads.read_rows(cursor, self._codec, query))

    async def story(self, query: Story) -> tuple[Moved, ...]:
        """A page of the committed story."""
        return await self._read(lambda cursor: reads.read_story(cursor, query))

    async def log(self, query: Log) -> LogRead:
        """Stored output. An attempt without any has size 0."""
        return await self._read(lambda cursor: reads.read_log(cursor, query))

    async def _read(self, read: Callable[[Cursor], T]) -> T:
        def run() -> T:
            reader = self._usable(self._reader)
            # Closed at once: a statement that is left half read would keep its snapshot, and the log could not be emptied.
            with contextlib.closing(reader.cursor()) as cursor:
                try:
                    return read(cursor)
                except apsw.Error as error:
                    raise StoreFailed(f"{self.path}: {error}") from error

        return await _in_thread(run, self._reading)

    async def backup(self, target: str) -> None:
        """
        Copy everything committed into the new file ``target`` while commits go on. It is durable on return.

        Raises:
            Conflict: ``target`` exists; it is never overwritten.
            Malformed: ``target`` can not be made there.
            StoreFailed: Reading or writing failed; there is no ``target`` then, and the store itself goes on.
        """

        def run() -> None:
            self._usable(self._reader)
            with contextlib.closing(files.backup_steps(self.path, target, self._disk)) as steps:
                for _ in steps:
                    anyio.from_thread.check_cancelled()

        await anyio.to_thread.run_sync(run, limiter=self._copying)

    async def aclose(self) -> None:
        """Give up the file, after what is under way. Everything acknowledged stays. May be called again."""
        with anyio.CancelScope(shield=True):
            async with self._copying, self._writing, self._reading:
                if not self._closed:
                    self._closed = True
                    await anyio.to_thread.run_sync(self._release)
        await anyio.lowlevel.checkpoint()

    def _usable(self, connection: Connection | None) -> Connection:
        if self._closed:
            raise StoreFailed("the store is closed")
        if connection is None:
            raise StoreFailed(f"{self.path} failed before; load it again")
        return connection
