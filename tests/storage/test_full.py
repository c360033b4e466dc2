"""A full medium: a clear error, nothing acknowledged is lost, and commits go on when there is space again."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestra.errors import StoreFailed
from orchestra.ports import Batch, LogChunk
from orchestra.storage.sqlite import SqliteStore
from orchestra.storage.sqlite_files import check_file
from orchestra.testing import store_samples as samples

pytestmark = pytest.mark.anyio

CHUNK = bytes(20_000)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("needs root on Linux to mount; the limit on file size shows the same")
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs root that may mount; the limit on file size shows the same")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def batch(number: int) -> Batch:
    return Batch(
        number,
        puts=(samples.job(number),),
        story=(samples.moved(number, samples.job(number)),),
        logs=(LogChunk(samples.ATTEMPT, "stdout", (number - 1) * len(CHUNK), CHUNK),),
    )


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


async def fill(store: SqliteStore) -> int:
    """Commit until the medium is full. Returns the last number that was acknowledged."""
    for number in range(1, 200):
        failed: StoreFailed | None = None
        try:
            await store.commit(batch(number))
        except StoreFailed as error:
            failed = error
        if failed is not None:
            assert failed.full, failed
            return number - 1
    raise AssertionError("the medium never got full")


async def stands_at(store: SqliteStore, number: int) -> None:
    loaded = await store.load()
    assert (loaded.number, loaded.story_number, len(loaded.rows)) == (number, number, number)


async def test_a_full_disk_is_a_clear_error_and_service_goes_on_afterwards(small: Path) -> None:
    ballast = small / "ballast"
    ballast.write_bytes(bytes(300_000))
    store = await SqliteStore.open(str(small / "store.db"))
    try:
        await store.load()
        last = await fill(store)
        for _ in range(3):
            with pytest.raises(StoreFailed, match="full") as found:
                await store.commit(batch(last + 1))
            assert found.value.full
            await stands_at(store, last)
        ballast.unlink()
        for number in range(last + 1, last + 4):
            await store.commit(batch(number))
        await stands_at(store, last + 3)
    finally:
        await store.aclose()
    assert check_file(store.path) == []
    store = await SqliteStore.open(store.path)
    try:
        await stands_at(store, last + 3)
    finally:
        await store.aclose()


async def test_a_disk_that_is_full_at_the_start_is_a_clear_error(small: Path) -> None:
    (small / "ballast").write_bytes(bytes(1024 * 1024))
    with pytest.raises(StoreFailed, match="full") as found:
        await SqliteStore.open(str(small / "store.db"))
    assert found.value.full
    (small / "ballast").unlink()
    store = await SqliteStore.open(str(small / "store.db"))
    await store.load()
    await store.commit(batch(1))
    await store.aclose()


async def test_a_backup_onto_a_full_disk_leaves_nothing(small: Path, tmp_path: Path) -> None:
    store = await SqliteStore.open(str(tmp_path / "store.db"))
    try:
        await store.load()
        for number in range(1, 101):
            await store.commit(batch(number))
        with pytest.raises(StoreFailed, match="backup") as found:
            await store.backup(str(small / "copy.db"))
        assert found.value.full
        assert names(small) == []
        await store.commit(batch(101))
    finally:
        await store.aclose()


async def test_a_limit_on_file_size_is_a_full_medium(tmp_path: Path) -> None:
    store = await SqliteStore.open(str(tmp_path / "store.db"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        await store.load()
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
        try:
            last = await fill(store)
            await stands_at(store, last)
            with pytest.raises(StoreFailed):
                await store.commit(batch(last + 1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await store.commit(batch(last + 1))
        await stands_at(store, last + 1)
    finally:
        await store.aclose()
    assert check_file(store.path) == []
