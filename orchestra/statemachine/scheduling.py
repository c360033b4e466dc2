"""
Which task runs next, and where: the one decision that `match` takes and `why` explains.

Order: by rank, lowest first. A stage's rank is its job's submission time minus its priority times ``settings.aging_ms``, so a level of
priority is worth a fixed time of waiting, the order of two tasks never depends on the present, and nothing starves.
Among equals: first submitted, first served. A task that has waited ``settings.reserve_after_ms`` for room on workers that are
large enough gets one of them reserved, so that smaller tasks can not keep it out.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from orchestra.statemachine import ids
from orchestra.statemachine.effects import StartAttempt
from orchestra.statemachine.index import Rank, Shape, shape_of
from orchestra.statemachine.lifecycles import (
    JOB_SCHEDULABLE,
    AttemptStatus,
    JobStatus,
    Verb,
    WorkerStatus,
)
from orchestra.statemachine.orders import order_of
from orchestra.statemachine.records import Attempt, Job, Stage, Task, Worker
from orchestra.statemachine.state import State
from orchestra.statemachine.transaction import Transaction


def label_of_worker(name: str) -> str:
    """The label that every worker has without being given it: a stage that asks for it is bound to the workers of that name."""
    return f"worker:{name}"


def unable(worker: Worker, shape: Shape) -> str:
    """What the worker lacks for ever for work of this shape: ``app``, ``label``, a resource's name, or empty when able."""
    app, labels, needs = shape
    if app not in worker.apps:
        return "app"
    if any(
        label not in worker.labels and label != label_of_worker(worker.name) for label in labels
    ):
        return "label"
    if needs:
        capacity = dict(worker.capacity)
        for name, amount in needs:
            if capacity.get(name, 0) < amount:
                return name
    return ""


def lacking(state: State, worker: Worker, shape: Shape) -> str:
    """What is taken just now: ``slots``, a resource's name, or empty when there is room. For a worker that is able."""
    held = state.index.held.get(worker.id)
    if held and len(held) >= worker.slots:
        return "slots"
    if shape[2]:
        used = state.index.used.get(worker.id, {})
        capacity = dict(worker.capacity)
        for name, amount in shape[2]:
            if capacity.get(name, 0) - used.get(name, 0) < amount:
                return name
    return ""


def head(state: State, shape: Shape) -> Rank | None:
    """The first queued task's entry of a shape. Drops entries that are stale; changes nothing else."""
    index = state.index
    heap = index.ready[shape]
    while heap:
        entry = heap[0]
        if index.offered.get(entry[3]) != entry:
            heapq.heappop(heap)
            continue
        stage = state.find(Stage, entry[3])
        job = state.find(Job, ids.job_of(entry[3]))
        queue = index.queues.get(entry[3])
        if stage is None or job is None or not queue or job.status not in JOB_SCHEDULABLE:
            heapq.heappop(heap)
            del index.offered[entry[3]]
            continue
        return entry
    del index.ready[shape]
    return None


def heads(state: State) -> list[tuple[Rank, Shape]]:
    """The first queued task of every shape, in order of rank."""
    if len(state.index.ready) == 1:
        (shape,) = state.index.ready
        entry = head(state, shape)
        return [] if entry is None else [(entry, shape)]
    found = [(entry, shape) for shape in list(state.index.ready) if (entry := head(state, shape))]
    found.sort()
    return found


def reservations(state: State, now_ms: int) -> dict[str, str]:
    """Workers kept free for tasks that waited too long for room: worker id → task id. Recomputed, never stored."""
    reserved: dict[str, str] = {}
    for entry, shape in heads(state):
        task_id = state.index.queues[entry[3]][0]
        task = state.find(Task, task_id)
        if task is None or now_ms - task.queued_at_ms < state.settings.reserve_after_ms:
            continue
        able = [worker for worker in _online(state) if not unable(worker, shape)]
        if not able or any(not lacking(state, worker, shape) for worker in able):
            continue
        open_workers = [worker for worker in able if worker.id not in reserved]
        if open_workers:
            chosen = min(open_workers, key=lambda each: (_load(state, each), each.id))
            reserved[chosen.id] = task_id
    return reserved


def _online(state: State) -> Iterator[Worker]:
    return (
        worker
        for worker in state.each(Worker)
        if worker.status is WorkerStatus.ONLINE and not worker.paused
    )


def _load(state: State, worker: Worker) -> int:
    return len(state.index.held.get(worker.id, ()))


def match(tx: Transaction) -> None:
    """Give queued tasks to free workers until none fits: highest rank first, workers in turn."""
    state = tx.state
    while state.index.free and state.index.ready:
        chosen = _choose(state, tx.now_ms)
        if chosen is None:
            return
        stage_id, worker = chosen
        lease(tx, stage_id, worker)


def _choose(state: State, now_ms: int) -> tuple[str, Worker] | None:
    candidates = heads(state)
    for number, (entry, shape) in enumerate(candidates):
        worker = _first_fit(state, shape, {})
        if worker is None:
            continue
        if number and _anyone_reserves(state, candidates[:number], now_ms):
            mine = state.index.queues[entry[3]][0]
            reserved = {
                worker_id: task_id
                for worker_id, task_id in reservations(state, now_ms).items()
                if task_id != mine
            }
            worker = _first_fit(state, shape, reserved)
            if worker is None:
                continue
        return entry[3], worker
    return None


def _anyone_reserves(state: State, ahead: list[tuple[Rank, Shape]], now_ms: int) -> bool:
    for entry, _ in ahead:
        task = state.find(Task, state.index.queues[entry[3]][0])
        if task is not None and now_ms - task.queued_at_ms >= state.settings.reserve_after_ms:
            return True
    return False


def _first_fit(state: State, shape: Shape, reserved: dict[str, str]) -> Worker | None:
    for worker_id in state.index.free:
        if worker_id in reserved:
            continue
        worker = state.find(Worker, worker_id)
        if worker is not None and not unable(worker, shape) and not lacking(state, worker, shape):
            return worker
    return None


def lease(tx: Transaction, stage_id: str, worker: Worker) -> Attempt:
    """
    Give the first queued task of a stage to a worker, and have it started.

    The attempt number grows by one; every later report must quote it, so that an answer from a former holder is recognised.

    Source: TANGO REST guide, start(); the 2 s heartbeat of the same guide renews the lease.
    """
    index = tx.state.index
    task = tx.get(Task, index.queues[stage_id][0])
    stage = tx.get(Stage, stage_id)
    job = tx.get(Job, task.job_id)
    if job.status is JobStatus.QUEUED:
        job = tx.move(job, Verb.RUN, started_at_ms=job.started_at_ms or tx.now_ms)
    number = task.attempts + 1
    task = tx.move(task, Verb.LEASE, attempts=number, worker_id=worker.id)
    attempt = tx.create(
        Attempt(
            id=ids.attempt_id(task.id, number),
            task_id=task.id,
            job_id=task.job_id,
            number=number,
            worker_id=worker.id,
            incarnation=worker.incarnation,
            status=AttemptStatus.STARTED,
            leased_at_ms=tx.now_ms,
            grace_ms=stage.grace_ms,
        ),
        Verb.START,
        reason=worker.name,
    )
    if worker.id in index.free:  # take workers in turn
        del index.free[worker.id]
        index.free[worker.id] = None
    tx.emit(StartAttempt(worker.id, worker.incarnation, order_of(job, stage, task, attempt)))
    return attempt


def ahead_of(state: State, task: Task, stage: Stage, job: Job) -> int:
    """How many other stages with queued tasks of the same shape stand before this task's."""
    shape = shape_of(stage)
    rank = job.submitted_at_ms - (job.priority + stage.priority) * state.settings.aging_ms
    mine: Rank = (rank, job.number, task.position, stage.id)
    entries = set(state.index.ready.get(shape, ()))
    return sum(1 for entry in entries if entry < mine and entry[3] != stage.id)
