"""
``kill -9`` of a worker: what it ran runs elsewhere in time, and of its own processes none is left.

The negative controls take the lease and the guardian away and see the same checks fail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import anyio
import psutil
import pytest

from orchestra.client import Client
from orchestra.ports import Moved
from orchestra.statemachine.commands import SubmitJob
from orchestra.statemachine.queries import GetOverview
from tests.system.farm import Farm, open_farm, until
from tests.system.laws import not_ended_once, slower_than, still_alive

pytestmark = [pytest.mark.anyio, pytest.mark.system, pytest.mark.slow, pytest.mark.prompt]

ELSEWHERE_S = 10.0
GONE_S = 3.0
SOON_S = 3.0
"""What never happens is waited for no longer: the lease of the control is 60 s."""
TASKS = 4
TREE = """
echo "$ORCHESTRA_ATTEMPT_NUMBER" >> "$RUNS/$ORCHESTRA_TASK"
if [ "$ORCHESTRA_ATTEMPT_NUMBER" = 1 ]; then
    trap '' TERM
    setsid /bin/sh -c "trap '' TERM; sleep 1000 & sleep 1000" &
    sleep 1000
fi
"""
"""The first attempt hangs, with descendants that changed session and ignore TERM; the next one is done at once."""


class Evidence(NamedTuple):
    """What came of a job whose worker was killed."""

    acknowledged: dict[str, int]
    story: list[Moved]
    runs: dict[str, list[int]]
    elsewhere_s: float
    gone_s: float


async def all_run(farm: Farm) -> None:
    """Wait until every first attempt and its whole tree run."""
    await until(lambda: len(still_alive(farm.mark)) >= 4 * TASKS)


async def killed(farm: Farm, *, guarded: bool = True, bound_s: float = ELSEWHERE_S) -> Evidence:
    """Kill the worker that runs all tasks while another one waits for work, and see whether they end within the bound."""
    await farm.serve()
    one = await farm.join("one", TASKS)
    async with farm.client() as client:
        work = SubmitJob("hangs", (farm.stage(TREE, TASKS),))
        acknowledged = {(await client.submit(work)).id: TASKS}
    await all_run(farm)
    await farm.join("two", TASKS, scheme="ws", way="on trio")
    guardian = one.guardian()
    if not guarded:
        farm.freeze(guardian)
    one.kill()
    measured: dict[str, float] = {"elsewhere": bound_s + 1, "gone": GONE_S + 1}
    async with anyio.create_task_group() as group:
        group.start_soon(_measure_end, farm, measured, bound_s)
        group.start_soon(_measure_gone, farm, guardian, measured)
    return Evidence(
        acknowledged, await farm.story(), farm.runs(), measured["elsewhere"], measured["gone"]
    )


async def _measure_end(farm: Farm, measured: dict[str, float], bound_s: float) -> None:
    async def ended(client: Client) -> bool:
        overview = await client.asker.answer(GetOverview())
        return overview.jobs.get("completed") == 1

    with contextlib.suppress(TimeoutError):
        measured["elsewhere"] = await farm.until(ended, bound_s + 1)


async def _measure_gone(farm: Farm, guardian: psutil.Process, measured: dict[str, float]) -> None:
    with contextlib.suppress(TimeoutError):
        measured["gone"] = await until(lambda: not still_alive(farm.mark, guardian), GONE_S)


async def test_its_tasks_run_elsewhere_and_its_processes_are_gone(
    tmp_path: Path, told: Callable[[str], None]
) -> None:
    async with open_farm(tmp_path) as farm:
        seen = await killed(farm)
        assert still_alive(farm.mark) == []
    told(f"elsewhere and ended after {seen.elsewhere_s:.2f} s, gone after {seen.gone_s:.2f} s")
    assert not_ended_once(seen.acknowledged, seen.story) == []
    assert list(seen.runs.values()) == [[1, 2]] * TASKS
    assert slower_than(ELSEWHERE_S, [seen.elsewhere_s]) == []
    assert slower_than(GONE_S, [seen.gone_s]) == []


async def test_a_lease_that_is_too_long_and_a_guardian_that_sleeps_are_found_out(
    tmp_path: Path,
) -> None:
    async with open_farm(tmp_path, lease_ms=60_000) as farm:
        seen = await killed(farm, guarded=False, bound_s=SOON_S)
        assert still_alive(farm.mark) != []
        farm.thaw()
        await until(lambda: not still_alive(farm.mark))
    assert not_ended_once(seen.acknowledged, seen.story) != []
    assert slower_than(SOON_S, [seen.elsewhere_s]) != []
    assert slower_than(GONE_S, [seen.gone_s]) != []
