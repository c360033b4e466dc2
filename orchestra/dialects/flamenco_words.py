"""
Flamenco's status words and the core's: total both ways, so that no status of either side is without a word on the other.

Source: Flamenco's Manager API document, and what its manager and workers of 2015 say on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from orchestra.statemachine.lifecycles import JobStatus, TaskStatus, WorkerStatus
from orchestra.statemachine.reports import Happening


class FlamencoTask(StrEnum):
    """What a task is said to be."""

    READY = "ready"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    ABORTED = "aborted"


class FlamencoJob(StrEnum):
    """What a job is said to be."""

    READY = "ready"
    RUNNING = "running"
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"


class FlamencoWorker(StrEnum):
    """What a worker is said to be, besides ``connection``."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    RENDERING = "rendering"


class Connection(StrEnum):
    """Whether a worker is heard."""

    ONLINE = "online"
    OFFLINE = "offline"


T, F = TaskStatus, FlamencoTask
TASK_WORD: Mapping[TaskStatus, FlamencoTask] = MappingProxyType(
    {
        T.WAITING: F.READY,
        T.QUEUED: F.READY,
        T.BACKOFF: F.READY,
        T.LEASED: F.RUNNING,
        T.RUNNING: F.RUNNING,
        T.CANCELLING: F.ABORTED,
        T.COMPLETED: F.FINISHED,
        T.FAILED: F.FAILED,
        T.SKIPPED: F.ABORTED,
        T.CANCELLED: F.ABORTED,
    }
)
"""A task that waits, for whatever, is ready to Flamenco; one that will never run was aborted."""

JOB_WORD: Mapping[JobStatus, FlamencoJob] = MappingProxyType(
    {
        JobStatus.QUEUED: FlamencoJob.READY,
        JobStatus.RUNNING: FlamencoJob.RUNNING,
        JobStatus.PAUSED: FlamencoJob.STOPPED,
        JobStatus.CANCELLING: FlamencoJob.STOPPED,
        JobStatus.COMPLETED: FlamencoJob.COMPLETED,
        JobStatus.FAILED: FlamencoJob.FAILED,
        JobStatus.CANCELLED: FlamencoJob.STOPPED,
    }
)

JOB_AS_TASK: Mapping[JobStatus, FlamencoTask] = MappingProxyType(
    {
        JobStatus.QUEUED: F.READY,
        JobStatus.RUNNING: F.RUNNING,
        JobStatus.PAUSED: F.READY,
        JobStatus.CANCELLING: F.ABORTED,
        JobStatus.COMPLETED: F.FINISHED,
        JobStatus.FAILED: F.FAILED,
        JobStatus.CANCELLED: F.ABORTED,
    }
)
"""A task that was posted is a job here: its chunks are the tasks."""

POSTED_WORD: Mapping[FlamencoTask, str] = MappingProxyType(
    {word: "rendering" if word is F.RUNNING else word.value for word in F}
)
"""In the answer to a posted task the document says ``rendering`` where lists of tasks say ``running``."""

CONNECTION: Mapping[WorkerStatus, Connection] = MappingProxyType(
    {
        WorkerStatus.ONLINE: Connection.ONLINE,
        WorkerStatus.LOST: Connection.OFFLINE,
        WorkerStatus.REPLACED: Connection.OFFLINE,
        WorkerStatus.LEFT: Connection.OFFLINE,
    }
)

HAPPENING: Mapping[FlamencoTask, Happening] = MappingProxyType(
    {
        F.READY: Happening.STOPPED,
        F.RUNNING: Happening.PROGRESS,
        F.FINISHED: Happening.COMPLETED,
        F.FAILED: Happening.FAILED,
        F.ABORTED: Happening.FAILED,
    }
)
"""What a worker's report means. ``aborted`` without a stop that was asked for is a kill from outside: a failure."""


def worker_word(*, paused: bool, held: int) -> FlamencoWorker:
    """A worker's status: disabled goes before rendering."""
    if paused:
        return FlamencoWorker.DISABLED
    return FlamencoWorker.RENDERING if held else FlamencoWorker.ENABLED


def report_word(text: str) -> FlamencoTask | None:
    """The word of a worker's report; None when it is none."""
    return next((word for word in FlamencoTask if word.value == text), None)


LATER_WORDS: Mapping[str, FlamencoTask] = MappingProxyType(
    {
        "active": FlamencoTask.RUNNING,
        "completed": FlamencoTask.FINISHED,
        "canceled": FlamencoTask.ABORTED,
    }
)
"""What the workers of the following months say instead."""


def read_report(text: str) -> FlamencoTask | None:
    """As `report_word`, and the words of later workers too."""
    return report_word(text) or LATER_WORDS.get(text)
