"""The answers of `why` for what is held or has ended, for jobs and for workers, as people read them, whole."""

from __future__ import annotations

from orchestra.statemachine import limits
from orchestra.statemachine.commands import (
    CancelJob,
    PauseJob,
    PauseWorker,
    Reconfigure,
    RetryTask,
    StageDraft,
)
from orchestra.statemachine.queries import GetJob, GetTask, Why
from orchestra.statemachine.records import Cause, Span
from orchestra.statemachine.replies import Reason
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening
from orchestra.testing.core import Core


def asked(core: Core, subject: str = "last") -> list[Reason]:
    return list(core.ask(Why(subject)).reasons)


def only(core: Core, subject: str = "last") -> Reason:
    (reason,) = asked(core, subject)
    return reason


def job_id(core: Core, number: int = 1) -> str:
    return core.state.index.job_numbers[number]


def running() -> tuple[Core, str]:
    """A core whose worker w1 runs the only task of job 1."""
    core = Core()
    core.join()
    core.submit()
    attempt_id = core.held()[0].attempt_id
    core.report(attempt_id, Happening.RUNNING)
    return core, attempt_id


def test_what_a_worker_holds_tells_when_it_was_heard() -> None:
    core = Core()
    core.join()
    core.submit()
    core.advance(1_500)
    assert only(core) == Reason(
        "starting", "w1 was told to start it; the worker was heard 1.5 s ago"
    )
    core, attempt_id = running()
    assert only(core).text == "it runs on w1 (attempt 1); the worker was heard 0.0 s ago"
    core.report(attempt_id, Happening.PROGRESS, message="frame 3")
    assert (
        only(core).text == "it runs on w1 (attempt 1), 0% frame 3; the worker was heard 0.0 s ago"
    )
    core.report(attempt_id, Happening.PROGRESS, message="")
    assert only(core).text == "it runs on w1 (attempt 1), 0%; the worker was heard 0.0 s ago"


def test_what_is_being_stopped_tells_on_which_rung_and_until_when() -> None:
    core, attempt_id = running()
    joined = core.join()
    core.apply(CancelJob(job_id(core), "enough", grace_ms=2_000))
    reason = asked(core, "1.1")[1]
    assert reason == Reason(
        "cancelling",
        "stopping on w1: asked because enough; the worker was heard 0.0 s ago",
        until_ms=core.now_ms + 2_000,
    )
    for _ in range(3):
        core.advance(2_000)
        core.beat(joined, attempt_id)
    assert asked(core, "1.1")[1] == Reason(
        "cancel-unconfirmed",
        "w1 was told to kill it and has not confirmed that nothing of it is alive; the worker was heard 0.0 s ago",
        remedy="look at w1, or end the worker",
    )


def test_what_completed_tells_in_which_attempt() -> None:
    core, attempt_id = running()
    core.report(attempt_id)
    assert only(core) == Reason("completed", "completed in attempt 1")


def test_what_failed_tells_of_its_last_attempts_how_they_ended() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app"))
    (order,) = core.held()
    effect = core.orders[order.attempt_id]
    report = AttemptReport(
        order.attempt_id,
        Happening.FAILED,
        cause=Cause.EXIT,
        message=f"first line\n{'x' * 301}\n",
        exit_code=3,
        signal="SIGTERM",
    )
    core.apply(AttemptsReported(effect.worker_id, effect.incarnation, (report,)))
    assert asked(core, "1") == [
        Reason("exit", "first line", remedy="see its output: logs 1.1; try it again: retry 1.1"),
        Reason(
            "attempt-1",
            f"attempt 1 on w1: failed, exit, exit code 3, SIGTERM: {'x' * 300}",
        ),
    ]


def test_a_failure_that_says_nothing_is_told_by_its_cause() -> None:
    core, attempt_id = running()
    core.report(attempt_id, Happening.FAILED, message=" \n")
    assert [reason.text for reason in asked(core)] == ["error", "attempt 1 on w1: failed, error"]


def test_five_attempts_are_told_the_last_one_first() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", retries=6, backoff_ms=1))
    for number in range(7):
        core.report(core.held()[0].attempt_id, Happening.FAILED, message=str(number))
        core.advance(100)
    assert [reason.code for reason in asked(core)] == ["error"] + [
        f"attempt-{number}" for number in (7, 6, 5, 4, 3)
    ]


def test_what_came_too_late_is_told_as_evidence() -> None:
    core, attempt_id = running()
    core.advance(limits.LEASE_MS + 1)
    core.report(attempt_id)
    core.apply(CancelJob(job_id(core)))
    told = asked(core, "1.1")[-1].text
    assert told.startswith("attempt 1 on w1: failed, lost: ")
    assert told.endswith(" (a late report said completed; kept as evidence)")


def test_what_was_skipped_is_tried_again_with_what_failed() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app"), StageDraft("b", "app", after=("a",)))
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    reason = only(core, "1.2")
    assert (reason.code, reason.remedy) == ("upstream", "retry the tasks that failed before it")
    assert reason.text == core.ask(GetTask("1.2")).reason


def test_a_job_tells_its_own_reason_and_those_of_the_first_task_of_each_kind() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", over=Span(0, 3)))
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    told = asked(core, "1")
    failed = [reason for reason in told if reason.code == "error"]
    assert failed == [
        Reason(
            "error",
            "1 failed, such as 1.1: no",
            remedy="see its output: logs 1.1; try it again: retry 1.1",
        )
    ]
    assert [reason.text for reason in told if reason.code == "attempt-1"] == [
        "1 failed, such as 1.1: attempt 1 on w1: failed, error: no"
    ]
    assert any(reason.text.startswith("1 queued, such as 1.3: ") for reason in told)
    core.report(core.held()[0].attempt_id)
    core.report(core.held()[0].attempt_id)
    assert asked(core, "1")[0] == Reason("failed", "of 3 tasks 1 failed")


def test_a_paused_job_tells_who_can_change_it() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, 2)))
    core.apply(PauseJob(job_id(core), "lunch"))
    assert asked(core, "1")[0] == Reason("job-paused", "paused: lunch", remedy="resume 1")


def test_a_job_in_which_all_is_well_counts_its_tasks() -> None:
    core = Core()
    core.join(slots=2)
    core.submit(StageDraft("a", "app", over=Span(0, 2)))
    core.report(core.held()[0].attempt_id)
    assert only(core, "1") == Reason("running", "1 leased, 1 completed")


def test_a_worker_tells_what_it_does_and_when_it_was_heard() -> None:
    core, _ = running()
    core.advance(1_200)
    assert only(core, "w1") == Reason("online", "online, heard 1.2 s ago, 1 of 1 slot taken")


def test_a_worker_that_is_paused_says_so_first() -> None:
    core = Core()
    joined = core.join(slots=2)
    core.apply(PauseWorker(joined.worker_id, "lunch"))
    assert asked(core, "w1")[0] == Reason("worker-paused", "paused: lunch", remedy="resume w1")


def test_a_worker_tells_what_waits_and_does_not_fit_it() -> None:
    core = Core()
    core.join("w1")
    for number in range(7):
        core.submit(StageDraft("s", f"other{number}"))
    told = asked(core, "w1")[1:]
    assert told[0] == Reason("unfit", "the next 'other0' task (1.1) does not fit it: app")
    assert len(told) == 5


def test_what_was_tried_again_runs_in_its_next_attempt() -> None:
    core, attempt_id = running()
    core.report(attempt_id, Happening.FAILED, message="no")
    core.apply(RetryTask(core.ask(GetTask("1")).id))
    core.report(core.held()[0].attempt_id, Happening.RUNNING)
    assert only(core, "1").text.startswith("it runs on w1 (attempt 2); ")


def test_what_is_said_of_one_is_in_the_singular() -> None:
    core = Core()
    core.join()
    core.apply(Reconfigure(losses_max=1))
    core.submit()
    core.submit()
    busy = core.ask(Why("2")).reasons[0].text
    assert busy == "1 worker can run it and it is busy (no slots free): w1 (1.1)"
    core.advance(core.state.settings.lease_ms)
    assert core.ask(GetTask("1.1")).reason.startswith("lost with its worker 1 time: ")
    assert core.ask(GetJob("1")).reason == "of 1 task 1 failed"
