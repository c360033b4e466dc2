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
from itertools import islice

from orchestra.statemachine import ids, runs
from orchestra.statemachine.effects import StartAttempt
from orchestra.statemachine.index import Rank, Shape, shape_of
from orchestra.statemachine.lifecycles import (
    JOB_SCHEDULABLE,
    AttemptStatus,
    JobStatus,
    TaskStatus,
    Verb,
    WorkerStatus,
)
from orchestra.statemachine.moved_rows import task_leased
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


def room(state: State, worker: Worker, shape: Shape) -> int:
    """For how many tasks of a shape there is room just now, at least one. For a worker that is able and lacks nothing."""
    held = state.index.held.get(worker.id, {})
    fits = worker.slots - len(held)
    if shape[2]:
        used = state.index.used.get(worker.id, {})
        capacity = dict(worker.capacity)
        for name, amount in shape[2]:
            if amount:
                fits = min(fits, (capacity[name] - used.get(name, 0)) // amount)
    return max(1, fits)


def head(state: State, shape: Shape) -> Rank | None:
    """The first queued task's entry of a shape. Drops entries that are stale; changes nothing else."""
    index = state.index
    heap = index.ready[shape]
    while heap:
        entry = heap[0]
        if index.offered.get(entry[3]) == entry:
            if _may_start(state, entry):
                return entry
            del index.offered[entry[3]]
        heapq.heappop(heap)
    del index.ready[shape]
    return None


def _may_start(state: State, entry: Rank) -> bool:
    """Whether the stage of an entry has tasks that may be given out."""
    stage = state.find(Stage, entry[3])
    job = state.find(Job, ids.job_of(entry[3]))
    if stage is None or job is None or not state.index.queues.get(entry[3]):
        return False
    # Nothing more of a job starts between two slices of its stop: `unfolding` offers what is left when that is through.
    return job.status in JOB_SCHEDULABLE and job.id not in state.index.cancelling


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
    return _reserved(state, heads(state), now_ms)


def _reserved(state: State, ahead: list[tuple[Rank, Shape]], now_ms: int) -> dict[str, str]:
    """As `reservations`, for the first so many heads: what they are given does not depend on those behind them."""
    reserved: dict[str, str] = {}
    for entry, shape in ahead:
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
        lease(tx, *chosen)


def _choose(state: State, now_ms: int) -> tuple[str, Worker, int] | None:
    """From the queue of which stage to whom next, and how many tasks at once without another choice in between."""
    candidates = heads(state)
    for number, (entry, shape) in enumerate(candidates):
        worker = _first_fit(state, shape, {})
        if worker is None:
            continue
        reserved = _reserved(state, candidates[:number], now_ms)
        if worker.id in reserved:
            worker = _first_fit(state, shape, reserved)
            if worker is None:
                continue
        return entry[3], worker, 1 if number else _in_a_row(state, entry, shape, worker)
    return None


def _in_a_row(state: State, entry: Rank, shape: Shape, worker: Worker) -> int:
    """
    How many tasks of the first stage in line would go to the worker one after the other, were each chosen for itself.

    All of its queue, while no other worker is free: stages of one job and rank stand in line by position, and each has positions of its
    own in a row, so that none comes between two tasks of another.
    """
    if len(state.index.free) > 1:
        return 1
    return min(len(state.index.queues[entry[3]]), room(state, worker, shape))


def _first_fit(state: State, shape: Shape, reserved: dict[str, str]) -> Worker | None:
    for worker_id in state.index.free:
        if worker_id in reserved:
            continue
        worker = state.find(Worker, worker_id)
        if worker is not None and not unable(worker, shape) and not lacking(state, worker, shape):
            return worker
    return None


def lease(tx: Transaction, stage_id: str, worker: Worker, count: int) -> None:
    """
    Give the first queued tasks of a stage to a worker, and have them started.

    The attempt number grows by one; every later report must quote it, so that an answer from a former holder is recognised.

    Source: TANGO REST guide, start(); the 2 s heartbeat of the same guide renews the lease.
    """
    index = tx.state.index
    stage = tx.get(Stage, stage_id)
    job = tx.get(Job, stage.job_id)
    tasks = [tx.get(Task, task_id) for task_id in islice(index.queues[stage_id], count)]
    if job.status is JobStatus.QUEUED:
        job = tx.move(job, Verb.RUN, started_at_ms=job.started_at_ms or tx.now_ms)
    worker_id, incarnation = worker.id, worker.incarnation
    rows: list[tuple[Task, Task]] = []
    attempts: list[Attempt] = []
    for task in tasks:
        number = task.attempts + 1
        leased = task_leased(task, number, worker_id)
        attempt = Attempt(
            ids.attempt_id(task.id, number),
            task.id,
            job.id,
            number,
            worker_id,
            incarnation,
            AttemptStatus.STARTED,
            tx.now_ms,
            grace_ms=stage.grace_ms,
        )
        rows.append((task, leased))
        attempts.append(attempt)
        tx.emit(StartAttempt(worker_id, incarnation, order_of(job, stage, leased, attempt)))
    tx.keep("task", rows, tx.path("task", TaskStatus.QUEUED, (Verb.LEASE,)))
    begun = [(None, attempt) for attempt in attempts]
    tx.keep("attempt", begun, tx.path("attempt", "", (Verb.START,)), worker.name)
    runs.leased(tx.state, stage, job, worker, attempts)
    if worker_id in index.free:  # take workers in turn
        del index.free[worker_id]
        index.free[worker_id] = None


def ahead_of(state: State, task: Task, stage: Stage, job: Job) -> int:
    """How many other stages with queued tasks of the same shape stand before this task's."""
    shape = shape_of(stage)
    rank = job.submitted_at_ms - (job.priority + stage.priority) * state.settings.aging_ms
    mine: Rank = (rank, job.number, task.position, stage.id)
    offered = state.index.offered
    entries = set(state.index.ready.get(shape, ()))
    return sum(
        1
        for entry in entries
        if entry < mine
        and entry[3] != stage.id
        and offered.get(entry[3]) == entry
        and _may_start(state, entry)
    )
