"""
The runs of a member container, one at a time for each user and project, and the reports of their ends. Pure.

A run is a job of one task in the project `RUNS`, named by its ids, so that a member that was started again finds it. The end of the
newest run of its ids is reported to the manager until that answers 200, or `TRIES_MAX` tries are over; that it was is a job without
tasks in the project `REPORTS`, so that it is not reported again after a restart. What was stopped is not reported: the guide has no word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import quote

import attrs

from orchestra.dialects.asks import Apart, Ask, Keyed
from orchestra.dialects.far_calls import CallAll, FarCall
from orchestra.dialects.tango_secrets import SECRET_HEADER
from orchestra.dialects.tango_words import MemberWord
from orchestra.errors import Conflict, LimitReached, Malformed, NotFound, Unavailable
from orchestra.statemachine import limits
from orchestra.statemachine.commands import CancelJob, StageDraft, SubmitJob
from orchestra.statemachine.ids import task_id
from orchestra.statemachine.lifecycles import JOB_FINAL, JobStatus, TaskStatus
from orchestra.statemachine.queries import GetJob, GetOverview, GetTask, ListJobs
from orchestra.statemachine.records import Span
from orchestra.statemachine.replies import JobAccepted, JobView, TaskView

RUNS = "tango"
REPORTS = "tango-reports"
STAGE = "run"

ROUND_MS = 500
"""How soon an end is noticed: below the second within which the programs hand over to the next container."""

ANSWER_MS = 15_000
"""A Project Manager calls the next container before it answers, and waits 5 s for that."""

TRIES_MAX = 20
PAUSE_MS, PAUSE_MS_MAX = 1_000, 60_000
"""Between two tries: twice as long each time, so that twenty take a quarter of an hour, in which a manager is back from a restart."""

REPORT_AGE_MS = 24 * 3_600_000
"""An end that is older when the member starts is not news any more."""

LIVE_MAX = 500
"""Runs that have not ended or are not reported yet: each is looked at in every round."""

REMEMBERED_MAX = 10_000
"""Users' projects whose newest run is known; the oldest that need no report are forgotten, and are then as never started."""

FORGOTTEN_MAX = 100
"""Runs of the same ids that were forgotten within the day for which a key is known."""

PAGES_MAX = 40
"""So many pages of jobs are read when the member starts: `REMEMBERED_MAX` runs, each repeated once."""

Ids = tuple[str, str]
Steps = Generator[Ask, Any, Any]

TASK_WORD: Mapping[TaskStatus, MemberWord] = MappingProxyType(
    {
        TaskStatus.WAITING: MemberWord.STARTED,
        TaskStatus.QUEUED: MemberWord.STARTED,
        TaskStatus.BACKOFF: MemberWord.STARTED,
        TaskStatus.LEASED: MemberWord.STARTED,
        TaskStatus.RUNNING: MemberWord.RUNNING,
        TaskStatus.CANCELLING: MemberWord.STARTED,
        TaskStatus.COMPLETED: MemberWord.COMPLETED,
        TaskStatus.FAILED: MemberWord.FAILED,
        TaskStatus.SKIPPED: MemberWord.FAILED,
        TaskStatus.CANCELLED: MemberWord.STOPPED,
    }
)
"""What is said of a run by its task. What has run once stays ``running`` until its end, through every further try (`word_of`)."""

OUTCOME: Mapping[MemberWord, str] = MappingProxyType(
    {MemberWord.COMPLETED: "success", MemberWord.FAILED: "failed"}
)
"""What ``status_report`` says of an end."""

_REPORT = re.compile(r"(\S+) of (\S+) .*")


def word_of(task: TaskView) -> MemberWord:
    """The member's word for a run: the diagram of the guide has no way back from Running to Started."""
    word = TASK_WORD[task.status]
    ran = any(attempt.started_at_ms is not None for attempt in task.attempts)
    return MemberWord.RUNNING if word is MemberWord.STARTED and ran else word


@attrs.frozen(slots=True)
class Reporting:
    """
    Where ends are reported, and by whom.

    Args:
        prefix: Of the path, such as ``/tango`` where the manager is served below it; usually empty.
        secret: The container's, which goes along; empty for none.
    """

    container_id: str
    host: str
    port: int
    prefix: str = ""
    secret: str = attrs.field(default="", repr=False)

    def call(self, ids: Ids, end: MemberWord) -> FarCall:
        """The report of an end, in the path form, which the Project Manager knows."""
        pairs = zip(
            ("container_id", "user_id", "project_id", "status"),
            (self.container_id, *ids, OUTCOME[end]),
            strict=True,
        )
        query = "&".join(f"{name}={quote(text, safe='')}" for name, text in pairs)
        target = f"{self.prefix}/status_report?{query}"
        headers = ((SECRET_HEADER, self.secret),) if self.secret else ()
        return FarCall(self.host, self.port, "GET", target, step_ms=ANSWER_MS, headers=headers)


@attrs.define(slots=True)
class _Run:
    """The newest run of its ids."""

    job_id: str
    end: MemberWord | None = None
    settled: bool = False
    tries: int = 0
    next_ms: int = 0


class Runs:
    """
    What a member has started.

    Args:
        draft_for: The stage that runs for ids.
        reporting: Where ends are reported; None for nowhere.
        now_ms: A clock that never goes back.
        call_all: Makes calls.
    """

    def __init__(
        self,
        draft_for: Callable[[Ids], StageDraft],
        reporting: Reporting | None,
        now_ms: Callable[[], int],
        call_all: CallAll,
    ) -> None:
        self._draft_for = draft_for
        self._reporting = reporting
        self._now_ms = now_ms
        self._call_all = call_all
        self._newest: dict[Ids, _Run] | None = None

    def start(self, ids: Ids) -> Steps:
        """
        Start a run, unless one of these ids is alive: then that is the one that was asked for, and nothing further starts.

        Raises:
            Conflict: The former run is being stopped and has not ended yet.
            LimitReached: Too many runs are alive.
            Malformed: The ids name no run.
        """
        name = name_of(ids)
        newest = yield from self._opened()
        run = newest.get(ids)
        last = run.job_id if run is not None else ""
        if run is not None:
            status = yield from status_of(run.job_id)
            if status is JobStatus.CANCELLING:
                raise Conflict("the former run is still being stopped", where="project_id")
            if status is not None and status not in JOB_FINAL:
                return
        if sum(not each.settled for each in newest.values()) >= LIVE_MAX:
            raise LimitReached(f"{LIVE_MAX} runs are alive", retry_after_ms=ROUND_MS)
        accepted = yield from self._submitted(SubmitJob(name, (self._draft_for(ids),), RUNS), last)
        current = newest.get(ids)
        if current is None or current.job_id == last:
            newest.pop(ids, None)
            newest[ids] = _Run(accepted.job_id)
        if len(newest) > REMEMBERED_MAX:
            over = (each for each, run in newest.items() if run.settled)
            for forgotten in list(islice(over, len(newest) - REMEMBERED_MAX)):
                del newest[forgotten]

    def _submitted(self, submit: SubmitJob, last: str) -> Generator[Ask, Any, JobAccepted]:
        """A new job. Whoever else asks to start after the same former run gets the same one."""
        for _ in range(FORGOTTEN_MAX):
            accepted = yield Keyed(submit, f"after {last}" if last else f"run {submit.name}")
            status = (yield from status_of(accepted.job_id)) if accepted.repeated else None
            if status is None or status not in JOB_FINAL:
                return accepted
            # It was forgotten here, and had ended.
            last = accepted.job_id
        raise Unavailable("what ran before is not known any more")

    def stop(self, ids: Ids) -> Steps:
        """
        Ask the run of these ids to end; that it ended already is well. It is over when its status says so.

        An end that was not reported yet is not reported any more: a manager that stops a run takes it for stopped, and would start
        what comes after it, or resume it.

        Raises:
            NotFound: Nothing was started.
        """
        run = yield from self._run(ids)
        try:
            status = yield from status_of(run.job_id)
            if (
                status is not None
                and status not in JOB_FINAL
                and status is not JobStatus.CANCELLING
            ):
                yield CancelJob(run.job_id, reason="stopped by its Project Manager")
                return
        except Conflict:
            pass  # it ended in between, which is what was asked for
        end = _end_of((yield from _word(run.job_id)))
        if run.settled or end is None:
            return
        if end is MemberWord.STOPPED or self._reporting is None:
            run.settled = True
        else:
            yield from _settle(run, end, "was stopped")

    def resume(self, ids: Ids) -> Generator[Ask, Any, bool]:
        """
        Start a failed run again; whether it was.

        Raises:
            NotFound: Nothing was started.
        """
        yield from self._run(ids)
        if (yield from self.word(ids)) is not MemberWord.FAILED:
            return False
        yield from self.start(ids)
        return True

    def word(self, ids: Ids) -> Generator[Ask, Any, MemberWord | None]:
        """How the newest run of these ids is; None when nothing was started."""
        newest = yield from self._opened()
        run = newest.get(ids)
        return None if run is None else (yield from _word(run.job_id))

    def report(self) -> Steps:
        """
        One round: look for ends, and report what is due.

        Raises:
            Unavailable: A report was not taken. It is tried again, or given up; the message says which.
        """
        reporting = self._reporting
        newest = yield from self._opened()
        due: list[tuple[Ids, _Run, MemberWord]] = []
        now = self._now_ms()
        live = [(ids, run) for ids, run in newest.items() if not run.settled]
        for ids, run in islice(live, LIVE_MAX):
            if run.end is None:
                run.end = _end_of((yield from _word(run.job_id)))
            if run.end is MemberWord.STOPPED or (run.end is not None and reporting is None):
                run.settled = True
            elif run.end is not None and now >= run.next_ms:
                due.append((ids, run, run.end))
        due = [each for each in due if not each[1].settled]  # a stop may have come in between
        if reporting is None or not due:
            return
        calls = tuple(reporting.call(ids, end) for ids, _, end in due)
        replies = yield Apart(lambda: self._call_all(calls))
        lost: list[str] = []
        for (ids, run, end), reply in zip(due, replies, strict=True):
            if run.settled:
                continue
            run.tries += 1
            if reply is not None and reply.status == 200:  # noqa: PLR2004 - the guide's 200 OK
                yield from _settle(run, end, "was reported")
                continue
            answer = "nothing" if reply is None else f"status {reply.status}"
            told = f"{OUTCOME[end]} of {name_of(ids)}: {answer} came back"
            if run.tries >= TRIES_MAX:
                yield from _settle(run, end, "was given up")
                lost.append(f"{told}, given up after {TRIES_MAX} tries")
            else:
                pause = min(PAUSE_MS << (run.tries - 1), PAUSE_MS_MAX)
                run.next_ms = self._now_ms() + pause
                lost.append(f"{told}, try {run.tries} of {TRIES_MAX}")
        if lost:
            raise Unavailable("a report was not taken: " + "; ".join(lost[:10]))

    def _run(self, ids: Ids) -> Generator[Ask, Any, _Run]:
        newest = yield from self._opened()
        run = newest.get(ids)
        if run is None:
            raise NotFound("nothing was started", where="project_id")
        return run

    def _opened(self) -> Generator[Ask, Any, dict[Ids, _Run]]:
        """What is known; read from the core at the first time."""
        if self._newest is not None:
            return self._newest
        overview = yield GetOverview()
        told = yield from jobs_of(REPORTS)
        reported = {found[2] for job in told if (found := _REPORT.fullmatch(job.name))}
        known: dict[Ids, _Run] = {}
        for job in (yield from jobs_of(RUNS)):
            ids = ids_of_name(job.name)
            if ids is None or ids in known or len(known) >= REMEMBERED_MAX:
                continue
            old = job.ended_at_ms is not None and overview.at_ms - job.ended_at_ms > REPORT_AGE_MS
            known[ids] = _Run(job.id, settled=old or job.id in reported)
        if self._newest is None:
            # Jobs come newest first, and what is oldest is forgotten first.
            self._newest = dict(reversed(known.items()))
        return self._newest


def name_of(ids: Ids) -> str:
    """
    The name of a run, from which its ids can be read again.

    Raises:
        Malformed: The ids are too long for it.
    """
    name = json.dumps(list(ids), ensure_ascii=False)
    if len(name) > limits.NAME_CHARS_MAX - len("run "):
        raise Malformed("the ids are too long", where="project_id")
    return name


def ids_of_name(name: str) -> Ids | None:
    """The ids in a run's name; None when it is another job's."""
    try:
        read: object = json.loads(name)
    except ValueError:
        return None
    match read:
        case [str(user_id), str(project_id)]:
            return user_id, project_id
        case _:
            return None


def jobs_of(project: str) -> Generator[Ask, Any, list[JobView]]:
    """The jobs of a project, newest first."""
    found: list[JobView] = []
    after = ""
    for _ in range(PAGES_MAX):
        page = yield ListJobs(project=project, after=after, limit=limits.PAGE_MAX)
        found.extend(page.items)
        after = page.next
        if not after:
            break
    return found


def status_of(job_id: str) -> Generator[Ask, Any, JobStatus | None]:
    """The status of a job; None when it is not known any more."""
    try:
        job = yield GetJob(job_id)
    except NotFound:
        return None
    return cast("JobView", job).status


def _word(job_id: str) -> Generator[Ask, Any, MemberWord | None]:
    try:
        task = yield GetTask(task_id(job_id, 1))
    except NotFound:
        # It has no task yet, or was stopped before it got one.
        status = yield from status_of(job_id)
        if status is None:
            return None
        return MemberWord.STOPPED if status in JOB_FINAL else MemberWord.STARTED
    return word_of(task)


def _end_of(word: MemberWord | None) -> MemberWord | None:
    """The word when it is an end. Of a run that is gone nothing can be told any more."""
    if word is None:
        return MemberWord.STOPPED
    return None if word in (MemberWord.STARTED, MemberWord.RUNNING) else word


def _settle(run: _Run, end: MemberWord, what: str) -> Steps:
    """Make it durable that a report needs no further try."""
    name = f"{OUTCOME[end]} of {run.job_id} {what}"
    stage = StageDraft("report", "tango-report", over=Span(0, 0))
    yield Keyed(SubmitJob(name, (stage,), project=REPORTS), f"report {run.job_id}")
    run.settled = True
