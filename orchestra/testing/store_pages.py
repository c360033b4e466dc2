"""What a store shows: rows, story and output, in pages. Part of `orchestra.testing.check_store`."""

from __future__ import annotations

from collections.abc import Awaitable
from itertools import pairwise

from orchestra.errors import Malformed
from orchestra.ports import Batch, Log, LogChunk, LogRead, Rows, Store, Story
from orchestra.statemachine import ids, limits
from orchestra.statemachine.records import Record
from orchestra.testing import store_samples as samples
from orchestra.testing.store_bench import Bench, StoreBroken, expect, loaded_store

_PAGE = 3
_STORY_PAGE = 97
"""Small, so that a walk takes many pages; odd, so that pages and batches do not end together."""


async def check_pages(bench: Bench) -> None:
    """Pages of rows: in order, bounded, from both ends, without gap or repetition."""
    async with loaded_store(bench) as store:
        jobs = [samples.job(number) for number in (12, 3, 40, 7, 1_000, 33, 32, 31)]
        await store.commit(Batch(1, puts=tuple(jobs)))
        await store.commit(Batch(2, puts=samples.parts(jobs[0].id) + samples.parts(jobs[1].id)))
        ordered = sorted(jobs, key=lambda each: each.id)
        for newest_first in (False, True):
            found: list[Record] = []
            page: tuple[Record, ...] = (ordered[0],)
            while page and len(found) <= len(jobs):
                after = found[-1].id if found else ""
                page = await store.rows(Rows("job", "", after, _PAGE, newest_first))
                expect(len(page) <= _PAGE, "a page is not longer than its limit")
                found += page
            expected = ordered[::-1] if newest_first else ordered
            expect(found == expected, "pages show each row once, in order of id")
        for wanted in jobs[:2]:
            page = await store.rows(Rows("task", prefix=wanted.id, newest_first=True))
            positions = [row.id for row in page]
            expected_ids = [ids.task_id(wanted.id, 2), ids.task_id(wanted.id, 1)]
            expect(positions == expected_ids, "a prefix selects what belongs to a job")
        await _refuses(store)


async def _refuses(store: Store) -> None:
    for query in (
        Rows("job", limit=0),
        Rows("job", limit=limits.PAGE_MAX + 1),
        Rows("no such kind"),
    ):
        await _expect_malformed(store.rows(query), str(query))
    for limit in (0, limits.PAGE_MAX + 1):
        await _expect_malformed(store.story(Story(limit=limit)), f"a story limit of {limit}")
    for log in (Log("a", "stdout", 0, 0), Log("a", "stdout", -1, 1)):
        await _expect_malformed(store.log(log), str(log))


async def _expect_malformed(answer: Awaitable[object], what: str) -> None:
    try:
        await answer
    except Malformed:
        return
    raise StoreBroken(f"pages are bounded: {what} must be Malformed")


async def check_story(bench: Bench) -> None:
    """The story: every entry once, in order, also one job's only, through batches of any size."""
    async with loaded_store(bench) as store:
        jobs = [samples.job(number) for number in (7, 8, 9)]
        records: list[Record] = [samples.loose()[1]]
        for place in range(1_300):
            owner = jobs[place % 2]
            records.append(samples.parts(owner.id)[place % 5])
        told = [samples.moved(1 + place, record) for place, record in enumerate(records)]
        cuts = (0, 1, 3, 1_200, len(told))
        for number, (begin, end) in enumerate(pairwise(cuts), 1):
            await store.commit(Batch(number, story=tuple(told[begin:end])))
        loaded = await store.load()
        expect(loaded.story_number == len(told), "load tells where the story ends")
        for job_id in ("", *(each.id for each in jobs)):
            wanted = [each for each in told if not job_id or each.id.startswith(job_id)]
            if job_id:
                wanted = [each for each in wanted if each.kind != "worker"]
            found = await _walk_story(store, job_id, len(told))
            expect(found == wanted, "the story is told whole, in order, with every word")
        expect(await store.story(Story(after=len(told))) == (), "nothing is told beyond the end")
        last = await store.story(Story(after=len(told) - 1))
        expect(last == (told[-1],), "a cursor stands after its entry")


async def _walk_story(store: Store, job_id: str, most: int) -> list[object]:
    found: list[object] = []
    after = 0
    page = await store.story(Story(0, _STORY_PAGE, job_id))
    while page and len(found) <= most:
        expect(len(page) <= _STORY_PAGE, "a page is not longer than its limit")
        found += page
        after = page[-1].number
        page = await store.story(Story(after, _STORY_PAGE, job_id))
    return found


async def check_output(bench: Bench) -> None:
    """Output: kept byte for byte; what is sent again, in the same or other pieces, changes nothing."""
    async with loaded_store(bench) as store:
        expected = bytes(range(256)) * 8
        pieces = [
            (0, 100),
            (100, 1_000),
            (0, 100),
            (50, 600),
            (1_000, 1_500),
            (1_400, 2_048),
            (9, 9),
        ]
        for number, (begin, end) in enumerate(pieces, 1):
            chunk = LogChunk(samples.ATTEMPT, "stdout", begin, expected[begin:end])
            other = LogChunk(samples.ATTEMPT, "stderr", 0, b"other")
            await store.commit(Batch(number, logs=(chunk, chunk, other)))
        for offset, limit in ((0, 4_096), (0, 1), (99, 2), (1_399, 200), (2_047, 10), (2_048, 1)):
            read = await store.log(Log(samples.ATTEMPT, "stdout", offset, limit))
            wanted = LogRead(expected[offset : offset + limit], 2_048)
            expect(read == wanted, f"{limit} bytes from {offset} are what was stored there")
        other_read = await store.log(Log(samples.ATTEMPT, "stderr"))
        expect(other_read == LogRead(b"other", 5), "each stream is its own")
        late = LogChunk(samples.ATTEMPT, "stdout", 2_050, b"late")
        await store.commit(Batch(len(pieces) + 1, logs=(late,)))
        read = await store.log(Log(samples.ATTEMPT, "stdout", 2_046))
        wanted = LogRead(expected[2_046:] + b"\0\0late", 2_054)
        expect(read == wanted, "a hole reads as zero bytes, so that nobody waits before it")
