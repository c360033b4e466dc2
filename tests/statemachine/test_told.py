"""What is told: replies, figures and words as callers and people see them, and what is asked again when it got lost."""

from __future__ import annotations

import pytest

from orchestra.errors import Conflict, NotFound
from orchestra.statemachine import limits, load
from orchestra.statemachine.commands import (
    ArchiveProject,
    CancelJob,
    CancelTask,
    LeaveWorker,
    OpenProject,
    PauseJob,
    ResumeWorker,
    RetryTask,
    StageDraft,
)
from orchestra.statemachine.queries import (
    GetJob,
    GetTask,
    ListProjects,
    ListResults,
    ListWorkers,
    Why,
)
from orchestra.statemachine.records import Record, Rung, Span
from orchestra.statemachine.replies import Reason
from orchestra.statemachine.reports import Happening, Heartbeat
from orchestra.testing.core import Core


def asked(core: Core, subject: str = "last") -> list[Reason]:
    return list(core.ask(Why(subject)).reasons)


def fail(core: Core, message: str = "no") -> None:
    core.report(core.held()[0].attempt_id, Happening.FAILED, message=message)


# jobs, tasks and projects -----------------------------------------------------------------------------------------


def test_a_page_of_results_that_is_full_goes_on_in_the_same_stage() -> None:
    core = Core()
    core.join(slots=9)
    core.submit(StageDraft("a", "app", over=Span(0, 3)), StageDraft("b", "app"))
    large = b'"' + b"x" * (limits.RESULT_BYTES_MAX * 2 // 3) + b'"'
    for order in core.held():
        core.report(order.attempt_id, result=large)
    seen: list[int] = []
    after = ""
    for _ in range(2):
        page = core.ask(ListResults("1", after=after))
        seen.extend(item.position for item in page.items)
        after = page.next
    assert (seen, after) == ([1, 2, 3, 4], "")


def test_a_job_that_runs_tells_how_many_of_its_tasks_are_where() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", over=Span(0, 3)))
    assert core.ask(GetJob("1")).counts == {"leased": 1, "queued": 2}


def test_pausing_a_job_answers_with_the_job() -> None:
    core = Core()
    job = core.submit()
    for _ in range(2):
        paused = core.apply(PauseJob(job.job_id))
        assert (paused.job_id, paused.status) == (job.job_id, "paused")


def test_who_cancelled_a_task_is_told_unless_a_reason_was_given() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, 2)))
    core.apply(CancelTask(core.ask(GetTask("1.1")).id))
    core.apply(CancelTask(core.ask(GetTask("1.2")).id, "enough"))
    assert [core.ask(GetTask(f"1.{n}")).reason for n in (1, 2)] == ["asked by me", "enough"]


def test_a_task_that_is_tried_again_by_request_has_failed_and_was_lost_no_time_so_far() -> None:
    core = Core()
    core.join("w1")
    core.submit(StageDraft("a", "app", retries=1, backoff_ms=0, backoff_ms_max=0))
    core.advance(limits.LEASE_MS)
    core.join("w1")
    for _ in range(2):
        fail(core)
        core.settle()
    before = core.ask(GetTask("1"))
    assert (before.status, before.failures, before.losses) == ("failed", 2, 1)
    again = core.apply(RetryTask(before.id))
    assert (again.task_id, again.status) == (before.id, "queued")
    after = core.ask(GetTask("1"))
    assert (after.failures, after.losses) == (0, 0)
    fail(core)
    core.settle()
    assert core.ask(GetTask("1")).status == "leased", "it has its one retry again"


def test_an_attempt_that_tells_no_progress_has_no_word_of_it() -> None:
    core = Core()
    core.join()
    core.submit()
    (attempt,) = core.ask(GetTask("1")).attempts
    assert (attempt.progress, attempt.progress_message) == (None, "")


def test_projects_are_numbered_one_by_one() -> None:
    core = Core()
    for name in ("a", "b", "c"):
        core.apply(OpenProject(name))
    assert [project.number for project in core.ask(ListProjects()).items] == [1, 2, 3]


def test_a_project_that_is_not_there_is_named_when_it_should_be_archived() -> None:
    core = Core()
    with pytest.raises(NotFound, match="no project 'x'") as caught:
        core.apply(ArchiveProject("x"))
    assert caught.value.where == "name"


# workers ----------------------------------------------------------------------------------------------------------


def test_a_worker_that_comes_back_with_more_room_is_given_more() -> None:
    core = Core()
    core.join(slots=1)
    core.submit(StageDraft("a", "app", over=Span(0, 2)))
    first = core.held()[0]
    core.join(slots=2, holding=(first.attempt_id,))
    assert core.ask(ListWorkers()).items[0].slots == 2
    assert len(core.held()) == 2


def test_a_worker_that_comes_back_as_it_was_stores_nothing() -> None:
    core = Core()
    core.join()
    core.join()
    assert core.last is not None
    assert core.last.changes == {}


def test_a_stop_that_got_lost_is_repeated_to_a_worker_that_holds_all_it_should() -> None:
    core = Core()
    joined = core.join()
    job = core.submit()
    attempt_id = core.held()[0].attempt_id
    core.apply(CancelJob(job.job_id))
    beat = Heartbeat(joined.worker_id, joined.incarnation, (attempt_id,))
    (order,) = core.apply(beat).orders
    assert (order.attempt_id, order.rung) == (attempt_id, Rung.ASKED)


def test_a_worker_that_is_gone_is_not_resumed() -> None:
    core = Core()
    joined = core.join()
    core.apply(LeaveWorker(joined.worker_id, joined.incarnation))
    with pytest.raises(Conflict, match="the worker is left"):
        core.apply(ResumeWorker(joined.worker_id))


def test_a_new_worker_has_no_reason_to_be_paused() -> None:
    core = Core()
    core.join()
    assert core.ask(ListWorkers()).items[0].pause_reason == ""


def test_a_worker_that_was_not_heard_since_the_start_tells_nothing_of_its_host() -> None:
    core = Core()
    joined = core.join()
    core.apply(Heartbeat(joined.worker_id, joined.incarnation, (), 0.5, 3, 4))
    seen = core.ask(ListWorkers()).items[0]
    assert (seen.load, seen.memory_free_bytes, seen.disk_free_bytes) == (0.5, 3, 4)
    core.apply(LeaveWorker(joined.worker_id, joined.incarnation))
    rows: list[Record] = [row for rows in core.state.rows.values() for row in rows.values()]
    core.state = load(rows, core.now_ms)
    seen = core.ask(ListWorkers(gone=True)).items[0]
    assert (seen.seen_at_ms, seen.load) == (None, 0.0)
    assert (seen.memory_free_bytes, seen.disk_free_bytes) == (0, 0)


# why --------------------------------------------------------------------------------------------------------------


def test_the_best_worker_has_as_much_as_is_asked_for_even_of_what_is_asked_for_least() -> None:
    core = Core()
    core.join("w1")
    core.join("w2", capacity=(("a", 1),))
    core.submit(StageDraft("s", "app", needs=(("a", 1), ("b", 5_000))))
    assert [reason.text for reason in asked(core)] == [
        "it needs b=5; the best worker has b=0 in all"
    ]


def test_the_least_amount_that_nobody_has_is_named() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("s", "app", needs=(("a", 1),)))
    assert [reason.text for reason in asked(core)] == [
        "it needs a=0.001; the best worker has a=0 in all"
    ]


def test_a_job_tells_of_each_task_the_reason_and_how_its_last_attempt_ended() -> None:
    core = Core()
    core.join()
    once_more = StageDraft("a", "app", retries=1, backoff_ms=0, backoff_ms_max=0)
    core.submit(once_more, StageDraft("b", "rare"))
    for message in ("first", "second"):
        fail(core, message)
        core.settle()
    assert [(reason.code, reason.text) for reason in asked(core, "1")][:2] == [
        ("error", "1 failed, such as 1.1: second"),
        ("attempt-2", "1 failed, such as 1.1: attempt 2 on w1: failed, error: second"),
    ]
    assert [reason.code for reason in asked(core, "1")[2:]] == ["no-app"]
