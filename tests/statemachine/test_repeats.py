"""What is told or asked twice, too late, or by the wrong one: answered for what it is, and nothing changes."""

from __future__ import annotations

import pytest

from orchestra.errors import Conflict
from orchestra.statemachine import ids, limits
from orchestra.statemachine.commands import (
    CancelJob,
    CancelTask,
    LeaveWorker,
    PauseWorker,
    ResumeJob,
    ResumeWorker,
    RetryTask,
    StageDraft,
)
from orchestra.statemachine.queries import GetJob, GetTask, ListWorkers
from orchestra.statemachine.records import Span
from orchestra.statemachine.replies import HeartbeatAnswered, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.testing.core import Core


def task_id(core: Core, job: int = 1, position: int = 1) -> str:
    return ids.task_id(core.state.index.job_numbers[job], position)


def remedy(core: Core, joined: WorkerJoined, worker_id: str = "") -> tuple[bool, str]:
    command = Heartbeat(worker_id or joined.worker_id, joined.incarnation)
    answered: HeartbeatAnswered = core.apply(command)
    return (answered.known, answered.remedy)


def test_reports_that_do_not_fit_say_why_they_are_ignored() -> None:
    core = Core()
    first, second = core.join("w1"), core.join("w2")
    core.submit()
    attempt = core.held()[0].attempt_id
    stranger = AttemptReport("x", Happening.COMPLETED)
    answered = core.apply(AttemptsReported(first.worker_id, 1, (stranger,)))
    assert answered.ignored == ("no such attempt",)
    for worker in ((second.worker_id, 1), (first.worker_id, 2)):
        assert "not this worker's" in core.report(attempt, worker=worker)
    assert core.report(attempt, Happening.RUNNING) == ""
    assert core.report(attempt, Happening.RUNNING) == ""
    assert core.report(attempt) == ""
    assert core.report(attempt, Happening.RUNNING) == "the attempt is over"
    assert "repeated" in core.report(attempt)
    assert core.ask(GetTask("1")).status == "completed"


def test_late_evidence_is_kept_once() -> None:
    core = Core()
    core.join()
    core.submit()
    attempt = core.held()[0].attempt_id
    core.advance(6_001)
    assert "kept as evidence" in core.report(attempt)
    assert "kept as evidence" in core.report(attempt, Happening.FAILED)
    assert core.ask(GetTask("1")).attempts[0].late_outcome == "completed"


def test_a_job_that_ran_again_is_kept_from_its_last_end() -> None:
    core = Core()
    core.join()
    core.submit()
    core.report(core.held()[0].attempt_id, Happening.FAILED)
    core.advance(1_000)
    core.beat(core.join())
    core.submit()
    core.report(core.held()[0].attempt_id)
    core.advance(1_000)
    core.apply(RetryTask(task_id(core)))
    core.report(core.held()[0].attempt_id)
    core.advance(limits.RETENTION_MS - 1_000)
    assert list(core.state.index.job_numbers) == [1]
    core.advance(1_000)
    assert not core.state.index.job_numbers


def test_a_former_worker_is_forgotten_without_its_successor() -> None:
    core = Core()
    first = core.join(session="s1")
    core.apply(LeaveWorker(first.worker_id, 1))
    second = core.join(session="s2")
    core.advance(limits.RETENTION_MS + 1)
    assert core.state.index.worker_names == {"w1": second.worker_id}
    assert [worker.incarnation for worker in core.ask(ListWorkers(gone=True)).items] == [2]


def test_a_job_that_is_not_paused_goes_on_when_asked_to() -> None:
    core = Core()
    core.submit()
    assert core.apply(ResumeJob(core.state.index.job_numbers[1])).status == "queued"


def test_what_fits_elsewhere_does_not_wait_for_a_reserved_worker() -> None:
    core = Core()
    large = core.join("w1", slots=4, capacity=(("cpu", 2_000),))
    core.submit(StageDraft("small", "app", needs=(("cpu", 1_000),)))
    core.submit(StageDraft("large", "app", needs=(("cpu", 2_000),)))
    for _ in range(40):
        core.advance(2_000)
        core.beat(large, *(order.attempt_id for order in core.held()))
    other = core.join("w2", capacity=(("cpu", 1_000),))
    core.submit(StageDraft("small", "app", needs=(("cpu", 1_000),)))
    assert core.orders[core.held()[-1].attempt_id].worker_id == other.worker_id
    assert core.held()[-1].job_number == 3


def test_a_stop_that_is_asked_for_twice_climbs_once() -> None:
    core = Core()
    core.join()
    core.submit()
    core.apply(CancelTask(task_id(core)))
    until_ms = core.ask(GetTask("1")).attempts[0].rung_until_ms
    core.advance(1_000)
    assert core.apply(CancelTask(task_id(core))).status == "cancelling"
    assert core.ask(GetTask("1")).attempts[0].rung_until_ms == until_ms
    core.report(core.held()[0].attempt_id, Happening.STOPPED)
    assert core.apply(CancelTask(task_id(core))).status == "cancelled"


def test_what_has_ended_is_not_cancelled_and_what_is_stopping_is_not_tried_again() -> None:
    core = Core()
    core.join()
    core.submit()
    core.report(core.held()[0].attempt_id)
    with pytest.raises(Conflict, match="completed"):
        core.apply(CancelTask(task_id(core)))
    core.submit(StageDraft("a", "app", over=Span(0, 2)))
    core.apply(CancelJob(core.state.index.job_numbers[2]))
    with pytest.raises(Conflict, match="being cancelled"):
        core.apply(RetryTask(task_id(core, 2, 2)))


def test_the_pair_of_what_failed_is_skipped_and_follows_when_it_is_tried_again() -> None:
    core = Core()
    core.join()
    core.submit(
        StageDraft("a", "app", over=Span(0, 2)),
        StageDraft("b", "app", over=Span(0, 2), pairwise=("a",)),
    )
    core.report(core.held()[0].attempt_id, Happening.FAILED)
    assert core.ask(GetTask("1.3")).status == "skipped"
    with pytest.raises(Conflict, match="retry the tasks that it comes after"):
        core.apply(RetryTask(task_id(core, 1, 3)))
    core.apply(RetryTask(task_id(core)))
    assert core.ask(GetTask("1.3")).status == "waiting"
    core.run_all()
    assert core.ask(GetJob("1")).status == "completed"


def test_workers_are_told_what_to_do_about_their_standing() -> None:
    core = Core()
    joined = core.join()
    assert remedy(core, joined, ids.new_id(99, 99)) == (False, "join")
    core.advance(6_001)
    assert core.ask(ListWorkers()).items[0].status == "lost"
    again = core.join()
    assert again.worker_id == joined.worker_id
    assert remedy(core, joined) == (False, "join"), "it was brought back, and does not know it"
    assert core.ask(ListWorkers()).items[0].status == "online"
    for _ in range(2):
        core.apply(LeaveWorker(joined.worker_id, again.incarnation))
    for each in (joined, again):
        assert remedy(core, each) == (False, "join")
    core.join(session="s2")
    for each in (joined, again):
        assert remedy(core, each) == (False, "stop")
    with pytest.raises(Conflict, match="the worker is left"):
        core.apply(PauseWorker(joined.worker_id))


def test_a_worker_that_is_not_paused_goes_on() -> None:
    core = Core()
    joined = core.join()
    core.apply(ResumeWorker(joined.worker_id))
    assert not core.ask(ListWorkers()).items[0].paused
