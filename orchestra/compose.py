"""The one place, besides the command line, that names concrete stores, engines and transports and puts them together."""

from __future__ import annotations

import gc
import logging
import secrets
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import attrs

from orchestra.calls import TaskFunction
from orchestra.client import Client
from orchestra.dialect_ports import EMBEDDED, Maker, Staff, Staffed, dialects_for
from orchestra.errors import Malformed
from orchestra.ports import Engine, Store, Testimony
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import LeaveWorker, Reconfigure
from orchestra.statemachine.records import Amounts

if TYPE_CHECKING:
    from orchestra.config import Address, Config, DialectPort
    from orchestra.dialects.wire import Dialect
    from orchestra.transports.auth import Gate
    from orchestra.transports.http import HttpApp
    from orchestra.transports.rate import Buckets

LOG = logging.getLogger("orchestra.compose")

_USUAL_THRESHOLD = 700
_CALM_THRESHOLDS = (50_000, 20, 50)
"""Measured with 256 clients of small tasks: 40 to 65 us a task less than with Python's own (700, 10, 10)."""


_STORED = attrs.fields(Reconfigure)
"""Settings that the store keeps have the same names in `Config`."""

DRAIN_MS = 5_000
"""At a stop of a server, what its own worker runs gets this long: service managers kill after 10 s or more."""


async def open_store(path: str | None) -> Store:
    """The store of a file, or one in memory."""
    if path is None:
        from orchestra.storage.memory import MemoryStore

        return MemoryStore()
    from orchestra.storage.sqlite import SqliteStore

    return await SqliteStore.open(path)


@asynccontextmanager
async def open_orchestrator(path: str | None) -> AsyncGenerator[Orchestrator]:
    """
    A running orchestrator over a file, or in memory.

    Raises:
        StoreTaken: Another process has the file open.
        StoreFailed: The file can not be read.
    """
    store = await open_store(path)
    try:
        orchestrator = Orchestrator(store, testify=partial(_testify, path))
        async with _calm_collector(), anyio.create_task_group() as group:
            await group.start(orchestrator.run)
            await _bury_embedded(orchestrator)
            try:
                yield orchestrator
            finally:
                group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await store.aclose()


def _testify(data: str | None, testimony: Testimony) -> None:
    from orchestra.storage.testimony import testify

    testify(data, testimony)


@asynccontextmanager
async def _calm_collector() -> AsyncGenerator[None]:
    """
    Let the garbage collector look less often while many records live: they hold no circles, and looking through them cost a third of
    the time of small tasks. A host that set thresholds of its own keeps them.
    """
    usual = gc.get_threshold()
    if usual[0] == _USUAL_THRESHOLD:
        gc.set_threshold(*_CALM_THRESHOLDS)
    try:
        yield
    finally:
        if gc.get_threshold() == _CALM_THRESHOLDS:
            gc.set_threshold(*usual)


async def _bury_embedded(orchestrator: Orchestrator) -> None:
    """Workers inside a former life of this process died with it: their work need not wait for the lease."""
    asker = orchestrator.for_principal("local")
    for worker in await Client(asker).workers():
        if EMBEDDED in worker.labels:
            await asker.ask(LeaveWorker(worker.id, worker.incarnation))


def engines_for(
    tasks: Mapping[str, TaskFunction[Any, Any, Any]], folder: str | None
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
    tasks: Mapping[str, TaskFunction[Any, Any, Any]],
    *,
    count: int,
    slots: int,
    processes: bool = False,
    labels: tuple[str, ...] = (),
    capacity: Amounts | None = None,
    folder: str | None = None,
    drain_ms: int = 0,
) -> AsyncGenerator[None]:
    """
    Workers in this process, joined when the context is entered.

    Leaving it gives what they run ``drain_ms`` to finish, then stops it and hands it back: it runs again, here or elsewhere.
    """
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
                            leaving.start_soon(agent.drain, drain_ms)
                group.cancel_scope.cancel()


@asynccontextmanager
async def connect(
    url: str, *, token: str = "", tls_ca: str | None = None
) -> AsyncGenerator[Client]:
    """
    A client of the orchestrator at ``url`` (``http``, ``https``, ``ws`` or ``wss``).

    Args:
        token: A token of the server; empty for none.
        tls_ca: PEM file of the authorities to trust instead of the system's.

    Raises:
        Unavailable: Nobody answers there.
    """
    from orchestra.transports.connect import connect as dial

    async with dial(url, token=token, tls_ca=tls_ca) as asker:
        yield Client(asker, url=url)


def http_api(
    orchestrator: Orchestrator,
    authoriser: Any = None,
    policy: Any = None,
    body_bytes_max: int | None = None,
    dialects: Sequence[Dialect] = (),
) -> HttpApp:
    """The native dialect, and others placed below paths of their own, as an application for a door or an authoriser in front."""
    from orchestra.dialects.native import native_dialect
    from orchestra.transports.http import http_app

    return http_app(
        orchestrator,
        [native_dialect(), *dialects],
        authoriser=authoriser,
        policy=policy,
        body_bytes_max=body_bytes_max,
    )


def mounted_api(orchestrator: Orchestrator, token: str) -> HttpApp:
    """
    The native dialect for mounting in another application.

    With a token, callers must send it. Without one only callers on this machine are answered, and only when no proxy stands
    between: see `near.NearGate`.
    """
    from orchestra.dialects.native import native_dialect
    from orchestra.transports.near import near_gate
    from orchestra.transports.policy import policy_for

    return http_api(orchestrator, near_gate(policy_for([native_dialect()]), token))


def _nobody_told(_name: str, _address: Address) -> None:
    """Nobody asked for the addresses of dialects."""


def _switched_on(
    config: Config, dialects: Mapping[str, Maker]
) -> tuple[list[tuple[DialectPort, Dialect]], list[Staff]]:
    """The dialects that are served, and the workers that some bring along."""
    for port in config.dialects:
        if port.name not in dialects:
            there = ", ".join(dialects) or "none yet"
            told = f"there is no dialect {port.name!r} (there is: {there})"
            remedy = f"leave it out; the native API is served at {config.listen}"
            raise Malformed(told, where="dialects", remedy=remedy)
    found: list[tuple[DialectPort, Dialect]] = []
    staff: list[Staff] = []
    for port in config.dialects:
        made = dialects[port.name](port)
        if isinstance(made, Staffed):
            staff.append(made.staff)
            made = made.dialect
        found.append((port, made))
    return found, staff


@attrs.frozen
class _Ports:
    """The main port, and those of dialects at their own root: over the same core, behind doors of the same kind."""

    orchestrator: Orchestrator
    config: Config
    gate: Gate
    buckets: Buckets
    stop: anyio.Event
    told: Callable[[str, Address], None]

    async def serve(
        self,
        app: HttpApp,
        switched_on: Sequence[tuple[DialectPort, Dialect]],
        *,
        ready: Callable[[Address], None],
        signals: bool,
    ) -> None:
        """Serve until the stop. The main port accepts after all others do, so that ``ready`` tells of all."""
        from orchestra.dialects.native_problems import refuse
        from orchestra.transports.chores import repeat
        from orchestra.transports.door import Door
        from orchestra.transports.serve import serve as listen

        async with anyio.create_task_group() as group:
            for port, dialect in switched_on:
                if port.address is not None:
                    await group.start(self._serve_own, dialect, port.name, port.address)
                asker = self.orchestrator.for_principal(port.name)
                for chore in dialect.chores:
                    group.start_soon(repeat, asker, port.name, chore, self.stop)
            await listen(
                Door(app, self.gate, buckets=self.buckets, refuse=refuse),
                self.config,
                ready=ready,
                stopping=app.close_streams,
                stop=self.stop,
                signals=signals,
            )

    async def _serve_own(
        self,
        dialect: Dialect,
        name: str,
        address: Address,
        *,
        task_status: anyio.abc.TaskStatus[None],
    ) -> None:
        from orchestra.transports.door import Door
        from orchestra.transports.http import http_app
        from orchestra.transports.policy import policy_for
        from orchestra.transports.serve import serve as listen

        policy = policy_for([dialect])
        gate = self.gate.at_own_port(policy, frozenset(dialect.hosts))
        body_bytes_max = self.config.limits.body_bytes_max
        app = http_app(self.orchestrator, [dialect], policy=policy, body_bytes_max=body_bytes_max)

        def ready(bound: Address) -> None:
            self.told(name, bound)
            task_status.started()

        await listen(
            Door(app, gate, buckets=self.buckets, refuse=dialect.refuse),
            self.config,
            listen=address,
            ready=ready,
            stopping=app.close_streams,
            stop=self.stop,
        )


async def serve(
    config: Config,
    *,
    tasks: Mapping[str, TaskFunction[Any, Any, Any]],
    slots: int,
    ready: Callable[[Address], None],
    stop: anyio.Event | None = None,
    signals: bool = False,
    dialects: Mapping[str, Maker] | None = None,
    dialect_ready: Callable[[str, Address], None] | None = None,
) -> None:
    """
    Run an orchestrator and its API until told to stop, with a local worker unless ``slots`` is 0. On asyncio.

    Dialects that are switched on are served below ``/NAME/`` and at ports of their own; ``ready`` is called when all ports accept.

    Args:
        dialects: What each name in ``config.dialects`` stands for; by default `dialects_for` the tasks.
        dialect_ready: Called with a dialect's name and the real address of its own port.

    Raises:
        Malformed: The configuration would leave the server open, or is unfit.
        Conflict: The port is taken.
        StoreTaken: Another process has the data file open.
    """
    from orchestra.crew import employed
    from orchestra.dialects.native import native_dialect
    from orchestra.dialects.wire import placed_under
    from orchestra.transports.auth import open_gate
    from orchestra.transports.policy import policy_for
    from orchestra.transports.rate import Buckets

    dialects = dialects_for(tasks) if dialects is None else dialects
    switched_on, staff = _switched_on(config, dialects)
    mounted = [placed_under(dialect, f"/{port.name}") for port, dialect in switched_on]
    policy = policy_for([native_dialect(), *mounted])
    gate = open_gate(config, policy)
    stop = stop or anyio.Event()
    buckets = Buckets(config.limits.requests_per_s, config.limits.requests_burst)
    folder = config.folder or (f"{config.data}.attempts" if config.data else None)
    async with open_orchestrator(config.data or None) as orchestrator:
        await orchestrator.ask(
            Reconfigure(**{field.name: getattr(config, field.name) for field in _STORED})
        )
        body_bytes_max = config.limits.body_bytes_max
        app = http_api(orchestrator, None, policy, body_bytes_max, mounted)
        ports = _Ports(orchestrator, config, gate, buckets, stop, dialect_ready or _nobody_told)
        helping = local_workers(
            orchestrator,
            tasks,
            count=min(slots, 1),
            slots=slots,
            processes=True,
            folder=folder,
            drain_ms=DRAIN_MS,
        )
        async with employed(orchestrator, staff, (EMBEDDED,)), helping:
            await ports.serve(app, switched_on, ready=ready, signals=signals)
