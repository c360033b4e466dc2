"""Files of older and newer versions: brought up with a copy beside them, taken down again, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import apsw
import pytest

from orchestra.errors import Conflict, Defect, Malformed, NotFound, StoreTaken
from orchestra.ports import Rows, Story
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.records import KIND_OF
from orchestra.storage.codec import KIND_NUMBERS, RowCodec, encode_story
from orchestra.storage.migrations import LATEST, migrate, version_of
from orchestra.storage.sql import connect, first
from orchestra.storage.sqlite import SqliteStore
from orchestra.storage.sqlite_files import check_file
from orchestra.storage.sqlite_migrate import Migrated, migrate_file
from orchestra.testing import store_samples as samples

pytestmark = pytest.mark.anyio

DONE = samples.job(9, JobStatus.COMPLETED, stages=2, tasks=2)
LIVE = samples.world()
WORLD = (*LIVE, DONE, *samples.parts(DONE.id))
STORY = tuple(samples.moved(1 + place, row) for place, row in enumerate(WORLD))
OLD = list(range(1, LATEST))


def file_of(version: int, path: Path) -> str:
    """A store as an orchestra of that version wrote it."""
    codec = RowCodec()
    connection = connect(str(path))
    connection.execute("PRAGMA journal_mode = WAL")
    migrate(connection, version)
    connection.executemany(
        "INSERT INTO rows VALUES (?, ?, ?)",
        [(KIND_NUMBERS[KIND_OF[type(row)]], row.id, codec.encode(row)) for row in WORLD],
    )
    connection.execute("INSERT INTO story VALUES (1, ?)", (encode_story(STORY[:7]),))
    connection.execute("INSERT INTO story VALUES (8, ?)", (encode_story(STORY[7:]),))
    connection.execute(
        "UPDATE meta SET number = 3, story_number = ?, at_ms = ?",
        (len(STORY), STORY[-1].at_ms),
    )
    if version >= 2:
        connection.execute("INSERT INTO live_jobs VALUES (?)", (samples.root_id(7),))
    connection.close()
    return str(path)


def content(path: str) -> list[object]:
    """Everything in a file: its schema and all rows of all tables."""
    connection = apsw.Connection(path)
    try:
        tables = connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
        names = [name for name, sql in tables if str(sql).startswith("CREATE TABLE")]
        text = 'SELECT * FROM "{}"'
        rows = [sorted(connection.execute(text.format(name))) for name in names]
        return [connection.pragma("user_version"), tables, rows]
    finally:
        connection.close()


async def serves_everything(store: SqliteStore) -> None:
    loaded = await store.load()
    assert set(map(repr, loaded.rows)) == set(map(repr, LIVE))
    assert (loaded.number, loaded.story_number) == (3, len(STORY))
    assert await store.rows(Rows("job", newest_first=True, limit=1)) == (DONE,)
    for job_id in (DONE.id, samples.root_id(7)):
        wanted = tuple(entry for entry in STORY if entry.id.startswith(job_id))
        assert await store.story(Story(job_id=job_id)) == wanted


@pytest.mark.parametrize("version", OLD)
async def test_an_older_file_is_brought_up_after_a_copy(version: int, tmp_path: Path) -> None:
    path = file_of(version, tmp_path / "store.db")
    before = content(path)
    store = await SqliteStore.open(path)
    try:
        assert store.migrated_from == f"{path}.before-v{LATEST}"
        assert content(store.migrated_from) == before
        await serves_everything(store)
    finally:
        await store.aclose()
    assert check_file(path) == []
    store = await SqliteStore.open(path)
    await store.aclose()
    assert store.migrated_from == ""


@pytest.mark.parametrize("version", OLD)
async def test_down_and_up_again_loses_nothing(version: int, tmp_path: Path) -> None:
    path = file_of(version, tmp_path / "store.db")
    before = content(path)
    await (await SqliteStore.open(path)).aclose()
    newest = content(path)
    done = migrate_file(path, version)
    assert done == Migrated(LATEST, f"{path}.before-v{version}")
    assert content(done.copy) == newest
    assert content(path) == before
    assert check_file(path) == [
        f"{path} has schema {version}; the next start brings it to {LATEST}"
    ]
    store = await SqliteStore.open(path)
    try:
        assert store.migrated_from == f"{path}.before-v{LATEST}-2", "no copy is ever overwritten"
        await serves_everything(store)
    finally:
        await store.aclose()
    assert content(path) == newest


def test_a_file_that_is_there_already_is_not_copied(tmp_path: Path) -> None:
    path = file_of(LATEST, tmp_path / "store.db")
    before = content(path)
    assert migrate_file(path, LATEST) == Migrated(LATEST, "")
    assert content(path) == before
    assert not list(tmp_path.glob("*.before-*"))


@pytest.mark.parametrize(("source", "target"), [(1, LATEST), (LATEST, 1)])
def test_a_migration_that_is_cut_off_anywhere_changes_nothing(
    source: int, target: int, tmp_path: Path
) -> None:
    path = file_of(1, tmp_path / "store.db")
    if source != 1:
        migrate_file(path, source)
    before = content(path)
    cuts = 0
    for steps in range(1, 100_000, 2):
        connection = apsw.Connection(path)
        turns = iter(range(steps))
        connection.set_progress_handler(lambda turns=turns: next(turns, None) is None, 3)
        try:
            migrate(connection, target)  # type: ignore[arg-type]  # the stubs' Connection against our own
        except apsw.InterruptError:
            cuts += 1
            connection.set_progress_handler(None)
            connection.close()
            # The commit itself may be told to have been cut off after it was done.
            assert content(path) == before or content(path)[0] == target
            continue
        connection.set_progress_handler(None)
        connection.close()
        break
    assert cuts > 15
    assert content(path)[0] == target


async def test_a_file_of_a_newer_version_is_refused_untouched(tmp_path: Path) -> None:
    path = file_of(LATEST, tmp_path / "store.db")
    connection = apsw.Connection(path)
    connection.pragma("user_version", LATEST + 1)
    connection.close()
    before = content(path)
    with pytest.raises(Conflict, match=f"newer orchestra \\(schema {LATEST + 1}, this one knows"):
        await SqliteStore.open(path)
    assert content(path) == before
    assert "newer orchestra" in check_file(path)[0]
    assert f"orchestra migrate {path} --to {LATEST}" in check_file(path)[0]
    with pytest.raises(Conflict):
        migrate_file(path, 1)


async def test_a_file_of_another_program_is_refused_untouched(tmp_path: Path) -> None:
    notes = tmp_path / "notes.db"
    path = str(notes)
    connection = apsw.Connection(path)
    connection.execute("CREATE TABLE notes (text TEXT)")
    connection.close()
    before = notes.read_bytes()
    with pytest.raises(Malformed, match="another program"):
        await SqliteStore.open(path)
    with pytest.raises(Malformed, match="another program"):
        migrate_file(path, 1)
    assert notes.read_bytes() == before, "its journal mode is its own"
    text = tmp_path / "notes.txt"
    text.write_text("no database at all, but long enough to be looked at" * 40)
    kept = text.read_bytes()
    with pytest.raises(Malformed, match="no database"):
        await SqliteStore.open(str(text))
    assert text.read_bytes() == kept
    assert "can not be read" in check_file(str(text))[0]


async def test_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="directory does not exist"):
        await SqliteStore.open(str(tmp_path / "nowhere" / "store.db"))
    with pytest.raises(Malformed, match="full or normal"):
        await SqliteStore.open(str(tmp_path / "store.db"), durability="maybe")
    assert check_file(str(tmp_path / "none")) == [f"{tmp_path / 'none'} does not exist"]


async def test_a_file_in_use_is_not_migrated(tmp_path: Path) -> None:
    path = file_of(LATEST, tmp_path / "store.db")
    store = await SqliteStore.open(path)
    try:
        with pytest.raises(StoreTaken):
            migrate_file(path, 1)
    finally:
        await store.aclose()
    with pytest.raises(NotFound):
        migrate_file(str(tmp_path / "none"), 1)
    with pytest.raises(Malformed, match="no schema version 99"):
        migrate_file(path, 99)
    with pytest.raises(Defect):
        migrate(connect(path), 99)


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    """What is left when the first start was killed at the wrong moment."""
    path = tmp_path / "store.db"
    path.touch()
    store = await SqliteStore.open(str(path))
    await store.aclose()
    assert check_file(str(path)) == []
    again = tmp_path / "again.db"
    shutil.copy(path, again)
    connection = connect(str(again))
    assert version_of(connection) == LATEST
    assert first(connection, "SELECT count(*) FROM rows") == (0,)
    connection.close()


@pytest.mark.parametrize("version", OLD)
async def test_bad_rows_do_not_stop_a_migration(version: int, tmp_path: Path) -> None:
    path = file_of(version, tmp_path / "store.db")
    live = samples.root_id(7)
    connection = connect(path)
    connection.execute("UPDATE rows SET body = x'00' WHERE id = ?", (live,))
    connection.execute("UPDATE story SET body = x'00' WHERE first = 1")
    connection.close()
    store = await SqliteStore.open(path)
    try:
        loaded = await store.load()
        assert [(each.kind, each.id) for each in loaded.quarantined] == [("job", live)]
        assert set(map(repr, loaded.rows)) == set(map(repr, samples.loose()))
        assert await store.story(Story()) == STORY[7:]
    finally:
        await store.aclose()
