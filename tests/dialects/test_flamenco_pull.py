"""The pull protocol, request by request: what a worker of 2015-03 sends, and what it is told."""

from __future__ import annotations

import json

import pytest

from orchestra.dialects.flamenco_desk import TICKET_BITS
from orchestra.ports import Log, Story
from orchestra.statemachine.commands import CancelJob, ResumeJob
from orchestra.statemachine.lifecycles import JobStatus, TaskStatus
from orchestra.statemachine.queries import GetTask
from tests.dialects.flamenco_kit import GONE, Far, open_yard

pytestmark = pytest.mark.anyio


JOB_FILES = {"jobfiles": [["jobfile", "jobfile.zip"], ["jobsupportfile", "jobsupportfile.zip"]]}


async def fetch_what_it_needs(worker: Far, ticket: int) -> None:
    """The files of job 1, and the programs of its tasks."""
    for name in ("jobfile_1.zip", "jobsupportfile_1.zip"):
        fetched = await worker.send("GET", f"/static/storage/1/{name}")
        assert fetched.status_code == 200
        assert fetched.content.startswith(b"PK\x05\x06")
    missing = await worker.send("GET", f"/static/storage/1/dependencies_{ticket}.zip")
    assert missing.status_code == 404
    programs = await worker.json("GET", "/settings/simple_blender_render")
    assert programs["commands"]["default"] == dict.fromkeys(
        ("Linux", "Darwin", "Windows"), "blender"
    )


async def test_the_sequence_of_a_real_worker() -> None:
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        assert (await worker.send("GET", "/info")).status_code == 200
        registered = await worker.send(
            "POST", "/workers", data={"port": 7777, "hostname": "vm", "system": "Linux 6.18"}
        )
        assert (registered.status_code, registered.content) == (204, b"")
        assert "content-length" not in registered.headers
        nothing = await worker.send("GET", "/tasks/compiled/0")
        assert (nothing.status_code, nothing.json()) == (400, "")

        await worker.posts(22, frame_start=5, frame_end=6, chunk_size=2)
        reply = await worker.json("GET", "/tasks/compiled/0")
        task, ticket = reply["options"], reply["options"]["task_id"]
        assert reply["files"] == JOB_FILES
        assert {key: task[key] for key in ("job_id", "task_parser", "type")} == {
            "job_id": 1,
            "task_parser": "blender_render",
            "type": "simple_blender_render",
        }
        assert task["settings"]["frame_start"] == 5
        assert 0 < ticket < 1 << TICKET_BITS
        argv = json.loads(task["task_command"])
        assert argv[0] == "==command=="
        assert "==jobpath==/shot.blend" in argv
        assert argv[argv.index("--render-output") + 1].startswith("==outputpath==")

        first = await worker.send(
            "PATCH", f"/tasks/{ticket}", data={"status": "running", "time_cost": 0, "job_id": 1}
        )
        assert (first.status_code, first.content) == (204, b"")
        await fetch_what_it_needs(worker, ticket)
        line = "Fra:5 Mem:1M | Remaining:00:03 | Sample 4/8\n"
        assert await worker.says(task, "running", log=line) == (204, "")
        (view,) = (await worker.json("GET", "/workers")).values()
        assert json.loads(view["activity"])["current_frame"] == 5
        saved = line + "Saved: '/tmp/out/000006.png'\n"
        ended = await worker.send(
            "PATCH",
            f"/tasks/{ticket}",
            data={"status": "finished", "time_cost": 3, "job_id": 1, "log": saved},
            files={"taskfile": ("taskfile.zip", b"PK", "application/zip")},
        )
        assert (ended.status_code, ended.content) == (204, b"")
        seen = await yard.asker.answer(GetTask("1.1"))
        assert seen.status is TaskStatus.COMPLETED
        kept = await yard.asker.log(Log(seen.attempts[0].id, "stdout"))
        assert kept.data.decode() == saved
        result = json.loads(seen.attempts[0].result or b"")
        assert result["activity"]["thumbnail"] == "/tmp/out/000006.png"  # noqa: S108 - a text
        assert await worker.poll() is None


async def test_the_higher_priority_first_and_of_equals_the_older() -> None:
    async with open_yard() as yard:
        server, worker = yard.at("10.0.0.1"), yard.at("10.0.0.7")
        for number, priority in ((1, 5), (2, 50), (3, 50), (4, -5)):
            form = {"task_id": number, "type": "print_string", "priority": priority}
            await server.json("POST", "/tasks", 202, data={**form, "settings": '{"text": "a"}'})
        given: list[int] = []
        for _ in range(4):
            task = await worker.has_task()
            given.append(int(task["job_id"]))
            assert await worker.says(task, "finished") == (204, "")
        assert given == [2, 3, 1, 4]


async def test_two_workers_at_one_address_do_not_cancel_each_other() -> None:
    async with open_yard() as yard:
        one, two = yard.at("10.0.0.7", "one"), yard.at("10.0.0.7", "two")
        await one.posts(chunk_size=3)
        first = await one.has_task()
        assert await one.says(first, "running") == (204, "")
        # Both register before either asks: who asks is not said.
        assert await two.register() == 204
        second = await two.has_task()
        assert await two.says(second, "running") == (204, "")
        assert first["task_id"] != second["task_id"]
        for worker, task in ((one, first), (two, second), (one, first), (two, second)):
            assert await worker.says(task, "running", log="Fra:5 \n") == (204, "")
        shown = await one.json("GET", "/workers")
        assert {name: each["current_task"] for name, each in shown.items()} == {
            "one": str(first["task_id"]),
            "two": str(second["task_id"]),
        }
        assert await one.says(first, "finished") == (204, "")
        assert await two.says(second, "finished") == (204, "")
        assert (await yard.job()).status is JobStatus.COMPLETED


async def test_two_workers_of_one_name_and_address_are_told_apart_by_their_ports() -> None:
    async with open_yard() as yard:
        one, two = yard.at("10.0.0.7", port=5000), yard.at("10.0.0.7", port=5001)
        await one.posts(chunk_size=3)
        first, second = await one.has_task(), await two.has_task()
        for worker, task in ((one, first), (two, second)):
            assert await worker.says(task, "finished") == (204, "")
        assert set(await one.json("GET", "/workers")) == {"vm@10.0.0.7:5000", "vm@10.0.0.7:5001"}


async def test_a_registered_worker_keeps_its_current_task() -> None:
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts()
        task = await worker.has_task()
        assert await worker.says(task, "running") == (204, "")
        for _ in range(3):
            assert await worker.register() == 204
            await yard.passes(1)
        (view,) = (await worker.json("GET", "/workers")).values()
        assert view["current_task"] == str(task["task_id"])
        assert view["status"] == "rendering"
        assert await worker.says(task, "running") == (204, "")
        assert (await yard.asker.answer(GetTask("1.1"))).status is TaskStatus.RUNNING


async def test_a_cancelled_task_is_told_once_and_its_end_is_taken() -> None:
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts()
        task = await worker.has_task()
        assert await worker.says(task, "running") == (204, "")
        await yard.asker.ask(CancelJob((await yard.job()).id))
        assert (await yard.job()).status is JobStatus.CANCELLING
        assert await worker.says(task, "running", log="Fra:5\n") == GONE
        # The worker kills its program, and tells how that ended.
        assert await worker.says(task, "aborted") == (204, "")
        seen = await yard.asker.answer(GetTask("1.1"))
        assert (seen.status, seen.failures) == (TaskStatus.CANCELLED, 0)
        assert (await yard.job()).status is JobStatus.CANCELLED
        assert await worker.poll() is None


async def test_a_worker_that_asks_again_after_it_was_told_to_stop_has_stopped() -> None:
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts()
        task = await worker.has_task()
        assert await worker.says(task, "running") == (204, "")
        assert (await worker.send("DELETE", "/tasks/12")).status_code == 202
        assert await worker.says(task, "running") == GONE
        assert await worker.poll() is None
        assert (await yard.job()).status is JobStatus.CANCELLED


async def test_a_disabled_worker_stops_and_its_task_runs_elsewhere() -> None:
    async with open_yard() as yard:
        one, two = yard.at("10.0.0.7", "one"), yard.at("10.0.0.8", "two")
        await one.posts()
        task = await one.has_task()
        assert await one.says(task, "running") == (204, "")
        number = (await one.json("GET", "/workers"))["one"]["id"]
        path = f"/workers/status/{number}"
        said = await one.json("PATCH", path, data={"status": "disabled"})
        assert said == {"task_id": None}
        assert await one.says(task, "running") == (403, '"Worker is Disabled"')
        assert await one.says(task, "aborted") == (204, "")
        asked = await one.send("GET", "/tasks/compiled/0")
        assert (asked.status_code, asked.text) == (403, '"Worker is Disabled"')
        assert await two.says(await two.has_task(), "finished") == (204, "")
        assert (await yard.job()).status is JobStatus.COMPLETED
        assert (await yard.asker.answer(GetTask("1.1"))).failures == 0
        assert (await one.json("PATCH", path, data={"status": "enabled"})) == {"task_id": None}
        await one.posts(13, chunk_size=3)
        assert await one.poll() is not None
        assert await two.poll() is not None


async def test_a_paused_job_gives_nothing_and_a_stopped_one_takes_back_what_runs() -> None:
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts(chunk_size=3)
        task = await worker.has_task()
        stop = {"id": "1", "command": "stop"}
        said = await worker.json("PUT", "/jobs", data=stop)
        assert said == {"id": [1], "command": "stop", "status": "stopped"}
        assert await worker.says(task, "running") == GONE
        assert await worker.says(task, "aborted") == (204, "")
        assert await worker.poll() is None
        assert (await worker.json("GET", "/jobs/1"))["status"] == "stopped"
        await worker.json("PUT", "/jobs", data={**stop, "command": "start"})
        for _ in range(2):
            again = await worker.has_task()
            assert await worker.says(again, "running") == (204, "")
            assert await worker.says(again, "finished") == (204, "")
        assert (await yard.job()).status is JobStatus.COMPLETED


async def test_a_job_that_was_stopped_and_started_at_once_goes_on() -> None:
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts()
        task = await worker.has_task()
        for word in ("stop", "start"):
            await worker.json("PUT", "/jobs", data={"id": "1", "command": word})
        assert await worker.says(task, "running") == (204, "")
        await worker.json("PUT", "/jobs", data={"id": "1", "command": "stop"})
        await yard.asker.ask(ResumeJob((await yard.job()).id))
        assert await worker.says(task, "running") == GONE
        assert await worker.says(task, "aborted") == (204, "")
        again = await worker.has_task()
        assert await worker.says(again, "running") == (204, ""), "what was stopped is over"
        assert await worker.says(again, "finished") == (204, "")


async def test_a_task_whose_answer_was_lost_is_sent_again() -> None:
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts()
        task = await worker.has_task()
        assert await worker.poll() is None
        await yard.passes(11)
        assert await worker.has_task() == task
        assert await worker.says(task, "finished") == (204, "")


async def test_a_task_that_its_worker_let_go_of_runs_again() -> None:
    """A worker that can not unpack the files of its job tells nobody, and asks for work again."""
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts()
        task = await worker.has_task()
        assert await worker.says(task, "running") == (204, "")
        for _ in range(59):
            assert await worker.poll() is None
            await yard.passes(1)
        await yard.passes(1)
        assert await worker.poll() is None
        again = await worker.has_task()
        assert again["task_id"] != task["task_id"]
        assert await worker.says(task, "finished") == GONE
        assert await worker.says(again, "finished") == (204, "")


async def test_after_a_restart_of_the_manager_a_worker_goes_on() -> None:
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts()
        task = await worker.has_task()
        assert await worker.says(task, "running", log="one\n") == (204, "")
        yard.restart()
        assert await worker.says(task, "running", log="one\ntwo\n") == (204, "")
        yard.restart()
        assert await worker.poll() is None
        assert await worker.says(task, "finished", log="one\ntwo\n") == (204, "")
        assert (await yard.asker.answer(GetTask("1.1"))).attempts[0].number == 1
        assert (await yard.job()).status is JobStatus.COMPLETED


async def test_a_report_from_another_address_or_of_another_attempt_changes_nothing() -> None:
    async with open_yard() as yard:
        worker, forger = yard.at("10.0.0.7"), yard.at("10.0.0.66")
        await worker.posts()
        task = await worker.has_task()
        assert await forger.says(task, "finished") == (403, '"Duplicated Task"')
        for number in (0, 1, 12, task["task_id"] ^ 1, 2**62):
            assert await worker.says({**task, "task_id": number}, "finished") == GONE
        assert (await yard.asker.answer(GetTask("1.1"))).status is TaskStatus.LEASED
        assert (await forger.send("GET", "/tasks/compiled/0")).status_code == 403
        for fields, told in (
            ({}, "[status]: Missing required parameter"),
            ({"status": "rendering"}, "[status]: is no status"),
            ({"status": "running", "time_cost": "soon"}, "[time_cost]"),
        ):
            reply = await worker.send("PATCH", f"/tasks/{task['task_id']}", data=fields)
            assert reply.status_code == 400
            assert reply.json()["message"].startswith(told)
        assert await worker.says(task, "finished") == (204, "")
        assert await worker.says(task, "failed") == GONE


async def test_the_words_of_later_workers_are_understood() -> None:
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts()
        assert await worker.register() == 204
        reply = await worker.json("GET", "/tasks/compiled/0", params={"worker": "vm"})
        task = reply["options"]
        assert await worker.says(task, "active") == (204, "")
        assert await worker.says(task, "completed") == (204, "")
        assert (await yard.job()).status is JobStatus.COMPLETED


async def test_a_worker_that_asks_no_more_is_given_nothing_that_it_would_never_fetch() -> None:
    async with open_yard() as yard:
        gone, other = yard.at("10.0.0.7", "gone"), yard.at("10.0.0.8", "other")
        assert await gone.poll() is None
        await other.posts()
        assert await other.poll() is None, "it lies with the one that was there"
        for _ in range(15):
            assert await other.poll() is None
            await yard.passes(1)
        await yard.passes(3)
        task = await other.has_task()
        assert (await yard.asker.answer(GetTask("1.1"))).losses == 0
        assert await other.says(task, "finished") == (204, "")
        await other.posts(13)
        assert await other.poll() is not None
        await other.posts(14)
        assert await gone.poll() is not None, "it asks again, and is given work again"


async def test_a_worker_that_dies_while_it_renders_is_reported_once() -> None:
    async with open_yard() as yard:
        dying, other = yard.at("10.0.0.7", "dying"), yard.at("10.0.0.8", "other")
        await dying.posts()
        task = await dying.has_task()
        assert await dying.says(task, "running", log="Fra:5 \n") == (204, "")
        for _ in range(599):
            assert await other.poll() is None
            await yard.passes(1)
        assert (await yard.asker.answer(GetTask("1.1"))).failures == 0
        await yard.passes(5)
        again = await other.has_task()
        assert await other.says(again, "running") == (204, "")
        for _ in range(60):
            await yard.passes(1)
        assert await other.says(again, "finished") == (204, "")
        story = await yard.asker.story(Story(limit=500))
        ended = [each for each in story if each.kind == "attempt" and each.verb == "fail"]
        assert len(ended) == 1
        assert (
            "nothing was heard of it for 600 s"
            in (await yard.asker.answer(GetTask("1.1"))).attempts[0].message
        )
        assert await dying.says(task, "finished") == GONE


async def test_a_silent_worker_without_a_task_is_offline_after_a_minute_and_may_return() -> None:
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        assert await worker.poll() is None

        async def connection() -> str:
            (view,) = (await worker.json("GET", "/workers")).values()
            return str(view["connection"])

        await yard.passes(59)
        assert await connection() == "online"
        await yard.passes(10)
        assert await connection() == "offline"
        assert await worker.poll() is None
        assert await connection() == "online"


async def test_a_worker_that_can_not_join_leaves_nothing_behind() -> None:
    async with open_yard() as yard:
        for hostname in ("a\nb", "\u202e\x00", " "):
            bad = yard.at("10.0.0.7", hostname)
            for _ in range(2):
                reply = await bad.register()
                assert reply in (204, 400)
                asked = await bad.send("GET", "/tasks/compiled/0")
                assert asked.status_code == (403 if reply == 400 else 400)
        assert await yard.at("10.0.0.8").poll() is None
