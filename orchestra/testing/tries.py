"""
How often and how soon a task is tried, and how a stop climbs: the rules of both written down a second time, to hold what a step did
against them.

Nothing here uses what the core decides by. Times are milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestra.statemachine import State, ids
from orchestra.statemachine.lifecycles import ATTEMPT_FINAL, TASK_FINAL, AttemptStatus, TaskStatus
from orchestra.statemachine.records import Attempt, Cause, Record, Rung, Stage, Task

Rows = Mapping[str, Mapping[str, Record]]

_LADDER = (Rung.NONE, Rung.ASKED, Rung.TERM, Rung.KILL, Rung.UNCONFIRMED)


def mistried(before: Rows, state: State, now_ms: int) -> Iterator[str]:
    """What a step counted, put off or hurried against the rules. ``before``: the rows before the step."""
    for old in before["task"].values():
        new = state.find(Task, old.id)
        if new is not None and new is not old and isinstance(old, Task):
            yield from _counted(state, old, new)
            yield from _put_off(state, old, new, now_ms)
    for old in before["attempt"].values():
        attempt = state.find(Attempt, old.id)
        if attempt is not None and attempt is not old and isinstance(old, Attempt):
            yield from _stopped(old, attempt, now_ms)
            yield from _out_of_time(state, old, attempt, now_ms)


def _counted(state: State, old: Task, new: Task) -> Iterator[str]:
    """I8: no more tries than are allowed, each failure and each loss counted as what it is."""
    stage = state.find(Stage, new.stage_id)
    failed = new.status is TaskStatus.FAILED
    if stage is not None and new.failures > old.failures and not failed:
        if new.failures > stage.retries:
            yield f"I8: task {new.id} failed {new.failures} times, has {stage.retries} retries, and is {new.status}"
    if new.losses <= old.losses:
        return
    if new.losses >= state.settings.losses_max and not failed:
        yield f"I8: task {new.id} was lost {new.losses} times and is {new.status}"
    attempt = state.find(Attempt, ids.attempt_id(old.id, old.attempts))
    if attempt is not None and attempt.cause is not Cause.LOST:
        yield f"I8: task {new.id} counts a loss, and its attempt ended as {attempt.cause}"


def _put_off(state: State, old: Task, new: Task, now_ms: int) -> Iterator[str]:
    """I9: a try follows a failure after a pause, which doubles with each up to its largest, less up to half of it."""
    backoff = TaskStatus.BACKOFF
    if old.status is backoff and new.status not in (backoff, *TASK_FINAL):
        if old.retry_at_ms is None or now_ms < old.retry_at_ms:
            yield f"I9: task {new.id} was to be tried again at {old.retry_at_ms} and is {new.status} at {now_ms}"
    stage = state.find(Stage, new.stage_id)
    if stage is None:
        return
    if new.cause is Cause.QUEUE_TIMEOUT and old.cause is not new.cause:
        waited = now_ms - old.queued_at_ms
        if stage.queue_ms_max is None or waited < stage.queue_ms_max:
            yield f"I9: task {new.id} waited {waited} ms, of {stage.queue_ms_max} that it may, and is {new.status}"
    if new.status is not backoff or old.status is backoff:
        return
    longest = min(stage.backoff_ms * 2 ** (new.failures - 1), stage.backoff_ms_max)
    pause = (new.retry_at_ms or 0) - now_ms
    if not longest - longest // 2 <= pause <= longest:
        yield f"I9: task {new.id} is put off for {pause} ms after {new.failures} failures, of at most {longest}"


def _stopped(old: Attempt, new: Attempt, now_ms: int) -> Iterator[str]:
    """I11: a stop climbs one rung when the time of the last one is over; I8: one for want of time is a failure."""
    below, above = _LADDER.index(old.rung), _LADDER.index(new.rung)
    if above < below:
        yield f"I11: the stop of {new.id} went back from {old.rung} to {new.rung}"
    elif above > below:
        if below and old.rung_until_ms is not None and now_ms < old.rung_until_ms:
            yield f"I11: the stop of {new.id} climbs to {new.rung} before the time of {old.rung} is over"
        # Without a grace it has no time on any rung.
        if above - below > 1 and new.grace_ms:
            yield f"I11: the stop of {new.id} climbs from {old.rung} to {new.rung}"
    ended = old.status not in ATTEMPT_FINAL and new.status in ATTEMPT_FINAL
    if ended and old.stop_cause is Cause.TIMEOUT and new.status is AttemptStatus.STOPPED:
        yield f"I8: attempt {new.id} was stopped for want of time, and it does not count as a failure"


def _out_of_time(state: State, old: Attempt, new: Attempt, now_ms: int) -> Iterator[str]:
    """I8: the orchestrator stops for want of time only what ran for as long as it may."""
    if new.stop_cause is not Cause.TIMEOUT or old.stop_cause is Cause.TIMEOUT:
        return
    task = state.find(Task, new.task_id)
    stage = None if task is None else state.find(Stage, task.stage_id)
    if stage is not None and old.started_at_ms is not None and stage.run_ms_max is not None:
        if now_ms >= old.started_at_ms + stage.run_ms_max:
            return
    yield f"I8: attempt {new.id} is stopped for want of time at {now_ms}, and began at {old.started_at_ms}"
