"""What happens, as it happens: the story and progress, over any `ports.Asker`. Who drops a generator half-way closes it (trio insists)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from orchestra.errors import PeerClosed
from orchestra.ports import Asker, Lagged, Moved, ProgressSeen, Push, Story, WatchStory
from orchestra.statemachine import limits
from orchestra.statemachine.lifecycles import JOB_FINAL
from orchestra.statemachine.queries import GetJob


async def moves(asker: Asker, after: int, job_id: str = "") -> AsyncGenerator[Moved]:
    """The story from cursor ``after`` on, and what happens from then on, without a gap; it ends when the orchestrator does."""
    while True:
        lagged = False
        async with asker.watch(WatchStory(after, job_id)) as pushes:
            async for push in pushes:
                if isinstance(push, Moved):
                    after = push.number
                    yield push
                elif isinstance(push, Lagged):
                    lagged = True
        if not lagged:
            return


async def moves_of_job(asker: Asker, job_id: str, after: int) -> AsyncGenerator[Moved]:
    """The story of one job from cursor ``after`` on, until its end. Raises `PeerClosed` when the orchestrator ends first."""
    if await _is_over(asker, job_id):
        # Nothing more may come: to wait for an end that lies before ``after`` would be to wait for ever.
        for moved in await story_of_job(asker, job_id, after):
            yield moved
        return
    # Closed here: on trio, a generator that is dropped half-way is an error.
    async with aclosing(moves(asker, after, job_id)) as following:
        async for moved in following:
            yield moved
            if _is_end(moved):
                return
    raise _gone()


async def progress_of_job(asker: Asker, job_id: str) -> AsyncGenerator[ProgressSeen]:
    """Progress of a job's tasks from now on, until its end. Raises `PeerClosed` when the orchestrator ends first."""
    lagged = True
    while lagged:
        lagged = False
        async with asker.watch(WatchStory(job_id=job_id)) as pushes:
            # Subscribed first, so that the end can not fall in between.
            if await _is_over(asker, job_id):
                return
            async for push in pushes:
                if isinstance(push, ProgressSeen):
                    yield push
                elif _is_end(push):
                    return
                lagged = lagged or isinstance(push, Lagged)
    raise _gone()


async def story_of_job(asker: Asker, job_id: str, after: int = 0) -> list[Moved]:
    """What happened to a job so far, from cursor ``after`` on."""
    found: list[Moved] = []
    while True:
        page = await asker.story(Story(after, limits.PAGE_MAX, job_id))
        found.extend(page)
        if len(page) < limits.PAGE_MAX:
            return found
        after = page[-1].number


async def _is_over(asker: Asker, job_id: str) -> bool:
    return (await asker.answer(GetJob(job_id))).status in JOB_FINAL


def _is_end(push: Push) -> bool:
    return isinstance(push, Moved) and push.kind == "job" and push.target in JOB_FINAL


def _gone() -> PeerClosed:
    return PeerClosed("the orchestrator closed the subscription")
