"""What follows for a task when an attempt at it ends: completed, tried again after a pause, run elsewhere, or over."""

from __future__ import annotations

from random import Random

from orchestra.statemachine.counting import counted
from orchestra.statemachine.lifecycles import AttemptStatus, TaskStatus, Verb
from orchestra.statemachine.moved_rows import attempt_completed, task_completed
from orchestra.statemachine.records import Attempt, Cause, Stage, Task
from orchestra.statemachine.runs import completed
from orchestra.statemachine.transaction import Transaction

_SEEN = (Verb.COMPLETE,)
_SEEN_LATE = (Verb.RUN, Verb.COMPLETE)
"""Work that ended before it was told that it runs: both moves are told, and the row is stored once."""

REASON_CHARS = 200
"""Of what an attempt says of its failure its task repeats a line that fits on a screen."""


def backoff_ms(stage: Stage, failures: int, rng: Random) -> int:
    """
    How long to wait before the next try, in ms: doubling from ``stage.backoff_ms`` up to ``stage.backoff_ms_max``, with jitter.

    The jitter takes away up to half, so that tasks that failed together do not come back together.
    """
    doublings = min(max(failures - 1, 0), 40)  # beyond 2**40 ms every limit is passed
    full = min(stage.backoff_ms << doublings, stage.backoff_ms_max)
    return full - rng.randrange(full // 2 + 1)


def complete(
    tx: Transaction,
    attempt: Attempt,
    result: bytes | None,
    *,
    exit_code: int | None = None,
    signal: str = "",
) -> None:
    """The worker says that the work is done. A task that is being cancelled stays cancelled; the result is kept."""
    task = tx.get(Task, attempt.task_id)
    seen = _SEEN_LATE if attempt.status is AttemptStatus.STARTED else _SEEN
    path = tx.path("attempt", attempt.status, seen)
    ended = attempt_completed(attempt, tx.now_ms, result, exit_code, signal)
    if task.status is TaskStatus.CANCELLING:
        tx.keep("attempt", [(attempt, ended)], path)
        tx.state.index.replace(attempt, ended)
        close(tx, task, "it completed before the stop reached it")
        return
    seen = _SEEN_LATE if task.status is TaskStatus.LEASED else _SEEN
    task_path = tx.path("task", task.status, seen)
    tx.keep("attempt", [(attempt, ended)], path)
    tx.keep("task", [(task, task_completed(task, tx.now_ms))], task_path)
    completed(tx.state, task, attempt)


def fail(tx: Transaction, attempt: Attempt, cause: Cause, message: str, **end: object) -> None:
    """The work failed: the task waits and is tried again while it has retries, else it failed."""
    tx.move(
        attempt,
        Verb.FAIL,
        reason=str(cause),
        ended_at_ms=tx.now_ms,
        cause=cause,
        message=message,
        rung_until_ms=None,
        **end,
    )
    task = tx.get(Task, attempt.task_id)
    if task.status is TaskStatus.CANCELLING:
        close(tx, task, "it failed while it was being stopped")
        return
    stage = tx.find(Stage, task.stage_id)
    failures = task.failures + 1
    first_line = (message.strip() or str(cause)).splitlines()[0][:REASON_CHARS]
    if stage is not None and failures <= stage.retries:  # else its row could not be read
        tx.move(
            task,
            Verb.BACK_OFF,
            reason=first_line,
            failures=failures,
            worker_id=None,
            cause=cause,
            retry_at_ms=tx.now_ms + backoff_ms(stage, failures, tx.rng),
        )
    else:
        tx.move(
            task,
            Verb.FAIL,
            reason=first_line,
            failures=failures,
            worker_id=None,
            cause=cause,
            ended_at_ms=tx.now_ms,
        )


def stopped(tx: Transaction, attempt: Attempt, cause: Cause, message: str, **end: object) -> None:
    """
    A stop is confirmed: nothing of the attempt is alive.

    A stop that nobody asked for is a hand-back (the worker drains, or ended it before its lease did): the task runs elsewhere.
    """
    if attempt.stop_cause is Cause.TIMEOUT:
        fail(tx, attempt, Cause.TIMEOUT, attempt.stop_reason or message, **end)
        return
    task = tx.get(Task, attempt.task_id)
    tx.move(
        attempt,
        Verb.STOP,
        reason=attempt.stop_reason or message,
        ended_at_ms=tx.now_ms,
        cause=attempt.stop_cause or cause,
        message=message,
        rung_until_ms=None,
        **end,
    )
    if task.status is TaskStatus.CANCELLING:
        close(tx, task, task.reason)
    else:
        elsewhere(tx, task, message or "handed back by its worker", lost=cause is Cause.LOST)


def lose(tx: Transaction, attempt: Attempt, cause: Cause, message: str) -> None:
    """The worker is silent, gone or replaced and its lease is over: the task runs elsewhere."""
    tx.move(
        attempt,
        Verb.FAIL,
        reason=message,
        ended_at_ms=tx.now_ms,
        cause=cause,
        message=message,
        rung_until_ms=None,
    )
    task = tx.get(Task, attempt.task_id)
    if task.status is TaskStatus.CANCELLING:
        close(tx, task, f"{message}; its lease is over, so it ended what it ran")
    else:
        elsewhere(tx, task, message, lost=True)


def elsewhere(tx: Transaction, task: Task, reason: str, *, lost: bool) -> None:
    """Queue a task again, unless it was lost so often that it must be what ends its workers."""
    losses = task.losses + (1 if lost else 0)
    if losses >= tx.settings.losses_max:
        tx.move(
            task,
            Verb.FAIL,
            reason=f"lost with its worker {counted(losses, 'time')}: {reason}",
            losses=losses,
            worker_id=None,
            cause=Cause.POISON,
            ended_at_ms=tx.now_ms,
        )
    else:
        # It waits from now on: what it ran is no part of the time that it may wait to be started.
        tx.move(
            task,
            Verb.RETRY,
            reason=reason,
            losses=losses,
            worker_id=None,
            queued_at_ms=tx.now_ms,
        )


def close(tx: Transaction, task: Task, reason: str) -> None:
    """Nothing of a task that is being cancelled is alive any more."""
    tx.move(task, Verb.CLOSE, reason=reason, worker_id=None, ended_at_ms=tx.now_ms)
