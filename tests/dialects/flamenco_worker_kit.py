"""A worker of Flamenco in a core of its own, without a socket: its manager is a list of answers, and who runs programs does as told."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx

from orchestra.config import Address, DialectPort
from orchestra.dialects.far_calls import FarCall, FarReply
from orchestra.dialects.flamenco_worker import flamenco_worker
from orchestra.dialects.flamenco_worker_reports import Surroundings
from orchestra.dialects.flamenco_worker_runs import (
    RUNS,
)
from orchestra.ports import LogChunk
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import JoinWorker, Tick
from orchestra.statemachine.queries import ListJobs
from orchestra.statemachine.replies import JobView, Order, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.storage.memory import MemoryStore
from orchestra.transports.asking import put
from orchestra.transports.http import http_app
from orchestra.worker.detect import Shares
from tests.dialects.flamenco_kit import Everybody, StandingClock

MANAGER = "10.0.0.1"
PROGRAMS = {"simple_blender_render": "/usr/bin/blender", "shell": "/bin/sh"}
TASK = {
    "task_id": 22,
    "job_id": 3,
    "type": "simple_blender_render",
    "task_parser": "blender_render",
    "settings": {"frame_start": 5},
    "task_command": '["==command==", "-b", "==jobpath==a.blend", "-o", "==outputpath==/#", "{x}"]',
}


class WorkerDiesError(Exception):
    """What nobody catches, as nobody survives a SIGKILL."""


class FarManager:
    """A manager, and what it was asked; files that it gives and takes."""

    def __init__(self) -> None:
        self.calls: list[FarCall] = []
        self.sent: list[tuple[FarCall, str, str]] = []
        self.cleared: list[str] = []
        self.offered: dict[str, Any] | None = None
        self.answer: Callable[[FarCall], FarReply | None] = lambda _: FarReply(204, b"")
        self.fetched: int | None = 200
        self.kills_at = ""
        """What begins the path of the call during which the worker dies."""

    def _heard(self, call: FarCall) -> None:
        self.calls.append(call)
        if self.kills_at and call.path.startswith(self.kills_at):
            raise WorkerDiesError

    def call(self, call: FarCall) -> FarReply | None:
        self._heard(call)
        if call.path.startswith("/tasks/compiled/0"):
            offered, self.offered = self.offered, None
            body = json.dumps({"options": offered, "files": {}}).encode()
            return FarReply(400, b'""\n') if offered is None else FarReply(200, body)
        return self.answer(call)

    def fetch(self, call: FarCall, folder: str) -> int | None:
        del folder
        self._heard(call)
        return self.fetched if "jobfile" in call.path else 404

    def send(self, call: FarCall, field: str, path: str) -> FarReply | None:
        self.sent.append((call, field, path))
        return self.answer(call)

    def clear(self, folder: str) -> None:
        self.cleared.append(folder)

    def prepare(self, folder: str) -> None:
        del folder

    def reports(self) -> list[dict[str, str]]:
        """What was said of tasks, in order."""
        return [dict(call.form) for call in self.calls if call.method == "PATCH"]


def surroundings(clock: StandingClock, manager: FarManager) -> Surroundings:
    """A machine's, where a process has a number."""
    return Surroundings(
        clock.now_ms,
        manager,
        lambda host: frozenset({host}),
        "machine",
        "Linux 6.1",
        7,
        lambda: Shares((1.0, 2.0, 3.0), 7.0, 90.7, 56.7, "x86_64", 16),
        lambda _: 4_321,
        ("embedded",),
    )


class Machine:
    """A worker in its core, and who runs programs for it."""

    def __init__(self, orchestrator: Orchestrator, port: DialectPort) -> None:
        self.asker = orchestrator.for_principal("test")
        self.clock = StandingClock()
        self.manager = FarManager()
        self._orchestrator, self._port = orchestrator, port
        self._joined: WorkerJoined | None = None
        self.restart()

    def restart(self) -> None:
        """A worker that remembers nothing, over the same core."""
        around = surroundings(self.clock, self.manager)
        self.dialect = flamenco_worker(self._port, around)
        self._app = http_app(self._orchestrator, [self.dialect], Everybody())

    async def asked(
        self, method: str, path: str, ip: str = MANAGER, **words: Any
    ) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._app, client=(ip, 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            return await client.request(method, path, **words)

    async def executes(self, ticket: int, *command: str, ip: str = MANAGER) -> int:
        form = {"task_id": ticket, "task_parser": "blender_render", "settings": "{}"}
        form["task_command"] = json.dumps(command)
        return (await self.asked("POST", "/execute_task", ip, data=form)).status_code

    async def passes(self, seconds: float = 1.0) -> None:
        """Time passes, and the worker does its round."""
        self.clock.ms += round(seconds * 1_000)
        await self.asker.ask(Tick())
        (chore,) = self.dialect.chores
        await put(self.asker, chore.begin())

    async def jobs(self, project: str = RUNS) -> tuple[JobView, ...]:
        return (await self.asker.answer(ListJobs(project=project))).items

    # who runs programs --------------------------------------------------------------------------------------------

    async def orders(self) -> tuple[Order, ...]:
        if self._joined is None:
            join = JoinWorker("w", "session", 10, ("process",), labels=("embedded",))
            self._joined = await self.asker.ask(join)
        beat = Heartbeat(self._joined.worker_id, self._joined.incarnation)
        return (await self.asker.ask(beat)).orders

    async def tells(
        self, happening: Happening, log: bytes = b"", at: int = 0, **words: Any
    ) -> None:
        """The program of the task writes, and comes to something."""
        orders = await self.orders()
        assert self._joined is not None
        assert orders
        who = (self._joined.worker_id, self._joined.incarnation)
        if log:
            await self.asker.append_log(*who, (LogChunk(orders[0].attempt_id, "stdout", at, log),))
        reports = tuple(AttemptReport(order.attempt_id, happening, **words) for order in orders)
        answered = await self.asker.ask(AttemptsReported(*who, reports))
        assert not any(answered.ignored)


@asynccontextmanager
async def machine(protocol: str = "pull", **options: object) -> AsyncGenerator[Machine]:
    """A worker, and everything that runs for it."""
    table: dict[str, object] = {"manager": f"{MANAGER}:7777", "protocol": protocol}
    table |= {"programs": PROGRAMS, "hostname": "render-1", **options}
    if protocol == "pull":
        table.setdefault("folder", "/work")
    port = DialectPort("flamenco-worker", Address("127.0.0.1", 5_000), table)
    orchestrator = Orchestrator(MemoryStore(), clock=StandingClock())
    async with anyio.create_task_group() as group:
        await group.start(orchestrator.run)
        yield Machine(orchestrator, port)
        group.cancel_scope.cancel()
