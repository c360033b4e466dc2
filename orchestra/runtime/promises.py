"""
What every batch is checked for before it is stored, in production too: what breaks a promise is not stored, and the server stops.

The numbers are those of the project's list of invariants. Moves along edges that are not in the tables are refused by the core itself;
what is looked at here are rows that belong together. It looks at the rows of the batch and at those which they name, so that its cost
does not grow with what is stored. A row whose fellow is missing (a damaged one was set aside at the start) is not judged.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestra.errors import Defect
from orchestra.statemachine import State, ids
from orchestra.statemachine.lifecycles import (
    ATTEMPT_FINAL,
    JOB_FINAL,
    TASK_FINAL,
    TASK_HELD,
    AttemptStatus,
    TaskStatus,
)
from orchestra.statemachine.records import Attempt, Job, Record, Task
from orchestra.statemachine.story import Moved


def keep_promises(rows: Iterable[Record], state: State, story: Iterable[Moved] = ()) -> None:
    """
    Look at rows that are about to be stored, which ``state`` has already.

    Raises:
        Defect: One of them breaks a promise; it carries the story of the batch.
    """
    for row in rows:
        if isinstance(row, Task):
            broken = _of_task(row, state)
        elif isinstance(row, Attempt):
            broken = _of_attempt(row, state)
        elif isinstance(row, Job):
            broken = _of_job(row, state)
        else:
            continue
        if broken:
            raise Defect(broken, story=tuple(story))


def _of_task(task: Task, state: State) -> str:
    newest = state.rows["attempt"].get(ids.attempt_id(task.id, task.attempts))
    if not isinstance(newest, Attempt):
        return ""
    is_live = newest.status not in ATTEMPT_FINAL
    if is_live != (task.status in TASK_HELD):
        return f"I11: task {task.id} is {task.status}, and its attempt {newest.number} is {newest.status}"
    if task.status is TaskStatus.COMPLETED and newest.status is not AttemptStatus.COMPLETED:
        return (
            f"I8: task {task.id} is completed, and its attempt {newest.number} is {newest.status}"
        )
    return ""


def _of_attempt(attempt: Attempt, state: State) -> str:
    if attempt.status in ATTEMPT_FINAL:
        return ""
    task = state.rows["task"].get(attempt.task_id)
    if isinstance(task, Task) and task.attempts != attempt.number:
        return f"I5: attempt {attempt.id} is live, and its task is at attempt {task.attempts}"
    earlier = state.rows["attempt"].get(ids.attempt_id(attempt.task_id, attempt.number - 1))
    if isinstance(earlier, Attempt) and earlier.status not in ATTEMPT_FINAL:
        return (
            f"I3: attempts {earlier.number} and {attempt.number} of task {attempt.task_id} are live"
        )
    return ""


def _of_job(job: Job, state: State) -> str:
    if job.status not in JOB_FINAL or job.id not in state.rows["job"]:
        return ""
    tally = state.index.tallies.get(job.id, {})
    to_go = job.tasks - sum(tally.get(status, 0) for status in TASK_FINAL)
    if to_go:
        return f"I6: job {job.number} is {job.status} with {to_go} of {job.tasks} tasks to go"
    return ""
