"""What the core remembers: rows by kind, the look-ups derived from them, and soft state that a restart forgets."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar, cast

from orchestra.statemachine import ids
from orchestra.statemachine.index import Index
from orchestra.statemachine.lifecycles import JOB_FINAL, JobStatus, TaskStatus, WorkerStatus
from orchestra.statemachine.records import (
    KIND_OF,
    KINDS,
    Attempt,
    Counters,
    Job,
    OnFailure,
    Progress,
    Pulse,
    Record,
    Settings,
    Stage,
    Task,
    Worker,
)

T = TypeVar("T", bound=Record)


class State:
    """
    The memory of one orchestrator. Mutable, owned by one loop, changed only through a `Transaction`.

    ``pulses`` and ``progress`` are soft: never stored, and a batch that changes only them commits nothing.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Record]] = {kind: {} for kind in KINDS}
        self.index = Index(self.rows)
        self.pulses: dict[str, Pulse] = {}
        self.progress: dict[str, Progress] = {}

    def find(self, kind: type[T], id: str) -> T | None:
        """The row, or None."""
        return cast("T | None", self.rows[KIND_OF[kind]].get(id))

    def each(self, kind: type[T]) -> Iterator[T]:
        """All rows of a kind, in the order in which they came into memory."""
        return cast("Iterator[T]", iter(self.rows[KIND_OF[kind]].values()))

    @property
    def settings(self) -> Settings:
        return cast("Settings", self.rows["settings"].get("settings") or _SETTINGS)

    @property
    def counters(self) -> Counters:
        return cast("Counters", self.rows["counters"].get("counters") or _COUNTERS)

    def stages(self, job_id: str) -> list[Stage]:
        """The stages of a job by index."""
        return self.index.job_stages.get(job_id, [])

    def unfolded(self, job_id: str) -> int:
        """Up to which position a job's tasks have been made."""
        return self.index.unfolded.get(job_id, 0)

    def is_stopping(self, job: Job) -> bool:
        """Whether no further task of the job may start: it is being cancelled, or stops at its first failure."""
        if job.status is JobStatus.CANCELLING:
            return True
        return (
            job.on_failure is OnFailure.STOP
            and self.index.tallies.get(job.id, {}).get(TaskStatus.FAILED, 0) > 0
        )


_SETTINGS = Settings()
_COUNTERS = Counters()

_LOAD_ORDER = (
    "settings",
    "counters",
    "project",
    "worker",
    "job",
    "stage",
    "task",
    "attempt",
    "receipt",
)


def load(rows: Iterable[Record], at_ms: int) -> State:
    """
    Build the state from stored rows, with every index.

    Each worker that was not known to be gone gets one full lease of grace from ``at_ms`` (milliseconds since the epoch): a restart of
    ours must not end their work. Rows whose parents are missing are left out.
    """
    state = State()
    by_kind: dict[str, list[Record]] = {kind: [] for kind in _LOAD_ORDER}
    for row in rows:
        by_kind[KIND_OF[type(row)]].append(row)
    for kind in _LOAD_ORDER:
        for row in sorted(by_kind[kind], key=lambda each: each.id):
            if _has_parent(state, row):
                state.rows[kind][row.id] = row
                state.index.replace(None, row)
    for worker in state.each(Worker):
        if worker.status in (WorkerStatus.ONLINE, WorkerStatus.REPLACED):
            state.pulses[worker.id] = Pulse(at_ms)
    state.index.finished = deque(sorted(state.index.finished))  # by their ends, as they came
    for job in state.each(Job):
        if state.unfolded(job.id) < job.tasks and job.status not in JOB_FINAL:
            state.index.unfolding[job.id] = None
        _count_missing(state, job)
        if state.is_stopping(job):
            state.index.cancel_all(job.id)
            if job.status is not JobStatus.CANCELLING:
                # The stop may have been cut off, or have been through long ago.
                state.index.spared[job.id] = _failed_last_ms(state, job)
        for stage in state.stages(job.id):
            if stage.after or stage.pairwise:
                state.index.reviews[stage.id] = 0
    return state


def _failed_last_ms(state: State, job: Job) -> int:
    """When the last of a job's failures was, in milliseconds since the epoch."""
    tasks = state.rows["task"]
    found = (tasks.get(ids.task_id(job.id, at)) for at in range(1, state.unfolded(job.id) + 1))
    return max(
        task.ended_at_ms or 0
        for task in found
        if isinstance(task, Task) and task.status is TaskStatus.FAILED
    )


def _count_missing(state: State, job: Job) -> None:
    """A task whose row could not be read never completes: what comes after it must not wait for it."""
    unfolded = state.unfolded(job.id)
    if sum(state.index.tallies[job.id].values()) == unfolded:
        return
    tasks = state.rows["task"]
    for stage in state.stages(job.id):
        made = range(stage.first, min(stage.first + stage.size, unfolded + 1))
        missing = sum(ids.task_id(job.id, position) not in tasks for position in made)
        state.index.stage_tallies[stage.id].broken += missing


def _has_parent(state: State, row: Record) -> bool:
    if isinstance(
        row, Attempt
    ):  # without its task there is nothing that its end could be the end of
        return row.task_id in state.rows["task"]
    if isinstance(row, Stage | Task):
        return row.job_id in state.rows["job"]
    return True


def recall(state: State, rows: Iterable[Record]) -> None:
    """Bring the stored rows of a finished job back into memory, as `load` would. What is in memory already stays."""
    for row in sorted(rows, key=lambda each: _LOAD_ORDER.index(KIND_OF[type(each)])):
        kind = KIND_OF[type(row)]
        if row.id not in state.rows[kind] and _has_parent(state, row):
            state.rows[kind][row.id] = row
            state.index.replace(None, row)
