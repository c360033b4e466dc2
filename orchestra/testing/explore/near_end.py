"""
The orchestrator in a small world: the real `step` and `load`, from states that are kept instead of lived through.

A state that was reached before, up to the time that it was reached at, is the same node; what a command does to it is worked out once.
Every invariant is looked at on every such edge.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import cast

import attrs

from orchestra.errors import Conflict, Defect, Rejected
from orchestra.statemachine import State, Stimulus, load, next_deadline, step
from orchestra.statemachine.commands import Command, Reconfigure, RetryTask, SubmitJob, Tick
from orchestra.statemachine.effects import Effect
from orchestra.statemachine.index import Index
from orchestra.statemachine.lifecycles import (
    ATTEMPT_FINAL,
    JOB_FINAL,
    AttemptStatus,
    TaskStatus,
    WorkerStatus,
)
from orchestra.statemachine.limits import TIME_MS_MAX
from orchestra.statemachine.records import (
    KIND_OF,
    Attempt,
    Job,
    Project,
    Receipt,
    Record,
    Stage,
    Task,
    Worker,
)
from orchestra.statemachine.replies import JobAccepted
from orchestra.testing.explore.bounds import Bounds, Violation
from orchestra.testing.explore.copies import copied
from orchestra.testing.explore.faces import STEP_MS, Register, Renaming, renamed
from orchestra.testing.invariants import broken_by_step, broken_in_state, snapshot

Key = tuple[str, str]
Taken = tuple[str, str | None, str]
"""A row of a table: kind, source, verb."""

LEASE_MS = 3 * STEP_MS
START_MS = 1_000_000


@attrs.define(slots=True, eq=False)
class NearEnd:
    """
    One state of the orchestrator, with what is durable.

    Args:
        edges: What was worked out before: by command, the next node, the reply and the effects.
    """

    state: State
    durable: dict[Key, Record]
    now_ms: int
    faces: tuple[int, ...]
    edges: dict[Hashable, tuple[NearEnd, object, tuple[Effect, ...]]] = attrs.field(
        factory=dict[Hashable, "tuple[NearEnd, object, tuple[Effect, ...]]"]
    )
    cancelled: frozenset[str] = frozenset()
    """Tasks of which everybody may read that nothing is alive."""
    live_jobs: tuple[Job, ...] = ()
    tick_is_due: bool = False
    wishes: list[tuple[str, str, Command[object]]] | None = None
    """What people may ask for, once that was worked out."""
    silent: frozenset[str] = frozenset()
    """Sessions of workers that were not heard for a whole lease, which is not acted on yet."""

    @property
    def ended(self) -> bool:
        """Whether no job goes on."""
        return not self.live_jobs

    def rows(self, kind: type[Record]) -> Iterable[Record]:
        """What is durable of a kind."""
        return (record for record in self.durable.values() if isinstance(record, kind))


class Orchestrator:
    """All states of the orchestrator that one small world has shown."""

    def __init__(self, bounds: Bounds, register: Register, ways: tuple[Renaming, ...]) -> None:
        self.bounds = bounds
        self.taken: set[Taken] = set()
        self.steps = 0
        self._register = register
        self._ways = ways
        self._nodes: dict[int, NearEnd] = {}
        self._submitted: dict[str, tuple[SubmitJob, JobAccepted]] = {}
        """By key: the job, and what is answered to whoever submits it again."""

    @property
    def states(self) -> int:
        """How many there are."""
        return len(self._nodes)

    def start(self) -> NearEnd:
        """With the jobs submitted, before any worker is there."""
        bounds = self.bounds
        node = self._node(load((), START_MS), {}, START_MS)
        settings = Reconfigure(
            lease_ms=LEASE_MS,
            heartbeat_ms=STEP_MS,
            retention_ms=TIME_MS_MAX,
            reserve_after_ms=TIME_MS_MAX,
            losses_max=bounds.losses_max,
        )
        node, _, _ = self.apply(node, settings)
        for name, stages in (("first", bounds.stages), ("second", bounds.second)):
            if stages:
                job = SubmitJob(name, stages, on_failure=bounds.on_failure)
                node, reply, _ = self.apply(node, job, key=name if bounds.keyed else "")
                if isinstance(reply, Rejected):
                    raise reply
                if bounds.keyed and isinstance(reply, JobAccepted):
                    self._submitted[name] = (job, attrs.evolve(reply, repeated=True))
        return node

    def ask_again(self, node: NearEnd) -> None:
        """I2: nothing comes of a job that is submitted again under its key, but the first answer; another job under it is refused."""
        for key, (job, accepted) in self._submitted.items():
            after, reply, _ = self.apply(node, job, ("again", key), key=key)
            if after is not node or reply != accepted:
                raise Violation(f"I2: job {key!r} is submitted again under its key: {reply!r}")
            other = attrs.evolve(job, priority=1)
            after, reply, _ = self.apply(node, other, ("other", key), key=key)
            if after is not node or not isinstance(reply, Conflict):
                raise Violation(f"I2: another job is submitted under the key {key!r}: {reply!r}")

    def apply(
        self, node: NearEnd, command: Command[object], face: Hashable = None, *, key: str = ""
    ) -> tuple[NearEnd, object, tuple[Effect, ...]]:
        """
        One step, with its commit.

        Args:
            face: What tells the command from others; made from the command when it is not given.
            key: The key that it comes under.
        """
        told = face if face is not None else repr(command)
        known = node.edges.get(told)
        if known is not None:
            return known
        self.steps += 1
        before = snapshot(node.state)
        state = copied(node.state)
        try:
            outcome = step(state, Stimulus(command, node.now_ms, 1, "me", key))
        except Defect as defect:
            raise Violation(f"the core stops at {command!r}: {defect}") from defect
        self.taken.update((move.kind, move.source or None, move.verb) for move in outcome.story)
        broken = broken_in_state(state, node.now_ms)
        broken += broken_by_step(before, state, node.now_ms, revives=isinstance(command, RetryTask))
        if isinstance(outcome.reply, Rejected) and snapshot(state) != before:
            broken.append("I7: a refusal changed the state")
        durable = node.durable
        if outcome.changes or outcome.drops:
            durable = durable | dict(outcome.changes)
            for dropped in outcome.drops:
                durable.pop(dropped, None)
        broken += _lost(state, durable)
        if broken:
            raise Violation(f"{'; '.join(broken)} (when the orchestrator takes {command!r})")
        edge = (self._node(state, durable, node.now_ms), outcome.reply, outcome.effects)
        node.edges[told] = edge
        return edge

    def tick(self, node: NearEnd) -> NearEnd:
        """It acts on what is due."""
        return self.apply(node, cast("Command[object]", Tick()), "tick")[0]

    def later(self, node: NearEnd) -> NearEnd:
        """A step of time passes, and it has not looked yet."""
        known = node.edges.get("later")
        if known is None:
            next_node = self._node(node.state, node.durable, node.now_ms + STEP_MS)
            known = node.edges["later"] = (next_node, None, ())
        return known[0]

    def restarted(self, node: NearEnd) -> NearEnd:
        """It is killed, and comes back with what is durable: all but finished jobs."""
        known = node.edges.get("restart")
        if known is None:
            over = {
                record.id
                for record in node.durable.values()
                if isinstance(record, Job) and record.status in JOB_FINAL
            }
            live = [
                record
                for record in node.durable.values()
                if getattr(record, "job_id", record.id) not in over or isinstance(record, Receipt)
            ]
            state = load(live, node.now_ms)
            broken = broken_in_state(state, node.now_ms) if not next_due(state, node.now_ms) else []
            if broken:
                raise Violation("after a restart: " + "; ".join(broken))
            known = (self._node(state, node.durable, node.now_ms), None, ())
            node.edges["restart"] = known
        return known[0]

    def _node(self, state: State, durable: dict[Key, Record], now_ms: int) -> NearEnd:
        def look(renaming: Renaming) -> Hashable:
            return _state_face(state, durable, now_ms, renaming)

        faces = self._register.faces(look, self._ways)
        known = self._nodes.get(faces[0])
        if known is None:
            known = self._nodes[faces[0]] = NearEnd(state, durable, now_ms, faces)
            tasks = [record for record in durable.values() if isinstance(record, Task)]
            known.cancelled = frozenset(
                task.id for task in tasks if task.status is TaskStatus.CANCELLED
            )
            known.live_jobs = tuple(
                record
                for record in durable.values()
                if isinstance(record, Job) and record.status not in JOB_FINAL
            )
            known.tick_is_due = next_due(state, now_ms)
            known.silent = frozenset(
                worker.session
                for worker in state.each(Worker)
                if worker.status is WorkerStatus.ONLINE
                and now_ms - state.pulses[worker.id].seen_at_ms >= LEASE_MS
            )
        return known


def next_due(state: State, now_ms: int) -> bool:
    """Whether something waits for a tick now."""
    due = next_deadline(state)
    return due is not None and due <= now_ms


def _lost(state: State, durable: Mapping[Key, Record]) -> list[str]:
    """I1, I7, I8: what was acknowledged is durable as it is in memory, and results are those of the attempts that made them."""
    broken: list[str] = []
    for kind, rows in state.rows.items():
        for id, record in rows.items():
            if durable.get((kind, id)) is not record and durable.get((kind, id)) != record:
                broken.append(f"I20: {kind} {id} is not as it was stored")
    for record in durable.values():
        if isinstance(record, Attempt) and record.status is AttemptStatus.COMPLETED:
            if record.result != record.id.encode():
                broken.append(f"I7: attempt {record.id} has the result {record.result!r}")
        if isinstance(record, Task) and record.status is TaskStatus.COMPLETED:
            winners = [
                each
                for each in durable.values()
                if isinstance(each, Attempt)
                and each.task_id == record.id
                and each.status is AttemptStatus.COMPLETED
            ]
            # One that completed while it was being cancelled is kept, and its task may be tried again by request.
            if not winners or sum(not each.stop_cause for each in winners) > 1:
                broken.append(f"I8: task {record.id} completed {len(winners)} times")
    return broken


# faces --------------------------------------------------------------------------------------------------------------


def _state_face(
    state: State, durable: Mapping[Key, Record], now_ms: int, renaming: Renaming
) -> Hashable:
    index = state.index
    rows = sorted(durable.items())
    return (
        tuple(
            face
            for _, record in rows
            if (face := _record_face(state, record, now_ms, renaming)) is not None
        ),
        tuple(sorted(id for kind in state.rows for id in state.rows[kind] if kind == "job")),
        _index_face(index),
        _spared_face(state),
    )


def _index_face(index: Index) -> Hashable:
    """What is not the same after every way to the same rows: the turn that stages and workers stand in, and work cut into slices."""
    return (
        tuple((stage, tuple(queue)) for stage, queue in sorted(index.queues.items()) if queue),
        tuple(index.free),
        tuple(index.unfolding),
        tuple(index.cancelling),
        tuple(sorted(index.reviews.items())),
    )


def _spared_face(state: State) -> Hashable:
    """What a stop that starts over leaves alone."""
    spared = state.index.spared
    if not spared:
        return ()
    return tuple(
        task.id
        for task in state.each(Task)
        if task.job_id in spared and task.queued_at_ms > spared[task.job_id]
    )


def _record_face(state: State, record: Record, now_ms: int, renaming: Renaming) -> Hashable:
    if isinstance(record, Task):
        return _task_face(state, record, now_ms)
    if isinstance(record, Attempt):
        return _attempt_face(state, record, now_ms)
    if isinstance(record, Worker):
        watched = record.status in (WorkerStatus.ONLINE, WorkerStatus.REPLACED)
        pulse = state.pulses.get(record.id)
        silent_ms = now_ms - pulse.seen_at_ms if pulse is not None and watched else 0
        return (
            record.id,
            renamed(record.session, renaming),
            record.incarnation,
            record.status,
            record.apps,
            record.paused,
            min(silent_ms, LEASE_MS),
        )
    if isinstance(record, Job):
        return (record.id, record.status, record.started_at_ms is None, record.grace_ms)
    if isinstance(record, Project):
        return (record.id, record.status)
    if isinstance(record, Stage):
        return None  # it never changes
    return (KIND_OF[type(record)], repr(record))


def _task_face(state: State, task: Task, now_ms: int) -> Hashable:
    waits_ms = None
    if task.status is TaskStatus.BACKOFF and task.retry_at_ms is not None:
        waits_ms = max(task.retry_at_ms - now_ms, 0)
    elif task.status is TaskStatus.QUEUED:
        stage = state.find(Stage, task.stage_id)
        if stage is not None and stage.queue_ms_max is not None:
            waits_ms = max(task.queued_at_ms + stage.queue_ms_max - now_ms, 0)
    return (
        task.id,
        task.status,
        task.attempts,
        task.failures,
        task.losses,
        task.worker_id,
        waits_ms,
    )


def _attempt_face(state: State, attempt: Attempt, now_ms: int) -> Hashable:
    if attempt.status in ATTEMPT_FINAL:
        lost = attempt.cause in ("lost", "rejoined")
        return (attempt.id, attempt.worker_id, attempt.status, lost, attempt.late_outcome)
    left_ms = None
    if attempt.rung_until_ms is not None:
        left_ms = max(attempt.rung_until_ms - now_ms, 0)
    elif not attempt.rung and attempt.started_at_ms is not None:
        limit = state.index.run_ms_max(attempt)
        if limit is not None:
            left_ms = max(attempt.started_at_ms + limit + LEASE_MS - now_ms, 0)
    return (
        attempt.id,
        attempt.worker_id,
        attempt.incarnation,
        attempt.status,
        attempt.rung,
        left_ms,
        attempt.stop_cause,
        attempt.grace_ms,
    )
