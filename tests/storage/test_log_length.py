"""The write-ahead log is given its full length once a store is in use: a commit then makes it no longer, and nothing else is different."""

from __future__ import annotations

import errno
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from orchestra.errors import StoreFailed
from orchestra.ports import Batch, Rows
from orchestra.storage import log_length, sqlite_files
from orchestra.storage.disk import ROOM_PARTS, Disk
from orchestra.storage.sqlite import SqliteStore
from orchestra.storage.sqlite_files import check_file
from orchestra.testing import store_samples as samples
from tests.storage.disk import FaultyDisk

pytestmark = pytest.mark.anyio

LENGTH = 32 + sqlite_files.CHECKPOINT_PAGES * (24 + 4_096)


def batch(number: int) -> Batch:
    job = samples.job(number)
    return Batch(number, (job,), (), (samples.moved(number, job),), ())


def log_bytes(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job and its entry are two: the log gets its length after the third commit."""
    monkeypatch.setattr(log_length, "ENTRIES_BEFORE", 5)


@asynccontextmanager
async def opened(
    path: Path, *, durability: str = "full", disk: Disk | None = None
) -> AsyncGenerator[SqliteStore]:
    store = await SqliteStore.open(str(path), durability=durability, disk=disk or Disk())
    try:
        yield store
    finally:
        await store.aclose()


async def test_a_store_in_use_has_a_log_of_full_length_that_a_kill_leaves_whole(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    async with opened(path) as store:
        await store.load()
        for number in (1, 2):
            await store.commit(batch(number))
        assert log_bytes(path) < 400_000
        for number in (3, 4):
            await store.commit(batch(number))
        assert log_bytes(path) == LENGTH
        for number in range(5, 40):
            await store.commit(batch(number))
        assert log_bytes(path) == LENGTH
        for part in ("", "-wal"):  # as a process leaves them that is killed
            shutil.copyfile(f"{path}{part}", f"{copy}{part}")
    async with opened(copy) as again:
        await again.load()
        assert len(await again.rows(Rows("job"))) == 39
    assert check_file(str(copy)) == []


async def test_the_log_of_a_store_that_was_opened_anew_after_a_failure_gets_its_length_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    with FaultyDisk() as disk:
        async with opened(path) as store:
            await store.load()
            for number in range(1, 5):
                await store.commit(batch(number))
            disk.fail_from("sync", 1)
            with pytest.raises(StoreFailed):
                await store.commit(batch(5))
            disk.mend()
            after = (await store.load()).number + 1
            assert log_bytes(path) == 0
            for number in range(after, after + 4):
                await store.commit(batch(number))
            assert log_bytes(path) == LENGTH


async def test_a_store_that_flushes_no_log_leaves_it_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path, durability="normal") as store:
        await store.load()
        for number in range(1, 10):
            await store.commit(batch(number))
        assert log_bytes(path) < 400_000


async def test_a_disk_with_little_room_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    usage = shutil.disk_usage(tmp_path)
    little = usage._replace(free=ROOM_PARTS * (LENGTH - 1_000_000))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: little)
    async with opened(path) as store:
        await store.load()
        for number in range(1, 10):
            await store.commit(batch(number))
        assert log_bytes(path) < 400_000


class Full(Disk):
    """Has room for some of it only."""

    def lengthen(self, path: str, length: int) -> None:
        super().lengthen(path, length // 2)
        raise OSError(errno.ENOSPC, "the disk is full")


async def test_a_disk_that_fills_up_meanwhile_costs_no_commit(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path, disk=Full()) as store:
        await store.load()
        for number in range(1, 10):
            await store.commit(batch(number))
        assert len(await store.rows(Rows("job"))) == 9


def test_what_could_not_be_written_whole_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EIO, "the disk fails")

    file = tmp_path / "log"
    file.write_bytes(b"begun")
    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="the disk fails"):
        Disk().lengthen(str(file), 3_000_000)
    assert file.read_bytes() == b"begun"


def test_a_longer_file_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"longer than that")
    Disk().lengthen(str(file), 5)
    assert file.read_bytes() == b"longer than that"


async def test_a_foreign_program_that_writes_is_not_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await store.load()
        await store.commit(batch(1))
        foreign = apsw.Connection(str(path))
        foreign.execute("BEGIN IMMEDIATE")
        writer = apsw.Connection(str(path))
        writer.set_busy_timeout(1)
        log_length.lay_out_log(writer, str(path), Disk())
        assert log_bytes(path) < 400_000
        foreign.execute("ROLLBACK")
        log_length.lay_out_log(writer, str(path), Disk())
        assert log_bytes(path) == LENGTH
        foreign.close()
        writer.close()
        for number in range(2, 6):
            await store.commit(batch(number))
        assert len(await store.rows(Rows("job"))) == 5
