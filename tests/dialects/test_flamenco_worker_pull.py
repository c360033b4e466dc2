"""A worker that asks (2015-03), in its core: what it says to its manager when, what stops it, and what it remembers."""

from __future__ import annotations

import contextlib
import json

import pytest

from orchestra.dialects.far_calls import FarReply
from orchestra.dialects.flamenco_worker_offers import OFFERS
from orchestra.dialects.flamenco_worker_reports import TRIES_MAX
from orchestra.dialects.flamenco_worker_runs import (
    REPORTS,
)
from orchestra.errors import Unavailable
from orchestra.statemachine.records import Rung
from orchestra.statemachine.reports import Happening
from tests.dialects.flamenco_worker_kit import (
    TASK,
    WorkerDiesError,
    machine,
)

pytestmark = pytest.mark.anyio


async def test_a_task_is_asked_for_told_of_and_ended() -> None:
    async with machine() as ours:
        manager = ours.manager
        await ours.passes()
        assert [f"{call.method} {call.path}" for call in manager.calls] == [
            "GET /info",
            "POST /workers",
            "GET /tasks/compiled/0?worker=render-1",
        ]
        assert dict(manager.calls[1].form) == {
            "port": "7777",
            "hostname": "render-1",
            "system": "Linux 6.1",
        }
        manager.offered = TASK
        await ours.passes()
        (order,) = await ours.orders()
        template = json.loads(order.template)
        assert template["argv"] == [
            "/usr/bin/blender",
            "-b",
            "/work/22/files/a.blend",
            "-o",
            "/work/22/output/22/#",
            # What a manager says is no placeholder of ours.
            "{{x}}",
        ]
        assert manager.reports() == [{"status": "running", "time_cost": "0", "job_id": "3"}]


async def test_a_task_that_runs_is_told_of_and_its_end_once() -> None:
    async with machine() as ours:
        manager = ours.manager
        manager.offered = TASK
        await ours.passes()
        await ours.tells(
            Happening.RUNNING, b"Fra:5 Mem:1M | Sample 1/8\nSaved: '/work/22/output/5.png'\n"
        )
        await ours.passes(3)
        last = manager.reports()[-1]
        assert (last["status"], last["time_cost"], last["task_id"]) == ("running", "3", "22")
        assert json.loads(last["activity"])["current_frame"] == 5
        assert last["log"].startswith("Fra:5")
        ((picture, field, path),) = manager.sent
        assert (picture.path, field, path) == (
            "/tasks/thumbnails",
            "file",
            "/work/22/output/5.png",
        )
        told = len(manager.reports())
        await ours.passes(3)
        assert len(manager.reports()) == told, "nothing new is told of in each round"
        await ours.passes(8)
        assert len(manager.reports()) == told + 1, "a silent task is told of all the same"
        await ours.tells(Happening.COMPLETED, result=b"{}")
        await ours.passes()
        end, field, path = manager.sent[-1]
        assert (dict(end.form)["status"], field, path) == (
            "finished",
            "taskfile",
            "/work/22/output/22",
        )
        assert manager.cleared[-1] == "/work/22"
        assert len(await ours.jobs(REPORTS)) == 1
        count = len(manager.sent)
        await ours.passes()
        assert len(manager.sent) == count, "an end is told once"
        assert manager.calls[-1].path == "/tasks/compiled/0?worker=render-1"


async def test_a_cancelled_task_is_stopped_and_told_as_aborted() -> None:
    async with machine() as ours:
        manager = ours.manager
        manager.offered = TASK
        await ours.passes()
        await ours.tells(Happening.RUNNING, b"Fra:5\n")
        manager.answer = lambda _: FarReply(403, b'"Task Cancelled"')
        await ours.passes()
        assert [order.rung for order in await ours.orders()] != [Rung.NONE]
        count = len(manager.reports())
        await ours.passes(60)
        assert len(manager.reports()) == count, "what is being stopped does not run"
        await ours.tells(Happening.STOPPED)
        await ours.passes()
        assert dict(manager.sent[-1][0].form)["status"] == "aborted"
        manager.answer = lambda _: FarReply(204, b"")
        manager.offered = {**TASK, "task_id": 23}
        await ours.passes()
        assert len(await ours.orders()) == 1, "the worker goes on"


async def test_a_manager_in_trouble_costs_no_render() -> None:
    async with machine() as ours:
        ours.manager.offered = TASK
        await ours.passes()
        for answer in (None, FarReply(500, b""), FarReply(503, b""), FarReply(429, b"")):
            ours.manager.answer = lambda _, answer=answer: answer
            await ours.passes(11)
        assert [order.rung for order in await ours.orders()] == [Rung.NONE]
        await ours.tells(Happening.COMPLETED, result=b"{}")
        await ours.passes()
        ours.manager.answer = lambda _: FarReply(204, b"")
        assert len(await ours.jobs(REPORTS)) == 0
        await ours.passes(2)
        assert dict(ours.manager.sent[-1][0].form)["status"] == "finished"
        assert len(await ours.jobs(REPORTS)) == 1


async def test_a_manager_that_never_returns_is_given_up_on() -> None:
    async with machine() as ours:
        ours.manager.offered = TASK
        await ours.passes()
        await ours.tells(Happening.COMPLETED, result=b"{}")
        ours.manager.answer = lambda _: None
        for _ in range(TRIES_MAX + 2):
            with contextlib.suppress(Unavailable):
                await ours.passes(61)
        ends = [call for call, field, _ in ours.manager.sent if field == "taskfile"]
        assert len(ends) == TRIES_MAX
        (report,) = await ours.jobs(REPORTS)
        assert "was given up" in report.name


@pytest.mark.parametrize("over", [False, True])
async def test_after_a_restart_the_task_is_the_workers_still(over: bool) -> None:
    async with machine() as ours:
        ours.manager.offered = TASK
        await ours.passes()
        await ours.tells(Happening.RUNNING, b"Fra:5\n")
        if over:
            await ours.tells(Happening.COMPLETED, result=b"{}")
        ours.restart()
        asked = len(ours.manager.calls)
        await ours.passes()
        if not over:
            assert ours.manager.reports()[-1]["log"] == "Fra:5\n"
            assert not any("compiled" in call.path for call in ours.manager.calls[asked:])
            await ours.tells(Happening.COMPLETED, result=b"{}")
            await ours.passes()
        end, _, path = ours.manager.sent[-1]
        assert (end.path, dict(end.form)["status"]) == ("/tasks/22", "finished")
        assert path == "/work/22/output/22"
        ours.restart()
        await ours.passes()
        assert len(ours.manager.sent) == 1, "an end is told once, also after a restart"
        assert "compiled" in ours.manager.calls[-1].path


async def test_a_task_without_a_type_goes_by_its_parser() -> None:
    """As managers gave them a little before 2015-03-28."""
    untyped = {name: value for name, value in TASK.items() if name != "type"}
    async with machine(programs={"blender_render": "/opt/blender"}) as ours:
        ours.manager.offered = untyped
        await ours.passes()
        (order,) = await ours.orders()
        assert json.loads(order.template)["argv"][0] == "/opt/blender"
        assert "/settings/blender_render" in [call.path for call in ours.manager.calls]


BEFORE_IT_BEGINS = ("/tasks/22", "/static/storage/3/jobfile", "/static/storage/3/dep", "/settings")
"""The calls between a task's being given and its program's begin."""


@pytest.mark.parametrize("call", BEFORE_IT_BEGINS)
async def test_a_worker_that_dies_before_the_program_begins_takes_its_task_up_again(
    call: str,
) -> None:
    """The manager gives each task once here: what is forgotten is lost."""
    async with machine() as ours:
        manager = ours.manager
        manager.offered, manager.kills_at = TASK, call
        with pytest.raises(WorkerDiesError):
            await ours.passes()
        assert await ours.orders() == (), "its program has not begun"
        manager.kills_at = ""
        asked = len(manager.calls)
        ours.restart()
        await ours.passes()
        assert manager.calls[asked].path == "/tasks/22"
        assert manager.reports()[-1] == {"status": "running", "time_cost": "0", "job_id": "3"}
        await ours.tells(Happening.COMPLETED, result=b"{}")
        await ours.passes()
        assert dict(manager.sent[-1][0].form)["status"] == "finished"
        for _ in range(2):
            ours.restart()
            await ours.passes()
        assert len(manager.sent) == 1, "an end is told once"
        assert "compiled" in manager.calls[-1].path
        assert len(await ours.jobs()) == 1, "and its program ran once"


async def test_a_worker_that_dies_again_and_again_keeps_its_task() -> None:
    async with machine() as ours:
        ours.manager.offered, ours.manager.kills_at = TASK, "/static"
        for _ in range(3):
            with pytest.raises(WorkerDiesError):
                await ours.passes()
            ours.restart()
        ours.manager.kills_at = ""
        await ours.passes()
        assert len(await ours.orders()) == 1
        assert len(await ours.jobs(OFFERS)) == 1


async def test_what_its_manager_gave_elsewhere_meanwhile_is_not_taken_up_again() -> None:
    async with machine() as ours:
        ours.manager.offered, ours.manager.kills_at = TASK, "/static"
        with pytest.raises(WorkerDiesError):
            await ours.passes()
        ours.manager.kills_at = ""
        ours.manager.answer = lambda _: FarReply(403, b'"Task Cancelled"')
        for _ in range(2):
            ours.restart()
            await ours.passes()
        assert await ours.orders() == ()
        assert len(ours.manager.reports()) == 2, "it asked once whether the task is its own still"
        assert ours.manager.cleared[-1] == "/work/22"
        assert "compiled" in ours.manager.calls[-1].path


async def test_a_task_too_long_to_be_noted_has_failed_and_the_log_says_why() -> None:
    async with machine() as ours:
        long = {"settings": {"text": "x" * 300_000}}
        ours.manager.offered = {
            **TASK,
            **long,
            "task_command": json.dumps(["shell", "x" * 262_144]),
        }
        await ours.passes()
        await ours.passes()
        end = dict(ours.manager.sent[-1][0].form)
        assert end["status"] == "failed"
        assert end["log"].startswith("the task can not be noted: 262")
        assert not await ours.jobs(OFFERS)
        ours.manager.offered = {**TASK, **long}
        await ours.passes()
        assert len(await ours.orders()) == 1, "long settings are nothing that it needs"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"type": "other"}, "may not run 'other'"),
        ({"task_command": '["/bin/bash", "x"]'}, "may not run '/bin/bash'"),
        ({"task_command": '["==command==", "--python-expr", "1"]'}, "code from afar"),
        ({"task_command": "{}"}, "no list of texts"),
    ],
)
async def test_what_may_not_run_has_failed_and_the_log_says_why(
    change: dict[str, str], told: str
) -> None:
    async with machine() as ours:
        ours.manager.offered = {**TASK, **change}
        await ours.passes()
        await ours.passes()
        assert await ours.orders() == ()
        end = dict(ours.manager.sent[-1][0].form)
        assert end["status"] == "failed"
        assert told in end["log"]
        await ours.passes()
        assert len(ours.manager.sent) == 1


@pytest.mark.parametrize("fetched", [None, 404, 500])
async def test_a_task_whose_files_do_not_come_has_failed(fetched: int | None) -> None:
    async with machine() as ours:
        ours.manager.offered, ours.manager.fetched = TASK, fetched
        await ours.passes()
        await ours.passes()
        end = dict(ours.manager.sent[-1][0].form)
        assert (end["status"], "jobfile_3.zip" in end["log"]) == ("failed", True)


@pytest.mark.parametrize("ticket", ["../22", "", "a b", "-1", "9" * 41])
async def test_a_task_whose_number_is_none_is_not_taken(ticket: str) -> None:
    async with machine() as ours:
        ours.manager.offered = {**TASK, "task_id": ticket}
        with pytest.raises(Unavailable):
            await ours.passes()
        assert not ours.manager.reports()
        await ours.passes()
