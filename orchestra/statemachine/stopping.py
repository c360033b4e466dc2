"""
The ladder of a stop: asked, TERM, KILL, each rung with a deadline and a reason.

A task shows ``cancelled`` only when its worker confirmed that nothing of it is alive, or when the worker's lease ran out, by which time
it has ended its attempts itself. Above the last rung the stop is ``unconfirmed`` and says so.
"""

from __future__ import annotations

from orchestra.statemachine.effects import StopAttempt
from orchestra.statemachine.lifecycles import TASK_HELD, TaskStatus, Verb
from orchestra.statemachine.orders import order_for
from orchestra.statemachine.records import Attempt, Cause, Rung, Task
from orchestra.statemachine.transaction import Transaction

NEXT_RUNG = {
    Rung.NONE: Rung.ASKED,
    Rung.ASKED: Rung.TERM,
    Rung.TERM: Rung.KILL,
    Rung.KILL: Rung.UNCONFIRMED,
    Rung.UNCONFIRMED: Rung.UNCONFIRMED,
}


def ask_stop(
    tx: Transaction, attempt: Attempt, cause: Cause, reason: str, grace_ms: int | None = None
) -> Attempt:
    """Put a live attempt on the first rung. One that is on the ladder already stays where it is."""
    if attempt.rung is not Rung.NONE:
        return attempt
    grace_ms = attempt.grace_ms if grace_ms is None else grace_ms
    return climb(tx, tx.change(attempt, stop_cause=cause, stop_reason=reason, grace_ms=grace_ms))


def climb(tx: Transaction, attempt: Attempt) -> Attempt:
    """One rung up; the worker is told. From the top rung there is only waiting, and the lease."""
    rung = NEXT_RUNG[attempt.rung]
    last = rung is Rung.UNCONFIRMED
    attempt = tx.change(
        attempt, rung=rung, rung_until_ms=None if last else tx.now_ms + attempt.grace_ms
    )
    order = order_for(tx.state, attempt)
    if order is not None:
        tx.emit(StopAttempt(attempt.worker_id, attempt.incarnation, order))
    return attempt


def cancel_task(tx: Transaction, task: Task, reason: str, grace_ms: int | None = None) -> Task:
    """Cancel at once what no worker holds; ask a worker to stop what it holds. Ended tasks stay as they are."""
    if task.status in (TaskStatus.WAITING, TaskStatus.QUEUED, TaskStatus.BACKOFF):
        return tx.move(
            task,
            Verb.CANCEL,
            reason=reason,
            ended_at_ms=tx.now_ms,
            retry_at_ms=None,
            cause=Cause.CANCELLED,
        )
    if task.status in TASK_HELD and task.status is not TaskStatus.CANCELLING:
        task = tx.move(task, Verb.CANCEL, reason=reason, cause=Cause.CANCELLED)
    if task.status is TaskStatus.CANCELLING:
        attempt = live_attempt(tx, task)
        if attempt is not None:
            ask_stop(tx, attempt, Cause.CANCELLED, reason, grace_ms)
    return task


def live_attempt(tx: Transaction, task: Task) -> Attempt | None:
    """The attempt that a worker holds of this task."""
    held = tx.state.index.held.get(task.worker_id or "", {})
    attempt_id = held.get(task.id)
    return tx.find(Attempt, attempt_id) if attempt_id is not None else None
