"""A Flamenco manager over a real orchestrator, without a socket, on a clock that stands still unless it is told to go on."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx

from orchestra.config import DialectPort
from orchestra.dialects.far_calls import CallAll, FarCall, FarReply
from orchestra.dialects.flamenco import Surroundings, flamenco
from orchestra.dialects.flamenco_compilers import Compilers
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import Tick
from orchestra.statemachine.queries import GetJob, ListWorkers
from orchestra.statemachine.replies import JobView, WorkerView
from orchestra.storage.memory import MemoryStore
from orchestra.storage.shelf import FolderShelf
from orchestra.transports.asking import put
from orchestra.transports.auth import LOCAL, Principal
from orchestra.transports.http import http_app

RENDER: Mapping[str, object] = {
    "frame_start": 5,
    "frame_end": 10,
    "filepath": "/farm/shot.blend",
    "output_path": "/farm/out",
}


class StandingClock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.ms


class Everybody:
    """Lets everybody do everything."""

    def authorise(
        self, scope_type: str, route: str, headers: Mapping[str, str], client: str
    ) -> Principal:
        del scope_type, route, headers, client
        return LOCAL


def nobody_answers(calls: Sequence[FarCall]) -> tuple[FarReply | None, ...]:
    """No worker of the push protocol is there."""
    return (None,) * len(calls)


def surroundings(clock: StandingClock, call_all: CallAll = nobody_answers) -> Surroundings:
    """A manager's, on a clock that begins on a Tuesday at 22:13."""

    def weekday_and_minute() -> tuple[int, int]:
        minutes = clock.ms // 60_000
        return (minutes // 1_440 + 3) % 7, minutes % 1_440

    return Surroundings(
        clock.now_ms, weekday_and_minute, lambda at: FolderShelf(Path(at)), call_all
    )


class Yard:
    """The manager, and how much time has passed."""

    def __init__(
        self,
        orchestrator: Orchestrator,
        clock: StandingClock,
        port: DialectPort,
        call_all: CallAll = nobody_answers,
        compilers: Compilers | None = None,
    ) -> None:
        self.orchestrator = orchestrator
        self.clock = clock
        self._port, self._call_all, self._compilers = port, call_all, compilers
        self.asker = orchestrator.for_principal("test")
        self.restart()

    def restart(self, **options: object) -> None:
        """A manager that remembers nothing, over the same core; with other options when there are any."""
        if options:
            self._port = DialectPort("flamenco", None, options)
        around = surroundings(self.clock, self._call_all)
        self.dialect = flamenco(self._port, around, self._compilers)
        self.app = http_app(self.orchestrator, [self.dialect], Everybody())

    async def passes(self, seconds: float, step_s: float = 1.0) -> None:
        """Time passes, in steps after each of which the manager does its chore and the core looks at what is due."""
        for _ in range(round(seconds / step_s)):
            self.clock.ms += round(step_s * 1_000)
            for chore in self.dialect.chores:
                await put(self.asker, chore.begin())
            await self.asker.ask(Tick())

    async def job(self, number: int = 1) -> JobView:
        """A job of the core."""
        return await self.asker.answer(GetJob(str(number)))

    async def workers(self) -> tuple[WorkerView, ...]:
        """The workers of the core."""
        return (await self.asker.answer(ListWorkers())).items

    def at(self, ip: str, hostname: str = "vm", port: int = 7777) -> Far:
        """A worker, or anybody else, at an address."""
        return Far(self, ip, hostname, port)


class Far:
    """Somebody who asks the manager."""

    def __init__(self, yard: Yard, ip: str, hostname: str, port: int) -> None:
        self._yard, self._ip = yard, ip
        self.hostname, self.port = hostname, port

    async def send(self, method: str, path: str, **words: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._yard.app, client=(self._ip, 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://manager") as client:
            return await client.request(method, path, **words)

    async def json(self, method: str, path: str, status: int = 200, **words: Any) -> Any:
        reply = await self.send(method, path, **words)
        assert reply.status_code == status, (reply.status_code, reply.text)
        return reply.json()

    async def register(self, system: str = "Linux 6.1") -> int:
        form = {"port": self.port, "hostname": self.hostname, "system": system}
        return (await self.send("POST", "/workers", data=form)).status_code

    async def poll(self) -> dict[str, Any] | None:
        """Register and ask, as a worker does once a second: the task's options, None when there is none."""
        assert await self.register() == 204
        reply = await self.send("GET", "/tasks/compiled/0")
        assert reply.status_code in (200, 400), reply.text
        return reply.json()["options"] if reply.status_code == 200 else None

    async def has_task(self) -> dict[str, Any]:
        """As `poll`; fails when there is none."""
        task = await self.poll()
        assert task is not None
        return task

    async def says(self, task: Mapping[str, Any], status: str, **fields: Any) -> tuple[int, str]:
        """Report on a task: the answer's status and text."""
        form = {"status": status, "time_cost": 1, "job_id": task["job_id"], **fields}
        reply = await self.send("PATCH", f"/tasks/{task['task_id']}", data=form)
        return reply.status_code, reply.text

    async def posts(
        self, number: int = 12, kind: str = "simple_blender_render", **settings: Any
    ) -> Any:
        """Post a task."""
        text = json.dumps(settings if kind == "print_string" else {**RENDER, **settings})
        form = {
            "task_id": number,
            "priority": 10,
            "type": kind,
            "settings": text,
            "parser": "blender_render",
        }
        return await self.json("POST", "/tasks", 202, data=form)


@asynccontextmanager
async def open_yard(
    call_all: CallAll = nobody_answers, *, compilers: Compilers | None = None, **options: object
) -> AsyncGenerator[Yard]:
    """A yard, and everything that runs for it."""
    clock = StandingClock()
    store = MemoryStore()
    orchestrator = Orchestrator(store, clock=clock)
    async with anyio.create_task_group() as group:
        await group.start(orchestrator.run)
        port = DialectPort("flamenco", None, options)
        yield Yard(orchestrator, clock, port, call_all, compilers)
        group.cancel_scope.cancel()


GONE = (403, '"Task Cancelled"')
"""What a worker is told of a task that is not its own (any more)."""
