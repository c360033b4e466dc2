"""Flamenco's Manager API document, request by request, and what the running programs answered where it tells less."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestra.config import DialectPort
from orchestra.dialects.flamenco import flamenco
from orchestra.dialects.flamenco_compilers import Compilers, PrintString
from orchestra.errors import Malformed, OrchestraError
from orchestra.ports import Story
from orchestra.statemachine.commands import JoinWorker, StageDraft, SubmitJob
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.queries import GetTask
from tests.dialects.flamenco_kit import StandingClock, open_yard, surroundings
from tests.tidy import ROOT

pytestmark = pytest.mark.anyio

KEYS = {"id", "worker_id", "priority", "frame_start", "frame_end", "frame_current", "status"}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


async def test_create_new_task() -> None:
    async with open_yard() as yard:
        server = yard.at("10.0.0.1")
        created = await server.posts(12)
        assert created == {
            "id": 12,
            "worker_id": 0,
            "priority": 10,
            "frame_start": 5,
            "frame_end": 10,
            "frame_current": 5,
            "status": "ready",
            "format": "",
        }
        worker = yard.at("10.0.0.7")
        assert await worker.poll() is not None
        # The document's own answer, byte for byte but for the blanks: task 12 is worker 1's, and renders.
        again = await server.posts(12)
        assert again == created | {"worker_id": 1, "status": "rendering"}
        assert len(await server.json("GET", "/jobs")) == 1
        other = await server.send(
            "POST", "/tasks", data={"task_id": 12, "type": "print_string", "settings": "{}"}
        )
        assert other.status_code == 409


async def test_a_task_in_json_and_the_zeros_of_the_running_program() -> None:
    async with open_yard(exact=True) as yard:
        server = yard.at("10.0.0.1")
        settings = json.dumps({"text": "hello"})
        body = {"task_id": 1, "priority": 10, "type": "print_string", "settings": settings}
        assert await server.json("POST", "/tasks", 202, json=body) == {
            "id": 0,
            "worker_id": 0,
            "priority": 10,
            "frame_start": 0,
            "frame_end": 0,
            "frame_current": 0,
            "status": None,
            "format": None,
        }


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({"type": "print_string"}, 400, "[task_id]: Missing required parameter in the JSON body"),
        ({"task_id": "twelve", "type": "print_string"}, 400, "[task_id]: "),
        ({"task_id": 1}, 400, "[type]: Missing"),
        ({"task_id": 1, "type": "os"}, 404, "there is no type 'os'"),
        ({"task_id": 1, "type": "../../evil"}, 404, "there is no type"),
        ({"task_id": 1, "type": "print_string", "settings": "{"}, 400, ""),
        ({"task_id": 1, "type": "print_string", "settings": '{"text": "-n"}'}, 400, "[text]"),
        ({"task_id": 1, "type": "print_string", "priority": 5_000}, 400, "[priority]"),
    ],
)
async def test_a_task_that_can_not_be_taken(fields: dict[str, Any], status: int, told: str) -> None:
    async with open_yard() as yard:
        reply = await yard.at("10.0.0.1").send("POST", "/tasks", data=fields)
        assert reply.status_code == status
        assert reply.json()["message"].startswith(told)


async def test_update_and_delete_task() -> None:
    async with open_yard() as yard:
        server, worker = yard.at("10.0.0.1"), yard.at("10.0.0.7")
        await server.posts(12)
        await server.posts(13)
        task = await worker.has_task()
        assert await worker.says(task, "running") == (204, "")
        for number in (1, 13, 13, 99):
            deleted = await server.json("DELETE", f"/tasks/{number}", 202)
            assert set(deleted) == KEYS | {"format"}
            assert deleted["id"] == 0
        assert (await yard.job(2)).status is JobStatus.CANCELLED
        assert (await yard.job(1)).status is JobStatus.RUNNING
        several = {"tasks": ["12", "13"]}
        assert await server.json("DELETE", "/tasks", 202, data=several) == "13"
        assert (await yard.job(1)).status is JobStatus.CANCELLING


async def test_get_list_of_workers_and_one() -> None:
    async with open_yard() as yard:
        worker = yard.at("127.0.0.1", "fsiddi-macpro.local", 5000)
        assert await worker.register("Darwin 14.1.0") == 204
        row = {
            "activity": None,
            "connection": "online",
            "current_task": None,
            "hostname": "fsiddi-macpro.local",
            "id": 1,
            "ip_address": "127.0.0.1",
            "log": None,
            "port": 5000,
            "status": "enabled",
            "system": "Darwin 14.1.0",
            "time_cost": None,
        }
        assert await worker.json("GET", "/workers") == {"fsiddi-macpro.local": row}
        one = await worker.json("GET", "/workers/1")
        assert (one.pop("hostname"), one.pop("system")) == ("fsiddi-macpro.local", "Darwin 14.1.0")
        assert set(one) == {"mac_address", "update_frequent", "update_less_frequent"}
        assert one["update_frequent"].keys() == {"load_average", "worker_cpu_percent"}
        assert one["update_frequent"]["load_average"].keys() == {"15min", "1min", "5min"}
        assert len(one["update_less_frequent"]) == 4
        unknown = await worker.json("GET", "/workers/99", 404)
        assert unknown["status"] == 404
        assert unknown["message"].startswith("Not Found. You have requested this URI")
        said = await worker.json("PATCH", "/workers/1", data={"status": "rendering"})
        assert said == {"status": "enabled", "task_id": None}
        await worker.posts()
        task = await worker.has_task()
        said = await worker.json("PATCH", "/workers/1", data={"status": "rendering"})
        assert said == {"status": "rendering", "task_id": task["task_id"]}
        bad = await worker.send("PATCH", "/workers/status/1", data={"status": "lost"})
        assert bad.status_code == 400
        bad = await worker.send("POST", "/workers", data={"port": "abc"})
        assert (bad.status_code, bad.json()["message"][:6]) == (400, "[port]")
        assert (await worker.send("POST", "/workers")).status_code == 204
        assert "null" in await worker.json("GET", "/workers")


async def test_settings_are_words_and_never_programs() -> None:
    async with open_yard(commands={"simple_blender_render": {"Linux": "/opt/blender"}}) as yard:
        server = yard.at("10.0.0.1")
        read = await server.json("GET", "/settings/simple_blender_render")
        assert read["commands"]["default"]["Linux"] == "/opt/blender"
        assert await server.json("GET", "/job-types/simple_blender_render") == read
        assert await server.json("GET", "/settings/unknown") == {}
        set_one = await server.json("PATCH", "/settings/group", data={"value": "a"})
        assert set_one == {"value": "a"}
        assert await server.json("GET", "/settings/group") == {"value": "a"}
        assert (await server.send("POST", "/settings", data={"group": "b"})).status_code == 204
        shown = await server.json("GET", "/settings")
        assert shown["total_workers"] == "0"
        for name in ("simple_blender_render", "blender_path_linux", "commands", "print_string"):
            reply = await server.send("PATCH", f"/settings/{name}", data={"value": "/bin/sh"})
            assert reply.status_code == 403, name
        assert await server.json("GET", "/settings/simple_blender_render") == read


def shrink(folder: Path) -> Any:
    """The kind of task that docs/flamenco.md registers, from the page itself."""
    text = (ROOT / "docs" / "flamenco.md").read_text(encoding="utf-8")
    (folder / "shrinking.py").write_text(text.partition("```python\n")[2].partition("```\n")[0])
    spec = importlib.util.spec_from_file_location("shrinking", folder / "shrinking.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["shrinking"] = module  # its settings are looked up there
    spec.loader.exec_module(module)
    return module.Shrink()


async def test_a_kind_of_task_that_is_registered_in_python(tmp_path: Path) -> None:
    compilers = Compilers((PrintString(), shrink(tmp_path)))
    async with open_yard(compilers=compilers) as yard:
        server, worker = yard.at("10.0.0.1"), yard.at("10.0.0.7")
        for settings, named in (
            ({"width": "8", "picture": "/srv/pictures/a.png"}, "width"),
            ({"width": 8, "picture": "/etc/passwd"}, "picture"),
            ({"width": 8, "picture": "-delete"}, "picture"),
            ({"width": 8}, "picture"),
        ):
            fields = {"task_id": 1, "type": "shrink", "settings": json.dumps(settings)}
            reply = await server.send("POST", "/tasks", data=fields)
            assert reply.status_code == 400
            assert named in reply.json()["message"]
        fields["settings"] = json.dumps({"width": 8, "picture": "/srv/pictures/a.png"})
        assert (await server.json("POST", "/tasks", 202, data=fields))["id"] == 1
        task = await worker.has_task()
        assert task["type"] == "shrink"
        command = ["/usr/bin/convert", "-resize", "8", "/srv/pictures/a.png"]
        assert json.loads(task["task_command"]) == command
        assert await worker.says(task, "finished") == (204, "")
        assert (await yard.job()).status is JobStatus.COMPLETED


async def test_no_get_changes_anything_and_no_page_gets_work() -> None:
    """What is there: a task that runs, one that waits for its worker to ask, and one for nobody."""
    async with open_yard() as yard:
        server, worker = yard.at("10.0.0.1"), yard.at("10.0.0.7")
        await server.posts(12)
        task = await worker.has_task()
        assert await worker.says(task, "running") == (204, "")
        other = yard.at("10.0.0.8", "other")
        await server.posts(13)
        await server.posts(14)
        assert await other.register() == 204
        before = await yard.asker.story(Story(limit=500))
        gets = [route.path for route in yard.dialect.routes if route.method == "GET"]
        for path in gets:
            named = path.replace("{name}", "jobfile_1.zip").replace("{any}", "0")
            for number in ("1", "2", "12", str(task["task_id"])):
                place = re.sub(r"\{\w+\}", number, named)
                for asked in (server, worker, other):
                    page = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
                    refused = await asked.send("GET", place, headers=page)
                    assert place != "/tasks/compiled/0" or refused.status_code == 403
                    await asked.send("GET", place)
        assert len(gets) > 15
        assert await yard.asker.story(Story(limit=500)) == before
        # The one that waited for it has its task, as only a worker can.
        assert (await worker.says(task, "running")) == (204, "")


async def test_unknown_urls_and_methods() -> None:
    async with open_yard() as yard:
        server = yard.at("10.0.0.1")
        unknown = await server.json("GET", "/nothing", 404)
        assert unknown == {"code": 404, "message": "No interface defined for URL"}
        refused = await server.send("PUT", "/workers")
        assert refused.status_code == 405
        assert refused.headers["allow"] == "GET, POST"


async def test_a_job_of_another_wire_is_listed() -> None:
    async with open_yard() as yard:
        await yard.asker.ask(SubmitJob("theirs", (StageDraft("work", "process"),)))
        host = {"port": "x", "hostname": "spoof"}
        await yard.asker.ask(JoinWorker("native", "session", 1, ("process",), host=host))
        server = yard.at("10.0.0.1")
        (job,) = (await server.json("GET", "/jobs")).values()
        assert (job["job_name"], job["status"], job["type"]) == ("theirs", "running", None)
        (task,) = await server.json("GET", "/tasks", params={"job_id": "1"})
        assert (task["status"], task["worker"]) == ("running", "native")
        assert await server.json("GET", "/tasks") == [task]
        assert (await server.json("GET", "/workers"))["spoof"]["port"] == 0
        (project,) = (await server.json("GET", "/projects")).values()
        assert project["name"] == "default"
        await server.json("PUT", "/jobs", data={"id": "1", "command": "cancel"})
        assert (await yard.job(1)).status is JobStatus.CANCELLING
        assert (await server.json("GET", "/jobs/1"))["status"] == "stopped"


async def test_commands_for_jobs() -> None:
    async with open_yard() as yard:
        server, worker = yard.at("10.0.0.1"), yard.at("10.0.0.7")
        await server.posts(12)
        for data, status in (
            ({"id": "9", "command": "stop"}, 404),
            ({"id": "1", "command": "explode"}, 400),
            ({"id": "one", "command": "stop"}, 400),
            ({"command": "stop"}, 400),
        ):
            assert (await server.send("PUT", "/jobs", data=data)).status_code == status
        await server.send("DELETE", "/tasks/12")
        assert (await yard.job(1)).status is JobStatus.CANCELLED
        requeued = await server.json("PUT", "/jobs", data={"id": "1", "command": "requeue"})
        assert requeued["status"] == "reset"
        assert await worker.says(await worker.has_task(), "finished") == (204, "")
        assert (await yard.job(1)).status is JobStatus.COMPLETED
        for word in ("stop", "cancel", "start"):
            data = {"id": "1", "command": word}
            assert (await server.send("PUT", "/jobs", data=data)).status_code == 200
        assert (await yard.job(1)).status is JobStatus.COMPLETED


async def test_files_that_jobs_bring_and_workers_send(tmp_path: Path) -> None:
    async with open_yard(storage=str(tmp_path / "shelf")) as yard:
        server, worker = yard.at("10.0.0.1"), yard.at("10.0.0.7")
        form = {"task_id": 1, "type": "print_string", "settings": '{"text": "a"}'}
        files = {"jobfile": ("j.zip", b"PK the scene", "application/zip")}
        assert (await server.send("POST", "/tasks", data=form, files=files)).status_code == 202
        assert await server.json("GET", "/tasks/file/1") == {"file": True}
        assert await server.json("GET", "/tasks/file/9") == {"file": False}
        got = await worker.send("GET", "/static/storage/1/jobfile_1.zip")
        assert got.content == b"PK the scene"
        task = await worker.has_task()
        assert (await server.send("GET", "/jobs/1/thumbnail")).status_code == 404
        kept = await worker.json(
            "POST",
            "/tasks/thumbnails",
            data={"task_id": task["task_id"]},
            files={"file": ("5.png", PNG, "image/png")},
        )
        assert kept == {"file": True}
        forged = await server.json(
            "POST",
            "/tasks/thumbnails",
            data={"task_id": task["task_id"]},
            files={"file": ("5.png", b"other", "image/png")},
        )
        assert forged == {"file": False}
        shown = await server.send("GET", "/jobs/1/thumbnail")
        assert (shown.content, shown.headers["content-type"]) == (PNG, "image/png")
        ended = await worker.send(
            "PATCH",
            f"/tasks/{task['task_id']}",
            data={"status": "finished"},
            files={"taskfile": ("taskfile.zip", b"PK frames", "application/zip")},
        )
        assert ended.status_code == 204
        assert b'"output_bytes":9' in (
            (await yard.asker.answer(GetTask("1.1"))).attempts[0].result or b""
        )
        assert b"PK frames" in {path.read_bytes() for path in (tmp_path / "shelf").iterdir()}
        for path in ("/static/storage/1/..%2fjobfile-1.zip", "/static/storage/1/jobfile-1.zip"):
            assert (await worker.send("GET", path)).status_code == 404


async def test_a_manager_without_storage_takes_no_files() -> None:
    async with open_yard() as yard:
        server = yard.at("10.0.0.1")
        form = {"task_id": 1, "type": "print_string", "settings": "{}"}
        files = {"jobfile": ("j.zip", b"PK", "application/zip")}
        assert (await server.send("POST", "/tasks", data=form, files=files)).status_code == 403
        assert await server.json("GET", "/jobs") == {}


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"exact": 1}, "exact"),
        ({"storage": "shelf"}, "storage"),
        ({"task_timeout_s": 0}, "task_timeout_s"),
        ({"failures_max": True}, "failures_max"),
        ({"roots": "/farm"}, "roots"),
        ({"commands": {"simple_blender_render": {"BeOS": "b"}}}, "simple_blender_render.BeOS"),
        ({"commands": []}, "commands"),
        ({"workers": {"a*": {"sleep": "mo-tu"}}}, "workers.a\\*.sleep"),
        ({"workers": {"a*": {"sleep": "xx 08:00-09:00"}}}, "sleep"),
        ({"workers": {"a*": {"sleep": "8:00-9:00"}}}, "sleep"),
        ({"workers": {"a*": {"tags": ["a,b"]}}}, "tags"),
        ({"workers": {"a*": {"colour": "red"}}}, "colour"),
        ({"workers": {"a*": {"push": "yes"}}}, "push is true or false"),
        ({"workers": {"a*": "gpu"}}, "it is a table"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_options_stop_the_start(options: dict[str, object], where: str) -> None:
    port = DialectPort("flamenco", None, options)
    with pytest.raises(Malformed, match=where):
        flamenco(port, surroundings(StandingClock()))


def test_no_refusal_tells_a_secret() -> None:
    dialect = flamenco(DialectPort("flamenco"), surroundings(StandingClock()))
    bug = dialect.refuse(OrchestraError("secrets"))
    assert (bug.status, json.loads(bug.body)) == (500, {"status": 500, "message": "a bug of ours"})
