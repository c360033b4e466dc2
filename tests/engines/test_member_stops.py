"""Members that are stopped, taken over, handed back and reported on."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

import pytest

from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import Order
from tests.engines.member_bench import (
    BOUND_S,
    IDS,
    asked,
    bench,
)
from tests.engines.member_program import Ids, Program, Reply, program

pytestmark = pytest.mark.anyio


# stopping -----------------------------------------------------------------------------------------------------------


async def test_a_stop_is_over_when_the_member_says_so() -> None:
    with program() as member:
        member.replaced["stop"] = lambda _: (200, '"finished"')
        async with bench(member.port) as run:
            await run.begin()
            await run.running()
            await run.stop()
            await asked(member, "status_request", member.asked.count("status_request") + 3)
            # It said finished, and still runs.
            assert run.order.attempt_id not in run.sink.ends
            for rung in ("term", "kill"):
                await run.stop(rung)
                await asked(member, "stop", 2 if rung == "term" else 3)
            assert run.order.attempt_id not in run.sink.ends
            member.words[IDS] = "stopped"
            assert (await run.ended()).outcome == "stopped"


async def test_a_member_that_is_gone_after_the_stop_has_stopped() -> None:
    """TANGO's programs end themselves a second after they were told to stop."""
    async with AsyncExitStack() as stack:
        with program() as member:
            member.replaced["stop"] = lambda _: (200, '"finished"')
            run = await stack.enter_async_context(bench(member.port))
            await run.begin()
            await run.running()
            await run.stop()
            await asked(member, "stop")
        ended = await run.ended()
        assert (ended.outcome, ended.message) == ("stopped", "nobody listens there")


async def test_silence_after_a_stop_is_no_proof() -> None:
    with program() as member:
        async with bench(member.port, call_ms=60) as run:
            await run.begin()
            await run.running()
            member.held.clear()
            await run.stop()
            await asked(member, "status_request", member.asked.count("status_request") + 2)
            run.clock.now += 3_600
            await asked(member, "status_request", member.asked.count("status_request") + 2)
            assert run.order.attempt_id not in run.sink.ends
            member.held.set()
            assert (await run.ended()).outcome == "stopped"


async def test_a_stop_during_the_start() -> None:
    """The start is let finish, then it is stopped: it is neither forgotten nor left running."""
    with program() as member:
        member.replaced["start"] = partial(_held_start, member)
        async with bench(member.port, call_ms=20_000) as run:
            await run.begin()
            await asked(member, "start")
            await run.stop()
            assert run.order.attempt_id not in run.sink.ends
            with member.changed:
                member.words["go", "on"] = ""
                member.changed.notify_all()
            ended = await run.ended()
            assert ended.outcome == "stopped"
        assert member.asked.count("start") == 1
        assert member.words[IDS] == "stopped"


def _held_start(member: Program, ids: Ids) -> Reply:
    with member.changed:
        member.changed.wait_for(lambda: ("go", "on") in member.words, timeout=BOUND_S)
    member.words[ids] = "running"
    return 200, "started"


async def test_what_was_stopped_before_it_began_is_never_started() -> None:
    with program() as member:
        member.held.clear()
        async with bench(member.port, call_ms=20_000) as run:
            await run.begin()
            await asked(member, "status_request")
            await run.stop()
            member.held.set()
            assert (await run.ended()).outcome == "stopped"
        assert "start" not in member.asked


async def test_a_run_has_its_time() -> None:
    with program() as member:
        async with bench(member.port) as run:
            await run.begin(run_ms_max=60_000)
            await run.running()
            run.clock.now += 59
            await asked(member, "status_request", member.asked.count("status_request") + 2)
            assert "stop" not in member.asked
            run.clock.now += 2
            ended = await run.ended()
            assert (ended.outcome, ended.cause) == ("failed", Cause.TIMEOUT)
            assert "longer than its limit of 60 s" in ended.message
        assert member.words[IDS] == "stopped"


# manager's restarts -------------------------------------------------------------------------------------------------


async def _yes(_: Order) -> bool:
    return True


@pytest.mark.parametrize("word", ["started", "running"])
async def test_a_later_attempt_finds_the_run_alive(word: str) -> None:
    with program() as member:
        member.words[IDS] = word
        async with bench(member.port) as run:
            await run.begin(number=2)
            await asked(member, "status_request", 3)
            member.words[IDS] = "completed"
            assert (await run.ended()).outcome == "completed"
        assert "start" not in member.asked


async def test_a_later_attempt_takes_over_an_end_that_was_missed() -> None:
    with program() as member:
        member.words[IDS] = "completed"
        async with bench(member.port, ran_before=_yes) as run:
            await run.begin(number=2)
            assert (await run.ended()).outcome == "completed"
        assert "start" not in member.asked


async def test_an_end_that_is_not_ours_is_not_taken_over() -> None:
    """The control of the test above: no attempt saw it run."""
    with program() as member:
        member.words[IDS] = member.start_to = "completed"
        async with bench(member.port) as run:
            await run.begin(number=2)
            assert (await run.ended()).outcome == "completed"
        assert member.asked.count("start") == 1


async def test_handing_back_leaves_the_run_alone() -> None:
    with program() as member:
        async with bench(member.port) as run:
            await run.begin()
            await run.running()
            run.engine.hand_back()
            await run.stop("term")
            ended = await run.ended()
            assert (ended.outcome, ended.cause) == ("stopped", Cause.NONE)
            assert "goes on in its container" in ended.message
        assert member.words[IDS] == "running"
        assert "stop" not in member.asked


async def test_a_report_has_it_looked_at_now() -> None:
    with program() as member:
        async with bench(member.port, heartbeat_ms=600_000) as run:
            await run.begin()
            await run.running()
            assert not run.engine.nudge(("kyunghee", "2"))
            member.words[IDS] = "completed"
            assert run.engine.nudge(IDS)
            assert (await run.ended()).outcome == "completed"
            assert not run.engine.nudge(IDS)


async def test_a_false_report_changes_nothing() -> None:
    """And a flood of them does not make it ask more often than it may."""
    with program() as member:
        async with bench(member.port, heartbeat_ms=600_000) as run:
            await run.begin()
            await run.running()
            looked = member.asked.count("status_request")
            for _ in range(1_000):
                assert run.engine.nudge(IDS)
            await asked(member, "status_request", looked + 1)
            assert run.order.attempt_id not in run.sink.ends
            assert member.asked.count("status_request") <= looked + 2
            await run.stop()


@pytest.mark.parametrize(
    "template",
    [
        b"",
        b"[]",
        b"{}",
        b'{"user_id": "a"}',
        b'{"user_id": 1, "project_id": "1"}',
        b'{"user_id": "..", "project_id": "1"}',
        b'{"user_id": "a/b", "project_id": "1"}',
        b'{"user_id": "a", "project_id": "\\u0000"}',
    ],
)
async def test_templates_that_name_no_run(template: bytes) -> None:
    with program() as member:
        async with bench(member.port) as run:
            await run.begin(template=template)
            ended = await run.ended()
            assert (ended.outcome, ended.cause) == ("failed", Cause.UNSTARTABLE)
        assert member.asked == []
