"""Both stores keep the contract; and stores that break it, one law each, are found out."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import anyio
import anyio.lowlevel
import attrs
import pytest

from orchestra.errors import StoreTaken
from orchestra.ports import Batch, Rows, Store
from orchestra.statemachine.records import Record
from orchestra.storage.memory import MemoryStore
from orchestra.storage.sqlite import SqliteStore
from orchestra.testing.check_store import CHECKS, Bench, Check, StoreBroken, check_store

pytestmark = pytest.mark.anyio


async def make_memory() -> Store:
    return MemoryStore()


def sqlite_bench(folder: Path) -> Bench:
    fresh = itertools.count()

    async def make() -> Store:
        place = folder / str(next(fresh))
        place.mkdir()
        return await SqliteStore.open(str(place / "store.db"))

    async def reopen(store: Store) -> Store:
        """What a killed process leaves behind: its files as they are, without any closing act."""
        assert isinstance(store, SqliteStore)
        place = folder / str(next(fresh))
        place.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(store.path + suffix, f"{place}/store.db{suffix}")
        return await SqliteStore.open(str(place / "store.db"))

    return Bench(make, reopen)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_memory_keeps_the_contract(check: Check) -> None:
    await check(Bench(make_memory))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_sqlite_keeps_the_contract(check: Check, tmp_path: Path) -> None:
    await check(sqlite_bench(tmp_path))


class Forgetful(MemoryStore):
    """Acknowledges, and loses every third batch's rows."""

    async def commit(self, batch: Batch) -> None:
        kept = attrs.evolve(batch, puts=()) if batch.number % 3 == 0 else batch
        await super().commit(kept)


class Unfenced(MemoryStore):
    """Takes any number."""

    async def commit(self, batch: Batch) -> None:
        await super().commit(attrs.evolve(batch, number=self._number + 1))


class Torn(MemoryStore):
    """Stores rows first, and story and output a moment later."""

    async def commit(self, batch: Batch) -> None:
        if batch.number != self._number + 1:
            raise StoreTaken("fenced")
        await super().commit(attrs.evolve(batch, story=(), logs=()))
        await anyio.lowlevel.checkpoint()
        self._number -= 1
        await super().commit(attrs.evolve(batch, puts=(), drops=()))


class Reordered(MemoryStore):
    """Stores the rows of each batch when the next one comes: two commits are in another order than they were acknowledged in."""

    _late: tuple[Record, ...] = ()

    async def commit(self, batch: Batch) -> None:
        late, self._late = self._late, batch.puts
        await super().commit(attrs.evolve(batch, puts=late))


class Twice(MemoryStore):
    """Takes one number twice, if both come at the same time: two orchestrators start the same work."""

    async def commit(self, batch: Batch) -> None:
        came_at = self._number
        try:
            await super().commit(batch)
        except StoreTaken:
            if batch.number != came_at + 1:
                raise
            for record in batch.puts:
                self._tables["job"].put(record)


class LeavesTraces(MemoryStore):
    """Refuses a wrong number after it has stored the rows."""

    async def commit(self, batch: Batch) -> None:
        if batch.number != self._number + 1:
            for record in batch.puts:
                self._tables["job"].put(record)
        await super().commit(batch)


class Stale(MemoryStore):
    """Does not see that a job has come alive again."""

    async def commit(self, batch: Batch) -> None:
        jobs = self._tables["job"].rows
        puts = tuple(
            record
            for record in batch.puts
            if not (record.id in jobs and getattr(jobs[record.id], "status", "") == "completed")
        )
        await super().commit(attrs.evolve(batch, puts=puts))


class Unordered(MemoryStore):
    """Shows pages in the order in which rows came."""

    async def rows(self, query: Rows) -> tuple[Record, ...]:
        found = await super().rows(attrs.evolve(query, after="", limit=500))
        return found[: query.limit]


class Repeating(MemoryStore):
    """Appends output that is sent twice."""

    async def commit(self, batch: Batch) -> None:
        logs = tuple(
            attrs.evolve(
                piece, offset=max(piece.offset, self._size(piece.attempt_id, piece.stream))
            )
            for piece in batch.logs
        )
        await super().commit(attrs.evolve(batch, logs=logs))

    def _size(self, attempt_id: str, stream: str) -> int:
        found = self._streams.get(attempt_id, {}).get(stream)
        return found.size if found is not None else 0


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Forgetful, "C1"),
        (Unfenced, "C4"),
        (Torn, "C1"),
        (Reordered, "as it was|C1"),
        (Twice, "C4"),
        (LeavesTraces, "C1"),
        (Stale, "revived"),
        (Unordered, "pages"),
        (Repeating, "bytes from"),
    ],
)
async def test_a_broken_store_is_found_out(broken: type[MemoryStore], law: str) -> None:
    async def make() -> Store:
        return broken()

    with pytest.raises(StoreBroken, match=law):
        await check_store(make)


async def test_an_acknowledgement_before_the_flush_is_found_out(tmp_path: Path) -> None:
    bench = sqlite_bench(tmp_path)

    async def reopen(store: Store) -> Store:
        """As if half of the log had not reached the disk."""
        assert isinstance(store, SqliteStore)
        assert bench.reopen is not None
        log = anyio.Path(store.path + "-wal")
        kept = await log.read_bytes()
        await log.write_bytes(kept[: len(kept) // 2])
        try:
            return await bench.reopen(store)
        finally:
            await log.write_bytes(kept)

    with pytest.raises(StoreBroken, match="C2"):
        await check_store(bench.make, reopen=reopen)
