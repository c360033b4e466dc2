"""The Project Manager's interface over a real core: its calls as measured, its workflows, and reports that are hints."""

from __future__ import annotations

import json

import anyio
import pytest

from orchestra.dialects.tango_pipelines import PIPELINES
from orchestra.dialects.tango_words import ALIASES
from orchestra.ports import Story
from orchestra.statemachine.commands import JoinWorker, Tick
from orchestra.statemachine.limits import BACKOFF_MS_MAX
from orchestra.statemachine.queries import ListJobs
from orchestra.statemachine.records import Cause
from orchestra.statemachine.reports import Happening, Heartbeat
from tests.dialects.tango_office import FORM, IDS, MEMBERS, STAGES, TABLE, office

pytestmark = pytest.mark.anyio


# the calls, as measured ---------------------------------------------------------------------------------------------


async def test_a_pipeline_goes_from_stage_to_stage() -> None:
    async with office() as pm:
        shown = await pm.api("status_request")
        assert shown == {
            "container": "bms",
            "container_status": "",
            "message": "",
            "containers": {},
        }
        started = await pm.start()
        assert started["status"] == 200
        assert started["message"] == "bms is started\n"
        assert "Project Manager --> bms:8000" in started["response"]
        for n, name in enumerate(STAGES):
            (order,) = await pm.orders()
            assert (order.stage, order.app) == (name, "member")
            assert json.loads(order.template) == {"user_id": "kyunghee", "project_id": "1"}
            assert (await pm.api("status_request"))["container"] == name
            await pm.tells(name, Happening.RUNNING)
            assert (await pm.words())[name] == "running"
            await pm.tells(name, Happening.COMPLETED, result=b"null")
            words = await pm.words()
            assert [words[each] for each in STAGES[: n + 1]] == ["completed"] * (n + 1)
        shown = await pm.api("status_request")
        assert (shown["container"], shown["container_status"]) == ("ondevice_deploy", "completed")


@pytest.mark.parametrize("form", ["/status_report?", "/status_report/?", "/?status_report&"])
@pytest.mark.parametrize("order", [0, 1, 2])
async def test_a_report_is_a_hint(form: str, order: int) -> None:
    """It has the member asked, in whichever form it comes; by itself it changes nothing."""
    pairs = ["container_id=code_gen", "user_id=kyunghee", "project_id=1", "status=success"]
    query = "&".join(pairs[order:] + pairs[:order])
    async with office() as pm:
        await pm.start("code_gen")
        await pm.orders()
        before = await pm.asker.story(Story(limit=500))
        assert await pm.report(query, form) == (200, '{"status":200}')
        assert pm.nudged == [("code_gen", ("kyunghee", "1"))]
        assert await pm.asker.story(Story(limit=500)) == before
        await pm.done("code_gen")
        # It came again, after the member was asked.
        assert (await pm.report(query, form))[0] == 200
        assert len(pm.nudged) == 1


@pytest.mark.parametrize(("alias", "meant"), [*ALIASES.items(), ("imagedeploy", "ondevice_deploy")])
async def test_containers_by_the_names_that_programs_use(alias: str, meant: str) -> None:
    members = dict.fromkeys({*STAGES, *ALIASES.values()} - {"ondevice_deploy"}, "host:80")
    table = {"members": {**members, "ondevice_deploy": MEMBERS["ondevice_deploy"]}}
    async with office({**table, "workflow": [alias]}) as pm:
        await pm.start(alias)
        assert await pm.words() == {meant: "ready"}
        joined = await pm.asker.ask(
            JoinWorker("w", "s", 1, ("member",), labels=(f"member:{meant}",))
        )
        beat = Heartbeat(joined.worker_id, joined.incarnation)
        assert [order.stage for order in (await pm.asker.ask(beat)).orders] == [meant]
        assert (await pm.report(f"container_id={alias}&{IDS}&status=success"))[0] == 200
        assert pm.nudged == [(meant, ("kyunghee", "1"))]


async def test_a_failed_stage_ends_the_pipeline() -> None:
    async with office() as pm:
        await pm.start()
        await pm.done("bms")
        await pm.tells("autonn", Happening.FAILED, cause=Cause.ERROR, message="no gpu")
        shown = await pm.api("status_request")
        assert (shown["container"], shown["container_status"]) == ("autonn", "failed")
        assert "no gpu" in shown["message"]
        assert shown["containers"]["code_gen"] == "failed"
        assert await pm.orders() == []
        # It can be gone on with from there.
        await pm.start("autonn")
        await pm.done("autonn")
        assert (await pm.api("status_request"))["container"] == "code_gen"


async def test_a_failed_stage_is_started_again_as_often_as_the_table_says() -> None:
    """``restarts`` for all members, and another number at one of them."""
    members = {**MEMBERS, "autonn": {"address": "autonn:8100", "restarts": 2, "limit": "90m"}}
    async with office({**TABLE, "members": members, "restarts": 1, "limit": "6h"}) as pm:
        await pm.start()
        for container, tries, limit_ms in (("bms", 2, 21_600_000), ("autonn", 3, 5_400_000)):
            for number in range(1, tries + 1):
                (order,) = await pm.orders()
                assert (order.stage, order.number, order.run_ms_max) == (
                    container,
                    number,
                    limit_ms,
                )
                assert (await pm.words())[container] != "failed"
                if number == tries == 2:
                    await pm.done(container)
                else:
                    await pm.tells(container, Happening.FAILED, cause=Cause.ERROR)
                    pm.clock.ms += BACKOFF_MS_MAX
                    await pm.asker.ask(Tick())
        assert await pm.orders() == []
        assert (await pm.words())["autonn"] == "failed"


async def test_a_stop() -> None:
    async with office() as pm:
        reply = await pm.send(
            "POST", "/api/container_stop", content=f"{IDS}&container_id=bms", headers=FORM
        )
        assert reply.status_code == 404
        await pm.start()
        await pm.tells("bms", Happening.RUNNING)
        await pm.api("container_stop", f"{IDS}&container_id=bms")
        assert (await pm.words())["bms"] == "running"
        await pm.tells("bms", Happening.STOPPED, cause=Cause.CANCELLED)
        assert (await pm.words())["bms"] == "stopped"
        # It is over already, which is what is asked for.
        await pm.api("container_stop", f"{IDS}&container_id=bms")
        assert (await pm.api("status_request"))["container_status"] == "stopped"


async def test_what_waits_says_why() -> None:
    async with office() as pm:
        await pm.start()
        shown = await pm.api("status_request")
        assert (shown["container"], shown["container_status"]) == ("bms", "ready")
        assert "member:bms" in shown["message"] or "worker" in shown["message"]


# one state for each project -----------------------------------------------------------------------------------------


async def test_starts_at_one_time_are_one_start() -> None:
    """The original loads its row, calls, and saves: what came in between is overwritten."""
    async with office() as pm:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(pm.start)
        jobs = await pm.asker.answer(ListJobs(project=PIPELINES))
        assert len(jobs.items) == 1
        assert len(await pm.orders()) == 1


async def test_reports_at_one_time_start_one_next_stage() -> None:
    async with office() as pm:
        await pm.start()
        await pm.done("bms")
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(pm.report, f"container_id=bms&{IDS}&status=success")
        assert [order.stage for order in await pm.orders()] == ["autonn"]


async def test_a_start_beside_what_runs() -> None:
    async with office() as pm:
        await pm.start()
        await pm.tells("bms", Happening.RUNNING)
        assert (await pm.start())["message"] == "bms runs already\n"
        await pm.tells("bms", Happening.COMPLETED, result=b"null")
        reply = await pm.send(
            "POST", "/api/container_start", content=f"{IDS}&container_id=bms", headers=FORM
        )
        assert reply.status_code == 409
        assert "stop it first" in reply.json()["message"]
        # Other projects have pipelines of their own.
        await pm.start(ids="user_id=kyunghee&project_id=2")
        await pm.start(ids="user_id=giantlkh&project_id=1")
        assert len(await pm.orders()) == 3


async def test_a_manager_that_was_started_anew_knows_everything() -> None:
    async with office() as pm:
        assert (
            await pm.set_workflow(project_id=1, workflow=["bms", "code_gen"])
        ).status_code == 200
        await pm.start()
        await pm.done("bms")
        pm.restart()
        assert await pm.words() == {"bms": "completed", "code_gen": "started"}
        assert (await pm.start("code_gen"))["message"] == "code_gen runs already\n"
        assert (await pm.report(f"container_id=bms&{IDS}&status=success"))[0] == 200
        await pm.done("code_gen")
        pm.restart()
        await pm.start()
        assert await pm.words() == {"bms": "started", "code_gen": "ready"}
        assert len((await pm.asker.answer(ListJobs(project=PIPELINES))).items) == 2
