"""What workers tell: taken as far as it fits, cut where it is too long, and never fatal."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from orchestra.statemachine import limits
from orchestra.statemachine.commands import CancelJob, StageDraft
from orchestra.statemachine.ending import backoff_ms
from orchestra.statemachine.queries import GetTask
from orchestra.statemachine.records import Attempt, Cause, Span, Stage
from orchestra.statemachine.replies import TaskView
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.testing.core import Core


def tell(core: Core, **fields: Any) -> str:
    """The holder of the only attempt tells something of it; why it was ignored is returned."""
    (order,) = core.held()
    effect = core.orders[order.attempt_id]
    report = AttemptReport(order.attempt_id, **fields)
    told = AttemptsReported(effect.worker_id, effect.incarnation, (report,))
    return core.apply(told).ignored[0]


def begun(**fields: Any) -> Core:
    """One worker with one task."""
    core = Core()
    core.join()
    core.submit(StageDraft("only", "app", **fields))
    return core


def task_of(core: Core) -> TaskView:
    return core.ask(GetTask("1"))


def attempt_of(core: Core) -> Attempt:
    (attempt,) = core.state.each(Attempt)
    return attempt


@pytest.mark.parametrize("message", ["", " ", " \n\t", "\x1c"])
def test_a_failure_that_says_nothing_gives_its_cause_as_reason(message: str) -> None:
    core = begun()
    assert tell(core, happening=Happening.FAILED, cause=Cause.TIMEOUT, message=message) == ""
    assert (task_of(core).status, task_of(core).reason) == ("failed", "timeout")


def test_of_what_a_failure_says_the_first_line_is_the_reason_as_far_as_it_is_not_too_long() -> None:
    core = begun()
    tell(core, happening=Happening.FAILED, message=f"\n {'x' * 201}\nsecond line")
    assert task_of(core).reason == "x" * 200


@pytest.mark.parametrize(("told", "kept"), [(-1.0, 0.0), (0.25, 0.25), (1.5, 1.0)])
def test_progress_is_between_nothing_and_all(told: float, kept: float) -> None:
    core = begun()
    said = {"happening": Happening.PROGRESS, "fraction": told, "message": "y" * 201}
    assert tell(core, **said) == ""
    (attempt,) = task_of(core).attempts
    assert (attempt.progress, attempt.progress_message) == (kept, "y" * 200)


@pytest.mark.parametrize("happening", [Happening.COMPLETED, Happening.FAILED, Happening.STOPPED])
def test_progress_is_forgotten_when_its_attempt_has_ended(happening: Happening) -> None:
    core = begun()
    tell(core, happening=Happening.PROGRESS, fraction=0.5)
    assert len(core.state.progress) == 1
    tell(core, happening=happening)
    assert core.state.progress == {}


def test_more_progress_than_fits_is_refused_with_a_reason_and_what_is_known_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = Core()
    core.join(slots=2)
    core.submit(StageDraft("a", "app", over=Span(0, 2)))
    first, second = core.held()
    monkeypatch.setattr(limits, "PROGRESS_MAX", 1)
    assert core.report(first.attempt_id, Happening.PROGRESS, message="a") == ""
    assert core.report(second.attempt_id, Happening.PROGRESS) != ""
    assert core.report(first.attempt_id, Happening.PROGRESS, message="b") == ""


def test_a_result_as_long_as_it_may_be_is_kept_and_a_late_one_too() -> None:
    longest = b"x" * limits.RESULT_BYTES_MAX
    core = begun()
    tell(core, happening=Happening.COMPLETED, result=longest)
    assert attempt_of(core).result == longest
    core = begun()
    id = attempt_of(core).id
    core.advance(core.state.settings.lease_ms + 1)
    assert core.report(id, result=longest) != "", "that it came too late is said"
    assert attempt_of(core).late_result == longest


def test_the_name_of_a_signal_is_cut() -> None:
    core = begun()
    tell(core, happening=Happening.FAILED, signal="S" * 40)
    assert attempt_of(core).signal == "S" * 32


def test_a_message_holds_a_bounded_number_of_reports_and_says_which_were_not_read() -> None:
    core = begun()
    (order,) = core.held()
    effect = core.orders[order.attempt_id]
    report = AttemptReport(order.attempt_id, Happening.PROGRESS)
    told = (report,) * (limits.REPORTS_MAX + 1)
    answered = core.apply(AttemptsReported(effect.worker_id, effect.incarnation, told))
    *read, unread = answered.ignored
    assert (set(read), bool(unread)) == ({""}, True)


def test_everything_that_is_ignored_is_answered_with_a_reason() -> None:
    core = begun()
    other = core.join("w2")
    (order,) = core.held()
    stranger = (other.worker_id, other.incarnation)
    assert "not this worker's" in core.report(order.attempt_id, worker=stranger)
    assert core.report(order.attempt_id) == ""
    assert "repeated" in core.report(order.attempt_id)
    assert "over" in core.report(order.attempt_id, Happening.RUNNING)


def test_what_completes_after_a_failure_shows_no_reason_any_more() -> None:
    core = begun(retries=1, backoff_ms=1)
    tell(core, happening=Happening.FAILED, message="no luck")
    assert task_of(core).reason == "no luck"
    core.advance(1)
    tell(core, happening=Happening.COMPLETED)
    assert (task_of(core).status, task_of(core).reason) == ("completed", "")


def test_an_attempt_began_when_it_was_first_told_to_run() -> None:
    core = begun()
    tell(core, happening=Happening.RUNNING)
    began_ms = core.now_ms
    core.advance(5)
    tell(core, happening=Happening.COMPLETED)
    attempt = attempt_of(core)
    assert (attempt.started_at_ms, attempt.ended_at_ms) == (began_ms, began_ms + 5)


@pytest.mark.parametrize("happening", [Happening.COMPLETED, Happening.FAILED])
def test_a_task_that_was_being_cancelled_says_how_its_work_ended(happening: Happening) -> None:
    core = begun()
    core.apply(CancelJob(core.ask(GetTask("1")).job_id, "enough"))
    tell(core, happening=happening)
    assert task_of(core).status == "cancelled"
    assert str(happening) in task_of(core).reason


@pytest.mark.parametrize(("message", "reason"), [("it drains", "it drains"), ("", "handed back")])
def test_work_that_is_handed_back_runs_elsewhere_and_says_why(message: str, reason: str) -> None:
    core = begun()
    tell(core, happening=Happening.STOPPED, message=message)
    first = min(core.state.each(Attempt), key=lambda each: each.number)
    assert (first.status, first.message) == ("stopped", message)
    assert core.last is not None
    told = [move.reason for move in core.last.story if move.kind == "task" and move.verb == "retry"]
    assert told
    assert told[0].startswith(reason)


def test_a_stop_that_was_asked_for_keeps_the_reason_of_who_asked() -> None:
    core = begun()
    core.apply(CancelJob(core.ask(GetTask("1")).job_id, "enough"))
    asked = attempt_of(core)
    tell(core, happening=Happening.STOPPED, cause=Cause.ERROR, message="killed")
    assert (attempt_of(core).cause, task_of(core).reason) == (asked.stop_cause, "enough")
    assert core.last is not None
    told = [move.reason for move in core.last.story if move.kind == "attempt"]
    assert told == [asked.stop_reason]


def test_what_ran_for_too_long_fails_with_the_limit_as_reason() -> None:
    core = begun(run_ms_max=1_000)
    tell(core, happening=Happening.RUNNING)
    (order,) = core.held()
    effect = core.orders[order.attempt_id]
    for ms in (1_000, core.state.settings.lease_ms - 1, 1):
        core.advance(ms)
        core.apply(Heartbeat(effect.worker_id, effect.incarnation, (order.attempt_id,)))
    stop_reason = attempt_of(core).stop_reason
    assert "1000 ms" in stop_reason
    tell(core, happening=Happening.STOPPED, message="killed")
    assert (task_of(core).cause, task_of(core).reason) == (Cause.TIMEOUT, stop_reason)


@pytest.mark.parametrize(
    ("failures", "waits"),
    [
        (0, {2, 3, 4}),
        (1, {2, 3, 4}),
        (2, {4, 5, 6, 7, 8}),
        (3, {5, 6, 7, 8, 9}),
        (99, {5, 6, 7, 8, 9}),
    ],
)
def test_a_pause_doubles_up_to_its_limit_and_chance_takes_up_to_half_of_it(
    failures: int, waits: set[int]
) -> None:
    core = begun(backoff_ms=4, backoff_ms_max=9)
    (stage,) = core.state.each(Stage)
    assert {backoff_ms(stage, failures, Random(seed)) for seed in range(200)} == waits
