"""Flamenco's requeue: what failed or was cancelled in a job is tried again."""

from __future__ import annotations

from orchestra.dialects.flamenco_crew import Steps
from orchestra.errors import Rejected
from orchestra.statemachine import limits
from orchestra.statemachine.commands import RetryTask
from orchestra.statemachine.lifecycles import TaskStatus
from orchestra.statemachine.queries import ListTasks
from orchestra.statemachine.replies import JobView


def tried_again(job: JobView) -> Steps:
    """
    Failed and cancelled tasks of a job are tried again, a bounded number in one call.

    One that comes after others of them is refused until those are: it is asked for once more then.
    """
    wanted: list[str] = []
    for status in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        page = yield ListTasks(job.id, status=str(status), limit=limits.PAGE_MAX)
        wanted += [task.id for task in page.items]
    count = 0
    while len(wanted) != count:
        count = len(wanted)
        refused: list[str] = []
        for id in wanted:
            try:
                yield RetryTask(id)
            except Rejected:
                refused.append(id)
        wanted = refused
