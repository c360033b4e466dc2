"""The one place, besides the command line, that names concrete stores, engines and transports and puts them together."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio

from orchestra.calls import TaskFunction
from orchestra.client import Client
from orchestra.ports import Asker, Engine, Store
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import LeaveWorker
from orchestra.statemachine.records import Amounts
from orchestra.transports.mounting import Application

EMBEDDED = "embedded"
"""The label of workers that live in the orchestrator's own process: when it starts, those of its former life are gone."""


async def open_store(path: str | None) -> Store:
    """The store of a file, or one in memory."""
    if path is None:
        from orchestra.storage.memory import MemoryStore

        return MemoryStore()
    from orchestra.storage.sqlite import SqliteStore

    return await SqliteStore.open(path)


@asynccontextmanager
async def open_orchestrator(path: str | None) -> AsyncIterator[Orchestrator]:
    """
    A running orchestrator over a file, or in memory.

    Raises:
        StoreTaken: Another process has the file open.
        StoreFailed: The file can not be read.
    """
    store = await open_store(path)
    try:
        orchestrator = Orchestrator(store)
        async with anyio.create_task_group() as group:
            await group.start(orchestrator.run)
            await _bury_embedded(orchestrator)
            try:
                yield orchestrator
            finally:
                group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await store.aclose()


async def _bury_embedded(orchestrator: Orchestrator) -> None:
    """Workers inside a former life of this process died with it: their work need not wait for the lease."""
    asker = orchestrator.for_principal("local")
    for worker in await Client(asker).workers():
        if EMBEDDED in worker.labels:
            await asker.ask(LeaveWorker(worker.id, worker.incarnation))


def engines_for(
    tasks: Mapping[str, TaskFunction[Any, Any]], folder: str | None
) -> Sequence[Engine]:
    """The engines of a worker: callables when there are any, processes when there is a folder for them."""
    engines: list[Engine] = []
    if tasks:
        from orchestra.engines.callables import CallablesEngine, register

        engines.append(
            CallablesEngine([register(task.fn, task.name, task.mode) for task in tasks.values()])
        )
    if folder is not None:
        from orchestra.engines.process import ProcessEngine

        engines.append(ProcessEngine(folder))
    return engines


@asynccontextmanager
async def local_workers(
    orchestrator: Orchestrator,
    tasks: Mapping[str, TaskFunction[Any, Any]],
    *,
    count: int,
    slots: int,
    processes: bool = False,
    labels: tuple[str, ...] = (),
    capacity: Amounts | None = None,
    folder: str | None = None,
) -> AsyncIterator[None]:
    """Workers in this process, joined when the context is entered; leaving it stops what they run."""
    if count == 0 or not (tasks or processes):
        yield
        return
    from orchestra.transports.memory import MemoryTransport
    from orchestra.worker.agent import Agent

    async with AsyncExitStack() as stack:
        if processes and folder is None:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="orchestra-", ignore_cleanup_errors=True)
            )
        agents = [
            Agent(
                lambda: MemoryTransport(orchestrator, principal="local"),
                engines_for(tasks, f"{folder}/local-{number}" if processes else None),
                name=f"local-{number}",
                slots=slots,
                labels=(EMBEDDED, *labels),
                capacity=capacity,
                session=secrets.token_hex(8),
            )
            for number in range(1, count + 1)
        ]
        async with anyio.create_task_group() as group:
            for agent in agents:
                await group.start(agent.run)
            try:
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    async with anyio.create_task_group() as leaving:
                        for agent in agents:
                            leaving.start_soon(agent.drain)
                group.cancel_scope.cancel()
