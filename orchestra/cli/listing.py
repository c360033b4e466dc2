"""``ls``, ``show`` and ``workers``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import attrs
from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.cli.board import item_text
from orchestra.cli.reach import USUAL, Reach, with_client
from orchestra.cli.selectors import select_job, select_one
from orchestra.client import Client
from orchestra.dialects import units
from orchestra.dialects.quoting import nearest
from orchestra.errors import Malformed
from orchestra.statemachine.lifecycles import JobStatus, TaskStatus
from orchestra.statemachine.queries import ListJobs, ListTasks
from orchestra.statemachine.replies import (
    AttemptView,
    JobPage,
    JobView,
    TaskPage,
    TaskView,
    WorkerPage,
    WorkerView,
)

ROWS_MAX = 1_000_000
PAGE = 500


def ls(
    job: Annotated[
        str | None, Parameter(help="List the tasks of this job instead of jobs.")
    ] = None,
    /,
    *,
    status: Annotated[str, Parameter(help="Only those with this status.")] = "",
    project: Annotated[
        str, Parameter(name=["--project", "-p"], help="Only jobs of this project.")
    ] = "",
    limit: Annotated[int, Parameter(help="At most so many.")] = 50,
    json: Annotated[bool, Parameter(help="A page as JSON.")] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], help="Only numbers.")] = False,
    reach: Reach = USUAL,
) -> int:
    """List the newest jobs, or the tasks of one."""
    if not 1 <= limit <= ROWS_MAX:
        raise Malformed(f"must be from 1 to {ROWS_MAX}, not {limit}", where="--limit")
    wanted = None if job is None else select_job(job)
    _check_status(status, JobStatus if wanted is None else TaskStatus)

    def query(after: str, most: int) -> Any:
        if wanted is None:
            return ListJobs(project, status, after, most)
        return ListTasks(wanted.text, status, after, most)

    async def go(client: Client) -> JobPage | TaskPage:
        page: JobPage | TaskPage = await _paged(client, query, limit)
        return page

    page = with_client(reach, go)
    if json:
        speech.put_json(page)
    elif quiet:
        for item in page.items:
            speech.put(str(item.number) if isinstance(item, JobView) else item.selector)
    elif isinstance(page, JobPage):
        _put_jobs(page)
    else:
        _put_tasks(page)
    if page.next and not quiet and not json:
        speech.say(f"there are more: --limit {limit * 10}")
    return exits.OK


async def _paged(client: Client, query: Callable[[str, int], Any], limit: int) -> Any:
    page = await client.asker.answer(query("", min(limit, PAGE)))
    items = list(page.items)
    while page.next and len(items) < limit:
        page = await client.asker.answer(query(page.next, min(limit - len(items), PAGE)))
        items += page.items
    return attrs.evolve(page, items=tuple(items))


def _check_status(status: str, words: type[JobStatus | TaskStatus]) -> None:
    if status and status not in list(words):
        near = nearest(status, list(words))
        remedy = f"did you mean {near}?" if near else f"one of {', '.join(words)}"
        raise Malformed(f"there is no status {status!r}", where="--status", remedy=remedy)


def _put_jobs(page: JobPage) -> None:
    now_ms = int(time.time() * 1_000)
    rows = [
        (
            str(job.number),
            job.name,
            job.project,
            str(job.status),
            f"{job.counts.get('completed', 0)}/{job.tasks}",
            f"{speech.elapsed_text(now_ms - job.submitted_at_ms)} ago",
            _took(job, now_ms),
            job.reason if job.status is not JobStatus.COMPLETED else "",
        )
        for job in page.items
    ]
    speech.put_table(
        ("JOB", "NAME", "PROJECT", "STATUS", "DONE", "SUBMITTED", "TOOK", "REASON"),
        rows,
        right=(0, 4),
    )


def _took(job: JobView, now_ms: int) -> str:
    if job.started_at_ms is None:
        return ""
    return speech.elapsed_text((job.ended_at_ms or now_ms) - job.started_at_ms)


def _put_tasks(page: TaskPage) -> None:
    rows = [
        (
            task.selector,
            task.stage,
            item_text(task.item),
            str(task.status),
            task.worker,
            str(task.failures) if task.failures else "",
            task.reason,
        )
        for task in page.items
    ]
    speech.put_table(
        ("TASK", "STAGE", "ITEM", "STATUS", "WORKER", "FAILED", "REASON"), rows, right=(5,)
    )


def show(
    selector: Annotated[str, Parameter(help="A job or a task.")] = "last",
    /,
    *,
    json: Annotated[bool, Parameter(help="All of it as JSON.")] = False,
    reach: Reach = USUAL,
) -> int:
    """Show a job with its stages, or a task with its attempts."""
    wanted = select_one(selector)

    async def go(client: Client) -> JobView | TaskView:
        if wanted.task:
            return await client.task(wanted.text)
        return await (await client.job(wanted.text)).view()

    view = with_client(reach, go)
    if json:
        speech.put_json(view)
    elif isinstance(view, JobView):
        _put_job(view)
    else:
        _put_task(view)
    return exits.OK


def _when(at_ms: int | None) -> str:
    return (
        "" if at_ms is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1_000))
    )


def _put_facts(facts: list[tuple[str, str]]) -> None:
    for name, value in facts:
        if value:
            speech.put(f"{name:<11} {speech.clean(value)}")


def _put_job(job: JobView) -> None:
    counts = ", ".join(f"{count} {status}" for status, count in job.counts.items())
    _put_facts(
        [
            ("job", f"{job.number}  {job.name}"),
            ("status", str(job.status)),
            ("reason", job.reason),
            ("tasks", f"{job.tasks}: {counts}"),
            ("project", job.project),
            ("owner", job.owner),
            ("priority", str(job.priority) if job.priority else ""),
            ("submitted", _when(job.submitted_at_ms)),
            ("started", _when(job.started_at_ms)),
            ("ended", _when(job.ended_at_ms)),
            ("id", job.id),
        ]
    )
    speech.put("")
    names = [stage.name for stage in job.stages]
    rows = [
        (
            stage.name,
            str(stage.size),
            stage.app,
            " ".join(f"{n}={units.amount_text(n, a)}" for n, a in stage.needs),
            ", ".join(names[at] for at in (*stage.after, *stage.pairwise)),
        )
        for stage in job.stages
    ]
    speech.put_table(("STAGE", "TASKS", "APP", "NEEDS", "AFTER"), rows, right=(1,))


def _put_task(task: TaskView) -> None:
    _put_facts(
        [
            ("task", f"{task.selector}  {task.stage}  {item_text(task.item)}".rstrip()),
            ("status", str(task.status)),
            ("reason", task.reason),
            ("queued", _when(task.queued_at_ms)),
            ("ended", _when(task.ended_at_ms)),
            ("id", task.id),
        ]
    )
    if task.attempts:
        speech.put("")
        rows = [_attempt_row(attempt) for attempt in task.attempts]
        heads = ("ATTEMPT", "STATUS", "WORKER", "STARTED", "TOOK", "CODE", "MESSAGE")
        speech.put_table(heads, rows, right=(0, 5))


def _attempt_row(attempt: AttemptView) -> tuple[str, ...]:
    took = None
    if attempt.started_at_ms is not None:
        took = (attempt.ended_at_ms or int(time.time() * 1_000)) - attempt.started_at_ms
    code = attempt.signal or ("" if attempt.exit_code is None else str(attempt.exit_code))
    return (
        str(attempt.number),
        str(attempt.status),
        attempt.worker,
        _when(attempt.started_at_ms),
        speech.elapsed_text(took),
        code,
        attempt.message,
    )


def workers(
    *,
    gone: Annotated[bool, Parameter(help="Those that left, too.")] = False,
    json: Annotated[bool, Parameter(help="All of it as JSON.")] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], help="Only names.")] = False,
    reach: Reach = USUAL,
) -> int:
    """
    List workers.

    What they have, what they run, and when they were last heard.
    """

    async def go(client: Client) -> list[WorkerView]:
        return await client.workers(gone=gone)

    found = with_client(reach, go)
    if json:
        speech.put_json(WorkerPage(tuple(found), ""))
    elif quiet:
        for each in found:
            speech.put(speech.clean(each.name))
    else:
        now_ms = int(time.time() * 1_000)
        heads = ("WORKER", "STATUS", "SLOTS", "LOAD", "FREE", "CAPACITY", "LABELS", "HEARD")
        speech.put_table(heads, [_worker_row(each, now_ms) for each in found], right=(2, 3))
        if not found:
            speech.say("there are none; start one with: orchestra worker URL")
    return exits.OK


def _worker_row(worker: WorkerView, now_ms: int) -> tuple[str, ...]:
    status = "paused" if worker.paused and worker.status == "online" else str(worker.status)
    if worker.pause_reason and worker.paused:
        status += f" ({worker.pause_reason})"
    capacity = [f"{n}={_capacity_text(n, a)}" for n, a in worker.capacity if n != "disk"]
    heard = (
        ""
        if worker.seen_at_ms is None
        else f"{speech.elapsed_text(now_ms - worker.seen_at_ms)} ago"
    )
    free = (
        units.bytes_text(worker.memory_free_bytes, rounded=True) if worker.memory_free_bytes else ""
    )
    return (
        worker.name,
        status,
        f"{worker.held}/{worker.slots}",
        f"{worker.load:.2f}" if worker.seen_at_ms is not None else "",
        free,
        " ".join(capacity),
        " ".join(worker.labels),
        heard,
    )


def _capacity_text(name: str, thousandths: int) -> str:
    if name in units.SIZED_RESOURCES:
        return units.bytes_text(thousandths // 1_000, rounded=True)
    return units.amount_text(name, thousandths)
