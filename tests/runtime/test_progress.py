"""Progress on its way from a worker's report to those who watch: what was taken is pushed, what was ignored is not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from orchestra.ports import Moved, ProgressSeen, Push, WatchStory
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine import ids, limits
from orchestra.statemachine.commands import JoinWorker, StageDraft, SubmitJob
from orchestra.statemachine.replies import Order, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.storage.memory import MemoryStore

pytestmark = pytest.mark.anyio

BOUND_S = 30.0


class Clock:
    """A time that passes when it is told to: what is due is done with the next ask."""

    def __init__(self) -> None:
        self.at_ms = 1_000_000

    def now_ms(self) -> int:
        return self.at_ms


class Farm:
    """A real orchestrator, and workers whose messages the test writes."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asker = Orchestrator(MemoryStore(), clock=clock)

    async def join(self, name: str) -> WorkerJoined:
        return await self.asker.ask(JoinWorker(name, "session", 1, ("app",), (), (), {}))

    async def order(self, worker: WorkerJoined) -> Order:
        """The one that the worker should hold."""
        beat = Heartbeat(worker.worker_id, worker.incarnation)
        (order,) = (await self.asker.ask(beat)).orders
        return order

    async def tell(self, worker: WorkerJoined, *reports: AttemptReport) -> tuple[str, ...]:
        told = AttemptsReported(worker.worker_id, worker.incarnation, reports)
        return (await self.asker.ask(told)).ignored


@asynccontextmanager
async def farm() -> AsyncGenerator[Farm]:
    it = Farm(Clock())
    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as group:
            await group.start(it.asker.run)
            yield it
            group.cancel_scope.cancel()


def progress(order: Order, fraction: float, message: str) -> AttemptReport:
    return AttemptReport(order.attempt_id, Happening.PROGRESS, fraction=fraction, message=message)


def completed(order: Order) -> AttemptReport:
    return AttemptReport(order.attempt_id, Happening.COMPLETED, result=b"1")


async def test_late_progress_of_a_worker_that_lost_its_lease_is_not_shown() -> None:
    async with farm() as it:
        job_id = (await it.asker.ask(SubmitJob("job", (StageDraft("only", "app"),)))).job_id
        async with it.asker.watch(WatchStory(job_id=job_id)) as pushes:
            one = await it.join("one")
            first = await it.order(one)
            assert await it.tell(one, progress(first, 0.5, "half")) == ("",)
            it.clock.at_ms += limits.LEASE_MS + 1
            two = await it.join("two")
            second = await it.order(two)
            assert (first.number, second.number) == (1, 2)
            assert await it.tell(one, progress(first, 0.9, "late")) == ("the attempt is over",)
            # Nor is that of an attempt that somebody else has, or that never was.
            never = AttemptReport(ids.attempt_id(second.task_id, 3), Happening.PROGRESS)
            ignored = await it.tell(one, progress(second, 0.8, "not mine"), never)
            assert ignored == ("the attempt is not this worker's", "no such attempt")
            assert await it.tell(two, progress(second, 0.25, "anew")) == ("",)
            assert await it.tell(two, completed(second)) == ("",)
            seen = await until_ended(pushes)
    assert [push for push in seen if isinstance(push, ProgressSeen)] == [
        ProgressSeen(first.attempt_id, 0.5, "half"),
        ProgressSeen(second.attempt_id, 0.25, "anew"),
    ]


async def test_it_is_pushed_as_it_was_taken_and_to_those_who_watch_everything_too() -> None:
    async with farm() as it:
        job_id = (await it.asker.ask(SubmitJob("job", (StageDraft("only", "app"),)))).job_id
        async with (
            it.asker.watch(WatchStory(job_id=job_id)) as of_job,
            it.asker.watch(WatchStory(job_id=job_id, kinds=("job",))) as of_end,
            it.asker.watch(WatchStory()) as of_all,
        ):
            one = await it.join("one")
            order = await it.order(one)
            await it.tell(one, progress(order, 7.0, "y" * 1_000))
            await it.tell(one, completed(order))
            for pushes, wanted in ((of_job, True), (of_end, False), (of_all, True)):
                told = [p for p in await until_ended(pushes) if isinstance(p, ProgressSeen)]
                assert told == [ProgressSeen(order.attempt_id, 1.0, "y" * 200)] * wanted


async def until_ended(pushes: AsyncIterator[Push]) -> list[Push]:
    """What was pushed until the job had ended."""
    seen: list[Push] = []
    async for push in pushes:
        seen.append(push)
        if isinstance(push, Moved) and push.kind == "job" and push.target == "completed":
            break
    return seen
