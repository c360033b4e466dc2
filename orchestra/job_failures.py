"""What awaiting the results of a job raises when it did not complete."""

from __future__ import annotations

from orchestra.errors import OrchestraError
from orchestra.ports import Asker
from orchestra.statemachine.lifecycles import JobStatus, TaskStatus
from orchestra.statemachine.queries import ListTasks
from orchestra.statemachine.replies import JobView, TaskResult


class JobFailed(OrchestraError):
    """
    A job whose results were awaited did not complete.

    Attributes:
        job: The job as it ended.
        task: The first task that did not complete; None when none is known.
    """

    def __init__(self, message: str, job: JobView, task: TaskResult | None) -> None:
        super().__init__(message)
        self.job = job
        self.task = task


class JobCancelled(JobFailed):
    """A job whose results were awaited was cancelled."""


async def failure(asker: Asker, view: JobView, url: str) -> JobFailed:
    """
    What to raise for a job as it ended, naming the first task that did not complete.

    Args:
        url: Where the orchestrator is, for the message; empty in process.
    """
    where = f" at {url}" if url else ""
    kind = JobCancelled if view.status is JobStatus.CANCELLED else JobFailed
    first = None
    for wanted in (TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.SKIPPED):
        page = await asker.answer(ListTasks(view.id, wanted, "", 1))
        if page.items:
            first = page.items[0]
            break
    told = f"job {view.number} ({view.name}){where} {view.status}: {view.reason}"
    if first is None:
        return kind(told, view, None)
    told += f"; task {first.selector} ({first.id}) {first.status}: {first.reason}"
    end = TaskResult(first.id, first.position, first.status, None, first.reason)
    return kind(told, view, end)
