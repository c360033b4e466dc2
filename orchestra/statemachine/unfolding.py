"""
Long work in slices: unfolding a fan-out into tasks, reviewing what waits, and cancelling what is left.

One step does at most ``limits.UNFOLD_SLICE`` tasks of it, so that others are answered in between; `pending` says that a tick should
follow at once. All of it can start over after a restart: doing it twice changes nothing, since a stop that starts over leaves alone what
was tried again by request after the last failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from orchestra.statemachine import ids
from orchestra.statemachine.lifecycles import TASK_FINAL, TaskStatus, Verb
from orchestra.statemachine.moved_rows import task_promoted
from orchestra.statemachine.records import Cause, Job, Stage, Task
from orchestra.statemachine.runs import created, promoted
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
        made = min(budget, stage.first + stage.size - position)
        _create(tx, job, stage, range(position, position + made))
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


def _create(tx: Transaction, job: Job, stage: Stage, positions: range) -> None:
    """The next tasks of a job, all of one stage."""
    if tx.state.is_stopping(job):
        for position in positions:
            _bury(tx, job, stage, position)
        return
    start = positions.start
    offsets = range(start - stage.first, positions.stop - stage.first)
    for verdict, count in _verdicts(tx.state, stage, offsets):
        tasks = _begin(tx, job, stage, range(start, start + count), held=verdict != "go")
        start += count
        if verdict == "never":
            for task in tasks:
                skip(tx, task, stage)


def _begin(tx: Transaction, job: Job, stage: Stage, positions: range, *, held: bool) -> list[Task]:
    """Tasks that begin alike: queued, or held back by what they come after."""
    job_id, stage_id, now_ms = job.id, stage.id, tx.now_ms
    status, verb = (TaskStatus.WAITING, Verb.HOLD) if held else (TaskStatus.QUEUED, Verb.CREATE)
    tasks = [
        Task(ids.task_id(job_id, at), job_id, stage_id, at, status, now_ms) for at in positions
    ]
    tx.keep("task", [(None, task) for task in tasks], tx.path("task", "", (verb,)))
    created(tx.state, stage, job, tasks)
    return tasks


def _bury(tx: Transaction, job: Job, stage: Stage, position: int) -> None:
    """A task of a job that is being stopped is there, and over."""
    tx.create(
        Task(
            id=ids.task_id(job.id, position),
            job_id=job.id,
            stage_id=stage.id,
            position=position,
            status=TaskStatus.CANCELLED,
            queued_at_ms=tx.now_ms,
            ended_at_ms=tx.now_ms,
            cause=Cause.CANCELLED,
            reason=job.reason or "the job stops at its first failure",
        ),
        Verb.BURY,
    )


def verdict_of(state: State, stage: Stage, offset: int) -> str:
    """
    Whether the task at ``offset`` of a stage may be queued: ``go``, ``wait``, or ``never``.

    Never, when something it comes after ended without completing.
    """
    return _by_pairs(state, stage, offset, _by_stages(state, stage))


def _verdicts(state: State, stage: Stage, offsets: range) -> Iterator[tuple[str, int]]:
    """`verdict_of` for tasks of a stage in a row: each verdict with how many have it, one after the other."""
    whole = _by_stages(state, stage)
    if stage.pairwise:
        for verdict, same in groupby(_by_pairs(state, stage, at, whole) for at in offsets):
            yield verdict, len(list(same))
    else:
        yield whole, len(offsets)


def _by_stages(state: State, stage: Stage) -> str:
    """The verdict as far as it is the same for all tasks of a stage: by the stages that it comes after as a whole."""
    verdict = "go"
    stages = state.stages(stage.job_id)
    for index in stage.after:
        upstream = stages[index]
        tally = state.index.stage_tallies[upstream.id]
        if tally.broken:
            return "never"
        if tally.completed < upstream.size:
            verdict = "wait"
    return verdict


def _by_pairs(state: State, stage: Stage, offset: int, verdict: str) -> str:
    """The verdict of all, and of the tasks with the same item that one comes after."""
    if verdict == "never":
        return verdict
    stages = state.stages(stage.job_id)
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
    offsets = range(offset, min(offset + budget, unfolded))
    review(tx, stage, offsets)
    if offsets.stop >= unfolded:
        index.reviews.pop(stage_id, None)
    else:
        index.reviews[stage_id] = offsets.stop
    return budget - len(offsets)


def review(tx: Transaction, stage: Stage, offsets: Iterable[int]) -> None:
    """Promote, skip or revive tasks of a stage, in order, when what they come after allows or demands it."""
    whole = _by_stages(tx.state, stage)
    free: list[Task] = []
    for offset in offsets:
        task = tx.find(Task, ids.task_id(stage.job_id, stage.first + offset))
        if task is None or task.status not in (TaskStatus.WAITING, TaskStatus.SKIPPED):
            continue
        verdict = _by_pairs(tx.state, stage, offset, whole)
        if task.status is TaskStatus.SKIPPED:
            if verdict == "never":
                continue
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
            free.append(task)
        elif verdict == "never":
            skip(tx, task, stage)
    if free:
        _promote(tx, stage, free)


def _promote(tx: Transaction, stage: Stage, tasks: list[Task]) -> None:
    rows = [(task, task_promoted(task, tx.now_ms)) for task in tasks]
    tx.keep("task", rows, tx.path("task", TaskStatus.WAITING, (Verb.PROMOTE,)))
    promoted(tx.state, stage, tx.get(Job, stage.job_id), [queued for _, queued in rows])


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
