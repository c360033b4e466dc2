"""
``kill -9`` of the server in the middle of a job, five times: no acknowledged task is lost, none runs twice, and work goes on at once.

The negative controls break one law each and see the same checks fail.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import anyio
import psutil
import pytest

from orchestra.client import Client
from orchestra.errors import Unavailable
from orchestra.ports import Moved
from orchestra.statemachine.commands import SubmitJob
from orchestra.statemachine.lifecycles import JOB_FINAL
from orchestra.statemachine.queries import GetOverview
from tests.system.farm import BOUND_S, Child, Farm, open_farm, until
from tests.system.laws import not_ended_once, not_run_once, slower_than, still_alive

pytestmark = [pytest.mark.anyio, pytest.mark.system, pytest.mark.slow, pytest.mark.prompt]

NOTE = 'echo "$ORCHESTRA_ATTEMPT_NUMBER" >> "$RUNS/$ORCHESTRA_TASK"'
SCRIPT = f"{NOTE}; sleep 0.05"
SLOW_SCRIPT = f"{NOTE}; sleep 0.4"
"""Long enough to be seen running: a server that is frozen then leaves their ends on the way, not the word that they run."""

RECOVERY_S = 2.0
SLOTS = 4
PRESENT = -1

if sys.platform != "linux":
    pytest.skip("needs Linux", allow_module_level=True)


class Submitter:
    """Submits jobs of one task, again with the same key while the answer is unknown, and remembers what was acknowledged."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self.acknowledged: dict[str, int] = {}
        self.enough = False

    async def run(self) -> None:
        number = 0
        while not self.enough:
            try:
                async with self.farm.client() as client:
                    while not self.enough:
                        work = SubmitJob(f"extra-{number}", (self.farm.stage(SCRIPT, 1),))
                        accepted = await client.asker.ask(work, key=f"extra-{number}")
                        self.acknowledged[accepted.job_id] = accepted.tasks
                        number += 1
                        await anyio.sleep(0.1)
            except Unavailable:
                await anyio.sleep(0.02)


async def submit(farm: Farm, tasks: int, script: str) -> dict[str, int]:
    async with farm.client() as client:
        job = await client.submit(SubmitJob("many", (farm.stage(script, tasks),)), key="many")
    return {job.id: tasks}


async def nothing_goes_on(client: Client) -> bool:
    """Whether every job that the server knows has ended."""
    jobs = await client.jobs(limit=500)
    return bool(jobs) and all(job.status in JOB_FINAL for job in jobs)


async def crash(farm: Farm, server: Child, *, in_flight: bool = False) -> None:
    """Kill the server; with ``in_flight`` at a moment when workers wait for its answer to their reports."""
    if in_flight:
        farm.freeze(psutil.Process(server.pid))
        # Frozen, it gives out nothing new: what is running ends, and the reports of both workers and a submission wait for it.
        await until(lambda: not still_alive(farm.mark))
        await until(lambda: farm.unread() >= 3)
    server.kill()


async def recovered_in(farm: Farm, patience_s: float) -> float:
    """Seconds from the server's word that it serves to the next end of a task that is seen; infinite when there is none."""
    try:
        await farm.ends(1, PRESENT, patience_s)
    except TimeoutError:
        return math.inf
    return time.monotonic() - farm.ready_s


async def all_seen_running(client: Client) -> bool:
    """Whether every slot has an attempt that was reported as running."""
    return (await client.asker.answer(GetOverview())).tasks.get("running", 0) == SLOTS


class Evidence(NamedTuple):
    """What came of a job during which the server was killed."""

    acknowledged: dict[str, int]
    story: list[Moved]
    runs: dict[str, list[int]]
    recoveries_s: list[float]


async def killed_again_and_again(
    farm: Farm,
    tasks: int,
    in_flight: tuple[bool, ...],
    *,
    script: str = SCRIPT,
    server_breaks: str = "",
    worker_breaks: str = "",
    patience_s: float = BOUND_S,
) -> Evidence:
    """Run a job and kill the server once for each of ``in_flight`` (see `crash`), at another moment each time."""
    recoveries_s: list[float] = []
    async with anyio.create_task_group() as group:
        server = await farm.serve(server_breaks)
        await farm.join("one", SLOTS // 2, scheme="http", way=worker_breaks)
        await farm.join("two", SLOTS // 2, scheme="ws", way=worker_breaks or "on trio")
        acknowledged = await submit(farm, tasks, script)
        submitter = Submitter(farm)
        group.start_soon(submitter.run)
        for waiting in in_flight:
            await farm.ends(tasks // (len(in_flight) + 2), PRESENT)
            if script == SLOW_SCRIPT:
                await farm.until(all_seen_running)
            await crash(farm, server, in_flight=waiting)
            server = await farm.serve(server_breaks)
            recoveries_s.append(await recovered_in(farm, patience_s))
        submitter.enough = True
    with contextlib.suppress(TimeoutError):  # then the checks tell what has no end
        await farm.until(nothing_goes_on, patience_s)
    acknowledged |= submitter.acknowledged
    return Evidence(acknowledged, await farm.story(), farm.runs(), recoveries_s)


async def test_nothing_acknowledged_is_lost_or_runs_twice(
    tmp_path: Path, told: Callable[[str], None]
) -> None:
    async with open_farm(tmp_path) as farm:
        seen = await killed_again_and_again(farm, 300, (False, True, False, True, False))
    told(f"work went on after {[round(each, 2) for each in seen.recoveries_s]} s")
    told(f"{sum(map(len, seen.runs.values()))} runs, {sum(seen.acknowledged.values())} tasks")
    assert not_ended_once(seen.acknowledged, seen.story) == []
    assert len(seen.runs) == sum(seen.acknowledged.values())
    assert not_run_once(seen.runs) == []
    assert slower_than(RECOVERY_S, seen.recoveries_s) == []


async def test_a_reply_before_its_commit_is_found_out(tmp_path: Path) -> None:
    async with open_farm(tmp_path) as farm:
        seen = await killed_again_and_again(
            farm, 40, (False,), server_breaks="reply after commit", patience_s=4
        )
    broken = not_ended_once(seen.acknowledged, seen.story)
    assert any("is lost" in each for each in broken), broken


async def test_a_server_that_does_not_adopt_is_found_out(tmp_path: Path) -> None:
    async with open_farm(tmp_path) as farm:
        seen = await killed_again_and_again(
            farm, 40, (False, False), server_breaks="adopt what runs"
        )
    assert not_run_once(seen.runs) != []


async def test_a_worker_that_tells_an_end_only_once_is_found_out(tmp_path: Path) -> None:
    async with open_farm(tmp_path) as farm:
        seen = await killed_again_and_again(
            farm,
            30,
            (True,),
            script=SLOW_SCRIPT,
            worker_breaks="report until it is acknowledged",
            patience_s=5,
        )
    broken = not_ended_once(seen.acknowledged, seen.story)
    assert any("has 0 recorded ends" in each for each in broken), broken


async def test_workers_that_are_slow_to_return_are_found_out(tmp_path: Path) -> None:
    async with open_farm(tmp_path) as farm:
        seen = await killed_again_and_again(farm, 40, (False,), worker_breaks="come back at once")
    assert slower_than(RECOVERY_S, seen.recoveries_s) != []
