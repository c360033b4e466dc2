"""A farm to look at: five workers, a job, and whoever looks may kill, freeze, cut off and starve it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from types import MappingProxyType

import anyio
import attrs

from orchestra.client import Job
from orchestra.compose import connect
from orchestra.errors import NotFound, Unavailable
from orchestra.statemachine.commands import StageDraft, SubmitJob
from orchestra.statemachine.lifecycles import JOB_FINAL
from orchestra.statemachine.queries import GetOverview
from orchestra.statemachine.records import Span
from orchestra.statemachine.replies import JobView, WorkerView
from orchestra.testing.chaos import laws, scarcity
from orchestra.testing.chaos.campaign import evidence
from orchestra.testing.chaos.client import SCRIPT, Book
from orchestra.testing.chaos.farm import Farm, Plan, Worker, open_farm
from orchestra.testing.chaos.proxy import Mode, Proxy, open_proxy
from orchestra.testing.chaos.troubles import BEYOND_LEASE
from orchestra.testing.chaos.undertaker import undertaken

WORKERS = 5
LEASE_MS = 3_000
"""Half of the default: nobody likes to wait for six seconds."""

TASK_S = 0.5

BEHIND = -10
"""The priority of the job to look at: small jobs that come meanwhile go first."""

LOOK_S = 0.2
"""Between two questions to the server: often enough to look alive."""

STARTED_S = 120.0
"""Until every worker has begun something, on a machine that is busy with other things."""

AUDIENCE = "audience"
PEOPLE = "people"
"""The names of the two clients: the one that submits the job to look at, and a process that submits small ones all the time."""


@attrs.frozen(slots=True)
class Line:
    """Something that was done or came of it; ``at_s`` since the beginning. ``ends`` a trouble after ``took_s``."""

    at_s: float
    text: str
    took_s: float | None = None


@attrs.define(slots=True)
class Sight:
    """What the server told last; ``away`` while it does not answer."""

    away: bool = False
    job_lost: bool = False
    job: JobView | None = None
    workers: dict[str, WorkerView] = attrs.field(factory=dict[str, WorkerView])
    tasks: Mapping[str, int] = attrs.field(factory=dict[str, int])


class Show:
    """
    The farm, what is done to it, and what came of it.

    Attributes:
        state: What was done to each worker, by name.
        server_state: The same of the server.
        sight: What the server told last.
        lines: All that happened, in order.
        busy: How many troubles are not over.
    """

    def __init__(self, farm: Farm, tasks: int, seed: int, tell: Callable[[Line], None]) -> None:
        self.farm = farm
        self.tasks = tasks
        self.state: dict[str, str] = {}
        self.server_state = "serves"
        self.sight = Sight()
        self.lines: list[Line] = []
        self.busy = 0
        self.job_ids: list[str] = []
        self._tell = tell
        self._rng = Random(seed)
        self._book = Book(str(farm.journal.book(AUDIENCE)))
        self._began_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began_s

    def say(self, text: str, took_s: float | None = None) -> None:
        """Add a line."""
        line = Line(self.elapsed_s, text, took_s)
        self.lines.append(line)
        self._tell(line)

    def quiet(self) -> None:
        """Lines are kept and told to nobody from now on."""
        self._tell = _nobody

    def done_by(self) -> Counter[str]:
        """How many tasks each worker has begun that were seen to end."""
        names = {f"{each.folder}/": each.name for each in self.farm.ever}
        return Counter(
            name
            for run in self.farm.journal.runs
            if run.kind == "S" and run.task in self.farm.journal.ended
            for folder, name in names.items()
            if run.folder.startswith(folder)
        )

    @property
    def lost(self) -> int:
        """Acknowledged tasks of the job to look at that the server does not know any more."""
        return self.tasks if self.sight.job_lost else 0

    @property
    def acknowledged(self) -> int:
        """Tasks that clients were told are accepted."""
        told = self.farm.journal.told
        return sum(int(each.words[2]) for each in told if each.kind == "ack")

    @property
    def ended(self) -> int:
        """Tasks that a client saw end."""
        return len(self.farm.journal.ended)

    @property
    def doubled(self) -> int:
        """Tasks that were told to end more than once, as different entries of the story."""
        told = self.farm.journal.told
        ends = {each.words[:3] for each in told if each.kind == "seen" and each.words[1] == "task"}
        return sum(count > 1 for count in Counter(words[2] for words in ends).values())

    # ---------------------------------------------------------------------------------------------------- what goes on

    async def submit(self) -> None:
        """Submit the job to look at, again with the same key until it is acknowledged."""
        name = f"shot-{len(self.job_ids) + 1}"
        argv = ["/bin/sh", "-c", SCRIPT, "task", str(TASK_S)]
        env = {"RUNS": str(self.farm.journal.runs_file)}
        template = json.dumps({"argv": argv, "env": env}).encode()
        stage = StageDraft("frames", "process", template, over=Span(0, self.tasks))
        job = SubmitJob(name, (stage,), priority=BEHIND)
        while True:
            try:
                async with connect(self.farm.url) as client:
                    accepted = await client.asker.ask(job, key=name)
            except Unavailable:
                await anyio.sleep(LOOK_S)
                continue
            self._book.write("ack", name, accepted.job_id, accepted.tasks)
            self.job_ids.append(accepted.job_id)
            self.say(f"{name} is acknowledged: {accepted.tasks} tasks")
            return

    async def look(self) -> None:
        """Ask the server again and again what there is; a job that has ended is followed by the next."""
        while True:
            try:
                async with connect(self.farm.url) as client:
                    while True:
                        self.farm.journal.read()
                        overview = await client.asker.answer(GetOverview())
                        job = await Job[object](client, self.job_ids[-1], 0, None).view()
                        workers = await client.workers()
                        self.sight = Sight(
                            False, False, job, {each.name: each for each in workers}, overview.tasks
                        )
                        await anyio.sleep(LOOK_S)
            except Unavailable:
                self.sight.away = True
            except NotFound:
                self.sight.job_lost = True
            await anyio.sleep(LOOK_S)

    async def go_on(self) -> None:
        """A job that has ended is followed by the next one."""
        while True:
            await self.job_ended()
            await self.submit()

    async def job_ended(self) -> None:
        """Wait until the job to look at has ended."""
        await self.farm.until(lambda: self._last_job() is not None, float("inf"))
        job = self._last_job()
        if job is not None:
            self.say(f"{job.name} has ended: {job.status}")

    def _last_job(self) -> JobView | None:
        job = self.sight.job
        if job is None or job.id != self.job_ids[-1] or job.status not in JOB_FINAL:
            return None
        return job

    # -------------------------------------------------------------------------------------------------------- troubles

    async def _victim(self) -> Worker | None:
        """One that has just begun something, so that there is something to lose; None when nobody is well."""
        since = self.farm.journal.mark()
        found: list[Worker] = []

        def begun() -> bool:
            well = [each for each in self.farm.workers if not self.state.get(each.name)]
            fresh = [run.folder for run in self.farm.journal.runs[since.runs :] if run.kind == "S"]
            found[:] = [
                each for each in well if any(at.startswith(f"{each.folder}/") for at in fresh)
            ]
            return bool(found) or not well

        await self.farm.until(begun)
        return self._rng.choice(found) if found else None

    async def _lost(self, victim: Worker, done: str) -> None:
        """Something was done to a worker: tell, and wait until what it had in hand runs elsewhere."""
        journal = self.farm.journal
        held = journal.held(victim.folder)
        self.state[victim.name] = done
        in_hand = f"{len(held)} {'task' if len(held) == 1 else 'tasks'} in hand"
        self.say(f"{victim.name} is {done}, with {in_hand}")
        since = journal.mark()
        try:
            await self.farm.until(lambda: journal.moved_on(held, since))
        except TimeoutError:
            self.say(f"what {victim.name} had does not run elsewhere")
            return
        took_s = time.monotonic() - since.at_s
        self.say(f"what {victim.name} had runs elsewhere, after {took_s:.1f} s", took_s)

    async def kill(self) -> None:
        """SIGKILL of a worker; another process takes its place when its work runs elsewhere."""
        victim = await self._victim()
        if victim is not None:
            victim.child.kill()
            self.farm.workers.remove(victim)
            await self._lost(victim, "killed")
            again = self.farm.join(victim.name, victim.door)
            await self._works_again(again)

    async def freeze(self) -> None:
        """SIGSTOP of a worker and all that it started, for longer than a lease."""
        victim = await self._victim()
        if victim is not None:
            victim.child.freeze(whole=True)
            began_s = time.monotonic()
            await self._lost(victim, "frozen")
            await self._beyond_lease(began_s)
            victim.child.thaw()
            await self._works_again(victim)

    async def cut(self) -> None:
        """Nothing comes through to a worker or from it, for longer than a lease."""
        victim = await self._victim()
        if victim is not None:
            began_s = time.monotonic()
            await victim.door.turn(Mode.HALF_OPEN)
            await self._lost(victim, "cut off")
            await self._beyond_lease(began_s)
            await victim.door.turn(Mode.CLEAR)
            await self._works_again(victim)

    async def _beyond_lease(self, began_s: float) -> None:
        end_s = began_s + BEYOND_LEASE * self.farm.plan.lease_ms / 1_000
        await anyio.sleep(max(0.0, end_s - time.monotonic()))

    async def _works_again(self, worker: Worker) -> None:
        self.state[worker.name] = "back"
        journal = self.farm.journal
        since = journal.mark()
        await self.farm.until(lambda: journal.work_s(since, worker.folder) is not None)
        took_s = time.monotonic() - since.at_s
        self.state[worker.name] = ""
        self.say(f"{worker.name} has work done {took_s:.1f} s after its return")

    async def disk(self) -> None:
        """The server's disk is full for a while."""
        if self.server_state != "serves":
            return
        self.server_state = "its disk is full"
        self.say("the server's disk is full")
        scarcity.fill(self.farm)
        if await scarcity.refused(self.farm) is not None:
            self.say("what can not be stored is refused")
        await anyio.sleep(1)
        since = self.farm.journal.mark()
        scarcity.make_room(self.farm)
        self.server_state = "serves"
        took_s = await self.farm.resumed_s(since, STARTED_S)
        self.say(f"there is room again: work went on after {took_s:.1f} s", took_s)

    async def server(self) -> None:
        """SIGKILL of the server, which is started again."""
        if self.server_state != "serves":
            return
        self.server_state = "killed"
        self.farm.running_server.kill()
        self.say("the server is killed")
        since_s = time.monotonic()
        await self.farm.serve()
        since = self.farm.journal.mark()
        self.server_state = "serves"
        self.say(f"the server is back after {since.at_s - since_s:.1f} s")
        took_s = await self.farm.resumed_s(since, STARTED_S)
        self.say(f"work went on {took_s:.1f} s after the server's return", took_s)

    async def do(self, trouble: Callable[[Show], Awaitable[None]]) -> None:
        """Carry one trouble through, until it is over."""
        self.busy += 1
        try:
            await trouble(self)
        except TimeoutError:
            self.say("it is not over, and should be")
        finally:
            self.busy -= 1

    async def verdict(self, *, whole: bool) -> list[str]:
        """What is broken, by what is in the store after one more start; ``whole``: when everything has ended."""
        if whole:
            await self.farm.clients[PEOPLE].end(STARTED_S)
        self.farm.running_server.kill()
        await self.farm.serve()
        seen = await evidence(self.farm)
        found = laws.ALWAYS if whole else tuple(each for each in laws.ALWAYS if each not in _WHOLE)
        return [broken for law in found for broken in law(seen)]


def _nobody(_: Line) -> None:
    """Nobody listens."""


_WHOLE = (laws.not_ended_once,)
"""What can be said only when everything has ended."""

TROUBLES: Mapping[str, Callable[[Show], Awaitable[None]]] = MappingProxyType(
    {"k": Show.kill, "f": Show.freeze, "c": Show.cut, "d": Show.disk, "s": Show.server}
)
"""What each key does; in this order they are played where nobody presses any."""


@asynccontextmanager
async def open_show(
    folder: Path, tasks: int, seed: int, tell: Callable[[Line], None]
) -> AsyncGenerator[Show]:
    """A farm with its job running; at the end everything of it is killed."""
    plan = Plan(workers=WORKERS, doors=WORKERS, open=2, lease_ms=LEASE_MS, long_part=0)
    with undertaken(folder), scarcity.small_disk(folder) as place:
        async with open_farm(folder, plan, seed) as farm, open_proxy(farm.port) as door:
            farm.data = place / "served.db" if place else farm.data
            show = Show(farm, tasks, seed, tell)
            await _started(show, farm, door)
            async with anyio.create_task_group() as group:
                group.start_soon(show.look)
                yield show
                group.cancel_scope.cancel()


async def _started(show: Show, farm: Farm, door: Proxy) -> None:
    await farm.serve()
    show.say(f"the server serves at {farm.url}")
    await show.submit()
    farm.ask(PEOPLE, door)
    for number, each in enumerate(farm.doors, 1):
        worker = farm.join(f"worker-{number}", each)
        show.state[worker.name] = ""
    await farm.at_work()
    show.say(f"{len(farm.workers)} workers are at work")
