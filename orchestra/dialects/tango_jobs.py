"""
Jobs that stand for a user's project: how they are named by its ids and found again, and what a member says of one. Pure.

Source: the container diagram of the TANGO REST guide.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from types import MappingProxyType
from typing import Any, cast

from orchestra.dialects.asks import Ask
from orchestra.dialects.tango_words import MemberWord
from orchestra.errors import Malformed, NotFound
from orchestra.statemachine import limits
from orchestra.statemachine.ids import task_id
from orchestra.statemachine.lifecycles import JOB_FINAL, JobStatus, TaskStatus
from orchestra.statemachine.queries import GetJob, GetTask, ListJobs
from orchestra.statemachine.replies import JobView, TaskView

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


def word_of(task: TaskView) -> MemberWord:
    """The member's word for a run: the diagram of the guide has no way back from Running to Started."""
    word = TASK_WORD[task.status]
    ran = any(attempt.started_at_ms is not None for attempt in task.attempts)
    return MemberWord.RUNNING if word is MemberWord.STARTED and ran else word


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
    except (ValueError, RecursionError):
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


def is_alive(job_id: str) -> Generator[Ask, Any, bool]:
    """Whether a job has not ended yet; what is not known any more has."""
    status = yield from status_of(job_id)
    return status is not None and status not in JOB_FINAL


def word_of_job(job_id: str) -> Generator[Ask, Any, MemberWord | None]:
    """The member's word for a job of one task; None when it is not known any more."""
    try:
        task = yield GetTask(task_id(job_id, 1))
    except NotFound:
        # It has no task yet, or was stopped before it got one.
        status = yield from status_of(job_id)
        if status is None:
            return None
        return MemberWord.STOPPED if status in JOB_FINAL else MemberWord.STARTED
    return word_of(task)


def end_of(word: MemberWord | None) -> MemberWord | None:
    """The word when it is an end. Of a run that is gone nothing can be told any more."""
    if word is None:
        return MemberWord.STOPPED
    return None if word in (MemberWord.STARTED, MemberWord.RUNNING) else word
