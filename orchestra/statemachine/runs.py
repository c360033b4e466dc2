"""
The look-ups follow rows on the way that most of them take, many at once: as `Index.replace` of each, in a fraction of its time.

The rows are stored with `Transaction.keep` before; that they are followed as `Index.replace` would is what the invariants compare.
"""

from __future__ import annotations

from orchestra.statemachine.lifecycles import TaskStatus
from orchestra.statemachine.records import Attempt, Job, Stage, Task, Worker
from orchestra.statemachine.state import State


def created(state: State, stage: Stage, job: Job, tasks: list[Task]) -> None:
    """Tasks of a stage, in order and the last ones made of the job so far, have begun: all queued, or all waiting."""
    index = state.index
    status = tasks[0].status
    tally = index.tallies[job.id]
    tally[status] = tally.get(status, 0) + len(tasks)
    index.unfolded[job.id] = tasks[-1].position
    if status is TaskStatus.QUEUED:
        index.enqueue([task.id for task in tasks], stage, job, tasks[0].queued_at_ms)


def promoted(state: State, stage: Stage, job: Job, tasks: list[Task]) -> None:
    """Tasks of a stage that waited, in order, are queued. They are given as they are now."""
    index = state.index
    tally = index.tallies[job.id]
    tally[TaskStatus.WAITING] -= len(tasks)
    tally[TaskStatus.QUEUED] = tally.get(TaskStatus.QUEUED, 0) + len(tasks)
    index.enqueue([task.id for task in tasks], stage, job, tasks[0].queued_at_ms)


def leased(state: State, stage: Stage, job: Job, worker: Worker, attempts: list[Attempt]) -> None:
    """The first tasks in the queue of a stage, one for each attempt, were given to a worker by these attempts."""
    index = state.index
    count = len(attempts)
    tally = index.tallies[job.id]
    tally[TaskStatus.QUEUED] -= count
    tally[TaskStatus.LEASED] = tally.get(TaskStatus.LEASED, 0) + count
    queue = index.queues[stage.id]
    held = index.held.setdefault(worker.id, {})
    for attempt in attempts:
        queue.popleft()
        held[attempt.task_id] = attempt.id
    index.offer(stage, job)
    index.use(worker.id, stage, count)
    index.see_room(worker)


def completed(state: State, task: Task, attempt: Attempt) -> None:
    """An attempt completed, and its task with it. Both are given as they were before."""
    index = state.index
    tally = index.tallies[task.job_id]
    tally[task.status] -= 1
    tally[TaskStatus.COMPLETED] = tally.get(TaskStatus.COMPLETED, 0) + 1
    index.held[attempt.worker_id].pop(task.id, None)
    stage = state.find(Stage, task.stage_id)
    if stage is not None:  # its row could be read
        index.stage_tallies[stage.id].completed += 1
        index.use(attempt.worker_id, stage, -1)
    worker = state.find(Worker, attempt.worker_id)
    if worker is not None:
        index.see_room(worker)
