"""What goes into an attempt and what comes out of it, through an agent and a real orchestrator."""

from __future__ import annotations

import anyio
import pytest

from orchestra.ports import Ended, Log
from orchestra.statemachine import limits
from orchestra.statemachine.commands import StageDraft
from orchestra.statemachine.records import Cause, Span
from tests.worker.kit import ScriptedEngine, farm, until

pytestmark = pytest.mark.anyio

DONE = Ended("completed", result=b"1")


async def test_output_is_stored_before_the_end_is_told_and_never_doubled() -> None:
    engine = ScriptedEngine()
    async with farm() as it:
        await it.join(engine)
        job_id = await it.submit()
        await until(lambda: bool(engine.running))
        (attempt_id,) = engine.running
        sink = engine.running[attempt_id]
        it.link.lose_answers = 1
        expected = b""
        for number in range(200):
            line = f"line {number}\n".encode()
            expected += line
            await sink.output(attempt_id, "stdout", line)
        await engine.end(attempt_id, DONE)
        await it.until_job(job_id)
        read = await it.orchestrator.log(Log(attempt_id, "stdout"))
        assert read.data == expected
        assert it.link.connections == 2, "the fault did hit"


async def test_output_waits_while_the_server_is_away_and_the_rest_arrives_afterwards() -> None:
    engine = ScriptedEngine()
    async with farm() as it:
        await it.join(engine)
        job_id = await it.submit()
        await until(lambda: bool(engine.running))
        (attempt_id,) = engine.running
        sink = engine.running[attempt_id]
        it.link.cut()
        written = 0

        async def write() -> None:
            nonlocal written
            for _ in range(40):
                await sink.output(attempt_id, "stderr", b"x" * 65_536)
                written += 1
            await engine.end(attempt_id, DONE)

        it.group.start_soon(write)
        await until(lambda: written == 16)
        await anyio.wait_all_tasks_blocked()
        assert written == 16, "a mebibyte waits, more does not fit"
        it.link.up = True
        await it.until_job(job_id)
        assert (await it.orchestrator.log(Log(attempt_id, "stderr"))).size == 40 * 65_536


async def test_a_result_that_is_too_long_fails_with_what_to_do() -> None:
    engine = ScriptedEngine(instant=Ended("completed", result=b"1" * (limits.RESULT_BYTES_MAX + 1)))
    async with farm() as it:
        await it.join(engine)
        job_id = await it.submit()
        await it.until_job(job_id, "failed")
        assert "write it to a file" in (await it.task(job_id)).attempts[0].message


async def test_results_of_earlier_stages_are_put_into_the_options_of_later_ones() -> None:
    engine = ScriptedEngine()
    async with farm() as it:
        await it.join(engine)
        job_id = await it.submit(
            StageDraft("squares", "work", over=Span(0, 3)),
            StageDraft(
                "twice",
                "work",
                template=b'{"of": {"$result": "squares"}, "text": "$mark:0"}',
                over=Span(0, 3),
                pairwise=("squares",),
            ),
            StageDraft(
                "sum", "work", template=b'{"all": [{"$results": "squares"}, 7]}', after=("twice",)
            ),
        )
        seen: dict[str, bytes] = {}
        while (await it.job(job_id)).status != "completed":
            await until(lambda: bool(engine.running))
            for attempt_id in tuple(engine.running):
                order = next(each for each in engine.started if each.attempt_id == attempt_id)
                seen[f"{order.stage}-{order.offset}"] = order.template
                result = str(order.offset**2).encode() if order.stage == "squares" else b"null"
                await engine.end(attempt_id, Ended("completed", result=result))
            await anyio.sleep(0.005)
            if len(seen) == 7:
                await it.until_job(job_id)
        assert seen["twice-2"] == b'{"of": 4, "text": "$mark:0"}'
        assert seen["sum-0"] == b'{"all": [[0,1,4], 7]}'


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (b'{"x": {"$results": "nowhere"}}', "nowhere"),
        (b'{"x": {"$result": "nowhere"}}', "no stage 'nowhere'"),
        (b'{"x": {"$results": "other"}}', "no result"),
        (b'{"x": "$results", "y": {"$result": 7}}', ""),
    ],
)
async def test_input_that_can_not_be_put_together_is_a_clear_failure(
    template: bytes, reason: str
) -> None:
    """The last one only looks like a reference, and starts."""
    engine = ScriptedEngine(instant=DONE)
    async with farm() as it:
        await it.join(engine, slots=1)
        stages = (StageDraft("s", "work", template=template), StageDraft("other", "work"))
        job_id = await it.submit(*stages)
        await it.until_job(job_id, "failed" if reason else "completed")
        (attempt,) = (await it.task(job_id)).attempts
        assert reason in attempt.message
        assert attempt.cause == (Cause.UNSTARTABLE if reason else Cause.NONE)
