"""Who follows the story sees all of it, also what a commit stored of which nobody knew whether it had."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from orchestra.errors import StoreFailed
from orchestra.ports import Batch, Moved, Push, Story, WatchStory
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import CancelJob, StageDraft, SubmitJob
from orchestra.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0


class DoubtfulStore(MemoryStore):
    """Stores a batch and says that it failed, for so many; then so many reads of the story fail."""

    def __init__(self) -> None:
        super().__init__()
        self.doubtful = 0
        self.unread = 0

    async def commit(self, batch: Batch) -> None:
        await super().commit(batch)
        if self.doubtful:
            self.doubtful -= 1
            raise StoreFailed("nobody knows whether it was stored")

    async def story(self, query: Story) -> tuple[Moved, ...]:
        if self.unread:
            self.unread -= 1
            raise StoreFailed("the story can not be read")
        return await super().story(query)


async def taken(pushes: AsyncIterator[Push], count: int) -> list[Moved]:
    """The next so many moves."""
    found: list[Moved] = []
    with anyio.fail_after(PATIENCE_S):
        while len(found) < count:
            push = await anext(pushes)
            if isinstance(push, Moved):
                found.append(push)
    return found


@pytest.mark.parametrize("unread", [0, 1])
async def test_a_watcher_misses_nothing_of_a_commit_that_failed_and_was_stored(unread: int) -> None:
    store = DoubtfulStore()
    orchestrator = Orchestrator(store)
    drafts = (StageDraft("only", "nobody"),)
    async with anyio.create_task_group() as group:
        await group.start(orchestrator.run)
        job = await orchestrator.ask(SubmitJob("first", drafts))
        ends = WatchStory(0, job.job_id, ("job",))
        async with (
            orchestrator.watch(WatchStory(0)) as everything,
            orchestrator.watch(ends) as ends_of_job,
        ):
            store.doubtful, store.unread = 1, unread
            with pytest.raises(StoreFailed):
                await orchestrator.ask(CancelJob(job.job_id))
            with anyio.fail_after(PATIENCE_S):
                for _ in range(unread):
                    with pytest.raises(StoreFailed):
                        await orchestrator.ask(SubmitJob("second", drafts))
                await orchestrator.ask(SubmitJob("second", drafts))
            stored = await store.story(Story(0, 500))
            assert list(await taken(everything, len(stored))) == list(stored)
            told = await taken(ends_of_job, 3)
            assert [moved.target for moved in told] == ["queued", "cancelling", "cancelled"]
        group.cancel_scope.cancel()
