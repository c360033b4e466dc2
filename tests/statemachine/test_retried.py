"""Tasks that are tried again by request: in their turn, as the first time."""

from __future__ import annotations

import pytest

from orchestra.errors import Conflict
from orchestra.statemachine import load
from orchestra.statemachine.commands import CancelJob, CancelTask, RetryTask, StageDraft
from orchestra.statemachine.ids import task_id
from orchestra.statemachine.queries import GetJob, GetTask, ListTasks
from orchestra.statemachine.records import Cause, Span, Stage, Task
from orchestra.statemachine.reports import Happening
from orchestra.testing.core import Core


def statuses(core: Core) -> list[str]:
    return [str(task.status) for task in core.ask(ListTasks("last")).items]


def test_a_task_that_was_cancelled_before_its_turn_waits_for_it_again() -> None:
    core = Core()
    core.join(slots=4)
    core.submit(StageDraft("a", "app"), StageDraft("b", "app", after=("a",)))
    second = core.ask(GetTask("last.2")).id
    core.apply(CancelTask(second))
    assert statuses(core) == ["leased", "cancelled"]
    assert core.apply(RetryTask(second)).status == "waiting"
    row = core.state.find(Task, second)
    assert row is not None
    assert (row.cause, row.ended_at_ms) == (Cause.NONE, None)
    assert statuses(core) == ["leased", "waiting"]
    core.run_all()
    assert core.ask(GetJob("last")).status == "completed"


@pytest.mark.parametrize("edge", ["after", "pairwise"])
def test_what_comes_after_cancelled_tasks_is_not_tried_again_without_them(edge: str) -> None:
    core = Core()
    core.join(slots=4)
    second = StageDraft("b", "app", over=Span(0, 2), **{edge: ("a",)})
    job = core.submit(StageDraft("a", "app", over=Span(0, 2)), second)
    core.apply(CancelJob(job.job_id))
    core.run_all()
    assert statuses(core) == ["cancelled"] * 4
    with pytest.raises(Conflict, match="comes after did not complete") as refused:
        core.apply(RetryTask(task_id(job.job_id, 3)))
    assert "retry the tasks that it comes after" in refused.value.remedy
    assert core.ask(GetJob("last")).status == "cancelled"
    core.apply(RetryTask(task_id(job.job_id, 1)))
    core.apply(RetryTask(task_id(job.job_id, 2)))
    assert core.apply(RetryTask(task_id(job.job_id, 3))).status == "waiting"
    core.run_all()
    assert statuses(core) == ["completed", "completed", "completed", "cancelled"]
    assert core.apply(RetryTask(task_id(job.job_id, 4))).status == "queued"


def test_what_has_not_failed_is_not_tried_again_whatever_it_waits_for() -> None:
    core = Core()
    core.join()
    job = core.submit(StageDraft("a", "app"), StageDraft("b", "app", after=("a",)))
    for position, status in ((1, "leased"), (2, "waiting")):
        with pytest.raises(Conflict, match=f"the task is {status}, so it can not revive"):
            core.apply(RetryTask(task_id(job.job_id, position)))


def test_a_failed_task_whose_stage_could_not_be_read_is_tried_again() -> None:
    core = Core()
    core.join()
    job = core.submit(StageDraft("a", "app"))
    core.report(core.held()[0].attempt_id, Happening.FAILED)
    rows = [row for rows in core.state.rows.values() for row in rows.values()]
    core.state = load([row for row in rows if not isinstance(row, Stage)], core.now_ms)
    core.checked = False
    assert core.apply(RetryTask(task_id(job.job_id, 1))).status == "queued"
