"""Tasks: cancelled or tried again by request."""

from __future__ import annotations

from orchestra.errors import Conflict
from orchestra.statemachine import limits
from orchestra.statemachine.bounds import check_range, check_text
from orchestra.statemachine.commands import CancelTask, RetryTask
from orchestra.statemachine.lifecycles import JOB_FINAL, JobStatus, TaskStatus, Verb
from orchestra.statemachine.records import Cause, Job, Stage, Task
from orchestra.statemachine.replies import TaskChanged
from orchestra.statemachine.stopping import cancel_task
from orchestra.statemachine.transaction import Transaction
from orchestra.statemachine.unfolding import verdict_of

_REVIVABLE = (TaskStatus.FAILED, TaskStatus.CANCELLED)


def cancel(tx: Transaction, command: CancelTask) -> TaskChanged:
    """Ask one task to end. Asking again changes nothing; one that ended otherwise refuses."""
    check_text(command.reason, "reason")
    if command.grace_ms is not None:
        check_range(command.grace_ms, 0, limits.GRACE_MS_MAX, "grace_ms")
    task = tx.get(Task, command.task_id)
    if task.status in (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.SKIPPED):
        raise Conflict(f"the task is {task.status}", where="task_id", remedy="it has ended")
    reason = command.reason or f"asked by {tx.principal or 'the operator'}"
    task = cancel_task(tx, task, reason, command.grace_ms)
    return TaskChanged(task.id, task.status)


def retry(tx: Transaction, command: RetryTask) -> TaskChanged:
    """
    Try a task again that failed or was cancelled, with fresh counts; its job runs again if it had ended.

    One that was cancelled before its turn waits for what it comes after, as it did.

    Raises:
        Conflict: The job is being cancelled, the task has not ended so, or what it comes after did not complete.
    """
    task = tx.get(Task, command.task_id)
    job = tx.get(Job, task.job_id)
    if job.status is JobStatus.CANCELLING:
        raise Conflict("its job is being cancelled", where="task_id", remedy="wait for its end")
    if task.status is TaskStatus.SKIPPED:
        raise Conflict(
            "the task was skipped", where="task_id", remedy="retry the tasks that it comes after"
        )
    waits = _waits(tx, task)
    if job.status in JOB_FINAL and task.status in _REVIVABLE:
        tx.move(job, Verb.REVIVE, ended_at_ms=None, counts=(), grace_ms=None)
    task = tx.move(
        task,
        Verb.HOLD if waits else Verb.REVIVE,
        queued_at_ms=tx.now_ms,
        ended_at_ms=None,
        failures=0,
        losses=0,
        cause=Cause.NONE,
    )
    return TaskChanged(task.id, task.status)


def _waits(tx: Transaction, task: Task) -> bool:
    """
    Whether a task that is tried again has to wait for what it comes after. One whose stage could not be read does not.

    Raises:
        Conflict: It comes after something that did not complete.
    """
    stage = tx.find(Stage, task.stage_id)
    if stage is None or task.status not in _REVIVABLE:
        return False
    verdict = verdict_of(tx.state, stage, task.position - stage.first)
    if verdict == "never":
        raise Conflict(
            "what the task comes after did not complete",
            where="task_id",
            remedy="retry the tasks that it comes after, and then this one",
        )
    return verdict == "wait"
