"""Settings that the data file keeps: those that are given count, the others stay as they were set last."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from orchestra import compose
from orchestra.config import Address, Config
from orchestra.statemachine.records import Settings
from orchestra.storage.sqlite import SqliteStore

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


async def kept_by_a_server(data: Path, **given: int) -> Settings:
    """What is stored after a server was started with some settings, and stopped."""
    stop = anyio.Event()
    config = Config(data=str(data), listen=Address("127.0.0.1", 0), **given)
    await compose.serve(config, tasks={}, slots=0, ready=lambda _: stop.set(), stop=stop)
    store = await SqliteStore.open(str(data))
    try:
        rows = (await store.load()).rows
    finally:
        await store.aclose()
    found = [row for row in rows if isinstance(row, Settings)]
    return found[0] if found else Settings()


async def test_what_is_given_counts_and_the_rest_stays(tmp_path: Path) -> None:
    data = tmp_path / "farm.db"
    assert await kept_by_a_server(data) == Settings()
    given = await kept_by_a_server(data, retention_ms=1_000, aging_ms=0, losses_max=5)
    assert (given.retention_ms, given.aging_ms, given.losses_max) == (1_000, 0, 5)
    assert given.reserve_after_ms == Settings().reserve_after_ms
    later = await kept_by_a_server(data, reserve_after_ms=2_000, losses_max=6)
    assert (later.retention_ms, later.reserve_after_ms, later.losses_max) == (1_000, 2_000, 6)
