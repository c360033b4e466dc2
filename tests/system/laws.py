"""The checks, each a function to sentences about what is broken. The tests of a law and its negative control use the same one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs
import psutil

from orchestra.ports import Moved
from orchestra.statemachine import ids
from orchestra.statemachine.lifecycles import TASK_FINAL
from orchestra.statemachine.replies import AttemptView, TaskView

LATE_FIELDS = {"late_outcome": "", "late_at_ms": None}


def not_ended_once(acknowledged: Mapping[str, int], story: Iterable[Moved]) -> list[str]:
    """Every task of every acknowledged job (its id, and how many tasks were acknowledged) has exactly one recorded end."""
    ends: dict[str, int] = {}
    created: set[str] = set()
    for moved in story:
        if moved.kind == "task" and moved.target in TASK_FINAL:
            ends[moved.id] = ends.get(moved.id, 0) + 1
        if moved.kind == "job" and moved.verb == "create":
            created.add(moved.id)
    broken = [f"job {id} was acknowledged and is lost" for id in acknowledged if id not in created]
    for job_id, tasks in acknowledged.items():
        for position in range(1, tasks + 1):
            count = ends.get(ids.task_id(job_id, position), 0)
            if count != 1:
                broken.append(f"task {position} of job {job_id} has {count} recorded ends")
    return broken


def not_run_once(runs: Mapping[str, Sequence[int]]) -> list[str]:
    """Every task ran once, as its first attempt: ``runs`` are the attempts' numbers by task."""
    return [f"task {id} ran as attempts {made}" for id, made in runs.items() if list(made) != [1]]


def slower_than(bound_s: float, figures: Iterable[float]) -> list[str]:
    """Every figure (seconds) is within the bound."""
    return [f"took {each:.2f} s, the bound is {bound_s:g} s" for each in figures if each > bound_s]


def changed_by_late_result(before: TaskView, after: TaskView) -> list[str]:
    """A late result of an earlier attempt leaves evidence with this attempt, and nothing else anywhere."""

    def plain(attempt: AttemptView) -> AttemptView:
        return attrs.evolve(attempt, late_outcome="", late_at_ms=None)

    broken = list(_differences("task", before, after, leave_out=("attempts",)))
    for was, now in zip(before.attempts, after.attempts, strict=False):
        broken += _differences(f"attempt {was.number}", plain(was), plain(now))
    if len(before.attempts) != len(after.attempts):
        broken.append(f"{len(before.attempts)} attempts became {len(after.attempts)}")
    if not after.attempts[0].late_outcome:
        broken.append("the late result is not kept as evidence")
    return broken


def _differences(
    what: str, before: object, after: object, leave_out: tuple[str, ...] = ()
) -> Iterator[str]:
    for field in attrs.fields(type(before)):
        was, now = getattr(before, field.name), getattr(after, field.name)
        if was != now and field.name not in leave_out:
            yield f"{field.name} of {what} was {was!r} and is {now!r}"


def lives(process: psutil.Process) -> bool:
    """It runs, and is no corpse that nobody has looked at."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def still_alive(mark: str, *others: psutil.Process) -> list[str]:
    """No process has the mark in its environment, and none of the others lives."""
    found: list[str] = []
    for process in psutil.process_iter():
        try:
            if process in others or process.environ().get("MARK") == mark:
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"process {process.pid} is alive: {process.cmdline()}")
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found
