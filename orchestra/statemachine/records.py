"""
The rows of the core: what is durable, frozen, and replaced as a whole.

Times are milliseconds since the epoch (UTC) as the orchestrator's clock tells them: it never goes back and does not
follow steps of the wall clock. Amounts of resources are integers in thousandths (``cpu`` 0.5 is 500), so that sums are exact.
Work's own bytes (options, results) are opaque here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeVar

import attrs

from orchestra.statemachine import limits
from orchestra.statemachine.lifecycles import (
    AttemptStatus,
    JobStatus,
    ProjectStatus,
    TaskStatus,
    WorkerStatus,
)
from orchestra.statemachine.values import value

Amounts = tuple[tuple[str, int], ...]
"""Counted resources: (name, thousandths), sorted by name, each once."""


class Cause(StrEnum):
    """Why an attempt or a task ended as it did."""

    NONE = ""
    ERROR = "error"
    EXIT = "exit"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    LOST = "lost"
    REJOINED = "rejoined"
    UNSTARTABLE = "unstartable"
    CANCELLED = "cancelled"
    QUEUE_TIMEOUT = "queue-timeout"
    UPSTREAM = "upstream"
    POISON = "poison"


class Rung(StrEnum):
    """The ladder of a stop, lowest first."""

    NONE = ""
    ASKED = "asked"
    TERM = "term"
    KILL = "kill"
    UNCONFIRMED = "unconfirmed"


class OnFailure(StrEnum):
    """What a job does when one of its tasks failed for good."""

    CONTINUE = "continue"
    STOP = "stop"


@value
class Span:
    """A fan-out over ``range(start, stop, step)``: no item is stored."""

    start: int
    stop: int
    step: int = 1

    def __len__(self) -> int:
        return len(range(self.start, self.stop, self.step))


@value
class Project:
    """Who asked, and what belongs together. Jobs of unknown projects open them."""

    id: str
    number: int
    name: str
    owner: str
    status: ProjectStatus
    created_at_ms: int


@value
class Job:
    """One submission: stages in a directed graph without circles, unfolded into tasks."""

    id: str
    number: int
    project_id: str
    name: str
    owner: str
    status: JobStatus
    priority: int
    stages: int
    tasks: int
    on_failure: OnFailure
    submitted_at_ms: int
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    reason: str = ""
    grace_ms: int | None = None
    counts: tuple[tuple[str, int], ...] = ()
    """Tasks by status, written when the job ends, so that a list of old jobs needs no tasks."""


@value
class Stage:
    """
    One kind of work in a job, done once or for each item of a fan-out. Never changes after submission.

    Its tasks have the positions ``first`` to ``first + size - 1``. ``after`` names stages (by index) that must complete
    as a whole; ``pairwise`` names stages of the same size of which only the task with the same item must complete.
    """

    id: str
    job_id: str
    index: int
    name: str
    app: str
    template: bytes
    over: Span | tuple[bytes, ...] | None
    first: int
    size: int
    after: tuple[int, ...] = ()
    pairwise: tuple[int, ...] = ()
    needs: Amounts = ()
    labels: tuple[str, ...] = ()
    priority: int = 0
    retries: int = 0
    backoff_ms: int = limits.BACKOFF_MS
    backoff_ms_max: int = limits.BACKOFF_MS_MAX
    queue_ms_max: int | None = None
    run_ms_max: int | None = None
    grace_ms: int = limits.GRACE_MS


@value
class Task:
    """One piece of work: the unit that is queued, leased and ended exactly once."""

    id: str
    job_id: str
    stage_id: str
    position: int
    status: TaskStatus
    queued_at_ms: int
    attempts: int = 0
    failures: int = 0
    losses: int = 0
    worker_id: str | None = None
    retry_at_ms: int | None = None
    ended_at_ms: int | None = None
    cause: Cause = Cause.NONE
    reason: str = ""


@value
class Attempt:
    """
    One try at a task on one worker: the life of a container in the TANGO document.

    Its number grows with each lease and, with the worker's incarnation, fences reports that come too late. A late result is kept in
    the ``late_`` fields as evidence and changes nothing.
    """

    id: str
    task_id: str
    job_id: str
    number: int
    worker_id: str
    incarnation: int
    status: AttemptStatus
    leased_at_ms: int
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    cause: Cause = Cause.NONE
    message: str = ""
    exit_code: int | None = None
    signal: str = ""
    result: bytes | None = None
    rung: Rung = Rung.NONE
    rung_until_ms: int | None = None
    stop_reason: str = ""
    stop_cause: Cause = Cause.NONE
    grace_ms: int = limits.GRACE_MS
    late_outcome: str = ""
    late_result: bytes | None = None
    late_at_ms: int | None = None


@value
class Worker:
    """
    One process that runs attempts. Its identity is (name, incarnation): a new process under the same name gets a
    row of its own with the next incarnation, and the former one's lease runs out (its work may still be alive). A process that was
    given up and joins again keeps its row, and is its next incarnation.

    ``session`` is drawn by the process at its start, so that a reconnect is told from a replacement.
    """

    id: str
    number: int
    name: str
    incarnation: int
    session: str
    status: WorkerStatus
    slots: int
    apps: tuple[str, ...]
    labels: tuple[str, ...]
    capacity: Amounts
    host: Mapping[str, str]
    joined_at_ms: int
    owner: str = ""
    paused: bool = False
    pause_reason: str = ""
    left_at_ms: int | None = None


@value
class Receipt:
    """What an idempotency key was first used for. ``id`` is the principal and the key."""

    id: str
    fingerprint: str
    job_id: str
    number: int
    tasks: int
    until_ms: int


@value
class Counters:
    """The last numbers given out; numbers are never used again."""

    id: str = "counters"
    projects: int = 0
    jobs: int = 0
    workers: int = 0


@value
class Settings:
    """
    What the core goes by; changed by `Reconfigure`, so a replay sees the settings of its time. Milliseconds.

    ``promised_until_ms`` follows from a lease that was made shorter: until then workers may go by the longer one, of which they were told.
    """

    id: str = "settings"
    lease_ms: int = limits.LEASE_MS
    heartbeat_ms: int = limits.HEARTBEAT_MS
    retention_ms: int = limits.RETENTION_MS
    aging_ms: int = limits.AGING_MS
    reserve_after_ms: int = limits.RESERVE_AFTER_MS
    losses_max: int = limits.LOSSES_MAX
    promised_until_ms: int = 0


Living = Project | Job | Task | Attempt | Worker
"""Records with a status, which moves along the rows of `lifecycles.TABLES`."""

Record = Project | Job | Stage | Task | Attempt | Worker | Receipt | Counters | Settings

KINDS: Mapping[str, type[Record]] = MappingProxyType(
    {
        "project": Project,
        "job": Job,
        "stage": Stage,
        "task": Task,
        "attempt": Attempt,
        "worker": Worker,
        "receipt": Receipt,
        "counters": Counters,
        "settings": Settings,
    }
)
KIND_OF: Mapping[type[object], str] = MappingProxyType(
    {record_type: kind for kind, record_type in KINDS.items()}
)


@value
class Pulse:
    """Soft state, lost at a restart: when a worker was last heard, and what it said of its host."""

    seen_at_ms: int
    load: float = 0.0
    memory_free_bytes: int = 0
    disk_free_bytes: int = 0


@value
class Progress:
    """Soft state, lost at a restart: how far an attempt says it is (0 to 1), and in which words."""

    fraction: float
    message: str
    at_ms: int


R = TypeVar("R", bound=Record)

_GETTERS: Mapping[type[object], Callable[[object], Iterable[Any]]] = {
    kind: attrgetter(*(field.name for field in attrs.fields(kind))) for kind in KINDS.values()
}
_PLACES: Mapping[type[object], Mapping[str, int]] = {
    kind: {field.name: place for place, field in enumerate(attrs.fields(kind))}
    for kind in KINDS.values()
}


def evolve(record: R, **changes: object) -> R:
    """As ``attrs.evolve``, a third of its cost: a new record with some fields changed."""
    kind = type(record)
    values = list(_GETTERS[kind](record))
    places = _PLACES[kind]
    for name, changed in changes.items():
        values[places[name]] = changed
    return kind(*values)
