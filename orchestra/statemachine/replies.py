"""What the core answers: the outcomes of commands and reports, and the views that queries show."""

from __future__ import annotations

from collections.abc import Mapping

from orchestra.statemachine import limits
from orchestra.statemachine.lifecycles import (
    AttemptStatus,
    JobStatus,
    ProjectStatus,
    TaskStatus,
    WorkerStatus,
)
from orchestra.statemachine.records import Amounts, Cause, OnFailure, Rung, Settings, Span
from orchestra.statemachine.values import value


@value
class JobAccepted:
    """A job is durable. ``repeated``: the key was used before, this is the first answer again."""

    job_id: str
    number: int
    tasks: int
    repeated: bool = False
    warnings: tuple[str, ...] = ()


@value
class JobChanged:
    job_id: str
    status: JobStatus


@value
class TaskChanged:
    task_id: str
    status: TaskStatus


@value
class ProjectChanged:
    project_id: str
    name: str
    status: ProjectStatus


@value
class WorkerChanged:
    worker_id: str
    status: WorkerStatus
    paused: bool


@value
class SettingsChanged:
    settings: Settings


@value
class Ticked:
    """``next_at_ms`` is when to tick again; None when nothing waits for time."""

    next_at_ms: int | None


@value
class Order:
    """
    What a worker has to do for one attempt: run it (``rung`` empty) or stop it, and how far up the ladder.

    ``item`` is the fan-out item as JSON (empty without one), ``position`` the task's position in the job, counted from 1, and
    ``offset`` its position in the stage, counted from 0. ``run_ms_max`` limits the run; the worker enforces it too.
    """

    attempt_id: str
    task_id: str
    job_id: str
    job_number: int
    job_name: str
    stage: str
    app: str
    template: bytes
    item: bytes
    position: int
    offset: int
    number: int
    needs: Amounts = ()
    run_ms_max: int | None = None
    grace_ms: int = limits.GRACE_MS
    rung: Rung = Rung.NONE
    reason: str = ""


@value
class WorkerJoined:
    """
    ``incarnation`` fences every later message. ``orders`` is all that the worker should hold now; ``foreign`` are attempts that it
    listed and that are not its own any more: it ends them.
    """

    worker_id: str
    incarnation: int
    lease_ms: int
    heartbeat_ms: int
    orders: tuple[Order, ...]
    foreign: tuple[str, ...]


@value
class HeartbeatAnswered:
    """``known`` is false when this incarnation is not the present one: the process must end its attempts and stop, or join anew."""

    known: bool
    lease_ms: int
    heartbeat_ms: int
    paused: bool = False
    orders: tuple[Order, ...] = ()
    foreign: tuple[str, ...] = ()
    remedy: str = ""


@value
class ReportsAnswered:
    """For each report in order: empty when it was taken, else why it was ignored."""

    ignored: tuple[str, ...]


@value
class ProjectView:
    id: str
    number: int
    name: str
    owner: str
    status: ProjectStatus
    created_at_ms: int


@value
class StageView:
    id: str
    index: int
    name: str
    app: str
    template: bytes
    over: Span | tuple[bytes, ...] | None
    first: int
    size: int
    after: tuple[int, ...]
    pairwise: tuple[int, ...]
    needs: Amounts
    labels: tuple[str, ...]
    priority: int
    retries: int
    queue_ms_max: int | None
    run_ms_max: int | None


@value
class JobView:
    """A job with the count of its tasks by status. Times in milliseconds since the epoch."""

    id: str
    number: int
    project: str
    name: str
    owner: str
    status: JobStatus
    priority: int
    tasks: int
    counts: Mapping[str, int]
    on_failure: OnFailure
    submitted_at_ms: int
    started_at_ms: int | None
    ended_at_ms: int | None
    reason: str
    stages: tuple[StageView, ...] = ()


@value
class AttemptView:
    """One attempt. ``progress`` from 0 to 1 and ``progress_message`` are soft: known only while it runs."""

    id: str
    number: int
    worker: str
    status: AttemptStatus
    leased_at_ms: int
    started_at_ms: int | None
    ended_at_ms: int | None
    cause: Cause
    message: str
    exit_code: int | None
    signal: str
    result: bytes | None
    rung: Rung
    rung_until_ms: int | None
    stop_reason: str
    late_outcome: str
    late_at_ms: int | None
    progress: float | None = None
    progress_message: str = ""


@value
class TaskView:
    """One task. ``selector`` is the form that people type: job number, dot, position."""

    id: str
    selector: str
    job_id: str
    stage: str
    position: int
    offset: int
    item: bytes
    status: TaskStatus
    queued_at_ms: int
    failures: int
    losses: int
    retry_at_ms: int | None
    ended_at_ms: int | None
    cause: Cause
    reason: str
    worker: str
    attempts: tuple[AttemptView, ...] = ()


@value
class WorkerView:
    id: str
    number: int
    name: str
    incarnation: int
    status: WorkerStatus
    paused: bool
    pause_reason: str
    slots: int
    held: int
    apps: tuple[str, ...]
    labels: tuple[str, ...]
    capacity: Amounts
    used: Amounts
    host: Mapping[str, str]
    joined_at_ms: int
    left_at_ms: int | None
    seen_at_ms: int | None
    load: float
    memory_free_bytes: int
    disk_free_bytes: int


@value
class JobPage:
    """``next`` is the cursor of the following page; empty on the last."""

    items: tuple[JobView, ...]
    next: str


@value
class TaskPage:
    items: tuple[TaskView, ...]
    next: str


@value
class WorkerPage:
    items: tuple[WorkerView, ...]
    next: str


@value
class ProjectPage:
    items: tuple[ProjectView, ...]
    next: str


@value
class TaskResult:
    """The end of one task: its result as JSON when it completed, else the reason why there is none."""

    task_id: str
    position: int
    status: TaskStatus
    result: bytes | None
    reason: str


@value
class ResultPage:
    """Results in order of position. ``done``: all tasks of the asked stages have ended; ``ended``: the job has."""

    items: tuple[TaskResult, ...]
    next: str
    done: bool
    ended: bool


@value
class Reason:
    """
    One thing that keeps work waiting, or made it end.

    ``code`` is stable for programs, ``text`` is for people, ``remedy`` what would change it (empty: only time), ``until_ms`` when it
    passes by itself (None: unknown).
    """

    code: str
    text: str
    remedy: str = ""
    until_ms: int | None = None


@value
class WhyAnswered:
    """Ranked reasons, the one that matters most first."""

    subject: str
    status: str
    reasons: tuple[Reason, ...]


@value
class Overview:
    """The whole in numbers. ``quarantined`` names stored rows that could not be read at the start."""

    at_ms: int
    jobs: Mapping[str, int]
    tasks: Mapping[str, int]
    workers: Mapping[str, int]
    slots: int
    slots_held: int
    quarantined: tuple[str, ...] = ()
