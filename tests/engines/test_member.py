"""The engine of member containers against a program on a real socket: the contract, and every way in which a member can fail."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from orchestra.dialects.tango_places import Place
from orchestra.statemachine.records import Cause
from orchestra.testing.check_engine import CHECKS, Check, EngineBench
from orchestra.testing.free_port import free_port
from tests.engines.member_bench import (
    IDS,
    OwnLine,
    asked,
    bench,
)
from tests.engines.member_program import Ids, Reply, program

pytestmark = pytest.mark.anyio


def of_kind(word: str) -> bytes:
    return json.dumps({"user_id": word, "project_id": "1"}).encode()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_contract_of_engines(check: Check) -> None:
    """The user tells the program what to do: whose task completes, fails, or lasts."""
    with program() as member:

        def start(ids: Ids) -> Reply:
            member.words[ids] = "running" if ids[0] in ("lasting", "talking") else ids[0]
            return 200, "starting"

        def status(ids: Ids) -> Reply:
            word = member.words.get(ids, "ready")
            if ids[0] == "talking":
                member.words[ids] = "completed"
            return 200, word

        member.replaced.update(start=start, status_request=status)
        place = Place("code_gen", "127.0.0.1", member.port, heartbeat_ms=30)
        bench = EngineBench(
            make=lambda: OwnLine(place),
            app="member",
            quick=of_kind("completed"),
            failing=of_kind("failed"),
            lasting=of_kind("lasting"),
            broken=b'{"user_id": "../x", "project_id": "1"}',
        )
        await check(bench)


# what is sent -------------------------------------------------------------------------------------------------------


async def test_what_a_member_is_asked() -> None:
    """The path form with user_id first: the only one that all programs understand."""
    with program() as member:
        member.start_to = "completed"
        async with bench(member.port, secret="s" * 16) as run:
            await run.begin()
            ended = await run.ended()
        assert (ended.outcome, run.ran) == ("completed", True)
        assert json.loads(ended.result or b"")["container_id"] == "code_gen"
        assert [call["path"] for call in member.seen] == [
            "/status_request?user_id=kyunghee&project_id=1",
            "/start?user_id=kyunghee&project_id=1",
            "/status_request?user_id=kyunghee&project_id=1",
        ]
        assert {call["content-type"] for call in member.seen} == {"text/plain"}
        assert {call["x-tango-secret"] for call in member.seen} == {"s" * 16}
        assert run.output.splitlines()[0] == "start: 200 started"


# the table of failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        (200, "running"),
        (200, '"running"'),
        (208, "running"),
        (400, '"running"'),
        (200, " running\n"),
    ],
)
async def test_running_in_all_its_forms(reply: Reply) -> None:
    with program() as member:
        member.replaced["status_request"] = lambda _: reply
        async with bench(member.port) as run:
            await run.begin()
            await run.running()
            member.replaced.clear()
            member.words[IDS] = "completed"
            assert (await run.ended()).outcome == "completed"


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ((500, "boom"), "500 boom"),
        ((200, "banana"), "200 banana"),
        ((200, "x" * 51), "200 xxx"),
        ((404, "not found"), "404 not found"),
        ((200, '""'), "200"),
        ((302, "running"), "302 running"),
        ((200, "\x1b[31mrunning"), "200"),
    ],
)
async def test_words_that_are_none_change_nothing_and_not_for_ever(reply: Reply, told: str) -> None:
    with program() as member:
        async with bench(member.port) as run:
            await run.begin()
            await run.running()
            member.replaced["status_request"] = lambda _: reply
            looked = member.asked.count("status_request")
            await asked(member, "status_request", looked + 3)
            run.clock.now += 59
            await asked(member, "status_request", member.asked.count("status_request") + 2)
            assert run.order.attempt_id not in run.sink.ends
            run.clock.now += 2
            ended = await run.ended()
            assert (ended.outcome, ended.cause) == ("failed", Cause.ERROR)
            assert "nothing that can be understood" in ended.message
            assert f"{told}" in run.output
            assert "\x1b" not in run.output
            # It is left as stopped as it can be.
            assert "stop" in member.asked


async def test_strange_words_in_between_do_no_harm() -> None:
    """The control of the test above."""
    with program() as member:
        words = iter(["banana", "running", "banana", "running", "boom"])
        member.replaced["status_request"] = lambda _: (200, next(words, "completed"))
        async with bench(member.port) as run:
            await run.begin()
            assert (await run.ended()).outcome == "completed"


@pytest.mark.parametrize("reply", [(204, ""), (200, "ready")])
async def test_a_member_that_knows_nothing_of_it(reply: Reply) -> None:
    """Its program was started anew: what ran is gone."""
    with program() as member:
        async with bench(member.port) as run:
            await run.begin()
            await run.running()
            member.replaced["status_request"] = lambda _: reply
            ended = await run.ended()
            assert ended.outcome == "failed"
            assert "knows nothing of it any more" in ended.message


@pytest.mark.parametrize("status", [200, 208, 400])
@pytest.mark.parametrize(
    ("word", "outcome"), [("completed", "completed"), ("failed", "failed"), ("stopped", "failed")]
)
async def test_ends(status: int, word: str, outcome: str) -> None:
    with program() as member:
        member.replaced["status_request"] = lambda ids: (status, member.words.get(ids, "ready"))
        member.start_to = word
        async with bench(member.port) as run:
            await run.begin()
            ended = await run.ended()
            assert ended.outcome == outcome
            # The guide's diagram: what completed has run.
            assert run.ran == (outcome == "completed")


async def test_a_slow_member_is_waited_for_and_not_longer_than_it_may_take() -> None:
    with program() as member:
        async with bench(member.port, call_ms=100) as run:
            await run.begin()
            await run.running()
            member.held.clear()
            await asked(member, "status_request", member.asked.count("status_request") + 2)
            assert run.order.attempt_id not in run.sink.ends
            run.clock.now += 31
            ended = await run.ended()
            assert "has not answered for 30 s" in ended.message
            member.held.set()
            # It may be alive behind a slow line.
            await asked(member, "stop")


async def test_a_member_that_is_slow_once_goes_on() -> None:
    with program() as member:
        async with bench(member.port, call_ms=100) as run:
            await run.begin()
            await run.running()
            member.held.clear()
            await asked(member, "status_request", member.asked.count("status_request") + 2)
            member.words[IDS] = "completed"
            member.held.set()
            assert (await run.ended()).outcome == "completed"


async def test_a_connection_that_is_closed_is_silence() -> None:
    with program() as member:
        async with bench(member.port) as run:
            await run.begin()
            await run.running()
            looked = member.asked.count("status_request")
            member.replaced["status_request"] = lambda _: None
            await asked(member, "status_request", looked + 3)
            run.clock.now += 31
            ended = await run.ended()
            assert "has not answered" in ended.message
            assert "it did not answer" in run.output


async def test_a_crash_after_the_start_is_noticed() -> None:
    """Long before the time for silence: nobody listens at its port any more."""
    async with AsyncExitStack() as stack:
        with program() as member:
            run = await stack.enter_async_context(bench(member.port))
            await run.begin()
            await run.running()
        ended = await run.ended()
        assert ended.outcome == "failed"
        assert "its process has ended" in ended.message


async def test_a_dead_member_is_handed_nothing() -> None:
    """Nothing began: the task goes back, and no restart is used up."""
    async with bench(free_port()) as run:
        await run.begin()
        ended = await run.ended()
        assert (ended.outcome, ended.cause) == ("stopped", Cause.NONE)
        assert "nobody listens there" in ended.message
        assert await run.engine.problem() == "nobody listens there"


@pytest.mark.parametrize(
    "reply",
    [(200, "error"), (200, "error\nno data"), (400, '"failed"'), (404, ""), (200, '"error"')],
)
async def test_a_start_that_is_refused_has_failed(reply: Reply) -> None:
    with program() as member:
        member.replaced["start"] = lambda _: reply
        async with bench(member.port) as run:
            await run.begin()
            ended = await run.ended()
            assert (ended.outcome, run.ran) == ("failed", False)
            assert "did not start it" in ended.message


@pytest.mark.parametrize("reply", [(500, "boom"), (200, '""'), None])
async def test_a_start_without_a_word_counts_when_it_began(reply: Reply) -> None:
    with program() as member:

        def start(ids: Ids) -> Reply:
            member.words[ids] = "running"
            return reply

        member.replaced["start"] = start
        async with bench(member.port) as run:
            await run.begin()
            await run.running()
            member.words[IDS] = "completed"
            assert (await run.ended()).outcome == "completed"


@pytest.mark.parametrize("reply", [(500, "boom"), (200, '""'), None])
@pytest.mark.parametrize("before", ["completed", "failed", "stopped"])
async def test_an_old_end_is_not_taken_for_the_new_one(reply: Reply, before: str) -> None:
    """The member lies, or speaks of its former run: nothing was started."""
    with program() as member:
        member.words[IDS] = before
        member.replaced["start"] = lambda _: reply
        async with bench(member.port) as run:
            await run.begin()
            ended = await run.ended()
            assert (ended.outcome, run.ran) == ("failed", False)
            assert f"says {before} as it did before" in ended.message


async def test_a_new_end_counts_although_it_is_the_same_word() -> None:
    """The control of the test above: the start was answered."""
    with program() as member:
        member.words[IDS] = member.start_to = "completed"
        async with bench(member.port) as run:
            await run.begin()
            assert (await run.ended()).outcome == "completed"


async def test_a_success_without_its_output_is_none(tmp_path: Path) -> None:
    """TANGO's code generator reports success when its input is missing."""
    with program() as member:
        member.start_to = "completed"
        output = f"{tmp_path}/common/{{user_id}}/{{project_id}}/nn_model"
        async with bench(member.port, output=output) as run:
            await run.begin()
            ended = await run.ended()
            assert ended.outcome == "failed"
            assert "common/kyunghee/1/nn_model is not there" in ended.message
        folder = tmp_path / "common" / "kyunghee" / "1" / "nn_model"
        folder.mkdir(parents=True)
        async with bench(member.port, output=output) as run:
            await run.begin()
            assert (await run.ended()).outcome == "failed"
            (folder / "predictor.py").write_text("pass\n")
        async with bench(member.port, output=output) as run:
            await run.begin()
            assert (await run.ended()).outcome == "completed"


async def test_resuming_has_a_limit() -> None:
    with program() as member:
        member.start_to = "failed"
        member.replaced["resume"] = lambda _: (200, "resumed")
        async with bench(member.port, resumes=3) as run:
            await run.begin()
            ended = await run.ended()
            assert ended.message.endswith("says failed, after 3 times of resuming")
        assert member.asked.count("resume") == 3
        assert "resume 3 of 3: 200 resumed" in run.output


async def test_what_was_resumed_can_complete() -> None:
    with program() as member:
        member.start_to = "failed"
        async with bench(member.port, resumes=1) as run:
            await run.begin()
            await run.running()
            member.words[IDS] = "completed"
            assert (await run.ended()).outcome == "completed"
