"""
What the native dialect offers: every command, report and query of the core under ``/api/v1``, each with its role.

The same table is the policy of the HTTP routes and of the channel, and the source of the published document.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, get_args
from urllib.parse import quote

import msgspec

from orchestra.dialects.asks import AppendLog, Backup
from orchestra.dialects.native_calls import (
    SUBMIT_BYTES_MAX,
    BodyInput,
    JsonOutput,
    LogOutput,
    NoOutput,
    Operation,
    Output,
    QueryInput,
    StoryOutput,
)
from orchestra.dialects.native_pushes import PING, encode_event
from orchestra.dialects.wire import Role, Route, WireRequest, WireResponse
from orchestra.errors import Malformed
from orchestra.ports import Log, Story, WatchOrders, WatchStory
from orchestra.statemachine import commands, queries, reports
from orchestra.statemachine.queries import GetOverview
from orchestra.statemachine.replies import JobAccepted, Overview
from orchestra.statemachine.values import value

PREFIX = "/api/v1"
EVENT_STREAM = "text/event-stream"

WORKER, VIEWER, OPERATOR = Role.WORKER, Role.VIEWER, Role.OPERATOR


def _accepted(reply: JobAccepted) -> tuple[int, str]:
    return (200 if reply.repeated else 201), f"{PREFIX}/jobs/{quote(reply.job_id, safe='')}"


def _reply_type(cls: type[Any]) -> type[Any]:
    # `class SubmitJob(Command[JobAccepted])`: the parameter is the type of the reply.
    found: type[Any] = get_args(cls.__orig_bases__[0])[0]
    return found


def _command(
    method: str, path: str, role: Role, cls: type[Any], summary: str, **more: Any
) -> Operation:
    full = PREFIX + path
    output: Output = JsonOutput(
        _reply_type(cls), located=_accepted if cls is commands.SubmitJob else None
    )
    return Operation(method, full, role, BodyInput(cls, full), output, summary, **more)


def _query(path: str, cls: type[Any], summary: str) -> Operation:
    full = PREFIX + path
    output = JsonOutput(_reply_type(cls))
    return Operation("GET", full, VIEWER, QueryInput(cls, full), output, summary)


def _other(
    at: tuple[str, str], role: Role, cls: type[Any], output: Output, summary: str
) -> Operation:
    method, full = at[0], PREFIX + at[1]
    taken = QueryInput(cls, full) if method == "GET" else BodyInput(cls, full)
    return Operation(method, full, role, taken, output, summary)


OPERATIONS: tuple[Operation, ...] = (
    _command(
        "POST",
        "/jobs",
        OPERATOR,
        commands.SubmitJob,
        "Submit a job",
        body_bytes_max=SUBMIT_BYTES_MAX,
    ),
    _query("/jobs", queries.ListJobs, "Jobs, newest first"),
    _query("/jobs/{job_id}", queries.GetJob, "One job with its stages"),
    _query("/jobs/{job_id}/tasks", queries.ListTasks, "Tasks of a job"),
    _query("/jobs/{job_id}/results", queries.ListResults, "Results of a job"),
    _command("POST", "/jobs/{job_id}/cancel", OPERATOR, commands.CancelJob, "Cancel a job"),
    _command("POST", "/jobs/{job_id}/pause", OPERATOR, commands.PauseJob, "Pause a job"),
    _command("POST", "/jobs/{job_id}/resume", OPERATOR, commands.ResumeJob, "Resume a job"),
    _query("/tasks/{task_id}", queries.GetTask, "One task with its attempts"),
    _command("POST", "/tasks/{task_id}/cancel", OPERATOR, commands.CancelTask, "Cancel a task"),
    _command("POST", "/tasks/{task_id}/retry", OPERATOR, commands.RetryTask, "Try a task again"),
    _query("/why/{subject}", queries.Why, "Why something waits, or ended so"),
    _query("/overview", queries.GetOverview, "Everything in numbers"),
    _query("/projects", queries.ListProjects, "Projects"),
    _command("POST", "/projects", OPERATOR, commands.OpenProject, "Open a project"),
    _command("POST", "/projects/archive", OPERATOR, commands.ArchiveProject, "Close a project"),
    _query("/workers", queries.ListWorkers, "Workers"),
    _command("POST", "/workers", WORKER, commands.JoinWorker, "Join as a worker"),
    _command(
        "POST", "/workers/{worker_id}/heartbeat", WORKER, reports.Heartbeat, "A worker is alive"
    ),
    _command(
        "POST",
        "/workers/{worker_id}/reports",
        WORKER,
        reports.AttemptsReported,
        "What happened to attempts",
    ),
    _other(
        ("POST", "/workers/{worker_id}/logs"), WORKER, AppendLog, NoOutput(), "Output of attempts"
    ),
    _command("POST", "/workers/{worker_id}/leave", WORKER, commands.LeaveWorker, "Say goodbye"),
    _command(
        "POST", "/workers/{worker_id}/pause", OPERATOR, commands.PauseWorker, "Pause a worker"
    ),
    _command(
        "POST", "/workers/{worker_id}/resume", OPERATOR, commands.ResumeWorker, "Resume a worker"
    ),
    _other(
        ("GET", "/attempts/{attempt_id}/logs/{stream}"), VIEWER, Log, LogOutput(), "Read output"
    ),
    _other(("GET", "/events"), VIEWER, Story, StoryOutput(), "A page of the story"),
    _command("PATCH", "/settings", OPERATOR, commands.Reconfigure, "Change settings"),
    _other(("POST", "/backup"), OPERATOR, Backup, NoOutput(), "Copy the store while it serves"),
)

BY_CLASS: Mapping[type[Any], Operation] = MappingProxyType(
    {operation.input.cls: operation for operation in OPERATIONS}
)
BY_NAME: Mapping[str, Operation] = MappingProxyType(
    {operation.name: operation for operation in OPERATIONS}
)


@value
class Watchable:
    """A watch: ``word`` is what a channel calls it."""

    word: str
    path: str
    role: Role
    input: QueryInput
    summary: str

    @property
    def name(self) -> str:
        """Its name in the policy table and in the published document."""
        return self.input.cls.__name__

    def route(self) -> Route:
        """As the transports mount it: a stream of events."""
        return Route(
            name=self.name,
            method="GET",
            path=self.path,
            decode=self.input.decode,
            encode=lambda _request, push: WireResponse(200, encode_event(push), EVENT_STREAM),  # type: ignore[arg-type]  # streams carry pushes
            role=self.role,
            stream=True,
            ping=PING,
            summary=self.summary,
        )


_ORDERS_PATH = f"{PREFIX}/workers/{{worker_id}}/orders"
_STORY_PATH = f"{PREFIX}/events/stream"
WATCHES: tuple[Watchable, ...] = (
    Watchable(
        "orders", _ORDERS_PATH, WORKER, QueryInput(WatchOrders, _ORDERS_PATH), "Orders as they come"
    ),
    Watchable(
        "story",
        _STORY_PATH,
        VIEWER,
        QueryInput(WatchStory, _STORY_PATH, resumed="after"),
        "The story as it goes on",
    ),
)
WATCH_BY_CLASS: Mapping[type[Any], Watchable] = MappingProxyType(
    {watch.input.cls: watch for watch in WATCHES}
)


@value
class Health:
    """The server serves. ``quarantined`` is how many stored rows could not be read at its start."""

    status: str
    at_ms: int
    quarantined: int


_encode = msgspec.json.Encoder().encode


def _decode_health(request: WireRequest) -> GetOverview:
    if request.body:
        raise Malformed("this request takes no body", where="body")
    return GetOverview()


def _encode_health(_request: WireRequest, answer: object) -> WireResponse:
    overview: Overview = answer  # type: ignore[assignment]  # what `GetOverview` answers
    health = Health("ok", overview.at_ms, len(overview.quarantined))
    return WireResponse(200, _encode(health))


HEALTH = Route(
    name="Health",
    method="GET",
    path=f"{PREFIX}/health",
    decode=_decode_health,
    encode=_encode_health,
    role=Role.ANYONE,
    summary="Whether the server serves",
)
