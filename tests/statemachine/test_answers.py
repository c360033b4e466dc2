"""Answers: pages and their cursors, selectors, and what is said of things that are not there."""

from __future__ import annotations

import pytest

from orchestra.errors import Defect, Malformed, NotFound
from orchestra.statemachine import answer, ids, limits
from orchestra.statemachine.commands import (
    ArchiveProject,
    Command,
    LeaveWorker,
    OpenProject,
    StageDraft,
    SubmitJob,
)
from orchestra.statemachine.queries import (
    GetJob,
    GetOverview,
    GetTask,
    ListJobs,
    ListProjects,
    ListResults,
    ListTasks,
    ListWorkers,
    Query,
    Why,
)
from orchestra.statemachine.records import Span
from orchestra.statemachine.reports import Happening
from orchestra.statemachine.step import Stimulus, step
from orchestra.testing.core import Core

MANY = 2 * limits.UNFOLD_SLICE + 500


class Strange(Query[int]):
    pass


class StrangeCommand(Command[int]):
    pass


def test_what_nobody_handles_is_a_defect() -> None:
    core = Core()
    with pytest.raises(Defect):
        answer(core.state, Strange(), 0)
    with pytest.raises(Defect):
        step(core.state, Stimulus(StrangeCommand(), 0, 1))


def test_a_job_of_many_tasks_wants_one_named() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, 3)))
    with pytest.raises(Malformed, match="3 tasks"):
        core.ask(GetTask("1"))
    assert core.ask(GetTask("1.3")).position == 3


@pytest.mark.parametrize("query", [GetJob(ids.new_id(9, 9)), GetTask("1.4"), GetJob("7")])
def test_what_is_not_there_is_not_found(query: Query[object]) -> None:
    core = Core()
    core.submit()
    with pytest.raises(NotFound):
        core.ask(query)


def test_a_task_to_come_is_told_from_one_that_never_will() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, MANY)))
    with pytest.raises(NotFound, match="not unfolded yet"):
        core.ask(GetTask(f"1.{MANY}"))
    page = core.ask(ListResults("1", after=str(limits.UNFOLD_SLICE)))
    assert (page.items, page.next, page.done) == ((), "", False)
    with pytest.raises(NotFound, match="there is no task"):
        core.ask(GetTask(f"1.{MANY + 1}"))


@pytest.mark.parametrize("after", ["x", "-1", "9" * 19])
def test_a_cursor_is_a_number(after: str) -> None:
    core = Core()
    core.submit()
    with pytest.raises(Malformed, match="no cursor"):
        core.ask(ListJobs(after=after))


def test_jobs_are_listed_by_project_and_status() -> None:
    core = Core()
    core.join()
    core.submit()
    core.apply(SubmitJob("other", (StageDraft("a", "app"),), project="elsewhere"))
    core.submit()
    assert [job.number for job in core.ask(ListJobs()).items] == [3, 2, 1]
    assert [job.number for job in core.ask(ListJobs("elsewhere")).items] == [2]
    assert [job.number for job in core.ask(ListJobs(status="queued")).items] == [3, 2]
    assert core.ask(ListJobs("nowhere")).items == ()
    page = core.ask(ListJobs(limit=2))
    assert [job.number for job in core.ask(ListJobs(after=page.next)).items] == [1]


def test_tasks_are_listed_by_status() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", over=Span(0, 3)))
    assert [task.position for task in core.ask(ListTasks("1", "queued")).items] == [2, 3]
    page = core.ask(ListTasks("1", limit=2))
    assert [task.position for task in core.ask(ListTasks("1", after=page.next)).items] == [3]


def test_results_come_in_pages_of_bounded_size() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", over=Span(0, 4)))
    large = b'"' + b"x" * (limits.RESULT_BYTES_MAX * 2 // 3) + b'"'
    for _ in range(3):
        core.report(core.held()[0].attempt_id, result=large)
    page = core.ask(ListResults("1"))
    assert ([item.position for item in page.items], page.next, page.done) == ([1, 2], "2", False)
    rest = core.ask(ListResults("1", after=page.next))
    assert [item.result for item in rest.items] == [large, None]
    core.report(core.held()[0].attempt_id)
    assert core.ask(ListResults("1", after="3")).ended
    with pytest.raises(NotFound, match="no stage 'b'") as caught:
        core.ask(ListResults("1", "b"))
    assert "one of: a" in str(caught.value)


def test_results_of_one_stage_are_done_before_the_job_is() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app"), StageDraft("b", "app", after=("a",)))
    core.report(core.held()[0].attempt_id)
    page = core.ask(ListResults("1", "a"))
    assert (page.done, page.ended) == (True, False)


def test_projects_and_workers_come_in_pages() -> None:
    core = Core()
    for name in ("a", "b", "c"):
        core.apply(OpenProject(name))
        core.join(name)
    page = core.ask(ListProjects(limit=2))
    assert [project.name for project in page.items] == ["a", "b"]
    assert [project.name for project in core.ask(ListProjects(after=page.next)).items] == ["c"]
    workers = core.ask(ListWorkers(limit=2))
    assert [worker.name for worker in core.ask(ListWorkers(after=workers.next)).items] == ["c"]


def test_a_project_is_closed_and_opened_again_as_often_as_wished() -> None:
    core = Core()
    core.apply(OpenProject("a"))
    assert core.apply(OpenProject("a")).status == "open"
    for _ in range(2):
        assert core.apply(ArchiveProject("a")).status == "archived"
    assert core.apply(OpenProject("a")).status == "open"


def test_the_overview_counts_what_is_there() -> None:
    core = Core()
    core.join("w1", slots=2)
    gone = core.join("w2")
    core.apply(LeaveWorker(gone.worker_id, gone.incarnation))
    core.submit()
    core.submit(StageDraft("a", "app", over=Span(0, 3)))
    core.report(core.held()[0].attempt_id)
    seen = core.ask(GetOverview())
    assert dict(seen.jobs) == {"completed": 1, "running": 1}
    assert dict(seen.tasks) == {"completed": 1, "leased": 2, "queued": 1}
    assert dict(seen.workers) == {"online": 1, "left": 1}
    assert (seen.slots, seen.slots_held) == (2, 2)


def test_why_of_a_job_whose_only_task_is_to_come() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, MANY)))
    core.submit()
    told = core.ask(Why("2")).reasons
    assert [reason.text for reason in told] == ["its task is to come"]


def test_the_progress_of_an_attempt_is_seen_with_it() -> None:
    core = Core()
    core.join()
    core.submit()
    attempt = core.held()[0].attempt_id
    core.report(attempt, Happening.PROGRESS, message="half")
    assert core.ask(GetTask("1")).attempts[0].progress_message == "half"
