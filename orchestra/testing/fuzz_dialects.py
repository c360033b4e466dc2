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
DEEP = '{"more": ' + "[" * 3_000 + "]" * 3_000 + "}"
"""An activity that can not be read, which changes nothing: deeper than Python's own stack."""


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


def call_of(line: str, **fields: str) -> FormCall:
    """A call, such as ``POST /tasks`` with these fields."""
    method, _, path = line.partition(" ")
    return FormCall(method, path, tuple(fields.items()))


FLAMENCO_CALLS: tuple[FormCall, ...] = (
    call_of("GET /info"),
    call_of("POST /workers", port="7777", hostname="vm", system="Linux 6.1"),
    call_of("GET /tasks/compiled/0"),
    call_of("POST /tasks", **PRINT),
    call_of("POST /tasks", **RENDER),
    call_of("GET /tasks"),
    call_of("PATCH /tasks/TICKET", **REPORT),
    call_of("PATCH /tasks/TICKET", **{**REPORT, "status": "finished"}),
    call_of("PATCH /tasks/TICKET", **{**REPORT, "activity": DEEP}),
    call_of("POST /tasks/thumbnails", task_id="TICKET"),
    call_of("GET /tasks/file/1"),
    call_of("GET /workers"),
    call_of("GET /workers/1"),
    call_of("PATCH /workers/1", status="active"),
    call_of("PATCH /workers/status/1", status="disabled"),
    call_of("PATCH /workers/status/1", status="enabled"),
    call_of("GET /jobs"),
    call_of("GET /jobs/1"),
    call_of("GET /jobs/1/thumbnail"),
    call_of("PUT /jobs", id="1", command="pause"),
    call_of("GET /projects"),
    call_of("GET /settings"),
    call_of("POST /settings", blender_path_linux="/usr/bin/blender"),
    call_of("PATCH /settings/render_settings", value="x"),
    call_of("GET /settings/simple_blender_render"),
    call_of("GET /job-types/simple_blender_render"),
    call_of("GET /static/storage/1/jobsupportfile_1.zip"),
    call_of("DELETE /tasks/12"),
    call_of("DELETE /tasks", tasks="12,13"),
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


def request_of(method: str, path: str, body: bytes = b"", kind: str = "", more: str = "") -> bytes:
    """The bytes of a request. ``more``: further lines of its head, each with its end."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}".encode()
    if not body:
        return head + b"\r\n"
    told = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return head + told + body


def in_every_form(calls: Sequence[FormCall], more: str = "") -> list[bytes]:
    """Requests with their fields as a form, as JSON and in parts."""
    found: list[bytes] = []
    for call in calls:
        found.append(request_of(call.method, call.path, call.body, FORM, more))
        if call.fields:
            text = json.dumps(dict(call.fields)).encode()
            parts = "".join(
                f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                for name, value in call.fields
            )
            kind = "multipart/form-data; boundary=x"
            found.append(request_of(call.method, call.path, text, "application/json", more))
            found.append(request_of(call.method, call.path, f"{parts}--x--".encode(), kind, more))
    return found


def flamenco_requests() -> Sequence[bytes]:
    """The corpus."""
    return in_every_form(FLAMENCO_CALLS)


def runner_requests() -> Sequence[bytes]:
    """The corpus."""
    return [
        request_of("POST", path, json.dumps(asked).encode(), "application/json")
        for path, asked in RUNNER_CALLS
    ]
