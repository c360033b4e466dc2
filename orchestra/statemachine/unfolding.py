"""
Long work in slices: unfolding a fan-out into tasks, reviewing what waits, and cancelling what is left.

One step does at most ``limits.UNFOLD_SLICE`` tasks of it, so that others are answered in between; `pending` says that a tick should
follow at once. All of it can start over after a restart: doing it twice changes nothing, since a stop that starts over leaves alone what
was tried again by request after the last failure.
"""

from __future__ import annotations

from orchestra.statemachine import ids
from orchestra.statemachine.lifecycles import TASK_FINAL, TaskStatus, Verb
from orchestra.statemachine.records import Cause, Job, Stage, Task, evolve
from orchestra.statemachine.runs import created
from orchestra.statemachine.state import State
from orchestra.statemachine.stopping import cancel_task
from orchestra.statemachine.transaction import Transaction


def pending(state: State) -> bool:
    """Whether work is left for the next step."""
    return bool(state.index.unfolding or state.index.cancelling or state.index.reviews)


def advance(tx: Transaction, budget: int) -> int:
    """Do up to ``budget`` tasks of what is pending; what is left of the budget is returned."""
    index = tx.state.index
    while budget > 0 and index.unfolding:
        budget = _unfold(tx, next(iter(index.unfolding)), budget)
    while budget > 0 and index.cancelling:
        budget = _cancel(tx, next(iter(index.cancelling)), budget)
    while budget > 0 and index.reviews:
        budget = _review(tx, next(iter(index.reviews)), budget)
    return budget


def _unfold(tx: Transaction, job_id: str, budget: int) -> int:
    state = tx.state
    job = tx.get(Job, job_id)
    position = state.unfolded(job_id) + 1
    stages = state.stages(job_id)
    number = _stage_at(stages, position)
    while budget > 0 and position <= job.tasks:
        while position >= stages[number].first + stages[number].size:
            number += 1
        stage = stages[number]
        if stage.after or stage.pairwise or state.is_stopping(job):
            _create(tx, job, stage, position)
            made = 1
        else:
            made = min(budget, stage.first + stage.size - position)
            _create_queued(tx, job, stage, position, made)
        position += made
        budget -= made
    if position > job.tasks:
        del state.index.unfolding[job_id]
    return budget


def _stage_at(stages: list[Stage], position: int) -> int:
    low, high = 0, len(stages) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if stages[middle].first <= position:
            low = middle
        else:
            high = middle - 1
    return low


def _create_queued(tx: Transaction, job: Job, stage: Stage, position: int, count: int) -> None:
    """So many tasks of a stage, from a position on, that nothing holds back."""
    job_id, stage_id, now_ms = job.id, stage.id, tx.now_ms
    begun = tx.path("task", "", (Verb.CREATE,))
    tasks = [
        Task(ids.task_id(job_id, at), job_id, stage_id, at, TaskStatus.QUEUED, now_ms)
        for at in range(position, position + count)
    ]
    for task in tasks:
        tx.keep("task", None, task, begun)
    created(tx.state, stage, job, tasks)


def _create(tx: Transaction, job: Job, stage: Stage, position: int) -> None:
    task = Task(
        id=ids.task_id(job.id, position),
        job_id=job.id,
        stage_id=stage.id,
        position=position,
        status=TaskStatus.QUEUED,
        queued_at_ms=tx.now_ms,
    )
    if tx.state.is_stopping(job):
        tx.create(
            evolve(
                task,
                status=TaskStatus.CANCELLED,
                ended_at_ms=tx.now_ms,
                cause=Cause.CANCELLED,
                reason=job.reason or "the job stops at its first failure",
            ),
            Verb.BURY,
        )
        return
    verdict = verdict_of(tx.state, stage, position - stage.first)
    if verdict == "go":
        tx.create(task, Verb.CREATE)
        return
    held = tx.create(evolve(task, status=TaskStatus.WAITING), Verb.HOLD)
    if verdict == "never":
        skip(tx, held, stage)


def verdict_of(state: State, stage: Stage, offset: int) -> str:
    """
    Whether the task at ``offset`` of a stage may be queued: ``go``, ``wait``, or ``never``.

    Never, when something it comes after ended without completing.
    """
    verdict = "go"
    stages = state.stages(stage.job_id)
    for index in stage.after:
        upstream = stages[index]
        tally = state.index.stage_tallies[upstream.id]
        if tally.broken:
            return "never"
        if tally.completed < upstream.size:
            verdict = "wait"
    for index in stage.pairwise:
        position = stages[index].first + offset
        other = state.find(Task, ids.task_id(stage.job_id, position))
        if other is None and position <= state.unfolded(stage.job_id):
            return "never"  # its row could not be read
        if other is None or other.status not in TASK_FINAL:
            verdict = "wait"
        elif other.status is not TaskStatus.COMPLETED:
            return "never"
    return verdict


def skip(tx: Transaction, task: Task, stage: Stage) -> None:
    """The task can never run: say after what."""
    stages = tx.state.stages(task.job_id)
    names = [stages[index].name for index in (*stage.after, *stage.pairwise)]
    broken = [
        stages[index].name
        for index in (*stage.after, *stage.pairwise)
        if tx.state.index.stage_tallies[stages[index].id].broken
    ]
    tx.move(
        task,
        Verb.SKIP,
        reason=f"it comes after {', '.join(broken or names)}, which did not complete",
        cause=Cause.UPSTREAM,
        ended_at_ms=tx.now_ms,
    )


def _review(tx: Transaction, stage_id: str, budget: int) -> int:
    index = tx.state.index
    stage = tx.get(Stage, stage_id)
    offset = index.reviews[stage_id]
    unfolded = min(stage.size, tx.state.unfolded(stage.job_id) - stage.first + 1)
    while budget > 0 and offset < unfolded:
        review_one(tx, stage, offset)
        offset += 1
        budget -= 1
    if offset >= unfolded:
        index.reviews.pop(stage_id, None)
    else:
        index.reviews[stage_id] = offset
    return budget


def review_one(tx: Transaction, stage: Stage, offset: int) -> None:
    """Promote, skip or revive one task when what it comes after allows or demands it."""
    task = tx.find(Task, ids.task_id(stage.job_id, stage.first + offset))
    if task is None or task.status not in (TaskStatus.WAITING, TaskStatus.SKIPPED):
        return
    verdict = verdict_of(tx.state, stage, offset)
    if task.status is TaskStatus.SKIPPED:
        if verdict == "never":
            return
        task = tx.move(
            task,
            Verb.REVIVE,
            # By this a stop that starts over after a restart tells it from what was there at the failure.
            queued_at_ms=tx.now_ms,
            cause=Cause.NONE,
            reason="",
            ended_at_ms=None,
        )
    if verdict == "go":
        tx.move(task, Verb.PROMOTE, queued_at_ms=tx.now_ms)
    elif verdict == "never":
        skip(tx, task, stage)


def _cancel(tx: Transaction, job_id: str, budget: int) -> int:
    index = tx.state.index
    job = tx.find(Job, job_id)
    if job is None or not tx.state.is_stopping(job):
        _stopped(tx, job_id)
        return budget
    reason = job.reason or "the job stops at its first failure"
    spared_ms = index.spared.get(job_id, tx.now_ms)
    position = index.cancelling[job_id]
    unfolded = tx.state.unfolded(job_id)
    while budget > 0 and position <= unfolded:
        task = tx.find(Task, ids.task_id(job_id, position))
        if task is not None and task.status not in TASK_FINAL and task.queued_at_ms <= spared_ms:
            cancel_task(tx, task, reason, job.grace_ms)
        position += 1
        budget -= 1
    if position > unfolded:
        _stopped(tx, job_id)
    else:
        index.cancelling[job_id] = position
    return budget


def _stopped(tx: Transaction, job_id: str) -> None:
    """All that was to be cancelled is. What was retried by hand while the job stopped may run."""
    index = tx.state.index
    index.cancelling.pop(job_id, None)
    index.spared.pop(job_id, None)
    for stage in tx.state.stages(job_id):
        index.offer(stage, tx.get(Job, job_id))
