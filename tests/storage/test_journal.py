"""What is committed lies in the journal first: it is read, survives, and is named when damaged, as if it lay in its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from orchestra.ports import Batch, Rows, Story, Tidying
from orchestra.statemachine import limits
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.storage import journal
from orchestra.storage.migrations import LATEST
from orchestra.storage.sql import connect, first
from orchestra.storage.sqlite import SqliteStore
from orchestra.storage.sqlite_check import check_file
from orchestra.storage.sqlite_files import migrate_file
from orchestra.testing import store_samples as samples

pytestmark = pytest.mark.anyio

DONE = samples.job(9, JobStatus.COMPLETED, stages=2, tasks=2)
ROWS = (*samples.world(), DONE, *samples.parts(DONE.id))
JOBS = (samples.job(7, stages=2, tasks=2), DONE)


def batch(number: int) -> Batch:
    """A job of its own, with an entry of the story and a piece of output."""
    return samples.numbered(number, len(ROWS) + number - 1, samples.job(10 + number))


async def begun(path: Path) -> SqliteStore:
    """A store with everything in it, in the journal."""
    store = await SqliteStore.open(str(path))
    await store.load()
    await store.commit(samples.numbered(1, 1, *ROWS))
    return store


def abandoned(path: Path) -> Path:
    """The files as they are at this moment, as a killed process leaves them."""
    copy = path.with_name("abandoned")
    copy.mkdir()
    for each in path.parent.glob(f"{path.name}*"):
        if not each.name.endswith((".lock", "-shm")):
            shutil.copy(each, copy / each.name)
    return copy / path.name


def counted(path: Path | str, table: str) -> int:
    connection = connect(str(path))
    try:
        found = first(connection, f"SELECT count(*) FROM {table}")  # noqa: S608  # a name from below
        assert found is not None
        return int(found[0])
    finally:
        connection.close()


async def test_a_commit_writes_to_the_journal_alone_and_is_read_from_its_place(
    tmp_path: Path,
) -> None:
    store = await begun(tmp_path / "store.db")
    try:
        assert (counted(store.path, "journal"), counted(store.path, "rows")) == (1, 0)
        assert check_file(store.path) == []
        assert await store.rows(Rows("job")) == JOBS
        assert (counted(store.path, "journal"), counted(store.path, "rows")) == (0, len(ROWS))
        await store.commit(batch(2))
        assert (await store.story(Story(after=len(ROWS))))[0].id == samples.job(12).id
    finally:
        await store.aclose()


async def test_the_last_word_on_a_row_counts(tmp_path: Path) -> None:
    store = await begun(tmp_path / "store.db")
    ended = samples.job(7, JobStatus.COMPLETED, stages=2, tasks=2)
    try:
        await store.commit(Batch(2, drops=(("job", DONE.id),)))
        await store.commit(Batch(3, puts=(ended,)))
        assert await store.rows(Rows("job")) == (ended,)
        assert not [row for row in (await store.load()).rows if row.id.startswith(ended.id)]
    finally:
        await store.aclose()


async def test_a_killed_process_leaves_nothing_behind_that_a_start_does_not_find(
    tmp_path: Path,
) -> None:
    store = await begun(tmp_path / "store.db")
    await store.commit(Batch(2, puts=(samples.job(20),)))
    left = abandoned(tmp_path / "store.db")
    await store.aclose()
    assert counted(store.path, "journal") == 0, "an orderly end leaves all in its place"
    assert counted(left, "journal") == 2
    again = await SqliteStore.open(str(left))
    try:
        loaded = await again.load()
        assert (loaded.number, loaded.story_number) == (2, len(ROWS))
        assert loaded.at_ms == samples.AT_MS + len(ROWS)
        live = {row.id for row in loaded.rows if type(row) is type(DONE)}
        assert live == {samples.job(7).id, samples.job(20).id}
        await again.commit(Batch(3))
    finally:
        await again.aclose()
    assert check_file(str(left)) == []


async def test_an_older_orchestra_is_given_back_all_that_lies_in_the_journal(
    tmp_path: Path,
) -> None:
    store = await begun(tmp_path / "store.db")
    left = abandoned(tmp_path / "store.db")
    await store.aclose()
    migrate_file(str(left), LATEST - 1)
    assert counted(left, "rows") == len(ROWS)
    assert counted(left, "live_jobs") == 1


async def test_it_is_put_in_place_once_that_is_worth_a_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PLACE_BATCHES", 3)
    store = await begun(tmp_path / "store.db")
    try:
        assert isinstance(store, Tidying)
        held: list[int] = []
        for number in (2, 3, 4):
            await store.commit(batch(number))
            await store.tidy()
            held.append(counted(store.path, "journal"))
        assert held == [2, 0, 1]
    finally:
        await store.aclose()


async def test_a_batch_that_is_large_goes_straight_to_its_place(tmp_path: Path) -> None:
    store = await begun(tmp_path / "store.db")
    many = tuple(samples.job(100 + place) for place in range(8_000))
    try:
        await store.commit(Batch(2, puts=many))
        assert counted(store.path, "journal") == 0
        assert counted(store.path, "rows") == len(ROWS) + len(many)
        assert len(await store.rows(Rows("job", limit=limits.PAGE_MAX))) == limits.PAGE_MAX
    finally:
        await store.aclose()


def cut_off(body: bytes) -> bytes:
    return body[:-1]


def flipped(body: bytes) -> bytes:
    return body[:-20] + bytes([body[-20] ^ 4]) + body[-19:]


def unknown_version(body: bytes) -> bytes:
    return b"\xff\x7f" + body[2:]


def no_header(body: bytes) -> bytes:
    return body[:3]


def other_content(body: bytes) -> bytes:
    del body
    return journal.seal(1, b"\xc1 is no MessagePack")


DAMAGES = (cut_off, flipped, unknown_version, no_header, other_content)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_a_damaged_batch_is_named_and_no_job_that_it_may_be_about_is_served(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    store = await begun(tmp_path / "store.db")
    await store.commit(batch(2))
    await store.commit(batch(3))
    left = abandoned(tmp_path / "store.db")
    await store.aclose()
    connection = connect(str(left))
    found = first(connection, "SELECT body FROM journal WHERE number = 2")
    assert found is not None
    connection.execute("UPDATE journal SET body = ? WHERE number = 2", (damage(found[0]),))
    connection.close()
    assert any(problem.startswith("batch 2: ") for problem in check_file(str(left)))

    again = await SqliteStore.open(str(left))
    try:
        for _ in range(2):  # what was set aside stays so
            loaded = await again.load()
            assert loaded.number == 3
            assert loaded.story_number == len(ROWS) + 2
            named = {(each.kind, each.id) for each in loaded.quarantined}
            live = {samples.job(7).id, samples.job(13).id}
            assert named >= {("batch", "2"), *(("job", id) for id in live)}
            assert {row.id for row in loaded.rows} == {row.id for row in samples.loose()}
        assert await again.rows(Rows("job")) == (DONE,)
        await again.commit(batch(4))
        assert samples.job(14).id in {row.id for row in (await again.load()).rows}
    finally:
        await again.aclose()


async def test_what_somebody_else_put_in_place_is_not_put_there_again(tmp_path: Path) -> None:
    store = await begun(tmp_path / "store.db")
    try:
        other = apsw.Connection(store.path)
        journal.put_in_place(other.cursor(), journal.read_backlog(other))
        other.close()
        assert await store.rows(Rows("job")) == JOBS
        await store.commit(batch(2))
        assert len(await store.rows(Rows("job"))) == len(JOBS) + 1
    finally:
        await store.aclose()
