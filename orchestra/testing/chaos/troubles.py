"""Killed, frozen and cut off: what happens to processes, and what is waited for afterwards."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from random import Random

import anyio

from orchestra.testing.chaos.farm import Farm, Worker
from orchestra.testing.chaos.journal import Mark
from orchestra.testing.chaos.processes import BOUND_S, LOOK_S
from orchestra.testing.chaos.proxy import CUTS, Mode, Proxy
from orchestra.testing.chaos.tally import DRAIN_S, GONE_S, SERVER_S, WORKER_S, Tally
from orchestra.testing.chaos.undertaker import living

AT_ONCE = 3
"""Workers that are struck at the same time: half of them."""

MOMENT_S = 0.3
"""A trouble comes at a moment that is drawn from so long: about as long as a task lasts."""

IN_FLIGHT_S = 0.3
"""A server that is frozen for so long before it is killed has questions that it did not read, and answers that it did not give."""

SHORT_S = (0.2, 0.8)
"""A trouble that is over before a lease is."""

HALF = 0.5
"""How probable each of two ways of the same trouble is."""

BEYOND = 0.2
"""How probable it is that a cut outlasts a lease."""

SILENT = (Mode.HALF_OPEN, Mode.ONE_WAY)
"""Cuts through which a lease is not renewed."""

BEYOND_LEASE = 1.3
"""A trouble that outlasts a lease takes so many of them."""

WORK_AFTER_SERVER = "work and answers after the server's return"
WORK_AFTER_KILL = "work and answers after the kill of the server"
AWAY = "from the kill or SIGTERM of the server to its return"
ELSEWHERE = "from the loss of a worker until its tasks run elsewhere or have ended"
GONE = "from the loss of a worker until none of its processes is left"
BACK = "from the thaw of a worker until it has work done"
THAWED = "work and answers after the thaw of the server"
HEALED = "work and answers after the end of a cut"
DRAINED = "from SIGTERM to a worker's end"
STOPPED = "from SIGTERM to the server's end"

JUDGED = "absences of the server that may cost no attempt"
UNJUDGED = "absences of the server that were too long for that"


async def server_kill(farm: Farm, rng: Random, tally: Tally) -> None:
    """SIGKILL of the server, at any moment or while it owes answers; it is started again at once."""
    await anyio.sleep(rng.uniform(0, MOMENT_S))
    server = farm.running_server
    silent_s = time.monotonic()
    if rng.random() < HALF:
        server.freeze()
        await anyio.sleep(IN_FLIGHT_S)
    server.kill()
    killed_s = time.monotonic()
    await farm.serve()
    tally.struck += 1
    tally.recovered(AWAY, farm.ready_s - killed_s, BOUND_S)
    was_away(farm, tally, farm.ready_s - silent_s)
    since = farm.journal.mark()
    took_s = await resumed(farm, tally, WORK_AFTER_SERVER, SERVER_S, since)
    if took_s is not None:
        tally.recovered(WORK_AFTER_KILL, since.at_s + took_s - killed_s, BOUND_S)


def was_away(farm: Farm, tally: Tally, away_s: float) -> None:
    """The server answered nobody for so long: that may have cost no attempt, unless it was longer than leases are made for."""
    if away_s < farm.plan.away_s:
        tally.counts[JUDGED] += 1
    else:
        tally.counts[UNJUDGED] += 1
        farm.risk(farm.workers)


async def resumed(farm: Farm, tally: Tally, what: str, bound_s: float, since: Mark) -> float | None:
    """Wait until work is done and a client is answered; how long it took from the moment is a recovery, and returned."""
    try:
        took_s = await farm.resumed_s(since, farm.plan.patience_s)
    except TimeoutError:
        took_s = None
    tally.recovered(what, took_s, bound_s)
    return took_s


def chosen(farm: Farm, rng: Random) -> list[Worker]:
    """The workers that a trouble strikes at once; they are no workers of the farm any more."""
    victims = rng.sample(farm.workers, min(AT_ONCE, len(farm.workers) - 1))
    for victim in victims:
        farm.workers.remove(victim)
    return victims


async def elsewhere(farm: Farm, tally: Tally, held: dict[str, int], since: Mark) -> None:
    """Wait until what was held runs elsewhere or has ended."""
    took_s = None
    try:
        await farm.until(lambda: farm.journal.moved_on(held, since), 2 * WORKER_S)
        took_s = time.monotonic() - since.at_s
    except TimeoutError:
        pass
    tally.recovered(ELSEWHERE, took_s, WORKER_S)


async def gone(victims: list[Worker], tally: Tally, since_s: float) -> None:
    """Wait until no process of these workers is left."""
    marks = [mark for victim in victims for mark in victim.marks]
    left = living(marks)
    while left and time.monotonic() < since_s + 2 * GONE_S:
        await anyio.sleep(LOOK_S)
        left = living(marks)
    tally.recovered(GONE, None if left else time.monotonic() - since_s, GONE_S)
    tally.broken += map(str, left)


def held_by(farm: Farm, workers: list[Worker]) -> dict[str, int]:
    """The tasks that are in the hands of these workers, with the numbers of their attempts."""
    farm.journal.read()
    return {
        task: number
        for worker in workers
        for task, number in farm.journal.held(worker.folder).items()
    }


async def worker_kill(farm: Farm, rng: Random, tally: Tally) -> None:
    """SIGKILL of three workers at once; another process takes the place of each, at once under its name or later under a new one."""
    await anyio.sleep(rng.uniform(0, MOMENT_S))
    victims = chosen(farm, rng)
    at_once = rng.random() < HALF
    held = held_by(farm, victims)
    since = farm.journal.mark()
    farm.risk(victims)
    for victim in victims:
        victim.child.kill()
    if at_once:
        for victim in victims:
            farm.join(victim.name, victim.door)
    tally.struck += len(victims)
    tally.counts["tasks that were in the hands of lost workers"] += len(held)
    async with anyio.create_task_group() as group:
        group.start_soon(gone, victims, tally, since.at_s)
        group.start_soon(elsewhere, farm, tally, held, since)
    if not at_once:
        for victim in victims:
            farm.join(door=victim.door)
    await all_ended(farm, held)
    await farm.at_work()  # whoever is killed next has joined


async def all_ended(farm: Farm, held: dict[str, int]) -> None:
    """What was lost is done before the next trouble: a task that is lost three times is given up, as it should be."""
    await farm.until(lambda: all(task in farm.journal.ended for task in held))


async def freeze(farm: Farm, rng: Random, tally: Tally) -> None:
    """SIGSTOP of three workers for longer than a lease, each alone or with all that it started, then SIGCONT."""
    await anyio.sleep(rng.uniform(0, MOMENT_S))
    victims = rng.sample(farm.workers, min(AT_ONCE, len(farm.workers) - 1))
    held = held_by(farm, victims)
    farm.risk(victims)
    since = farm.journal.mark()
    for victim in victims:
        whole = rng.random() < HALF
        victim.child.freeze(whole=whole)
        tally.counts["workers frozen with all that they started"] += whole
    tally.struck += len(victims)
    tally.counts["tasks that were in the hands of lost workers"] += len(held)
    await elsewhere(farm, tally, held, since)
    left_s = since.at_s + farm.plan.lease_ms / 1_000 * BEYOND_LEASE - time.monotonic()
    await anyio.sleep(max(0.0, left_s))
    thawed = farm.journal.mark()
    for victim in victims:
        victim.child.thaw()
    await returned(farm, tally, BACK, victims, thawed)
    await all_ended(farm, held)


async def returned(farm: Farm, tally: Tally, what: str, workers: list[Worker], since: Mark) -> None:
    """Wait until each of these workers has done something that it began after the moment."""
    try:
        await farm.until(
            lambda: all(farm.journal.work_s(since, each.folder) is not None for each in workers)
        )
    except TimeoutError:
        tally.recovered(what, None, WORKER_S)
        return
    for each in workers:
        done_s = farm.journal.work_s(since, each.folder)
        tally.recovered(what, None if done_s is None else done_s - since.at_s, WORKER_S)


async def server_freeze(farm: Farm, rng: Random, tally: Tally) -> None:
    """SIGSTOP of the server for less than a lease, then SIGCONT."""
    await anyio.sleep(rng.uniform(0, MOMENT_S))
    frozen_s = time.monotonic()
    farm.running_server.freeze()
    await anyio.sleep(rng.uniform(*SHORT_S))
    since = farm.journal.mark()
    farm.running_server.thaw()
    was_away(farm, tally, since.at_s - frozen_s)
    tally.struck += 1
    await resumed(farm, tally, THAWED, SERVER_S, since)


async def cut(farm: Farm, rng: Random, tally: Tally) -> None:
    """Every proxy is in the way for a short time, each in its own manner; or nothing comes through one for longer than a lease."""
    await anyio.sleep(rng.uniform(0, MOMENT_S))
    if rng.random() < BEYOND:
        modes = {rng.choice(farm.doors): rng.choice(SILENT)}
        hold_s = farm.plan.lease_ms / 1_000 * BEYOND_LEASE
        tally.counts["cuts for longer than a lease"] += 1
    else:
        modes = {door: rng.choice(CUTS) for door in (*farm.doors, *farm.client_doors.values())}
        hold_s = rng.uniform(*SHORT_S)
    await cut_off(farm, tally, modes, hold_s)


async def cut_off(farm: Farm, tally: Tally, modes: Mapping[Proxy, Mode], hold_s: float) -> None:
    """Turn proxies to modes for a while, and wait until there is work and there are answers behind each."""
    held = held_by(farm, farm.workers)
    farm.risk(each for each in farm.workers if each.door in modes)
    for door, mode in modes.items():
        await door.turn(mode)
        tally.struck += 1
        tally.counts[str(mode)] += 1
    await anyio.sleep(hold_s)
    since = farm.journal.mark()
    for door in modes:
        await door.turn(Mode.CLEAR)
    async with anyio.create_task_group() as group:
        for door in farm.doors:
            group.start_soon(_works_again, farm, tally, door, since)
        for client in farm.clients:
            group.start_soon(_answered_again, farm, tally, client, since)
    await all_ended(farm, held)


async def _works_again(farm: Farm, tally: Tally, door: Proxy, since: Mark) -> None:
    behind = [each for each in farm.workers if each.door is door]

    def first_s() -> float | None:
        found = (farm.journal.work_s(since, each.folder) for each in behind)
        return min((each for each in found if each is not None), default=None)

    with contextlib.suppress(TimeoutError):
        await farm.until(lambda: first_s() is not None)
    done_s = first_s()
    tally.recovered(HEALED, None if done_s is None else done_s - since.at_s, WORKER_S)


async def _answered_again(farm: Farm, tally: Tally, client: str, since: Mark) -> None:
    with contextlib.suppress(TimeoutError):
        await farm.until(lambda: farm.journal.answer_s(since, client) is not None)
    answer_s = farm.journal.answer_s(since, client)
    tally.recovered(HEALED, None if answer_s is None else answer_s - since.at_s, WORKER_S)


async def drain(farm: Farm, rng: Random, tally: Tally) -> None:
    """SIGTERM of three workers, whose places others take; then of the server, which is started again."""
    await anyio.sleep(rng.uniform(0, MOMENT_S))
    victims = chosen(farm, rng)
    since_s = time.monotonic()
    async with anyio.create_task_group() as group:
        for victim in victims:
            group.start_soon(_drained, victim, tally)
            farm.join(door=victim.door)
    await gone(victims, tally, since_s)
    await farm.at_work()
    since_s = time.monotonic()
    code = await farm.running_server.end()
    ended_s = time.monotonic()
    tally.recovered(STOPPED, ended_s - since_s, DRAIN_S)
    if code:
        tally.broken.append(
            f"the server ended with code {code}: {farm.running_server.last_words()}"
        )
    await farm.serve()
    tally.recovered(AWAY, farm.ready_s - since_s, BOUND_S)
    was_away(farm, tally, farm.ready_s - since_s)
    tally.struck += len(victims) + 1
    await resumed(farm, tally, WORK_AFTER_SERVER, SERVER_S, farm.journal.mark())


async def _drained(victim: Worker, tally: Tally) -> None:
    since_s = time.monotonic()
    try:
        code = await victim.child.end()
    except TimeoutError:
        tally.recovered(DRAINED, None, DRAIN_S)
        return
    tally.recovered(DRAINED, time.monotonic() - since_s, DRAIN_S)
    if code:
        tally.broken.append(f"{victim.name} ended with code {code}: {victim.child.last_words()}")
