"""A store in memory: for tests, and for apps that need nothing to outlive them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import anyio.lowlevel

from orchestra.errors import Rejected, StoreFailed, StoreTaken
from orchestra.ports import Batch, Loaded, Log, LogChunk, LogRead, Moved, Rows, Story
from orchestra.statemachine import ids
from orchestra.statemachine.lifecycles import JOB_FINAL
from orchestra.statemachine.records import KIND_OF, KINDS, Job, Record
from orchestra.storage.bounds import (
    JOB_PARTS,
    belongs,
    check_batch,
    check_log,
    check_rows,
    check_story,
    check_story_follows,
)
from orchestra.storage.pieces import assemble, uncovered


class _Table:
    """Rows of one kind by id, and the ids in order. Ids mostly come in rising order, so sorting is rarely needed."""

    def __init__(self) -> None:
        self.rows: dict[str, Record] = {}
        self._ids: list[str] = []
        self._sorted = True

    def put(self, record: Record) -> None:
        id = record.id
        if id not in self.rows:
            if self._ids and id < self._ids[-1]:
                self._sorted = False
            self._ids.append(id)
        self.rows[id] = record

    def drop(self, id: str) -> None:
        if self.rows.pop(id, None) is not None:
            ordered = self.ids()
            del ordered[bisect_left(ordered, id)]

    def ids(self) -> list[str]:
        if not self._sorted:
            self._ids.sort()
            self._sorted = True
        return self._ids


class _Stream:
    """One stream of an attempt: pieces in order, without overlap."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []

    @property
    def size(self) -> int:
        if not self.pieces:
            return 0
        offset, chunk = self.pieces[-1]
        return offset + len(chunk)

    def add(self, offset: int, chunk: bytes) -> None:
        if not chunk:
            return
        if offset >= self.size:
            self.pieces.append((offset, chunk))
            return
        spans = ((begin, begin + len(stored)) for begin, stored in self.pieces)
        fresh = uncovered(offset, chunk, spans)
        if fresh:
            self.pieces = sorted(self.pieces + fresh)

    def read(self, query: Log) -> LogRead:
        start = max(0, bisect_right(self.pieces, query.offset, key=lambda piece: piece[0]) - 1)
        size = self.size
        end = bisect_left(self.pieces, query.offset + query.limit, key=lambda piece: piece[0])
        chunk = assemble(query.offset, query.limit, size, self.pieces[start:end])
        return LogRead(chunk, size)


class MemoryStore:
    """
    A `Store` that keeps everything in this process, and nothing after it.

    It obeys the same contract as a durable store in all that can be seen from inside: the fence by batch number, all-or-nothing
    batches, bounded pages, the live rows at `load`. It grows with every job, because there is no other place for finished ones.
    """

    def __init__(self) -> None:
        self._tables = {kind: _Table() for kind in KINDS}
        self._story: list[Moved] = []
        self._job_story: dict[str, list[int]] = {}
        self._streams: dict[str, dict[str, _Stream]] = {}
        self._number = 0
        self._at_ms = 0
        self._open = True

    async def load(self) -> Loaded:
        """What is live. Raises `StoreFailed` after `aclose`."""
        await self._enter()
        live = {
            id
            for id, job in self._tables["job"].rows.items()
            if isinstance(job, Job) and job.status not in JOB_FINAL
        }
        rows: list[Record] = []
        for kind, table in self._tables.items():
            if kind in JOB_PARTS:
                rows.extend(table.rows[id] for id in table.ids() if ids.job_of(id) in live)
            else:
                rows.extend(table.rows[id] for id in table.ids())
        return Loaded(self._number, len(self._story), self._at_ms, tuple(rows))

    async def commit(self, batch: Batch) -> None:
        """Take a batch, as `Store.commit` says; here durable means: until this object is gone."""
        await self._enter()
        if batch.number != self._number + 1:
            raise StoreTaken(f"batch {batch.number} does not follow {self._number}")
        check_batch(batch)
        check_story_follows(batch, len(self._story))
        # Nothing below can fail and nothing waits: the batch is whole for everyone who looks.
        for kind, id in batch.drops:
            self._tables[kind].drop(id)
            if kind == "attempt":
                self._streams.pop(id, None)
        for record in batch.puts:
            self._tables[KIND_OF[type(record)]].put(record)
        for entry in batch.story:
            self._story.append(entry)
            self._at_ms = max(self._at_ms, entry.at_ms)
            if entry.kind in JOB_PARTS:
                self._job_story.setdefault(ids.job_of(entry.id), []).append(entry.number)
        for piece in batch.logs:
            self._add(piece)
        self._number = batch.number

    def _add(self, piece: LogChunk) -> None:
        streams = self._streams.setdefault(piece.attempt_id, {})
        streams.setdefault(piece.stream, _Stream()).add(piece.offset, piece.data)

    async def rows(self, query: Rows) -> tuple[Record, ...]:
        """A page of rows."""
        await self._enter()
        check_rows(query)
        table = self._tables[query.kind]
        ordered = table.ids()
        low = bisect_left(ordered, query.prefix)
        high = bisect_left(ordered, query.prefix + "\U0010ffff") if query.prefix else len(ordered)
        if query.after and query.newest_first:
            high = min(high, bisect_left(ordered, query.after))
        elif query.after:
            low = max(low, bisect_right(ordered, query.after))
        if query.newest_first:
            chosen = reversed(ordered[max(low, high - query.limit) : high])
        else:
            chosen = iter(ordered[low : min(high, low + query.limit)])
        return tuple(table.rows[id] for id in chosen)

    async def story(self, query: Story) -> tuple[Moved, ...]:
        """A page of the story."""
        await self._enter()
        check_story(query)
        after = max(0, query.after)
        if not query.job_id:
            return tuple(self._story[after : after + query.limit])
        numbers = self._job_story.get(query.job_id, [])
        start = bisect_right(numbers, after)
        found = (self._story[number - 1] for number in numbers[start : start + query.limit])
        return tuple(entry for entry in found if belongs(entry, query.job_id))

    async def log(self, query: Log) -> LogRead:
        """Stored output. An attempt without any has size 0."""
        await self._enter()
        check_log(query)
        stream = self._streams.get(query.attempt_id, {}).get(query.stream)
        return stream.read(query) if stream is not None else LogRead(b"", 0)

    async def backup(self, target: str) -> None:
        """Raises `Rejected`: there is no file."""
        await self._enter()
        raise Rejected(
            "the store is in memory and has no file to copy",
            where=target,
            remedy="give the app or the server a file to keep its work in",
        )

    async def aclose(self) -> None:
        """End. Later calls raise `StoreFailed`."""
        self._open = False

    async def _enter(self) -> None:
        # Before anything is looked at or changed, so that cancellation never leaves half of a batch behind.
        await anyio.lowlevel.checkpoint()
        if not self._open:
            raise StoreFailed("the store is closed")
