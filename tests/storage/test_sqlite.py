"""What only the SQLite store promises: one writer, a bounded log, and what happens when the disk says no."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import anyio
import apsw
import pytest

from orchestra.errors import Defect, StoreFailed, StoreTaken
from orchestra.ports import Batch, LogChunk, Rows, Story
from orchestra.storage.sqlite import SqliteStore
from orchestra.storage.sqlite_files import CHECKPOINT_PAGES, check_file
from orchestra.testing import store_samples as samples
from tests.storage.disk import FaultyDisk
from tests.tidy import ROOT

pytestmark = pytest.mark.anyio

HOLDER = """
import os, sys, anyio
from orchestra.storage.sqlite import SqliteStore
async def hold():
    store = await SqliteStore.open(sys.argv[1])
    if os.fork() == 0:
        os.close(1)  # the child says nothing; it only outlives its parent
    else:
        print("held", flush=True)
    sys.stdin.read()
anyio.run(hold)
"""

OPENER = """
import sys, anyio
from orchestra.errors import StoreTaken
from orchestra.storage.sqlite import SqliteStore
async def take():
    try:
        await SqliteStore.open(sys.argv[1])
    except StoreTaken as error:
        print(error)
anyio.run(take)
"""


def batch(number: int, size: int = 0) -> Batch:
    job = samples.job(number)
    chunks = (LogChunk(samples.ATTEMPT, "stdout", number * size, bytes(size)),) if size else ()
    return Batch(number, (job,), (), (samples.moved(number, job),), chunks)


async def test_a_second_opener_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    store = await SqliteStore.open(path)
    with pytest.raises(StoreTaken, match="in use by another orchestrator"):
        await SqliteStore.open(path)
    command = [sys.executable, "-c", OPENER, path]
    other = await anyio.run_process(command, cwd=ROOT)
    assert b"in use by another orchestrator" in other.stdout
    await store.load()
    await store.commit(batch(1))  # the refused ones did no harm
    await store.aclose()
    store = await SqliteStore.open(path)
    assert (await store.load()).number == 1
    await store.aclose()


def test_a_dead_holder_frees_the_store_even_when_its_forked_child_lives(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    command = [sys.executable, "-W", "ignore", "-c", HOLDER, path]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreTaken):
            anyio.run(SqliteStore.open, path)
        holder.kill()
        holder.wait(10)

        async def take_over() -> None:
            store = await SqliteStore.open(path)
            await store.load()
            await store.commit(batch(1))
            await store.aclose()

        anyio.run(take_over)


async def test_a_writer_that_went_round_the_lock_is_fenced_by_the_number(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    store = await SqliteStore.open(path)
    await store.load()
    await store.commit(batch(1))
    (tmp_path / "store.db.lock").unlink()
    second = await SqliteStore.open(path)
    try:
        await second.load()
        await second.commit(batch(2))
        with pytest.raises(StoreTaken, match="batch 2 does not follow 2"):
            await store.commit(batch(2))
        assert len(await store.rows(Rows("job"))) == 2
    finally:
        await second.aclose()
        await store.aclose()


def log_pages(store: SqliteStore) -> int:
    return Path(store.path + "-wal").stat().st_size // 4_120


async def test_the_log_is_emptied_although_readers_read_all_the_time(tmp_path: Path) -> None:
    store = await SqliteStore.open(str(tmp_path / "store.db"), durability="normal")
    size = 200_000
    try:
        await store.load()
        done = anyio.Event()

        async def read() -> None:
            while not done.is_set():
                await store.story(Story(limit=2))
                await store.rows(Rows("job", limit=3, newest_first=True))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            for number in range(1, 301):
                await store.commit(batch(number, size))
            done.set()
        assert log_pages(store) < 2 * CHECKPOINT_PAGES
        # The control: a reader who never ends does make it grow, so the readers above have ended.
        stalled = apsw.Connection(store.path, flags=apsw.SQLITE_OPEN_READONLY)
        stalled.execute("BEGIN; SELECT count(*) FROM meta").fetchall()
        for number in range(301, 501):
            await store.commit(batch(number, size))
        grown = log_pages(store)
        assert grown > 2 * CHECKPOINT_PAGES
        stalled.close()
        for number in range(501, 701):
            await store.commit(batch(number, size))
        assert log_pages(store) <= grown + 100
    finally:
        await store.aclose()


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
async def test_durability_is_what_was_asked_for(
    durability: str, level: int, tmp_path: Path
) -> None:
    store = await SqliteStore.open(str(tmp_path / "store.db"), durability=durability)
    try:
        assert store._writer is not None
        assert store._writer.pragma("synchronous") == level
        assert store._writer.pragma("journal_mode") == "wal"
    finally:
        await store.aclose()


async def test_a_batch_that_contradicts_itself_is_a_defect_and_stores_nothing(
    tmp_path: Path,
) -> None:
    store = await SqliteStore.open(str(tmp_path / "store.db"))
    job = samples.job(1)
    entry = samples.moved(1, job)
    wrong = (
        Batch(1, (job,), (("job", job.id),)),
        Batch(1, (), (("nonsense", "x"),)),
        Batch(1, (job,), story=(samples.moved(2, job),)),
        Batch(1, (job,), story=(entry, entry)),
        Batch(1, (job,), logs=(LogChunk("a", "stdout", -1, b"x"),)),
        Batch(1, (samples.job(1), samples.job(2, tasks=2**80))),
    )
    try:
        for each in wrong:
            with pytest.raises(Defect):
                await store.commit(each)
            assert (await store.load()).number == 0
            assert await store.rows(Rows("job")) == ()
        await store.commit(batch(1))
    finally:
        await store.aclose()


async def test_a_failed_flush_halts_until_the_next_load(tmp_path: Path) -> None:
    with FaultyDisk() as disk:
        store = await SqliteStore.open(str(tmp_path / "store.db"))
        try:
            await store.load()
            await store.commit(batch(1))
            disk.fail_from("sync", 1)
            with pytest.raises(StoreFailed) as found:
                await store.commit(batch(2))
            assert not found.value.full
            disk.mend()
            with pytest.raises(StoreFailed, match="load it again"):
                await store.commit(batch(2))
            assert len(await store.rows(Rows("job"))) >= 1
            number = (await store.load()).number
            assert number in (1, 2)
            await store.commit(batch(number + 1))
        finally:
            await store.aclose()
    assert check_file(store.path) == []


async def session(path: str, acknowledged: list[int], careless: bool = False) -> None:
    """
    Open, load and commit, and after each failure load again, as an orchestrator does; give up after some.

    A careless one replies before it knows that the commit went well.
    """
    store = await SqliteStore.open(path)
    try:
        for _ in range(4):
            try:
                number = (await store.load()).number
                while number < 6:
                    number += 1
                    if careless:
                        acknowledged.append(number)
                    await store.commit(batch(number, 6_000))
                    acknowledged.append(number)
            except StoreFailed:
                continue
            return
    finally:
        await store.aclose()


async def stored(path: str) -> int:
    """How many batches a store holds after the disk was mended, when all of them are whole."""
    store = await SqliteStore.open(path)
    try:
        loaded = await store.load()
        assert len(loaded.rows) == loaded.story_number == loaded.number
        assert loaded.quarantined == ()
    finally:
        await store.aclose()
    assert check_file(path) == []
    return loaded.number


@pytest.mark.aside
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize(
    ("operation", "at_least"), [("sync", 10), ("write", 40), ("truncate", 1), ("open", 5)]
)
def test_whichever_operation_fails_no_acknowledged_batch_is_lost(
    operation: str, at_least: int, lasting: bool, tmp_path: Path
) -> None:
    faults = 0
    for nth in range(1, 500):
        path = str(tmp_path / f"{nth}.db")
        acknowledged: list[int] = [0]
        with FaultyDisk() as disk:
            disk.fail_from(operation, nth, times=10**6 if lasting else 1)
            with contextlib.suppress(StoreFailed):
                anyio.run(session, path, acknowledged, backend=("asyncio", "trio")[nth % 2])
        if not disk.failed:
            break
        faults += 1
        assert acknowledged[-1] <= anyio.run(stored, path) <= acknowledged[-1] + 1, nth
    assert acknowledged[-1] == 6, "without a fault the session comes to its end"
    assert faults >= at_least


def test_a_reply_before_the_flush_is_found_out(tmp_path: Path) -> None:
    """The negative control: with careless replies the same faults lose acknowledged batches."""
    lost = 0
    for nth in range(1, 60):
        path = str(tmp_path / f"{nth}.db")
        acknowledged: list[int] = [0]
        with FaultyDisk() as disk:
            disk.fail_from("write", nth)
            with contextlib.suppress(StoreFailed):
                anyio.run(session, path, acknowledged, True)
        lost += acknowledged[-1] > anyio.run(stored, path)
    assert lost > 0
