"""
The task of a worker of Flamenco, as a job of one task in a core of ours: begun, read, stopped, and found again after a restart. Pure.

A job in the project `RUNS` is the task; that its end was told to the manager is a job without tasks in the project `REPORTS`, and that
it was given one in `OFFERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import Any

import attrs
import msgspec

from orchestra.dialects.asks import Ask, Keyed
from orchestra.dialects.flamenco_parsers import LINE_CHARS_MAX, PARSERS, Activity
from orchestra.dialects.flamenco_words import FlamencoTask
from orchestra.dialects.flamenco_worker_offers import OFFERS, Offer, read_note
from orchestra.errors import Conflict, NotFound
from orchestra.ports import Log, LogRead
from orchestra.statemachine import limits
from orchestra.statemachine.commands import CancelJob, StageDraft, SubmitJob
from orchestra.statemachine.ids import task_id
from orchestra.statemachine.lifecycles import JOB_FINAL, TaskStatus
from orchestra.statemachine.queries import GetJob, GetOverview, GetTask, ListJobs
from orchestra.statemachine.records import Span
from orchestra.statemachine.replies import AttemptView, JobAccepted, JobView, TaskView
from orchestra.statemachine.values import value

Steps = Generator[Ask, Any, Any]

RUNS = "flamenco-worker"
REPORTS = "flamenco-worker-reports"
STAGE = "run"
GRACE_MS = 1_000
"""From a manager's kill to SIGKILL for the whole tree it takes two of these: the original kills at once."""

RUN_AGE_MS = 24 * 3_600_000
"""What is older when the worker starts is not its manager's any more."""

READS_A_ROUND = 64
"""Pieces of output in one round; the rest follows in the next."""

WHOLE_LOG_BYTES = 256 * 1024
"""So much of a log is sent whole with each report, as in 2015-03; of a longer one what is new, behind `OVERLAP_BYTES` of the old."""

OVERLAP_BYTES = 256
"""What later workers sent as the end of a log."""

END_WORD: Mapping[TaskStatus, FlamencoTask | None] = MappingProxyType(
    {
        TaskStatus.WAITING: None,
        TaskStatus.QUEUED: None,
        TaskStatus.BACKOFF: None,
        TaskStatus.LEASED: None,
        TaskStatus.RUNNING: None,
        TaskStatus.CANCELLING: None,
        TaskStatus.COMPLETED: FlamencoTask.FINISHED,
        TaskStatus.FAILED: FlamencoTask.FAILED,
        TaskStatus.SKIPPED: FlamencoTask.ABORTED,
        TaskStatus.CANCELLED: FlamencoTask.ABORTED,
    }
)
"""What is reported of an end. A program that was killed from outside was aborted too: see `end_of`."""

TICKET, JOB, PARSER, FOLDER, NOTE = (
    "FLAMENCO_TASK",
    "FLAMENCO_JOB",
    "FLAMENCO_PARSER",
    "FLAMENCO_FOLDER",
    "FLAMENCO_NOTE",
)
"""In the environment of the program, and the run's own memory after a restart."""


@value
class Given:
    """
    A task as its manager gave it, made ready to run.

    Args:
        ticket: The manager's number for it.
        job: The manager's number for its job; empty in the push protocol.
        folder: Its own folder; empty in the push protocol.
        env: For the program.
        noted: The note that it was given; empty in the push protocol.
    """

    ticket: str
    job: str
    parser: str
    argv: tuple[str, ...]
    folder: str = ""
    env: tuple[tuple[str, str], ...] = ()
    noted: str = ""

    def draft(self, labels: tuple[str, ...]) -> StageDraft:
        """The stage that runs it."""
        memory = ((TICKET, self.ticket), (JOB, self.job), (PARSER, self.parser))
        env = {**dict(self.env), **dict(memory), FOLDER: self.folder, NOTE: self.noted}
        template = {
            "argv": [_plain(word) for word in self.argv],
            "env": {name: _plain(value) for name, value in env.items()},
        }
        content = msgspec.json.encode(template)
        return StageDraft(STAGE, "process", content, labels=labels, grace_ms=GRACE_MS)


class _Template(msgspec.Struct, frozen=True):
    env: dict[str, str]


@attrs.define(slots=True, eq=False)
class Run:
    """
    The task that the worker has.

    Args:
        given: Without its command after a restart.
        job_id: Of our core; empty until it was accepted, and for one that was refused.
        begun_ms: When it was given.
        log: What its program wrote.
        sent: Bytes of it that the manager has.
        picture: The last picture that its program saved; empty when the manager has it.
        end: Its end, once it is over.
    """

    given: Given
    begun_ms: int
    job_id: str = ""
    attempt_id: str = ""
    offsets: dict[str, int] = attrs.field(factory=dict[str, int])
    log: bytes = b""
    rest: str = ""
    sent: int = 0
    told_ms: int = 0
    activity: Activity = attrs.field(factory=Activity)
    picture: str = ""
    stopping: bool = False
    end: FlamencoTask | None = None
    tries: int = 0
    next_ms: int = 0

    def log_text(self) -> tuple[str, int]:
        """What to send of the log now, and how many bytes of it the manager has then."""
        size = len(self.log)
        start = 0 if size <= WHOLE_LOG_BYTES else max(self.sent - OVERLAP_BYTES, 0)
        while start < size and self.log[start] & 0xC0 == 0x80:  # noqa: PLR2004 - inside a sign of UTF-8
            start += 1
        return self.log[start:].decode(errors="replace"), size


class Runs:
    """
    What the worker runs: one task, and for a moment a second one beside one that is being killed.

    Args:
        now_ms: A clock that never goes back.
        labels: Of the workers of our core that may run it.
    """

    def __init__(self, now_ms: Callable[[], int], labels: tuple[str, ...]) -> None:
        self.now_ms = now_ms
        self._labels = labels
        self._opened = False
        self.current: Run | None = None
        self.ending: list[Run] = []
        self.noted: tuple[Offer, str] | None = None
        """What was given before a restart and not begun, and its note."""

    def all(self) -> list[Run]:
        """The tasks whose end is not told yet."""
        return [*self.ending, *([self.current] if self.current else [])]

    def open(self) -> Steps:
        """After a restart, find the task whose end was not told, or that was given and not begun."""
        if self._opened:
            return
        overview = yield GetOverview()
        told = yield from _jobs(REPORTS)
        reported = {word for job in told for word in job.name.rpartition(", ")[2].split()}

        def is_open(job: JobView) -> bool:
            age_ms = overview.at_ms - (job.ended_at_ms or overview.at_ms)
            return job.id not in reported and age_ms <= RUN_AGE_MS

        for job in filter(is_open, (yield from _jobs(RUNS))):
            given = _given_of((yield GetJob(job.id)))
            if given is not None and given.noted not in reported:
                self.current = Run(given, self.now_ms(), job.id)
                break
        # A worker has one task: an older note is one whose end nobody wants to know any more.
        newest = (yield from _jobs(OFFERS))[:1] if self.current is None else ()
        for job in filter(is_open, newest):
            offer = read_note((yield GetJob(job.id)))
            self.noted = None if offer is None else (offer, job.id)
        self._opened = True

    def begin(self, given: Given) -> Generator[Ask, Any, Run]:
        """
        Run a task. Durable on return.

        Raises:
            Conflict: There is one, and it is not being stopped.
        """
        if self.current is not None:
            if not self.current.stopping:
                raise Conflict("there is a task", where="task_id")
            self.ending.append(self.current)
        run = self.current = Run(given, self.now_ms())
        try:
            submit = SubmitJob(f"task {given.ticket}", (given.draft(self._labels),), RUNS)
            accepted: JobAccepted = yield submit
        except BaseException:
            if self.current is run:
                self.current = None
            raise
        run.job_id = accepted.job_id
        return run

    def refused(self, given: Given, why: str) -> None:
        """Note a task that is not run: it has failed, and its log says why."""
        if self.current is not None and self.current.stopping:
            self.ending.append(self.current)
            self.current = None
        if self.current is not None:
            raise Conflict("there is a task", where="task_id")
        run = self.current = Run(given, self.now_ms(), end=FlamencoTask.FAILED)
        run.log = f"{why}\n".encode()

    def look(self, run: Run) -> Steps:
        """Read what is new in its output, and whether it is over."""
        if run.end is not None or not run.job_id:
            return
        end, attempt = yield from end_of(run.job_id)
        if attempt is not None:
            if attempt.id != run.attempt_id:
                run.attempt_id, run.offsets = attempt.id, {}
            for stream in ("stdout", "stderr"):
                yield from self._read(run, stream)
        if end is not None and attempt is not None and attempt.message:
            run.log += f"{attempt.message}\n".encode() if end is FlamencoTask.FAILED else b""
        run.end = end

    def stop(self, run: Run) -> Steps:
        """Ask a task to end with all that it started."""
        run.stopping = True
        if not run.job_id or run.end is not None:
            return
        try:
            yield CancelJob(run.job_id, reason="stopped by its manager", grace_ms=GRACE_MS)
        except (Conflict, NotFound):
            return  # It ended in between, which is what was asked for.

    def settle(self, run: Run, what: str) -> Steps:
        """Make it durable that an end needs no further report."""
        settled = f"{run.given.noted} {run.job_id}".strip()
        if settled:
            name = f"{run.end or 'end'} of task {run.given.ticket} {what}, {settled}"
            stage = StageDraft("report", "flamenco-report", over=Span(0, 0))
            yield Keyed(SubmitJob(name, (stage,), project=REPORTS), f"report {settled}")
        self.forget(run)

    def forget(self, run: Run) -> None:
        """It is not the worker's any more."""
        if run in self.ending:
            self.ending.remove(run)
        if self.current is run:
            self.current = None

    def _read(self, run: Run, stream: str) -> Steps:
        size = limits.LOG_CHUNK_BYTES_MAX
        for _ in range(READS_A_ROUND):
            offset = run.offsets.get(stream, 0)
            read: LogRead = yield Log(run.attempt_id, stream, offset, size)
            if not read.data:
                return
            run.offsets[stream] = offset + len(read.data)
            run.log += read.data
            _understand(run, read.data)


def _understand(run: Run, fresh: bytes) -> None:
    """Let the task's parser read whole lines; the last one may go on."""
    parser = PARSERS.get(run.given.parser, PARSERS["none"])
    text = run.rest + fresh.decode(errors="replace")
    whole, newline, rest = text.rpartition("\n")
    run.rest = (rest if newline else text)[-LINE_CHARS_MAX:]
    if newline:
        before = run.activity
        run.activity = parser.feed(before, whole)
        if run.activity.saved != before.saved:
            run.picture = run.activity.thumbnail


def end_of(job_id: str) -> Generator[Ask, Any, tuple[FlamencoTask | None, AttemptView | None]]:
    """How a run ended, None when it did not; and its last attempt."""
    try:
        task: TaskView = yield GetTask(task_id(job_id, 1))
    except NotFound:
        try:
            job: JobView = yield GetJob(job_id)
        except NotFound:
            return FlamencoTask.ABORTED, None
        return (FlamencoTask.ABORTED if job.status in JOB_FINAL else None), None
    attempt = max(task.attempts, key=lambda each: each.number, default=None)
    word = END_WORD[task.status]
    killed = attempt is not None and attempt.signal == "SIGKILL"
    if word is FlamencoTask.FAILED and killed:
        word = FlamencoTask.ABORTED
    return word, attempt


def _plain(text: str) -> str:
    """A text in which the process engine finds no placeholders."""
    return text.replace("{", "{{").replace("}", "}}")


def _given_of(job: JobView) -> Given | None:
    try:
        read = msgspec.json.decode(job.stages[0].template, type=_Template)
        env = {name: read.env[name].replace("{{", "{").replace("}}", "}") for name in read.env}
        # Runs of older versions have no note.
        noted = env.get(NOTE, "")
        return Given(env[TICKET], env[JOB], env[PARSER], (), env[FOLDER], noted=noted)
    except (msgspec.DecodeError, IndexError, KeyError, RecursionError):
        return None


def _jobs(project: str) -> Generator[Ask, Any, tuple[JobView, ...]]:
    page = yield ListJobs(project=project, limit=limits.PAGE_MAX)
    return page.items
