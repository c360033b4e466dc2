"""What awaiting results raises: the job as it ended, the task that is to blame, and what it said."""

from __future__ import annotations

import anyio
import pytest

import orchestra
from orchestra.statemachine.lifecycles import JobStatus, TaskStatus

pytestmark = pytest.mark.anyio

app = orchestra.App()


@app.task
async def divide(number: int) -> float:
    return 12 / number


@app.task
async def lucky_later(ctx: orchestra.Context) -> int:
    if ctx.attempt < 3:
        raise RuntimeError("not yet")
    return ctx.attempt


@app.task
async def endless(ctx: orchestra.Context) -> None:
    await ctx.sleep(3_600)


async def test_a_failure_names_the_job_the_task_and_the_reason() -> None:
    async with app.run() as client:
        job = await client.submit(divide.map([3, 0, 4]), name="shares")
        with pytest.raises(orchestra.JobFailed) as caught:
            await job.results()
        failed = caught.value
        assert not isinstance(failed, orchestra.JobCancelled)
        assert failed.job == await job.view()
        assert failed.job.status is JobStatus.FAILED
        (to_blame,) = await job.tasks(status="failed")
        assert failed.task is not None
        assert (failed.task.task_id, failed.task.position) == (to_blame.id, 2)
        assert failed.task.status is TaskStatus.FAILED
        told = str(failed)
        for words in (f"job {job.number} (shares) failed", to_blame.selector, "division by zero"):
            assert words in told
        # The others were tried all the same, and their ends can be read.
        ends = [(end.status, end.result) async for end in job.ends()]
        assert ends == [("completed", b"4.0"), ("failed", None), ("completed", b"3.0")]


async def test_a_job_that_stops_at_a_failure_skips_what_comes_after() -> None:
    async with app.run() as client:
        job = await client.submit(divide.map([0, *range(1, 30)]), on_failure="stop")
        with pytest.raises(orchestra.JobFailed, match="division by zero"):
            await job.results()
        assert len(await job.tasks(status="completed")) < 29


async def test_a_cancelled_job_is_told_apart_and_is_a_failure_too() -> None:
    async with app.run() as client:
        job = await client.submit(endless)
        async for moved in job.events():
            if (moved.kind, moved.target) == ("attempt", "running"):
                await job.cancel("enough of it", grace_ms=100)
        with pytest.raises(orchestra.JobCancelled) as caught:
            await job.result()
        assert isinstance(caught.value, orchestra.JobFailed)
        assert caught.value.job.status is JobStatus.CANCELLED
        assert caught.value.task is not None
        assert caught.value.task.status is TaskStatus.CANCELLED
        assert "enough of it" in str(caught.value)


async def test_a_job_that_is_cancelled_while_it_waits_raises_the_same() -> None:
    async with app.run(workers=0) as client:
        job = await client.submit(divide.map(range(1, 3)))
        with pytest.raises(TimeoutError):
            await job.results(timeout_s=0.01)
        assert not await job.done()  # whoever stops waiting stops nothing
        await job.cancel("nobody works here")
        with pytest.raises(orchestra.JobCancelled, match="nobody works here"):
            await job.results()


async def test_one_result_is_asked_of_one_task() -> None:
    async with app.run() as client:
        job = await client.submit(divide.map([1, 2]))
        with pytest.raises(ValueError, match="has 2 results"):
            await job.result()


async def test_the_same_function_may_be_submitted_with_other_options() -> None:
    stubborn = lucky_later.options_with(retries=2, backoff_ms=1)
    assert (stubborn.name, stubborn.fn) == (lucky_later.name, lucky_later.fn)
    assert (stubborn.options.retries, lucky_later.options.retries) == (2, 0)
    async with app.run() as client:
        assert await (await client.submit(stubborn)).result() == 3
        with pytest.raises(orchestra.JobFailed, match="not yet"):
            await (await client.submit(lucky_later)).result()
        with anyio.fail_after(10), pytest.raises(orchestra.Malformed, match="retries"):
            await client.submit(lucky_later.options_with(retries=-1))
    with pytest.raises(TypeError):
        lucky_later.options_with(retires=2)
