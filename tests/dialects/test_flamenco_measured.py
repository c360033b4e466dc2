"""What the programs of 2015 were seen to send when they rendered with Blender 3.4 for this manager, and what it showed."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from orchestra.dialects.far_calls import REPLY_BYTES_MAX
from orchestra.dialects.flamenco_logs import FULL
from orchestra.dialects.flamenco_parsers import Activity, read_activity
from orchestra.ports import Log
from orchestra.statemachine import limits
from orchestra.statemachine.lifecycles import JobStatus, TaskStatus
from orchestra.statemachine.queries import GetTask
from tests.dialects.flamenco_kit import Far, open_yard
from tests.dialects.test_flamenco_push import pushed, reports

pytestmark = pytest.mark.anyio

FORM = {"content-type": "application/x-www-form-urlencoded"}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


async def sends(worker: Far, ticket: int, body: bytes, kind: str = "") -> int:
    """A report as bytes."""
    headers = {"content-type": kind} if kind else FORM
    return (
        await worker.send("PATCH", f"/tasks/{ticket}", content=body, headers=headers)
    ).status_code


async def test_the_reports_of_a_render_byte_by_byte() -> None:
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7", "puller")
        await worker.posts(1, "print_string", text="hello")
        assert (await worker.send("GET", "/")).status_code == 404
        registered = b"hostname=puller&port=7777&system=Linux+6.18.44-fc-v782"
        reply = await worker.send("POST", "/workers", content=registered, headers=FORM)
        assert (reply.status_code, reply.content) == (204, b"")
        told = (await worker.json("GET", "/tasks/compiled/0"))["options"]
        ticket: int = told["task_id"]
        assert await sends(worker, ticket, b"status=running&time_cost=0&job_id=1") == 204
        piece = b"status=running&log=&task_id=%d&time_cost=0&job_id=1" % ticket
        assert await sends(worker, ticket, piece) == 204
        mark = b"6b5409ea46ab82606d18cf630f470f92"
        parts = [
            b'name="status"\r\n\r\nfinished',
            b'name="time_cost"\r\n\r\n0',
            b'name="log"\r\n\r\nhello\n',
            b'name="job_id"\r\n\r\n1',
            b'name="taskfile"; filename="taskfile.zip"\r\nContent-Type: application/zip\r\n\r\n'
            b"PK\x05\x06" + bytes(18),
        ]
        head = b"--" + mark + b"\r\nContent-Disposition: form-data; "
        body = b"".join(head + part + b"\r\n" for part in parts) + b"--" + mark + b"--\r\n"
        kind = f"multipart/form-data; boundary={mark.decode()}"
        assert await sends(worker, ticket, body, kind) == 204
        assert (await yard.job()).status is JobStatus.COMPLETED
        (attempt,) = (await yard.asker.answer(GetTask("1.1"))).attempts
        assert (await yard.asker.log(Log(attempt.id, "stdout"))).data == b"hello\n"


@pytest.mark.parametrize(
    ("told", "remaining", "missing"),
    [
        ('"remaining": 7, "path_not_found": true', "7", "a path"),
        ('"remaining": 0, "path_not_found": null', "0", ""),
        ('"remaining": "00:07", "path_not_found": "/a/b.png"', "00:07", "/a/b.png"),
        ('"remaining": null, "path_not_found": false', "", ""),
    ],
)
def test_what_a_workers_own_reader_found_differs_in_kind(
    told: str, remaining: str, missing: str
) -> None:
    """The remaining time is whole seconds, and a missing path is ``true``: the rest counts all the same."""
    text = (
        '{"process": "Sample 1/4", "unable_to_open": true, "current_frame": 334, "thumbnail": null'
    )
    read = read_activity(f"{text}, {told}}}", Activity())
    assert (read.current_frame, read.process) == (334, "Sample 1/4")
    assert (read.remaining, read.path_not_found) == (remaining, missing)


async def test_a_log_beyond_what_is_kept_stops_no_render() -> None:
    """Each report brings the whole log: a long render has one of many megabytes."""
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts()
        task = await worker.has_task()
        line = "Fra:7 Mem:1M | Sample 4/8\n"
        log = line * (limits.LOG_BYTES_MAX // len(line) - 10)

        async def says(status: str, more: str) -> int:
            form = {"status": status, "log": log + more}
            # In parts: a form of so much takes seconds to quote.
            part = {"taskfile": ("taskfile.zip", b"", "application/zip")}
            path = f"/tasks/{task['task_id']}"
            return (await worker.send("PATCH", path, data=form, files=part)).status_code

        assert await says("running", "") == 204
        assert await says("running", line * 20) == 204
        (attempt,) = (await yard.asker.answer(GetTask("1.1"))).attempts
        end = Log(attempt.id, "stdout", offset=limits.LOG_BYTES_MAX - 200)
        kept = await yard.asker.log(end)
        assert kept.size <= limits.LOG_BYTES_MAX
        assert kept.data.endswith(FULL)
        assert kept.data.count(FULL) == 1
        assert await says("finished", line * 40) == 204
        assert (await yard.job()).status is JobStatus.COMPLETED


async def test_the_log_of_a_called_worker_is_kept_before_it_ends() -> None:
    """It is killed by a stop, or dies with its machine: what it told until then is what there is."""
    async with pushed() as (yard, (worker,), (far,)):
        await far.posts(output_path="/farm/out/######")
        await yard.passes(1)
        first = "Blender 3.4.1\n" + "Fra:5 Mem:9M | Sample 0/4\n" * 60_000
        worker.activity = {"current_frame": 5, "process": "Sample 0/4", "remaining": 12}
        worker.log = first
        assert len(first) > REPLY_BYTES_MAX
        await yard.passes(11)
        worker.log = first + "Fra:6 Mem:9M | Sample 4/4\n"
        await yard.passes(11)
        assert min(worker.read_bytes) > len(worker.log)
        (attempt,) = (await yard.asker.answer(GetTask("1.1"))).attempts
        size = len(worker.log)
        assert (await yard.asker.log(Log(attempt.id, "stdout", offset=size - 26))).data == (
            b"Fra:6 Mem:9M | Sample 4/4\n"
        )
        (shown,) = (await far.json("GET", "/workers")).values()
        assert json.loads(shown["activity"])["remaining"] == "12"
        ended, worker.task = worker.task, {}
        assert await reports(far, ended, "finished") == (204, "")
        assert (await yard.asker.answer(GetTask("1.1"))).status is TaskStatus.COMPLETED


async def test_files_at_the_addresses_of_later_workers(tmp_path: Path) -> None:
    async with open_yard(storage=str(tmp_path)) as yard:
        worker = yard.at("10.0.0.7")
        form = {"task_id": 1, "type": "print_string", "settings": '{"text": "a"}'}
        files = {"jobfile": ("j.zip", b"PK the scene", "application/zip")}
        assert (await worker.send("POST", "/tasks", data=form, files=files)).status_code == 202
        assert (await worker.send("GET", "/tasks/zip/1")).content == b"PK the scene"
        support = await worker.send("GET", "/tasks/zip/sup/1")
        assert (support.status_code, len(support.content)) == (200, 22)
        for path in ("/tasks/zip/dep/1", "/tasks/zip/2", "/tasks/zip/sup/2"):
            assert (await worker.send("GET", path)).status_code == 404, path


@pytest.mark.parametrize("sent_itself", [False, True])
async def test_without_a_thumbnail_the_last_frame_is_the_picture(
    tmp_path: Path, sent_itself: bool
) -> None:
    """The reader of 2015 takes the quotes that Blender has put around paths since 2.8 for a part of them, and finds no file."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for name, content in (("1.png", PNG + b"1"), ("2.png", PNG + b"2"), ("3.txt", b"3")):
            archive.writestr(name, content)
    async with open_yard(storage=str(tmp_path)) as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts()
        task = await worker.has_task()
        if sent_itself:
            named, file = {"task_id": task["task_id"]}, {"file": ("t.png", PNG, "image/png")}
            await worker.json("POST", "/tasks/thumbnails", data=named, files=file)
        sent = {"taskfile": ("taskfile.zip", zipped.getvalue(), "application/zip")}
        ended = {"status": "finished", "time_cost": 1}
        path = f"/tasks/{task['task_id']}"
        assert (await worker.send("PATCH", path, data=ended, files=sent)).status_code == 204
        shown = await worker.send("GET", "/jobs/1/thumbnail")
        assert shown.content == PNG + (b"" if sent_itself else b"2")
        assert shown.headers["content-type"] == "image/png"


@pytest.mark.parametrize("sent", [10_000, 256])
async def test_after_a_restart_of_the_manager_a_log_is_kept_once(sent: int) -> None:
    """A worker of 2015-03 sends all that its program wrote with each report, later ones the last 256 signs."""
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts(frame_start=1, frame_end=4)
        task = await worker.has_task()
        log = ""
        for frame in (1, 2, 3, 4):
            log += f"Fra:{frame} Mem:8M (Peak 9M) | Sample 4/4\nSaved: '/out/{frame:06}.png'\n"
            assert await worker.says(task, "running", log=log[-sent:]) == (204, "")
            if frame == 3:
                yard.restart()
                assert await worker.says(task, "running", log=log[-sent:]) == (204, "")
        (attempt,) = (await yard.asker.answer(GetTask("1.1"))).attempts
        assert (await yard.asker.log(Log(attempt.id, "stdout"))).data.decode() == log
        assert attempt.progress == 1.0


async def test_a_called_worker_runs_from_when_it_took_its_task() -> None:
    """A program that is over before its worker is asked how it is has run as well."""
    async with pushed() as (yard, (worker,), (far,)):
        await far.posts()
        await yard.passes(1)
        begun = await yard.asker.answer(GetTask("1.1"))
        assert begun.status is TaskStatus.RUNNING
        ended, worker.task = worker.task, {}
        assert await reports(far, ended, "failed") == (204, "")
        assert "GET /info" not in worker.calls[worker.calls.index("POST /execute_task") :]
        attempts = (await yard.asker.answer(GetTask("1.1"))).attempts
        (first,) = (each for each in attempts if each.number == 1)
        assert first.started_at_ms == begun.attempts[0].started_at_ms is not None


async def test_a_worker_that_was_given_up_is_shown_without_a_task() -> None:
    """The original showed for ever what a dead worker had been at."""
    async with pushed() as (yard, (worker,), (far,)):
        await far.posts()
        await yard.passes(1)
        (shown,) = (await far.json("GET", "/workers")).values()
        assert shown["current_task"] == worker.task["task_id"]
        worker.alive = False
        await yard.passes(90)
        (shown,) = (await far.json("GET", "/workers")).values()
        assert (shown["connection"], shown["current_task"]) == ("offline", None)
        assert (shown["activity"], shown["log"], shown["time_cost"]) == (None, None, None)


@pytest.mark.parametrize("silent_s", [1, 90])
async def test_after_a_restart_of_the_manager_called_workers_are_called(silent_s: int) -> None:
    """They register at their start alone: a manager that does not call them has lost them for ever."""
    async with pushed() as (yard, (worker,), (far,)):
        worker.alive = silent_s == 1
        await yard.passes(silent_s)
        worker.alive = True
        yard.restart()
        await yard.passes(2)
        await far.posts()
        await yard.passes(2)
        assert worker.task
        yard.restart()
        await yard.passes(90)
        seen = await yard.asker.answer(GetTask("1.1"))
        assert seen.status is TaskStatus.RUNNING
        assert await reports(far, worker.task, "finished") == (204, "")
        assert (await yard.job()).status is JobStatus.COMPLETED
        assert worker.calls.count("POST /execute_task") == 1


async def test_after_a_restart_of_the_manager_the_dead_are_given_nothing() -> None:
    async with open_yard() as yard:
        dead, other = yard.at("10.0.0.7", "dead"), yard.at("10.0.0.8", "other")
        assert await dead.poll() is None
        await yard.passes(120)
        yard.restart()
        await yard.passes(2)
        shown = await other.json("GET", "/workers")
        assert shown["dead"]["connection"] == "offline"
        await other.posts()
        assert await other.poll() is not None
        assert await dead.poll() is None
        shown = await other.json("GET", "/workers")
        assert {each["connection"] for each in shown.values()} == {"online"}


async def test_workers_are_offered_what_a_restarted_manager_knows_of_new() -> None:
    async with open_yard() as yard:
        worker = yard.at("10.0.0.7")
        await worker.posts()
        task = await worker.has_task()
        assert await worker.says(task, "running") == (204, "")
        yard.restart(
            tiled={"tiler": "/srv/tile.py", "merger": "/srv/merge"}, workers={"vm": {"tags": ["x"]}}
        )
        assert await worker.says(task, "finished") == (204, "")
        assert await worker.poll() is None
        await worker.posts(2, "tiled_blender_render", tiles=1)
        assert (await worker.has_task())["type"] == "tiled_blender_render"
        assert "tag:x" in (await yard.workers())[0].labels
