"""Damage to stored rows: one bit of one flips, and what must be so when the store is opened after that."""

from __future__ import annotations

from contextlib import closing
from random import Random

from orchestra.ports import Loaded, Rows, Store
from orchestra.statemachine import ids, limits
from orchestra.statemachine.records import KINDS, Record
from orchestra.storage.bounds import JOB_PARTS
from orchestra.storage.codec import KIND_NAMES, KIND_NUMBERS
from orchestra.storage.sql import connect

_LIVE = """
SELECT rows.kind, rows.id, rows.body FROM live_jobs CROSS JOIN rows
WHERE rows.id = live_jobs.id OR (rows.id > live_jobs.id || '-' AND rows.id < live_jobs.id || '.')
ORDER BY rows.kind, rows.id
"""

Key = tuple[str, str]
"""Kind and id of a row."""


def flip_bit(path: str, vfs: str, rng: Random) -> Key | None:
    """Flip one bit of a row of a job that has not ended. None when there is no such row."""
    kinds = {KIND_NUMBERS[kind] for kind in ("job", *JOB_PARTS)}
    with closing(connect(path, vfs=vfs)) as connection:
        if not connection.execute(
            "SELECT 1 FROM sqlite_schema WHERE name = 'live_jobs'"
        ).fetchone():
            return None
        found = [row for row in connection.execute(_LIVE) if row[0] in kinds]
        if not found:
            return None
        kind, id, body = rng.choice(found)
        bit = rng.randrange(8 * len(body))
        damaged = bytearray(body)
        damaged[bit // 8] ^= 1 << bit % 8
        connection.execute(
            "UPDATE rows SET body = ?3 WHERE kind = ?1 AND id = ?2", (kind, id, bytes(damaged))
        )
        return KIND_NAMES[kind], id


def job_of(key: Key) -> str:
    """The job that a row is of."""
    kind, id = key
    return id if kind == "job" else ids.job_of(id)


def unnamed(flipped: set[Key], loaded: Loaded) -> list[Key]:
    """Damaged rows that a start did not find, or found and did not name."""
    named = {(each.kind, each.id) for each in loaded.quarantined}
    return sorted(flipped - named)


async def rows_of(store: Store, but: set[Key]) -> dict[Key, Record]:
    """Every stored row but those, and but the counters, which may have been made anew."""
    found: dict[Key, Record] = {}
    for kind in KINDS:
        after, full = "", kind != "counters"
        while full:
            page = await store.rows(Rows(kind, after=after, limit=limits.PAGE_MAX))
            found.update({(kind, row.id): row for row in page if (kind, row.id) not in but})
            full = len(page) == limits.PAGE_MAX
            after = page[-1].id if page else ""
    return found
