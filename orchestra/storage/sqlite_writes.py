"""How a batch gets into the file: one transaction, which appends to the journal."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from operator import itemgetter

from orchestra.errors import StoreTaken, ensure
from orchestra.ports import Batch, LogChunk
from orchestra.statemachine.lifecycles import JOB_FINAL
from orchestra.statemachine.records import KIND_OF, Job
from orchestra.statemachine.story import Told
from orchestra.storage.bounds import JOB_PARTS, check_batch, check_story_follows, story_job
from orchestra.storage.codec import KIND_NUMBERS, RowCodec, encode_story
from orchestra.storage.journal import (
    DIRECT_BYTES,
    Backlog,
    Bulk,
    Entry,
    Parts,
    append,
    confirmed,
    put_in_place,
)
from orchestra.storage.pieces import uncovered
from orchestra.storage.sql import Connection, Cursor, first

_AT_MS = itemgetter(0)
"""Of an entry of the story."""

_LAST_ENTRY = "SELECT number, story_number FROM journal ORDER BY number DESC LIMIT 1"

SEGMENT_ENTRIES_MAX = 256
"""Story entries in one stored segment: what is read and decoded for one entry of a job stays small."""

_DROP_LOGS = Bulk("DELETE FROM logs WHERE (attempt_id) IN (VALUES", 1, ")")
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
        self.dropped_attempts = [(id,) for kind, id in batch.drops if kind == "attempt"]
        live: dict[str, bool] = {id: False for kind, id in batch.drops if kind == "job"}
        for record in batch.puts:
            if isinstance(record, Job):
                live[record.id] = record.status not in JOB_FINAL
        self.parts = Parts(
            rows=[
                (KIND_NUMBERS[KIND_OF[type(record)]], record.id, encode(record))
                for record in batch.puts
            ],
            drops=[(KIND_NUMBERS[kind], id) for kind, id in batch.drops],
            live=live,
            segments=[],
            story_jobs=[],
        )
        told = Told.of(batch.story)
        for place in range(0, len(told), SEGMENT_ENTRIES_MAX):
            entries = told.entries[place : place + SEGMENT_ENTRIES_MAX]
            self._segment(Told(told.first + place, entries))
        story_number = told.first + len(told) - 1 if told else 0
        self.story_first = told.first if told else 0
        at_ms = max(map(_AT_MS, told.entries), default=0)
        self.entry = Entry(batch.number, story_number, at_ms, self.parts.encoded())

    def _segment(self, told: Told) -> None:
        first = told.first
        self.parts.segments.append((first, encode_story(told)))
        parts = (entry[2] for entry in told.entries if entry[1] in JOB_PARTS)
        jobs = dict.fromkeys(map(story_job, parts))
        self.parts.story_jobs.extend((job, first) for job in jobs)


def write(connection: Connection, prepared: PreparedBatch, backlog: Backlog) -> Backlog:
    """
    Store a batch. Durable on return, as far as the connection's ``synchronous`` goes.

    Returns:
        What the journal holds from now on: ``backlog`` with this batch, or an empty one after a batch that went straight into its tables.

    Raises:
        StoreTaken: The stored number is not the one before the batch's. Nothing was stored.
        Defect: The story does not follow the stored one. Nothing was stored.
        apsw.Error: The medium failed; the transaction was rolled back, or its outcome is unknown.
    """
    entry = prepared.entry
    if len(entry.body) >= DIRECT_BYTES:
        _write_in_place(connection, prepared, backlog)
        return Backlog()
    if prepared.batch.logs or prepared.dropped_attempts:
        with _transaction(connection) as cursor:
            _append(connection, prepared)
            _write_output(cursor, prepared)
    else:
        _append(connection, prepared)
    backlog.add(entry, prepared.parts)
    return backlog


def _append(connection: Connection, prepared: PreparedBatch) -> None:
    if not append(connection, prepared.entry, prepared.story_first):
        _fence(connection.cursor(), prepared)
        ensure(False, f"batch {prepared.batch.number} follows, and was not taken")


def _write_in_place(connection: Connection, prepared: PreparedBatch, backlog: Backlog) -> None:
    with _transaction(connection) as cursor:
        _fence(cursor, prepared)
        before = confirmed(connection, backlog)
        put_in_place(cursor, before.followed_by(prepared.entry, prepared.parts))
        _write_output(cursor, prepared)


def _write_output(cursor: Cursor, prepared: PreparedBatch) -> None:
    _DROP_LOGS.run(cursor, prepared.dropped_attempts)
    if prepared.batch.logs:
        _write_logs(cursor, prepared.batch.logs)


@contextmanager
def _transaction(connection: Connection) -> Generator[Cursor]:
    cursor = connection.cursor()
    cursor.execute("BEGIN IMMEDIATE")
    try:
        yield cursor
        cursor.execute("COMMIT")
    finally:
        # Some failures have rolled back already, as SQLite saw fit.
        if connection.in_transaction:
            cursor.execute("ROLLBACK")


def empty_journal(connection: Connection, backlog: Backlog) -> None:
    """
    Put in place what the journal holds. Durable on return, as far as the connection's ``synchronous`` goes; lost, it is done again.

    Raises:
        apsw.Error: The medium failed; the transaction was rolled back, or its outcome is unknown.
    """
    with _transaction(connection) as cursor:
        put_in_place(cursor, confirmed(connection, backlog))


def _fence(cursor: Cursor, prepared: PreparedBatch) -> None:
    """Raise `StoreTaken` or `Defect` for a batch that does not follow what is stored."""
    batch = prepared.batch
    numbers = first(cursor, "SELECT number, story_number FROM meta")
    if numbers is None:
        raise StoreTaken("the row of numbers is gone")
    last = first(cursor, _LAST_ENTRY)
    number, story_number = numbers if last is None else map(max, numbers, last)
    if number != batch.number - 1:
        raise StoreTaken(f"batch {batch.number} does not follow {number}, the last one stored")
    check_story_follows(batch, story_number)


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
