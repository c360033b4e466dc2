"""A member container: the calls of the guide, as its programs make them, and the diagram of its states."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from orchestra import App
from orchestra.dialects.tango import member
from orchestra.dialects.tango_ends import OUTCOME
from orchestra.dialects.tango_jobs import TASK_WORD
from orchestra.dialects.tango_words import MemberWord
from orchestra.errors import Malformed
from orchestra.statemachine.lifecycles import ATTEMPT, TASK_FINAL, TaskStatus
from orchestra.statemachine.reports import Happening
from orchestra.testing.check_dialect import CHECKS, Call, Check, DialectBench
from tests.dialects.tango_kit import IDS, generator, jobs, open_container

pytestmark = pytest.mark.anyio

DIAGRAM = """
    [*] --> Ready
    Ready --> Started
    Started --> Running
    Started --> Failed
    Started --> Stopped
    Running --> Stopped
    Running --> Failed
    Running --> Completed
    Failed --> [*]
    Stopped --> [*]
    Completed --> Ready
"""
EDGES = {
    (source.strip().lower(), target.lower())
    for source, target in (line.split(" --> ") for line in DIAGRAM.strip().splitlines())
}
"""The container diagram of the guide."""


# the guide, request by request ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["/{}?", "/?{}&"])
@pytest.mark.parametrize(
    "ids", [IDS, "project_id=1&user_id=kyunghee", f"{IDS}&", "user_id=%22kyunghee%22&project_id=1"]
)
async def test_the_calls_of_the_guide(form: str, ids: str) -> None:
    async with open_container() as container:

        async def call(verb: str, named: str = ids) -> tuple[int, str]:
            return await container.says(form.format(verb) + named)

        for empty in (
            "user_id=&project_id=",
            'project_id=""&user_id=""',
            "user_id=%22%22&project_id=",
        ):
            assert await call("status_request", empty) == (200, "ready")
        assert await call("status_request") == (200, "ready")
        assert await call("stop") == (200, "error")
        assert await call("start") == (200, "starting")
        assert await call("status_request") == (200, "started")
        (order,) = await container.orders()
        assert json.loads(order.template)["kwargs"] == {"user_id": "kyunghee", "project_id": "1"}
        await container.tells(Happening.RUNNING)
        assert await call("status_request") == (200, "running")
        assert await call("status_request", "user_id=kyunghee&project_id=2") == (200, "ready")
        await container.tells(Happening.COMPLETED, result=b"null")
        assert await call("status_request") == (200, "completed")
        assert await call("status_request", "user_id=&project_id=") == (200, "ready")
        assert await call("start") == (200, "starting")
        await container.tells(Happening.RUNNING)
        assert await call("stop") == (200, "finished")
        assert await container.is_stopping()
        # It is asked, and is over when it is.
        assert await call("status_request") == (200, "running")
        await container.tells(Happening.STOPPED)
        assert await call("status_request") == (200, "stopped")
        assert await call("stop") == (200, "finished")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/start?user_id=u", 200),
        ("/start?user_id=&project_id=", 200),
        ("/start?user_id=u&project_id=..", 200),
        ("/start?user_id=u&project_id=../other", 200),
        ("/start?user_id=-rf&project_id=1", 200),
        ("/start?user_id=u&project_id=" + "p" * 200, 200),
        ("/start?user_id=u&project_id=%00", 200),
        ("/stop?user_id=u&project_id=never", 200),
        ("/status_request?user_id=u", 400),
        ("/start?user_id=u&user_id=v&project_id=1", 400),
        ("/?user_id=u&project_id=1", 404),
        ("/?start&stop&user_id=u&project_id=1", 400),
        ("/startXYZ?user_id=u&project_id=1", 404),
        ("/resume?user_id=u&project_id=1", 404),
    ],
)
async def test_what_is_no_call_of_the_guide_is_an_error_and_starts_nothing(
    target: str, status: int
) -> None:
    async with open_container() as container:
        assert await container.says(target) == (status, "error")
        assert not await jobs(container)


async def test_a_browsers_page_starts_and_stops_nothing() -> None:
    async with open_container() as container:
        for target in (f"/start?{IDS}", f"/?start&{IDS}", f"/stop?{IDS}"):
            for site in ("cross-site", "same-site"):
                headers = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
                assert (await container.send(target, headers=headers)).status_code == 403
        assert not await jobs(container)
        typed = {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}
        assert (await container.send(f"/start?{IDS}", headers=typed)).text == "starting"


async def test_a_repeated_start_is_the_same_run_and_other_projects_run_beside_it() -> None:
    async with open_container() as container:
        for _ in range(2):
            assert await container.says(f"/start?{IDS}") == (200, "starting")
        await container.tells(Happening.RUNNING)
        assert await container.says(f"/start?{IDS}") == (200, "starting")
        assert len(await jobs(container)) == 1
        assert await container.says("/start?user_id=other&project_id=1") == (200, "starting")
        assert await container.word("user_id=other&project_id=1") == "started"
        await container.says("/stop?user_id=third&project_id=1")
        assert await container.word() == "running"


# the other ways to reply ----------------------------------------------------------------------------------------------


async def test_replies_of_the_code_generator_and_the_deployers() -> None:
    async with open_container(generator(replies="programs")) as container:
        assert await container.word("user_id=&project_id=") == '"ready"'
        assert await container.says(f"/start?{IDS}") == (200, '"started"')
        await container.tells(Happening.RUNNING)
        assert await container.says(f"/status_request?{IDS}") == (200, '"running"')
        assert await container.says(f"/stop?{IDS}") == (200, '"finished"')
        for unknown in ("/clear", "/resume", "/startXYZ"):
            assert await container.says(f"{unknown}?{IDS}") == (200, '""')
        assert await container.says("/start?user_id=u") == (200, '"error"')


def test_the_trainer_does_not_reply_as_programs_that_know_no_resume() -> None:
    with pytest.raises(Malformed, match=r'container_id = "autonn" .* replies = "programs"') as told:
        member(App(), container_id="autonn", argv=("true",), replies="programs")
    assert (told.value.where, told.value.remedy) == ("replies", 'replies = "autonn"')
    for replies in ("autonn", "guide"):
        member(App(), container_id="autonn", argv=("true",), replies=replies)


async def test_replies_of_the_trainer() -> None:
    async with open_container(generator(replies="autonn")) as container:
        never = await container.send(f"/status_request?{IDS}")
        assert (never.status_code, never.content) == (204, b"")
        assert (await container.says(f"/resume?{IDS}"))[0] == 404
        assert await container.says(f"/stop?{IDS}") == (200, '"success"')
        assert await container.says("/start?user_id=u") == (400, '"failed"')
        assert await container.says(f"/start?{IDS}") == (200, '"started"')
        assert await container.says(f"/resume?{IDS}") == (200, '"failed"')
        await container.tells(Happening.RUNNING)
        assert await container.says(f"/status_request?{IDS}") == (200, '"running"')
        await container.tells(Happening.FAILED, exit_code=1)
        assert await container.says(f"/status_request?{IDS}") == (208, '"failed"')
        assert await container.says(f"/?resume&{IDS}") == (200, '"started"')
        await container.tells(Happening.RUNNING)
        await container.tells(Happening.COMPLETED, result=b"null")
        assert await container.says(f"/status_request?{IDS}") == (208, '"completed"')
        assert await container.says(f"/resume?{IDS}") == (200, '"failed"')
        assert len(await jobs(container)) == 2


# the diagram ----------------------------------------------------------------------------------------------------------


def test_the_words_of_a_run_are_total() -> None:
    assert set(TASK_WORD) == set(TaskStatus)
    assert MemberWord.READY not in TASK_WORD.values()
    ends = {TASK_WORD[status] for status in TASK_FINAL}
    assert ends == {MemberWord.COMPLETED, MemberWord.FAILED, MemberWord.STOPPED}
    assert set(OUTCOME) == ends - {MemberWord.STOPPED}


async def test_every_edge_of_the_diagram_is_walked_and_no_other_is_shown() -> None:
    served = generator(manager="projectmanager:8085")
    async with open_container(served) as container:
        seen = ["[*]", await container.word()]

        async def look() -> None:
            seen.append(await container.word())

        async def start() -> None:
            if seen[-1] in ("failed", "stopped"):
                seen.extend(("[*]", "ready"))
            elif seen[-1] == "completed":
                seen.append(await container.word("user_id=&project_id="))
            await container.says(f"/start?{IDS}")
            await look()

        async def told(happening: Happening) -> None:
            await container.tells(happening)
            await look()

        for path in (
            (Happening.RUNNING, Happening.COMPLETED),
            (Happening.FAILED,),
            (Happening.RUNNING, Happening.FAILED),
        ):
            await start()
            for happening in path:
                await told(happening)
        await start()
        assert await container.is_stopping() is False
        await container.says(f"/stop?{IDS}")
        await told(Happening.STOPPED)
        await start()
        await told(Happening.RUNNING)
        await container.says(f"/stop?{IDS}")
        await look()
        await told(Happening.STOPPED)
        seen.append("[*]")
        walked = {(source, target) for source, target in pairwise(seen) if source != target}
        assert walked == EDGES
        moves = {(m.source, m.target) for m in await container.story() if m.kind == "attempt"}
        rows = {(str(row.source or ""), str(row.target)) for row in ATTEMPT.rows}
        assert moves == rows


async def test_a_further_try_does_not_go_back_to_started() -> None:
    app = App()

    @app.task(retries=1, backoff="1s")
    def generate() -> None: ...

    async with open_container(member(app, container_id="code_gen")) as container:
        await container.says(f"/start?{IDS}")
        seen = [await container.word()]
        for happening in (Happening.RUNNING, Happening.FAILED):
            await container.tells(happening)
            seen.append(await container.word())
        await container.passes(2)
        seen.append(await container.word())
        assert await container.orders()
        seen.append(await container.word())
        for happening in (Happening.RUNNING, Happening.FAILED):
            await container.tells(happening)
            seen.append(await container.word())
        assert seen == ["started", *["running"] * 5, "failed"]
        assert {(source, target) for source, target in pairwise(seen) if source != target} < EDGES


# the contract of dialects ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("replies", ["guide", "programs", "autonn"])
async def test_it_keeps_the_contract(check: Check, replies: str) -> None:
    ids = {"user_id": "u", "project_id": "1"}
    further = {"guide": (), "programs": ("/clear",), "autonn": ("/resume",)}[replies]
    paths = ("/status_request", "/start", "/stop", *further)
    calls = (
        *(Call("GET", path, query=ids) for path in paths),
        Call("GET", "/", query={"start": "", **ids}),
    )
    served = generator(replies=replies)
    bench = DialectBench(
        lambda: served.dialect(lambda: 0, lambda calls: [None] * len(calls)),
        calls,
        frozenset({"Start", "Stop", "AnyCall", "Resume"}),
    )
    await check(bench)
