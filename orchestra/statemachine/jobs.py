"""Jobs: submitted, paused, resumed, cancelled."""

from __future__ import annotations

from operator import attrgetter

from orchestra.errors import Conflict, Malformed
from orchestra.statemachine import ids, limits
from orchestra.statemachine.bounds import (
    check_amounts,
    check_labels,
    check_name,
    check_range,
    check_text,
)
from orchestra.statemachine.commands import CancelJob, PauseJob, ResumeJob, StageDraft, SubmitJob
from orchestra.statemachine.dag import resolve
from orchestra.statemachine.index import shape_of
from orchestra.statemachine.lifecycles import JOB_FINAL, JobStatus, Verb
from orchestra.statemachine.opening import open_for_jobs
from orchestra.statemachine.records import Job, Span, Stage, Worker, evolve
from orchestra.statemachine.replies import JobAccepted, JobChanged
from orchestra.statemachine.scheduling import unable
from orchestra.statemachine.transaction import Transaction


def submit(tx: Transaction, command: SubmitJob) -> JobAccepted:
    """
    Accept a job: its row, its stages, and as many of its tasks as one step unfolds.

    Raises:
        Malformed: A field is out of bounds, a stage's name is unknown or twice there, or the graph has a circle.
        Conflict: The project is archived.
    """
    check_name(command.name, "name")
    check_range(command.priority, -limits.PRIORITY_MAX, limits.PRIORITY_MAX, "priority")
    check_range(len(command.stages), 1, limits.STAGES_PER_JOB_MAX, "stages")
    for number, draft in enumerate(command.stages):
        _check_draft(draft, f"stages[{number}]")
    edges = resolve(command.stages)
    sizes = [size_of(draft) for draft in command.stages]
    check_range(sum(sizes), 0, limits.TASKS_PER_JOB_MAX, "stages")
    _check_pairs(command.stages, sizes, edges)
    project = open_for_jobs(tx, command.project)
    counters = tx.put(evolve(tx.state.counters, jobs=tx.state.counters.jobs + 1))
    job = Job(
        id=tx.new_id(counters.jobs),
        number=counters.jobs,
        project_id=project.id,
        name=command.name,
        owner=tx.principal,
        status=JobStatus.QUEUED,
        priority=command.priority,
        stages=len(command.stages),
        tasks=sum(sizes),
        on_failure=command.on_failure,
        submitted_at_ms=tx.now_ms,
    )
    tx.create(job, Verb.CREATE, reason=command.name)
    stages: list[Stage] = []
    first = 1
    for index, (draft, size, edge) in enumerate(zip(command.stages, sizes, edges, strict=True)):
        stages.append(tx.put(_stage(job, index, draft, first=first, size=size, edge=edge)))
        first += size
    if job.tasks:
        tx.state.index.unfolding[job.id] = None
    return JobAccepted(job.id, job.number, job.tasks, warnings=_warnings(tx, stages))


def _stage(
    job: Job,
    index: int,
    draft: StageDraft,
    *,
    first: int,
    size: int,
    edge: tuple[tuple[int, ...], tuple[int, ...]],
) -> Stage:
    return Stage(
        id=ids.stage_id(job.id, index),
        job_id=job.id,
        index=index,
        name=draft.name,
        app=draft.app,
        template=draft.template,
        over=draft.over,
        first=first,
        size=size,
        after=edge[0],
        pairwise=edge[1],
        needs=draft.needs,
        labels=draft.labels,
        priority=draft.priority,
        retries=draft.retries,
        backoff_ms=draft.backoff_ms,
        backoff_ms_max=draft.backoff_ms_max,
        queue_ms_max=draft.queue_ms_max,
        run_ms_max=draft.run_ms_max,
        grace_ms=draft.grace_ms,
    )


_numbers = attrgetter(
    "over",
    "after",
    "pairwise",
    "needs",
    "labels",
    "priority",
    "retries",
    "backoff_ms",
    "backoff_ms_max",
    "queue_ms_max",
    "run_ms_max",
    "grace_ms",
)
_DEFAULTS = _numbers(StageDraft("default", "default"))


def size_of(draft: StageDraft) -> int:
    """How many tasks a stage has."""
    return 1 if draft.over is None else len(draft.over)


def _check_draft(draft: StageDraft, where: str) -> None:
    check_name(draft.name, f"{where}.name")
    check_name(draft.app, f"{where}.app")
    check_range(len(draft.template), 0, limits.TEMPLATE_BYTES_MAX, f"{where}.template")
    if _numbers(draft) == _DEFAULTS:
        return  # what most stages leave alone was checked when this was written
    check_range(len(draft.after), 0, limits.EDGES_PER_STAGE_MAX, f"{where}.after")
    check_range(len(draft.pairwise), 0, limits.EDGES_PER_STAGE_MAX, f"{where}.pairwise")
    check_amounts(draft.needs, f"{where}.needs")
    check_labels(draft.labels, f"{where}.labels")
    check_range(draft.priority, -limits.PRIORITY_MAX, limits.PRIORITY_MAX, f"{where}.priority")
    check_range(draft.retries, 0, limits.RETRIES_MAX, f"{where}.retries")
    check_range(draft.backoff_ms, 0, limits.TIME_MS_MAX, f"{where}.backoff_ms")
    check_range(draft.backoff_ms_max, 0, limits.TIME_MS_MAX, f"{where}.backoff_ms_max")
    check_range(draft.grace_ms, 0, limits.GRACE_MS_MAX, f"{where}.grace_ms")
    if draft.queue_ms_max is not None:
        check_range(draft.queue_ms_max, 1, limits.TIME_MS_MAX, f"{where}.queue_ms_max")
    if draft.run_ms_max is not None:
        check_range(draft.run_ms_max, 1, limits.TIME_MS_MAX, f"{where}.run_ms_max")
    if isinstance(draft.over, Span):
        if draft.over.step == 0:
            raise Malformed("a step of 0 never ends", where=f"{where}.over.step", remedy="use 1")
        for value in (draft.over.start, draft.over.stop, draft.over.step):
            check_range(value, -(2**62), 2**62, f"{where}.over")
        span = range(draft.over.start, draft.over.stop, draft.over.step)
        # len(range) fails beyond 2**63, so the bound is asked first by indexing
        if span[limits.TASKS_PER_JOB_MAX :]:
            raise Malformed(
                "it has too many items",
                where=f"{where}.over",
                remedy=f"use at most {limits.TASKS_PER_JOB_MAX} tasks a job",
            )
    elif draft.over is not None:
        check_range(len(draft.over), 0, limits.TASKS_PER_JOB_MAX, f"{where}.over")


def _check_pairs(
    drafts: tuple[StageDraft, ...],
    sizes: list[int],
    edges: list[tuple[tuple[int, ...], tuple[int, ...]]],
) -> None:
    for number, (_, pairwise) in enumerate(edges):
        for upstream in pairwise:
            if sizes[upstream] != sizes[number]:
                raise Malformed(
                    f"{drafts[upstream].name!r} has {sizes[upstream]} items, this stage {sizes[number]}",
                    where=f"stages[{number}].pairwise",
                    remedy="pair stages of the same size, or use after",
                )


def _warnings(tx: Transaction, stages: list[Stage]) -> tuple[str, ...]:
    """Stages that no worker known now could ever run: not an error, one may still join."""
    warnings: list[str] = []
    checked: set[object] = set()
    for stage in stages:
        shape = shape_of(stage)
        if shape in checked:
            continue
        checked.add(shape)
        workers = tx.state.each(Worker)
        if tx.state.rows["worker"] and all(unable(worker, shape) for worker in workers):
            warnings.append(f"stage {stage.name!r}: no worker can run it now (ask why)")
    return tuple(warnings[:10])


def cancel(tx: Transaction, command: CancelJob) -> JobChanged:
    """Ask a job to end. Asking again changes nothing; a job that ended refuses."""
    check_text(command.reason, "reason")
    if command.grace_ms is not None:
        check_range(command.grace_ms, 0, limits.GRACE_MS_MAX, "grace_ms")
    job = tx.get(Job, command.job_id)
    if job.status is not JobStatus.CANCELLING and job.status is not JobStatus.CANCELLED:
        reason = command.reason or f"asked by {tx.principal or 'the operator'}"
        job = tx.move(job, Verb.CANCEL, reason=reason, grace_ms=command.grace_ms)
    return JobChanged(job.id, tx.get(Job, job.id).status)


def pause(tx: Transaction, command: PauseJob) -> JobChanged:
    """Start no further task of a job. Asking again changes nothing."""
    check_text(command.reason, "reason")
    job = tx.get(Job, command.job_id)
    if job.status is not JobStatus.PAUSED:
        reason = command.reason or f"paused by {tx.principal or 'the operator'}"
        job = tx.move(job, Verb.PAUSE, reason=reason)
    return JobChanged(job.id, job.status)


def resume(tx: Transaction, command: ResumeJob) -> JobChanged:
    """Go on with a paused job. A job that is not paused and has not ended is the answer as it is."""
    job = tx.get(Job, command.job_id)
    if job.status is JobStatus.PAUSED:
        job = tx.move(job, Verb.RESUME if job.started_at_ms is None else Verb.CONTINUE)
    elif job.status in JOB_FINAL or job.status is JobStatus.CANCELLING:
        raise Conflict(f"the job is {job.status}", where="job_id", remedy="submit it again")
    return JobChanged(job.id, job.status)
