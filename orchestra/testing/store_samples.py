"""Records and batches to put into a store, with values that are easy to get wrong."""

from __future__ import annotations

from random import Random

from orchestra.ports import Batch, LogChunk, Moved
from orchestra.statemachine import ids
from orchestra.statemachine.lifecycles import (
    AttemptStatus,
    JobStatus,
    ProjectStatus,
    TaskStatus,
    WorkerStatus,
)
from orchestra.statemachine.records import (
    KIND_OF,
    Attempt,
    Cause,
    Counters,
    Job,
    OnFailure,
    Project,
    Receipt,
    Record,
    Settings,
    Span,
    Stage,
    Task,
    Worker,
)

AT_MS = 1_763_900_000_000
AWKWARD = 'null\x00 quote\' "double" %s ; -- \u00e9\u4e16\U0001f3bc\n'
"""Text that breaks a store which builds its statements from text, or counts characters as bytes."""
BYTES = bytes(range(256)) + b"\xff\xfe\x00"


def root_id(number: int) -> str:
    """The id of the project, job or worker with this number; always the same."""
    return ids.new_id(number, Random(number).getrandbits(ids.RANDOM_BITS))


ATTEMPT = ids.attempt_id(ids.task_id(root_id(7), 1), 1)
"""The attempt of job 7 to which the output in these batches belongs."""


def job(
    number: int, status: JobStatus = JobStatus.RUNNING, *, stages: int = 0, tasks: int = 0
) -> Job:
    """A job by its number; the same number gives the same id."""
    return Job(
        id=root_id(number),
        number=number,
        project_id=root_id(1),
        name=f"job {number}",
        owner=AWKWARD,
        status=status,
        priority=-3,
        stages=stages,
        tasks=tasks,
        on_failure=OnFailure.STOP,
        submitted_at_ms=AT_MS + number,
    )


def parts(job_id: str) -> tuple[Record, ...]:
    """Two stages, two tasks and an attempt of a job, no field left at what it would be anyway."""
    first, second = ids.stage_id(job_id, 0), ids.stage_id(job_id, 1)
    one, two = ids.task_id(job_id, 1), ids.task_id(job_id, 2)
    worker = root_id(3)
    return (
        Stage(first, job_id, 0, "split", "shell", BYTES, Span(1, 10, 3), 1, 1),
        Stage(
            second,
            job_id,
            1,
            AWKWARD,
            "render",
            b"",
            (b'"a"', b"", BYTES),
            2,
            1,
            after=(0,),
            pairwise=(0,),
            needs=(("cpu", 500), ("gpu", 2**40)),
            labels=("a", AWKWARD),
            priority=7,
            retries=1_000,
            queue_ms_max=2**53 + 1,
            run_ms_max=0,
        ),
        Task(one, job_id, first, 1, TaskStatus.RUNNING, AT_MS, 1, 0, 0, worker),
        Task(
            two, job_id, second, 2, TaskStatus.FAILED, 0, 3, 2, 1, None, 5, 6, Cause.POISON, AWKWARD
        ),
        Attempt(
            ids.attempt_id(one, 1),
            one,
            job_id,
            1,
            worker,
            2,
            AttemptStatus.RUNNING,
            AT_MS,
            exit_code=-9,
            signal="SIGKILL",
            result=BYTES,
            late_result=b"",
            message=AWKWARD,
        ),
    )


def loose() -> tuple[Record, ...]:
    """One record of each kind that belongs to no job."""
    return (
        Project(root_id(1), 1, "survey", AWKWARD, ProjectStatus.OPEN, AT_MS),
        Worker(
            root_id(3),
            3,
            "w3",
            2,
            "session",
            WorkerStatus.LOST,
            64,
            ("render", "shell"),
            (),
            (("cpu", 64_000),),
            {"os": AWKWARD, "": "empty"},
            AT_MS,
            paused=True,
        ),
        Receipt(f"someone\n{AWKWARD}", "f", root_id(7), 7, 2, AT_MS),
        Counters(projects=1, jobs=2**40, workers=3),
        Settings(lease_ms=1),
    )


def world() -> tuple[Record, ...]:
    """Every kind of record, and one live job with all its parts."""
    return (*loose(), job(7, stages=2, tasks=2), *parts(root_id(7)))


def moved(number: int, record: Record, at_ms: int = AT_MS) -> Moved:
    """A story entry about a record; what moved from where does not matter to a store."""
    kind = KIND_OF[type(record)]
    return Moved(number, at_ms + number, kind, record.id, "queued", "run", "running", AWKWARD)


def numbered(number: int, first: int, *records: Record) -> Batch:
    """A batch that puts records, tells of each in the story from entry ``first`` on, and holds some output."""
    return Batch(
        number,
        puts=records,
        story=tuple(moved(first + place, record) for place, record in enumerate(records)),
        logs=(LogChunk(ATTEMPT, "stdout", 4 * max(0, number - 1), b"%04d" % (number % 10_000)),),
    )
