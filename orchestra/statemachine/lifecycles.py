"""
Every status, every verb and every legal move, in one place.

The core moves records only along these rows, docs/lifecycles.md is drawn from them, and tests walk them. A status is
stored under its string, so renaming one is a migration.

Sources: the container state machine of the TANGO REST guide (`ATTEMPT`), and the vocabulary of docs/glossary.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from orchestra.statemachine.table import Row, Table


class ProjectStatus(StrEnum):
    OPEN = "open"
    ARCHIVED = "archived"


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskStatus(StrEnum):
    WAITING = "waiting"
    QUEUED = "queued"
    BACKOFF = "backoff"
    LEASED = "leased"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class AttemptStatus(StrEnum):
    """
    The words of the TANGO document's container diagram. Its ``ready`` is not here: it is said of the place (a slot) before an
    attempt and after one, and an attempt begins with ``start()``.
    """

    STARTED = "started"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


class WorkerStatus(StrEnum):
    ONLINE = "online"
    LOST = "lost"
    REPLACED = "replaced"
    LEFT = "left"


class Verb(StrEnum):
    CREATE = "create"
    ARCHIVE = "archive"
    REOPEN = "reopen"
    RUN = "run"
    PAUSE = "pause"
    RESUME = "resume"
    CONTINUE = "continue"
    CANCEL = "cancel"
    CLOSE = "close"
    COMPLETE = "complete"
    FAIL = "fail"
    REVIVE = "revive"
    HOLD = "hold"
    BURY = "bury"
    PROMOTE = "promote"
    LEASE = "lease"
    RETRY = "retry"
    BACK_OFF = "back-off"
    EXPIRE = "expire"
    SKIP = "skip"
    START = "start"
    STOP = "stop"
    LOSE = "lose"
    RETURN = "return"
    LEAVE = "leave"
    REPLACE = "replace"


P, J, T, A, W, V = ProjectStatus, JobStatus, TaskStatus, AttemptStatus, WorkerStatus, Verb

PROJECT = Table(
    "project",
    (
        Row(None, V.CREATE, P.OPEN, "first named"),
        Row(P.OPEN, V.ARCHIVE, P.ARCHIVED, "closed for new jobs"),
        Row(P.ARCHIVED, V.REOPEN, P.OPEN, "open for new jobs again"),
    ),
)

JOB = Table(
    "job",
    (
        Row(None, V.CREATE, J.QUEUED, "submitted"),
        Row(J.QUEUED, V.RUN, J.RUNNING, "its first task was given to a worker"),
        Row(J.QUEUED, V.PAUSE, J.PAUSED, "paused before anything ran"),
        Row(J.RUNNING, V.PAUSE, J.PAUSED, "no further task starts; what runs goes on"),
        Row(J.PAUSED, V.RESUME, J.QUEUED, "resumed; nothing has run yet"),
        Row(J.PAUSED, V.CONTINUE, J.RUNNING, "resumed; tasks have run before"),
        Row(J.QUEUED, V.CANCEL, J.CANCELLING, "asked to cancel"),
        Row(J.RUNNING, V.CANCEL, J.CANCELLING, "asked to cancel"),
        Row(J.PAUSED, V.CANCEL, J.CANCELLING, "asked to cancel"),
        Row(J.CANCELLING, V.CLOSE, J.CANCELLED, "nothing of it is alive any more"),
        Row(J.QUEUED, V.COMPLETE, J.COMPLETED, "it has no tasks"),
        Row(J.QUEUED, V.FAIL, J.FAILED, "every task ended without running, not all well"),
        Row(J.RUNNING, V.COMPLETE, J.COMPLETED, "every task completed"),
        Row(J.RUNNING, V.FAIL, J.FAILED, "every task ended, not all well"),
        Row(J.PAUSED, V.COMPLETE, J.COMPLETED, "what still ran when it was paused completed it"),
        Row(J.PAUSED, V.FAIL, J.FAILED, "what still ran when it was paused ended it"),
        Row(J.FAILED, V.REVIVE, J.RUNNING, "a task of it is tried again by request"),
        Row(J.CANCELLED, V.REVIVE, J.RUNNING, "a task of it is tried again by request"),
    ),
)

TASK = Table(
    "task",
    (
        Row(None, V.HOLD, T.WAITING, "it comes after tasks that have not completed"),
        Row(None, V.CREATE, T.QUEUED, "nothing holds it back"),
        Row(None, V.BURY, T.CANCELLED, "its job was cancelled before it was unfolded"),
        Row(T.WAITING, V.PROMOTE, T.QUEUED, "everything it comes after completed"),
        Row(T.WAITING, V.SKIP, T.SKIPPED, "something it comes after will never complete"),
        Row(T.WAITING, V.CANCEL, T.CANCELLED, "cancelled before it was queued"),
        Row(T.QUEUED, V.LEASE, T.LEASED, "given to a worker"),
        Row(T.QUEUED, V.CANCEL, T.CANCELLED, "cancelled before it was given out"),
        Row(T.QUEUED, V.EXPIRE, T.FAILED, "its queue time limit passed"),
        Row(T.BACKOFF, V.RETRY, T.QUEUED, "its pause before the next try is over"),
        Row(T.BACKOFF, V.CANCEL, T.CANCELLED, "cancelled between two tries"),
        Row(T.LEASED, V.RUN, T.RUNNING, "the worker reports that it runs"),
        Row(T.LEASED, V.RETRY, T.QUEUED, "the worker was lost; it runs elsewhere"),
        Row(T.LEASED, V.BACK_OFF, T.BACKOFF, "could not be started; tries are left"),
        Row(T.LEASED, V.FAIL, T.FAILED, "could not be started; no tries are left"),
        Row(T.LEASED, V.CANCEL, T.CANCELLING, "asked to cancel"),
        Row(T.RUNNING, V.COMPLETE, T.COMPLETED, "the worker reports success"),
        Row(T.RUNNING, V.RETRY, T.QUEUED, "the worker was lost; it runs elsewhere"),
        Row(T.RUNNING, V.BACK_OFF, T.BACKOFF, "failed; tries are left"),
        Row(T.RUNNING, V.FAIL, T.FAILED, "failed; no tries are left"),
        Row(T.RUNNING, V.CANCEL, T.CANCELLING, "asked to cancel"),
        Row(T.CANCELLING, V.CLOSE, T.CANCELLED, "nothing of it is alive any more"),
        Row(T.FAILED, V.REVIVE, T.QUEUED, "tried again by request"),
        Row(T.CANCELLED, V.REVIVE, T.QUEUED, "tried again by request"),
        Row(
            T.CANCELLED,
            V.HOLD,
            T.WAITING,
            "tried again by request, after others that have not completed",
        ),
        Row(T.SKIPPED, V.REVIVE, T.WAITING, "what it comes after is tried again"),
    ),
)

ATTEMPT = Table(
    "attempt",
    (
        Row(None, V.START, A.STARTED, "start() is sent to a worker with a place that is ready"),
        Row(A.STARTED, V.RUN, A.RUNNING, "the work runs"),
        Row(A.STARTED, V.FAIL, A.FAILED, "an error before it ran, or the worker was lost"),
        Row(A.STARTED, V.STOP, A.STOPPED, "stop() before it ran"),
        Row(A.RUNNING, V.STOP, A.STOPPED, "stop(), confirmed: nothing of it is alive"),
        Row(A.RUNNING, V.FAIL, A.FAILED, "an error while it ran, or the worker was lost"),
        Row(A.RUNNING, V.COMPLETE, A.COMPLETED, "finished; the place is ready for the next"),
    ),
)

WORKER = Table(
    "worker",
    (
        Row(None, V.CREATE, W.ONLINE, "joined for the first time"),
        Row(W.ONLINE, V.LOSE, W.LOST, "silent for a whole lease; its work runs elsewhere"),
        Row(W.LOST, V.RETURN, W.ONLINE, "joined again"),
        Row(W.ONLINE, V.LEAVE, W.LEFT, "said goodbye"),
        Row(W.LOST, V.LEAVE, W.LEFT, "said goodbye after a silence"),
        Row(W.ONLINE, V.REPLACE, W.REPLACED, "a new process took its name; its lease runs out"),
        Row(W.LOST, V.REPLACE, W.LEFT, "a new process took its name after a silence"),
        Row(W.REPLACED, V.LOSE, W.LEFT, "its lease ran out; its work runs elsewhere"),
        Row(W.REPLACED, V.LEAVE, W.LEFT, "said goodbye after it was replaced"),
    ),
)

TABLES: Mapping[str, Table] = MappingProxyType(
    {table.kind: table for table in (PROJECT, JOB, TASK, ATTEMPT, WORKER)}
)

TASK_FINAL = frozenset({T.COMPLETED, T.FAILED, T.SKIPPED, T.CANCELLED})
"""No attempt follows by itself. An explicit retry may revive all but a completed one, and makes a new run."""

TASK_HELD = frozenset({T.LEASED, T.RUNNING, T.CANCELLING})
"""A worker holds it: exactly one attempt of it is live."""

JOB_FINAL = frozenset({J.COMPLETED, J.FAILED, J.CANCELLED})
ATTEMPT_FINAL = frozenset({A.COMPLETED, A.FAILED, A.STOPPED})
JOB_SCHEDULABLE = frozenset({J.QUEUED, J.RUNNING})
