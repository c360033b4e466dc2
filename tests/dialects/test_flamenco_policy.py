"""What Flamenco 3's users rely on: tries on other workers, blocks, tags, sleep."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra.dialects.flamenco_rules import DAY_MINUTES, DAYS, Sleep, read_sleep
from orchestra.statemachine.lifecycles import JobStatus, TaskStatus
from orchestra.statemachine.queries import GetTask
from tests.dialects.flamenco_kit import Far, Yard, open_yard

pytestmark = pytest.mark.anyio


async def fails(yard: Yard, worker: Far, log: str = "Error: no camera\n") -> None:
    """Fetch a task, fail at it, and let the pause before its next try pass."""
    task = await worker.has_task()
    assert await worker.says(task, "running") == (204, "")
    assert await worker.says(task, "failed", log=log) == (204, "")
    await yard.passes(8)


async def test_a_failure_is_soft_and_the_third_is_for_good() -> None:
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts()
        for failures in (1, 2):
            await fails(yard, worker)
            assert (await yard.job()).status is JobStatus.RUNNING
            (shown,) = await worker.json("GET", "/tasks")
            assert (shown["status"], shown["failures"], shown["soft_failed"]) == (
                "running",
                failures,
                True,
            )
        await fails(yard, worker)
        seen = await yard.asker.answer(GetTask("1.1"))
        assert (seen.status, seen.reason) == (TaskStatus.FAILED, "Error: no camera")
        assert (await yard.job()).status is JobStatus.FAILED
        assert await worker.poll() is None
        await worker.json("PUT", "/jobs", data={"id": "1", "command": "requeue"})
        assert await worker.says(await worker.has_task(), "finished") == (204, "")
        assert (await yard.job()).status is JobStatus.COMPLETED


async def test_the_next_try_is_for_another_worker_when_one_is_free() -> None:
    async with open_yard() as yard:
        workers = [yard.at(f"10.0.0.{number}", f"w{number}") for number in range(3)]
        await workers[0].posts()
        tried: list[str] = []
        for _ in range(3):
            for _ in range(2 * len(workers)):
                for worker in workers:
                    task = await worker.poll()
                    if task is not None:
                        tried.append(worker.hostname)
                        assert await worker.says(task, "failed", log="no\n") == (204, "")
                        await yard.passes(8)
        assert sorted(tried) == ["w0", "w1", "w2"]
        assert (await yard.job()).status is JobStatus.FAILED


async def busy(yard: Yard, worker: Far, number: int = 100) -> dict[str, Any]:
    """Post a task, which the worker begins."""
    await worker.posts(number)
    task = await worker.has_task()
    assert await worker.says(task, "running") == (204, "")
    return task


async def test_a_task_is_passed_on_though_the_core_gave_it_to_who_failed_at_it() -> None:
    async with open_yard() as yard:
        first, second = yard.at("10.0.0.1", "first"), yard.at("10.0.0.2", "second")
        held = await busy(yard, second)
        await first.posts(1)
        await fails(yard, first)
        # It lies with the first again, for the second was not free.
        assert await second.says(held, "finished") == (204, "")
        assert await first.poll() is None
        assert await second.says(await second.has_task(), "finished") == (204, "")
        seen = await yard.asker.answer(GetTask("2.1"))
        assert [attempt.worker for attempt in seen.attempts] == [
            "first@10.0.0.1:7777",
            "first@10.0.0.1:7777",
            "second@10.0.0.2:7777",
        ]
        assert (seen.failures, seen.losses) == (1, 0)
        await busy(yard, second, 101)
        await first.posts(2)
        assert await first.poll() is not None, "it is given work again"


async def apps(yard: Yard, hostname: str) -> tuple[str, ...]:
    """What a worker offers to the core."""
    (worker,) = [each for each in await yard.workers() if each.name.startswith(f"{hostname}@")]
    return worker.apps


BOTH = ("print_string", "simple_blender_render")


async def test_a_worker_that_keeps_failing_gets_no_more_of_the_kind() -> None:
    async with open_yard(failures_max=1) as yard:
        bad, good = yard.at("10.0.0.1", "bad"), yard.at("10.0.0.2", "good")
        await busy(yard, good)
        for number in range(3):
            assert await apps(yard, "good") == BOTH
            await bad.posts(number)
            await fails(yard, bad)
        assert await apps(yard, "bad") == ("print_string",)
        await bad.posts(4)
        assert await bad.poll() is None
        await bad.posts(5, "print_string", text="hello")
        assert await bad.says(await bad.has_task(), "finished") == (204, "")
        yard.restart()
        assert await bad.poll() is None
        assert await apps(yard, "bad") == ("print_string",)
        number = (await bad.json("GET", "/workers"))["bad"]["id"]
        await bad.json("PATCH", f"/workers/status/{number}", data={"status": "enabled"})
        assert await apps(yard, "bad") == BOTH
        assert await bad.poll() is not None


async def test_the_last_worker_for_a_kind_is_never_blocked() -> None:
    async with open_yard(failures_max=1) as yard:
        bad = yard.at("10.0.0.1", "bad")
        for number in range(5):
            await bad.posts(number)
            await fails(yard, bad)
        assert await apps(yard, "bad") == BOTH


async def test_a_success_between_failures_forgives() -> None:
    async with open_yard(failures_max=1) as yard:
        worker, other = yard.at("10.0.0.1", "worker"), yard.at("10.0.0.2", "other")
        await busy(yard, other)
        for number in range(6):
            await worker.posts(number)
            if number == 2:
                assert await worker.says(await worker.has_task(), "finished") == (204, "")
            elif number < 5:
                await fails(yard, worker)
        assert await apps(yard, "worker") == BOTH


async def test_tagged_tasks_are_for_tagged_workers_and_untagged_for_all() -> None:
    async with open_yard(workers={"gpu-*": {"tags": ["gpu"]}}) as yard:
        plain, tagged = yard.at("10.0.0.1", "plain"), yard.at("10.0.0.2", "gpu-1")
        form = {"task_id": 1, "type": "print_string", "settings": '{"text": "a"}', "tags": "gpu"}
        assert (await plain.send("POST", "/tasks", data=form)).status_code == 202
        assert await plain.poll() is None
        assert await tagged.says(await tagged.has_task(), "finished") == (204, "")
        await plain.posts(2)
        assert await plain.poll() is not None


async def test_a_worker_that_sleeps_finishes_what_it_has_and_gets_nothing_new() -> None:
    # It is Tuesday, 22:13.
    async with open_yard(workers={"night-*": {"sleep": "tu 22:15-22:18"}}) as yard:
        worker = yard.at("10.0.0.1", "night-owl")
        await worker.posts(chunk_size=3)
        task = await worker.has_task()
        assert await worker.says(task, "running") == (204, "")
        await yard.passes(120)
        assert await worker.says(task, "running") == (204, "")
        assert await worker.says(task, "finished") == (204, "")
        for _ in range(2):
            assert await worker.poll() is None
            await yard.passes(10)
        await yard.passes(180)
        assert await worker.poll() is not None


def test_a_schedule_reaches_over_midnight() -> None:
    night = read_sleep("fr 22:00-06:00", "sleep")
    assert night is not None
    assert night == Sleep(frozenset({4}), 22 * 60, 6 * 60)
    asleep = {
        (day, hour)
        for day in range(len(DAYS))
        for hour in range(24)
        if night.covers(day, hour * 60)
    }
    assert asleep == {(4, 22), (4, 23)} | {(5, hour) for hour in range(6)}
    weekend = read_sleep("sa su 00:00-24:00", "sleep")
    assert weekend is not None
    assert weekend.covers(6, DAY_MINUTES - 1)
    assert not weekend.covers(0, 0)
    assert read_sleep("", "sleep") is None
    every = read_sleep("08:00-18:30", "sleep")
    assert every is not None
    assert all(every.covers(day, 8 * 60) for day in range(len(DAYS)))
    assert not every.covers(0, 18 * 60 + 30)
