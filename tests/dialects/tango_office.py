"""A Project Manager over a real core, and a worker that stands for all its members."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx

from orchestra.config import DialectPort
from orchestra.dialects.tango_jobs import Ids
from orchestra.dialects.tango_manager import manager
from orchestra.dialects.tango_options import read_options
from orchestra.dialects.wire import Dialect
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import JoinWorker, Reconfigure
from orchestra.statemachine.replies import Order, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.storage.memory import MemoryStore
from orchestra.transports.http import http_app
from tests.dialects.flamenco_kit import Everybody, StandingClock

STAGES = ("bms", "autonn", "code_gen", "ondevice_deploy")
MEMBERS: Mapping[str, object] = {
    **{name: f"{name.replace('_', '-')}:8{n}00" for n, name in enumerate(STAGES)},
    "ondevice_deploy": {"address": "ondevice:8891", "aliases": ["imagedeploy"]},
    "vis2code": "viz2code:8091",
}
TABLE: Mapping[str, object] = {"members": MEMBERS, "workflow": list(STAGES)}
IDS = "user_id=kyunghee&project_id=1"
LEASE_MS = 3_600_000
FORM = {"content-type": "application/x-www-form-urlencoded"}


def made(
    table: Mapping[str, object] = TABLE, nudged: list[tuple[str, Ids]] | None = None
) -> Dialect:
    known: list[tuple[str, Ids]] = [] if nudged is None else nudged

    def nudge(container_id: str, ids: Ids) -> bool:
        known.append((container_id, ids))
        return True

    return manager(read_options(DialectPort("tango", None, dict(table))), nudge)


class Office:
    """A Project Manager, and a worker that stands for all its members."""

    def __init__(
        self, orchestrator: Orchestrator, clock: StandingClock, table: Mapping[str, object]
    ) -> None:
        self.clock = clock
        self.asker = orchestrator.for_principal("test")
        self.nudged: list[tuple[str, Ids]] = []
        self._orchestrator, self._table = orchestrator, table
        self._joined: WorkerJoined | None = None
        self.restart()

    def restart(self) -> None:
        """A manager that remembers nothing, over the same core."""
        self.dialect = made(self._table, self.nudged)
        self._app = http_app(self._orchestrator, [self.dialect], Everybody())

    async def send(self, method: str, target: str, **words: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._app, client=("10.0.0.7", 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://0.0.0.0:8085") as client:
            return await client.request(method, target, **words)

    async def api(self, call: str, form: str = IDS) -> dict[str, Any]:
        reply = await self.send("POST", f"/api/{call}", content=form, headers=FORM)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def start(self, container: str = "bms", ids: str = IDS) -> dict[str, Any]:
        return await self.api("container_start", f"{ids}&container_id={container}")

    async def report(self, query: str, form: str = "/status_report?") -> tuple[int, str]:
        reply = await self.send("GET", f"{form}{query}")
        return reply.status_code, reply.text

    async def words(self, ids: str = IDS) -> dict[str, str]:
        return dict((await self.api("status_request", ids))["containers"])

    async def set_workflow(self, **fields: object) -> httpx.Response:
        body = json.dumps(fields).encode()
        headers = {"content-type": "application/json"}
        return await self.send("POST", "/api/set_workflow", content=body, headers=headers)

    async def orders(self) -> list[Order]:
        if self._joined is None:
            labels = tuple(f"member:{name}" for name in MEMBERS)
            join = JoinWorker("members", "session", 20, ("member",), labels=labels)
            self._joined = await self.asker.ask(join)
        beat = Heartbeat(self._joined.worker_id, self._joined.incarnation)
        return list((await self.asker.ask(beat)).orders)

    async def tells(self, container: str, happening: Happening, **fields: Any) -> None:
        """The engine saw this in a member."""
        (order,) = [order for order in await self.orders() if order.stage == container]
        assert self._joined is not None
        told = AttemptReport(order.attempt_id, happening, **fields)
        report = AttemptsReported(self._joined.worker_id, self._joined.incarnation, (told,))
        assert not any((await self.asker.ask(report)).ignored)

    async def done(self, container: str) -> None:
        await self.tells(container, Happening.RUNNING)
        await self.tells(container, Happening.COMPLETED, result=b"null")


@asynccontextmanager
async def office(table: Mapping[str, object] = TABLE) -> AsyncGenerator[Office]:
    clock = StandingClock()
    orchestrator = Orchestrator(MemoryStore(), clock=clock)
    async with anyio.create_task_group() as group:
        await group.start(orchestrator.run)
        # The worker here has no agent that beats, and a busy machine may take its time: nothing of that is lost.
        await orchestrator.for_principal("test").ask(Reconfigure(lease_ms=LEASE_MS))
        yield Office(orchestrator, clock, table)
        group.cancel_scope.cancel()
