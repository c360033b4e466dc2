"""
Derived look-ups: everything here follows from the rows and is rebuilt by `state.load`.

Only `Index.replace` changes it when rows change, and `runs`, which follows many rows at once. The heaps and ``finished`` are lazy: they
may hold entries that are stale or there twice, so readers check the row, and what they drop on the way changes no decision.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping

from orchestra.statemachine import ids
from orchestra.statemachine.lifecycles import (
    ATTEMPT_FINAL,
    JOB_FINAL,
    JOB_SCHEDULABLE,
    TASK_FINAL,
    JobStatus,
    TaskStatus,
    WorkerStatus,
)
from orchestra.statemachine.records import (
    Attempt,
    Job,
    Project,
    Receipt,
    Record,
    Settings,
    Stage,
    Task,
    Worker,
)

Shape = tuple[str, tuple[str, ...], tuple[tuple[str, int], ...]]
"""What a stage asks of a worker: app, labels, needs. Tasks of one shape fit the same workers."""

Rank = tuple[int, int, int, str]
"""Place in the queue, lowest first: aged priority, job number, position, stage id."""


def shape_of(stage: Stage) -> Shape:
    """What the tasks of a stage ask of a worker."""
    return (stage.app, stage.labels, stage.needs)


_DEFAULTS = Settings()

DEADLINES_MIN = 10_000
"""So many deadlines are kept without a look whether what they are of has ended."""


class StageTally:
    """Counts of one stage's tasks: ``broken`` ones ended without completing."""

    __slots__ = ("broken", "completed")

    def __init__(self) -> None:
        self.completed = 0
        self.broken = 0


class Index:
    """See the module. ``rows`` is the state's own mapping; only the look-ups here are this object's."""

    def __init__(self, rows: Mapping[str, dict[str, Record]]) -> None:
        self._rows = rows
        self.project_names: dict[str, str] = {}
        self.worker_names: dict[str, str] = {}
        self.job_numbers: dict[int, str] = {}
        self.job_stages: dict[str, list[Stage]] = {}
        self.tallies: dict[str, dict[TaskStatus, int]] = {}
        self.unfolded: dict[str, int] = {}
        """By job: the highest position of its tasks. One before it may be missing, when its row could not be read."""
        self.stage_tallies: dict[str, StageTally] = {}
        self.dependents: dict[str, list[str]] = {}
        self.pairs: dict[str, list[str]] = {}
        self.queues: dict[str, deque[str]] = {}
        self.ready: dict[Shape, list[Rank]] = {}
        self.offered: dict[str, Rank] = {}
        self.held: dict[str, dict[str, str]] = {}
        self.used: dict[str, dict[str, int]] = {}
        self.free: dict[str, None] = {}
        self.deadlines: list[tuple[int, str, str]] = []
        self.deadlines_max = DEADLINES_MIN
        """Beyond so many, those of what has ended meanwhile are let go of: `leases` does it, and doubles what is left."""
        self.unfolding: dict[str, None] = {}
        self.cancelling: dict[str, int] = {}
        """By job: from which position on its tasks are still to be cancelled."""
        self.spared: dict[str, int] = {}
        """By job whose stop starts over after a restart: what was queued later was tried again by request, and is left."""
        self.reviews: dict[str, int] = {}
        self.finished: deque[tuple[int, str]] = deque()
        self.finished_tasks = 0
        self._follow: dict[type[object], Callable[..., None]] = {
            Task: self._task,
            Attempt: self._attempt,
            Job: self._job,
            Stage: self._stage,
            Worker: self._worker,
            Project: self._project,
            Receipt: self._receipt,
            Settings: self._set,
        }

    @property
    def _settings(self) -> Settings:
        settings = self._rows["settings"].get("settings")
        return settings if isinstance(settings, Settings) else _DEFAULTS

    # one door ---------------------------------------------------------------------------------------------------

    def replace(self, old: Record | None, new: Record | None) -> None:
        """Follow one row from ``old`` to ``new``; None is absence."""
        record = new if new is not None else old
        follow = self._follow.get(type(record))
        if follow is not None:
            follow(old, new)

    def arm(self, at_ms: int, kind: str, id: str) -> None:
        """Remember to look at a row at ``at_ms``. Whether something is due then is read from the row."""
        heapq.heappush(self.deadlines, (at_ms, kind, id))

    def cancel_all(self, job_id: str) -> None:
        """Have every task of a job cancelled that has not ended."""
        self.cancelling[job_id] = 1
        self.spared.pop(job_id, None)

    def _project(self, old: Project | None, new: Project | None) -> None:
        if new is not None:
            self.project_names[new.name] = new.id
        else:
            assert old is not None
            self.project_names.pop(old.name, None)

    def _receipt(self, _: Receipt | None, new: Receipt | None) -> None:
        if new is not None:
            self.arm(new.until_ms, "receipt", new.id)

    def _set(self, old: Settings | None, new: Settings | None) -> None:
        """What a level of priority is worth has changed: who waits stands in line by the new worth, as after a restart."""
        if (old or _DEFAULTS).aging_ms == (new or _DEFAULTS).aging_ms:
            return
        for stage_id in self.queues:
            stage = self._rows["stage"].get(stage_id)
            job = self._rows["job"].get(ids.job_of(stage_id))
            if isinstance(stage, Stage) and isinstance(job, Job):
                self.offer(stage, job)

    # kinds ------------------------------------------------------------------------------------------------------

    def _job(self, old: Job | None, new: Job | None) -> None:
        if new is None:
            assert old is not None
            self.job_numbers.pop(old.number, None)
            self.job_stages.pop(old.id, None)
            self.tallies.pop(old.id, None)
            self.unfolded.pop(old.id, None)
            self.unfolding.pop(old.id, None)
            self.cancelling.pop(old.id, None)
            self.spared.pop(old.id, None)
            if old.status in JOB_FINAL:
                self.finished_tasks -= old.tasks
                self.oldest_finished()  # lets go of what this one leaves behind
            return
        if old is None:
            self.job_numbers[new.number] = new.id
            self.job_stages.setdefault(new.id, [])
            self.tallies.setdefault(new.id, {})
        if new.status in JOB_FINAL and (old is None or old.status not in JOB_FINAL):
            ended_at_ms = new.ended_at_ms or 0
            self.finished.append((ended_at_ms, new.id))
            self.finished_tasks += new.tasks
            self.arm(ended_at_ms + self._settings.retention_ms, "job", new.id)
        elif old is not None and old.status in JOB_FINAL and new.status not in JOB_FINAL:
            self.finished_tasks -= old.tasks
        if new.status is JobStatus.CANCELLING and (old is None or old.status is not new.status):
            self.cancel_all(new.id)
        if new.status in JOB_SCHEDULABLE and old is not None and old.status not in JOB_SCHEDULABLE:
            for stage in self.job_stages.get(new.id, ()):
                self.offer(stage, new)

    def oldest_finished(self) -> str | None:
        """The job in memory that ended first; None when none has ended. Stale entries before it are dropped."""
        jobs = self._rows["job"]
        while self.finished:
            ended_at_ms, job_id = self.finished[0]
            job = jobs.get(job_id)
            if isinstance(job, Job) and job.status in JOB_FINAL:
                if (job.ended_at_ms or 0) == ended_at_ms:
                    return job_id
            self.finished.popleft()
        return None

    def _stage(self, old: Stage | None, new: Stage | None) -> None:
        if new is None:
            assert old is not None
            self.stage_tallies.pop(old.id, None)
            self.queues.pop(old.id, None)
            self.offered.pop(old.id, None)
            self.dependents.pop(old.id, None)
            self.pairs.pop(old.id, None)
            self.reviews.pop(old.id, None)
            return
        stages = self.job_stages.setdefault(new.job_id, [])
        stages.append(new)
        self.stage_tallies[new.id] = StageTally()
        for index in new.after:
            self.dependents.setdefault(ids.stage_id(new.job_id, index), []).append(new.id)
        for index in new.pairwise:
            self.pairs.setdefault(ids.stage_id(new.job_id, index), []).append(new.id)

    def _task(self, old: Task | None, new: Task | None) -> None:
        task = new or old
        assert task is not None
        tally = self.tallies.setdefault(task.job_id, {})
        stage = self.stage_tallies.get(task.stage_id)
        if old is not None:
            tally[old.status] -= 1
            if stage is not None:
                if old.status is TaskStatus.COMPLETED:
                    stage.completed -= 1
                elif old.status in TASK_FINAL:
                    stage.broken -= 1
        else:
            self.unfolded[task.job_id] = max(self.unfolded.get(task.job_id, 0), task.position)
        if new is None:
            self._task_gone(task)
            return
        status = new.status
        tally[status] = tally.get(status, 0) + 1
        if stage is not None:
            if status is TaskStatus.COMPLETED:
                stage.completed += 1
            elif status in TASK_FINAL:
                stage.broken += 1
        if old is not None and old.status is TaskStatus.QUEUED and status is not old.status:
            self._dequeue(new)
        if status is TaskStatus.QUEUED and (old is None or old.status is not status):
            self._enqueue(new)
        elif status is TaskStatus.BACKOFF and new.retry_at_ms is not None:
            self.arm(new.retry_at_ms, "task", new.id)

    def _task_gone(self, task: Task) -> None:
        if self.unfolded[task.job_id] == task.position:
            self.unfolded[task.job_id] -= 1
        if task.status is TaskStatus.QUEUED:
            self._dequeue(task)

    def _enqueue(self, task: Task) -> None:
        stage = self._rows["stage"].get(task.stage_id)
        job = self._rows["job"].get(task.job_id)
        if isinstance(stage, Stage) and isinstance(job, Job):
            self.enqueue([task.id], stage, job, task.queued_at_ms)
        else:
            self.queues.setdefault(task.stage_id, deque()).append(task.id)

    def enqueue(self, task_ids: list[str], stage: Stage, job: Job, queued_at_ms: int) -> None:
        """
        Tasks of a stage, in order, stand in its queue from now on.

        By position, as after a load: what was lost with its worker does not wait for the whole stage.
        """
        queue = self.queues.get(stage.id)
        if queue is None:
            queue = self.queues[stage.id] = deque()
        first = queue[0] if queue else ""
        if not queue or queue[-1] < task_ids[0]:
            queue.extend(task_ids)
        else:
            for task_id in task_ids:
                queue.insert(bisect_left(queue, task_id), task_id)
        if stage.queue_ms_max is not None:
            for task_id in task_ids:
                self.arm(queued_at_ms + stage.queue_ms_max, "task", task_id)
        if queue[0] != first:
            self.offer(stage, job)

    def _dequeue(self, task: Task) -> None:
        # At once, not lazily: a task that is queued again must stand there once only, whoever looked in between.
        queue = self.queues[task.stage_id]
        if queue[0] != task.id:
            queue.remove(task.id)
            return
        queue.popleft()
        stage = self._rows["stage"].get(task.stage_id)
        job = self._rows["job"].get(task.job_id)
        if isinstance(stage, Stage) and isinstance(job, Job):
            self.offer(stage, job)

    def offer(self, stage: Stage, job: Job) -> None:
        """
        Put a stage with queued tasks into the heap of its shape.

        Only the entry in ``offered`` counts, so that a stage never has more than one that is looked at again.
        """
        queue = self.queues.get(stage.id)
        if not queue or job.status not in JOB_SCHEDULABLE:
            return
        rank = job.submitted_at_ms - (job.priority + stage.priority) * self._settings.aging_ms
        entry = (rank, job.number, ids.position_of(queue[0]), stage.id)
        if self.offered.get(stage.id) != entry:
            self.offered[stage.id] = entry
            heapq.heappush(self.ready.setdefault(shape_of(stage), []), entry)

    def _attempt(self, old: Attempt | None, new: Attempt | None) -> None:
        was_live = old is not None and old.status not in ATTEMPT_FINAL
        is_live = new is not None and new.status not in ATTEMPT_FINAL
        if is_live and not was_live:
            assert new is not None
            self._occupy(new, 1)
        elif was_live and not is_live:
            assert old is not None
            self._occupy(old, -1)
        if new is not None and is_live:
            if new.rung_until_ms is not None and (
                old is None or old.rung_until_ms != new.rung_until_ms
            ):
                self.arm(new.rung_until_ms, "attempt", new.id)
            if new.started_at_ms is not None and (old is None or old.started_at_ms is None):
                limit = self.run_ms_max(new)
                if limit is not None:
                    self.arm(new.started_at_ms + limit, "attempt", new.id)

    def run_ms_max(self, attempt: Attempt) -> int | None:
        """The run limit of an attempt's stage in ms; None without one."""
        task = self._rows["task"].get(attempt.task_id)
        stage = self._rows["stage"].get(task.stage_id) if isinstance(task, Task) else None
        return stage.run_ms_max if isinstance(stage, Stage) else None

    def _occupy(self, attempt: Attempt, sign: int) -> None:
        held = self.held.setdefault(attempt.worker_id, {})
        if sign > 0:
            held[attempt.task_id] = attempt.id
        else:
            held.pop(attempt.task_id, None)
        task = self._rows["task"].get(attempt.task_id)
        stage = self._rows["stage"].get(task.stage_id) if isinstance(task, Task) else None
        if isinstance(stage, Stage):
            self.use(attempt.worker_id, stage, sign)
        worker = self._rows["worker"].get(attempt.worker_id)
        if isinstance(worker, Worker):
            self.see_room(worker)

    def use(self, worker_id: str, stage: Stage, times: int) -> None:
        """A worker's resources are taken so many times as a task of the stage needs them; given back below 0."""
        if stage.needs:
            used = self.used.setdefault(worker_id, {})
            for name, amount in stage.needs:
                used[name] = used.get(name, 0) + times * amount

    def _worker(self, old: Worker | None, new: Worker | None) -> None:
        if new is None:
            assert old is not None
            self.free.pop(old.id, None)
            self.held.pop(old.id, None)
            self.used.pop(old.id, None)
            if self.worker_names.get(old.name) == old.id:
                self._rename(old.name)
            return
        named = self.worker_names.get(new.name)
        if named is None or named <= new.id:
            self.worker_names[new.name] = new.id
        self.see_room(new)
        if new.status is WorkerStatus.LEFT and new.left_at_ms is not None:
            self.arm(new.left_at_ms, "worker", new.id)
        elif (old is None or old.status is not new.status) and new.status is not WorkerStatus.LOST:
            # Not later than its lease can end; it puts itself off by each heartbeat.
            self.arm(new.joined_at_ms + self._settings.lease_ms, "worker", new.id)

    def _rename(self, name: str) -> None:
        """The row that had the name is gone: the newest of those left has it now."""
        rows = self._rows["worker"].values()
        left = [row.id for row in rows if isinstance(row, Worker) and row.name == name]
        if left:
            self.worker_names[name] = max(left)
        else:
            del self.worker_names[name]

    def see_room(self, worker: Worker) -> None:
        """Whether a worker is given more."""
        held = self.held.get(worker.id)
        if (
            worker.status is WorkerStatus.ONLINE
            and not worker.paused
            and (len(held) if held else 0) < worker.slots
        ):
            self.free[worker.id] = None
        else:
            self.free.pop(worker.id, None)
