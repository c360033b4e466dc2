"""Who is told what: watchers of one job get the kinds that they asked for, whoever else watches."""

from __future__ import annotations

import anyio
import pytest

from orchestra.ports import Moved, WatchStory
from orchestra.runtime.feed import Feed, Mailbox
from orchestra.statemachine import ids

pytestmark = pytest.mark.anyio

JOB = ids.new_id(1, 1)
OTHER = ids.new_id(2, 2)


def story() -> list[Moved]:
    task = ids.task_id(JOB, 1)
    return [
        Moved(1, 0, "job", JOB, "", "create", "queued", ""),
        Moved(2, 0, "task", task, "", "create", "queued", ""),
        Moved(3, 0, "task", ids.task_id(OTHER, 1), "", "create", "queued", ""),
        Moved(4, 0, "worker", ids.new_id(3, 3), "", "create", "online", ""),
        Moved(5, 0, "job", JOB, "queued", "run", "running", ""),
    ]


async def numbers_in(feed: Feed, mailbox: Mailbox) -> list[int]:
    """What waits in a mailbox, which is shut for it."""
    feed.shut(mailbox)
    with anyio.fail_after(30):
        pushes = [push async for push in mailbox]
    return [push.number for push in pushes if isinstance(push, Moved)]


async def test_each_watcher_gets_its_own_kinds() -> None:
    feed = Feed()
    ends = feed.open(WatchStory(job_id=JOB, kinds=("job",)))
    tasks = feed.open(WatchStory(job_id=JOB, kinds=("task",)))
    whole = feed.open(WatchStory(job_id=JOB))
    everything = feed.open(WatchStory())
    feed.tell(story())
    assert await numbers_in(feed, ends) == [1, 5]
    assert await numbers_in(feed, tasks) == [2]
    assert await numbers_in(feed, whole) == [1, 2, 5]
    assert await numbers_in(feed, everything) == [1, 2, 3, 4, 5]


async def test_kinds_are_counted_for_as_long_as_somebody_wants_them() -> None:
    feed = Feed()
    for _ in range(2):
        feed.shut(feed.open(WatchStory(job_id=JOB)))
    ends = feed.open(WatchStory(job_id=JOB, kinds=("job",)))
    first, second = (feed.open(WatchStory(job_id=JOB, kinds=("task",))) for _ in range(2))
    feed.shut(first)
    feed.shut(first)
    feed.tell(story())
    assert await numbers_in(feed, second) == [2]
    assert await numbers_in(feed, ends) == [1, 5]
