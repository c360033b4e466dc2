"""The online backup: whole, durable, never over another file, and commits go on meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from orchestra.errors import Conflict, Malformed, StoreFailed
from orchestra.ports import Batch, LogChunk
from orchestra.storage import sqlite
from orchestra.storage.sqlite import SqliteStore
from orchestra.storage.sqlite_files import backup_steps, check_file
from orchestra.testing import store_samples as samples

pytestmark = pytest.mark.anyio

CHUNK = bytes(100_000)
BOUND_S = 60.0


def batch(number: int) -> Batch:
    job = samples.job(number)
    chunk = LogChunk(samples.ATTEMPT, "stdout", (number - 1) * len(CHUNK), CHUNK)
    return Batch(number, (job,), (), (samples.moved(number, job),), (chunk,))


def copies(folder: Path) -> list[str]:
    return [each.name for each in folder.glob("copy*")]


async def filled(path: Path, batches: int) -> SqliteStore:
    store = await SqliteStore.open(str(path))
    await store.load()
    for number in range(1, batches + 1):
        await store.commit(batch(number))
    return store


async def test_commits_go_on_during_a_backup_and_it_holds_what_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, committed = threading.Event(), threading.Event()

    def steps(*words: Any) -> Generator[int]:
        for left in backup_steps(*words):
            begun.set()
            assert committed.wait(BOUND_S), "the backup held up the commits"
            yield left

    monkeypatch.setattr(sqlite.files, "backup_steps", steps)
    store = await filled(tmp_path / "store.db", 300)
    number = 300
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.backup, str(tmp_path / "copy.db"))
            assert await anyio.to_thread.run_sync(begun.wait, BOUND_S)
            for number in range(301, 306):
                await store.commit(batch(number))
            committed.set()
    finally:
        await store.aclose()
    assert check_file(str(tmp_path / "copy.db")) == []
    second = await SqliteStore.open(str(tmp_path / "copy.db"))
    try:
        loaded = await second.load()
        assert loaded.number == 300, "it holds what there was when it began"
        assert len(loaded.rows) == loaded.story_number == loaded.number
        await second.commit(batch(loaded.number + 1))
    finally:
        await second.aclose()


async def test_a_backup_never_overwrites(tmp_path: Path) -> None:
    store = await filled(tmp_path / "store.db", 1)
    target = tmp_path / "copy.db"
    target.write_bytes(b"precious")
    try:
        with pytest.raises(Conflict, match="exists already"):
            await store.backup(str(target))
        with pytest.raises(Conflict, match="exists already"):
            await store.backup(store.path)
        assert target.read_bytes() == b"precious"
        for nowhere in (tmp_path / "nowhere" / "copy.db", tmp_path / "nul\0"):
            with pytest.raises(Malformed, match="can not be made"):
                await store.backup(str(nowhere))
    finally:
        await store.aclose()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_a_backup_has_the_mode_of_the_store(tmp_path: Path) -> None:
    store = await filled(tmp_path / "store.db", 1)
    try:
        tmp_path.joinpath("store.db").chmod(0o640)
        await store.backup(str(tmp_path / "copy.db"))
        assert mode(tmp_path / "copy.db") == 0o640
    finally:
        await store.aclose()


async def test_a_new_store_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = await filled(tmp_path / "store.db", 1)
    finally:
        os.umask(before)
    try:
        assert mode(tmp_path / "store.db") == mode(tmp_path / "store.db-wal") == 0o600
        tmp_path.joinpath("store.db").chmod(0o640)
    finally:
        await store.aclose()
    await (await SqliteStore.open(str(tmp_path / "store.db"))).aclose()
    assert mode(tmp_path / "store.db") == 0o640, "what its owner chose stays"


async def test_a_backup_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    store = await filled(tmp_path / "store.db", 300)
    try:
        steps = backup_steps(store.path, str(tmp_path / "copy.db"))
        assert next(steps) > 0
        steps.close()
        assert copies(tmp_path) == []
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.backup(str(tmp_path / "copy.db"))
        assert copies(tmp_path) == []
        await store.commit(batch(301))
    finally:
        await store.aclose()
    with pytest.raises(StoreFailed, match="closed"):
        await store.backup(str(tmp_path / "copy.db"))
