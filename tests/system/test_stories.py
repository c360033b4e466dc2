"""One scenario over both stores and all three transports: the same story each time, and another one is told apart."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import attrs
import pytest

import orchestra
from orchestra.client import Client
from orchestra.compose import engines_for, open_orchestrator
from orchestra.config import Address, Config
from orchestra.dialects.native import native_dialect
from orchestra.ports import Asker, Moved, Story
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.testing.stories import canonical, differences
from orchestra.transports.auth import open_gate
from orchestra.transports.connect import connect
from orchestra.transports.door import Door
from orchestra.transports.http import http_app
from orchestra.transports.memory import MemoryTransport
from orchestra.transports.policy import policy_for
from orchestra.transports.serve import serve
from orchestra.worker.agent import Agent

pytestmark = [pytest.mark.anyio, pytest.mark.system]

BOUND_S = 20.0
Dial = Callable[[], AbstractAsyncContextManager[Asker]]


@asynccontextmanager
async def reached(orchestrator: Orchestrator, transport: str) -> AsyncGenerator[Dial]:
    """How to reach the orchestrator over the transport."""
    if transport == "memory":
        yield lambda: MemoryTransport(orchestrator)
        return
    config = Config(listen=Address("127.0.0.1", 0))
    dialect = native_dialect()
    gate = open_gate(config, policy_for([dialect]))
    app = http_app(orchestrator, [dialect], policy=gate.policy)
    up = anyio.Event()
    found: list[Address] = []

    def ready(address: Address) -> None:
        found.append(address)
        up.set()

    async def run() -> None:
        await serve(Door(app, gate), config, ready=ready, stopping=app.close_streams)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        with anyio.fail_after(BOUND_S):
            await up.wait()
        yield lambda: connect(f"{transport}://127.0.0.1:{found[0].port}")
        group.cancel_scope.cancel()


class Scenario:
    """
    Jobs that fan out, join, fail, are tried again, are skipped and are cancelled.

    Each attempt goes on when its running was seen in the story: else it would depend on the machine's pace whether an attempt is
    reported as running before its end.
    """

    def __init__(self, failures: int = 1) -> None:
        self.app = app = orchestra.App()
        self._seen: dict[tuple[str, int], anyio.Event] = {}

        @app.task
        async def split(ctx: orchestra.Context) -> list[int]:
            await self._running(ctx)
            return [1, 2, 3]

        @app.task
        async def double(ctx: orchestra.Context, number: int) -> int:
            await self._running(ctx)
            return 2 * number

        @app.task
        async def add(ctx: orchestra.Context, numbers: list[int]) -> int:
            await self._running(ctx)
            return sum(numbers)

        @app.task(retries=2, backoff="10ms")
        async def unlucky(ctx: orchestra.Context) -> str:
            await self._running(ctx)
            if ctx.attempt <= failures:
                raise RuntimeError("out of luck")
            return "lucky"

        @app.task
        async def broken(ctx: orchestra.Context) -> None:
            await self._running(ctx)
            raise RuntimeError("broken for good")

        @app.task(grace="5s")
        async def endless(ctx: orchestra.Context, number: int) -> None:
            await self._running(ctx)
            await ctx.sleep(3600)

        self.split, self.double, self.add = split, double, add
        self.unlucky, self.broken, self.endless = unlucky, broken, endless

    def _event(self, task_id: str, attempt: int) -> anyio.Event:
        return self._seen.setdefault((task_id, attempt), anyio.Event())

    async def _running(self, ctx: orchestra.Context) -> None:
        with anyio.fail_after(BOUND_S):
            await self._event(ctx.task_id, ctx.attempt).wait()

    async def watch(self, client: Client) -> None:
        async for moved in client.events():
            if moved.kind == "attempt" and moved.target == "running":
                attempt = await client.task(moved.id[:31])
                self._event(attempt.id, len(attempt.attempts)).set()

    async def play(self, client: Client) -> None:
        """Submit, wait, cancel."""
        parts = self.double.map(range(4))
        parts = parts.after(self.split.call())
        good = await client.submit(self.add.call(parts), name="good", key="good")
        assert await good.results() == [12]
        unlucky = await client.submit(self.unlucky.call(), name="unlucky")
        assert await unlucky.result() == "lucky"
        bad = await client.submit(self.add.call([self.broken.call()]), name="bad")
        assert (await bad.wait()).status == "failed"
        stopped = await client.submit(self.endless.map(range(3)), name="stopped")
        first = (await stopped.tasks())[0].id
        await self._event(first, 1).wait()
        await stopped.cancel("enough of it")
        assert (await stopped.wait()).status == "cancelled"


async def whole_story(client: Client) -> list[Moved]:
    found: list[Moved] = []
    while page := await client.asker.story(Story(found[-1].number if found else 0)):
        found.extend(page)
    return found


async def story_of(store: str, transport: str, scenario: Scenario) -> list[Moved]:
    """Play the scenario with one worker of one slot."""
    async with (
        open_orchestrator(store or None) as orchestrator,
        reached(orchestrator, transport) as dial,
        dial() as asker,
        anyio.create_task_group() as group,
    ):
        client = Client(asker)
        engines = engines_for(scenario.app.tasks, None)
        agent = Agent(dial, engines, name="w", slots=1, capacity=(), host={}, vitals=None)
        with anyio.fail_after(BOUND_S):
            await group.start(agent.run)
            group.start_soon(scenario.watch, client)
            await scenario.play(client)
            story = await whole_story(client)
            await agent.drain()
        group.cancel_scope.cancel()
    return story


@pytest.fixture(scope="module")
async def expected() -> list[Moved]:
    """As it goes in memory."""
    return await story_of("", "memory", Scenario())


@pytest.mark.parametrize("transport", ["memory", "http", "ws"])
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_the_story_is_the_same_everywhere(
    store: str, transport: str, tmp_path: Path, expected: list[Moved]
) -> None:
    path = str(tmp_path / "farm.db") if store == "sqlite" else ""
    story = await story_of(path, transport, Scenario())
    assert differences(expected, story) == []
    assert canonical(expected) == canonical(story)


async def test_another_story_is_told_apart(expected: list[Moved]) -> None:
    story = await story_of("", "memory", Scenario(failures=2))
    found = differences(expected, story)
    assert {each.partition(":")[0] for each in found} == {
        "job 2 task 1",
        "job 2 task 1 attempt 2",
        "job 2 task 1 attempt 3",
    }


async def test_one_changed_move_is_told_apart(expected: list[Moved]) -> None:
    for place, moved in enumerate(expected):
        changed = attrs.evolve(moved, target="elsewhere")
        assert differences(expected, [*expected[:place], changed, *expected[place + 1 :]]) != []
        assert differences(expected, [*expected[:place], *expected[place + 1 :]]) != []


async def test_a_story_tells_all_that_the_scenario_holds(expected: list[Moved]) -> None:
    targets = {(moved.kind, moved.target) for moved in expected}
    wanted = ("completed", "failed", "skipped", "cancelled", "backoff", "cancelling", "waiting")
    assert {("task", target) for target in wanted} <= targets
    assert {("job", target) for target in ("completed", "failed", "cancelled")} <= targets
