"""What follows later: after a slice, after a restart, after a worker is gone."""

from __future__ import annotations

import pytest

from orchestra.errors import Malformed
from orchestra.statemachine import limits, load
from orchestra.statemachine.commands import (
    CancelJob,
    LeaveWorker,
    PauseJob,
    RetryTask,
    StageDraft,
    SubmitJob,
    Tick,
)
from orchestra.statemachine.lifecycles import TaskStatus
from orchestra.statemachine.queries import GetTask, ListJobs, ListWorkers, Why
from orchestra.statemachine.records import OnFailure, Record, Span, Task
from orchestra.statemachine.replies import Reason
from orchestra.statemachine.reports import Happening, Heartbeat
from orchestra.statemachine.state import State
from orchestra.testing.core import Core


def rows_of(state: State) -> list[Record]:
    return [row for rows in state.rows.values() for row in rows.values()]


def test_a_heartbeat_is_told_what_is_not_its_own() -> None:
    core = Core()
    joined = core.join()
    core.submit()
    (order,) = core.held()
    beat = Heartbeat(joined.worker_id, joined.incarnation, ("strange", order.attempt_id))
    answered = core.apply(beat)
    assert (answered.known, answered.foreign, answered.orders) == (True, ("strange",), ())


def test_a_job_that_is_cancelled_answers_with_its_status() -> None:
    core = Core()
    core.join()
    job = core.submit()
    for _ in range(2):
        changed = core.apply(CancelJob(job.job_id))
        assert (changed.job_id, changed.status) == (job.job_id, "cancelling")


def test_a_worker_that_left_is_forgotten_with_its_pulse() -> None:
    core = Core()
    joined = core.join()
    core.apply(LeaveWorker(joined.worker_id, joined.incarnation))
    core.advance(limits.RETENTION_MS - 1)
    assert [worker.status for worker in core.ask(ListWorkers(gone=True)).items] == ["left"]
    core.advance(1)
    assert core.ask(ListWorkers(gone=True)).items == ()
    assert core.state.pulses == {}


def test_what_waits_for_nothing_but_its_paused_job_says_so() -> None:
    core = Core()
    job = core.submit()
    core.apply(PauseJob(job.job_id, "lunch"))
    core.join()
    assert list(core.ask(Why("1.1")).reasons) == [
        Reason("job-paused", "job 1 is paused: lunch", remedy="resume job 1"),
        Reason("next", "it is given out with the next decision"),
    ]


def test_pairs_that_are_made_after_their_first_halves_completed_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "UNFOLD_SLICE", 2)
    core = Core()
    core.join(slots=2)
    core.submit(
        StageDraft("a", "app", over=Span(0, 2)),
        StageDraft("b", "app", over=Span(0, 2), pairwise=("a",)),
    )
    for order in core.held():
        core.report(order.attempt_id)
    core.run_all()
    assert [job.status for job in core.ask(ListJobs()).items] == ["completed"]


def test_what_is_skipped_names_only_what_did_not_complete() -> None:
    core = Core()
    core.join()
    core.submit(
        StageDraft("a", "app"), StageDraft("b", "app"), StageDraft("c", "app", after=("a", "b"))
    )
    core.report(core.held()[0].attempt_id)
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    assert core.ask(GetTask("1.3")).reason == "it comes after b, which did not complete"


def test_after_a_restart_room_is_made_by_the_job_that_ended_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = Core()
    core.join(slots=2)
    core.submit()
    core.submit()
    first, second = core.held()
    core.report(second.attempt_id)
    core.advance(10)
    core.report(first.attempt_id)
    core.state = load(rows_of(core.state), core.now_ms)
    monkeypatch.setattr(limits, "FINISHED_TASKS_MAX", 1)
    core.settle()
    assert [job.number for job in core.ask(ListJobs()).items] == [1]


def test_what_is_left_of_a_slice_is_done_in_the_next_whether_made_or_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "UNFOLD_SLICE", 2)
    for number in (2, 3, 4, 5):
        core = Core()
        core.submit(StageDraft("a", "app", over=Span(0, number)))
        core.settle()
        assert len(core.state.rows["task"]) == number
        core.apply(CancelJob(core.state.index.job_numbers[1]))
        core.settle()
        (job,) = core.ask(ListJobs()).items
        assert (job.status, job.counts) == ("cancelled", {"cancelled": number})


def test_a_job_with_a_row_that_could_not_be_read_is_cancelled() -> None:
    core = Core()
    job = core.submit(StageDraft("a", "app", over=Span(0, 3)))
    gone = core.ask(GetTask("1.2")).id
    again = Core(checked=False)
    again.state = load([row for row in rows_of(core.state) if row.id != gone], core.now_ms)
    again.apply(CancelJob(job.job_id))
    again.settle()
    assert [each.status for each in again.ask(ListJobs()).items] == ["cancelled"]


def test_a_job_tells_of_the_first_task_that_failed_wherever_it_stands() -> None:
    core = Core()
    core.join(slots=3)
    core.submit(StageDraft("a", "app", over=Span(0, 3)))
    first, second, _ = core.held()
    core.report(first.attempt_id)
    core.report(second.attempt_id, Happening.FAILED, message="no")
    assert core.ask(Why("1")).reasons[0].text == "1 failed, such as 1.2: no"


def test_an_attempt_whose_row_could_not_be_read_is_left_out() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", retries=2, backoff_ms=1))
    for _ in range(3):
        core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
        core.advance(10)
    gone = core.ask(GetTask("1")).attempts[1].id
    again = Core(checked=False)
    again.state = load([row for row in rows_of(core.state) if row.id != gone], core.now_ms)
    codes = [reason.code for reason in again.ask(Why("1")).reasons]
    assert codes == ["error", "attempt-3", "attempt-1"]
    assert [attempt.number for attempt in again.ask(GetTask("1")).attempts] == [1, 3]


def test_a_circle_is_found_beside_stages_that_are_in_none() -> None:
    core = Core()
    free = [StageDraft(f"s{number}", "app") for number in range(3)]
    circle = (
        StageDraft("a", "app", after=("s0", "b")),
        StageDraft("b", "app", after=("s1",), pairwise=("s2", "a")),
    )
    with pytest.raises(Malformed) as caught:
        core.submit(*free, *circle)
    told = str(caught.value)
    assert "a -> b -> a" in told or "b -> a -> b" in told


def test_a_job_that_was_stopping_goes_on_with_it_after_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = Core()
    core.join()
    stage = StageDraft("a", "app", over=Span(0, 6))
    core.apply(SubmitJob("j", (stage,), on_failure=OnFailure.STOP))
    monkeypatch.setattr(limits, "UNFOLD_SLICE", 2)
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    left = [task for task in core.state.each(Task) if task.status is TaskStatus.QUEUED]
    assert left, "a slice at a time"
    core.state = load(rows_of(core.state), core.now_ms)
    core.settle()
    assert core.held() == []
    (job,) = core.ask(ListJobs()).items
    assert (job.status, job.counts) == ("failed", {"failed": 1, "cancelled": 5})


@pytest.mark.parametrize("tasks", [6, 40])
def test_nothing_of_a_job_starts_while_it_stops_in_slices(
    monkeypatch: pytest.MonkeyPatch, tasks: int
) -> None:
    """A place is free, and tasks are queued behind the slice, or not even made: the other job's turn comes instead."""
    core = Core()
    core.join()
    monkeypatch.setattr(limits, "UNFOLD_SLICE", 3)
    stage = StageDraft("a", "app", over=Span(0, tasks))
    core.apply(SubmitJob("stops", (stage,), on_failure=OnFailure.STOP))
    other = core.submit(StageDraft("a", "app")).job_id
    (held,) = core.held()
    core.report(held.attempt_id, Happening.FAILED, message="no")
    for _ in range(tasks):
        assert held.job_id not in {order.job_id for order in core.held()}
        core.apply(Tick())
    assert {order.job_id for order in core.held()} == {other}
    (_, stopped) = core.ask(ListJobs()).items
    assert (stopped.status, stopped.counts) == ("failed", {"failed": 1, "cancelled": tasks - 1})


def test_what_is_retried_while_its_job_stops_runs_when_that_is_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = Core()
    core.join()
    stage = StageDraft("a", "app", over=Span(0, 9))
    core.apply(SubmitJob("stops", (stage,), on_failure=OnFailure.STOP))
    monkeypatch.setattr(limits, "UNFOLD_SLICE", 4)
    (held,) = core.held()
    core.report(held.attempt_id)
    (held,) = core.held()
    core.report(held.attempt_id, Happening.FAILED, message="no")
    behind = next(task for task in core.state.each(Task) if task.status is TaskStatus.CANCELLED)
    core.apply(RetryTask(behind.id))
    assert behind.id not in {order.task_id for order in core.held()}
    core.settle()
    (held,) = core.held()
    assert held.task_id == behind.id
    # The failure itself too: then there is none any more, and the rest is left as it is.
    failed = [task for task in core.state.each(Task) if task.status is TaskStatus.FAILED]
    core.apply(RetryTask(failed[0].id))
    core.settle()
    core.report(held.attempt_id)
    assert [order.task_id for order in core.held()] == [failed[0].id]


def test_a_stop_that_is_called_off_half_way_leaves_the_rest_to_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The only failure is tried again between two slices, and is of another stage than what is left."""
    core = Core()
    core.join()
    stages = (StageDraft("a", "app"), StageDraft("b", "app", over=Span(0, 8)))
    core.apply(SubmitJob("stops", stages, on_failure=OnFailure.STOP))
    monkeypatch.setattr(limits, "UNFOLD_SLICE", 4)
    (held,) = core.held()
    core.report(held.attempt_id, Happening.FAILED, message="no")
    core.apply(RetryTask(held.task_id))
    core.settle()
    ran: list[str] = []
    while orders := core.held():
        ran.append(orders[0].task_id)
        core.report(orders[0].attempt_id)
    (job,) = core.ask(ListJobs()).items
    counts = dict(job.counts)
    assert held.task_id in ran
    assert (job.status, counts["completed"] + counts["cancelled"]) == ("failed", 9)
    assert counts["completed"] == len(ran) > 1


def test_what_was_retried_by_hand_in_a_job_that_had_stopped_survives_a_restart() -> None:
    core = Core()
    core.join()
    stage = StageDraft("a", "app", over=Span(0, 4))
    core.apply(SubmitJob("stops", (stage,), on_failure=OnFailure.STOP))
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    core.settle()
    core.advance(1)
    _, second, third, _ = sorted(task.id for task in core.state.each(Task))
    core.apply(RetryTask(second))
    core.apply(RetryTask(third))
    assert [order.task_id for order in core.held()] == [second]
    core.state = load(rows_of(core.state), core.now_ms)
    core.settle()
    found = [task.status for task in sorted(core.state.each(Task), key=lambda task: task.id)]
    assert found == ["failed", "leased", "queued", "cancelled"]
    # A further failure stops what was retried before it, as it would have without the restart.
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    core.settle()
    (job,) = core.ask(ListJobs()).items
    assert (job.status, job.counts) == ("failed", {"failed": 2, "cancelled": 2})


def test_what_was_retried_before_the_last_stop_was_confirmed_survives_a_restart() -> None:
    core = Core()
    core.join(slots=2)
    stage = StageDraft("a", "app", over=Span(0, 3))
    core.apply(SubmitJob("stops", (stage,), on_failure=OnFailure.STOP))
    first, second = core.held()
    third = max(task.id for task in core.state.each(Task))
    core.report(first.attempt_id, Happening.FAILED, message="no")
    core.settle()
    core.advance(1)
    core.apply(RetryTask(third))
    core.advance(1)
    core.report(second.attempt_id, Happening.STOPPED)
    core.state = load(rows_of(core.state), core.now_ms)
    core.settle()
    found = [task.status for task in sorted(core.state.each(Task), key=lambda task: task.id)]
    assert found == ["failed", "cancelled", "leased"]


def test_what_waits_again_for_a_retried_task_survives_a_restart() -> None:
    core = Core()
    core.join()
    stages = (
        StageDraft("a", "app", over=Span(0, 2)),
        StageDraft("b", "app", over=Span(0, 2), pairwise=("a",)),
    )
    core.apply(SubmitJob("stops", stages, on_failure=OnFailure.STOP))
    first, second, *_ = sorted(task.id for task in core.state.each(Task))
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    core.apply(RetryTask(second))
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    core.settle()
    core.advance(1)
    core.apply(RetryTask(first))
    for _ in range(2):
        found = [task.status for task in sorted(core.state.each(Task), key=lambda task: task.id)]
        assert found == ["leased", "failed", "waiting", "cancelled"]
        core.state = load(rows_of(core.state), core.now_ms)
        core.settle()


def test_a_job_that_is_cancelled_spares_nothing_after_a_restart() -> None:
    core = Core()
    core.join()
    stage = StageDraft("a", "app", over=Span(0, 3))
    core.apply(SubmitJob("stops", (stage,), on_failure=OnFailure.STOP))
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    core.settle()
    core.advance(1)
    for task in sorted(task.id for task in core.state.each(Task))[1:]:
        core.apply(RetryTask(task))
    core.state = load(rows_of(core.state), core.now_ms)
    (job,) = core.ask(ListJobs()).items
    core.apply(CancelJob(job.id))
    core.settle()
    found = [task.status for task in sorted(core.state.each(Task), key=lambda task: task.id)]
    assert found == ["failed", "cancelling", "cancelled"]
