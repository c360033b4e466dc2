"""How far a job is: fed with the job's story, it tells what changed. Pure; drawing is in `orchestra.cli.live`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, cast

import attrs

from orchestra.ports import Moved, ProgressSeen
from orchestra.statemachine import ids
from orchestra.statemachine.lifecycles import JOB_FINAL, TASK_FINAL, JobStatus, TaskStatus, Verb
from orchestra.statemachine.records import Span
from orchestra.statemachine.replies import JobView, StageView, TaskView
from orchestra.statemachine.values import value

ITEM_CHARS_MAX = 60
"""An item is shown to tell tasks apart, not to be read whole."""


def item_text(item: bytes) -> str:
    """A fan-out item as people read it: ``C=1 gamma=0.1``, ``14``, ``a.fits``; empty without one."""
    if not item:
        return ""
    content: Any = json.loads(item)
    if isinstance(content, dict):
        fields = cast("dict[str, Any]", content)
        text = " ".join(f"{key}={_value_text(value)}" for key, value in fields.items())
    else:
        text = _value_text(content)
    return text if len(text) <= ITEM_CHARS_MAX else text[: ITEM_CHARS_MAX - 3] + "..."


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@value
class Change:
    """Something to tell: about the job (``position`` 0) or one task. ``status`` is a status word, ``text`` says more."""

    at_ms: int
    position: int
    label: str
    status: str
    text: str


def _no_counts() -> Counter[TaskStatus]:
    return Counter()


@attrs.define(slots=True)
class StageTally:
    """One stage: its tasks by status. Tasks that are not unfolded yet count as waiting."""

    name: str
    first: int
    size: int
    over: Span | tuple[bytes, ...] | None
    counts: Counter[TaskStatus] = attrs.field(factory=_no_counts)

    def item(self, position: int) -> str:
        """The item of a task as text."""
        offset = position - self.first
        if self.over is None or not 0 <= offset < self.size:
            return ""
        if isinstance(self.over, Span):
            return str(self.over.start + offset * self.over.step)
        return item_text(self.over[offset])

    @property
    def ended(self) -> int:
        """Tasks that have ended, well or not."""
        return sum(self.counts[status] for status in TASK_FINAL)


@attrs.define(slots=True)
class Running:
    """A task that runs: since when, as which attempt (0: not seen yet), and how far that says it is."""

    position: int
    since_ms: int
    attempt: int
    fraction: float | None = None
    message: str = ""


class Board:
    """One job as it goes on."""

    def __init__(self) -> None:
        self.view: JobView | None = None
        self.stages: list[StageTally] = []
        self.running: dict[int, Running] = {}
        self.retries = 0
        self.retried: dict[int, None] = {}
        """Tasks that were tried again, in the order in which they were."""
        self.number = 0
        """The cursor of the last entry seen."""
        self._statuses: dict[int, TaskStatus] = {}
        self._attempts: dict[int, int] = {}
        """The newest attempt at each task of which the story told."""

    def open(self, view: JobView) -> None:
        """Begin with a job, or see it anew; tasks that are known stay."""
        if self.view is None:
            self.stages = [_tally(stage) for stage in view.stages]
        self.view = view

    def load(self, tasks: Iterable[TaskView]) -> None:
        """Take over tasks as they are now."""
        for task in tasks:
            self._set(task.position, task.status)
            if task.status is TaskStatus.RUNNING and task.position not in self.running:
                self.running[task.position] = Running(task.position, 0, 0)

    @property
    def status(self) -> str:
        """The job's status."""
        return "" if self.view is None else str(self.view.status)

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self.view is not None and self.view.status in JOB_FINAL

    @property
    def idle(self) -> bool:
        """Whether something is left to do and nothing runs."""
        return not self.ended and not self.running

    def first_with(self, status: TaskStatus) -> int | None:
        """The first task with this status."""
        return min((p for p, s in self._statuses.items() if s is status), default=None)

    def stage_of(self, position: int) -> StageTally | None:
        """The stage of a task."""
        for stage in self.stages:
            if stage.first <= position < stage.first + stage.size:
                return stage
        return None

    def label(self, position: int) -> str:
        """How a task is called in a line: selector, stage and item."""
        stage = self.stage_of(position)
        job = 0 if self.view is None else self.view.number
        words = [f"{job}.{position}", *([stage.name, stage.item(position)] if stage else [])]
        return " ".join(word for word in words if word)

    def progressed(self, push: ProgressSeen) -> None:
        """An attempt told how far it is. Of one that is not the task's newest any more it is passed over."""
        running = self.running.get(ids.position_of(push.attempt_id))
        attempt = ids.attempt_number_of(push.attempt_id)
        if running is not None and attempt >= running.attempt:
            running.attempt = attempt
            running.fraction, running.message = push.fraction, push.message

    def moved(self, moved: Moved) -> Change | None:
        """Take in one entry of the story; what there is to tell, if anything."""
        self.number = max(self.number, moved.number)
        if moved.kind == "job" and self.view is not None:
            return self._job_moved(self.view, moved)
        if moved.kind == "attempt" and moved.verb == Verb.START:
            self._attempts[ids.position_of(moved.id)] = ids.attempt_number_of(moved.id)
        if moved.kind == "task":
            return self._task_moved(moved)
        return None

    def _job_moved(self, view: JobView, moved: Moved) -> Change | None:
        status = JobStatus(moved.target)
        changes: dict[str, Any] = {"status": status, "reason": moved.reason}
        if moved.verb == Verb.RUN:
            changes["started_at_ms"] = moved.at_ms
        if status in JOB_FINAL:
            changes["ended_at_ms"] = moved.at_ms
        self.view = attrs.evolve(view, **changes)
        if moved.verb == Verb.CREATE:
            return None
        return Change(moved.at_ms, 0, f"job {view.number}", moved.target, moved.reason)

    def _task_moved(self, moved: Moved) -> Change | None:
        position = ids.position_of(moved.id)
        status = TaskStatus(moved.target)
        running = self.running.get(position)
        self._set(position, status)
        if status is TaskStatus.RUNNING:
            self.running[position] = Running(position, moved.at_ms, self._attempts.get(position, 0))
        elif status is not TaskStatus.CANCELLING:
            self.running.pop(position, None)
        if status is TaskStatus.BACKOFF or (moved.verb == Verb.RETRY and moved.source != "backoff"):
            self.retries += 1
            self.retried[position] = None
        told = self._told(moved, running)
        if told is None:
            return None
        return Change(moved.at_ms, position, self.label(position), *told)

    def _told(self, moved: Moved, running: Running | None) -> tuple[str, str] | None:
        took = moved.at_ms - running.since_ms if running is not None and running.since_ms else None
        after = "" if took is None else f"after {took / 1_000:.1f}s"
        match TaskStatus(moved.target):
            case TaskStatus.WAITING | TaskStatus.LEASED:
                return None
            case TaskStatus.QUEUED:
                if moved.source in ("leased", "running"):
                    return "lost", moved.reason or "it runs elsewhere"
                return ("queued", moved.reason) if moved.verb == Verb.REVIVE else None
            case TaskStatus.COMPLETED:
                return "completed", after
            case TaskStatus.BACKOFF:
                return "backoff", _joined(after, moved.reason, "tries again")
            case TaskStatus.RUNNING:
                return "running", ""
            case TaskStatus.CANCELLING:
                return "cancelling", moved.reason
            case _:
                return moved.target, _joined(after, moved.reason)

    def _set(self, position: int, status: TaskStatus) -> None:
        stage = self.stage_of(position)
        if stage is None:
            return
        before = self._statuses.get(position)
        if before is not None:
            stage.counts[before] -= 1
        stage.counts[status] += 1
        self._statuses[position] = status

    def counts(self) -> Mapping[TaskStatus, int]:
        """Tasks of the whole job by status."""
        total: Counter[TaskStatus] = Counter()
        for stage in self.stages:
            total.update(stage.counts)
        return {status: count for status, count in total.items() if count}


def _joined(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def _tally(stage: StageView) -> StageTally:
    return StageTally(stage.name, stage.first, stage.size, stage.over)
