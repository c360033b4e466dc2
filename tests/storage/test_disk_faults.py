"""A disk that fails beside SQLite: a clear error each time, and a log that a failed flush left behind is made durable at the next start."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from orchestra.errors import StoreFailed
from orchestra.storage.disk import Disk
from orchestra.storage.sqlite import SqliteStore
from orchestra.storage.sqlite_files import check_file
from orchestra.storage.sqlite_migrate import migrate_file
from orchestra.testing import store_samples as samples

pytestmark = pytest.mark.anyio


class BrokenDisk(Disk):
    """Fails at one of its calls with one word of the operating system, and counts the logs that are written again."""

    def __init__(self, fails: str = "", number: int = errno.EIO) -> None:
        self.fails = fails
        self.number = number
        self.rewritten: list[str] = []

    def _meet(self, call: str) -> None:
        if call == self.fails:
            raise OSError(self.number, "the disk fails")

    def reserve(self, path: str) -> None:
        self._meet("reserve")
        super().reserve(path)

    def remove(self, path: str) -> None:
        self._meet("remove")
        super().remove(path)

    def sync_directory(self, path: str) -> None:
        self._meet("sync_directory")
        super().sync_directory(path)

    def write_again(self, path: str) -> None:
        self._meet("write_again")
        self.rewritten.append(Path(path).name)
        super().write_again(path)


async def used(path: Path, disk: Disk) -> None:
    """Open, commit the first batch, close."""
    store = await SqliteStore.open(str(path), disk=disk)
    try:
        await store.load()
        await store.commit(samples.numbered(1, 1, samples.job(7)))
    finally:
        await store.aclose()


@pytest.mark.parametrize(("number", "full"), [(errno.EIO, False), (errno.ENOSPC, True)])
async def test_a_directory_that_can_not_be_flushed_is_a_clear_error(
    tmp_path: Path, number: int, full: bool
) -> None:
    path = tmp_path / "store.db"
    with pytest.raises(StoreFailed) as found:
        await SqliteStore.open(str(path), disk=BrokenDisk("sync_directory", number))
    assert found.value.full is full
    await used(path, Disk())


@pytest.mark.parametrize("fails", ["reserve", "remove", "sync_directory"])
async def test_a_copy_that_the_medium_refuses_is_its_failure_and_not_the_callers(
    tmp_path: Path, fails: str
) -> None:
    path = tmp_path / "store.db"
    disk = BrokenDisk()
    store = await SqliteStore.open(str(path), disk=disk)
    try:
        await store.load()
        disk.fails = fails
        with pytest.raises(StoreFailed):
            await store.backup(str(tmp_path / "copy.db"))
        await store.commit(samples.numbered(1, 1, samples.job(7)))
    finally:
        await store.aclose()


async def test_a_migration_by_hand_tells_that_the_medium_failed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await used(path, Disk())
    with pytest.raises(StoreFailed):
        migrate_file(str(path), 1, BrokenDisk("reserve"))
    assert check_file(str(path)) == []


async def killed(tmp_path: Path) -> Path:
    """The files of a server that was killed: what it committed is in the log alone."""
    path = tmp_path / "store.db"
    store = await SqliteStore.open(str(path))
    try:
        await store.load()
        await store.commit(samples.numbered(1, 1, samples.job(7)))
        left = tmp_path / "left"
        left.mkdir()
        for name in ("store.db", "store.db-wal"):
            shutil.copyfile(tmp_path / name, left / name)
    finally:
        await store.aclose()
    return left / "store.db"


async def test_a_log_that_was_left_behind_is_written_again_before_anything_follows_it(
    tmp_path: Path,
) -> None:
    path = await killed(tmp_path)
    disk = BrokenDisk()
    store = await SqliteStore.open(str(path), disk=disk)
    try:
        assert disk.rewritten == ["store.db-wal"]
        assert (await store.load()).number == 1
    finally:
        await store.aclose()
    assert check_file(str(path)) == []


async def test_a_log_that_can_not_be_written_again_stops_the_start(tmp_path: Path) -> None:
    path = await killed(tmp_path)
    with pytest.raises(StoreFailed):
        await SqliteStore.open(str(path), disk=BrokenDisk("write_again"))
    store = await SqliteStore.open(str(path))
    try:
        assert (await store.load()).number == 1
    finally:
        await store.aclose()


def test_writing_again_changes_no_byte(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"a", bytes(range(256)) * 10_000):
        path.write_bytes(content)
        Disk().write_again(str(path))
        assert path.read_bytes() == content
