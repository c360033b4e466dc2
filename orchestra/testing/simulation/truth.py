"""What is really so in a simulation, whatever anyone believes, and what must hold of it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from orchestra.ports import AttemptSink, Batch, Ended, Engine
from orchestra.statemachine import load
from orchestra.statemachine.lifecycles import (
    JOB_FINAL,
    TASK_FINAL,
    AttemptStatus,
    TaskStatus,
)
from orchestra.statemachine.records import KIND_OF, Attempt, Cause, Job, Record, Task
from orchestra.statemachine.replies import Order
from orchestra.testing.diagram import Line
from orchestra.testing.invariants import broken_in_state
from orchestra.testing.simulation.papers import Papers


class Violated(AssertionError):
    """A simulation broke an invariant."""


class Truth:
    """
    What runs, what was done, and what is stored.

    Args:
        now_ms: Tells the simulated time.
        asleep: Whether a place is frozen, or was until a moment ago: what it runs meanwhile, nobody can end.
        strict: Workers end what runs before their lease ends, so nothing of a task runs twice at a time.
    """

    def __init__(
        self, now_ms: Callable[[], int], asleep: Callable[[str], bool], *, strict: bool
    ) -> None:
        self.now_ms = now_ms
        self.strict = strict
        self.lines: list[Line] = []
        self.alive: dict[str, dict[str, str]] = {}
        """Task → attempt → the place where it runs."""
        self.done: dict[str, bytes | None] = {}
        self.rows: dict[tuple[str, str], Record] = {}
        self.damaged: set[str] = set()
        """Jobs of which a stored row was damaged: nothing can be said of their rows."""
        self.aside: set[str] = set()
        """Jobs that the server has set aside for that and named; they never end."""
        self.retried = False
        self.first: Violated | None = None
        """The first violation: what follows from it says less."""
        self.papers = Papers(self.violated)
        self._asleep = asleep
        self._begun: set[str] = set()

    def tell(self, who: str, what: str) -> None:
        """Note what happened."""
        self.lines.append(Line(self.now_ms(), who, what))

    def violated(self, what: str) -> None:
        """An invariant is broken. The simulation ends when it looks at `first`."""
        if self.first is None:
            self.first = Violated(what)
            self.tell("world", what)

    # what runs ----------------------------------------------------------------------------------------------------

    def born(self, order: Order, place: str) -> None:
        """The work of an attempt begins."""
        self.tell(place, f"runs {_called(order)}")
        if order.attempt_id in self._begun:
            self.violated(f"I4: {_called(order)} begins a second time, on {place}")
        self._begun.add(order.attempt_id)
        others = self.alive.setdefault(order.task_id, {})
        awake = {id: where for id, where in others.items() if not self._asleep(where)}
        if awake and self.strict:
            where = ", ".join(awake.values())
            self.violated(f"I3: {_called(order)} begins on {place} while its task runs on {where}")
        others[order.attempt_id] = place

    def ended(self, order: Order, place: str, ended: Ended) -> None:
        """Nothing of an attempt runs any more."""
        self.tell(place, f"ends {_called(order)}: {ended.outcome}")
        if ended.outcome == "completed":
            self.done[order.attempt_id] = ended.result
        self._died(order.task_id, order.attempt_id)

    def all_died(self, place: str) -> None:
        """A process is gone, and all that it ran."""
        for task_id, others in list(self.alive.items()):
            for attempt_id, where in list(others.items()):
                if where == place:
                    self._died(task_id, attempt_id)

    def _died(self, task_id: str, attempt_id: str) -> None:
        others = self.alive.get(task_id, {})
        others.pop(attempt_id, None)
        if not others:
            self.alive.pop(task_id, None)

    # what is stored -----------------------------------------------------------------------------------------------

    def committed(self, batch: Batch) -> None:
        """A batch is durable from now on."""
        for key in batch.drops:
            self.rows.pop(key, None)
        for record in batch.puts:
            if isinstance(record, Task):
                self._check_task(record)
            self.rows[KIND_OF[type(record)], record.id] = record
        self.papers.committed(batch)
        self.check()

    def _check_task(self, task: Task) -> None:
        before = self.rows.get(("task", task.id))
        if not isinstance(before, Task):
            return
        if before.status in TASK_FINAL and task.status is not before.status and not self.retried:
            self.violated(f"I6: a task was {before.status} and is {task.status}")
        if task.status is TaskStatus.CANCELLED and before.status is not task.status and self.strict:
            awake = [
                where for where in self.alive.get(task.id, {}).values() if not self._asleep(where)
            ]
            if awake:
                self.violated(f"I11: a task shows cancelled and runs on {', '.join(awake)}")

    def check(self) -> None:
        """Every invariant of what is stored."""
        finished = {
            record.id
            for record in self.rows.values()
            if isinstance(record, Job) and record.status in JOB_FINAL
        }
        live = [
            record
            for (kind, id), record in self.rows.items()
            if kind == "receipt" or getattr(record, "job_id", id) not in finished | self.damaged
        ]
        now_ms = self.now_ms()
        for broken in broken_in_state(load(live, now_ms), now_ms):
            self.violated(broken)

    # the reckoning ------------------------------------------------------------------------------------------------

    def unfinished(self) -> list[Job]:
        """Jobs that have not ended."""
        jobs = (record for record in self.rows.values() if isinstance(record, Job))
        return [job for job in jobs if job.status not in JOB_FINAL and job.id not in self.aside]

    def reckon(self) -> None:
        """What must hold when everything has ended."""
        for job in self.unfinished():
            self.violated(f"I9: job {job.number} is {job.status} and never ends")
        for others in self.alive.values():
            self.violated(
                f"I12: everything has ended, and work runs on {', '.join(others.values())}"
            )
        attempts: dict[str, list[Attempt]] = {}
        for record in self.rows.values():
            if isinstance(record, Attempt):
                attempts.setdefault(record.task_id, []).append(record)
        for record in self.rows.values():
            if isinstance(record, Task) and record.job_id not in self.damaged:
                self._reckon_task(record, attempts.get(record.id, []))

    def _reckon_task(self, task: Task, attempts: list[Attempt]) -> None:
        if task.status not in TASK_FINAL:
            self.violated(f"I9: a task is {task.status}, and its job has ended")
        if len(attempts) != task.attempts:
            self.violated(f"I4: a task counts {task.attempts} attempts of {len(attempts)}")
        completed = [each for each in attempts if each.status is AttemptStatus.COMPLETED]
        for attempt in attempts:
            if attempt.status is AttemptStatus.COMPLETED or attempt.cause is Cause.ERROR:
                self.papers.reckon(attempt.id)
        for attempt in completed:
            if self.done.get(attempt.id, b"\0") != attempt.result:
                self.violated("I7: an attempt has a result that nobody made")
        if len(completed) > 1 and not self.retried:
            self.violated("I8: a task completed twice")
        # What completed while its task was being cancelled is cancelled all the same.
        wanted = {TaskStatus.COMPLETED: True, TaskStatus.FAILED: False}.get(task.status)
        if wanted not in (None, bool(completed)) and not self.retried:
            self.violated(
                f"I8: a task is {task.status} and {len(completed)} of its attempts completed"
            )


class WatchedEngine:
    """
    An engine whose work is seen to begin and to end. See `ports.Engine`.

    Args:
        engine: Runs it.
        truth: Is told.
        place: Where that is.
    """

    def __init__(self, engine: Engine, truth: Truth, place: str) -> None:
        self._engine = engine
        self._truth = truth
        self._place = place
        self.apps = engine.apps

    async def start(self, order: Order, sink: AttemptSink) -> None:
        """As `ports.Engine.start`."""
        self._truth.born(order, self._place)
        await self._engine.start(order, _WatchedSink(order, sink, self._truth, self._place))

    async def stop(self, attempt_id: str, rung: str) -> None:
        """As `ports.Engine.stop`."""
        await self._engine.stop(attempt_id, rung)

    async def query(self) -> tuple[str, ...]:
        """As `ports.Engine.query`."""
        return await self._engine.query()

    def extend(self, until_s: float) -> None:
        """As `ports.Engine.extend`."""
        self._engine.extend(until_s)

    async def __aenter__(self) -> WatchedEngine:
        await self._engine.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._engine.__aexit__(*exc)


@attrs.frozen(slots=True)
class _WatchedSink:
    order: Order
    sink: AttemptSink
    truth: Truth
    place: str

    async def running(self, attempt_id: str) -> None:
        await self.sink.running(attempt_id)

    async def progress(self, attempt_id: str, fraction: float, message: str) -> None:
        await self.sink.progress(attempt_id, fraction, message)

    async def output(self, attempt_id: str, stream: str, data: bytes) -> None:
        self.truth.papers.wrote(attempt_id, stream, data)
        await self.sink.output(attempt_id, stream, data)

    async def ended(self, attempt_id: str, ended: Ended) -> None:
        self.truth.ended(self.order, self.place, ended)
        await self.sink.ended(attempt_id, ended)


def _called(order: Order) -> str:
    return f"{order.job_number}.{order.position}, try {order.number}"
