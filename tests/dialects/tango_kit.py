"""A member container over a real orchestrator, without a socket: its clock, its worker and its manager do what the test says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx

from orchestra import App
from orchestra.dialects.far_calls import FarCall, FarReply
from orchestra.dialects.tango import Member, member
from orchestra.dialects.tango_runs import RUNS
from orchestra.ports import Asker, Moved, Store, Story
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import JoinWorker, Tick
from orchestra.statemachine.queries import ListJobs
from orchestra.statemachine.records import Rung
from orchestra.statemachine.replies import JobView, Order, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.storage.memory import MemoryStore
from orchestra.transports.asking import put
from orchestra.transports.http import http_app
from tests.dialects.flamenco_kit import Everybody, StandingClock

IDS = "user_id=kyunghee&project_id=1"


def generator(**options: Any) -> Member:
    """A member that generates code."""
    app = App()

    @app.task
    def generate(user_id: str, project_id: str) -> str:
        return f"{user_id}/{project_id}"

    return member(app, container_id="code_gen", **options)


class Manager:
    """A Project Manager: what was reported to it, and how it answers."""

    def __init__(self) -> None:
        self.calls: list[FarCall] = []
        self.answer: Callable[[FarCall], FarReply | None] = lambda _: FarReply(
            200, b'{"status": 200}'
        )

    def call_all(self, calls: Sequence[FarCall]) -> tuple[FarReply | None, ...]:
        self.calls.extend(calls)
        return tuple(self.answer(call) for call in calls)


class Container:
    """A member in its core, and the worker in it."""

    def __init__(self, orchestrator: Orchestrator, clock: StandingClock, served: Member) -> None:
        self.asker = orchestrator.for_principal("test")
        self.clock = clock
        self.manager = Manager()
        self._orchestrator = orchestrator
        self._member = served
        self._joined: WorkerJoined | None = None
        self.restart()

    def restart(self) -> None:
        """A member that remembers nothing, over the same core."""
        self.dialect = self._member.dialect(self.clock.now_ms, self.manager.call_all)
        self._app = http_app(self._orchestrator, [self.dialect], Everybody())

    def asker_of(self, principal: str) -> Asker:
        """The core, asked by somebody else: whose keys are his own."""
        return self._orchestrator.for_principal(principal)

    async def send(self, target: str, **words: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._app, client=("10.0.0.7", 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://member") as client:
            return await client.get(target, **words)

    async def says(self, target: str) -> tuple[int, str]:
        reply = await self.send(target)
        assert reply.status_code == 204 or reply.headers["content-type"] == "text/plain"
        return reply.status_code, reply.text

    async def word(self, ids: str = IDS) -> str:
        """What it says of a run."""
        return (await self.says(f"/status_request?{ids}"))[1]

    async def passes(self, seconds: float) -> None:
        """Time passes, and the member does its chores."""
        self.clock.ms += round(seconds * 1_000)
        await self.asker.ask(Tick())
        for chore in self.dialect.chores:
            await put(self.asker, chore.begin())

    # the worker in it ---------------------------------------------------------------------------------------------

    async def orders(self) -> list[Order]:
        """What the worker should do now."""
        if self._joined is None:
            join = JoinWorker("w", "session", 10, ("generate", "process"))
            self._joined = await self.asker.ask(join)
        beat = Heartbeat(self._joined.worker_id, self._joined.incarnation)
        return list((await self.asker.ask(beat)).orders)

    async def tells(self, happening: Happening, **fields: Any) -> None:
        """The worker tells of all that it has been given."""
        orders = await self.orders()
        assert orders
        assert self._joined is not None
        reports = tuple(AttemptReport(order.attempt_id, happening, **fields) for order in orders)
        report = AttemptsReported(self._joined.worker_id, self._joined.incarnation, reports)
        answered = await self.asker.ask(report)
        assert not any(answered.ignored), answered

    async def is_stopping(self) -> bool:
        """Whether the worker was told to stop something."""
        return any(order.rung is not Rung.NONE for order in await self.orders())

    async def story(self) -> list[Moved]:
        return list(await self.asker.story(Story(0, 500)))


@asynccontextmanager
async def open_container(
    served: Member | None = None, store: Store | None = None
) -> AsyncGenerator[Container]:
    """A container, and everything that runs for it."""
    clock = StandingClock()
    orchestrator = Orchestrator(store or MemoryStore(), clock=clock)
    async with anyio.create_task_group() as group:
        await group.start(orchestrator.run)
        yield Container(orchestrator, clock, served or generator(manager="projectmanager:8085"))
        group.cancel_scope.cancel()


async def jobs(container: Container, project: str = RUNS) -> list[JobView]:
    """The jobs of a project of the container's core."""
    return list((await container.asker.answer(ListJobs(project=project))).items)
