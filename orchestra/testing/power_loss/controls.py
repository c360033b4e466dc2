"""Ways to lose work, switched on one by one: a proof that does not notice them would prove nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from unittest import mock

from orchestra.ports import Batch, Loaded, Log, LogRead, Moved, Rows, Store, Story
from orchestra.statemachine.records import Record
from orchestra.storage import sqlite_files
from orchestra.storage.disk import Disk
from orchestra.storage.sqlite import SqliteStore
from orchestra.testing.power_loss.trial import Tally, open_sqlite, try_scenario

Control = Callable[[int, int], Awaitable[Tally]]
"""Tries a store that loses, with this seed, until so many images were broken (0: to the end)."""

SUBSETS = 2
"""Images beside the four fixed ways: losses of these kinds are no matter of luck."""


class HastyStore:
    """Acknowledges a batch, and stores it when the next one comes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._due: Batch | None = None

    async def _catch_up(self) -> None:
        due, self._due = self._due, None
        if due is not None:
            await self._store.commit(due)

    async def load(self) -> Loaded:
        """As `ports.Store.load`."""
        await self._catch_up()
        return await self._store.load()

    async def commit(self, batch: Batch) -> None:
        """Not as `ports.Store.commit`: nothing of the batch is durable on return."""
        await self._catch_up()
        self._due = batch

    async def rows(self, query: Rows) -> tuple[Record, ...]:
        """As `ports.Store.rows`."""
        await self._catch_up()
        return await self._store.rows(query)

    async def story(self, query: Story) -> tuple[Moved, ...]:
        """As `ports.Store.story`."""
        await self._catch_up()
        return await self._store.story(query)

    async def log(self, query: Log) -> LogRead:
        """As `ports.Store.log`."""
        await self._catch_up()
        return await self._store.log(query)

    async def backup(self, target: str) -> None:
        """As `ports.Store.backup`."""
        await self._catch_up()
        await self._store.backup(target)

    async def aclose(self) -> None:
        """As `ports.Store.aclose`."""
        await self._catch_up()
        await self._store.aclose()


async def no_directory_flush(seed: int, enough: int = 0) -> Tally:
    """Nobody flushes the directory, neither the store nor SQLite."""
    return await try_scenario(
        "reopening",
        seed,
        subsets=SUBSETS,
        enough=enough,
        syncs_names=False,
        sqlite_syncs_names=False,
    )


async def synchronous_normal(seed: int, enough: int = 0) -> Tally:
    """``synchronous=NORMAL``: commits are flushed when the log is moved into the file."""

    async def open_store(path: str, disk: Disk) -> Store:
        return await SqliteStore.open(path, durability="normal", disk=disk)

    return await try_scenario(
        "reopening",
        seed,
        subsets=SUBSETS,
        enough=enough,
        open_store=open_store,
        open_again=open_sqlite,
    )


async def synchronous_off(seed: int, enough: int = 0) -> Tally:
    """``synchronous=OFF``: SQLite flushes nothing."""
    with mock.patch.dict(sqlite_files.SYNCHRONOUS, full="OFF"):
        return await try_scenario("reopening", seed, subsets=SUBSETS, enough=enough)


async def reply_before_commit(seed: int, enough: int = 0) -> Tally:
    """People are answered before their batch is stored."""

    async def open_store(path: str, disk: Disk) -> Store:
        return HastyStore(await open_sqlite(path, disk))

    return await try_scenario(
        "reopening",
        seed,
        subsets=SUBSETS,
        enough=enough,
        open_store=open_store,
        open_again=open_sqlite,
    )


CONTROLS: Mapping[str, Control] = MappingProxyType(
    {
        control.__name__: control
        for control in (
            no_directory_flush,
            synchronous_normal,
            synchronous_off,
            reply_before_commit,
        )
    }
)
"""By name. Each must be found to lose or to corrupt."""
