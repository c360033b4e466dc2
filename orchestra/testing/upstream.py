"""
What comes after what: the rules of dependencies written down a second time, to hold what a step did against them.

Nothing here uses what the core decides by: only rows are asked, and none of what it derives from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestra.statemachine import State, ids
from orchestra.statemachine.lifecycles import TaskStatus
from orchestra.statemachine.records import Job, OnFailure, Record, Stage, Task
from orchestra.testing.order import given_out

Rows = Mapping[str, Mapping[str, Record]]

_MISSING = "missing"

_BROKEN = {TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.SKIPPED, _MISSING}

_STARTABLE = (TaskStatus.WAITING, TaskStatus.QUEUED, TaskStatus.BACKOFF)


def too_early(before: Rows, state: State) -> Iterator[str]:
    """I10: what a step gave out though something that it comes after has not completed. ``before``: the rows before the step."""
    for attempt in given_out(before, state):
        task = state.find(Task, attempt.task_id)
        for position in () if task is None else _awaited(state, task):
            status = _status(state, attempt.job_id, position)
            if status != TaskStatus.COMPLETED:
                yield f"I10: task {attempt.task_id} was given out, and number {position}, which it comes after, is {status}"


def skipped_in_haste(before: Rows, state: State) -> Iterator[str]:
    """I6: what a step skipped though all that it comes after may still complete."""
    for task in state.each(Task):
        if task.status is TaskStatus.SKIPPED and _newly(before, task):
            statuses = {_status(state, task.job_id, each) for each in _awaited(state, task)}
            if not statuses & _BROKEN:
                told = ", ".join(sorted(statuses)) or "nothing"
                yield f"I6: task {task.id} was skipped, and what it comes after is {told}"


def _awaited(state: State, task: Task) -> list[int]:
    """The positions of all that a task comes after."""
    stage = state.find(Stage, task.stage_id)
    if stage is None or not (stage.after or stage.pairwise):
        return []
    stages = {each.index: each for each in state.each(Stage) if each.job_id == task.job_id}
    awaited = [
        position
        for index in stage.after
        for position in range(stages[index].first, stages[index].first + stages[index].size)
    ]
    return awaited + [stages[each].first + task.position - stage.first for each in stage.pairwise]


def _status(state: State, job_id: str, position: int) -> str:
    task = state.find(Task, ids.task_id(job_id, position))
    return _MISSING if task is None else task.status


def goes_on(before: Rows, state: State) -> Iterator[str]:
    """I11: what may still start in a job that stops at its first failure, after the step in which a task of it failed."""
    jobs = {
        task.job_id
        for task in state.each(Task)
        if task.status is TaskStatus.FAILED and _newly(before, task)
    }
    for id in sorted(jobs):
        job = state.find(Job, id)
        if job is None or job.on_failure is not OnFailure.STOP or id in state.index.cancelling:
            continue  # or its stop goes on in slices
        for task in state.each(Task):
            if task.job_id == id and task.status in _STARTABLE:
                yield f"I11: job {job.number} stops at its first failure, and task {task.id} is {task.status}"


def _newly(before: Rows, task: Task) -> bool:
    """Whether the step brought the task to where it is."""
    old = before["task"].get(task.id)
    return not isinstance(old, Task) or old.status is not task.status
