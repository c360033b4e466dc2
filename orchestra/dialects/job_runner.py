"""
The job runner's three calls, /start, /stop and /query, over the one core. Source: the API document of the Go scheduler and worker.

A started command is a job of one task with the app ``process``, bound to the worker that the request names. With ``exact = true`` in
``[dialects.job-runner]`` refusals have the original's texts and statuses (all 500); else HTTP's own statuses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from typing import Any

from orchestra.config import DialectPort
from orchestra.dialects.asks import Ask, Dialogue
from orchestra.dialects.job_runner_programs import (
    CommandMissing,
    CommandRefused,
    Kind,
    Programs,
    read_programs,
)
from orchestra.dialects.job_runner_words import DONE, error_text, read_fields
from orchestra.dialects.refusals import BodyTooLong, BodyTooSlow, MethodRefused, RouteUnknown
from orchestra.dialects.wire import Dialect, Role, Route, WireResponse
from orchestra.errors import (
    Conflict,
    Forbidden,
    LimitReached,
    Malformed,
    NotFound,
    OrchestraError,
    Rejected,
    Unauthenticated,
    Unavailable,
)
from orchestra.statemachine import limits
from orchestra.statemachine.commands import CancelJob, StageDraft, SubmitJob
from orchestra.statemachine.ids import task_id
from orchestra.statemachine.lifecycles import JOB_FINAL, WorkerStatus
from orchestra.statemachine.queries import GetJob, GetTask, ListWorkers
from orchestra.statemachine.replies import JobView, WorkerView
from orchestra.statemachine.scheduling import label_of_worker
from orchestra.statemachine.values import value

NAME = "job-runner"
STAGE = "program"
BODY_BYTES_MAX = 64 * 1024
_PAGES_MAX = 1_000
_NOT_FOUND = "worker not found"
_NO_JOB = "job not found"
_THERE = (WorkerStatus.ONLINE, WorkerStatus.LOST)
_RPC = "rpc error: code = Unknown desc = "

Steps = Generator[Ask, Any, object]


class WorkerUnknown(NotFound):
    """No worker has this id or name."""


class WorkerGone(Unavailable):
    """The worker's lease ran out: whether it lives is unknown."""


class JobUnknown(NotFound):
    """No job of this worker has this id."""


def job_runner(port: DialectPort, kind_at: Callable[[str], Kind]) -> Dialect:
    """
    The dialect with the options ``commands``, ``root`` and ``exact``.

    Args:
        kind_at: What stands at a path on this machine, looked at when a command is started.

    Raises:
        Malformed: An option is unknown or of another kind.
    """
    options = dict(port.options)
    programs = read_programs(options, kind_at)
    exact = options.get("exact", False)
    if not isinstance(exact, bool):
        raise Malformed("it is true or false", where="dialects.job-runner.exact")
    if unknown := sorted(set(options) - {"commands", "root", "exact"}):
        told = "there is no such option"
        raise Malformed(told, where=f"dialects.job-runner.{unknown[0]}", remedy="leave it out")
    runner = _Runner(programs, exact)
    routes = (
        _route(
            "Start",
            "/start",
            runner.start,
            status=201,
            role=Role.OPERATOR,
            summary="Start a command on a worker",
        ),
        _route(
            "Stop",
            "/stop",
            runner.stop,
            status=200,
            role=Role.OPERATOR,
            summary="Stop what a command started",
        ),
        _route(
            "Query",
            "/query",
            runner.query,
            status=200,
            role=Role.VIEWER,
            summary="How a command is doing",
        ),
    )
    return Dialect(NAME, routes, runner.refuse)


def _route(
    name: str,
    path: str,
    begin: Callable[[bytes], Steps],
    *,
    status: int,
    role: Role,
    summary: str,
) -> Route:
    return Route(
        name=name,
        method="POST",
        path=path,
        decode=lambda request: Dialogue(lambda: begin(request.body)),
        encode=lambda _, answer: _json(status, answer),
        role=role,
        body_bytes_max=BODY_BYTES_MAX,
        summary=summary,
        media_types=(),
    )


def _json(status: int, answer: object, headers: tuple[tuple[str, str], ...] = ()) -> WireResponse:
    body = json.dumps(answer, ensure_ascii=False, separators=(",", ":")) + "\n"
    return WireResponse(status, body.encode(errors="replace"), headers=headers)


@value
class _Runner:
    programs: Programs
    exact: bool

    def start(self, body: bytes) -> Steps:
        fields = read_fields(body, "apiStartJobReq", ("command", "path", "worker_id"))
        worker = yield from _worker(fields["worker_id"])
        if worker.status is WorkerStatus.LOST:
            raise WorkerGone("the worker does not answer")
        argv = self.programs.argv(fields["command"], fields["path"])
        # Braces would be placeholders of the process engine.
        words = [word.replace("{", "{{").replace("}", "}}") for word in argv]
        stage = StageDraft(
            STAGE,
            "process",
            json.dumps({"argv": words}).encode(),
            labels=(label_of_worker(worker.name),),
        )
        name = f"{fields['command']} {fields['path']}"[: limits.NAME_CHARS_MAX]
        accepted = yield SubmitJob(name, (stage,))
        return {"job_id": accepted.job_id}

    def stop(self, body: bytes) -> Steps:
        job = yield from _job(read_fields(body, "apiStopJobReq", ("job_id", "worker_id")))
        if job.status not in JOB_FINAL:
            try:
                yield CancelJob(job.id, reason="stopped by /stop", grace_ms=0)
            except Conflict:
                # It ended in between, which is what was asked for.
                return {"success": True}
        return {"success": True}

    def query(self, body: bytes) -> Steps:
        job = yield from _job(read_fields(body, "apiQueryJobReq", ("job_id", "worker_id")))
        task = None
        if DONE[job.status]:
            task = yield GetTask(task_id(job.id, 1))
        told = error_text(job.status, task)
        return {"done": DONE[job.status], "error": bool(told), "error_text": told}

    def refuse(self, error: OrchestraError) -> WireResponse:
        """``{"error": text}``, with the original's text and status when it is to be exact."""
        status, text = _refusal(error)
        headers: tuple[tuple[str, str], ...] = ()
        if isinstance(error, MethodRefused):
            headers = (("allow", ", ".join(error.allow)),)
        if isinstance(error, LimitReached):
            headers = (("retry-after", str(-(-error.retry_after_ms // 1000))),)
        if self.exact and not isinstance(error, _OF_THE_SERVER):
            return _json(500, {"error": _exact(error, text)})
        return _json(status, {"error": text}, headers)


_OF_THE_SERVER = (RouteUnknown, MethodRefused, LimitReached, Unauthenticated)
"""Refused before the dialect was asked: what the original has no words for keeps HTTP's own statuses."""

_STATUSES: tuple[tuple[type[OrchestraError], int], ...] = (
    (MethodRefused, 405),
    (BodyTooLong, 413),
    (BodyTooSlow, 408),
    (LimitReached, 429),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (Rejected, 400),
    (Unavailable, 503),
    (OrchestraError, 500),
)


def _refusal(error: OrchestraError) -> tuple[int, str]:
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    if isinstance(error, (WorkerUnknown, JobUnknown)) or (
        isinstance(error, Malformed) and error.where == "body"
    ):
        return status, error.message
    return status, str(error) if isinstance(error, (Rejected, Unavailable)) else "a bug of ours"


def _exact(error: OrchestraError, text: str) -> str:
    match error:
        case JobUnknown():
            return f"{_RPC}{_NO_JOB}"
        case CommandMissing():
            return f"{_RPC}exec: no command"
        case CommandRefused():
            command = json.dumps(error.command, ensure_ascii=False)
            return f"{_RPC}exec: {command}: executable file not found in $PATH"
        case WorkerGone():
            return "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
        case Malformed():
            return error.message
        case _:
            return text


def _worker(named: str) -> Generator[Ask, Any, WorkerView]:
    """
    The worker with this id or name, the newest when several had the name. The id of a former process of it will do: who started
    something then asks after it still. Raises `WorkerUnknown`.
    """
    after, name = "", named
    found: WorkerView | None = None
    for _ in range(_PAGES_MAX):
        page = yield ListWorkers(after=after, limit=limits.PAGE_MAX, gone=True)
        for worker in page.items:
            if named and named == worker.id:
                name = worker.name
            if named and name == worker.name:
                found = worker if worker.status in _THERE else None
        after = page.next
        if not after:
            break
    if found is None:
        raise WorkerUnknown(_NOT_FOUND, where="worker_id")
    return found


def _job(fields: dict[str, str]) -> Generator[Ask, Any, JobView]:
    """The job that was started on the worker. Raises `WorkerUnknown` and `JobUnknown`."""
    worker = yield from _worker(fields["worker_id"])
    try:
        job = yield GetJob(fields["job_id"])
    except (NotFound, Malformed):
        raise JobUnknown(_NO_JOB, where="job_id") from None
    bound = any(
        stage.name == STAGE and stage.labels == (label_of_worker(worker.name),)
        for stage in job.stages
    )
    # Numbers and `last` are selectors of ours: here a job has its id alone.
    if job.id != fields["job_id"] or not bound:
        raise JobUnknown(_NO_JOB, where="job_id")
    return job
