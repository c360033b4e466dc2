"""Starts, stops, rounds of the member and the end of the former run, step by step in every order that chance finds."""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any

import attrs
import pytest

from orchestra.dialects.asks import Dialogue
from orchestra.dialects.tango_kept import STARTS
from orchestra.dialects.tango_runs import RUNS, Runs
from orchestra.errors import OrchestraError
from orchestra.ports import Asker
from orchestra.statemachine.lifecycles import JOB_FINAL, JobStatus
from orchestra.statemachine.queries import ListJobs
from orchestra.statemachine.replies import JobView
from orchestra.statemachine.reports import Happening
from orchestra.transports.asking import put
from tests.dialects.tango_kit import Container, generator, open_container

pytestmark = pytest.mark.anyio

ORDERS = 120
"""Orders of the steps that are tried; what a start, a stop and a round have to look out for is found within them."""

IDS = ("kyunghee", "1")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The order of the steps is the test's own, and not the loop's."""
    return "asyncio"


@attrs.define
class Way:
    """Something under way: between two of its questions anything else may happen."""

    kind: str
    asker: Asker
    steps: Generator[Any, Any, Any]
    begun_at: int = -1
    over_at: int = -1
    _answer: object = None
    _error: OrchestraError | None = None

    async def step(self, now: int) -> None:
        """Go on with the answer that came before, up to the next."""
        if self.begun_at < 0:
            self.begun_at = now
        try:
            error, self._error = self._error, None
            ask = self.steps.send(self._answer) if error is None else self.steps.throw(error)
        except StopIteration:
            self.over_at = now
            return
        try:
            self._answer = await put(self.asker, ask)
        except OrchestraError as error:
            self._error = error


async def listed(container: Container, project: str = RUNS) -> list[JobView]:
    return list((await container.asker.answer(ListJobs(project=project))).items)


def may_be_last(kind: str, ways: list[Way]) -> bool:
    """Whether something of this kind may have been the last that counted: nothing of the other kind began after it was answered."""
    others = [way for way in ways if way.kind != kind]
    own = [way for way in ways if way.kind == kind]
    return any(not any(other.begun_at > one.over_at for other in others) for one in own)


async def in_some_order(container: Container, runs: Runs, chance: random.Random) -> list[Way]:
    """A run that is being stopped, and everything that may come then; what came."""

    def way(kind: str) -> Way:
        # Keys do not help: the member's own rounds are asked in another name than what comes over its wire, from several managers.
        asker = container.asker_of(kind if kind == "round" else chance.choice(("one", "two")))
        steps = {"start": lambda: runs.start(IDS), "stop": lambda: runs.stop(IDS)}
        return Way(kind, asker, steps.get(kind, runs.report)())

    async def whole(kind: str) -> Way:
        one = way(kind)
        while one.over_at < 0:
            await one.step(0)
        return one

    await whole("start")
    await container.tells(Happening.RUNNING)
    await whole("stop")
    waiting = [
        way(kind)
        for kind in chance.choices(("start", "stop"), weights=(2, 1), k=chance.randint(2, 6))
    ]
    done: list[Way] = []
    if chance.random() < 0.7:
        done.append(await whole("start"))  # it is kept before anything else begins
    rounds, ended, now = 2, chance.random() < 0.5, 1
    if ended:
        await container.tells(Happening.STOPPED)
    alive: list[Way] = []
    while waiting or alive or rounds or not ended:
        now += 1
        begin = chance.randrange(5)
        if begin == 0 and waiting:
            alive.append(waiting.pop())
        elif begin == 1 and rounds and not any(each.kind == "round" for each in alive):
            rounds -= 1
            alive.append(way("round"))
        elif begin == 2 and not ended:
            ended = True
            await container.tells(Happening.STOPPED)
        elif alive:
            one = chance.choice(alive)
            await one.step(now)
            if one.over_at >= 0:
                alive.remove(one)
                done.append(one)
            live = [j for j in await listed(container) if j.status not in JOB_FINAL]
            assert len(live) <= 1, "two at once"
    for _ in range(3):
        if await container.is_stopping():
            await container.tells(Happening.STOPPED)
        await whole("round")
    return [each for each in done if each.kind != "round"]


async def test_what_was_answered_last_counts_and_nothing_runs_twice() -> None:
    seen = {True: 0, False: 0}
    over = (*JOB_FINAL, JobStatus.CANCELLING)
    for seed in range(ORDERS):
        async with open_container() as container:
            runs = Runs(generator().draft_for, None, lambda: 0, container.manager.call_all)
            ways = await in_some_order(container, runs, random.Random(seed))
            jobs = await listed(container)
            runs_now = any(job.status not in over for job in jobs)
            told = (seed, [(way.kind, way.begun_at, way.over_at) for way in ways])
            assert may_be_last("start" if runs_now else "stop", ways), told
            starts = await listed(container, STARTS)
            assert all(job.status is JobStatus.CANCELLED for job in starts), told
            assert len(jobs) <= 2 + sum(way.kind == "stop" for way in ways), told
            seen[runs_now] += 1
            other = Runs(generator().draft_for, None, lambda: 0, container.manager.call_all)
            words = [
                await put(container.asker, Dialogue(lambda each=each: each.word(IDS)))
                for each in (runs, other)
            ]
            assert words[0] == words[1], ("after a restart", told)
    assert min(seen.values()) > ORDERS // 10, seen


STEPS_MAX = 8


@pytest.mark.parametrize("first", ["round", "stop"])
async def test_a_stop_at_each_step_of_the_round_that_begins_a_kept_start(first: str) -> None:
    seen: set[int] = set()
    for steps in range(STEPS_MAX):
        async with open_container() as container:
            runs = Runs(generator().draft_for, None, lambda: 0, container.manager.call_all)

            async def whole(way: Way) -> None:
                while way.over_at < 0:
                    await way.step(0)

            asker, rounds = container.asker, container.asker_of("round")
            await whole(Way("start", asker, runs.start(IDS)))
            await container.tells(Happening.RUNNING)
            for begin in (runs.stop, runs.start):
                await whole(Way("", asker, begin(IDS)))
            await container.tells(Happening.STOPPED)
            ways = {
                "round": Way("round", rounds, runs.report()),
                "stop": Way("stop", asker, runs.stop(IDS)),
            }
            slow = ways.pop(first)
            for _ in range(steps):
                if slow.over_at < 0:
                    await slow.step(0)
            (other,) = ways.values()
            # What can not decide anything yet waits, so the slow one goes on after as many steps as that may take.
            for _ in range(3 * STEPS_MAX):
                if other.over_at < 0:
                    await other.step(0)
            await whole(slow)
            await whole(other)
            await whole(Way("round", rounds, runs.report()))
            over = (*JOB_FINAL, JobStatus.CANCELLING)
            jobs = await listed(container)
            assert all(job.status in over for job in jobs), (first, steps)
            assert all(job.status in over for job in await listed(container, STARTS))
            seen.add(len(jobs))
    assert 1 in seen, "it was taken back in time"
