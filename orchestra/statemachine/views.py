"""Rows as people and programs see them."""

from __future__ import annotations

from orchestra.statemachine import ids
from orchestra.statemachine.orders import item_of
from orchestra.statemachine.records import Amounts, Attempt, Job, Project, Stage, Task, Worker
from orchestra.statemachine.replies import (
    AttemptView,
    JobView,
    ProjectView,
    StageView,
    TaskView,
    WorkerView,
)
from orchestra.statemachine.state import State


def view_project(project: Project) -> ProjectView:
    """A project as callers see it."""
    return ProjectView(
        project.id,
        project.number,
        project.name,
        project.owner,
        project.status,
        project.created_at_ms,
    )


def view_job(state: State, job: Job, *, stages: bool) -> JobView:
    """``stages`` adds the job's stages, which a list leaves out."""
    project = state.find(Project, job.project_id)
    tally = state.index.tallies.get(job.id)
    counts = {str(status): count for status, count in tally.items() if count} if tally else {}
    return JobView(
        id=job.id,
        number=job.number,
        project="" if project is None else project.name,
        name=job.name,
        owner=job.owner,
        status=job.status,
        priority=job.priority,
        tasks=job.tasks,
        counts=counts or dict(job.counts),
        on_failure=job.on_failure,
        submitted_at_ms=job.submitted_at_ms,
        started_at_ms=job.started_at_ms,
        ended_at_ms=job.ended_at_ms,
        reason=job.reason,
        stages=tuple(_view_stage(stage) for stage in state.stages(job.id)) if stages else (),
    )


def _view_stage(stage: Stage) -> StageView:
    return StageView(
        id=stage.id,
        index=stage.index,
        name=stage.name,
        app=stage.app,
        template=stage.template,
        over=stage.over,
        first=stage.first,
        size=stage.size,
        after=stage.after,
        pairwise=stage.pairwise,
        needs=stage.needs,
        labels=stage.labels,
        priority=stage.priority,
        retries=stage.retries,
        queue_ms_max=stage.queue_ms_max,
        run_ms_max=stage.run_ms_max,
    )


def worker_name(state: State, worker_id: str | None) -> str:
    """The worker's name; its number when it left long ago."""
    if worker_id is None:
        return ""
    worker = state.find(Worker, worker_id)
    return f"worker {ids.number_of(worker_id)}" if worker is None else worker.name


def view_task(state: State, task: Task, *, attempts: bool) -> TaskView:
    """``attempts`` adds the task's attempts, which a list leaves out."""
    stage = state.find(Stage, task.stage_id)
    job = state.find(Job, task.job_id)
    offset = task.position - (stage.first if stage is not None else 1)
    number = job.number if job is not None else ids.number_of(task.job_id)
    views: list[AttemptView] = []
    if attempts:
        for attempt_number in range(1, task.attempts + 1):
            attempt = state.find(Attempt, ids.attempt_id(task.id, attempt_number))
            if attempt is not None:
                views.append(_view_attempt(state, attempt))
    return TaskView(
        id=task.id,
        selector=f"{number}.{task.position}",
        job_id=task.job_id,
        stage="" if stage is None else stage.name,
        position=task.position,
        offset=offset,
        item=b"" if stage is None else item_of(stage, offset),
        status=task.status,
        queued_at_ms=task.queued_at_ms,
        failures=task.failures,
        losses=task.losses,
        retry_at_ms=task.retry_at_ms,
        ended_at_ms=task.ended_at_ms,
        cause=task.cause,
        reason=task.reason,
        worker=worker_name(state, task.worker_id),
        attempts=tuple(views),
    )


def _view_attempt(state: State, attempt: Attempt) -> AttemptView:
    progress = state.progress.get(attempt.id)
    return AttemptView(
        id=attempt.id,
        number=attempt.number,
        worker=worker_name(state, attempt.worker_id),
        status=attempt.status,
        leased_at_ms=attempt.leased_at_ms,
        started_at_ms=attempt.started_at_ms,
        ended_at_ms=attempt.ended_at_ms,
        cause=attempt.cause,
        message=attempt.message,
        exit_code=attempt.exit_code,
        signal=attempt.signal,
        result=attempt.result,
        rung=attempt.rung,
        rung_until_ms=attempt.rung_until_ms,
        stop_reason=attempt.stop_reason,
        late_outcome=attempt.late_outcome,
        late_at_ms=attempt.late_at_ms,
        progress=None if progress is None else progress.fraction,
        progress_message="" if progress is None else progress.message,
    )


def view_worker(state: State, worker: Worker) -> WorkerView:
    """A worker as callers see it: its row, what it holds, and what it last said of its host."""
    pulse = state.pulses.get(worker.id)
    used: Amounts = tuple(
        sorted((n, a) for n, a in state.index.used.get(worker.id, {}).items() if a)
    )
    return WorkerView(
        id=worker.id,
        number=worker.number,
        name=worker.name,
        incarnation=worker.incarnation,
        status=worker.status,
        paused=worker.paused,
        pause_reason=worker.pause_reason,
        slots=worker.slots,
        held=len(state.index.held.get(worker.id, ())),
        apps=worker.apps,
        labels=worker.labels,
        capacity=worker.capacity,
        used=used,
        host=worker.host,
        joined_at_ms=worker.joined_at_ms,
        left_at_ms=worker.left_at_ms,
        seen_at_ms=None if pulse is None else pulse.seen_at_ms,
        load=0.0 if pulse is None else pulse.load,
        memory_free_bytes=0 if pulse is None else pulse.memory_free_bytes,
        disk_free_bytes=0 if pulse is None else pulse.disk_free_bytes,
    )
