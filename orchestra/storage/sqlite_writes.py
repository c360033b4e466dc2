"""How a batch gets into the file: one transaction, few statements."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from orchestra.errors import StoreTaken
from orchestra.ports import Batch, LogChunk
from orchestra.statemachine.lifecycles import JOB_FINAL
from orchestra.statemachine.records import KIND_OF, Job
from orchestra.statemachine.story import Told
from orchestra.storage.bounds import JOB_PARTS, check_batch, check_story_follows
from orchestra.storage.codec import KIND_NUMBERS, RowCodec, encode_story
from orchestra.storage.migrations import story_job
from orchestra.storage.pieces import uncovered
from orchestra.storage.sql import Connection, Cursor, first

_AT_MS = itemgetter(0)
"""Of an entry of the story."""

SEGMENT_ENTRIES_MAX = 256
"""Story entries in one stored segment: what is read and decoded for one entry of a job stays small."""

_SIZES = (128, 32, 8, 1)
"""
Rows per statement. Between two statements this thread gives up the interpreter lock and may wait for it for 5 ms (Python's switch
interval) while the event loop computes, so a batch of 256 rows must not be 256 statements: 164 ms against 7 ms beside a busy loop.
"""


class Bulk:
    """One statement over many rows: prepared for a few sizes, which together make up any number of rows."""

    def __init__(self, before: str, width: int, after: str = "") -> None:
        row = "(" + ",".join("?" * width) + ")"
        self._texts = [(size, f"{before} {','.join([row] * size)}{after}") for size in _SIZES]

    def run(self, cursor: Cursor, rows: Sequence[tuple[Any, ...]]) -> None:
        """Execute it for all rows, in order."""
        place = 0
        for size, text in self._texts:
            while len(rows) - place >= size:
                cursor.execute(text, tuple(chain.from_iterable(rows[place : place + size])))
                place += size


_PUT_ROWS = Bulk("INSERT OR REPLACE INTO rows (kind, id, body) VALUES", 3)
_DROP_ROWS = Bulk("DELETE FROM rows WHERE (kind, id) IN (VALUES", 2, ")")
_DROP_LOGS = Bulk("DELETE FROM logs WHERE (attempt_id) IN (VALUES", 1, ")")
_PUT_LIVE = Bulk("INSERT OR IGNORE INTO live_jobs (id) VALUES", 1)
_DROP_LIVE = Bulk("DELETE FROM live_jobs WHERE (id) IN (VALUES", 1, ")")
_PUT_STORY = Bulk("INSERT INTO story (first, body) VALUES", 2)
_PUT_STORY_JOBS = Bulk("INSERT INTO story_jobs (job, first) VALUES", 2)
_PUT_LOGS = Bulk("INSERT INTO logs (attempt_id, stream, offset, data) VALUES", 4)


class PreparedBatch:
    """
    A batch in its stored form. Made before the transaction begins, so that a record without one is found while nothing is held.

    Raises:
        Defect: The batch contradicts itself, or a record has no stored form.
    """

    def __init__(self, batch: Batch, codec: RowCodec) -> None:
        check_batch(batch)
        self.batch = batch
        encode = codec.encode
        self.rows = [
            (KIND_NUMBERS[KIND_OF[type(record)]], record.id, encode(record))
            for record in batch.puts
        ]
        self.drops = [(KIND_NUMBERS[kind], id) for kind, id in batch.drops]
        self.dropped_attempts = [(id,) for kind, id in batch.drops if kind == "attempt"]
        live: dict[str, bool] = {id: False for kind, id in batch.drops if kind == "job"}
        for record in batch.puts:
            if isinstance(record, Job):
                live[record.id] = record.status not in JOB_FINAL
        self.live = [(id,) for id, is_live in live.items() if is_live]
        self.not_live = [(id,) for id, is_live in live.items() if not is_live]
        self.segments: list[tuple[int, bytes]] = []
        self.story_jobs: list[tuple[str, int]] = []
        told = Told.of(batch.story)
        for place in range(0, len(told), SEGMENT_ENTRIES_MAX):
            entries = told.entries[place : place + SEGMENT_ENTRIES_MAX]
            self._segment(Told(told.first + place, entries))
        self.story_number = told.first + len(told) - 1 if told else 0
        self.at_ms = max(map(_AT_MS, told.entries), default=0)

    def _segment(self, told: Told) -> None:
        first = told.first
        self.segments.append((first, encode_story(told)))
        parts = (entry[2] for entry in told.entries if entry[1] in JOB_PARTS)
        jobs = dict.fromkeys(map(story_job, parts))
        self.story_jobs.extend((job, first) for job in jobs)


def write(connection: Connection, prepared: PreparedBatch) -> None:
    """
    Store a batch. Durable on return, as far as the connection's ``synchronous`` goes.

    Raises:
        StoreTaken: The stored number is not the one before the batch's. Nothing was stored.
        Defect: The story does not follow the stored one. Nothing was stored.
        apsw.Error: The medium failed; the transaction was rolled back, or its outcome is unknown.
    """
    batch = prepared.batch
    cursor = connection.cursor()
    cursor.execute("BEGIN IMMEDIATE")
    try:
        _fence(cursor, prepared)
        if prepared.drops:
            _DROP_ROWS.run(cursor, prepared.drops)
            _DROP_LOGS.run(cursor, prepared.dropped_attempts)
        _PUT_ROWS.run(cursor, prepared.rows)
        _PUT_LIVE.run(cursor, prepared.live)
        _DROP_LIVE.run(cursor, prepared.not_live)
        _PUT_STORY.run(cursor, prepared.segments)
        _PUT_STORY_JOBS.run(cursor, prepared.story_jobs)
        if batch.logs:
            _write_logs(cursor, batch.logs)
        cursor.execute("COMMIT")
    finally:
        # Some failures have rolled back already, as SQLite saw fit.
        if connection.in_transaction:
            cursor.execute("ROLLBACK")


def _fence(cursor: Cursor, prepared: PreparedBatch) -> None:
    batch = prepared.batch
    found = first(cursor, "SELECT number, story_number FROM meta")
    if found is None:
        raise StoreTaken("the row of numbers is gone")
    number, story_number = found
    if number != batch.number - 1:
        raise StoreTaken(f"batch {batch.number} does not follow {number}, the last one stored")
    check_story_follows(batch, story_number)
    cursor.execute(
        "UPDATE meta SET number = ?, story_number = max(story_number, ?), at_ms = max(at_ms, ?)",
        (batch.number, prepared.story_number, prepared.at_ms),
    )


def _write_logs(cursor: Cursor, pieces: Sequence[LogChunk]) -> None:
    """Store what is new of each piece. What one call stores is seen by the next, so pieces are taken in order."""
    ends: dict[tuple[str, str], int] = {}
    fresh: list[tuple[str, str, int, bytes]] = []
    for piece in pieces:
        if not piece.data:
            continue
        stream = (piece.attempt_id, piece.stream)
        end = ends.get(stream)
        if end is None:
            end = stored_bytes(cursor, *stream)
        if piece.offset >= end:
            fresh.append((*stream, piece.offset, piece.data))
            ends[stream] = piece.offset + len(piece.data)
            continue
        _PUT_LOGS.run(cursor, fresh)
        fresh = [
            (*stream, offset, chunk)
            for offset, chunk in uncovered(piece.offset, piece.data, _spans(cursor, piece))
        ]
        ends[stream] = max(end, piece.offset + len(piece.data))
    _PUT_LOGS.run(cursor, fresh)


def stored_bytes(cursor: Cursor, attempt_id: str, stream: str) -> int:
    """Where the stored part of a stream ends."""
    found = first(
        cursor,
        "SELECT offset + length(data) FROM logs WHERE attempt_id = ? AND stream = ? ORDER BY offset DESC LIMIT 1",
        (attempt_id, stream),
    )
    return int(found[0]) if found is not None else 0


def _spans(cursor: Cursor, piece: LogChunk) -> list[tuple[int, int]]:
    """(begin, end) of the stored pieces that may touch ``piece``, in order."""
    return [
        (begin, end)
        for begin, end in cursor.execute(
            "SELECT offset, offset + length(data) FROM logs WHERE attempt_id = ?1 AND stream = ?2 AND offset < ?4"
            " AND offset >= coalesce((SELECT max(offset) FROM logs WHERE attempt_id = ?1 AND stream = ?2 AND offset <= ?3), 0)"
            " ORDER BY offset",
            (piece.attempt_id, piece.stream, piece.offset, piece.offset + len(piece.data)),
        )
    ]
