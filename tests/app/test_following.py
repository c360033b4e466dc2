"""Events, story and progress of a job, in process and over a network: all of it, in order, and never beyond its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager

import anyio
import pytest

import orchestra
from orchestra import compose
from orchestra.errors import PeerClosed
from orchestra.ports import ProgressSeen
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine import ids, limits
from orchestra.statemachine.replies import ReportsAnswered
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening
from tests.transports.far_ends import Server, served

pytestmark = pytest.mark.anyio

BOUND_S = 30.0
"""Nothing here takes so long; what follows a job that is over must not wait for ever."""

app = orchestra.App()


@app.task
async def double(number: int) -> int:
    return 2 * number


@app.task
async def go_on(ctx: orchestra.Context) -> None:
    """Tells of itself until it is stopped."""
    while not ctx.stopping:
        ctx.progress(0.5, "on and on")
        await ctx.sleep(0.01)


@asynccontextmanager
async def farm() -> AsyncGenerator[Orchestrator]:
    async with (
        compose.open_orchestrator(None) as orchestrator,
        compose.local_workers(orchestrator, app.tasks, count=1, slots=2),
    ):
        yield orchestrator


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served(farm) as found:
        yield found


@pytest.fixture(params=["memory", "http", "ws"])
async def client(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[orchestra.Client]:
    with anyio.fail_after(BOUND_S):
        if request.param == "memory":
            async with app.run() as found:
                yield found
        else:
            async with orchestra.connect(server.url(request.param)) as found:
                yield found


async def test_events_are_the_story_and_end_with_the_job(client: orchestra.Client) -> None:
    job = await client.submit(double.map(range(3)))
    followed = [moved async for moved in job.events()]
    assert [(moved.kind, moved.target) for moved in followed[-1:]] == [("job", "completed")]
    assert followed == await job.story() == [moved async for moved in job.events()]
    assert {ids.job_of(moved.id) for moved in followed} == {job.id}


async def test_events_go_on_from_a_cursor_and_have_an_end_behind_the_last(
    client: orchestra.Client,
) -> None:
    job = await client.submit(double, 4)
    assert await job.result() == 8
    story = await job.story()
    middle = story[len(story) // 2]
    rest = [moved async for moved in job.events(after=middle.number)]
    assert rest == story[len(story) // 2 + 1 :]
    assert [moved async for moved in job.events(after=story[-1].number)] == []


async def test_progress_is_told_until_the_job_ends(client: orchestra.Client) -> None:
    job = await client.submit(go_on)
    seen: list[ProgressSeen] = []
    async for told in job.progress():
        seen.append(told)
        if len(seen) == 1:
            await job.cancel()
    assert {(told.fraction, told.message) for told in seen} == {(0.5, "on and on")}
    assert {ids.job_of(told.attempt_id) for told in seen} == {job.id}
    assert (await job.view()).status == "cancelled"
    assert [told async for told in job.progress()] == []


@pytest.mark.parametrize("what", ["events", "progress"])
async def test_an_orchestrator_that_ends_before_the_job_is_no_end_of_the_job(what: str) -> None:
    following = anyio.Event()
    raised: list[PeerClosed] = []

    async def follow(job: orchestra.Job[None]) -> None:
        async with aclosing(job.events() if what == "events" else job.progress()) as told:
            try:
                async for _ in told:
                    following.set()
            except PeerClosed as error:
                raised.append(error)

    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as group:
            async with app.run() as client:
                group.start_soon(follow, await client.submit(go_on))
                await following.wait()
    assert len(raised) == 1


async def test_progress_that_comes_too_fast_is_lost_and_the_next_is_told() -> None:
    async with compose.open_orchestrator(None) as orchestrator:
        job = await orchestra.Client(orchestrator.for_principal("ann")).submit(go_on)
        attempt_id = ids.attempt_id(ids.task_id(job.id, 1), 1)

        def tell(fraction: float) -> None:
            report = AttemptReport(attempt_id, Happening.PROGRESS, fraction=fraction)
            told = AttemptsReported("any", 1, (report,))
            orchestrator._feed.tell_progress(told, ReportsAnswered(("",)))

        async def until_heard(told: AsyncGenerator[ProgressSeen], fraction: float) -> int:
            """Tell it until it is heard; how much else was heard before."""
            async with anyio.create_task_group() as group:

                async def tell_on() -> None:
                    while True:
                        tell(fraction)
                        await anyio.sleep(0.01)

                group.start_soon(tell_on)
                heard = 0
                async for seen in told:
                    if seen.fraction == fraction:
                        group.cancel_scope.cancel()
                        return heard
                    heard += 1
            raise AssertionError("it ended before the job")

        with anyio.fail_after(BOUND_S):
            async with aclosing(job.progress()) as told:
                assert await until_heard(told, 0.25) == 0
                for _ in range(limits.FEED_BUFFER + 1):
                    tell(0.5)
                assert 0 < await until_heard(told, 0.75) <= limits.FEED_BUFFER
