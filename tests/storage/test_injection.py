"""Texts that are statements elsewhere are values here: kept, found and shown as they are, and nothing else happens."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import apsw
import attrs
import pytest

from orchestra.ports import Batch, Log, Rows
from orchestra.statemachine.records import Job
from orchestra.storage.sqlite import SqliteStore
from orchestra.testing import store_samples as samples

pytestmark = pytest.mark.anyio

STARTS = ("", "'", '"', "`", "')", "';", "\\'", "1", "x'00'", "\u02bc", "%27", "\0'", "--", "$ne")
MIDDLES = (
    " OR 1=1", " UNION SELECT body FROM rows", "; DROP TABLE rows", "; DELETE FROM meta", "; PRAGMA user_version=99",
    " || (SELECT 1)", "; ATTACH 'x' AS y", "; VACUUM INTO 'stolen'", "{'$gt': ''}", " LIKE '%'", "?", ":id", "@id", "%s",
)  # fmt: skip
ENDS = ("", " --", " /*", ";", "'", "\n")
LOOKED_AT = 5
"""Rows of each page: another place to begin would show in the first of them."""

PAYLOADS = ["".join(parts) for parts in product(STARTS, MIDDLES, ENDS)]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """What is shown here does not depend on the loop."""
    return "asyncio"


def tables(path: str) -> list[tuple[object, ...]]:
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        schema = connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
        version = connection.execute("PRAGMA user_version").fetchall()
        return [*schema, *version]
    finally:
        connection.close()


async def test_a_thousand_statements_are_names_and_nothing_more(tmp_path: Path) -> None:
    assert len(PAYLOADS) > 1_000
    path = str(tmp_path / "store.db")
    store = await SqliteStore.open(path)
    try:
        await store.load()
        before = tables(path)
        puts: list[Job] = []
        for number, payload in enumerate(PAYLOADS, start=1):
            job = samples.job(number)
            puts.append(attrs.evolve(job, name=payload))
        await store.commit(Batch(1, puts=tuple(puts)))
        kept = {row.id: row for row in (await store.load()).rows if isinstance(row, Job)}
        assert kept == {job.id: job for job in puts}
        for payload in PAYLOADS:
            found = await store.rows(Rows("job", after=payload, limit=LOOKED_AT))
            expected = sorted(job.id for job in puts if job.id > payload)[:LOOKED_AT]
            assert [row.id for row in found] == expected
            assert (await store.log(Log(payload, "stdout"))).data == b""
        assert tables(path) == before
    finally:
        await store.aclose()
    assert [name for name in os.listdir(tmp_path) if not name.startswith("store.db")] == []  # noqa: PTH208 - the call does not wait
