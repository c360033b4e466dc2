"""HTTP requests of the dialects beside the native one, as surfaces: valid calls, and worlds in which they find what they ask for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NoReturn
from urllib.parse import urlencode

import attrs

from orchestra.config import DialectPort
from orchestra.dialects.flamenco import Surroundings, flamenco
from orchestra.dialects.job_runner import job_runner
from orchestra.dialects.job_runner_programs import Kind
from orchestra.dialects.wire import Dialect
from orchestra.testing.fuzz import FuzzBroken
from orchestra.testing.fuzz_worlds import HttpWorld, Small

FORM = "application/x-www-form-urlencoded"
ROUNDS_MAX = 60
"""Seconds after which a worker of Flamenco has been given a task, or never is."""

SETTINGS = {
    "frame_start": 5,
    "frame_end": 10,
    "filepath": "/farm/shot.blend",
    "output_path": "/farm/out",
}
PRINT = {"task_id": "12", "priority": "10", "type": "print_string", "settings": "{}"}
RENDER = {
    "task_id": "13",
    "type": "simple_blender_render",
    "settings": json.dumps(SETTINGS),
    "parser": "blender_render",
}
REPORT = {"status": "running", "time_cost": "1", "job_id": "1", "log": "Fra:5", "activity": "{}"}


@attrs.frozen(slots=True)
class FormCall:
    """A call whose body is a form, or that has none."""

    method: str
    path: str
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> bytes:
        """As it is sent."""
        return urlencode(self.fields).encode()


def _call(line: str, **fields: str) -> FormCall:
    method, _, path = line.partition(" ")
    return FormCall(method, path, tuple(fields.items()))


FLAMENCO_CALLS: tuple[FormCall, ...] = (
    _call("GET /info"),
    _call("POST /workers", port="7777", hostname="vm", system="Linux 6.1"),
    _call("GET /tasks/compiled/0"),
    _call("POST /tasks", **PRINT),
    _call("POST /tasks", **RENDER),
    _call("GET /tasks"),
    _call("PATCH /tasks/TICKET", **REPORT),
    _call("PATCH /tasks/TICKET", **{**REPORT, "status": "finished"}),
    _call("POST /tasks/thumbnails", task_id="TICKET"),
    _call("GET /tasks/file/1"),
    _call("GET /workers"),
    _call("GET /workers/1"),
    _call("PATCH /workers/1", status="active"),
    _call("PATCH /workers/status/1", status="disabled"),
    _call("PATCH /workers/status/1", status="enabled"),
    _call("GET /jobs"),
    _call("GET /jobs/1"),
    _call("GET /jobs/1/thumbnail"),
    _call("PUT /jobs", id="1", command="pause"),
    _call("GET /projects"),
    _call("GET /settings"),
    _call("POST /settings", blender_path_linux="/usr/bin/blender"),
    _call("PATCH /settings/render_settings", value="x"),
    _call("GET /settings/simple_blender_render"),
    _call("GET /job-types/simple_blender_render"),
    _call("GET /static/storage/1/jobsupportfile_1.zip"),
    _call("DELETE /tasks/12"),
    _call("DELETE /tasks", tasks="12,13"),
)
"""One call of each route at least, well-formed."""

RUNNER_CALLS: tuple[tuple[str, object], ...] = (
    ("/start", {"worker_id": "w1", "command": "bash", "path": "scripts/a.sh"}),
    ("/start", {"worker_id": "WORKER", "command": "bash", "path": "a.sh"}),
    ("/stop", {"worker_id": "w1", "job_id": "STARTED"}),
    ("/query", {"worker_id": "w1", "job_id": "STARTED"}),
)


def standing(small: Small) -> Dialect:
    """Flamenco's manager without a shelf, on the clock of a small world, whose workers never answer a call."""
    surroundings = Surroundings(
        lambda: small.core.now_ms,
        lambda: (0, 0),
        _never,
        lambda calls: (None,) * len(calls),
    )
    return flamenco(DialectPort("flamenco"), surroundings)


def _never(folder: str) -> NoReturn:
    raise FuzzBroken(f"nobody set a folder, and {folder!r} is asked for")


def _runner(_: Small) -> Dialect:
    """The job runner with one command. Whatever looks like a script is one."""
    options = {"commands": ["bash"], "root": "/srv"}
    return job_runner(
        DialectPort("job-runner", None, options),
        lambda path: Kind.FILE if path.endswith(".sh") else Kind.FOLDER,
    )


class FlamencoWorld(HttpWorld):
    """Requests to Flamenco's manager, of which one worker has a task that it has begun."""

    def __init__(self) -> None:
        # A worker without work is told 400, and is known to live by its asking.
        super().__init__(standing, faithful=False)
        self.call("POST", "/tasks", urlencode(PRINT).encode(), FORM)
        told = b""
        for _ in range(ROUNDS_MAX):
            self.call("POST", "/workers", b"port=7777&hostname=vm&system=Linux", FORM)
            status, told = self.call("GET", "/tasks/compiled/0")
            if status == 200:  # noqa: PLR2004 - as the wire has it
                break
            self.small.core.advance(1_000)
        else:
            raise FuzzBroken("the worker is never given a task")
        self.small.words[b"TICKET"] = str(json.loads(told)["options"]["task_id"]).encode()


class RunnerWorld(HttpWorld):
    """Requests to the job runner, which has started something."""

    def __init__(self) -> None:
        super().__init__(_runner)
        body = json.dumps(RUNNER_CALLS[0][1]).encode()
        _, told = self.call("POST", "/start", body)
        self.small.words[b"STARTED"] = json.loads(told)["job_id"].encode()


def _request(method: str, path: str, body: bytes, kind: str) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
    if not body:
        return head + b"\r\n"
    told = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return head + told + body


def flamenco_requests() -> Sequence[bytes]:
    """The corpus: forms, and the same as JSON and in parts."""
    found: list[bytes] = []
    for call in FLAMENCO_CALLS:
        found.append(_request(call.method, call.path, call.body, FORM))
        if call.fields:
            text = json.dumps(dict(call.fields)).encode()
            parts = "".join(
                f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                for name, value in call.fields
            )
            kind = "multipart/form-data; boundary=x"
            found.append(_request(call.method, call.path, text, "application/json"))
            found.append(_request(call.method, call.path, f"{parts}--x--".encode(), kind))
    return found


def runner_requests() -> Sequence[bytes]:
    """The corpus."""
    return [
        _request("POST", path, json.dumps(asked).encode(), "application/json")
        for path, asked in RUNNER_CALLS
    ]
