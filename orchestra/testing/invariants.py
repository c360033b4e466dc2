"""
What must always hold in the core: one list, shared by the property tests, the explorer and the simulator.

`broken_in_state` looks at one state, `broken_by_step` at what a step did to it. Both return sentences, empty when all is well. The numbers
in the sentences are those of the project's list of invariants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from orchestra.statemachine import State, load
from orchestra.statemachine.lifecycles import (
    ATTEMPT_FINAL,
    JOB_FINAL,
    TASK_FINAL,
    TASK_HELD,
    JobStatus,
    TaskStatus,
    WorkerStatus,
)
from orchestra.statemachine.records import Attempt, Cause, Job, Record, Stage, Task, Worker
from orchestra.statemachine.unfolding import pending, verdict_of
from orchestra.testing.order import idle, out_of_turn
from orchestra.testing.tries import mistried
from orchestra.testing.upstream import goes_on, skipped_in_haste, too_early

K = TypeVar("K")
V = TypeVar("V")

Rows = Mapping[str, Mapping[str, Record]]


def snapshot(state: State) -> dict[str, dict[str, Record]]:
    """The rows as they are now. Records never change, so a shallow copy is a true one."""
    return {kind: dict(rows) for kind, rows in state.rows.items()}


def broken_in_state(state: State, now_ms: int) -> list[str]:
    """Every invariant that the state breaks."""
    return [
        *_leases(state),
        *_jobs(state),
        *_waiting(state),
        *idle(state, now_ms),
        *_armed(state),
        *_index(state),
    ]


def _leases(state: State) -> Iterator[str]:
    live: dict[str, list[Attempt]] = {}
    for attempt in state.each(Attempt):
        if attempt.status not in ATTEMPT_FINAL:
            live.setdefault(attempt.task_id, []).append(attempt)
    for task_id, attempts in live.items():
        if len(attempts) > 1:
            yield f"I3: task {task_id} has {len(attempts)} live attempts"
        task = state.find(Task, task_id)
        if task is None or task.status not in TASK_HELD or task.attempts != attempts[-1].number:
            yield f"I3: attempt {attempts[-1].id} is live and its task is not held by it"
    for task in state.each(Task):
        if (task.status in TASK_HELD) != (task.id in live):
            yield f"I11: task {task.id} is {task.status}, live attempts: {task.id in live}"
    for worker in state.each(Worker):
        held = state.index.held.get(worker.id, {})
        if held and worker.status in (WorkerStatus.LOST, WorkerStatus.LEFT):
            yield f"I9: worker {worker.name} is {worker.status} and still holds {list(held)}"


def _jobs(state: State) -> Iterator[str]:
    for job in state.each(Job):
        tally = state.index.tallies.get(job.id, {})
        final = sum(tally.get(status, 0) for status in TASK_FINAL)
        if job.status in JOB_FINAL and final != job.tasks:
            yield f"I6: job {job.number} is {job.status} with {job.tasks - final} tasks to go"
        if job.status not in JOB_FINAL and final == job.tasks:
            yield f"I9: job {job.number} is {job.status} and all its tasks have ended"
        if job.status is JobStatus.FAILED and tally.get(TaskStatus.COMPLETED, 0) == job.tasks:
            yield f"I8: job {job.number} failed, and all its tasks completed"
        if job.status is JobStatus.COMPLETED and tally.get(TaskStatus.COMPLETED, 0) != job.tasks:
            yield f"I8: job {job.number} completed with tasks that did not"


def _waiting(state: State) -> Iterator[str]:
    for task in state.each(Task):
        stage = state.find(Stage, task.stage_id)
        if stage is None:
            yield f"task {task.id} has no stage"
            continue
        if task.status is TaskStatus.WAITING and not pending(state):
            verdict = verdict_of(state, stage, task.position - stage.first)
            if verdict != "wait":
                yield f"I9: task {task.id} waits and the verdict is {verdict}"
        if task.status is TaskStatus.QUEUED and task.id not in state.index.queues.get(stage.id, ()):
            yield f"I9: task {task.id} is queued and in no queue"


def _armed(state: State) -> Iterator[str]:
    armed = {(kind, id) for _, kind, id in state.index.deadlines}
    for worker in state.each(Worker):
        watched = worker.status in (WorkerStatus.ONLINE, WorkerStatus.REPLACED)
        if watched and ("worker", worker.id) not in armed:
            yield f"I9: worker {worker.name} is {worker.status} and its lease is not watched"
    for task in state.each(Task):
        if task.status is TaskStatus.BACKOFF and ("task", task.id) not in armed:
            yield f"I9: task {task.id} waits to be tried again and nothing will wake it"
        stage = state.find(Stage, task.stage_id)
        if (
            task.status is TaskStatus.QUEUED
            and stage is not None
            and stage.queue_ms_max is not None
        ):
            if ("task", task.id) not in armed:
                yield f"I9: task {task.id} may not wait for long, and nobody looks whether it does"
    for attempt in state.each(Attempt):
        if attempt.status not in ATTEMPT_FINAL and attempt.rung_until_ms is not None:
            if ("attempt", attempt.id) not in armed:
                yield f"I11: attempt {attempt.id} is on the ladder and nothing will climb"


def _index(state: State) -> Iterator[str]:
    """I20: what is derived is what a restart would derive."""
    rebuilt = load([row for rows in state.rows.values() for row in rows.values()], 0)
    for name, mine, theirs in (
        ("tallies", _filled(state.index.tallies), _filled(rebuilt.index.tallies)),
        ("held", _filled(state.index.held), _filled(rebuilt.index.held)),
        ("used", _filled(state.index.used), _filled(rebuilt.index.used)),
    ):
        if mine != theirs:
            yield f"I20: {name} are {mine}, a restart makes {theirs}"
    if set(state.index.free) != set(rebuilt.index.free):
        yield f"I20: free workers are {set(state.index.free)}, a restart makes {set(rebuilt.index.free)}"
    if state.index.worker_names != rebuilt.index.worker_names:
        yield "I20: worker names differ from what a restart makes"
    if state.index.finished_tasks != rebuilt.index.finished_tasks:
        yield f"I20: finished tasks are {state.index.finished_tasks}, a restart makes {rebuilt.index.finished_tasks}"
    lined_up = set(state.index.finished)
    for job in state.each(Job):
        if job.status in JOB_FINAL and (job.ended_at_ms, job.id) not in lined_up:
            yield f"I20: job {job.number} has ended and can not make room"
    for stage_id, tally in state.index.stage_tallies.items():
        other = rebuilt.index.stage_tallies[stage_id]
        for field in ("completed", "broken"):
            if getattr(tally, field) != getattr(other, field):
                yield f"I20: {field} of {stage_id} is {getattr(tally, field)}"


def _filled(nested: Mapping[str, Mapping[K, V]]) -> dict[str, dict[K, V]]:
    found = {outer: {k: v for k, v in inner.items() if v} for outer, inner in nested.items()}
    return {outer: inner for outer, inner in found.items() if inner}


def broken_by_step(before: Rows, state: State, now_ms: int, *, revives: bool) -> list[str]:
    """
    Every invariant that a step broke.

    Args:
        before: The rows before it, from `snapshot`.
        now_ms: When it was.
        revives: The step was an explicit retry, which alone may bring something back.
    """
    broken = [
        *_overfull(before, state),
        *out_of_turn(before, state, now_ms),
        *too_early(before, state),
        *skipped_in_haste(before, state),
        *mistried(before, state, now_ms),
        *goes_on(before, state),
    ]
    for old in before["task"].values():
        new = state.find(Task, old.id)
        if not isinstance(old, Task) or new is None:
            continue
        if old.status is TaskStatus.COMPLETED and new.status is not TaskStatus.COMPLETED:
            broken.append(f"I6: task {old.id} was completed and is {new.status}")
        if old.status in TASK_FINAL and new.status is not old.status and not revives:
            if old.status is not TaskStatus.SKIPPED:
                broken.append(f"I6: task {old.id} was {old.status} and is {new.status}")
        if new.attempts < old.attempts:
            broken.append(f"I4: attempts of task {old.id} went back")
    for old in before["attempt"].values():
        new_attempt = state.find(Attempt, old.id)
        if not isinstance(old, Attempt) or new_attempt is None or old.status not in ATTEMPT_FINAL:
            continue
        if (new_attempt.status, new_attempt.result) != (old.status, old.result):
            broken.append(
                f"I5: attempt {old.id} was over as {old.status} and is {new_attempt.status}"
            )
    broken += _uncounted(before, state)
    for kind in ("task", "stage", "attempt"):
        for id in before[kind]:
            if id not in state.rows[kind] and before["job"].get(id[:26]) is not None:
                job = state.find(Job, id[:26])
                if job is not None:
                    broken.append(f"I1: {kind} {id} is gone and its job is not")
    return broken


def _uncounted(before: Rows, state: State) -> Iterator[str]:
    """I8: a loss is counted, or a task that ends its workers would go round for ever."""
    for attempt in state.each(Attempt):
        old = before["attempt"].get(attempt.id)
        was_live = isinstance(old, Attempt) and old.status not in ATTEMPT_FINAL
        if not was_live or attempt.cause is not Cause.LOST:
            continue
        task, old_task = state.find(Task, attempt.task_id), before["task"].get(attempt.task_id)
        if task is None or not isinstance(old_task, Task) or task.status in TASK_FINAL:
            continue
        if task.losses <= old_task.losses:
            yield f"I8: task {task.id} was lost and its losses are still {task.losses}"


def _overfull(before: Rows, state: State) -> Iterator[str]:
    """I16, I18: nothing is given to a worker beyond its room. One that shrank may still hold what it held."""
    for attempt in state.each(Attempt):
        old = before["attempt"].get(attempt.id)
        if attempt.status in ATTEMPT_FINAL or old is not None:
            continue
        worker = state.find(Worker, attempt.worker_id)
        task = state.find(Task, attempt.task_id)
        stage = None if task is None else state.find(Stage, task.stage_id)
        if worker is None or stage is None:
            yield f"I5: attempt {attempt.id} was given to nobody, or of nothing"
            continue
        held = state.index.held.get(worker.id, {})
        if len(held) > worker.slots:
            yield f"I18: worker {worker.name} was given {len(held)} of {worker.slots} slots"
        capacity = dict(worker.capacity)
        used = state.index.used.get(worker.id, {})
        for name, _ in stage.needs:
            if used.get(name, 0) > capacity.get(name, 0):
                yield f"I16: worker {worker.name} gives {used[name]} of {capacity.get(name, 0)} {name}"
