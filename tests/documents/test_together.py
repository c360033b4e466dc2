"""All wires at once over one core: what one of them starts, the others list, the command line stops, and one story tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import anyio.to_thread
import pytest

from tests.documents.served import USER, Answer, Server, served
from tests.system.farm import until
from tests.tidy import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.system]

FORM = "application/x-www-form-urlencoded"
IDS = f"user_id={USER}&project_id=code_gen"
MEMBER = f"user_id={USER}&project_id=long"


@pytest.fixture
def anyio_backend() -> str:
    """The server is a process of its own."""
    return "asyncio"


def stops(server: Server, *jobs: int) -> None:
    """On the command line."""
    argv = [sys.executable, "-m", "orchestra", "stop", *map(str, jobs)]
    env = {**os.environ, "ORCHESTRA_SERVER": server.farm.url()}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Renderer:
    """A worker of Flamenco's pull protocol: one that says what the test wants."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._path = ""

    async def begins(self) -> None:
        me = "port=7777&hostname=vm&system=Linux"
        assert (await self._server.ask("flamenco", "POST /workers", me, FORM)).status == 204
        given = await self._server.until(
            lambda answer: answer.status == 200, "flamenco", "GET /tasks/compiled/0"
        )
        self._path = f"PATCH /tasks/{given.json['options']['task_id']}"
        assert await self.says("running") == 204

    async def says(self, status: str) -> int:
        return (await self._server.ask("flamenco", self._path, f"status={status}", FORM)).status


async def shown(server: Server, job: str, *wanted: object) -> None:
    """Wait until each wire shows its own job so."""
    query = json.dumps({"worker_id": "w1", "job_id": job})
    asked = (
        ("job-runner", "POST /query", query, "", "error_text"),
        ("flamenco", "GET /jobs/2", "", "", "status"),
        ("tango", "POST /api/status_request", IDS, FORM, "container_status"),
        ("tango-member", f"GET /status_request?{MEMBER}", "", "", ""),
    )
    for (wire, request, body, kind, field), word in zip(asked, wanted, strict=True):

        def is_so(answer: Answer, field: str = field, word: object = word) -> bool:
            return (answer.json[field] if field else answer.body.decode()) == word

        await server.until(is_so, wire, request, body, kind)


async def test_four_wires_one_core_one_story(tmp_path: Path) -> None:
    began = tmp_path / "began"
    (tmp_path / "root").mkdir()
    (tmp_path / "root/long.sh").write_text(f"touch {began}\nexec sleep 600\n")
    async with served(tmp_path) as server:
        await server.farm.join("w1", 1)
        body = {"worker_id": "w1", "command": "bash", "path": "long.sh"}
        started = await server.ask("job-runner", "POST /start", json.dumps(body))
        assert started.status == 201
        posted = urlencode({"task_id": 12, "type": "print_string", "settings": '{"text": "a"}'})
        assert (await server.ask("flamenco", "POST /tasks", posted, FORM)).status == 202
        form = f"{IDS}&container_id=code_gen"
        assert (await server.ask("tango", "POST /api/container_start", form, FORM)).status == 200
        assert (await server.ask("tango-member", f"GET /start?{MEMBER}")).body == b"starting"
        renderer = Renderer(server)
        await renderer.begins()
        await until(began.exists)
        job = started.json["job_id"]
        await shown(server, job, "", "running", "running", "running")
        listed = (await server.ask("flamenco", "GET /jobs")).json
        assert [listed[str(number)]["job_name"] for number in (1, 2)] == ["bash long.sh", "task 12"]
        assert {number: each["status"] for number, each in listed.items()} == dict.fromkeys(
            "1234", "running"
        )
        (program,) = (await server.ask("flamenco", "GET /tasks?job_id=1")).json
        assert (program["status"], program["worker"]) == ("running", "w1")
        await anyio.to_thread.run_sync(partial(stops, server, 1, 2, 3, 4))
        assert await renderer.says("running") == 403
        assert await renderer.says("aborted") == 204
        await shown(server, job, "signal: killed", "stopped", "stopped", "stopped")
        story = await server.farm.story()
        for id_ in sorted({moved.id for moved in story if moved.kind == "job"}):
            moves = [moved.target for moved in story if moved.kind == "job" and moved.id == id_]
            assert moves == ["queued", "running", "cancelling", "cancelled"], id_
