"""Reading a whole file of the SQLite store, to say what is wrong with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import apsw

from orchestra.errors import Conflict, Malformed
from orchestra.statemachine.lifecycles import JOB_FINAL
from orchestra.statemachine.records import Job
from orchestra.storage.codec import (
    KIND_NAMES,
    SET_ASIDE_NAMES,
    RowCodec,
    Unreadable,
    decode_story,
)
from orchestra.storage.journal import Backlog, read_backlog
from orchestra.storage.migrations import LATEST
from orchestra.storage.sql import Connection, first
from orchestra.storage.sqlite_files import check_identity, open_reader


def check_file(path: str, codec: RowCodec | None = None) -> list[str]:
    """
    Read a whole store, in use or not, and say what is wrong with it: damaged pages, unreadable rows, gaps in the story.

    Changes nothing. Takes time in proportion to the file.

    Returns:
        One sentence for each problem; empty when all is well.
    """
    if not Path(path).exists():
        return [f"{path} does not exist"]
    try:
        with contextlib.closing(open_reader(path)) as connection:
            version = check_identity(connection, path)
            if version < LATEST:
                return [f"{path} has schema {version}; the next start brings it to {LATEST}"]
            connection.execute("BEGIN")
            return list(_problems(connection, codec or RowCodec()))
    except (apsw.Error, Malformed, Conflict) as error:
        return [f"{path} can not be read: {error}"]


def _problems(connection: Connection, codec: RowCodec) -> Iterator[str]:
    backlog = read_backlog(connection)
    for (finding,) in connection.execute("PRAGMA integrity_check"):
        if finding != "ok":
            yield f"page check: {finding}"
    for number, problem in backlog.unreadable.items():
        yield f"batch {number}: {problem}"
    yield from _row_problems(connection, codec, backlog)
    for kind, id, problem in connection.execute("SELECT kind, id, problem FROM quarantine"):
        yield f"set aside: {SET_ASIDE_NAMES.get(kind, kind)} {id}: {problem}"
    yield from _story_problems(connection, backlog)


def _rows(connection: Connection, backlog: Backlog) -> Iterator[tuple[int, str, bytes]]:
    """All rows, as they are once the journal is empty."""
    for kind, key, body in connection.execute("SELECT kind, CAST(id AS BLOB), body FROM rows"):
        id = key.decode(errors="backslashreplace")
        if (kind, id) not in backlog.rows:
            yield kind, id, body
    for (kind, id), body in backlog.rows.items():
        if body is not None:
            yield kind, id, body


def _row_problems(connection: Connection, codec: RowCodec, backlog: Backlog) -> Iterator[str]:
    live: set[str] = set()
    for kind, id, body in _rows(connection, backlog):
        name = KIND_NAMES.get(kind)
        if name is None:
            yield f"row {id}: kind {kind} is not known here"
            continue
        try:
            record = codec.decode(name, id, body)
        except Unreadable as error:
            yield f"row {error}"
            continue
        if isinstance(record, Job) and record.status not in JOB_FINAL:
            live.add(id)
    stored = dict.fromkeys((id for (id,) in connection.execute("SELECT id FROM live_jobs")), True)
    listed = {id for id, is_live in (stored | backlog.live).items() if is_live}
    for id in sorted(live - listed):
        yield f"job {id} is not final and is not listed as live"
    for id in sorted(listed - live):
        yield f"job {id} is listed as live and is not there, or final"


def _story_problems(connection: Connection, backlog: Backlog) -> Iterator[str]:
    expected = 1
    stored = connection.execute("SELECT first, body FROM story ORDER BY first")
    for number, body in chain(stored, backlog.segments):
        if number != expected:
            yield f"story entries {expected} to {number - 1} are missing"
        try:
            expected = number + len(decode_story(number, body))
        except Unreadable as error:
            yield f"segment of {error}"
            expected = number
    last = first(connection, "SELECT story_number FROM meta")
    if last is None:
        yield "the row of numbers is missing"
    elif max(last[0], backlog.story_number) != expected - 1:
        yield f"the story ends at {expected - 1}, not at {max(last[0], backlog.story_number)}"
