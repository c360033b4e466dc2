"""
What can be asked of the core. A command may be refused; its type parameter is the type of its reply.

All fields are plain values, so a command can be stored, sent and replayed.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs

from orchestra.statemachine import limits
from orchestra.statemachine.records import Amounts, OnFailure, Span
from orchestra.statemachine.replies import (
    JobAccepted,
    JobChanged,
    ProjectChanged,
    SettingsChanged,
    TaskChanged,
    Ticked,
    WorkerChanged,
    WorkerJoined,
)
from orchestra.statemachine.values import value

R = TypeVar("R", covariant=True)


class Command(Generic[R]):
    """Something to do, which may be refused. ``R`` is the type of the reply."""

    __slots__ = ()


@value
class StageDraft:
    """
    One stage of a job to submit; see `records.Stage` for the meaning of the fields.

    ``after`` and ``pairwise`` name earlier or later stages by name; the graph must have no circle. ``priority`` is added to the job's.
    """

    name: str
    app: str
    template: bytes = b"{}"
    over: Span | tuple[bytes, ...] | None = None
    after: tuple[str, ...] = ()
    pairwise: tuple[str, ...] = ()
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
class SubmitJob(Command[JobAccepted]):
    """Accept a job. With the same key and the same content again, the first job is the answer."""

    name: str
    stages: tuple[StageDraft, ...]
    project: str = "default"
    priority: int = 0
    on_failure: OnFailure = OnFailure.CONTINUE


@value
class CancelJob(Command[JobChanged]):
    """Ask a job to end. Queued tasks end at once; live ones climb the ladder asked, TERM, KILL."""

    job_id: str
    reason: str = ""
    grace_ms: int | None = None


@value
class PauseJob(Command[JobChanged]):
    """Start no further task of a job; what runs goes on."""

    job_id: str
    reason: str = ""


@value
class ResumeJob(Command[JobChanged]):
    """Go on with a paused job."""

    job_id: str


@value
class CancelTask(Command[TaskChanged]):
    """Ask one task to end; as `CancelJob`."""

    task_id: str
    reason: str = ""
    grace_ms: int | None = None


@value
class RetryTask(Command[TaskChanged]):
    """Try a failed or cancelled task again: a new attempt, with fresh counts of failures and losses."""

    task_id: str


@value
class OpenProject(Command[ProjectChanged]):
    """Open a project by name; one that is open already is the answer as it is."""

    name: str


@value
class ArchiveProject(Command[ProjectChanged]):
    """Close a project for new jobs."""

    name: str


@value
class JoinWorker(Command[WorkerJoined]):
    """
    A worker's process introduces itself, at its start and after each reconnect.

    The same ``session`` again is a reconnect: attempts listed in ``holding`` are adopted. Another session under the name is a
    new incarnation: what the former one held is lost at once and runs elsewhere.
    """

    name: str
    session: str
    slots: int
    apps: tuple[str, ...]
    labels: tuple[str, ...] = ()
    capacity: Amounts = ()
    host: dict[str, str] = attrs.field(factory=dict[str, str])
    holding: tuple[str, ...] = ()


@value
class LeaveWorker(Command[WorkerChanged]):
    """A worker says goodbye; whatever it still held is lost and runs elsewhere."""

    worker_id: str
    incarnation: int


@value
class PauseWorker(Command[WorkerChanged]):
    """Give a worker nothing new; what it runs goes on."""

    worker_id: str
    reason: str = ""


@value
class ResumeWorker(Command[WorkerChanged]):
    """Give a paused worker work again."""

    worker_id: str


@value
class Reconfigure(Command[SettingsChanged]):
    """Change settings; None leaves one as it is. Milliseconds."""

    lease_ms: int | None = None
    heartbeat_ms: int | None = None
    retention_ms: int | None = None
    aging_ms: int | None = None
    reserve_after_ms: int | None = None
    losses_max: int | None = None


@value
class Tick(Command[Ticked]):
    """Time has passed: act on every deadline that is due, and go on with work cut into slices."""
