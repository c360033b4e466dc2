"""Farms that are put through one kind of trouble again and again, and judged at the end."""

from __future__ import annotations

import inspect
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from types import MappingProxyType

import anyio
import attrs

from orchestra.client import Client, Job
from orchestra.compose import connect
from orchestra.ports import Moved, Story
from orchestra.statemachine.queries import ListJobs
from orchestra.testing.chaos import laws, scarcity, troubles
from orchestra.testing.chaos.farm import Farm, Plan, running_farm
from orchestra.testing.chaos.ledger import Entry, Ledger
from orchestra.testing.chaos.tally import DRAIN_S, Tally
from orchestra.testing.chaos.undertaker import undertaken

EPISODE = 50
"""Troubles that one farm is put through: its file and its story stay small, and another one begins with other draws."""

LASTING_MS = 10_000
"""
The lease where the server is stopped and started: with it 5 s of absence cost no attempt, which is judged on a busy machine as well.
"""

PAGE = 500

RARE = 5
"""Rare kinds come once for so many times that the others do."""

TOLD_MAX = 5
"""Broken laws told of one episode; the first says it all."""

ENDED = "until everything has ended, after the last trouble"
TASKS_DONE = "tasks that were acknowledged and have one recorded end"
FURTHER = "attempts beyond the first of their task"
ANEW = "attempts that were made anew"
AT_RISK = "attempts that may have been lost"
UNSTRUCK = "attempts lost for short leases on a busy machine"
JOBS = "jobs that were acknowledged"
AGAIN = "questions without an answer, asked again"
OF_EVERY_KIND = frozenset({TASKS_DONE, FURTHER, JOBS, AGAIN})
"""Counts that add up over all kinds."""


Strike = Callable[[Farm, Random, Tally], Awaitable[None]]


@attrs.frozen(slots=True, kw_only=True)
class Kind:
    """
    One kind of trouble.

    Args:
        strike: Does it once, and waits until all is well again.
        restarts: The server is stopped and started, which costs no attempt as long as leases last.
        overlaps: A machine is frozen and wakes up: then what runs there goes on for as long as it takes to notice.
        kills: Whatever is struck never returns.
        rare: A fifth of the others' rounds: it says less, or takes longer.
    """

    strike: Strike
    restarts: bool = False
    overlaps: bool = False
    kills: bool = False
    rare: bool = False
    small_disk: bool = False
    fake_clock: bool = False


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "server-kill": Kind(strike=troubles.server_kill, restarts=True),
        "worker-kill": Kind(strike=troubles.worker_kill, kills=True),
        "freeze": Kind(strike=troubles.freeze, overlaps=True),
        "cut": Kind(strike=troubles.cut),
        "server-freeze": Kind(strike=troubles.server_freeze, rare=True),
        "disk": Kind(strike=scarcity.disk, rare=True, small_disk=True),
        "memory": Kind(strike=scarcity.memory, rare=True),
        "descriptors": Kind(strike=scarcity.descriptors, rare=True),
        "clock": Kind(strike=scarcity.clock, rare=True, fake_clock=True),
        "calendar": Kind(strike=scarcity.calendar, rare=True, fake_clock=True, restarts=True),
        "drain": Kind(strike=troubles.drain, rare=True, restarts=True),
    }
)
"""Every kind by name."""

LEASED = ("worker-kill", "freeze", "cut")
"""Kinds that wait for leases to end: with a shorter one they are quicker."""


LONG_LEASES = 1.5
"""Where leases end, some tasks outlast them: a worker that is cut off and does not end them runs them beside their next attempts."""


@attrs.frozen(slots=True)
class Episode:
    """One farm, and what it is put through: ``troubles`` of one kind, drawn from the seed."""

    kind: str
    seed: int
    troubles: int

    def line(self, lease_ms: int) -> str:
        """What plays it again."""
        rounds = self.troubles * (RARE if KINDS[self.kind].rare else 1)
        words = f"--only {self.kind} --seed {self.seed} --rounds {rounds} --lease {lease_ms}ms"
        return f"python -m orchestra prove chaos {words}"


def episodes(kinds: Sequence[str], rounds: int, seed: int) -> list[Episode]:
    """What has to be played for so many troubles of each kind (a fifth of the rare ones), each farm with a seed of its own."""
    found: list[Episode] = []
    for name in kinds:
        left = -(-rounds // RARE) if KINDS[name].rare else rounds
        number = 0
        while left > 0:
            found.append(Episode(name, seed + number, min(left, EPISODE)))
            left -= EPISODE
            number += 1
    return found


async def play(episode: Episode, plan: Plan) -> Tally:
    """Put one farm through an episode, and judge it."""
    kind = KINDS[episode.kind]
    lease_ms = plan.lease_ms
    if kind.fake_clock:
        plan = attrs.evolve(plan, faked=scarcity.fake_clock())
    if episode.kind in LEASED:
        plan = attrs.evolve(plan, long_s=LONG_LEASES * lease_ms / 1_000)
    else:
        plan = attrs.evolve(plan, lease_ms=LASTING_MS if kind.restarts else Plan().lease_ms)
    tally, folder = await put_through(episode, kind, plan)
    if tally.broken:
        kept = f"{episode.line(lease_ms)}; what was written down is in {folder}"
        tally.broken = [f"{told} (again: {kept})" for told in tally.broken[:TOLD_MAX]]
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return tally


async def put_through(episode: Episode, kind: Kind, plan: Plan) -> tuple[Tally, Path]:
    """As `play`, with this kind and exactly this plan; the count, and the folder with all that was written down, which stays."""
    tally = Tally()
    folder = Path(tempfile.mkdtemp(prefix="orchestra-chaos-"))
    with undertaken(folder):
        await _put_through(episode, kind, plan, folder, tally)
    return tally, folder


async def _put_through(
    episode: Episode, kind: Kind, plan: Plan, folder: Path, tally: Tally
) -> None:
    rng = Random(f"{episode.kind} {episode.seed}")
    async with _placed(folder, kind, plan, episode.seed) as farm:
        try:
            while tally.struck < episode.troubles and not tally.broken:
                await kind.strike(farm, rng, tally)
                tally.broken += farm.died()
            await _judge(farm, kind, tally)
        except (TimeoutError, RuntimeError, OSError) as error:
            tally.broken += [f"{type(error).__name__}: {error}", *farm.died()]


@asynccontextmanager
async def _placed(folder: Path, kind: Kind, plan: Plan, seed: int) -> AsyncGenerator[Farm]:
    """A farm at work, its server's file on a small disk if the kind wants one."""
    if not kind.small_disk:
        async with running_farm(folder, plan, seed) as farm:
            yield farm
        return
    with scarcity.small_disk(folder) as place:
        async with running_farm(folder, plan, seed, place and place / "served.db") as farm:
            yield farm


async def _judge(farm: Farm, kind: Kind, tally: Tally) -> None:
    """Let everything end, and hold what was written down against the store, as a server tells it that was killed before."""
    began_s = time.monotonic()
    async with anyio.create_task_group() as group:
        for name, client in farm.clients.items():
            group.start_soon(_left, name, partial(client.end, farm.plan.patience_s), tally)
    tally.recovered(ENDED, time.monotonic() - began_s, farm.plan.patience_s + 1)
    farm.running_server.kill()
    await farm.serve()
    seen = await evidence(farm)
    for law in (*laws.ALWAYS, *(() if kind.overlaps else (laws.overlapping,))):
        _hold(tally, law, law(seen))
    unstruck = 0
    if farm.plan.lease_ms < Plan().lease_ms:
        unstruck = laws.lost_unstruck(seen, farm.at_risk, kills=kind.kills)
        tally.counts[UNSTRUCK] += unstruck
    _hold(tally, laws.needless, laws.needless(seen, farm.at_risk + unstruck))
    further = laws.further_attempts(seen)
    tally.counts[FURTHER] += further
    tally.counts[ANEW] += further - laws.handed_back(seen)
    tally.counts[AT_RISK] += farm.at_risk
    tally.counts[TASKS_DONE] += sum(tasks for _, _, tasks in seen.jobs)
    tally.counts[JOBS] += sum(told.kind == "ack" for told in seen.told)
    tally.counts[AGAIN] += sum(told.kind == "fail" for told in seen.told)
    async with anyio.create_task_group() as group:
        for worker in farm.workers:
            group.start_soon(_left, worker.name, partial(worker.child.end, DRAIN_S), tally)
    await _left("the server", partial(farm.running_server.end, DRAIN_S), tally)
    farm.workers.clear()
    farm.clients.clear()
    farm.server = None
    tally.broken += farm.leftovers()


def _hold(tally: Tally, law: Callable[..., list[str]], broken: list[str]) -> None:
    """A law was looked at."""
    tally.laws[(inspect.getdoc(law) or "").splitlines()[0]] += len(broken)
    tally.broken += broken


async def _left(name: str, end: Callable[[], Awaitable[int]], tally: Tally) -> None:
    try:
        code = await end()
    except TimeoutError:
        tally.broken.append(f"{name} was asked to end and did not")
        return
    if code:
        tally.broken.append(f"{name} ended with code {code}")


async def evidence(farm: Farm) -> laws.Evidence:
    """All that was written down and all that is stored."""
    farm.journal.read()
    async with connect(farm.url) as client:
        jobs = await _jobs(client)
        results: dict[str, bytes | None] = {}
        for id, _, _ in jobs:
            async for end in Job[object](client, id, 0, None).ends():
                if end.status == "completed":
                    results[end.task_id] = end.result
        return laws.Evidence(
            told=farm.journal.told,
            runs=farm.journal.runs,
            jobs=jobs,
            story=await _story(client),
            results=results,
        )


async def _jobs(client: Client) -> list[tuple[str, str, int]]:
    found: list[tuple[str, str, int]] = []
    after = ""
    while True:
        page = await client.asker.answer(ListJobs("", "", after, PAGE))
        found += [(job.id, job.name, job.tasks) for job in page.items]
        after = page.next
        if not after:
            return found


async def _story(client: Client) -> list[Moved]:
    found: list[Moved] = []
    while True:
        page = await client.asker.story(Story(found[-1].number if found else 0, PAGE))
        found.extend(page)
        if len(page) < PAGE:
            return found


def unjudged(tallies: Mapping[str, Tally]) -> list[str]:
    """Kinds whose server was away for so long each time that it was not judged whether that cost attempts."""
    return [
        f"{kind}: each of {tally.counts[troubles.UNJUDGED]} absences of the server was too long to say that it may cost no attempt"
        for kind, tally in tallies.items()
        if tally.counts[troubles.UNJUDGED] and not tally.counts[troubles.JUDGED]
    ]


async def play_all(
    wanted: Sequence[Episode],
    plan: Plan,
    together: int,
    *,
    told: Callable[[Entry], None],
    ledger: Ledger,
    commit: str = "",
) -> list[Entry]:
    """
    Play episodes, some at the same time; what came of each.

    Args:
        together: How many farms at the same time.
        told: Called with each that ended.
        ledger: What is on it is not played; what ends well is put there.
        commit: Of the code that is run.
    """
    found: list[Entry] = []
    left: list[Episode] = []
    for episode in wanted:
        known = ledger.find(episode.kind, episode.seed, episode.troubles, plan.lease_ms)
        if known is None:
            left.insert(0, episode)
        else:
            found.append(known)

    async def player() -> None:
        while left:
            episode = left.pop()
            began_s = time.monotonic()
            tally = await play(episode, plan)
            took_s = time.monotonic() - began_s
            asked = (episode.kind, episode.seed, episode.troubles, plan.lease_ms)
            entry = Entry(*asked, commit, took_s, tally)
            found.append(entry)
            ledger.add(entry)
            told(entry)

    async with anyio.create_task_group() as group:
        for _ in range(together):
            group.start_soon(player)
    return found


def by_kind(entries: Sequence[Entry]) -> dict[str, Tally]:
    """The count of each kind, in the order of `KINDS`."""
    tallies = {kind: Tally() for kind in KINDS if any(kind == entry.kind for entry in entries)}
    for entry in entries:
        tallies[entry.kind].add(entry.tally)
    return tallies
