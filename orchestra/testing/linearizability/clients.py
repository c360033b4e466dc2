"""Clients that ask one server for the same jobs at the same time, while it is killed: what they were told is the history."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from random import Random

import anyio
import attrs

from orchestra.compose import connect
from orchestra.errors import Rejected, Unavailable
from orchestra.ports import Asker
from orchestra.statemachine import ids
from orchestra.statemachine.commands import (
    CancelJob,
    Command,
    JoinWorker,
    PauseJob,
    ResumeJob,
    RetryTask,
    StageDraft,
    SubmitJob,
)
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.queries import GetJob
from orchestra.statemachine.replies import JobAccepted, ReportsAnswered, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.testing.linearizability.history import History, Operation
from orchestra.testing.linearizability.job_model import REFUSED
from orchestra.testing.linearizability.served import Server

OPEN = (JobStatus.QUEUED, JobStatus.RUNNING)

WORKER_PAUSE_S = 0.02
ENDS = 0.3
"""How probable it is that an attempt ends between two heartbeats."""

AGAIN_S = 0.02
"""A client that was not answered asks something else so much later."""


@attrs.frozen(slots=True, kw_only=True)
class Load:
    """
    What the clients do.

    Args:
        clients: How many ask at the same time.
        operations: How many questions each asks.
        jobs: How many jobs they ask of at the same time; after ``each`` questions another takes a job's place.
        kills: How often the server is killed meanwhile.
        seed: Of all that is drawn.
    """

    clients: int = 16
    operations: int = 40
    jobs: int = 6
    each: int = 40
    kills: int = 1
    seed: int = 1


class _Book:
    """Which jobs are asked of now, and what was told of each."""

    def __init__(self, load: Load, run: str) -> None:
        self.rng = Random(load.seed)
        self.load = load
        self.run = run
        self.operations: dict[str, list[Operation]] = {}
        self.ids: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self._open: list[str] = []

    def draw(self) -> str:
        """The key of a job to ask of."""
        full = [key for key in self._open if len(self.operations[key]) >= self.load.each]
        for key in full:
            self._open.remove(key)
        while len(self._open) < self.load.jobs:
            key = f"{self.run}-{len(self.operations)}"
            self.operations[key] = []
            self._open.append(key)
        return self.rng.choice(self._open)

    def know(self, key: str, job_id: str) -> None:
        """Somebody was told the id of the job with this key."""
        self.ids.setdefault(key, job_id)
        self.keys[job_id] = key


async def record(server: Server, load: Load, run: str) -> dict[str, History]:
    """
    Let clients loose on a server that runs, kill it as often as the load says, and return what they were told of each job.

    Args:
        run: What the jobs' keys begin with; unlike that of any other run on this server.
    """
    book = _Book(load, run)
    is_up = anyio.Event()
    is_up.set()
    gate = [is_up]
    left = [load.clients]
    asked = [0]
    over = anyio.Event()
    every = load.clients * load.operations // (load.kills + 1)
    turns = [anyio.Event() for _ in range(load.kills)]
    """The server is killed when so many questions were asked."""

    async def client(number: int) -> None:
        async with connect(server.url) as connected:
            for _ in range(load.operations):
                await gate[0].wait()
                asked[0] += 1
                if not asked[0] % every and asked[0] // every <= load.kills:
                    turns[asked[0] // every - 1].set()
                await _one(connected.asker, book, number)
        left[0] -= 1
        if not left[0]:
            over.set()

    async def killer() -> None:
        for number in range(load.kills):
            await turns[number].wait()
            gate[0] = anyio.Event()
            server.kill()
            await server.start()
            gate[0].set()

    async with anyio.create_task_group() as group:
        group.start_soon(_worker, server, book, load.clients)
        async with anyio.create_task_group() as people:
            people.start_soon(killer)
            for number in range(load.clients):
                people.start_soon(client, number)
        await over.wait()
        group.cancel_scope.cancel()
    return {key: tuple(each) for key, each in book.operations.items()}


async def _told(
    book: _Book, key: str, client: int, asked: tuple[str, str], ask: Callable[[], Awaitable[str]]
) -> str | None:
    """Ask, and write down what came of it."""
    began_s = time.monotonic()
    outcome: str | None
    try:
        outcome = await ask()
        ended_s = time.monotonic()
    except Rejected:
        outcome, ended_s = REFUSED, time.monotonic()
    except Unavailable:
        outcome, ended_s = None, math.inf
    verb, argument = asked
    book.operations[key].append(Operation(client, verb, argument, outcome, began_s, ended_s))
    if outcome is None:
        await anyio.sleep(AGAIN_S)
    return outcome


async def _one(asker: Asker, book: _Book, client: int) -> None:
    key = book.draw()
    job_id = book.ids.get(key)
    verbs = ("submit", "view", "view", "pause", "resume", "resume", "cancel", "retry", "retry")
    verb = "submit" if job_id is None else book.rng.choice(verbs)

    async def submit() -> str:
        job = SubmitJob(key, (StageDraft("only", "app"),))
        accepted: JobAccepted = await asker.ask(job, key=key)
        book.know(key, accepted.job_id)
        return accepted.job_id

    async def view() -> str:
        job = await asker.answer(GetJob(str(job_id)))
        return "open" if job.status in OPEN else str(job.status)

    async def change() -> str:
        id = str(job_id)
        commands: dict[str, Command[object]] = {
            "pause": PauseJob(id),
            "resume": ResumeJob(id),
            "cancel": CancelJob(id),
            "retry": RetryTask(ids.task_id(id, 1)),
        }
        await asker.ask(commands[verb])
        return "done"

    ask = {"submit": submit, "view": view}.get(verb, change)
    await _told(book, key, client, (verb, ""), ask)


async def _worker(server: Server, book: _Book, client: int) -> None:
    """One that takes every order, and tells its end some time later: completed or failed, as is drawn."""
    async with connect(server.url) as connected:
        asker = connected.asker
        joined: WorkerJoined | None = None
        held: list[str] = []
        while True:
            try:
                if joined is None:
                    join = JoinWorker("w", book.run, 64, ("app",), holding=tuple(held))
                    joined = await asker.ask(join)
                beat = Heartbeat(joined.worker_id, joined.incarnation, tuple(held))
                answer = await asker.ask(beat)
            except (Unavailable, Rejected):
                await anyio.sleep(AGAIN_S)
                continue
            if not answer.known:
                joined, held = None, []
                continue
            new = [order.attempt_id for order in answer.orders if order.attempt_id not in held]
            held = [each for each in (*held, *new) if each not in answer.foreign]
            for attempt_id in held[:]:
                if book.rng.random() < ENDS and await _end(asker, book, client, joined, attempt_id):
                    held.remove(attempt_id)
            await anyio.sleep(WORKER_PAUSE_S)


async def _end(
    asker: Asker, book: _Book, client: int, joined: WorkerJoined, attempt_id: str
) -> bool:
    job_id = ids.job_of(attempt_id)
    key = book.keys.get(job_id)
    if key is None:
        return False  # nobody was told the job's id yet
    end = book.rng.choice((Happening.COMPLETED, Happening.FAILED))
    number = ids.decode(attempt_id[-4:])

    async def report() -> str:
        told = AttemptReport(attempt_id, end, result=b"1" if end is Happening.COMPLETED else None)
        reports = AttemptsReported(joined.worker_id, joined.incarnation, (told,))
        answered: ReportsAnswered = await asker.ask(reports)
        return "ignored" if answered.ignored[0] else "taken"

    return await _told(book, key, client, ("report", f"{number} {end}"), report) is not None
