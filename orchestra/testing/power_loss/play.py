"""People, workers and a server on a recording disk: real commands, the real core, its group commit, and the real store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import TypeVar

import anyio
import attrs
from anyio.abc import TaskGroup

from orchestra.errors import OrchestraError, Rejected, StoreFailed
from orchestra.ports import LogChunk, Store
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import Command, JoinWorker, StageDraft, SubmitJob
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import Order, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.storage.disk import Disk
from orchestra.testing.power_loss.ledger import Ledger, Witness
from orchestra.testing.power_loss.operations import Kind
from orchestra.testing.power_loss.recorder import RecordingDisk

R = TypeVar("R")

OpenStore = Callable[[str, Disk], Awaitable[Store]]
"""Opens the store at a path, over a disk."""

STORE_NAME = "store.db"
START_MS = 1_763_900_000_000
FAILURE_SHARE = 0.2
TRIES = 3
"""How often people repeat what was refused because the medium failed."""


class NoServer(Exception):
    """The server did not start, because the medium failed."""


@attrs.define(slots=True)
class HandClock:
    """A clock that is moved by hand."""

    now: int = START_MS

    def now_ms(self) -> int:
        """As `ports.Clock.now_ms`."""
        return self.now


@attrs.define(slots=True)
class DrawnSeeds:
    """Seeds of stimuli from one random number generator."""

    rng: Random

    def seed(self) -> int:
        """As `ports.Seeds.seed`."""
        return self.rng.getrandbits(128)


class Server:
    """
    What a scenario does with a server that runs. Failures of the medium are taken as people take them: the same again, some times.

    Args:
        orchestrator: The one that runs.
        play: Whose server it is.
    """

    def __init__(self, orchestrator: Orchestrator, play: Play) -> None:
        self.orchestrator = orchestrator
        self.play = play
        self.worker: WorkerJoined | None = None

    async def ask(self, command: Command[R], key: str = "", tries: int = TRIES) -> R | None:
        """Do something. None when it was refused, or the medium failed at every try."""
        for _ in range(tries):
            try:
                return await self.orchestrator.ask(command, key=key)
            except Rejected:
                return None
            except StoreFailed as failure:
                self.play.failures.append(failure)
                self.play.clock.now += 1_000
        self.play.unanswered += 1
        return None

    async def submit(self, count: int, *, tasks: int = 1, at_once: bool = True) -> None:
        """Submit jobs, all at the same time or one after the other."""
        drafts = (
            StageDraft("only", "app", over=tuple(b"%d" % n for n in range(tasks)), retries=1),
        )
        commands: list[tuple[SubmitJob, str]] = []
        for _ in range(count):
            self.play.jobs += 1
            name = f"job {self.play.jobs}"
            commands.append((SubmitJob(name, drafts), f"key {self.play.jobs}"))
        if not at_once:
            for command, key in commands:
                await self.ask(command, key)
            return
        async with anyio.create_task_group() as people:
            for command, key in commands:
                people.start_soon(self.ask, command, key)

    async def submit_in_vain(self, tries: int) -> None:
        """Submit a job, by somebody who gives up when the medium fails so many times."""
        self.play.jobs += 1
        draft = StageDraft("only", "app")
        await self.ask(SubmitJob(f"job {self.play.jobs}", (draft,)), tries=tries)

    async def join(self, slots: int = 4) -> None:
        """A worker joins."""
        self.worker = await self.ask(JoinWorker("w1", "session", slots, ("app",)))

    async def held(self) -> tuple[Order, ...]:
        """What the worker should hold now."""
        if self.worker is None:
            await self.join()
        if self.worker is None:
            return ()
        answer = await self.ask(Heartbeat(self.worker.worker_id, self.worker.incarnation))
        return answer.orders if answer is not None else ()

    async def work(self, rounds: int, *, output_bytes: int = 40) -> None:
        """The worker runs what it is given: output, results, and now and then a failure."""
        for _ in range(rounds):
            orders = await self.held()
            if self.worker is None or not orders:
                return
            await self.write(orders, output_bytes)
            await self.report([_ended(order.attempt_id, self.play.rng) for order in orders])

    async def write(self, orders: Sequence[Order], output_bytes: int) -> None:
        """The attempts print."""
        if self.worker is None:
            return
        chunks = [
            LogChunk(order.attempt_id, "stdout", 0, self.play.rng.randbytes(output_bytes))
            for order in orders
        ]
        for _ in range(TRIES):
            try:
                await self.orchestrator.append_log(
                    self.worker.worker_id, self.worker.incarnation, chunks
                )
            except Rejected:
                return
            except StoreFailed as failure:
                self.play.failures.append(failure)
                self.play.clock.now += 1_000
            else:
                return

    async def report(self, reports: Sequence[AttemptReport]) -> None:
        """The worker tells what happened."""
        if self.worker is not None:
            worker = self.worker
            await self.ask(AttemptsReported(worker.worker_id, worker.incarnation, tuple(reports)))

    async def backup(self, name: str) -> None:
        """Copy the store while it works. The copy counts from its acknowledgement on."""
        known = self.play.ledger.latest()
        with self.play.taking_failures():
            await self.orchestrator.backup(str(self.play.disk.folder / name))
            self.play.disk.note(Kind.COPIED, name, known.number if known is not None else 0)


def _ended(attempt_id: str, rng: Random) -> AttemptReport:
    if rng.random() < FAILURE_SHARE:
        return AttemptReport(
            attempt_id, Happening.FAILED, cause=Cause.EXIT, message="it gave up", exit_code=3
        )
    return AttemptReport(attempt_id, Happening.COMPLETED, result=rng.randbytes(30))


class Play:
    """
    One scenario under way.

    Args:
        disk: Where the store lies.
        open_store: Opens it.
        seed: Of all that is drawn.
    """

    def __init__(self, disk: RecordingDisk, open_store: OpenStore, seed: int) -> None:
        self.disk = disk
        self.open_store = open_store
        self.rng = Random(f"play {seed}")
        self.clock = HandClock()
        self.ledger = Ledger()
        self.failures: list[OrchestraError] = []
        """What people were told when the medium failed, oldest first."""
        self.unanswered = 0
        """How often people gave up, because the medium failed at every try."""
        self.jobs = 0

    @property
    def path(self) -> str:
        """Where the store is now."""
        return str(Path(self.disk.folder, STORE_NAME))

    async def opened(self) -> Store | None:
        """Open the store. None when the medium failed at every try."""
        for _ in range(TRIES):
            with self.taking_failures():
                return await self.open_store(self.path, self.disk)
        return None

    @contextmanager
    def taking_failures(self) -> Generator[None]:
        """Take a failure of the medium as people do: they read it, and go on."""
        try:
            yield
        except StoreFailed as failure:
            self.failures.append(failure)
        except SystemError as error:
            # APSW's own, and only below a layer written in Python: an exception of the layer is pending while it ends a copy.
            if "apsw.Backup" not in str(error):
                raise
            self.failures.append(StoreFailed(str(error)))

    @contextmanager
    def unwatched(self) -> Generator[None]:
        """What is done meanwhile happened long ago: no cut of the power and no fault meets it."""
        fault, self.disk.fault = self.disk.fault, None
        yield
        self.disk.rewind()
        self.disk.fault = fault
        known = self.ledger.latest()
        if known is not None:
            self.disk.note(Kind.TOLD, known.digest, known.number)

    async def _started(self, tasks: TaskGroup, orchestrator: Orchestrator) -> bool:
        for _ in range(TRIES):
            try:
                await tasks.start(orchestrator.run)
            except StoreFailed as failure:
                self.failures.append(failure)
            else:
                return True
        return False

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Server]:
        """A server over the store, until the end of the context; then the store is closed. `NoServer` when it does not start."""
        store = await self.opened()
        if store is None:
            raise NoServer
        try:
            witness = Witness(store, self.ledger, self.disk.note)
            orchestrator = Orchestrator(witness, clock=self.clock, seeds=DrawnSeeds(self.rng))
            async with anyio.create_task_group() as tasks:
                if await self._started(tasks, orchestrator):
                    yield Server(orchestrator, self)
                    tasks.cancel_scope.cancel()
                    return
            raise NoServer
        finally:
            with anyio.CancelScope(shield=True):
                await store.aclose()
