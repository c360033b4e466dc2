"""
The journal of the SQLite store: batches that are committed, and whose parts do not lie in their tables yet.

A commit appends one row, and so writes the few pages of one table, one after the other. Its parts are put in place later, those of many
batches at once and in the order of their keys: of a row that moved five times meanwhile only the last body is written, and a page that
many batches touch is written once. What a start finds in the journal is put in place before anything else.

A row of the journal is a header as rows have it (`codec`), then `Parts` as MessagePack.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from orchestra.storage.codec import BATCH_KIND, KIND_NUMBERS, Unreadable, seal, unseal
from orchestra.storage.sql import Connection, Cursor, first

PLACE_BYTES = 2 * 1024 * 1024
PLACE_BATCHES = 256
"""With so much in the journal it is time to put things in place: some 6,000 rows, which takes some 40 ms; a start has no more to do."""

DIRECT_BYTES = 1024 * 1024
"""A batch of this size goes into its tables at once: it touches whole pages by itself, and would only be written twice."""

_SIZES = (1_024, 128, 16, 1)
"""
Rows per statement. After each statement this thread may wait for the interpreter lock for 5 ms (Python's switch interval) while the event
loop computes, so a batch of 256 rows must not be 256 statements: 164 ms against 7 ms beside a busy loop.
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
_PUT_LIVE = Bulk("INSERT OR IGNORE INTO live_jobs (id) VALUES", 1)
_DROP_LIVE = Bulk("DELETE FROM live_jobs WHERE (id) IN (VALUES", 1, ")")
_PUT_STORY = Bulk("INSERT INTO story (first, body) VALUES", 2)
_PUT_STORY_JOBS = Bulk("INSERT INTO story_jobs (job, first) VALUES", 2)

_VERSION = 1


class Parts(NamedTuple):
    """What a batch brings to each table: bodies by (kind, id), and of jobs whether they are live from now on."""

    rows: list[tuple[int, str, bytes]]
    drops: list[tuple[int, str]]
    live: dict[str, bool]
    segments: list[tuple[int, bytes]]
    story_jobs: list[tuple[str, int]]

    def encoded(self) -> bytes:
        """The stored form."""
        return seal(_VERSION, msgspec.msgpack.encode(self))


_DECODER = msgspec.msgpack.Decoder(Parts)


class Entry(NamedTuple):
    """A row of the journal. ``story_number`` is that of the last entry until then, ``at_ms`` 0 for a batch without a story."""

    number: int
    story_number: int
    at_ms: int
    body: bytes


class Backlog:
    """What the journal holds, by its last word on each row (None where it was dropped). Empty when all lies in its place."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, str], bytes | None] = {}
        self.live: dict[str, bool] = {}
        self.segments: list[tuple[int, bytes]] = []
        self.story_jobs: list[tuple[str, int]] = []
        self.unreadable: dict[int, str] = {}
        """Batches that can not be read, and why."""
        self.number = self.story_number = self.at_ms = 0
        self.batches = self.bytes = 0

    def __bool__(self) -> bool:
        return self.batches > 0

    @property
    def is_due(self) -> bool:
        """Whether it has become worth a transaction."""
        return self.bytes >= PLACE_BYTES or self.batches >= PLACE_BATCHES

    def add(self, entry: Entry, parts: Parts) -> None:
        """One more batch, the newest."""
        self.rows.update({(kind, id): body for kind, id, body in parts.rows})
        self.rows.update(dict.fromkeys(parts.drops))
        self.live.update(parts.live)
        self.segments += parts.segments
        self.story_jobs += parts.story_jobs
        self._count(entry)

    def add_unreadable(self, entry: Entry, problem: str) -> None:
        """One more batch of which nothing is known but its number."""
        self.unreadable[entry.number] = problem
        self._count(entry)

    def _count(self, entry: Entry) -> None:
        self.number = entry.number
        self.story_number = max(self.story_number, entry.story_number)
        self.at_ms = max(self.at_ms, entry.at_ms)
        self.batches += 1
        self.bytes += len(entry.body)

    def followed_by(self, entry: Entry, parts: Parts) -> Backlog:
        """What this one and one more batch come to; this one stays as it is."""
        both = Backlog()
        both.rows |= self.rows
        both.live |= self.live
        both.segments += self.segments
        both.story_jobs += self.story_jobs
        both.unreadable |= self.unreadable
        both.story_number, both.at_ms = self.story_number, self.at_ms
        both.add(entry, parts)
        return both


_LAST = """
WITH last (number, story_number) AS (
    SELECT number, story_number FROM (SELECT number, story_number FROM journal ORDER BY number DESC LIMIT 1)
    UNION ALL SELECT number, story_number FROM meta
)
"""
_APPEND = f"""{_LAST}
INSERT INTO journal (number, story_number, at_ms, body)
SELECT ?1, max(?2, (SELECT max(story_number) FROM last)), ?3, ?4
WHERE ?1 - 1 = (SELECT max(number) FROM last) AND EXISTS (SELECT 1 FROM meta)
AND (?5 = 0 OR ?5 - 1 = (SELECT max(story_number) FROM last))
"""  # noqa: S608  # two texts of ours


def append(connection: Connection, entry: Entry, story_first: int) -> bool:
    """
    Add a batch to the journal, unless its number or that of its first story entry (0 without one) does not follow.

    One statement, which outside of a transaction is a transaction of its own: see `_SIZES` for what each further one would cost.

    Returns:
        Whether it was added.

    Raises:
        apsw.Error: The medium failed.
    """
    cursor = connection.cursor()
    cursor.execute(_APPEND, (*entry, story_first))
    return connection.changes() == 1


def read_backlog(connection: Connection) -> Backlog:
    """
    What the stored journal holds.

    Raises:
        apsw.Error: The medium failed.
    """
    backlog = Backlog()
    text = "SELECT number, story_number, at_ms, body FROM journal ORDER BY number"
    for entry in map(Entry._make, connection.execute(text)):
        try:
            payload = unseal("batch", str(entry.number), entry.body, _VERSION)
            backlog.add(entry, _DECODER.decode(payload))
        except Unreadable as error:
            backlog.add_unreadable(entry, error.problem)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            backlog.add_unreadable(entry, str(error))
    return backlog


def confirmed(connection: Connection, backlog: Backlog) -> Backlog:
    """``backlog``, or what is stored where that is another thing: somebody else may have been at the file."""
    stored = first(connection, "SELECT count(*), coalesce(max(number), 0) FROM journal")
    return backlog if stored == (backlog.batches, backlog.number) else read_backlog(connection)


def put_in_place(cursor: Cursor, backlog: Backlog) -> None:
    """
    Bring all parts into their tables, and take their batches out of the journal. The caller's transaction makes it durable.

    Raises:
        apsw.Error: The medium failed, or the tables contradict the backlog.
    """
    drops = sorted(key for key, body in backlog.rows.items() if body is None)
    puts = sorted((*key, body) for key, body in backlog.rows.items() if body is not None)
    _DROP_ROWS.run(cursor, drops)
    _PUT_ROWS.run(cursor, puts)
    _PUT_LIVE.run(cursor, [(id,) for id, is_live in backlog.live.items() if is_live])
    _DROP_LIVE.run(cursor, [(id,) for id, is_live in backlog.live.items() if not is_live])
    _PUT_STORY.run(cursor, backlog.segments)
    _PUT_STORY_JOBS.run(cursor, backlog.story_jobs)
    for number, problem in backlog.unreadable.items():
        _set_aside(cursor, number, problem)
    cursor.execute(
        "UPDATE meta SET number = max(number, ?), story_number = max(story_number, ?), at_ms = max(at_ms, ?)",
        (backlog.number, backlog.story_number, backlog.at_ms),
    )
    cursor.execute("DELETE FROM journal WHERE number <= ?", (backlog.number,))


def _set_aside(cursor: Cursor, number: int, problem: str) -> None:
    """
    Keep a batch that can not be read for people, with the jobs that it may be about: served without it, their work could run twice.

    The jobs stay listed as live, so that every load names them.
    """
    cursor.execute(
        "INSERT OR REPLACE INTO quarantine (kind, id, body, problem)"
        " SELECT ?1, CAST(number AS TEXT), body, ?3 FROM journal WHERE number = ?2",
        (BATCH_KIND, number, problem),
    )
    cursor.execute(
        "INSERT OR REPLACE INTO quarantine (kind, id, body, problem) SELECT kind, id, body, ?2 FROM rows"
        " WHERE kind = ?1 AND id IN (SELECT id FROM live_jobs)",
        (KIND_NUMBERS["job"], f"batch {number}, which may be about it, can not be read"),
    )
    cursor.execute(
        "DELETE FROM rows WHERE kind = ?1 AND id IN (SELECT id FROM live_jobs)",
        (KIND_NUMBERS["job"],),
    )
