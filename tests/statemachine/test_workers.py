"""Workers: leases, incarnations, retries, limits, and what a lost one changes."""

from __future__ import annotations

import pytest

from orchestra.errors import Conflict, Malformed
from orchestra.statemachine.commands import (
    LeaveWorker,
    PauseWorker,
    Reconfigure,
    ResumeWorker,
    StageDraft,
)
from orchestra.statemachine.ending import backoff_ms
from orchestra.statemachine.queries import GetJob, GetTask, ListWorkers
from orchestra.statemachine.records import Attempt, Cause, Stage, Worker
from orchestra.statemachine.replies import HeartbeatAnswered
from orchestra.statemachine.reports import Happening
from orchestra.testing.core import Core


def test_a_silent_worker_loses_its_work_to_another_after_one_lease() -> None:
    core = Core()
    core.join("w1")
    core.submit()
    other = core.join("w2")
    core.advance(5_000)
    core.beat(other)
    assert [order.number for order in core.held()] == [1]
    core.advance(1_001)
    (order,) = core.held()
    assert (order.number, core.orders[order.attempt_id].worker_id) == (2, other.worker_id)
    assert core.ask(GetTask("last")).losses == 1


def test_heartbeats_renew_the_lease() -> None:
    core = Core()
    joined = core.join()
    core.submit()
    for _ in range(20):
        core.advance(2_000)
        answered = core.beat(joined, core.held()[0].attempt_id)
        assert isinstance(answered, HeartbeatAnswered)
        assert answered.known
    assert core.held()[0].number == 1


def test_a_late_result_is_kept_as_evidence_and_changes_nothing() -> None:
    core = Core()
    frozen = core.join("w1")
    core.submit()
    first = core.held()[0].attempt_id
    core.advance(6_001)
    core.join("w2")
    second = core.held()[0].attempt_id
    assert "too late" in core.report(first, result=b'"late"')
    core.report(second, result=b'"right"')
    task = core.ask(GetTask("last"))
    assert task.status == "completed"
    assert [attempt.result for attempt in task.attempts] == [None, b'"right"']
    assert task.attempts[0].late_outcome == "completed"
    evidence = core.state.find(Attempt, first)
    assert evidence is not None
    assert evidence.late_result == b'"late"'
    answered = core.beat(frozen, first)
    assert isinstance(answered, HeartbeatAnswered)
    assert answered.remedy == "join"
    assert core.join("w1", holding=(first,)).foreign == (first,)


def test_a_reconnect_adopts_and_a_new_process_fences() -> None:
    core = Core()
    first = core.join("w1", session="s1")
    core.submit()
    attempt = core.held()[0].attempt_id
    again = core.join("w1", session="s1", holding=(attempt, "stranger"))
    assert (again.worker_id, again.incarnation, again.foreign) == (
        first.worker_id,
        1,
        ("stranger",),
    )
    assert [order.attempt_id for order in again.orders] == [attempt]
    new = core.join("w1", session="s2")
    assert new.incarnation == 2
    answered = core.beat(first, attempt)
    assert isinstance(answered, HeartbeatAnswered)
    assert (answered.known, answered.remedy) == (False, "stop")
    assert [order.attempt_id for order in core.held()] == [attempt]  # its lease still runs
    core.advance(4_000)
    core.beat(new)
    core.advance(2_001)
    assert core.orders[core.held()[0].attempt_id].worker_id == new.worker_id
    with pytest.raises(Conflict):
        core.join("w1", session="s1") if core.ask(ListWorkers(gone=True)) is None else core.apply(
            LeaveWorker(new.worker_id, 1)
        )


def test_a_poison_task_ends_after_three_losses() -> None:
    core = Core()
    for number in range(3):
        core.join(f"w{number}")
        if not number:
            core.submit()
        core.advance(6_001)
    task = core.ask(GetTask("last"))
    assert (task.status, task.cause, task.losses, len(task.attempts)) == ("failed", "poison", 3, 3)


def test_leaving_hands_back_at_once() -> None:
    core = Core()
    joined = core.join("w1")
    core.submit()
    core.join("w2")
    core.apply(LeaveWorker(joined.worker_id, 1))
    assert core.held()[0].number == 2


def test_a_hand_back_is_no_loss() -> None:
    core = Core()
    core.join("w1")
    core.submit()
    core.report(core.held()[0].attempt_id, Happening.STOPPED)
    assert core.ask(GetTask("last")).losses == 0
    core.report(core.held()[0].attempt_id, Happening.STOPPED, cause=Cause.LOST)
    assert core.ask(GetTask("last")).losses == 1


def test_a_paused_worker_gets_nothing_new() -> None:
    core = Core()
    joined = core.join()
    core.apply(PauseWorker(joined.worker_id, "new disk"))
    core.submit()
    assert not core.held()
    assert core.ask(ListWorkers()).items[0].pause_reason == "new disk"
    core.apply(ResumeWorker(joined.worker_id))
    assert core.held()


def test_failures_are_tried_again_with_growing_pauses_and_jitter() -> None:
    core = Core()
    joined = core.join()
    core.submit(StageDraft("a", "app", retries=2, backoff_ms=1_000))
    for number in (1, 2):
        core.report(core.held()[0].attempt_id, Happening.FAILED, message=f"no {number}")
        task = core.ask(GetTask("last"))
        assert task.status == "backoff"
        assert task.retry_at_ms is not None
        wait = task.retry_at_ms - core.now_ms
        assert 500 * 2 ** (number - 1) <= wait <= 1_000 * 2 ** (number - 1)
        core.beat(joined)
        core.advance(wait)
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no 3")
    task = core.ask(GetTask("last"))
    assert (task.status, task.failures, task.reason) == ("failed", 3, "no 3")


def test_backoff_never_passes_its_bound() -> None:
    from random import Random

    stage = Stage("s", "j", 0, "a", "app", b"", None, 1, 1, backoff_ms=1_000, backoff_ms_max=5_000)
    waits = [backoff_ms(stage, failures, Random(7)) for failures in range(1, 1_000)]
    assert max(waits) <= 5_000
    assert min(waits[4:]) >= 2_500


def test_a_task_that_waits_too_long_fails() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", queue_ms_max=3_000))
    core.advance(3_000)
    task = core.ask(GetTask("last"))
    assert (task.status, task.cause) == ("failed", "queue-timeout")
    assert core.ask(GetJob("last")).status == "failed"


def test_a_run_limit_is_enforced_when_the_worker_does_not() -> None:
    core = Core()
    joined = core.join()
    core.submit(StageDraft("a", "app", run_ms_max=1_000, grace_ms=1_000))
    attempt = core.held()[0].attempt_id
    core.report(attempt, Happening.RUNNING)
    for _ in range(8):
        core.beat(joined, attempt)
        core.advance(1_000)
    assert core.ask(GetTask("last")).attempts[0].rung in ("asked", "term")
    core.report(attempt, Happening.STOPPED)
    task = core.ask(GetTask("last"))
    assert (task.status, task.cause) == ("failed", "timeout")


def test_a_worker_that_was_given_up_joins_again_before_it_beats() -> None:
    """Its new subscription holds none of the orders that were sent, and given up, before."""
    core = Core()
    joined = core.join()
    core.submit()
    core.advance(7_000)
    answered = core.beat(joined)
    assert isinstance(answered, HeartbeatAnswered)
    assert (answered.known, answered.remedy, answered.orders) == (False, "join", ())
    given_up = core.state.find(Worker, joined.worker_id)
    assert given_up is not None
    assert given_up.status == "lost"
    again = core.join()
    assert (again.worker_id, again.incarnation) == (joined.worker_id, joined.incarnation + 1)
    stale = core.beat(joined)
    assert isinstance(stale, HeartbeatAnswered)
    assert stale.remedy == "join", "one that was told to join by an answer that it never read"
    answered = core.beat(again)
    assert isinstance(answered, HeartbeatAnswered)
    assert answered.known


def test_lost_orders_are_repeated_by_the_next_heartbeat() -> None:
    core = Core()
    joined = core.join()
    core.submit()
    answered = core.beat(joined)
    assert isinstance(answered, HeartbeatAnswered)
    assert [order.attempt_id for order in answered.orders] == [core.held()[0].attempt_id]
    answered = core.beat(joined, core.held()[0].attempt_id)
    assert isinstance(answered, HeartbeatAnswered)
    assert answered.orders == ()


def test_settings_have_bounds() -> None:
    core = Core()
    with pytest.raises(Malformed) as refusal:
        core.apply(Reconfigure(lease_ms=3_000))
    assert refusal.value.where == "lease_ms"
    core.apply(Reconfigure(lease_ms=30_000))
    core.join()
    core.submit()
    core.advance(29_000)
    assert core.held()[0].number == 1


def test_bad_workers_are_refused_by_field() -> None:
    core = Core()
    for fields, where in (
        ({"slots": 0}, "slots"),
        ({"name": ""}, "name"),
        ({"capacity": (("cpu", -1),)}, "capacity.cpu"),
        ({"labels": ("\x00",)}, "labels[0]"),
    ):
        with pytest.raises(Malformed) as refusal:
            core.join(**fields)  # type: ignore[arg-type]
        assert refusal.value.where == where
