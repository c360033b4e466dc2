"""
The pipelines of a Project Manager: what runs, or ran last, for each user and project. Pure.

A pipeline is a job in the core's project `PIPELINES`, named by its ids; its stages are the containers of the workflow, each a task in its
member. Its order, its restarts and its one state are the core's, so that two reports at once, or a report and a person, can not start
a stage twice. The workflow that was set for a project is a job without tasks in `WORKFLOWS`: it is durable, and has a story.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from types import MappingProxyType
from typing import Any, cast

from orchestra.dialects.asks import Ask, Keyed
from orchestra.dialects.tango_jobs import Ids, Steps, ids_of_name, jobs_of, name_of, status_of
from orchestra.dialects.tango_options import Options, Workflow, read_workflow
from orchestra.dialects.tango_places import APP
from orchestra.dialects.tango_words import MemberWord
from orchestra.errors import Conflict, Malformed, NotFound, Unavailable
from orchestra.ports import Log, LogRead
from orchestra.statemachine import limits
from orchestra.statemachine.commands import CancelJob, StageDraft, SubmitJob
from orchestra.statemachine.lifecycles import JOB_FINAL, TaskStatus
from orchestra.statemachine.queries import GetJob, GetTask, ListTasks, Why
from orchestra.statemachine.records import Span
from orchestra.statemachine.replies import JobAccepted, JobView, TaskPage, TaskView, WhyAnswered
from orchestra.statemachine.values import value

PIPELINES = "tango-pipelines"
WORKFLOWS = "tango-workflows"
FORGOTTEN_MAX = 100
REMEMBERED_MAX = 10_000
MESSAGE_BYTES_MAX = 4_096

STAGE_WORD: Mapping[TaskStatus, MemberWord] = MappingProxyType(
    {
        TaskStatus.WAITING: MemberWord.READY,
        TaskStatus.QUEUED: MemberWord.READY,
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
"""What is said of a stage by its task. What has run once stays ``running`` until its end, as in the guide's diagram."""

_BETWEEN = (TaskStatus.QUEUED, TaskStatus.BACKOFF, TaskStatus.LEASED, TaskStatus.CANCELLING)
"""Whether these have run before is told by their attempts."""

_MOVING = (TaskStatus.LEASED, TaskStatus.RUNNING, TaskStatus.CANCELLING, TaskStatus.BACKOFF)


@value
class Shown:
    """Where a project is: the container that counts now, its word, what it said, and the words of all."""

    container_id: str
    word: MemberWord
    message: str
    words: Mapping[str, MemberWord]


class Pipelines:
    """
    Args:
        options: Members and workflows.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._newest: dict[Ids, str] | None = None
        self._workflows: dict[Ids, Workflow] = {}

    def workflow(self, ids: Ids) -> Generator[Ask, Any, Workflow]:
        """The workflow of a project: what was set for it, or for its id alone, or stands in the configuration."""
        yield from self._opened()
        alone = ("", ids[1])
        for known in (self._workflows, self._options.projects):
            if ids in known or alone in known:
                return known.get(ids) or known[alone]
        return self._options.workflow

    def set_workflow(self, ids: Ids, workflow: Workflow) -> Steps:
        """Give a project a workflow. It is durable on return; what runs goes on as it began."""
        yield from self._opened()
        content = json.dumps({name: list(before) for name, before in workflow.items()}).encode()
        stage = StageDraft("workflow", "tango-workflow", content, over=Span(0, 0))
        yield SubmitJob(name_of(ids), (stage,), WORKFLOWS)
        self._workflows[ids] = workflow

    def start(self, ids: Ids, container_id: str) -> Generator[Ask, Any, JobAccepted]:
        """
        Start a container, and in auto mode what follows it. When it is alive already, that is the one that was asked for.

        Raises:
            Conflict: Another part of the same project's pipeline is alive.
            Malformed: The container is no part of the workflow, or the ids are unfit.
        """
        name = name_of(ids)
        stages = self._drafts(ids, container_id, (yield from self.workflow(ids)))
        newest = yield from self._opened()
        last = newest.get(ids, "")
        job = (yield from self._job(last)) if last else None
        if job is not None and job.status not in JOB_FINAL:
            # While it is under way its stages are the first page.
            shown = yield from self._words(job)
            if shown.get(container_id) in (
                MemberWord.STARTED,
                MemberWord.RUNNING,
                MemberWord.READY,
            ):
                return JobAccepted(job.id, job.number, job.tasks, repeated=True)
            alive = f"its pipeline is {job.status}, and {container_id} does not wait in it"
            raise Conflict(alive, where="project_id", remedy="stop it first")
        submit = SubmitJob(name, stages, PIPELINES)
        accepted = yield from self._submitted(submit, last)
        if newest.get(ids, "") == last:
            newest.pop(ids, None)
            newest[ids] = accepted.job_id
        while len(newest) > REMEMBERED_MAX:
            del newest[next(iter(newest))]
        return accepted

    def stop(self, ids: Ids, container_id: str) -> Steps:
        """
        Ask the pipeline of a project to end. That it ended already is well.

        Raises:
            NotFound: Nothing was started, or the container is no part of what was.
        """
        job = yield from self._newest_job(ids)
        words = yield from self._words(job)
        if container_id not in words:
            raise NotFound(f"{container_id} is no part of what runs", where="container_id")
        if job.status in JOB_FINAL:
            return
        try:
            yield CancelJob(job.id, reason="stopped at the Project Manager's interface")
        except Conflict:
            # It ended in between, which is what was asked for.
            return

    def shown(self, ids: Ids) -> Generator[Ask, Any, Shown]:
        """Where a project is. Raises `NotFound` when nothing was started."""
        job = yield from self._newest_job(ids)
        tasks = yield from self._tasks(job)
        words = {task.stage: stage_word(task) for task in tasks}
        if not tasks:
            word = MemberWord.STOPPED if job.status in JOB_FINAL else MemberWord.READY
            return Shown(job.stages[0].name, word, job.reason, words)
        task = _current(tasks)
        message = yield from self._message(task)
        return Shown(task.stage, words[task.stage], message, words)

    def word(self, ids: Ids, container_id: str) -> Generator[Ask, Any, MemberWord]:
        """How a container is within a project's newest pipeline. Raises `NotFound` when it is no part of one."""
        job = yield from self._newest_job(ids)
        words = yield from self._words(job)
        if container_id not in words:
            raise NotFound("it is no part of what runs or ran", where="container_id")
        return words[container_id]

    # ------------------------------------------------------------------------------------------------------- what is known

    def _drafts(self, ids: Ids, container_id: str, workflow: Workflow) -> tuple[StageDraft, ...]:
        if container_id not in workflow:
            there = ", ".join(workflow)
            told = f"{container_id} is no part of the project's workflow"
            raise Malformed(told, where="container_id", remedy=f"it is: {there}")
        part = {container_id}
        if self._options.auto:
            for name, before in workflow.items():
                if part & set(before):
                    part.add(name)
        content = json.dumps({"user_id": ids[0], "project_id": ids[1]}).encode()
        drafts: list[StageDraft] = []
        for name, before in workflow.items():
            if name in part:
                place = self._options.places[name]
                draft = StageDraft(
                    name,
                    APP,
                    content,
                    # What comes before its beginning was done earlier.
                    after=tuple(each for each in before if each in part),
                    labels=(place.label,),
                    retries=place.restarts,
                    run_ms_max=place.limit_ms,
                )
                drafts.append(draft)
        return tuple(drafts)

    def _submitted(self, submit: SubmitJob, last: str) -> Generator[Ask, Any, JobAccepted]:
        """A new job. Whoever else asks to start after the same former pipeline gets the same one."""
        for _ in range(FORGOTTEN_MAX):
            key = f"after {last}" if last else f"pipeline {submit.name}"
            accepted = yield Keyed(submit, key)
            status = (yield from status_of(accepted.job_id)) if accepted.repeated else None
            if status is None or status not in JOB_FINAL:
                return accepted
            # It was forgotten here, and had ended.
            last = accepted.job_id
        raise Unavailable("what ran before is not known any more")

    def _newest_job(self, ids: Ids) -> Generator[Ask, Any, JobView]:
        newest = yield from self._opened()
        job = (yield from self._job(newest[ids])) if ids in newest else None
        if job is None:
            raise NotFound("nothing was started", where="project_id")
        return job

    def _job(self, job_id: str) -> Generator[Ask, Any, JobView | None]:
        try:
            return (yield GetJob(job_id))
        except NotFound:
            return None

    def _words(self, job: JobView) -> Generator[Ask, Any, dict[str, MemberWord]]:
        found = {task.stage: stage_word(task) for task in (yield from self._tasks(job))}
        # A stage has its task when its turn comes.
        absent = MemberWord.STOPPED if job.status in JOB_FINAL else MemberWord.READY
        return {stage.name: found.get(stage.name, absent) for stage in job.stages}

    def _tasks(self, job: JobView) -> Generator[Ask, Any, tuple[TaskView, ...]]:
        """The tasks of a pipeline, in their order; those between their beginning and their end with their attempts."""
        page = cast("TaskPage", (yield ListTasks(job.id, limit=limits.PAGE_MAX)))
        found: list[TaskView] = []
        for task in page.items:
            shown = task
            if task.status in _BETWEEN:
                shown = cast("TaskView", (yield GetTask(task.id)))
            found.append(shown)
        return tuple(found)

    def _message(self, task: TaskView) -> Generator[Ask, Any, str]:
        """What was said of a stage: what its container answered, or what it waits for."""
        lines: list[str] = []
        whole = cast("TaskView", (yield GetTask(task.id)))
        if whole.attempts:
            attempt_id = whole.attempts[-1].id
            read = cast("LogRead", (yield Log(attempt_id, "stdout", 0, MESSAGE_BYTES_MAX)))
            lines.append(read.data.decode("utf-8", "replace"))
        if task.status is not TaskStatus.COMPLETED:
            answered = cast("WhyAnswered", (yield Why(task.id)))
            lines.extend(f"{reason.text}\n" for reason in answered.reasons[:3])
        return "".join(lines)

    def _opened(self) -> Generator[Ask, Any, dict[Ids, str]]:
        """What is known; read from the core at the first time."""
        if self._newest is not None:
            return self._newest
        set_before: dict[Ids, Workflow] = {}
        for told in (yield from jobs_of(WORKFLOWS)):
            ids = ids_of_name(told.name)
            if ids is None or ids in set_before:
                continue
            job = yield from self._job(told.id)
            if job is not None and job.stages:
                try:
                    given = json.loads(job.stages[0].template)
                    set_before[ids] = read_workflow(given, self._options.names, "workflow")
                except (ValueError, RecursionError, Malformed):
                    # It is none, or names a container that is not declared any more: the configuration's counts.
                    continue
        newest: dict[Ids, str] = {}
        for told in (yield from jobs_of(PIPELINES)):
            ids = ids_of_name(told.name)
            if ids is not None:
                newest.setdefault(ids, told.id)
        if self._newest is None:
            self._workflows = {**set_before, **self._workflows}
            # Jobs come newest first, and what is oldest is forgotten first.
            self._newest = dict(reversed(newest.items()))
        return self._newest


def stage_word(task: TaskView) -> MemberWord:
    """The word of a stage: the guide's diagram has no way back from Running."""
    word = STAGE_WORD[task.status]
    ran = any(attempt.started_at_ms is not None for attempt in task.attempts)
    return MemberWord.RUNNING if ran and word in (MemberWord.READY, MemberWord.STARTED) else word


def _current(tasks: tuple[TaskView, ...]) -> TaskView:
    """The one that counts: what moves, else what failed, else what waits for its turn, else the last."""
    for wanted in (_MOVING, (TaskStatus.FAILED,), (TaskStatus.QUEUED,)):
        found = [task for task in tasks if task.status in wanted]
        if found:
            return found[-1]
    stopped = [task for task in tasks if task.status is TaskStatus.CANCELLED]
    return stopped[0] if stopped else tasks[-1]
