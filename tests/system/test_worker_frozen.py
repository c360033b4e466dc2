"""
A worker that is frozen, its agent alone or with all its processes: its work runs elsewhere in time, and when it is thawed its late
result is kept as evidence and changes nothing. A patient worker does not end its attempts before the lease does, so its late
results are those of attempts that completed.

The negative controls forget the fence, and have a lease that is too long, and see the same checks fail.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestra.client import Client
from orchestra.ports import Moved
from orchestra.statemachine.commands import SubmitJob
from orchestra.statemachine.replies import TaskView
from tests.system.farm import Farm, open_farm, until
from tests.system.laws import (
    changed_by_late_result,
    lives,
    not_ended_once,
    slower_than,
    still_alive,
)

pytestmark = [pytest.mark.anyio, pytest.mark.system, pytest.mark.slow, pytest.mark.prompt]

ELSEWHERE_S = 10.0
GUARDED_S = 6.0
"""The guardian ends what a frozen agent runs before the lease is over, and the lease is 6 s."""

SOON_S = 2.0
"""What never happens is waited for no longer: the lease of the control is 60 s."""

SCRIPT = """
echo "$ORCHESTRA_ATTEMPT_NUMBER" >> "$RUNS/$ORCHESTRA_TASK"
echo "$ORCHESTRA_ATTEMPT_NUMBER" > result.json
if [ "$ORCHESTRA_ATTEMPT_NUMBER" = 1 ]; then
    if [ "$1" = 0 ]; then sleep 2; else trap '' TERM; setsid sleep 1000 & sleep 1000; fi
else
    while [ ! -e "$RUNS/../go" ]; do sleep 0.05; done
fi
"""
"""
Of the first attempts one is done soon, and the other hangs with a descendant in a session of its own. The next ones wait for the test.
"""


class Evidence(NamedTuple):
    """What came of a job whose worker was frozen and thawed."""

    acknowledged: dict[str, int]
    before: list[TaskView]
    after: list[TaskView]
    story: list[Moved]
    results: list[object]
    elsewhere_s: float
    guarded_s: float | None


async def tasks_of(farm: Farm, job_id: str) -> list[TaskView]:
    async with farm.client() as client:
        return [await client.task(each.id) for each in await (await client.job(job_id)).tasks()]


async def frozen(
    farm: Farm, *, whole: bool, way: str, server_breaks: str = "", bound_s: float = ELSEWHERE_S + 5
) -> Evidence:
    """
    Freeze the worker that runs both tasks, wait until they run elsewhere, thaw it and wait for its late word.

    Raises:
        TimeoutError: They did not run elsewhere within the bound.
    """
    await farm.serve(server_breaks)
    one = await farm.join("one", 2, way=way)
    async with farm.client() as client:
        work = SubmitJob("freezes", (farm.stage(SCRIPT, 2, word="{item}"),))
        job_id = (await client.submit(work)).id
    await until(lambda: len(farm.runs()) == 2)
    await until(lambda: any("1000" in each for each in still_alive(farm.mark)))
    hung = [each for each in one.tree() if "1000" in each.cmdline()]
    farm.freeze(*(one.tree() if whole else one.tree()[:1]))
    frozen_s = time.monotonic()
    await farm.join("two", 2, scheme="ws", way="on trio")

    async def both_run_again(client: Client) -> bool:
        views = await (await client.job(job_id)).tasks()
        return all(task.status == "running" and task.worker != "one" for task in views) and all(
            2 in runs for runs in farm.runs().values()
        )

    guarded_s = None
    if not way and not whole:
        await until(lambda: not any(map(lives, hung)), GUARDED_S + 2)
        guarded_s = time.monotonic() - frozen_s
    await farm.until(both_run_again, bound_s)
    elsewhere_s = time.monotonic() - frozen_s
    before = await tasks_of(farm, job_id)
    farm.thaw()

    async def late_words_came(client: Client) -> bool:
        views = [await client.task(task.id) for task in before]
        pairs = zip(before, views, strict=True)
        return all(
            was.attempts[0] != now.attempts[0] or was.status != now.status for was, now in pairs
        )

    await farm.until(late_words_came)
    after = await tasks_of(farm, job_id)
    (farm.folder / "go").touch()
    async with farm.client() as client:
        results = await (await client.job(job_id)).results(timeout_s=20)
    await until(lambda: not still_alive(farm.mark))
    story = await farm.story()
    return Evidence({job_id: 2}, before, after, story, results, elsewhere_s, guarded_s)


def changes(seen: Evidence) -> list[str]:
    pairs = zip(seen.before, seen.after, strict=True)
    return [broken for was, now in pairs for broken in changed_by_late_result(was, now)]


# The default lease where times are measured that go by it; a short one where it only has to be over.
@pytest.mark.parametrize(
    ("whole", "way", "lease_ms"),
    [(False, "", 6_000), (True, "", 6_000), (False, "patient", 2_000)],
    ids=["agent", "group", "patient"],
)
async def test_its_late_result_changes_nothing(
    tmp_path: Path, told: Callable[[str], None], *, whole: bool, way: str, lease_ms: int
) -> None:
    async with open_farm(tmp_path, lease_ms=lease_ms) as farm:
        seen = await frozen(farm, whole=whole, way=way)
        assert set(map(tuple, farm.runs().values())) == {(1, 2)}
    told(f"ran elsewhere after {seen.elsewhere_s:.2f} s")
    assert changes(seen) == []
    # Which word it is depends on what the thawed worker looks at first: its clock, or how its processes ended.
    assert all(task.attempts[0].late_outcome for task in seen.after)
    assert not_ended_once(seen.acknowledged, seen.story) == []
    assert seen.results == [2, 2]
    assert slower_than(ELSEWHERE_S, [seen.elsewhere_s]) == []
    if seen.guarded_s is not None:
        told(f"its processes were gone after {seen.guarded_s:.2f} s")
        assert slower_than(GUARDED_S, [seen.guarded_s]) == []


async def test_a_server_that_takes_late_results_is_found_out(tmp_path: Path) -> None:
    async with open_farm(tmp_path, lease_ms=2_000) as farm:
        seen = await frozen(farm, whole=False, way="patient", server_breaks="fence late results")
    broken = changes(seen)
    # Taken as completed or as stopped: which word it is depends on what the thawed worker looks at first. What was taken
    # as stopped may already run for the third time when the test looks, so the task's status can be the same as before.
    assert any("status of attempt 2 was" in each for each in broken), broken
    assert "the late result is not kept as evidence" in broken


async def test_a_lease_that_is_too_long_is_found_out(tmp_path: Path) -> None:
    async with open_farm(tmp_path, lease_ms=60_000) as farm:
        with pytest.raises(TimeoutError):
            await frozen(farm, whole=True, way="", bound_s=SOON_S)
        # What was waited for in vain is the lease: the other worker is there, and has nothing to do.
        async with farm.client() as client:
            assert {each.name: each.held for each in await client.workers()} == {"one": 2, "two": 0}
        assert list(farm.runs().values()) == [[1]] * 2
        farm.thaw()
        farm.children[1].kill()
        await until(lambda: not still_alive(farm.mark))
