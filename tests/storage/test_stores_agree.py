"""Memory is the model: whatever it answers, SQLite answers the same, also after it was opened anew."""

from __future__ import annotations

import tempfile
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.errors import StoreTaken
from orchestra.ports import Batch, Log, Rows, Store, Story
from orchestra.statemachine.records import KIND_OF, KINDS
from orchestra.storage.memory import MemoryStore
from orchestra.storage.sqlite import SqliteStore
from orchestra.storage.sqlite_files import check_file
from orchestra.testing import store_samples as samples
from tests.storage import drawn

pytestmark = pytest.mark.aside

IDS = [row.id for row in drawn.ROWS]


def queries() -> st.SearchStrategy[Rows | Story | Log]:
    limit = st.integers(1, 9)
    edge = st.sampled_from(["", *IDS, *(each[:-1] for each in IDS)])
    return st.one_of(
        st.builds(Rows, st.sampled_from(list(KINDS)), edge, edge, limit, st.booleans()),
        st.builds(Story, st.integers(-1, 30), limit, st.sampled_from(["", *IDS[:9]])),
        st.builds(
            Log,
            st.sampled_from([samples.ATTEMPT, "another", "none"]),
            st.sampled_from(["stdout", "stderr"]),
            st.integers(0, 95),
            st.integers(1, 40),
        ),
    )


async def told(store: Store, query: Rows | Story | Log) -> object:
    if isinstance(query, Rows):
        return await store.rows(query)
    if isinstance(query, Story):
        return await store.story(query)
    return await store.log(query)


async def take(store: Store, batch: Batch) -> str:
    try:
        await store.commit(batch)
    except StoreTaken:
        return "taken"
    return "stored"


async def live(store: Store) -> object:
    loaded = await store.load()
    rows = sorted(loaded.rows, key=lambda row: (KIND_OF[type(row)], row.id))
    return (loaded.number, loaded.story_number, loaded.at_ms, rows, loaded.quarantined)


async def compare(batches: list[Batch], asked: list[Rows | Story | Log], path: str) -> None:
    memory = MemoryStore()
    store = await SqliteStore.open(path)
    try:
        for batch in batches:
            assert await take(store, batch) == await take(memory, batch)
            assert await live(store) == await live(memory)
        for query in asked:
            assert await told(store, query) == await told(memory, query)
        await store.aclose()
        store = await SqliteStore.open(path)
        assert await live(store) == await live(memory)
        for query in asked:
            assert await told(store, query) == await told(memory, query)
    finally:
        await store.aclose()
    assert check_file(path) == []


@given(st.sampled_from(["asyncio", "trio"]), drawn.histories(), st.lists(queries(), min_size=10))
def test_both_stores_give_the_same_answers(
    backend: str, batches: list[Batch], asked: list[Rows | Story | Log]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(compare, batches, asked, str(Path(folder, "store.db")), backend=backend)
