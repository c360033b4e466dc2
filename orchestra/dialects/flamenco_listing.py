"""Jobs, tasks and workers of the core as the bodies of Flamenco's answers, with the keys of its document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import msgspec

from orchestra.dialects.asks import Ask
from orchestra.dialects.far_calls import FarReply
from orchestra.dialects.flamenco_desk import Desk
from orchestra.dialects.flamenco_parsers import activity_text
from orchestra.dialects.flamenco_posted import read_posted
from orchestra.dialects.flamenco_words import (
    CONNECTION,
    JOB_AS_TASK,
    JOB_WORD,
    POSTED_WORD,
    TASK_WORD,
    worker_word,
)
from orchestra.statemachine import limits
from orchestra.statemachine.lifecycles import TASK_FINAL, TaskStatus
from orchestra.statemachine.queries import GetJob, ListTasks
from orchestra.statemachine.replies import JobView, StageView, TaskView, WorkerView

Fields = dict[str, object]


class _Vitals(msgspec.Struct, frozen=True):
    """What a called worker says of its machine, with the keys of the document."""

    mac_address: int | None = None
    update_frequent: dict[str, Any] | None = None
    update_less_frequent: dict[str, Any] | None = None


_vitals = msgspec.json.Decoder(_Vitals)
_AVERAGES = dict.fromkeys(("15min", "1min", "5min"))
NO_VITALS: Mapping[str, object] = {
    "mac_address": None,
    "update_frequent": {"load_average": _AVERAGES, "worker_cpu_percent": None},
    "update_less_frequent": dict.fromkeys(
        ("worker_architecture", "worker_disk_percent", "worker_mem_percent", "worker_num_cpus")
    ),
}
"""A worker that only asks says nothing of its machine."""


def read_vitals(reply: FarReply) -> Fields:
    """What a called worker says of its machine; nothing when that can not be read."""
    try:
        found = _vitals.decode(reply.body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return {name: value for name in NO_VITALS if (value := getattr(found, name)) is not None}


def posted_fields(
    job: JobView | None = None,
    number: int = 0,
    frames: tuple[int, int] = (0, 0),
    worker_id: int = 0,
) -> Fields:
    """The eight keys of a posted task; without a job the zeros of the running program."""
    return {
        "id": number,
        "worker_id": worker_id,
        "priority": job.priority if job else 0,
        "frame_start": frames[0],
        "frame_end": frames[1],
        "frame_current": frames[0],
        "status": POSTED_WORD[JOB_AS_TASK[job.status]] if job else None,
        "format": "" if job else None,
    }


def job_fields(job: JobView) -> Fields:
    """A job, with how much of it is done in percent."""
    posted = read_posted(job.stages[0].template) if job.stages else None
    done = job.counts.get(str(TaskStatus.COMPLETED), 0)
    return {
        "id": job.number,
        "job_name": job.name,
        "project": job.project,
        "status": JOB_WORD[job.status],
        "settings": posted.settings if posted else None,
        "type": posted.type if posted else None,
        "priority": job.priority,
        "tasks": job.tasks,
        "percentage_done": round(100 * done / job.tasks, 1) if job.tasks else 0,
        "activity": job.reason,
    }


def tasks_of_jobs(jobs: tuple[JobView, ...]) -> Generator[Ask, Any, list[Fields]]:
    """The tasks of jobs, at most a page of each."""
    found: list[Fields] = []
    for listed in jobs:
        job: JobView = listed if listed.stages else (yield GetJob(listed.id))
        stages = {stage.name: stage for stage in job.stages}
        page = yield ListTasks(job.id, limit=limits.PAGE_MAX)
        found += [task_fields(task, job, stages[task.stage]) for task in page.items]
    return found


def task_fields(task: TaskView, job: JobView, stage: StageView) -> Fields:
    """A task: its ``id`` is the selector that people type, such as ``17.3``."""
    posted = read_posted(stage.template)
    return {
        "id": task.selector,
        "job_id": job.number,
        "task_id": posted.task_id if posted else None,
        "name": f"{job.name}, {stage.name} {task.offset + 1}",
        "status": TASK_WORD[task.status],
        "failures": task.failures,
        "soft_failed": task.failures > 0 and task.status not in TASK_FINAL,
        "type": stage.app,
        "priority": job.priority,
        "worker": task.worker or None,
        "activity": task.reason,
    }


def worker_fields(worker: WorkerView, desk: Desk) -> Fields:
    """The eleven keys of a worker. ``current_task`` is a text, as the program has it."""
    card = desk.cards.get(worker.name)
    # One that is given up still lies with its card, in case it comes back in time; it is at work no more.
    run = card.run if card is not None and card.joined else None
    host: Mapping[str, str] = worker.host
    return {
        "activity": activity_text(run.activity) if run is not None else None,
        "connection": CONNECTION[worker.status],
        "current_task": str(run.ticket) if run is not None and run.delivered else None,
        "hostname": host.get("hostname", worker.name),
        "id": worker.number,
        "ip_address": host.get("ip_address", ""),
        "log": run.log_tail.decode(errors="replace") if run is not None else None,
        "port": int(host["port"]) if host.get("port", "").isdecimal() else 0,
        "status": worker_word(paused=worker.paused, held=worker.held),
        "system": host.get("system", ""),
        "time_cost": run.time_cost_s if run is not None else None,
    }


def by_hostname(rows: Sequence[tuple[WorkerView, Fields]]) -> dict[str, Fields]:
    """Workers by host name; by their whole name when several have it, so that none hides another."""
    times = Counter(str(fields["hostname"]) for _, fields in rows)
    return {
        host if times[host] == 1 else worker.name: fields
        for worker, fields in rows
        if (host := str(fields["hostname"]))
    }
