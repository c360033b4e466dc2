"""What waits for time: limits that end what they should, at their time and not before, and never what has ended by itself."""

from __future__ import annotations

import pytest

from orchestra.errors import NotFound
from orchestra.statemachine import leases, limits, load, next_deadline
from orchestra.statemachine.commands import (
    LeaveWorker,
    PauseWorker,
    Reconfigure,
    StageDraft,
)
from orchestra.statemachine.queries import GetJob, GetTask, ListTasks, ListWorkers
from orchestra.statemachine.records import Rung, Span
from orchestra.statemachine.replies import WorkerView
from orchestra.statemachine.reports import Happening
from orchestra.testing.core import Core

HOUR_MS = limits.HOUR_MS


def statuses(core: Core) -> list[str]:
    return [str(task.status) for task in core.ask(ListTasks("1")).items]


def workers(core: Core) -> list[WorkerView]:
    return list(core.ask(ListWorkers(gone=True)).items)


# how long a task may wait to be started ---------------------------------------------------------------------------


def test_what_ran_longer_than_it_may_wait_and_is_lost_runs_elsewhere() -> None:
    core = Core()
    joined = core.join("w1")
    core.submit(StageDraft("a", "app", queue_ms_max=10_000))
    for _ in range(10):
        core.advance(2_000)
        core.beat(joined, core.held()[0].attempt_id)
    core.advance(limits.LEASE_MS)
    assert statuses(core) == ["queued"]
    core.join("w2")
    core.run_all()
    assert statuses(core) == ["completed"]


def test_what_is_lost_may_wait_as_long_as_before_wherever_it_stands_in_the_queue() -> None:
    core = Core()
    joined = core.join("w1", slots=2)
    core.submit(StageDraft("a", "app", over=Span(0, 4), queue_ms_max=10_000))
    core.advance(5_000)
    core.apply(LeaveWorker(joined.worker_id, joined.incarnation))
    core.advance(4_999)
    assert statuses(core) == ["queued"] * 4
    core.advance(1)
    assert statuses(core) == ["queued", "queued", "failed", "failed"]
    core.advance(4_999)
    assert statuses(core) == ["queued", "queued", "failed", "failed"]
    core.advance(1)
    assert statuses(core) == ["failed"] * 4


def test_what_is_lost_after_the_time_it_might_wait_may_wait_that_long_before_others_of_its_stage() -> (
    None
):
    core = Core()
    core.apply(Reconfigure(lease_ms=HOUR_MS))
    core.join("w1", slots=2)
    joined = core.join("w2", apps=("other",))
    core.submit(
        StageDraft("a", "app", over=Span(0, 2)),
        StageDraft("b", "other", over=Span(0, 2), pairwise=("a",), queue_ms_max=10_000),
    )
    core.report(core.held()[0].attempt_id)
    core.advance(9_000)
    core.report(core.held()[0].attempt_id)
    assert statuses(core)[2:] == ["leased", "queued"]
    core.advance(3_000)
    core.apply(LeaveWorker(joined.worker_id, joined.incarnation))
    assert statuses(core)[2:] == ["queued", "queued"]
    core.advance(9_999)
    assert statuses(core)[2:] == ["queued", "failed"]
    core.advance(1)
    assert statuses(core)[2:] == ["failed", "failed"]


def test_a_task_that_is_tried_again_may_wait_as_long_as_the_first_time() -> None:
    core = Core()
    joined = core.join()
    core.submit(
        StageDraft("a", "app", queue_ms_max=10_000, retries=1, backoff_ms=0, backoff_ms_max=0)
    )
    core.advance(5_000)
    core.apply(PauseWorker(joined.worker_id))
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    core.advance(9_999)
    assert statuses(core) == ["queued"], "its first time is long over"
    core.advance(1)
    assert statuses(core) == ["failed"]


# how long an attempt may run --------------------------------------------------------------------------------------


def test_what_ended_within_its_time_limit_is_not_stopped_when_the_limit_comes() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", run_ms_max=10_000))
    attempt_id = core.held()[0].attempt_id
    core.report(attempt_id, Happening.RUNNING)
    core.report(attempt_id)
    before = core.ask(GetTask("1"))
    core.advance(10_000 + 2 * limits.LEASE_MS)
    assert core.ask(GetTask("1")) == before


def test_the_time_limit_of_what_left_memory_is_nothing() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", run_ms_max=HOUR_MS))
    attempt_id = core.held()[0].attempt_id
    core.report(attempt_id, Happening.RUNNING)
    core.report(attempt_id)
    core.advance(2 * HOUR_MS)
    with pytest.raises(NotFound):
        core.ask(GetJob("1"))


def test_deadlines_of_what_has_ended_do_not_stay_until_they_would_have_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "DEADLINES_MIN", 3)
    core = Core()
    joined = core.join(slots=4)
    waits = StageDraft("b", "another", queue_ms_max=20 * HOUR_MS)
    for _ in range(30):
        core.submit(StageDraft("a", "app", over=Span(0, 4), run_ms_max=20 * HOUR_MS))
        for order in core.held():
            core.report(order.attempt_id, Happening.RUNNING)
            core.report(order.attempt_id)
    core.submit(waits)
    core.now_ms += 5_000
    core.beat(joined)
    core.submit(StageDraft("c", "another", queue_ms_max=3_000))
    core.submit(StageDraft("a", "app", run_ms_max=10_000))
    core.report(core.held()[0].attempt_id, Happening.RUNNING)
    index, kept = core.state.index, core.held()
    assert sum(kind == "attempt" for _, kind, _ in index.deadlines) == 121
    index.deadlines_max = len(index.deadlines)
    next_deadline(core.state)
    assert len(index.deadlines) == index.deadlines_max, "so many are allowed"
    index.deadlines_max -= 1
    due_ms = next_deadline(core.state)
    assert due_ms == core.now_ms + 3_000, "the first, and not that of the worker which was heard"
    assert {kind for _, kind, _ in index.deadlines} == {"attempt", "job", "task", "worker"}
    assert sum(kind == "attempt" for _, kind, _ in index.deadlines) == 1
    assert index.deadlines_max == 2 * len(index.deadlines)
    for _ in range(5):
        core.advance(2_000)
        core.beat(joined, kept[0].attempt_id)
    core.advance(limits.LEASE_MS)
    core.beat(joined, kept[0].attempt_id)
    (attempt,) = core.ask(GetTask("33.1")).attempts
    assert attempt.rung == Rung.ASKED, "what runs for too long is stopped at its time"


# workers ----------------------------------------------------------------------------------------------------------


def test_a_silent_worker_and_what_it_held_tell_how_long_it_was_silent() -> None:
    core = Core()
    core.join()
    core.submit()
    core.advance(limits.LEASE_MS)
    assert core.last is not None
    assert {(move.kind, move.reason) for move in core.last.story} == {
        ("attempt", "worker w1 was silent for 6 s"),
        ("task", "worker w1 was silent for 6 s"),
        ("worker", "silent for 6 s"),
    }


def test_a_lease_that_is_made_shorter_ends_for_nobody_before_the_one_that_was_promised() -> None:
    core = Core()
    core.join("w1")
    core.advance(1_000)
    core.apply(Reconfigure(lease_ms=2_000, heartbeat_ms=1_000))
    core.apply(Reconfigure(lease_ms=1_500, heartbeat_ms=500))
    core.state = load([row for rows in core.state.rows.values() for row in rows.values()], 0)
    core.advance(limits.LEASE_MS - 1)
    assert [worker.status for worker in workers(core)] == ["online"]
    core.advance(1)
    assert [worker.status for worker in workers(core)] == ["lost"]
    core.join("w2")
    core.advance(1_499)
    assert [worker.status for worker in workers(core)] == ["lost", "online"]
    core.advance(1)
    assert [worker.status for worker in workers(core)] == ["lost", "lost"]


def test_a_lease_that_is_made_shorter_counts_at_once_where_nobody_was_promised_the_former_one() -> (
    None
):
    core = Core()
    left, _lost = core.join("w1"), core.join("w2")
    core.apply(LeaveWorker(left.worker_id, left.incarnation))
    core.advance(limits.LEASE_MS)
    assert [worker.status for worker in workers(core)] == ["left", "lost"]
    core.apply(Reconfigure(lease_ms=1_500, heartbeat_ms=500))
    core.join("w3")
    core.advance(1_500)
    assert [worker.status for worker in workers(core)] == ["left", "lost", "lost"]


def test_a_worker_whose_name_was_taken_was_promised_the_former_lease_too() -> None:
    core = Core()
    core.join("w1", session="s1")
    second = core.join("w1", session="s2")
    core.apply(LeaveWorker(second.worker_id, second.incarnation))
    assert [worker.status for worker in workers(core)] == ["replaced", "left"]
    core.apply(Reconfigure(lease_ms=1_500, heartbeat_ms=500))
    assert core.state.settings.promised_until_ms == core.now_ms + limits.LEASE_MS


def test_a_lease_that_is_made_longer_promises_nothing_of_the_former_one() -> None:
    core = Core()
    core.join()
    core.apply(Reconfigure(lease_ms=limits.LEASE_MS))
    core.apply(Reconfigure(lease_ms=HOUR_MS))
    assert core.state.settings.promised_until_ms == 0
    core.apply(Reconfigure(lease_ms=limits.LEASE_MS))
    assert core.state.settings.promised_until_ms == core.now_ms + HOUR_MS


def test_progress_of_what_is_lost_is_lost_with_it() -> None:
    core = Core()
    core.join()
    core.submit()
    core.report(core.held()[0].attempt_id, Happening.PROGRESS, message="half")
    core.advance(limits.LEASE_MS)
    (attempt,) = core.ask(GetTask("1")).attempts
    assert (attempt.status, attempt.progress, attempt.progress_message) == ("failed", None, "")


def test_a_lost_worker_that_said_goodbye_is_forgotten_after_the_retention() -> None:
    core = Core()
    joined = core.join()
    core.advance(limits.LEASE_MS)
    core.apply(LeaveWorker(joined.worker_id, joined.incarnation))
    core.advance(limits.RETENTION_MS - 1)
    assert [worker.status for worker in workers(core)] == ["left"]
    core.advance(1)
    assert workers(core) == []


def test_a_lost_worker_whose_name_was_taken_has_left_then_and_is_forgotten_after_the_retention() -> (
    None
):
    core = Core()
    core.join("w1", session="s1")
    core.advance(limits.LEASE_MS)
    second = core.join("w1", session="s2")
    assert core.last is not None
    assert "a new process took its name" in {move.reason for move in core.last.story}
    assert [(each.status, each.left_at_ms) for each in workers(core)] == [
        ("left", core.now_ms),
        ("online", None),
    ]
    core.apply(Reconfigure(lease_ms=HOUR_MS))
    core.beat(second)
    core.advance(limits.RETENTION_MS - 1)
    assert [worker.status for worker in workers(core)] == ["left", "online"]
    core.advance(1)
    assert [worker.status for worker in workers(core)] == ["online"]


def test_a_worker_whose_name_was_taken_has_not_left_while_its_lease_runs() -> None:
    core = Core()
    core.join("w1", session="s1")
    core.advance(1_000)
    core.join("w1", session="s2")
    assert [(each.status, each.left_at_ms) for each in workers(core)] == [
        ("replaced", None),
        ("online", None),
    ]
    core.advance(5_000)
    assert [(each.status, each.left_at_ms) for each in workers(core)] == [
        ("left", core.now_ms),
        ("online", None),
    ]


def test_the_name_of_a_worker_that_was_forgotten_is_nobodys() -> None:
    core = Core()
    gone = core.join("w1")
    core.apply(Reconfigure(lease_ms=HOUR_MS))
    core.join("w2")
    core.apply(LeaveWorker(gone.worker_id, gone.incarnation))
    core.advance(limits.RETENTION_MS)
    assert core.join("w1", session="s1").incarnation == 1
    assert [(each.name, each.status) for each in workers(core)] == [
        ("w2", "online"),
        ("w1", "online"),
    ]


# keys -------------------------------------------------------------------------------------------------------------


def test_a_key_finds_its_first_answer_until_its_time_is_over_and_not_at_its_end() -> None:
    core = Core(checked=False)
    first = core.submit(key="k")
    core.now_ms += limits.RECEIPT_MS - 1
    again = core.submit(key="k")
    assert (again.job_id, again.repeated) == (first.job_id, True)
    core.now_ms += 1
    new = core.submit(key="k")
    assert (new.number, new.repeated) == (2, False)
