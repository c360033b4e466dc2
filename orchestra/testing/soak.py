"""
A real server and real workers at steady work, for as long as one likes: what each of them takes of the machine must not grow.

The first half is for getting warm: modules are loaded, the store's page cache fills up (16 MiB), a worker comes to remember as many ended
attempts as it ever does (10,000, some 2 MiB). In the second half the memory of each process is looked at again and again, and the line
through what was seen says how much it grew.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import attrs
import psutil

from orchestra.client import Client
from orchestra.compose import connect
from orchestra.errors import Unavailable
from orchestra.statemachine.commands import Reconfigure, StageDraft, SubmitJob
from orchestra.statemachine.records import Span
from orchestra.testing.chaos.farm import ORCHESTRA, Farm, Plan, open_farm
from orchestra.testing.chaos.tally import DRAIN_S
from orchestra.testing.chaos.undertaker import undertaken

GROWTH_MIB = 1.0
"""No process grows by more in the second half, which of two hours is an hour."""

DESCRIPTORS = 8
"""Files and sockets come and go with clients; what is never closed is soon more than this."""

RETENTION_MS = 2_000
"""Jobs that have ended leave memory after so long, so that a short run sees as many leave as come."""

WATCHED_S = 2.0
"""Who watches comes anew after so long."""

AGAIN_S = 0.05
"""And so much later, also when there was no answer."""

MIB = 1 << 20


@attrs.frozen(slots=True, kw_only=True)
class Soak:
    """
    What is done.

    Args:
        lasts_s: How long.
        workers: How many, each with one slot.
        clients: How many ask at the same time.
        pace_s: A client submits no more than a job in so long.
        look_s: Between two looks at the processes.
        growth_mib: By how much each may grow in the second half.
        server: What is run as ``serve``.
        worker: What is run as ``worker``.
    """

    lasts_s: float
    workers: int = 2
    clients: int = 4
    pace_s: float = 0.5
    look_s: float = 1.0
    growth_mib: float = GROWTH_MIB
    server: Sequence[str] = ORCHESTRA
    worker: Sequence[str] = ORCHESTRA


@attrs.frozen(slots=True)
class Look:
    """One look at one process: seconds since the begin, bytes that are its own, open files and sockets."""

    at_s: float
    own_bytes: int
    descriptors: int


@attrs.define(slots=True)
class Soaked:
    """
    What came of it.

    Attributes:
        looks: At each process, by its name.
        ends: How many jobs had each status in the end.
        tasks: How many tasks they had.
        broken: What is not as it should be.
    """

    looks: dict[str, list[Look]] = attrs.field(factory=dict[str, list[Look]])
    ends: Counter[str] = attrs.field(factory=Counter[str])
    tasks: int = 0
    broken: list[str] = attrs.field(factory=list[str])

    def ended(self, wanted: str, status: str, tasks: int) -> None:
        """A job has ended."""
        self.ends[status] += 1
        self.tasks += tasks
        if status != wanted:
            self.broken.append(f"a job was to be {wanted} and is {status}")


def second_half(looks: Sequence[Look]) -> Sequence[Look]:
    """The looks from the middle on."""
    return looks[len(looks) // 2 :]


def growth_mib(looks: Sequence[Look]) -> float:
    """By how much memory grew from the first of these looks to the last, by the line of least squares; 0 for fewer than two."""
    if not looks[1:]:
        return 0.0
    line = statistics.linear_regression(
        [look.at_s for look in looks], [look.own_bytes / MIB for look in looks]
    )
    return line.slope * (looks[-1].at_s - looks[0].at_s)


def grown(looks: dict[str, list[Look]], growth_mib_max: float = GROWTH_MIB) -> list[str]:
    """Every process that takes more and more."""
    broken: list[str] = []
    for name, found in looks.items():
        late = second_half(found)
        mib = growth_mib(late)
        if mib > growth_mib_max:
            broken.append(f"{name} grew by {mib:.2f} MiB, the bound is {growth_mib_max:g}")
        more = late[-1].descriptors - late[0].descriptors if late else 0
        if more > DESCRIPTORS:
            broken.append(
                f"{name} has {more} open files and sockets more, the bound is {DESCRIPTORS}"
            )
    return broken


async def soak(plan: Soak) -> Soaked:
    """
    Let everybody work, and look on.

    Needs Linux. Everything that was started is gone on return, and so is what was written, unless something is broken.
    """
    folder = Path(tempfile.mkdtemp(prefix="orchestra-soak-"))
    soaked = Soaked()
    with undertaken(folder):
        async with _staffed(folder, plan) as farm:
            began_s = time.monotonic()
            async with anyio.create_task_group() as group:
                group.start_soon(_watch, farm.url, began_s + plan.lasts_s)
                for _ in range(plan.clients):
                    group.start_soon(_ask, farm.url, plan, began_s + plan.lasts_s, soaked)
                await _look_on(farm, plan, began_s, soaked)
            soaked.broken += farm.died()
            await _leave(farm, soaked)
    soaked.broken += grown(soaked.looks, plan.growth_mib)
    if soaked.broken:
        soaked.broken.append(f"what was written down is in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return soaked


@asynccontextmanager
async def _staffed(folder: Path, plan: Soak) -> AsyncGenerator[Farm]:
    """A farm with everybody in it, whose server lets go of what has ended."""
    farm_plan = Plan(workers=plan.workers, doors=1, server=plan.server, worker=plan.worker)
    async with open_farm(folder, farm_plan, 1) as farm:
        await farm.serve()
        for _ in range(plan.workers):
            farm.join()
        async with connect(farm.url) as client:
            await client.asker.ask(Reconfigure(retention_ms=RETENTION_MS))
        yield farm


async def _look_on(farm: Farm, plan: Soak, began_s: float, soaked: Soaked) -> None:
    watched = {"server": psutil.Process(farm.running_server.pid)}
    watched |= {worker.name: psutil.Process(worker.child.pid) for worker in farm.workers}
    soaked.looks = {name: [] for name in watched}
    while (at_s := time.monotonic() - began_s) < plan.lasts_s and not farm.died():
        with suppress(psutil.NoSuchProcess):  # who has died is told of by the farm
            for name, process in watched.items():
                own = process.memory_full_info().uss
                soaked.looks[name].append(Look(at_s, own, process.num_fds()))
        await anyio.sleep(plan.look_s)


async def _leave(farm: Farm, soaked: Soaked) -> None:
    """Whoever is asked to end does, and leaves no process behind."""
    for child in (*(worker.child for worker in farm.workers), farm.running_server):
        with anyio.move_on_after(DRAIN_S) as scope:
            await child.end(2 * DRAIN_S)
        if scope.cancelled_caught:
            soaked.broken.append(f"{child.name} was asked to end and did not")
    farm.workers.clear()
    farm.server = None
    soaked.broken += farm.leftovers()


async def _watch(url: str, until_s: float) -> None:
    """Somebody watches the story, and comes back again and again."""
    cursor = 0
    while time.monotonic() < until_s:
        with suppress(Unavailable), anyio.move_on_after(WATCHED_S):
            async with connect(url) as client:
                async for moved in client.events(after=cursor):
                    cursor = moved.number
        await anyio.sleep(AGAIN_S)


async def _ask(url: str, plan: Soak, until_s: float, soaked: Soaked) -> None:
    """Submit and wait, job by job: such that end well, such that fail after two tries, and such that are cancelled."""
    while time.monotonic() < until_s:
        try:
            async with connect(url) as client:
                for kind in (_well, _well, _badly, _cancelled):
                    next_s = time.monotonic() + plan.pace_s
                    soaked.ended(*await kind(client))
                    await anyio.sleep(max(0.0, next_s - time.monotonic()))
        except Unavailable as error:
            soaked.broken.append(
                f"nothing had happened to the server, and a client was told: {error}"
            )
            return


Ended = tuple[str, str, int]
"""How a job was to end, how it did, and how many tasks it had."""


async def _job(client: Client, wanted: str, tasks: int, script: str, *, cancel: bool) -> Ended:
    template = json.dumps({"argv": ["/bin/sh", "-c", script]}).encode()
    stage = StageDraft("work", "process", template, over=Span(0, tasks), retries=1, backoff_ms=10)
    job = await client.submit(SubmitJob("soak", (stage,)))
    if cancel:
        await job.cancel("enough")
    view = await job.wait()
    return wanted, str(view.status), tasks


_well = partial(_job, wanted="completed", tasks=5, script="echo one line", cancel=False)
_badly = partial(_job, wanted="failed", tasks=1, script="echo no >&2; exit 3", cancel=False)
_cancelled = partial(_job, wanted="cancelled", tasks=5, script="sleep 30", cancel=True)
