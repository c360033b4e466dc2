"""A start with rows missing: what can go on goes on, and nothing crashes or waits for ever."""

from __future__ import annotations

import pytest

from orchestra.statemachine import ids, limits, load
from orchestra.statemachine.commands import (
    CancelJob,
    CancelTask,
    Reconfigure,
    StageDraft,
)
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.queries import GetJob, GetTask, ListResults, ListWorkers, Why
from orchestra.statemachine.records import (
    Job,
    Record,
    Span,
    Task,
    Worker,
    evolve,
)
from orchestra.statemachine.reports import Happening, Heartbeat
from orchestra.statemachine.state import State
from orchestra.testing.core import Core


def rows_of(state: State) -> list[Record]:
    return [row for rows in state.rows.values() for row in rows.values()]


def job_id(core: Core, number: int = 1) -> str:
    return core.state.index.job_numbers[number]


def world() -> Core:
    core = Core()
    core.join(slots=2)
    core.submit(
        StageDraft("a", "app", over=Span(0, 3), queue_ms_max=60_000),
        StageDraft("b", "app", over=Span(0, 3), pairwise=("a",)),
        StageDraft("c", "app", after=("a",)),
    )
    return core


def without(core: Core, *ids_gone: str) -> Core:
    rows = [row for row in rows_of(core.state) if row.id not in ids_gone]
    again = Core(checked=False)
    again.state = load(rows, core.now_ms)
    again.now_ms = core.now_ms
    again.orders = core.orders
    return again


@pytest.mark.parametrize("number", [0, 1, 2])
def test_without_a_stage(number: int) -> None:
    core = world()
    again = without(core, ids.stage_id(job_id(core), number))
    for order in again.held():
        again.report(order.attempt_id)
    for position in range(1, 8):
        again.ask(Why(f"1.{position}"))
        again.ask(GetTask(f"1.{position}"))
    if number == 0:
        seen = again.ask(GetTask("1.3"))
        assert (seen.offset, seen.stage) == (2, ""), "counted from the job's beginning then"
    again.apply(CancelJob(job_id(again), "a row is missing"))
    again.advance(limits.RETENTION_MS)


def test_what_waits_without_its_stage_stays_where_it_is_when_priority_is_worth_more() -> None:
    core = world()
    again = without(core, ids.stage_id(job_id(core), 0))
    again.apply(Reconfigure(aging_ms=1))
    assert again.ask(GetTask("1.3")).status == "queued"
    assert not again.state.index.ready


def test_a_stage_that_is_missing_gives_no_orders() -> None:
    core = world()
    (worker,) = core.state.each(Worker)
    held = [order.attempt_id for order in core.held()]
    again = without(core, ids.stage_id(job_id(core), 0))
    answered = again.apply(Heartbeat(worker.id, worker.incarnation, ()))
    assert answered.orders == ()
    again.apply(CancelJob(job_id(again), "a row is missing"))
    again.report(held[0], Happening.STOPPED)


def test_an_attempt_that_is_missing_can_be_cancelled() -> None:
    core = world()
    task = ids.task_id(job_id(core), 1)
    again = without(core, ids.attempt_id(task, 1))
    again.apply(CancelTask(task))
    assert again.ask(GetTask("1.1")).status in ("cancelling", "cancelled")


def test_what_comes_after_a_missing_task_does_not_wait_for_it() -> None:
    core = world()
    again = without(core, ids.task_id(job_id(core), 3))
    again.run_all()
    view = again.ask(GetJob("1"))
    assert view.status == "failed"
    assert "1 missing" in view.reason
    assert view.counts["skipped"] == 2  # its pair, and the stage after it
    assert again.state.find(Task, ids.task_id(job_id(core), 3)) is None


def test_an_end_that_is_not_known_to_its_job_changes_nothing() -> None:
    core = world()
    core.submit()
    rows = [
        evolve(row, status=JobStatus.FAILED, ended_at_ms=core.now_ms)
        if isinstance(row, Job) and row.number == 2
        else row
        for row in rows_of(core.state)
    ]
    again = Core(checked=False)
    again.state = load(rows, core.now_ms)
    again.apply(CancelTask(ids.task_id(job_id(core, 2), 1)))
    assert again.ask(GetJob("2")).status == "failed"


def test_without_a_worker() -> None:
    core = world()
    (worker,) = core.state.rows["worker"]
    again = without(core, worker)
    assert again.ask(GetTask("1.1")).worker == "worker 1"
    (told,) = again.ask(Why("1.1")).reasons
    assert told.text == "worker 1 was told to start it", "and nobody knows when it was heard"


def test_without_its_project_a_job_names_none() -> None:
    core = world()
    (project,) = core.state.rows["project"]
    assert without(core, project).ask(GetJob("1")).project == ""


def test_a_task_that_is_missing_before_the_last_one_made_is_missed() -> None:
    core = Core()
    core.submit(StageDraft("b", "app", after=("a",)), StageDraft("a", "app", over=Span(0, 3)))
    again = without(core, ids.task_id(job_id(core), 3))
    again.settle()
    assert again.ask(GetTask("1.1")).status == "skipped"


def test_a_task_that_is_to_come_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNFOLD_SLICE", 6)
    core = Core()
    core.submit(
        StageDraft("a", "app", over=Span(0, 3)),
        StageDraft("b", "app", over=Span(0, 9)),
        StageDraft("c", "app", after=("b",)),
    )
    assert core.state.unfolded(job_id(core)) == 6
    again = without(core, ids.task_id(job_id(core), 2))
    again.join()
    again.run_all()
    assert again.ask(GetTask("1.13")).status == "completed"
    assert again.ask(GetJob("1")).reason == "of 13 tasks 1 missing"


def test_a_job_that_has_ended_gets_no_task_again_when_the_last_one_is_missing() -> None:
    core = world()
    core.run_all()
    again = without(core, ids.task_id(job_id(core), 7))
    again.settle()
    assert len(again.state.rows["task"]) == 6
    assert again.ask(GetJob("1")).status == "completed"


def test_what_fails_without_its_stage_is_tried_no_more() -> None:
    core = world()
    attempt = core.held()[0].attempt_id
    again = without(core, ids.stage_id(job_id(core), 0))
    assert again.report(attempt, Happening.FAILED, message="no") == ""
    seen = again.ask(GetTask("1.1"))
    assert (seen.status, seen.reason) == ("failed", "no")


def test_results_beyond_a_task_that_is_missing_are_listed() -> None:
    core = world()
    core.run_all()
    again = without(core, ids.task_id(job_id(core), 2))
    page = again.ask(ListResults("1", "a"))
    assert ([item.position for item in page.items], page.next) == ([1, 3], "")
    page = again.ask(ListResults("1", "a", after="1", limit=1))
    assert ([item.position for item in page.items], page.next) == ([3], "")


def test_an_attempt_at_a_task_that_is_missing_holds_nobody_up() -> None:
    core = world()
    (worker,) = core.state.each(Worker)
    attempt = core.held()[0].attempt_id
    again = without(core, ids.task_id(job_id(core), 1))
    assert again.ask(ListWorkers()).items[0].held == 1
    answered = again.apply(Heartbeat(worker.id, worker.incarnation, (attempt,)))
    assert answered.foreign == (attempt,)
    assert again.report(attempt) == "no such attempt"
    again.advance(limits.LEASE_MS)
    assert again.ask(ListWorkers()).items[0].status == "lost"


def test_without_a_job() -> None:
    core = world()
    again = without(core, job_id(core))
    assert not any(again.state.rows[kind] for kind in ("stage", "task", "attempt"))
    assert not again.held()


def test_without_a_task_or_an_attempt_of_a_finished_job() -> None:
    core = world()
    core.run_all()
    task = ids.task_id(job_id(core), 2)
    gone = ids.attempt_id(ids.task_id(job_id(core), 1), 1)
    again = without(core, gone)
    assert again.ask(GetTask("1.1")).attempts == ()
    again.ask(Why("1.1"))
    again.advance(limits.RETENTION_MS + 1)
    assert not again.state.rows["job"]
    again = without(core, task)
    assert again.ask(GetJob("1")).status == "completed"
    again.advance(limits.RETENTION_MS + 1)
    assert not again.state.rows["job"]
