"""What is read from the file: the live rows at a start, and bounded pages of everything."""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from orchestra.ports import Loaded, Log, LogRead, Moved, Quarantined, Rows, Story
from orchestra.statemachine.records import KINDS, Counters, Record
from orchestra.storage.bounds import JOB_PARTS, belongs, check_log, check_rows, check_story
from orchestra.storage.codec import (
    KIND_NAMES,
    KIND_NUMBERS,
    RowCodec,
    Unreadable,
    decode_story,
)
from orchestra.storage.migrations import story_job
from orchestra.storage.pieces import assemble
from orchestra.storage.salvage import counters_from, set_aside
from orchestra.storage.sql import Connection, Cursor, first
from orchestra.storage.sqlite_writes import SEGMENT_ENTRIES_MAX, stored_bytes

QUARANTINED_MAX = 1_000
"""Findings that one load names; a file with more is for ``orchestra doctor``."""

_WHOLE_KIND = "SELECT CAST(id AS BLOB), body FROM rows WHERE kind = ?"
_LIVE_JOBS = """
SELECT CAST(rows.id AS BLOB), body FROM live_jobs CROSS JOIN rows
WHERE rows.kind = ? AND rows.id = live_jobs.id
"""
_LIVE_PARTS = """
SELECT CAST(rows.id AS BLOB), body FROM live_jobs CROSS JOIN rows
WHERE rows.kind = ? AND rows.id > live_jobs.id || '-' AND rows.id < live_jobs.id || '.'
"""
_UNKNOWN_KINDS = f"""
SELECT kind, CAST(id AS BLOB), body FROM rows
WHERE kind < {min(KIND_NAMES)} OR kind > {max(KIND_NAMES)}
LIMIT {QUARANTINED_MAX}
"""  # noqa: S608  # three numbers of ours


class BadRow:
    """A row that could not be read, with what is needed to move it: its key as stored."""

    __slots__ = ("finding", "key", "kind")

    def __init__(self, kind: int, key: bytes, finding: Quarantined) -> None:
        self.kind = kind
        self.key = key
        self.finding = finding


def load(connection: Connection, codec: RowCodec) -> Loaded:
    """
    Read what is live, and move what can not be read into the table ``quarantine``.

    A medium that is too full to move them does not stop the start: they are named all the same, and moved another time.

    Raises:
        apsw.Error: The medium failed.
    """
    number, story_number, at_ms = _mended_meta(connection)
    rows, bad = _live_rows(connection, codec)
    if bad:
        _quarantine(connection, bad)
    known = {(row.kind, row.id): row for row in (each.finding for each in bad)}
    for finding in _quarantined(connection):
        known.setdefault((finding.kind, finding.id), finding)
    findings = list(known.values())
    live = {id for (id,) in connection.execute("SELECT id FROM live_jobs")}
    rows, named = set_aside(rows, findings, live)
    findings += named
    if ("counters", "counters") in known and not any(isinstance(row, Counters) for row in rows):
        rows.append(counters_from(_highest(connection)))
    return Loaded(number, story_number, at_ms, tuple(rows), tuple(findings[:QUARANTINED_MAX]))


def _mended_meta(connection: Connection) -> tuple[int, int, int]:
    """
    Batch number, story number and latest time. When their row is gone it is made anew: the story's end follows from the story.

    The batch number then begins at 0 again: a writer that still holds the old one is fenced out, as it should be.
    """
    stored = first(connection, "SELECT number, story_number, at_ms FROM meta")
    if stored is not None:
        number, story_number, at_ms = stored
        return number, story_number, at_ms
    story_number = at_ms = 0
    last = first(connection, "SELECT first, body FROM story ORDER BY first DESC LIMIT 1")
    if last is not None:
        try:
            end = decode_story(last[0], last[1])[-1]
            story_number, at_ms = end.number, end.at_ms
        except Unreadable:
            story_number = last[0] + SEGMENT_ENTRIES_MAX
    connection.execute("INSERT INTO meta VALUES (1, 0, ?, ?)", (story_number, at_ms))
    return 0, story_number, at_ms


def _live_rows(connection: Connection, codec: RowCodec) -> tuple[list[Record], list[BadRow]]:
    rows: list[Record] = []
    bad: list[BadRow] = []
    for kind in KINDS:
        number = KIND_NUMBERS[kind]
        if kind == "job":
            text = _LIVE_JOBS
        elif kind in JOB_PARTS:
            text = _LIVE_PARTS
        else:
            text = _WHOLE_KIND
        for key, body in connection.execute(text, (number,)):
            try:
                rows.append(codec.decode(kind, _text(kind, key), body))
            except Unreadable as error:
                bad.append(BadRow(number, key, Quarantined(kind, error.id, error.problem)))
    for number, key, _ in connection.execute(_UNKNOWN_KINDS):
        id = key.decode(errors="backslashreplace")
        finding = Quarantined(str(number), id, "the kind is not known here")
        bad.append(BadRow(number, key, finding))
    return rows, bad


def _text(kind: str, key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        id = key.decode(errors="backslashreplace")
        raise Unreadable(kind, id, "the id is not text") from error


def _quarantine(connection: Connection, bad: list[BadRow]) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        for row in bad:
            connection.execute(
                "INSERT OR REPLACE INTO quarantine (kind, id, body, problem)"
                " SELECT kind, ?3, CAST(coalesce(body, '') AS BLOB), ?4 FROM rows WHERE kind = ?1 AND id = CAST(?2 AS TEXT)",
                (row.kind, row.key, row.finding.id, row.finding.problem),
            )
            connection.execute(
                "DELETE FROM rows WHERE kind = ?1 AND id = CAST(?2 AS TEXT)", (row.kind, row.key)
            )
        connection.execute("COMMIT")
    except (apsw.FullError, apsw.IOError, apsw.BusyError, apsw.ReadOnlyError):
        if connection.in_transaction:
            connection.execute("ROLLBACK")  # the rows stay where they are; the caller names them


def _quarantined(connection: Connection) -> list[Quarantined]:
    """What was set aside and has not been replaced by a good row since."""
    return [
        Quarantined(KIND_NAMES.get(kind, str(kind)), id, problem)
        for kind, id, problem in connection.execute(
            "SELECT kind, id, problem FROM quarantine WHERE NOT EXISTS"
            " (SELECT 1 FROM rows WHERE rows.kind = quarantine.kind AND rows.id = quarantine.id) LIMIT ?",
            (QUARANTINED_MAX,),
        )
    ]


def _highest(connection: Connection) -> dict[str, str]:
    highest: dict[str, str] = {}
    for kind in ("project", "job", "worker"):
        text = "SELECT id FROM rows WHERE kind = ? ORDER BY id DESC LIMIT 1"
        found = first(connection, text, (KIND_NUMBERS[kind],))
        if found is not None:
            highest[kind] = found[0]
    return highest


def read_rows(cursor: Cursor, codec: RowCodec, query: Rows) -> tuple[Record, ...]:
    """
    A page of rows; unreadable ones are passed over, so a short page is always the last.

    Raises:
        Malformed: The query asks for what can not be.
        apsw.Error: The medium failed.
    """
    check_rows(query)
    found: list[Record] = []
    for id, body in cursor.execute(*_rows_statement(query)):
        try:
            found.append(codec.decode(query.kind, id, body))
        except Unreadable:
            continue
        if len(found) == query.limit:
            break
    return tuple(found)


def _rows_statement(query: Rows) -> tuple[str, tuple[str | int, ...]]:
    values: list[str | int] = [KIND_NUMBERS[query.kind]]
    text = "SELECT id, body FROM rows WHERE kind = ?"
    if query.prefix:
        text += " AND id >= ? AND id < ?"
        values += [query.prefix, query.prefix + "\U0010ffff"]
    if query.after:
        text += " AND id < ?" if query.newest_first else " AND id > ?"
        values.append(query.after)
    text += " ORDER BY id DESC" if query.newest_first else " ORDER BY id"
    return text, tuple(values)


def read_story(cursor: Cursor, query: Story) -> tuple[Moved, ...]:
    """
    A page of the story; unreadable segments are passed over.

    Raises:
        Malformed: The query asks for what can not be.
        apsw.Error: The medium failed.
    """
    check_story(query)
    found: list[Moved] = []
    for number, body in _segments(cursor, query):
        try:
            entries = decode_story(number, body)
        except Unreadable:
            continue
        for entry in entries:
            if entry.number > query.after and (not query.job_id or belongs(entry, query.job_id)):
                found.append(entry)
                if len(found) == query.limit:
                    return tuple(found)
    return tuple(found)


def _segments(cursor: Cursor, query: Story) -> Iterable[tuple[int, bytes]]:
    after = max(0, query.after)
    if query.job_id:
        return cursor.execute(
            "SELECT story.first, body FROM story_jobs CROSS JOIN story ON story.first = story_jobs.first"
            " WHERE job = ?1 AND story_jobs.first > ?2 - ?3 ORDER BY story_jobs.first",
            (story_job(query.job_id), after, SEGMENT_ENTRIES_MAX),
        )
    return cursor.execute(
        "SELECT first, body FROM story WHERE first > ?1 - ?2 ORDER BY first",
        (after, SEGMENT_ENTRIES_MAX),
    )


def read_log(cursor: Cursor, query: Log) -> LogRead:
    """
    Bytes of a stream, from one snapshot.

    Raises:
        Malformed: The query asks for what can not be.
        apsw.Error: The medium failed.
    """
    check_log(query)
    cursor.execute("BEGIN")  # one snapshot for the size and the bytes
    try:
        size = stored_bytes(cursor, query.attempt_id, query.stream)
        pieces = cursor.execute(
            "SELECT offset, data FROM logs WHERE attempt_id = ?1 AND stream = ?2 AND offset < ?4"
            " AND offset >= coalesce((SELECT max(offset) FROM logs WHERE attempt_id = ?1 AND stream = ?2 AND offset <= ?3), 0)"
            " ORDER BY offset",
            (query.attempt_id, query.stream, query.offset, query.offset + query.limit),
        )
        return LogRead(assemble(query.offset, query.limit, size, pieces), size)
    finally:
        cursor.execute("ROLLBACK")
