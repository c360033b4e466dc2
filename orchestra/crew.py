"""
Workers in this process that belong to a dialect: one for each member container of TANGO.

Each is an ordinary worker over the one core, with a place for each run that its container may have. Its tasks wait while the container
does not answer: the worker is paused then, with the reason, which `why` tells.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import attrs

from orchestra.client import Client
from orchestra.dialect_ports import Staff
from orchestra.engines.member import MemberEngine
from orchestra.errors import OrchestraError
from orchestra.ports import Asker
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import PauseWorker, ResumeWorker
from orchestra.statemachine.queries import GetTask
from orchestra.statemachine.records import Cause, Rung
from orchestra.statemachine.replies import Order
from orchestra.transports.far_line import HttpLine
from orchestra.transports.memory import MemoryTransport
from orchestra.worker.agent import Agent

LOG = logging.getLogger("orchestra.crew")

HAND_BACK_S = 3.0
"""At a stop of the server so long is waited until its runs are handed back, which takes no call to anybody."""

QUIET_HEARTBEATS = 2
"""A container is away after so many questions without an answer in a row: one may be lost."""


@attrs.define(slots=True)
class _Watched:
    agent: Agent
    engine: MemberEngine
    paused: bool = False
    quiet: int = 0


@asynccontextmanager
async def employed(
    orchestrator: Orchestrator, staff: Sequence[Staff], labels: tuple[str, ...]
) -> AsyncGenerator[None]:
    """
    The workers of the dialects that have some, joined when the context is entered.

    Leaving it hands back what runs: it goes on in its container, and the next server finds it there.

    Args:
        labels: Given to each, beside its own.
    """
    if not any(each.places for each in staff):
        yield
        return
    asker = orchestrator.for_principal("tango")
    async with AsyncExitStack() as stack:
        watched: list[_Watched] = []
        for each in staff:
            for place in each.places:
                line = HttpLine(place.host, place.port, place.headers, place.call_ms)
                await stack.enter_async_context(line)
                engine = MemberEngine(place, line, _ran_before(asker))
                each.engines[place.container_id] = engine
                agent = Agent(
                    lambda: MemoryTransport(orchestrator, principal="local"),
                    [engine],
                    name=f"tango-{place.container_id}",
                    slots=place.slots,
                    labels=(place.label, *labels),
                    capacity=(),
                    host={"member": place.shown},
                    session=secrets.token_hex(8),
                    # What runs there does not end with a lease of ours.
                    fence="patient",
                    vitals=None,
                )
                watched.append(_Watched(agent, engine))
        async with anyio.create_task_group() as group:
            for worker in watched:
                await group.start(worker.agent.run)
                await _resumed(asker, worker)
                group.start_soon(_watch, asker, worker)
            try:
                yield
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(HAND_BACK_S):
                    async with anyio.create_task_group() as leaving:
                        for worker in watched:
                            worker.engine.hand_back()
                            leaving.start_soon(worker.agent.drain, 0)
                group.cancel_scope.cancel()


def _ran_before(asker: Asker) -> Callable[[Order], Awaitable[bool]]:
    async def ran_before(order: Order) -> bool:
        try:
            task = await asker.answer(GetTask(order.task_id))
        except OrchestraError as error:
            LOG.warning("what ran before %s is not known: %s", order.attempt_id, error)
            return False
        for attempt in sorted(task.attempts, key=lambda each: -each.number):
            if attempt.number >= order.number:
                continue
            handed_back = attempt.cause is Cause.CANCELLED and attempt.rung is Rung.NONE
            if not handed_back and attempt.cause not in (Cause.NONE, Cause.LOST, Cause.REJOINED):
                # It failed, was cancelled or ran too long, and was seen to its end: what is there now is of a later one.
                return False
            if attempt.started_at_ms is not None:
                return True
        return False

    return ran_before


async def _watch(asker: Asker, worker: _Watched) -> None:
    """Ask the container whether it answers, as long as nothing runs there; pause its worker while it does not."""
    while True:
        if not worker.engine.at_work() or worker.paused:
            problem = await worker.engine.problem()
            worker.quiet = worker.quiet + 1 if problem else 0
            try:
                if problem and not worker.paused and worker.quiet >= QUIET_HEARTBEATS:
                    await _pause(asker, worker, problem)
                elif not problem and worker.paused:
                    await _resumed(asker, worker)
                    LOG.info("%s answers again", worker.engine.place.shown)
            except OrchestraError as error:
                LOG.warning("%s: %s", worker.engine.place.shown, error)
        await anyio.sleep(worker.engine.place.heartbeat_ms / 1_000)


async def _pause(asker: Asker, worker: _Watched, problem: str) -> None:
    shown = f"{worker.engine.place.shown}: {problem}"
    LOG.warning("%s; its worker waits", shown)
    await asker.ask(PauseWorker(worker.agent.worker_id, shown))
    worker.paused = True


async def _resumed(asker: Asker, worker: _Watched) -> None:
    """It takes work, unless a person paused it: that stays."""
    shown = f"{worker.engine.place.shown}: "
    for view in await Client(asker).workers():
        if (
            view.id == worker.agent.worker_id
            and view.paused
            and view.pause_reason.startswith(shown)
        ):
            await asker.ask(ResumeWorker(view.id))
    worker.paused = False
