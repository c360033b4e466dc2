"""Flamenco's Manager API document, request by request, as bytes over a socket, beside a worker that answers what the document shows."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import pytest

from tests.documents.served import served
from tests.system.farm import until

pytestmark = [pytest.mark.anyio, pytest.mark.system]

FORM = "application/x-www-form-urlencoded"
WIRE = "flamenco"

TASK = {
    "priority": 10,
    "settings": json.dumps(
        {"frame_start": 5, "frame_end": 10, "filepath": "/a.blend", "output_path": "/out"}
    ),
    "task_id": 12,
    "type": "simple_blender_render",
    "parser": "blender_render",
}
"""The document's properties of a task, with the values of its answer."""

CREATED = """\
{
    "id" : 12,
    "worker_id" : 1,
    "priority" : 10,
    "frame_start" : 5,
    "frame_end" : 10,
    "frame_current" : 5,
    "status" : "rendering",
    "format" : ""
}
"""
WORKERS = """\
{
    "fsiddi-macpro.local": {
        "activity": null,
        "connection": "online",
        "current_task": null,
        "hostname": "fsiddi-macpro.local",
        "id": 1,
        "ip_address": "127.0.0.1",
        "log": null,
        "port": 5000,
        "status": "enabled",
        "system": "Darwin 14.1.0",
        "time_cost": null
    }
}
"""
WORKER = """\
{
    "hostname": "fsiddi-macpro.local",
    "mac_address": 158929712651,
    "system": "Darwin 14.1.0",
    "update_frequent": {
        "load_average": {
            "15min": 2.18,
            "1min": 2.18,
            "5min": 2.11
        },
        "worker_cpu_percent": 7.0
    },
    "update_less_frequent": {
        "worker_architecture": "x86_64",
        "worker_disk_percent": 90.7,
        "worker_mem_percent": 56.7,
        "worker_num_cpus": 16
    }
}
"""
INFO = {
    "activity": None,
    "hostname": "fsiddi-macpro.local",
    "log": None,
    "mac_address": 158929712651,
    "system": "Darwin 14.1.0",
    "time_cost": None,
}


@pytest.fixture
def anyio_backend() -> str:
    """The server is a process of its own."""
    return "asyncio"


class Called(ThreadingHTTPServer):
    """A worker of 2015-02, as far as the document tells of it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.tasks: list[dict[str, str]] = []


class _Asked(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Called)
        status = "rendering" if self.server.tasks else "enabled"
        told = WORKER if self.path == "/run_info" else json.dumps({**INFO, "status": status})
        self._answer(told)

    def do_POST(self) -> None:
        assert isinstance(self.server, Called)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.tasks.append(dict(parse_qsl(body)))
        self._answer('{"pid": 0}')

    def do_DELETE(self) -> None:
        self.send_response(204)
        self.end_headers()

    def _answer(self, told: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(told.encode())

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def listening() -> Generator[Called]:
    with Called() as worker:
        thread = threading.Thread(target=worker.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield worker
        finally:
            worker.shutdown()
            thread.join()


async def test_every_request_of_the_document(tmp_path: Path) -> None:
    with listening() as worker:
        port = worker.server_address[1]
        async with served(tmp_path, [WIRE]) as server:
            # Register worker. The document's answer is a 204 with a body, which HTTP does not know: the list has it.
            me = {"hostname": "fsiddi-macpro.local", "system": "Darwin 14.1.0", "port": port}
            told = await server.ask(WIRE, "POST /workers HTTP/1.1", urlencode(me), FORM)
            assert (told.status, told.body) == (204, b"")
            # Get list of workers.
            expected = json.loads(WORKERS.replace("5000", str(port)))
            for ask in (server.ask, server.ask_below):
                told = await ask(WIRE, "GET /workers HTTP/1.1")
                assert (told.line, told.json) == ("200 OK", expected)
            # Get worker info: with a body, so 200.
            for ask in (server.ask, server.ask_below):
                told = await ask(WIRE, "GET /workers/1 HTTP/1.1")
                assert (told.line, told.json) == ("200 OK", json.loads(WORKER))
            # Create new task, as a form and as JSON; its worker has it after the next round.
            for body, kind in ((urlencode(TASK), FORM), (json.dumps(TASK), "application/json")):
                told = await server.ask(WIRE, "POST /tasks HTTP/1.1", body, kind)
                assert told.status == 202
                assert told.json.keys() == json.loads(CREATED).keys()
            await until(lambda: bool(worker.tasks))
            told = await server.ask(WIRE, "POST /tasks HTTP/1.1", urlencode(TASK), FORM)
            assert (told.status, told.json) == (202, json.loads(CREATED))
            # Edit worker status.
            ticket = int(worker.tasks[0]["task_id"])
            told = await server.ask(WIRE, "PATCH /workers/1 HTTP/1.1", "status=rendering", FORM)
            assert (told.line, told.json["task_id"]) == ("200 OK", ticket)
            # Update task, by the number under which its worker knows it.
            update = f"PATCH /tasks/{ticket} HTTP/1.1"
            told = await server.ask(WIRE, update, "status=running&time_cost=1", FORM)
            assert (told.status, told.body) == (204, b"")
            # Delete task: one that there is, and the document's.
            for number in (12, 1):
                told = await server.ask(WIRE, f"DELETE /tasks/{number} HTTP/1.1")
                assert told.status == 202
            tasks = (await server.ask(WIRE, "GET /jobs/1")).json
            assert tasks["status"] == "stopped"
            # Settings, of which the document tells in a comment.
            assert (await server.ask(WIRE, "POST /settings", "group=a", FORM)).status == 204
            told = await server.ask(WIRE, "GET /settings")
            assert (told.line, told.json["group"]) == ("200 OK", "a")
            told = await server.ask(WIRE, "GET /settings?group=render")
            assert (told.line, told.json) == ("200 OK", ["draft"])
            told = await server.ask(WIRE, "PATCH /settings/group", "value=b", FORM)
            assert (told.line, told.json) == ("200 OK", {"value": "b"})
            told = await server.ask(WIRE, "GET /settings/group")
            assert (told.line, told.json) == ("200 OK", {"value": "b"})
