"""A poisoned row never stops the start: it is named, set aside, and the rest is served."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from unittest import mock

import apsw
import attrs
import pytest

from orchestra.ports import Batch, Loaded, Quarantined, Rows, Story
from orchestra.statemachine import ids
from orchestra.statemachine.lifecycles import TaskStatus
from orchestra.statemachine.records import (
    KIND_OF,
    KINDS,
    Attempt,
    Counters,
    Record,
    Settings,
    Task,
)
from orchestra.storage import sqlite_files
from orchestra.storage.codec import KIND_NUMBERS, RowCodec
from orchestra.storage.salvage import counters_from, set_aside
from orchestra.storage.sqlite import SqliteStore
from orchestra.storage.sqlite_files import check_file
from orchestra.testing import store_samples as samples

pytestmark = [pytest.mark.anyio, pytest.mark.aside]

HEALTHY = samples.job(9, stages=2, tasks=2)
WORLD = (*samples.world(), HEALTHY, *samples.parts(HEALTHY.id))
CODEC = RowCodec()


FLIPS = 36
"""With what else is done to a body: 50 ways to damage it."""


def first_of(kind: str) -> Record:
    return next(row for row in WORLD if KIND_OF[type(row)] == kind)


def flipped(place: int) -> Callable[[bytes], bytes]:
    def damage(body: bytes) -> bytes:
        out = bytearray(body)
        out[place * (len(body) - 1) // FLIPS] ^= 1 << (place % 8)
        return bytes(out)

    return damage


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    **{f"bit flipped at {place}/{FLIPS}": flipped(place) for place in range(FLIPS + 1)},
    "empty": lambda _: b"",
    "one byte": lambda body: body[:1],
    "only the header": lambda body: body[:6],
    "cut in the middle": lambda body: body[: len(body) // 2],
    "last byte gone": lambda body: body[:-1],
    "a byte too many": lambda body: body + b"\0",
    "zeroes": lambda body: bytes(len(body)),
    "ones": lambda body: b"\xff" * len(body),
    "a sector of zeroes": lambda body: body[:16] + bytes(min(512, len(body) - 16)) + body[528:],
    "backwards": lambda body: body[::-1],
    "text": lambda _: b"{}",
    "another row": lambda _: CODEC.encode(Settings(id="someone else")),
    "a newer version": lambda body: b"\x63\0" + body[2:],
}


@pytest.fixture(scope="module", autouse=True)
def nothing_is_flushed() -> Iterator[None]:
    """No power is cut here: some thousand files are opened, and nobody has to wait for the disk."""
    with mock.patch.dict(sqlite_files.SYNCHRONOUS, full="OFF"):
        yield


@pytest.fixture(scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> Path:
    """A healthy file, closed."""
    path = tmp_path_factory.mktemp("whole") / "store.db"
    store = await SqliteStore.open(str(path))
    await store.load()
    await store.commit(samples.numbered(1, 1, *WORLD))
    await store.aclose()
    return path


def damaged(whole: Path, folder: Path, statement: str, *values: object) -> str:
    """A copy of the file in which a hand has done something."""
    path = str(shutil.copy(whole, folder / "store.db"))
    connection = apsw.Connection(path)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(statement, values)
    assert connection.changes() >= 1
    connection.close()
    return path


async def loaded_twice(path: str) -> Loaded:
    """Load, load again, and open anew: the same each time; and the store takes a batch."""
    store = await SqliteStore.open(path)
    try:
        found = await store.load()
        again = await store.load()
        assert again.rows == found.rows
        assert sorted(map(str, again.quarantined)) == sorted(map(str, found.quarantined))
        await store.commit(Batch(found.number + 1, puts=(samples.job(70),)))
    finally:
        await store.aclose()
    return found


def named(loaded: Loaded) -> set[tuple[str, str]]:
    return {(each.kind, each.id) for each in loaded.quarantined}


def test_each_body_is_damaged_in_50_ways() -> None:
    for kind in KINDS:
        body = CODEC.encode(first_of(kind))
        assert len({damage(body) for damage in DAMAGES.values()} - {body}) >= 45, kind
    assert len(DAMAGES) == 50


@pytest.mark.parametrize("kind", list(KINDS))
async def test_any_damage_of_any_kind_of_row_is_named_and_the_start_goes_on(
    kind: str, whole: Path, tmp_path: Path
) -> None:
    row = first_of(kind)
    body = CODEC.encode(row)
    for name, damage in DAMAGES.items():
        path = damaged(
            whole,
            tmp_path,
            "UPDATE rows SET body = ? WHERE kind = ? AND id = ?",
            damage(body),
            KIND_NUMBERS[kind],
            row.id,
        )
        assert check_file(path), name
        loaded = await loaded_twice(path)
        assert (kind, row.id) in named(loaded), name
        served = {each.id for each in loaded.rows}
        assert {HEALTHY.id, *(part.id for part in samples.parts(HEALTHY.id))} <= served, name
        assert (row.id in served) == (kind == "counters"), name
        assert any(row.id in problem for problem in check_file(path)), name


async def test_a_row_under_an_unknown_kind_is_named(whole: Path, tmp_path: Path) -> None:
    worker = first_of("worker")
    for kind in (-1, 0, 99, 2**62):
        path = damaged(whole, tmp_path, "UPDATE rows SET kind = ? WHERE id = ?", kind, worker.id)
        loaded = await loaded_twice(path)
        assert named(loaded) == {(str(kind), worker.id)}


async def test_a_row_under_a_wrong_id_is_named(whole: Path, tmp_path: Path) -> None:
    worker = first_of("worker")
    text = "UPDATE rows SET id = CAST(? AS TEXT) WHERE id = ?"
    for id, shown in ((b"elsewhere", "elsewhere"), (b"\xff\xfe", "\\xff\\xfe"), (b"", "")):
        path = damaged(whole, tmp_path, text, id, worker.id)
        loaded = await loaded_twice(path)
        assert named(loaded) == {("worker", shown)}
        assert worker.id not in {each.id for each in loaded.rows}


COLUMNS = ("kind", "id", "body")
VALUES: tuple[object, ...] = (
    0,
    -1,
    2**62,
    -(2**62),
    "",
    "x",
    "\u202e",
    "9" * 4_000,
    b"",
    b"\xff\xfe",
)
"""What another program might leave in a column; the table refuses some of it by its types."""


@pytest.mark.parametrize("kind", list(KINDS))
async def test_any_value_in_any_column_of_any_kind_of_row_is_no_reason_not_to_start(
    kind: str, whole: Path, tmp_path: Path
) -> None:
    row = first_of(kind)
    started = refused = 0
    for column, value in product(COLUMNS, VALUES):
        statement = f"UPDATE rows SET {column} = ? WHERE kind = ? AND id = ?"  # noqa: S608 - a column of this test
        try:
            path = damaged(whole, tmp_path, statement, value, KIND_NUMBERS[kind], row.id)
        except apsw.ConstraintError:
            refused += 1
            continue
        seen = check_file(path)
        loaded = await loaded_twice(path)
        started += 1
        assert HEALTHY.id in {each.id for each in loaded.rows}
        # A part of a job under an id that belongs to none is not loaded: the doctor finds it.
        assert loaded.quarantined or seen, (column, value)
    assert started + refused == len(COLUMNS) * len(VALUES)
    assert started > len(VALUES)


async def test_a_job_without_one_of_its_stages_is_set_aside_whole(
    whole: Path, tmp_path: Path
) -> None:
    stage = first_of("stage")
    path = damaged(whole, tmp_path, "UPDATE rows SET id = 'gone' WHERE id = ?", stage.id)
    loaded = await loaded_twice(path)
    assert named(loaded) == {("job", samples.root_id(7))}
    assert not [row for row in loaded.rows if row.id.startswith(samples.root_id(7))]


async def test_the_bad_row_is_kept_and_a_good_one_replaces_it(whole: Path, tmp_path: Path) -> None:
    worker = first_of("worker")
    path = damaged(whole, tmp_path, "UPDATE rows SET body = x'00' WHERE id = ?", worker.id)
    store = await SqliteStore.open(path)
    try:
        assert named(await store.load()) == {("worker", worker.id)}
        assert await store.rows(Rows("worker")) == ()
        await store.commit(Batch(2, puts=(worker,)))
        assert (await store.load()).quarantined == ()
        assert await store.rows(Rows("worker")) == (worker,)
    finally:
        await store.aclose()
    kept = apsw.Connection(path).execute("SELECT id, body FROM quarantine").fetchall()
    assert kept == [(worker.id, b"\0")]


async def test_a_row_that_can_not_be_moved_is_named_all_the_same(
    whole: Path, tmp_path: Path
) -> None:
    worker = first_of("worker")
    path = damaged(whole, tmp_path, "UPDATE rows SET body = x'00' WHERE id = ?", worker.id)
    store = await SqliteStore.open(path)
    try:
        assert store._writer is not None
        store._writer.execute("PRAGMA query_only = ON")
        assert named(await store.load()) == {("worker", worker.id)}
        assert named(await store.load()) == {("worker", worker.id)}
    finally:
        await store.aclose()
    assert apsw.Connection(path).execute("SELECT count(*) FROM quarantine").get == 0


async def test_a_job_that_is_not_listed_as_live_is_found_by_the_doctor(
    whole: Path, tmp_path: Path
) -> None:
    path = damaged(whole, tmp_path, "UPDATE live_jobs SET id = 'x' WHERE id = ?", HEALTHY.id)
    assert check_file(path) == [
        f"job {HEALTHY.id} is not final and is not listed as live",
        "job x is listed as live and is not there, or final",
    ]


async def test_unreadable_rows_do_not_shorten_a_page(whole: Path, tmp_path: Path) -> None:
    task = first_of("task")
    path = damaged(whole, tmp_path, "UPDATE rows SET body = x'00' WHERE id = ?", task.id)
    store = await SqliteStore.open(path)
    try:
        page = await store.rows(Rows("task", limit=3))
        assert len(page) == 3
        assert task not in page
    finally:
        await store.aclose()


async def test_lost_counters_never_give_a_number_again(whole: Path, tmp_path: Path) -> None:
    path = damaged(whole, tmp_path, "UPDATE rows SET body = x'00' WHERE id = 'counters'")
    loaded = await loaded_twice(path)
    assert Counters(projects=1, jobs=9, workers=3) in loaded.rows


async def test_a_lost_row_of_numbers_is_made_anew(whole: Path, tmp_path: Path) -> None:
    path = damaged(whole, tmp_path, "DELETE FROM meta")
    assert "the row of numbers is missing" in check_file(path)
    loaded = await loaded_twice(path)
    assert loaded.number == 0
    assert loaded.story_number == len(WORLD)
    assert loaded.at_ms == samples.AT_MS + len(WORLD)


async def test_a_damaged_segment_of_the_story_is_passed_over(whole: Path, tmp_path: Path) -> None:
    path = damaged(whole, tmp_path, "UPDATE story SET body = x'00'")
    store = await SqliteStore.open(path)
    try:
        loaded = await store.load()
        assert len(loaded.rows) == len(WORLD)
        entry = samples.moved(loaded.story_number + 1, HEALTHY)
        await store.commit(Batch(2, story=(entry,)))
        assert await store.story(Story()) == (entry,)
    finally:
        await store.aclose()
    assert any("story 1" in problem for problem in check_file(path))


def against_the_schema(whole: Path, folder: Path, table: str, where: str, held: object) -> str:
    """A copy of the file in which bodies are what the schema forbids, as a damaged page can have it."""
    path = str(shutil.copy(whole, folder / "store.db"))
    connection = apsw.Connection(path)
    ((text,),) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,))
    free = text.replace("body BLOB NOT NULL", "body").replace(", STRICT", "").replace(" STRICT", "")
    for schema in (free, text):
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (schema, table))
        connection.close()
        connection = apsw.Connection(path)
        if schema is free:
            connection.execute(f"UPDATE {table} SET body = ? WHERE {where}", (held,))  # noqa: S608  of this test
            assert connection.changes() == 1
    connection.close()
    return path


@pytest.mark.parametrize("held", [None, 7, 1.5, "text"])
async def test_what_the_schema_forbids_is_named_like_any_damage(
    whole: Path, tmp_path: Path, held: object
) -> None:
    task = first_of("task")
    path = against_the_schema(whole, tmp_path, "rows", f"id = '{task.id}'", held)
    assert any("in the place of bytes" in each for each in check_file(path))
    loaded = await loaded_twice(path)
    assert ("task", task.id) in named(loaded)


@pytest.mark.parametrize("held", [None, 7, 1.5, "text"])
async def test_a_segment_that_the_schema_forbids_is_passed_over(
    whole: Path, tmp_path: Path, held: object
) -> None:
    path = against_the_schema(whole, tmp_path, "story", "first = 1", held)
    assert any("in the place of bytes" in each for each in check_file(path))
    store = await SqliteStore.open(path)
    try:
        await store.load()
        assert all(moved.number > 1 for moved in await store.story(Story()))
    finally:
        await store.aclose()


def test_an_unreadable_end_of_an_old_attempt_leaves_its_job_alone() -> None:
    job = samples.job(7)
    rows = samples.parts(job.id)
    task = next(row for row in rows if isinstance(row, Task))
    bad = [Quarantined("attempt", ids.attempt_id(task.id, 1), "damaged")]
    others = [job, *(row for row in rows if not isinstance(row, Attempt))]
    kept, found = set_aside(others, bad, {job.id})
    assert task.status is TaskStatus.RUNNING
    assert (kept, [each.id for each in found]) == ([], [job.id])
    calm = [attrs.evolve(r, status=TaskStatus.QUEUED) if r is task else r for r in others]
    kept, found = set_aside(calm, bad, {job.id})
    assert (kept, found) == (calm, [])


def test_parts_of_a_job_that_is_not_there_are_not_served() -> None:
    job = samples.job(7)
    bad = [Quarantined("job", job.id, "damaged")]
    others = [*samples.loose(), *samples.parts(job.id)]
    kept, found = set_aside(others, bad, {job.id})
    assert (kept, found) == (list(samples.loose()), [])
    kept, found = set_aside(others, [], {job.id})
    assert kept == list(samples.loose())
    assert [(each.kind, each.id) for each in found] == [("job", job.id)]


def test_counters_are_rebuilt_from_the_highest_ids() -> None:
    highest = {"job": samples.root_id(41), "worker": "not an id of ours"}
    assert counters_from(highest) == Counters(projects=0, jobs=41, workers=0)
