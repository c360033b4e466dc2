"""
Whose turn it is: the rule of the order written down a second time, to hold what the core gives out against it.

Nothing here uses what the core decides by (its queues, its heaps and what it derives from rows): a wrong order would agree with itself.
Lower goes first: the time of submission minus so much for each level of priority, then the number of the job, then the place in it.
A task that has waited for long, and for which no worker that is large enough has room now, has one kept free: the one that holds least.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from orchestra.statemachine import State
from orchestra.statemachine.lifecycles import (
    ATTEMPT_FINAL,
    JobStatus,
    TaskStatus,
    WorkerStatus,
)
from orchestra.statemachine.records import Attempt, Job, Record, Stage, Task, Worker

Wants = tuple[str, tuple[str, ...], tuple[tuple[str, int], ...]]
"""What a stage asks of a worker. Of those that ask the same only the first is kept room for."""


@attrs.define(slots=True)
class Line:
    """The tasks of a stage that may be given out, in their order."""

    stage: Stage
    aged_ms: int
    number: int
    tasks: deque[Task] = attrs.field(factory=deque[Task])

    @property
    def turn(self) -> tuple[int, int, int]:
        """When it is the turn of its first task: the lowest is first."""
        return (self.aged_ms, self.number, self.tasks[0].position)

    @property
    def wants(self) -> Wants:
        """What its tasks ask of a worker."""
        return (self.stage.app, self.stage.labels, self.stage.needs)


@attrs.define(slots=True)
class Room:
    """A worker that takes work, with what is left of it."""

    worker: Worker
    slots: int
    left: dict[str, int]
    held: int = 0

    def take(self, stage: Stage) -> None:
        """A task of this stage is in its hands."""
        self.slots -= 1
        self.held += 1
        for name, amount in stage.needs:
            self.left[name] = self.left.get(name, 0) - amount

    def is_able(self, stage: Stage) -> bool:
        """Whether it could run a task of the stage, had it nothing else in its hands."""
        worker, whole = self.worker, dict(self.worker.capacity)
        return (
            stage.app in worker.apps
            and all(each in (*worker.labels, f"worker:{worker.name}") for each in stage.labels)
            and all(whole.get(name, 0) >= amount for name, amount in stage.needs)
        )

    def fits(self, stage: Stage) -> bool:
        """Whether it could be given a task of the stage now."""
        return (
            self.slots > 0
            and self.is_able(stage)
            and all(self.left.get(name, 0) >= amount for name, amount in stage.needs)
        )


class Turns:
    """
    Who waits, who has room, and for whom room is kept.

    Args:
        given: Attempts that are taken to wait still: what was given out in the step that is looked at.
    """

    def __init__(self, state: State, now_ms: int, given: Sequence[Attempt] = ()) -> None:
        self._now_ms = now_ms
        self._reserve_ms = state.settings.reserve_after_ms
        self.rooms = {
            worker.id: Room(worker, worker.slots, dict(worker.capacity))
            for worker in state.each(Worker)
            if worker.status is WorkerStatus.ONLINE and not worker.paused
        }
        fresh = {attempt.id for attempt in given}
        for attempt in state.each(Attempt):
            if attempt.status not in ATTEMPT_FINAL and attempt.id not in fresh:
                task = state.find(Task, attempt.task_id)
                stage = None if task is None else state.find(Stage, task.stage_id)
                room = self.rooms.get(attempt.worker_id)
                if room is not None and stage is not None:
                    room.take(stage)
        self.lines = _lines(state, {attempt.task_id for attempt in given})

    def ahead(self, line: Line | None = None) -> list[Line]:
        """Lines with somebody in them, in their order; those before a line."""
        found = (each for each in self.lines.values() if each.tasks)
        if line is not None:
            mine = line.turn
            found = (each for each in found if each.turn < mine)
        return sorted(found, key=lambda each: each.turn)

    def keep(self, kept: dict[str, str], line: Line) -> None:
        """Keep a worker free for the first of a line, if that has waited for long and none has room."""
        first, stage = line.tasks[0], line.stage
        if self._now_ms - first.queued_at_ms < self._reserve_ms:
            return
        able = [room for room in self.rooms.values() if room.is_able(stage)]
        if any(room.fits(stage) for room in able):
            return
        others = [room for room in able if room.worker.id not in kept]
        if others:
            least = min(others, key=lambda room: (room.held, room.worker.id))
            kept[least.worker.id] = first.id

    def passed_over(self, attempt: Attempt, task: Task) -> str:
        """Who should have been given to the worker instead of this task, and why; empty when it was the task's turn. It is given then."""
        room, line = self.rooms.get(attempt.worker_id), self.lines.get(task.stage_id)
        if room is None or line is None or task not in line.tasks:
            return f"task {task.id} was given to worker {attempt.worker_id}, and may not be"
        if not room.is_able(line.stage):
            return f"task {task.id} was given to worker {room.worker.name}, which can not run it"
        first = line.tasks[0]
        found = f"task {task.id} was given out before {first.id}"
        if first is task:
            found = self._passed_over(room, line)
        line.tasks.remove(task)
        room.take(line.stage)
        return found

    def _passed_over(self, room: Room, line: Line) -> str:
        """As `passed_over`, of the first in a line."""
        worker, task = room.worker, line.tasks[0]
        kept: dict[str, str] = {}
        seen: set[Wants] = set()
        for other in self.ahead(line):
            if other.wants in seen:
                continue
            seen.add(other.wants)
            if room.fits(other.stage):
                return f"worker {worker.name} was given {task.id} before {other.tasks[0].id}"
            self.keep(kept, other)
            if worker.id in kept:
                return f"worker {worker.name} is kept free for {kept[worker.id]} and was given {task.id}"
        return ""


def _lines(state: State, given: Iterable[str]) -> dict[str, Line]:
    """By stage: the tasks that may be given out, and those that just were."""
    fresh = set(given)
    tasks: dict[str, list[Task]] = {}
    for task in state.each(Task):
        if task.status is TaskStatus.QUEUED or task.id in fresh:
            tasks.setdefault(task.stage_id, []).append(task)
    lines: dict[str, Line] = {}
    for stage_id, waiting in tasks.items():
        stage, job = state.find(Stage, stage_id), state.find(Job, waiting[0].job_id)
        if stage is None or job is None or job.id in state.index.cancelling:
            continue  # between two slices of its stop nothing of a job starts
        if job.status in (JobStatus.QUEUED, JobStatus.RUNNING):
            level = job.priority + stage.priority
            aged_ms = job.submitted_at_ms - level * state.settings.aging_ms
            in_order = sorted(waiting, key=lambda each: each.position)
            lines[stage_id] = Line(stage, aged_ms, job.number, deque(in_order))
    return lines


def given_out(before: Mapping[str, Mapping[str, Record]], state: State) -> list[Attempt]:
    """The attempts that a step began, in their order. ``before``: the rows before the step."""
    given: list[Attempt] = []
    attempts = state.rows["attempt"]
    for id in reversed(attempts):  # what is new came last
        attempt = attempts[id]
        if id in before["attempt"] or not isinstance(attempt, Attempt):
            break
        given.append(attempt)
    given.reverse()
    return given


def out_of_turn(
    before: Mapping[str, Mapping[str, Record]], state: State, now_ms: int
) -> Iterator[str]:
    """I10: what a step gave out, though it was somebody else's turn. ``before``: the rows before the step."""
    given = given_out(before, state)
    if not given:
        return
    turns = Turns(state, now_ms, given)
    for attempt in given:
        task = state.find(Task, attempt.task_id)
        told = "it is of no task" if task is None else turns.passed_over(attempt, task)
        if told:
            yield f"I10: {told}"


def idle(state: State, now_ms: int) -> Iterator[str]:
    """I9: who waits while a worker that could take it has nothing to do, and is not kept free for somebody else."""
    if not any(task.status is TaskStatus.QUEUED for task in state.each(Task)):
        return
    turns = Turns(state, now_ms)
    kept: dict[str, str] = {}
    seen: set[Wants] = set()
    for line in turns.ahead():
        if line.wants in seen:
            continue
        seen.add(line.wants)
        for room in turns.rooms.values():
            if room.fits(line.stage) and room.worker.id not in kept:
                yield f"I9: task {line.tasks[0].id} waits while worker {room.worker.name} is idle and able"
        turns.keep(kept, line)
