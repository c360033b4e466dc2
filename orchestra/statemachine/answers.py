"""Answers to queries: reads only, pages bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, cast

from orchestra.errors import Defect, Malformed, NotFound
from orchestra.statemachine import ids, limits
from orchestra.statemachine.bounds import check_range
from orchestra.statemachine.lifecycles import JOB_FINAL, TaskStatus, WorkerStatus
from orchestra.statemachine.queries import (
    GetJob,
    GetOverview,
    GetTask,
    ListJobs,
    ListProjects,
    ListResults,
    ListTasks,
    ListWorkers,
    Query,
    Why,
)
from orchestra.statemachine.records import Attempt, Job, Project, Stage, Task, Worker
from orchestra.statemachine.replies import (
    JobPage,
    JobView,
    Overview,
    ProjectPage,
    ResultPage,
    TaskPage,
    TaskResult,
    TaskView,
    WhyAnswered,
    WorkerPage,
)
from orchestra.statemachine.state import State
from orchestra.statemachine.views import view_job, view_project, view_task, view_worker
from orchestra.statemachine.why import why_job, why_task, why_worker

R = TypeVar("R")

_CURSOR_DIGITS_MAX = 18
"""Cursors are numbers of 63 bits."""


def answer(state: State, query: Query[R], now_ms: int) -> R:
    """
    Answer from memory.

    Raises:
        NotFound: There is no such thing in memory; a job that ended long ago is in the store.
        Malformed: A selector, cursor or limit is not of the form.
    """
    answerer = ANSWERERS.get(type(query))
    if answerer is None:
        raise Defect(f"no answer for {type(query).__name__}")
    return cast("R", answerer(state, query, now_ms))


def resolve_job(state: State, selector: str) -> str:
    """
    The id of the job that people name by id, by number, or as ``last``. The job need not be in memory when it is named by id.

    Raises:
        NotFound: No job has this number.
        Malformed: It is no selector of a job.
    """
    if selector == "last":
        selector = str(state.counters.jobs)
    if selector.isdecimal() and len(selector) < ids.ROOT_CHARS:
        job_id = state.index.job_numbers.get(int(selector))
        if job_id is None:
            raise NotFound(f"there is no job {selector} in memory", where="job_id")
        return job_id
    try:
        ids.number_of(selector)
    except ValueError:
        raise Malformed(
            f"{selector!r} names no job", where="job_id", remedy="use an id, a number, or last"
        ) from None
    return ids.job_of(selector)


def resolve_task(state: State, selector: str) -> str:
    """The id of the task named by id or as ``17.3`` or ``last.3``; a job's selector alone names its only task."""
    job_part, dot, position = selector.partition(".")
    if dot:
        if not position.isdecimal() or not 1 <= int(position) <= limits.TASKS_PER_JOB_MAX:
            raise Malformed(
                f"{selector!r} names no task",
                where="task_id",
                remedy="use job.position, as in 17.3",
            )
        return ids.task_id(resolve_job(state, job_part), int(position))
    if len(selector) > ids.ROOT_CHARS:
        resolve_job(state, selector)
        return ids.task_of(selector)
    job_id = resolve_job(state, selector)
    job = state.find(Job, job_id)
    if job is None or job.tasks == 1:
        return ids.task_id(job_id, 1)
    raise Malformed(
        f"job {job.number} has {job.tasks} tasks",
        where="task_id",
        remedy=f"name one, as in {job.number}.1",
    )


def _job(state: State, selector: str) -> Job:
    job = state.find(Job, resolve_job(state, selector))
    if job is None:
        raise NotFound(f"there is no job {selector!r}", where="job_id")
    return job


def _task(state: State, selector: str) -> Task:
    task_id = resolve_task(state, selector)
    task = state.find(Task, task_id)
    if task is not None:
        return task
    job = state.find(Job, ids.job_of(task_id))
    if job is not None and 1 <= ids.position_of(task_id) <= job.tasks:
        raise NotFound("the task is not unfolded yet", where="task_id", remedy="ask again")
    raise NotFound(f"there is no task {selector!r}", where="task_id")


def _limit(limit: int) -> None:
    check_range(limit, 1, limits.PAGE_MAX, "limit")


def _number(text: str, where: str) -> int:
    if not text:
        return 0
    if not text.isdecimal() or len(text) > _CURSOR_DIGITS_MAX:
        raise Malformed(f"{text!r} is no cursor", where=where, remedy="use a page's next")
    return int(text)


def _get_job(state: State, query: GetJob, _: int) -> JobView:
    return view_job(state, _job(state, query.job_id), stages=True)


def _list_jobs(state: State, query: ListJobs, _: int) -> JobPage:
    _limit(query.limit)
    before = _number(query.after, "after") or state.counters.jobs + 1
    project_id = state.index.project_names.get(query.project) if query.project else None
    if query.project and project_id is None:
        return JobPage((), "")
    items: list[JobView] = []
    last = before
    # What is in memory is gone through, not the numbers: a cursor may be as far off as whoever sends it likes.
    known = state.index.job_numbers
    for number in sorted((each for each in known if each < before), reverse=True):
        if len(items) == query.limit:
            return JobPage(tuple(items), str(last))
        last = number
        job = state.find(Job, known[number])
        if job is None or (query.status and job.status != query.status):
            continue
        if project_id is None or job.project_id == project_id:
            items.append(view_job(state, job, stages=False))
    return JobPage(tuple(items), "")


def _get_task(state: State, query: GetTask, _: int) -> TaskView:
    return view_task(state, _task(state, query.task_id), attempts=True)


def _list_tasks(state: State, query: ListTasks, _: int) -> TaskPage:
    _limit(query.limit)
    job = _job(state, query.job_id)
    position = _number(query.after, "after")
    items: list[TaskView] = []
    unfolded = state.unfolded(job.id)
    while position < unfolded and len(items) < query.limit:
        position += 1
        task = state.find(Task, ids.task_id(job.id, position))
        if task is not None and (not query.status or task.status == query.status):
            items.append(view_task(state, task, attempts=False))
    return TaskPage(tuple(items), str(position) if position < job.tasks else "")


def _list_results(state: State, query: ListResults, _: int) -> ResultPage:
    _limit(query.limit)
    job = _job(state, query.job_id)
    position = _number(query.after, "after")
    items: list[TaskResult] = []
    stages = _result_stages(state, job, query.stage)
    size = 0
    for stage in stages:
        last = stage.first + stage.size - 1
        position_in_stage = max(position + 1, stage.first)
        while position_in_stage <= last and len(items) < query.limit:
            task = state.find(Task, ids.task_id(job.id, position_in_stage))
            if task is None and position_in_stage > state.unfolded(job.id):
                break  # it is to come
            position = position_in_stage
            position_in_stage += 1
            if task is None:
                continue  # its row could not be read
            items.append(_result(state, task))
            size += len(items[-1].result or b"")
            if size > limits.RESULT_BYTES_MAX:
                break
        if position < last:
            break
    end = stages[-1].first + stages[-1].size - 1 if stages else 0
    ended = job.status in JOB_FINAL
    more = str(position) if items and position < end else ""
    return ResultPage(tuple(items), more, ended or _stages_ended(state, stages), ended)


def _stages_ended(state: State, stages: list[Stage]) -> bool:
    for stage in stages:
        tally = state.index.stage_tallies[stage.id]
        if tally.completed + tally.broken < stage.size:
            return False
    return True


def _result_stages(state: State, job: Job, name: str) -> list[Stage]:
    stages = state.stages(job.id)
    if name:
        named = [stage for stage in stages if stage.name == name]
        if not named:
            known = ", ".join(stage.name for stage in stages[:10])
            raise NotFound(f"there is no stage {name!r}", where="stage", remedy=f"one of: {known}")
        return named
    used = {index for stage in stages for index in (*stage.after, *stage.pairwise)}
    return [stage for stage in stages if stage.index not in used]


def _result(state: State, task: Task) -> TaskResult:
    result = None
    if task.status is TaskStatus.COMPLETED:
        attempt = state.find(Attempt, ids.attempt_id(task.id, task.attempts))
        result = None if attempt is None else attempt.result
    return TaskResult(task.id, task.position, task.status, result, task.reason)


def _list_workers(state: State, query: ListWorkers, _: int) -> WorkerPage:
    _limit(query.limit)
    after = _number(query.after, "after")
    shown = sorted(
        (
            worker
            for worker in state.each(Worker)
            if worker.number > after
            and (query.gone or worker.status not in (WorkerStatus.LEFT, WorkerStatus.REPLACED))
        ),
        key=lambda worker: worker.number,
    )
    items = shown[: query.limit]
    more = str(items[-1].number) if len(shown) > len(items) else ""
    return WorkerPage(tuple(view_worker(state, worker) for worker in items), more)


def _list_projects(state: State, query: ListProjects, _: int) -> ProjectPage:
    _limit(query.limit)
    after = _number(query.after, "after")
    shown = sorted(
        (project for project in state.each(Project) if project.number > after),
        key=lambda project: project.number,
    )
    items = shown[: query.limit]
    more = str(items[-1].number) if len(shown) > len(items) else ""
    return ProjectPage(tuple(view_project(project) for project in items), more)


def _why(state: State, query: Why, now_ms: int) -> WhyAnswered:
    subject = query.subject
    worker_id = state.index.worker_names.get(subject, subject)
    worker = state.find(Worker, worker_id)
    if worker is not None:
        return why_worker(state, worker, now_ms)
    if "." in subject or len(subject) > ids.ROOT_CHARS:
        return why_task(state, _task(state, subject), now_ms)
    job = _job(state, subject)
    if job.tasks == 1:
        task = state.find(Task, ids.task_id(job.id, 1))
        if task is not None:
            return why_task(state, task, now_ms)
    return why_job(state, job, now_ms)


def _overview(state: State, _: GetOverview, now_ms: int) -> Overview:
    jobs: dict[str, int] = {}
    tasks: dict[str, int] = {}
    workers: dict[str, int] = {}
    slots = held = 0
    for job in state.each(Job):
        jobs[job.status] = jobs.get(job.status, 0) + 1
    for tally in state.index.tallies.values():
        for status, count in tally.items():
            if count:
                tasks[status] = tasks.get(status, 0) + count
    for worker in state.each(Worker):
        workers[worker.status] = workers.get(worker.status, 0) + 1
        if worker.status is WorkerStatus.ONLINE:
            slots += worker.slots
            held += len(state.index.held.get(worker.id, ()))
    return Overview(now_ms, jobs, tasks, workers, slots, held)


ANSWERERS: Mapping[type[object], Callable[[State, Any, int], object]] = MappingProxyType(
    {
        GetJob: _get_job,
        ListJobs: _list_jobs,
        GetTask: _get_task,
        ListTasks: _list_tasks,
        ListResults: _list_results,
        ListWorkers: _list_workers,
        ListProjects: _list_projects,
        Why: _why,
        GetOverview: _overview,
    }
)
"""Each takes its own query, which no type can say of a mapping; a test proves that every query has one."""
