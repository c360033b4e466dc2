"""Whose turn it is: among workers that are free, among tasks that wait for room, and what is said of those who stand before."""

from __future__ import annotations

import pytest

from orchestra.statemachine import limits
from orchestra.statemachine.commands import (
    CancelTask,
    LeaveWorker,
    PauseJob,
    PauseWorker,
    Reconfigure,
    StageDraft,
)
from orchestra.statemachine.queries import GetJob, GetTask, Why
from orchestra.statemachine.records import Amounts, Span
from orchestra.testing.core import Core

CPU_1, CPU_2 = (("cpu", 1_000),), (("cpu", 2_000),)


def where(core: Core, selector: str) -> str:
    return core.ask(GetTask(selector)).worker


def needing(needs: Amounts, app: str = "app") -> StageDraft:
    return StageDraft("s", app, needs=needs)


def waiting_core() -> Core:
    """What waits for room reserves a worker after a second, and workers are not lost meanwhile."""
    core = Core()
    core.apply(Reconfigure(reserve_after_ms=1_000, lease_ms=limits.HOUR_MS))
    return core


def test_of_two_free_workers_the_one_that_is_free_for_longer_is_next() -> None:
    core = Core()
    core.join("w1")
    core.join("w2")
    core.submit(StageDraft("a", "app", over=Span(0, 2)))
    first, second = core.held()
    core.report(second.attempt_id)
    core.report(first.attempt_id)
    core.submit()
    assert where(core, "2") == "w2"


def test_a_worker_is_given_at_once_what_fits_beside_what_it_holds() -> None:
    core = Core()
    core.join(slots=9, capacity=(("cpu", 3_000),))
    core.submit(needing(CPU_1))
    core.submit(StageDraft("a", "app", over=Span(0, 5), needs=CPU_1))
    assert len(core.held()) == 3


def test_what_is_cancelled_in_the_middle_of_a_queue_is_never_given_out() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, 3)))
    core.apply(CancelTask(core.ask(GetTask("1.2")).id))
    core.join()
    core.run_all()
    assert core.ask(GetJob("1")).counts == {"completed": 2, "cancelled": 1}


def test_a_reservation_holds_back_nothing_that_stands_before_it() -> None:
    core = waiting_core()
    core.join("w1", slots=2, capacity=CPU_2)
    core.submit(needing(CPU_1))
    core.submit(needing(CPU_2))
    core.advance(1_000)
    core.join("w2", apps=("other",))
    core.submit(needing((), "other"))
    core.submit(StageDraft("first", "other"), priority=3)
    core.submit(needing(CPU_1), priority=2)
    assert where(core, "5") == "w1", "2 waits for longer and stands behind it"


def test_a_reservation_behind_holds_back_nothing_because_there_is_one_before() -> None:
    core = waiting_core()
    core.join("w1", slots=2, capacity=CPU_2, labels=("x",))
    core.join("w2", slots=2, capacity=CPU_2, labels=("y",))
    core.submit(StageDraft("a", "app", needs=CPU_1, labels=("x",)))
    core.submit(StageDraft("b", "app", needs=CPU_1, labels=("y",)))
    core.submit(StageDraft("before", "app", needs=CPU_2, labels=("x",)), priority=3)
    core.submit(StageDraft("behind", "app", needs=CPU_2, labels=("y",)))
    core.advance(1_000)
    core.submit(needing(CPU_1), priority=2)
    assert where(core, "5") == "w2"


@pytest.mark.parametrize("gone", [False, True])
def test_no_worker_that_gets_nothing_keeps_another_from_being_reserved(gone: bool) -> None:
    core = waiting_core()
    core.join("w1", slots=2, capacity=CPU_2)
    core.submit(needing(CPU_1))
    idle = core.join("w2", slots=2, capacity=CPU_2)
    if gone:
        core.apply(LeaveWorker(idle.worker_id, idle.incarnation))
    else:
        core.apply(PauseWorker(idle.worker_id))
    core.submit(needing(CPU_2))
    core.advance(1_000)
    core.submit(needing(CPU_1))
    assert where(core, "3") == "", "w1 is kept for 2"


def test_what_does_not_wait_for_long_yet_keeps_nobody_behind_it_from_reserving() -> None:
    core = waiting_core()
    core.join("w1", slots=2, capacity=CPU_2)
    core.submit(needing(CPU_1))
    core.submit(needing(CPU_2))
    core.advance(1_000)
    core.submit(needing((("cpu", 1_500),)), priority=1)
    core.submit(needing(CPU_1))
    assert where(core, "4") == "", "w1 is kept for 2, though 3 stands before it"


def test_what_nobody_can_run_keeps_nobody_behind_it_from_reserving() -> None:
    core = waiting_core()
    core.join("w1", slots=2, capacity=CPU_2)
    core.submit(needing(CPU_1))
    core.submit(needing((), "rare"))
    core.submit(needing(CPU_2))
    core.advance(1_000)
    core.submit(needing(CPU_1))
    assert where(core, "4") == "", "w1 is kept for 3"


def test_stages_that_stand_before_are_counted_once_each() -> None:
    core = Core()
    core.join()
    for _ in range(3):
        core.submit(StageDraft("a", "app", over=Span(0, 3)))
    core.submit()
    for selector in ("2.1", "2.2", "3.1"):  # each time another task is the first of its stage
        core.apply(CancelTask(core.ask(GetTask(selector)).id))
    assert before(core, "4") == 3


def test_stages_of_which_nothing_may_start_do_not_stand_before() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", over=Span(0, 2)))
    for _ in range(3):
        core.submit()
    core.submit()
    assert before(core, "5") == 4
    core.apply(PauseJob(core.state.index.job_numbers[2]))
    core.apply(CancelTask(core.ask(GetTask("3.1")).id))
    assert before(core, "5") == 2


def before(core: Core, selector: str) -> int:
    """How many stages stand before a task, as `why` tells."""
    (told,) = (reason for reason in core.ask(Why(selector)).reasons if reason.code == "queue")
    return int(told.text.removeprefix("before it in the queue: ").split()[0])
