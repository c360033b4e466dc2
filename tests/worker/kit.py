"""What the worker's tests share: orders, a scripted engine, and a link to a real orchestrator that can be made to fail."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Self, TypeVar, cast

import anyio
import attrs
from anyio.abc import TaskGroup

from orchestra.errors import PeerClosed
from orchestra.ports import AttemptSink, Ended, LogChunk, Moved, Push, Story, Watch
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import (
    Command,
    JoinWorker,
    Reconfigure,
    StageDraft,
    SubmitJob,
)
from orchestra.statemachine.queries import GetJob, GetTask, Query
from orchestra.statemachine.records import Rung, Span
from orchestra.statemachine.replies import HeartbeatAnswered, JobView, Order, TaskView
from orchestra.statemachine.reports import AttemptsReported, Heartbeat
from orchestra.storage.memory import MemoryStore
from orchestra.worker.agent import Agent

R = TypeVar("R")

BOUND_S = 20.0
"""No condition in these tests takes a second; a shared machine may."""


def order(attempt_id: str, rung: Rung = Rung.NONE, *, template: bytes = b"{}") -> Order:
    """An order for an attempt."""
    return Order(
        attempt_id=attempt_id,
        task_id=f"task-of-{attempt_id}",
        job_id="job",
        job_number=1,
        job_name="job",
        stage="stage",
        app="work",
        template=template,
        item=b"",
        position=1,
        offset=0,
        number=1,
        rung=rung,
    )


def introduction(name: str = "w") -> JoinWorker:
    """How a worker joins."""
    return JoinWorker(name=name, session="s", slots=4, apps=("work",))


async def until(met: Callable[[], bool]) -> None:
    """Wait for a condition, at most ``BOUND_S``."""
    with anyio.fail_after(BOUND_S):
        while not met():
            await anyio.sleep(0.002)


class ScriptedEngine:
    """
    An engine whose attempts end when the test says so, or at once with ``instant``.

    ``obeys`` is the lowest rung at which an attempt stops.
    """

    apps: tuple[str, ...] = ("work",)

    def __init__(self, *, instant: Ended | None = None, obeys: Rung = Rung.ASKED) -> None:
        self.started: list[Order] = []
        self.stops: list[tuple[str, str, float]] = []
        self.lease_until_s = 0.0
        self.running: dict[str, AttemptSink] = {}
        self._instant = instant
        self._obeys = obeys
        self._group: TaskGroup

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.running.clear()
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)

    async def start(self, order: Order, sink: AttemptSink) -> None:
        if order.attempt_id in self.running:
            return
        self.started.append(order)
        self.running[order.attempt_id] = sink
        await sink.running(order.attempt_id)
        if self._instant is not None:
            await self.end(order.attempt_id, self._instant)

    async def stop(self, attempt_id: str, rung: str) -> None:
        self.stops.append((attempt_id, rung, time.monotonic()))
        ladder = ["", "asked", "term", "kill", "unconfirmed"]
        if attempt_id in self.running and ladder.index(rung) >= ladder.index(self._obeys):
            self._group.start_soon(self.end, attempt_id, Ended("stopped"))

    async def query(self) -> tuple[str, ...]:
        return tuple(self.running)

    def extend(self, until_s: float) -> None:
        self.lease_until_s = until_s

    async def end(self, attempt_id: str, ended: Ended) -> None:
        """The attempt is over."""
        sink = self.running.pop(attempt_id, None)
        if sink is not None:
            await sink.ended(attempt_id, ended)

    async def complete(self, result: bytes = b"1") -> None:
        """Everything that runs completes."""
        for attempt_id in tuple(self.running):
            await self.end(attempt_id, Ended("completed", result=result))


@attrs.define(eq=False)
class Link:
    """
    The way from agents to an orchestrator, with faults to switch on.

    ``up``: whether connecting works. ``hush`` swallows asks and pushes without an end of the connection: a partition.
    ``lose_pushes`` swallows pushes only. ``lose_answers`` carries out that many reports or pieces of output, and then loses the answer.
    ``strip_orders`` takes the repairs out of answers to heartbeats. ``hold_joins`` keeps the answers to joins back until it is set.
    """

    orchestrator: Orchestrator
    up: bool = True
    hush: bool = False
    lose_pushes: bool = False
    lose_answers: int = 0
    strip_orders: bool = False
    hold_joins: anyio.Event | None = None
    connections: int = 0
    asked: list[Command[Any]] = attrs.field(factory=list[Command[Any]])
    renewed_s: float = 0.0
    """When the last answered join or beat was sent."""
    _scopes: set[anyio.CancelScope] = attrs.field(factory=set[anyio.CancelScope])

    def cut(self) -> None:
        """End every connection, and refuse new ones."""
        self.up = False
        for scope in tuple(self._scopes):
            scope.cancel()

    def of(self, kind: type[R]) -> list[R]:
        """What was asked, of one kind."""
        return [each for each in self.asked if isinstance(each, kind)]

    def connect(self) -> Any:
        """As `Agent` wants it."""
        return self._connect()

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[LinkedAsker]:
        if not self.up:
            raise PeerClosed("connection refused")
        self.connections += 1
        yield LinkedAsker(self, self.orchestrator)

    async def through(self, call: Callable[[], Any]) -> Any:
        """Make a call that the link can interrupt."""
        if not self.up:
            raise PeerClosed("the connection was cut")
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if self.hush:
                    await anyio.sleep_forever()
                return await call()
            finally:
                self._scopes.discard(scope)
        raise PeerClosed("the connection was cut")

    def lose_an_answer(self) -> None:
        """Lose it while there are some to lose."""
        if self.lose_answers:
            self.lose_answers -= 1
            raise PeerClosed("the answer was lost")


class LinkedAsker:
    """An `Asker` over a `Link`."""

    def __init__(self, link: Link, orchestrator: Orchestrator) -> None:
        self._link = link
        self._orchestrator = orchestrator

    async def ask(self, command: Command[R], *, key: str = "") -> R:
        self._link.asked.append(command)
        sent_s = time.monotonic()
        reply = await self._link.through(lambda: self._orchestrator.ask(command, key=key))
        if isinstance(command, Heartbeat | JoinWorker):
            self._link.renewed_s = sent_s
        if isinstance(command, JoinWorker) and self._link.hold_joins is not None:
            await self._link.hold_joins.wait()
        if isinstance(command, AttemptsReported):
            self._link.lose_an_answer()
        if isinstance(reply, HeartbeatAnswered) and self._link.strip_orders:
            return cast("R", attrs.evolve(reply, orders=(), foreign=()))
        return cast("R", reply)

    async def answer(self, query: Query[R]) -> R:
        return await self._link.through(lambda: self._orchestrator.answer(query))

    async def story(self, query: Story) -> tuple[Moved, ...]:
        return await self._link.through(lambda: self._orchestrator.story(query))

    async def log(self, query: Any) -> Any:
        return await self._link.through(lambda: self._orchestrator.log(query))

    async def append_log(
        self, worker_id: str, incarnation: int, chunks: Sequence[LogChunk]
    ) -> None:
        await self._link.through(
            lambda: self._orchestrator.append_log(worker_id, incarnation, chunks)
        )
        self._link.lose_an_answer()

    async def backup(self, target: str) -> None:
        await self._orchestrator.backup(target)

    def watch(self, watch: Watch) -> Any:
        return self._watch(watch)

    @asynccontextmanager
    async def _watch(self, watch: Watch) -> AsyncGenerator[AsyncIterator[Push]]:
        async with self._orchestrator.watch(watch) as pushes:
            yield self._pushes(pushes)

    async def _pushes(self, pushes: AsyncIterator[Push]) -> AsyncIterator[Push]:
        while True:
            try:
                push = await self._link.through(lambda: anext(pushes, None))
            except PeerClosed:
                return
            if push is None:
                return
            if not (self._link.lose_pushes or self._link.hush):
                yield push


class Farm:
    """A real orchestrator on a memory store, a link to it, and whatever agents a test starts."""

    def __init__(self, group: TaskGroup) -> None:
        self.group = group
        self.store = MemoryStore()
        self.orchestrator = Orchestrator(self.store)
        self.link = Link(self.orchestrator)
        self._scope = anyio.CancelScope()

    async def serve(self) -> None:
        """Run the orchestrator."""

        async def run(*, task_status: Any) -> None:
            with self._scope:
                await self.orchestrator.run(task_status=task_status)

        await self.group.start(run)

    async def stop_serving(self) -> None:
        """End the orchestrator; what is stored stays."""
        self.link.cut()
        self._scope.cancel()

    async def serve_again(self, store: MemoryStore | None = None) -> None:
        """A new orchestrator on the same store (or on another)."""
        self.store = store or self.store
        self.orchestrator = Orchestrator(self.store)
        self._scope = anyio.CancelScope()
        await self.serve()
        self.link.orchestrator = self.orchestrator
        self.link.up = True

    def agent(self, engine: ScriptedEngine, name: str = "w", **options: Any) -> Agent:
        """An agent over the link."""
        settings: dict[str, Any] = {"slots": 4, "capacity": (), "host": {}, "vitals": None}
        connect = options.pop("connect", self.link.connect)
        return Agent(connect, [engine], name=name, **{**settings, **options})

    def around(self) -> Any:
        """A way to the orchestrator that no fault of the link touches."""
        return nullcontext(self.orchestrator)

    async def join(self, engine: ScriptedEngine, name: str = "w", **options: Any) -> Agent:
        """Start an agent, and wait until it has joined."""
        agent = self.agent(engine, name, **options)
        with anyio.fail_after(BOUND_S):
            await self.group.start(agent.run)
        return agent

    async def submit(self, *stages: StageDraft, tasks: int = 1) -> str:
        """A job's id."""
        drafts = stages or (StageDraft("stage", "work", over=Span(0, tasks)),)
        return (await self.orchestrator.ask(SubmitJob("job", drafts))).job_id

    async def job(self, job_id: str) -> JobView:
        return await self.orchestrator.answer(GetJob(job_id))

    async def task(self, job_id: str, position: int = 1) -> TaskView:
        number = (await self.job(job_id)).number
        return await self.orchestrator.answer(GetTask(f"{number}.{position}"))

    async def until_job(self, job_id: str, status: str = "completed") -> JobView:
        """Wait for a job's status."""
        with anyio.fail_after(BOUND_S):
            while True:
                view = await self.job(job_id)
                if view.status == status:
                    return view
                await anyio.sleep(0.002)

    async def pace(self, lease_ms: int, heartbeat_ms: int) -> None:
        """Other leases and beats than the defaults."""
        await self.orchestrator.ask(Reconfigure(lease_ms=lease_ms, heartbeat_ms=heartbeat_ms))

    async def moves(self, kind: str, verb: str) -> list[Moved]:
        """All moves of one kind in the story."""
        story = await self.orchestrator.story(Story())
        return [moved for moved in story if moved.kind == kind and moved.verb == verb]


@asynccontextmanager
async def farm() -> AsyncGenerator[Farm]:
    """A farm that is served until the end of the block."""
    async with anyio.create_task_group() as group:
        made = Farm(group)
        await made.serve()
        yield made
        group.cancel_scope.cancel()
