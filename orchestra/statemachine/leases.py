"""Leases and every other deadline: when a row has to be looked at, and what is done then."""

from __future__ import annotations

import heapq

from orchestra.errors import Defect
from orchestra.statemachine import ids, limits
from orchestra.statemachine.ending import lose
from orchestra.statemachine.index import DEADLINES_MIN
from orchestra.statemachine.lifecycles import (
    ATTEMPT_FINAL,
    JOB_FINAL,
    TaskStatus,
    Verb,
    WorkerStatus,
)
from orchestra.statemachine.records import Attempt, Cause, Job, Receipt, Rung, Stage, Task, Worker
from orchestra.statemachine.state import State
from orchestra.statemachine.stopping import ask_stop, climb
from orchestra.statemachine.transaction import Transaction
from orchestra.statemachine.unfolding import pending


def due_at(state: State, kind: str, id: str) -> int | None:
    """When the row must be looked at, in ms since the epoch; None when nothing of it waits for time."""
    if kind == "worker":
        return _worker_due(state, state.find(Worker, id))
    if kind == "attempt":
        return _attempt_due(state, state.find(Attempt, id))
    if kind == "task":
        return _task_due(state, state.find(Task, id))
    if kind == "job":
        job = state.find(Job, id)
        if job is None or job.status not in JOB_FINAL or job.ended_at_ms is None:
            return None
        return job.ended_at_ms + state.settings.retention_ms
    receipt = state.find(Receipt, id)
    return None if receipt is None else receipt.until_ms


def _worker_due(state: State, worker: Worker | None) -> int | None:
    if worker is None or worker.status is WorkerStatus.LOST:
        return None
    if worker.status is WorkerStatus.LEFT:
        return (worker.left_at_ms or 0) + state.settings.retention_ms
    pulse = state.pulses.get(worker.id)
    ends_ms = (pulse.seen_at_ms if pulse is not None else 0) + state.settings.lease_ms
    return max(ends_ms, state.settings.promised_until_ms)


def _attempt_due(state: State, attempt: Attempt | None) -> int | None:
    if attempt is None or attempt.status in ATTEMPT_FINAL:
        return None
    if attempt.rung is not Rung.NONE:
        return attempt.rung_until_ms
    limit = state.index.run_ms_max(attempt)
    if limit is None or attempt.started_at_ms is None:
        return None
    # The worker enforces the limit; this is the second opinion, a lease later.
    return attempt.started_at_ms + limit + state.settings.lease_ms


def _task_due(state: State, task: Task | None) -> int | None:
    if task is None:
        return None
    if task.status is TaskStatus.BACKOFF:
        return task.retry_at_ms
    if task.status is TaskStatus.QUEUED:
        stage = state.find(Stage, task.stage_id)
        if stage is not None and stage.queue_ms_max is not None:
            return task.queued_at_ms + stage.queue_ms_max
    return None


def next_deadline(state: State) -> int | None:
    """
    When the next `Tick` is wanted, in ms since the epoch: 0 means at once, None that nothing waits for time.

    A deadline that turns out to be nothing when it comes is harmless.
    """
    if pending(state) or state.index.finished_tasks > limits.FINISHED_TASKS_MAX:
        return 0
    if len(state.index.deadlines) > state.index.deadlines_max:
        _let_go(state)
    heap = state.index.deadlines
    # A slice at most: every worker that beats puts its own off, and a farm of them is due for another look at the same time.
    for _ in range(limits.UNFOLD_SLICE):
        if not heap:
            return None
        at_ms, kind, id = heap[0]
        due = due_at(state, kind, id)
        if due is not None and due <= at_ms:
            return at_ms
        heapq.heappop(heap)
        if due is not None:
            heapq.heappush(heap, (due, kind, id))
    return heap[0][0] if heap else None


def _let_go(state: State) -> None:
    """
    Keep one entry for each row that waits for time, at its time.

    Entries of work that ended long before it had to would else stay until then: a day's worth of tasks that may run for a day.
    """
    index = state.index
    rows = dict.fromkeys((kind, id) for _, kind, id in index.deadlines)
    found = [(due_at(state, kind, id), kind, id) for kind, id in rows]
    index.deadlines = [(due, kind, id) for due, kind, id in found if due is not None]
    heapq.heapify(index.deadlines)
    index.deadlines_max = max(DEADLINES_MIN, 2 * len(index.deadlines))


def expire(tx: Transaction) -> None:
    """
    Act on what is due, and let go of what is too much; the next tick goes on.

    A slice of rows at most, but for those of the last worker or job, which are lost or let go of as a whole.
    """
    heap = tx.state.index.deadlines
    for _ in range(limits.UNFOLD_SLICE):
        if not heap or heap[0][0] > tx.now_ms or len(tx.touched) >= limits.UNFOLD_SLICE:
            break
        _, kind, id = heapq.heappop(heap)
        due = due_at(tx.state, kind, id)
        if due is not None and due <= tx.now_ms:
            _act(tx, kind, id)
            due = due_at(tx.state, kind, id)
        if due is not None:
            heapq.heappush(heap, (due, kind, id))
    if tx.state.index.finished_tasks > limits.FINISHED_TASKS_MAX:
        _make_room(tx)


def _make_room(tx: Transaction) -> None:
    """The oldest finished jobs leave memory before their retention ends, a slice of tasks at most."""
    index = tx.state.index
    least = max(limits.FINISHED_TASKS_MAX, index.finished_tasks - limits.UNFOLD_SLICE)
    while index.finished_tasks > least:
        oldest = index.oldest_finished()
        if oldest is None:
            raise Defect(f"{index.finished_tasks} finished tasks belong to no job")
        forget_job(tx, tx.get(Job, oldest))


def _act(tx: Transaction, kind: str, id: str) -> None:
    if kind == "worker":
        _worker_expired(tx, tx.get(Worker, id))
    elif kind == "attempt":
        attempt = tx.get(Attempt, id)
        if attempt.rung is Rung.NONE:
            limit = tx.state.index.run_ms_max(attempt)
            ask_stop(tx, attempt, Cause.TIMEOUT, f"it ran longer than its limit of {limit} ms")
        else:
            climb(tx, attempt)
    elif kind == "task":
        _task_due_now(tx, tx.get(Task, id))
    elif kind == "job":
        forget_job(tx, tx.get(Job, id))
    else:
        tx.drop(tx.get(Receipt, id))


def _worker_expired(tx: Transaction, worker: Worker) -> None:
    if worker.status is WorkerStatus.LEFT:
        tx.state.pulses.pop(worker.id, None)
        tx.forget(worker)
        return
    seconds = tx.settings.lease_ms / 1000
    lose_all(tx, worker, Cause.LOST, f"worker {worker.name} was silent for {seconds:g} s")
    gone = {"left_at_ms": tx.now_ms} if worker.status is WorkerStatus.REPLACED else {}
    tx.move(worker, Verb.LOSE, reason=f"silent for {seconds:g} s", **gone)


def _task_due_now(tx: Transaction, task: Task) -> None:
    if task.status is TaskStatus.BACKOFF:
        tx.move(task, Verb.RETRY, reason=task.reason, retry_at_ms=None, queued_at_ms=tx.now_ms)
    else:
        stage = tx.get(Stage, task.stage_id)
        tx.move(
            task,
            Verb.EXPIRE,
            reason=f"it waited longer than its limit of {stage.queue_ms_max} ms",
            cause=Cause.QUEUE_TIMEOUT,
            ended_at_ms=tx.now_ms,
        )


def lose_all(tx: Transaction, worker: Worker, cause: Cause, message: str) -> None:
    """Everything that a worker held runs elsewhere, or ends."""
    for attempt_id in list(tx.state.index.held.get(worker.id, {}).values()):
        tx.state.progress.pop(attempt_id, None)
        lose(tx, tx.get(Attempt, attempt_id), cause, message)


def forget_job(tx: Transaction, job: Job) -> None:
    """A finished job and all that belongs to it leave memory; the store keeps them and answers for them."""
    prefix = job.id
    for position in range(1, job.tasks + 1):
        _forget_task(tx, prefix, position)
    for stage in list(tx.state.stages(job.id)):
        tx.forget(stage)
    tx.forget(job)


def _forget_task(tx: Transaction, job_id: str, position: int) -> None:
    task = tx.find(Task, ids.task_id(job_id, position))
    if task is None:
        return
    for number in range(1, task.attempts + 1):
        attempt = tx.find(Attempt, ids.attempt_id(task.id, number))
        if attempt is not None:
            tx.forget(attempt)
    tx.forget(task)
