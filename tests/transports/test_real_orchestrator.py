"""A real orchestrator behind each transport: the same work leaves the same story, and nothing is missed or done twice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from orchestra.dialects.asks import Keyed
from orchestra.dialects.native_table import OPERATIONS
from orchestra.errors import Conflict, Malformed, NotFound, OrchestraError
from orchestra.ports import Asker, Log, LogChunk, Moved, OrderSeen, Story, WatchOrders, WatchStory
from orchestra.statemachine.commands import (
    CancelJob,
    JoinWorker,
    LeaveWorker,
    PauseJob,
    Reconfigure,
    ResumeJob,
    StageDraft,
    SubmitJob,
)
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.queries import (
    GetJob,
    GetOverview,
    GetTask,
    ListJobs,
    ListResults,
    ListTasks,
    ListWorkers,
    Why,
)
from orchestra.statemachine.records import Span
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.transports.asking import put
from orchestra.transports.connect import connect
from orchestra.transports.memory import MemoryTransport
from tests.transports.far_ends import running, served

pytestmark = pytest.mark.anyio

TRANSPORTS = ["memory", "http", "ws"]
FRAMES = StageDraft("render", "render", b'{"size": 4}', over=Span(1, 4), needs=(("cpu", 500),))
JOB = SubmitJob("shot", (FRAMES, StageDraft("join", "join", after=("render",))), project="film")


@asynccontextmanager
async def asker_over(transport: str) -> AsyncIterator[Asker]:
    if transport == "memory":
        async with running() as orchestrator, MemoryTransport(orchestrator) as asker:
            yield asker
    else:
        with served(running) as server:
            async with connect(server.url(transport)) as asker:
                yield asker


async def work_off(asker: Asker, orders: Any, worker_id: str, count: int) -> list[str]:
    """Do as a worker does: take orders, run them, report."""
    done: list[str] = []
    while len(done) < count:
        push = await anext(orders)
        assert isinstance(push, OrderSeen)
        attempt = push.order.attempt_id
        chunk = LogChunk(attempt, "stdout", 0, b"frame \xff\n")
        await asker.append_log(worker_id, 1, [chunk])
        reports = (
            AttemptReport(attempt, Happening.RUNNING),
            AttemptReport(attempt, Happening.COMPLETED, json.dumps(push.order.offset).encode()),
        )
        answered = await asker.ask(AttemptsReported(worker_id, 1, reports))
        assert answered.ignored == ("", "")
        done.append(attempt)
    return done


def canonical(story: tuple[Moved, ...]) -> list[tuple[object, ...]]:
    """The story without ids and times, which differ from run to run."""
    names: dict[str, str] = {}
    return [
        (
            m.number,
            m.kind,
            names.setdefault(m.id, f"{m.kind} {len(names)}"),
            m.source,
            m.verb,
            m.target,
        )
        for m in story
    ]


async def scenario(asker: Asker) -> list[tuple[object, ...]]:
    joined = await asker.ask(
        JoinWorker("w", "session", 1, ("render", "join"), capacity=(("cpu", 2_000),))
    )
    assert joined.incarnation == 1
    async with asker.watch(WatchOrders(joined.worker_id, 1)) as orders:
        accepted = await asker.ask(JOB, key="shot-1")
        again = await asker.ask(JOB, key="shot-1")
        assert (again.job_id, again.repeated) == (accepted.job_id, True)
        beat = await asker.ask(Heartbeat(joined.worker_id, 1, load=0.5))
        assert beat.known
        attempts = await work_off(asker, orders, joined.worker_id, accepted.tasks)
    view = await asker.answer(GetJob("last"))
    assert view.status is JobStatus.COMPLETED
    assert view.stages[0].over == Span(1, 4)
    results = await asker.answer(ListResults(accepted.job_id, "render"))
    assert [item.result for item in results.items] == [b"0", b"1", b"2"]
    assert (await asker.answer(ListTasks(accepted.job_id))).items[0].item == b"1"
    assert (await asker.answer(GetTask("last.1"))).attempts[0].worker == "w"
    assert (await asker.log(Log(attempts[0], "stdout", 2))).data == b"ame \xff\n"
    assert (await asker.answer(ListWorkers())).items[0].capacity == (("cpu", 2_000),)
    held = await asker.ask(SubmitJob("held", (FRAMES,)))
    await asker.ask(PauseJob(held.job_id, "lunch"))
    await asker.ask(ResumeJob(held.job_id))
    assert (await asker.answer(Why(held.job_id))).reasons
    await asker.ask(LeaveWorker(joined.worker_id, 1))
    await asker.ask(CancelJob(held.job_id, "enough"))
    settings = (await asker.ask(Reconfigure(lease_ms=7_000))).settings
    assert settings.lease_ms == 7_000
    assert len((await asker.answer(ListJobs())).items) == 2
    return canonical(await asker.story(Story(0, 500)))


async def test_the_same_work_leaves_the_same_story() -> None:
    stories = []
    for transport in TRANSPORTS:
        async with asker_over(transport) as asker:
            with anyio.fail_after(20):
                stories.append(await scenario(asker))
    assert len(stories[0]) > 30
    assert stories[1] == stories[0]
    assert stories[2] == stories[0]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_watch_has_no_gaps_while_others_write(transport: str) -> None:
    async with asker_over(transport) as asker:
        with anyio.fail_after(20):
            await asker.ask(JOB)
            async with anyio.create_task_group() as group:

                async def submit(number: int) -> None:
                    for part in range(5):
                        await asker.ask(JOB, key=f"{number}-{part}")

                for number in range(4):
                    group.start_soon(submit, number)
                numbers: list[int] = []
                async with asker.watch(WatchStory(after=0)) as pushes:
                    jobs = 0
                    while jobs < 21:
                        push = await anext(pushes)
                        assert isinstance(push, Moved)
                        numbers.append(push.number)
                        jobs += push.kind == "job"
            assert numbers == list(range(1, len(numbers) + 1))


REFUSALS: list[tuple[Any, type[OrchestraError]]] = [
    (GetJob("99"), NotFound),
    (CancelJob("99"), NotFound),
    (SubmitJob("", ()), Malformed),
    (SubmitJob("j", (StageDraft("s", "a", after=("nobody",)),)), Malformed),
    (Keyed(SubmitJob("other", (FRAMES,)), "k"), Conflict),
]


async def test_a_refusal_has_the_same_words_everywhere() -> None:
    told: list[list[tuple[str, str]]] = []
    for transport in TRANSPORTS:
        async with asker_over(transport) as asker:
            await asker.ask(JOB, key="k")
            before = await asker.story(Story())
            words: list[tuple[str, str]] = []
            for asked, kind in REFUSALS:
                with pytest.raises(OrchestraError) as caught:
                    await put(asker, asked)
                assert type(caught.value) is kind
                words.append((str(caught.value), getattr(caught.value, "where", "")))
            assert await asker.story(Story()) == before
            told.append(words)
    assert told[0] == told[1] == told[2]


async def test_malformed_requests_change_nothing() -> None:
    import httpx

    bodies = [b"{", b"[]", b'"x"', b"null", b"\xff", b'{"colour": 1}', b'{"a": NaN}', b"[" * 9_000]
    with served(running) as server:
        async with connect(server.url("ws")) as asker, httpx.AsyncClient() as client:
            before = await asker.answer(GetOverview())
            for operation in OPERATIONS:
                address = server.url("http") + operation.path.replace("{", "").replace("}", "")
                for body in bodies:
                    reply = await client.request(
                        operation.method,
                        address,
                        content=body,
                        headers={"content-type": "application/json"},
                    )
                    told = reply.json()
                    assert reply.status_code == 400, (operation.name, body)
                    assert told["where"], (operation.name, body)
            after = await asker.answer(GetOverview())
            assert await asker.story(Story()) == ()
    assert (after.jobs, after.workers) == (before.jobs, before.workers)
