"""
The schema of the SQLite store, as numbered steps up and down. ``PRAGMA user_version`` says which one a file has.

A step is one transaction: a crash in the middle leaves the file as it was. A released step never changes; what is wrong with it is mended
by the next one.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestra.errors import ensure
from orchestra.statemachine.lifecycles import JOB_FINAL
from orchestra.statemachine.records import Job
from orchestra.statemachine.values import value
from orchestra.storage.bounds import JOB_PARTS
from orchestra.storage.codec import KIND_NUMBERS, RowCodec, Unreadable, decode_story
from orchestra.storage.sql import Connection

APPLICATION_ID = 0x6F726368
"""``orch`` in ASCII: tells our files from other programs' databases (SQLite's ``application_id``)."""


@value
class Migration:
    """
    One step between two versions of the schema.

    Args:
        number: The version that ``up`` leads to, and that ``down`` leaves.
        up: SQL.
        down: SQL that takes back what ``up`` did. Nothing that a user stored may be lost by it.
        fill: Fills what ``up`` made from what is there, for what SQL alone can not read.
    """

    number: int
    up: str
    down: str
    fill: Callable[[Connection], None] | None = None


def story_job(id: str) -> str:
    """The key of a job in the index of the story: its number, as its id writes it. Numbers are never used again."""
    return id[:8]


def _fill_live_jobs(connection: Connection) -> None:
    codec = RowCodec()
    select = connection.execute("SELECT id, body FROM rows WHERE kind = ?", (KIND_NUMBERS["job"],))
    live: list[tuple[str]] = []
    for id, body in select:
        try:
            job = codec.decode("job", id, body)
        except Unreadable:
            live.append((id,))  # not known to be finished: the next load looks at it, and names it
            continue
        if isinstance(job, Job) and job.status not in JOB_FINAL:
            live.append((id,))
    connection.executemany("INSERT INTO live_jobs (id) VALUES (?)", live)


def _fill_story_jobs(connection: Connection) -> None:
    for first, body in connection.execute("SELECT first, body FROM story"):
        try:
            entries = decode_story(first, body)
        except Unreadable:
            continue
        jobs = {story_job(each.id) for each in entries if each.kind in JOB_PARTS}
        connection.executemany(
            "INSERT INTO story_jobs (job, first) VALUES (?, ?)", [(job, first) for job in jobs]
        )


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        # Keys are clustered (WITHOUT ROWID): what belongs to one job lies together, and new jobs are appended, because ids
        # begin with a rising number.
        up="""
        CREATE TABLE meta (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            number INTEGER NOT NULL,
            story_number INTEGER NOT NULL,
            at_ms INTEGER NOT NULL
        ) STRICT;
        INSERT INTO meta VALUES (1, 0, 0, 0);
        CREATE TABLE rows (
            kind INTEGER NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, id)
        ) WITHOUT ROWID, STRICT;
        CREATE TABLE story (first INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
        CREATE TABLE logs (
            attempt_id TEXT NOT NULL, stream TEXT NOT NULL, offset INTEGER NOT NULL, data BLOB NOT NULL,
            PRIMARY KEY (attempt_id, stream, offset)
        ) WITHOUT ROWID, STRICT;
        CREATE TABLE quarantine (
            kind INTEGER NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL, problem TEXT NOT NULL,
            PRIMARY KEY (kind, id)
        ) WITHOUT ROWID, STRICT;
        """,
        down="""
        DROP TABLE quarantine; DROP TABLE logs; DROP TABLE story; DROP TABLE rows; DROP TABLE meta;
        """,
    ),
    Migration(
        2,
        # A start reads what is live, however many finished jobs the file holds.
        up="CREATE TABLE live_jobs (id TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID, STRICT",
        down="DROP TABLE live_jobs",
        fill=_fill_live_jobs,
    ),
    Migration(
        3,
        # The history of one job is read without the history of the others.
        up="""
        CREATE TABLE story_jobs (
            job TEXT NOT NULL, first INTEGER NOT NULL, PRIMARY KEY (job, first)
        ) WITHOUT ROWID, STRICT;
        """,
        down="DROP TABLE story_jobs",
        fill=_fill_story_jobs,
    ),
)

LATEST = MIGRATIONS[-1].number


def version_of(connection: Connection) -> int:
    """The schema version of an open file; 0 when it is new."""
    return int(connection.pragma("user_version"))


def migrate(connection: Connection, target: int = LATEST) -> None:
    """
    Bring a file to version ``target``, up or down, all steps in one transaction.

    Durable on return. The caller holds the store's lock and has made a backup.

    Raises:
        apsw.Error: The medium failed; the file is as it was.
    """
    ensure(0 <= target <= LATEST, f"there is no schema version {target}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = version_of(connection)
        for step in MIGRATIONS[version:target]:
            connection.execute(step.up)
            if step.fill is not None:
                step.fill(connection)
        for step in reversed(MIGRATIONS[target:version]):
            connection.execute(step.down)
        connection.pragma("user_version", target)
        connection.pragma("application_id", APPLICATION_ID)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
