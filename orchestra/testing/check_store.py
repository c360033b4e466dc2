"""
The contract of `orchestra.ports.Store` as a suite: prove your own store with it.

::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_store(check, tmp_path):
        async def make():
            return await MyStore.open(tmp_path / "fresh")

        await check(Bench(make))

or all at once: ``await check_store(make)``. Each check begins with a new, empty store.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

from orchestra.errors import Rejected, StoreFailed, StoreTaken, Unavailable
from orchestra.ports import Batch, Loaded, Log, LogRead, Rows, Store, Story
from orchestra.statemachine import ids, limits
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.records import KIND_OF, KINDS, Record
from orchestra.testing import store_samples as samples
from orchestra.testing.store_bench import (
    Bench,
    Check,
    MakeStore,
    Reopen,
    StoreBroken,
    expect,
    loaded_store,
)
from orchestra.testing.store_pages import check_output, check_pages, check_story

__all__ = ["CHECKS", "Bench", "StoreBroken", "check_store"]

_READS = 20
"""How often a reader looks while commits go on: on every store some of these fall between two parts of a torn batch."""

_LOG = Log(samples.ATTEMPT, "stdout")


async def check_store(make_store: MakeStore, *, reopen: Reopen | None = None) -> None:
    """
    Run every check of `CHECKS`.

    Raises:
        StoreBroken: At the first law that does not hold.
    """
    bench = Bench(make_store, reopen)
    for check in CHECKS:
        await check(bench)


def _sorted(rows: tuple[Record, ...]) -> list[Record]:
    return sorted(rows, key=lambda row: (KIND_OF[type(row)], row.id))


async def _whole(store: Store) -> tuple[object, ...]:
    """Everything that can be read, to compare two moments."""
    loaded = await store.load()
    pages = [await store.rows(Rows(kind, limit=limits.PAGE_MAX)) for kind in KINDS]
    story = await store.story(Story(limit=limits.PAGE_MAX))
    log = await store.log(_LOG)
    return (loaded.number, loaded.story_number, _sorted(loaded.rows), pages, story, log)


_ATTEMPT = ids.attempt_id(ids.task_id(samples.root_id(7), 1), 1)


async def check_new_is_empty(bench: Bench) -> None:
    """A new store holds nothing, and says so."""
    async with loaded_store(bench) as store:
        expect(await store.load() == Loaded(0, 0, 0, ()), "a new store holds nothing")
        for kind in KINDS:
            expect(await store.rows(Rows(kind)) == (), f"a new store holds no {kind}")
        expect(await store.story(Story()) == (), "a new store has no story")
        expect(await store.log(_LOG) == LogRead(b"", 0), "output that never came has size 0")


async def check_rows_return(bench: Bench) -> None:
    """What is committed comes back equal, field for field, and only the newest of it."""
    async with loaded_store(bench) as store:
        world = samples.world()
        await store.commit(samples.numbered(1, 1, *world))
        loaded = await store.load()
        expect(_sorted(loaded.rows) == _sorted(world), "every kind of record is loaded as it was")
        expect(all(type(row) in KIND_OF for row in loaded.rows), "records come back as records")
        expect(loaded.number == 1, "load tells the last batch's number")
        expect(loaded.story_number == len(world), "load tells the last story entry's number")
        expect(loaded.at_ms == samples.AT_MS + len(world), "load tells the story's latest time")
        expect(loaded.quarantined == (), "nothing healthy is quarantined")
        again = samples.job(7, JobStatus.CANCELLING)
        task = ids.task_id(again.id, 2)
        await store.commit(Batch(2, puts=(again,), drops=(("task", task), ("task", "absent"))))
        expected = [row for row in world if row.id not in (again.id, task)] + [again]
        loaded = await store.load()
        expect(_sorted(loaded.rows) == _sorted(tuple(expected)), "puts replace and drops delete")
        expect(await store.rows(Rows("task", prefix=task)) == (), "a dropped row is not listed")
        expect(loaded.story_number == len(world), "a batch without story leaves its end")


async def check_number_fences(bench: Bench) -> None:
    """C4: only the next number is taken, and a refused batch leaves no trace (C1)."""
    async with loaded_store(bench) as store:
        await store.commit(samples.numbered(1, 1, samples.job(7)))
        before = await _whole(store)
        for number in (0, 1, 3, 2**40):
            refused = samples.numbered(number, 2, *samples.parts(samples.root_id(7)))
            try:
                await store.commit(refused)
            except StoreTaken:
                pass
            else:
                raise StoreBroken(f"C4: batch {number} after batch 1 must be refused")
            expect(await _whole(store) == before, "C1: a refused batch leaves nothing behind")
        following = samples.numbered(2, 2, samples.job(8))
        await store.commit(following)
        loaded = await store.load()
        expect(loaded.number == following.number, "C4: the next number is taken after a refusal")


async def check_one_of_many_wins(bench: Bench) -> None:
    """C4: of several commits with one number, at once, exactly one is stored."""
    won: list[int] = []

    async def race(number: int) -> None:
        try:
            await store.commit(samples.numbered(1, 1, samples.job(number)))
        except StoreTaken:
            return
        won.append(number)

    async with loaded_store(bench) as store:
        async with anyio.create_task_group() as tasks:
            for number in range(1, 6):
                tasks.start_soon(race, number)
        stored = [row.id for row in await store.rows(Rows("job"))]
        expect(len(won) == 1, "C4: one of several commits with the same number is acknowledged")
        expect(stored == [samples.root_id(number) for number in won], "C4: the winner is stored")


async def check_finished_jobs_stay_behind(bench: Bench) -> None:
    """`load` brings what is live only; finished jobs are still there as pages, and may come alive again."""
    async with loaded_store(bench) as store:
        live, done = samples.job(7), samples.job(8, JobStatus.COMPLETED)
        rows = (*samples.loose(), live, done, *samples.parts(live.id), *samples.parts(done.id))
        await store.commit(Batch(1, puts=rows))
        expected = (*samples.loose(), live, *samples.parts(live.id))
        loaded = await store.load()
        expect(_sorted(loaded.rows) == _sorted(expected), "finished jobs are not loaded")
        page = await store.rows(Rows("task", prefix=done.id))
        expect(page == samples.parts(done.id)[2:4], "the tasks of a finished job are listed")
        revived = samples.job(8, JobStatus.RUNNING)
        ended = samples.job(7, JobStatus.CANCELLED)
        await store.commit(Batch(2, puts=(revived, ended)))
        expected = (*samples.loose(), revived, *samples.parts(revived.id))
        loaded = await store.load()
        expect(_sorted(loaded.rows) == _sorted(expected), "a revived job is loaded, an ended not")
        await store.commit(Batch(3, drops=(("job", revived.id),)))
        kinds = {KIND_OF[type(row)] for row in (await store.load()).rows}
        expect("job" not in kinds, "a dropped job is not loaded")


async def check_readers_see_whole_batches(bench: Bench) -> None:
    """C1: while commits go on, a reader sees all of a batch or nothing, whatever part it looks at."""
    batches, width = 12, 40
    done = anyio.Event()

    async def write() -> None:
        for number in range(1, batches + 1):
            first = 1 + (number - 1) * width
            records = [samples.job(first + place) for place in range(width)]
            await store.commit(samples.numbered(number, first, *records))
        done.set()

    async def look() -> None:
        rows = await store.rows(Rows("job", limit=limits.PAGE_MAX))
        story = await store.story(Story(limit=limits.PAGE_MAX))
        log = await store.log(_LOG)
        later = await store.rows(Rows("job", limit=limits.PAGE_MAX))
        for seen in (len(rows), len(story), len(later)):
            expect(seen % width == 0, "C1: a reader sees whole batches only")
        shown = [len(rows), len(story), log.size // 4 * width, len(later)]
        expect(shown == sorted(shown), "C1: rows, story and output of a batch appear together")

    found: list[StoreBroken] = []
    async with loaded_store(bench) as store:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                found = await _look_until(done, look)
    for broken in found:
        raise broken


async def _look_until(done: anyio.Event, look: Callable[[], Awaitable[None]]) -> list[StoreBroken]:
    """Look again and again until ``done``, and some times after it. What is found is returned: a task group would wrap it."""
    looks = 0
    while not done.is_set() or looks < _READS:
        looks += 1
        try:
            await look()
        except StoreBroken as broken:
            return [broken]
        await anyio.lowlevel.checkpoint()
    return []


async def _give_up(store: Store, number: int, turn: int) -> int:
    """Begin to commit, and cancel after ``turn`` turns of the loop. Returns the number that is stored then."""
    records = [samples.job(10 * number + place) for place in range(10)]
    scope = anyio.CancelScope()

    async def commit() -> None:
        with scope:
            await store.commit(samples.numbered(number + 1, 10 * number + 1, *records))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commit)
        for _ in range(turn):
            await anyio.lowlevel.checkpoint()
        scope.cancel()
    loaded = await store.load()
    expect(loaded.number in (number, number + 1), "C1: a cancelled commit counts as one or none")
    seen = (len(loaded.rows), loaded.story_number, (await store.log(_LOG)).size // 4 * 10)
    expect(seen == (loaded.number * 10,) * 3, "C1: a cancelled commit is whole or absent")
    return loaded.number


async def check_cancelled_commits(bench: Bench) -> None:
    """C1: a commit whose caller gives up is stored whole or not at all."""
    async with loaded_store(bench) as store:
        number = 0
        for turn in range(12):
            number = await _give_up(store, number, turn)


async def check_survives(bench: Bench) -> None:
    """C2: what is acknowledged is there after a crash, and work goes on with the next number."""
    if bench.reopen is None:
        return
    store = await bench.make()
    await store.load()
    await store.commit(samples.numbered(1, 1, *samples.world()))
    await store.commit(samples.numbered(2, 1 + len(samples.world()), samples.job(8)))
    before = await _whole(store)
    second = await bench.reopen(store)
    try:
        expect(await _whole(second) == before, "C2: what is acknowledged survives a crash")
        following = Batch(3, puts=(samples.job(9),))
        await second.commit(following)
        loaded = await second.load()
        expect(loaded.number == following.number, "C2: work goes on after a crash")
    finally:
        await second.aclose()
        await store.aclose()


async def check_backup(bench: Bench) -> None:
    """A backup makes a new file and never overwrites one, or the store says that it has none."""
    async with loaded_store(bench) as store:
        await store.commit(samples.numbered(1, 1, *samples.world()))
        with tempfile.TemporaryDirectory() as folder:
            target = anyio.Path(folder, "copy")
            try:
                await store.backup(str(target))
            except Rejected:
                expect(not await target.exists(), "a refused backup leaves no file")
                return
            kept = await target.read_bytes()
            try:
                await store.backup(str(target))
            except Rejected:
                expect(await target.read_bytes() == kept, "a backup never overwrites a file")
            else:
                raise StoreBroken("a backup onto an existing file must be refused")


async def check_closed(bench: Bench) -> None:
    """A closed store refuses, and may be closed again."""
    store = await bench.make()
    await store.load()
    await store.aclose()
    await store.aclose()
    for call in (
        store.load(),
        store.commit(Batch(1)),
        store.rows(Rows("job")),
        store.story(Story()),
    ):
        try:
            await call
        except StoreFailed:
            continue
        except Unavailable as error:
            raise StoreBroken(f"a closed store raises StoreFailed, not {error!r}") from error
        raise StoreBroken("a closed store raises StoreFailed")


CHECKS: tuple[Check, ...] = (
    check_new_is_empty,
    check_rows_return,
    check_number_fences,
    check_one_of_many_wins,
    check_finished_jobs_stay_behind,
    check_pages,
    check_story,
    check_output,
    check_readers_see_whole_batches,
    check_cancelled_commits,
    check_survives,
    check_backup,
    check_closed,
)
"""Every law, each as a check of its own: parametrize your tests with them to see which one fails."""
