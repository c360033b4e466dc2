"""A job of 100,000 tasks in a file: every answer comes in well under a second, also while its tasks are made and cancelled."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

import orchestra
from orchestra.client import Client, Job
from orchestra.statemachine.queries import ListTasks
from tests.system.laws import slower_than

pytestmark = [pytest.mark.anyio, pytest.mark.system, pytest.mark.slow]

T = TypeVar("T")

TASKS = 100_000
ANSWER_S = 1.0
SUBMIT_LIST_S = 2.0
"""A list is 100,000 items to encode and to store; a range is three numbers."""

BYTES_PER_TASK_MAX = 2_000
BOUND_S = 60.0


class Stopwatch:
    """How long each kind of question took at most, in seconds."""

    def __init__(self) -> None:
        self.until_s = time.perf_counter() + BOUND_S
        self.longest_s: dict[str, float] = {}

    async def time(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        began = time.perf_counter()
        assert began < self.until_s, f"not done in time: {self.longest_s}"
        answer = await work()
        took_s = time.perf_counter() - began
        self.longest_s[what] = max(took_s, self.longest_s.get(what, 0.0))
        return answer


async def ask_all(client: Client, job: Job[int], watch: Stopwatch) -> None:
    """What people ask of a job."""
    await watch.time("list", lambda: client.asker.answer(ListTasks(job.id, limit=100)))
    await watch.time("why job", job.why)
    await watch.time("view", job.view)


def resident_bytes() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("kind", ["range", "list"])
async def test_every_answer_is_quick(
    kind: str, tmp_path: Path, told: Callable[[str], None]
) -> None:
    app = orchestra.App(str(tmp_path / "farm.db"))

    @app.task
    async def noop(number: int) -> int:
        return number

    items = range(TASKS) if kind == "range" else [number * 7 for number in range(TASKS)]
    watch = Stopwatch()
    async with app.run(workers=0) as client:
        before = resident_bytes()
        job = await watch.time("submit", lambda: client.submit(noop.map(items)))
        while sum((await watch.time("view", job.view)).counts.values()) < TASKS:
            await ask_all(client, job, watch)
        bytes_per_task = (resident_bytes() - before) / TASKS
        await ask_all(client, job, watch)
        await watch.time("why task", lambda: client.why(f"{job.number}.{TASKS}"))
        await watch.time("cancel", lambda: job.cancel("enough"))
        while not await watch.time("done", job.done):
            await ask_all(client, job, watch)
        view = await job.view()
        assert (view.status, dict(view.counts)) == ("cancelled", {"cancelled": TASKS})
        assert len((await client.asker.answer(ListTasks(job.id, limit=100))).items) == 100
    longest = ", ".join(f"{what} {took_s:.3f} s" for what, took_s in watch.longest_s.items())
    told(f"at most: {longest}; {bytes_per_task:.0f} bytes of memory per queued task")
    submitted_s = watch.longest_s.pop("submit")
    assert slower_than(ANSWER_S if kind == "range" else SUBMIT_LIST_S, [submitted_s]) == []
    assert slower_than(ANSWER_S, watch.longest_s.values()) == []
    assert bytes_per_task < BYTES_PER_TASK_MAX
