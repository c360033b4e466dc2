"""The same agent over HTTP and over a websocket, through a restart of the server on its port."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest

from orchestra.config import Address, Config
from orchestra.dialects.native import native_dialect
from orchestra.ports import Asker, Ended, Log
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import StageDraft, SubmitJob
from orchestra.statemachine.queries import GetJob
from orchestra.statemachine.records import Span
from orchestra.storage.memory import MemoryStore
from orchestra.transports.auth import open_gate
from orchestra.transports.connect import connect
from orchestra.transports.door import Door
from orchestra.transports.http import http_app
from orchestra.transports.policy import policy_for
from orchestra.transports.serve import serve
from orchestra.worker.agent import Agent
from tests.worker.kit import BOUND_S, ScriptedEngine, until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


@asynccontextmanager
async def served(store: MemoryStore, port: int = 0) -> AsyncGenerator[tuple[Orchestrator, Address]]:
    """An orchestrator behind a real socket until the end of the block, which cuts every connection."""
    config = Config(listen=Address("127.0.0.1", port))
    dialect = native_dialect()
    gate = open_gate(config, policy_for([dialect]))
    up = anyio.Event()
    found: list[Address] = []

    def ready(address: Address) -> None:
        found.append(address)
        up.set()

    orchestrator = Orchestrator(store)
    async with anyio.create_task_group() as group:
        await group.start(orchestrator.run)
        app = http_app(orchestrator, [dialect], policy=gate.policy)

        async def run() -> None:
            await serve(Door(app, gate), config, ready=ready, stopping=app.close_streams)

        group.start_soon(run)
        with anyio.fail_after(BOUND_S):
            await up.wait()
        yield orchestrator, found[0]
        group.cancel_scope.cancel()


async def completed(orchestrator: Orchestrator, job_id: str) -> None:
    with anyio.fail_after(BOUND_S):
        while (await orchestrator.answer(GetJob(job_id))).status != "completed":
            await anyio.sleep(0.01)


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_work_with_output_and_references_survives_a_restart(scheme: str) -> None:
    engine = ScriptedEngine()
    store = MemoryStore()
    port = 0

    def dial() -> AbstractAsyncContextManager[Asker]:
        return connect(f"{scheme}://127.0.0.1:{port}")

    async with anyio.create_task_group() as group:
        async with served(store) as (orchestrator, address):
            port = address.port
            agent = Agent(dial, [engine], name="w", slots=4, capacity=(), host={}, vitals=None)
            with anyio.fail_after(BOUND_S):
                await group.start(agent.run)
            stages = (
                StageDraft("many", "work", over=Span(0, 3)),
                StageDraft("one", "work", b'{"all": {"$results": "many"}}', after=("many",)),
            )
            job_id = (await orchestrator.ask(SubmitJob("job", stages))).job_id
            await until(lambda: len(engine.running) == 3)
            first = next(iter(engine.running))
            await engine.running[first].output(first, "stdout", b"before\n")
        # The server is gone: work goes on, and so does what it tells.
        await engine.running[first].output(first, "stdout", b"meanwhile\n")
        sinks = dict(engine.running)
        await engine.end(first, Ended("completed", result=b"0"))
        async with served(store, port) as (orchestrator, _):
            for attempt_id in tuple(sinks)[1:]:
                await engine.end(attempt_id, Ended("completed", result=b"1"))
            await until(lambda: len(engine.started) == 4)
            assert engine.started[-1].template == b'{"all": [0,1,1]}'
            await engine.complete()
            await completed(orchestrator, job_id)
            read = await orchestrator.log(Log(first, "stdout"))
            assert read.data == b"before\nmeanwhile\n"
            assert engine.stops == []
            with anyio.fail_after(BOUND_S):
                await agent.drain()
        group.cancel_scope.cancel()
