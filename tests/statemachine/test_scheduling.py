"""Who is next, and where; and `why`, which must never contradict it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestra.statemachine.commands import (
    LeaveWorker,
    PauseJob,
    PauseWorker,
    Reconfigure,
    StageDraft,
)
from orchestra.statemachine.lifecycles import TaskStatus
from orchestra.statemachine.queries import Why
from orchestra.statemachine.records import Span, Task
from orchestra.statemachine.reports import Happening
from orchestra.testing.core import Core

GPU = (("gpu", 1_000),)


def order_of_starts(core: Core) -> list[str]:
    started: list[str] = []
    while core.held():
        (order,) = core.held()
        started.append(f"{order.job_number}.{order.position}")
        core.report(order.attempt_id)
    return started


def test_first_in_first_out_among_equals() -> None:
    core = Core()
    for _ in range(3):
        core.submit(StageDraft("a", "app", over=Span(0, 2)))
        core.advance(1)
    core.join()
    assert order_of_starts(core) == ["1.1", "1.2", "2.1", "2.2", "3.1", "3.2"]


def test_what_was_lost_with_its_worker_stands_where_it_stood() -> None:
    core = Core()
    one = core.join("one", slots=2)
    core.join("two")
    core.submit(StageDraft("a", "app", over=Span(0, 6)))
    core.apply(LeaveWorker(one.worker_id, one.incarnation))
    assert [order.position for order in core.held()] == [2]
    started: list[int] = []
    while core.held():
        (order,) = core.held()
        started.append(order.position)
        core.report(order.attempt_id)
    assert started == [2, 1, 3, 4, 5, 6]


def test_higher_priority_first() -> None:
    core = Core()
    core.submit(priority=0)
    core.submit(priority=5)
    core.submit(StageDraft("low", "app"), StageDraft("high", "app", priority=9), priority=0)
    core.join()
    assert order_of_starts(core) == ["3.2", "2.1", "1.1", "3.1"]


def test_what_waits_is_put_in_order_anew_when_a_level_of_priority_is_worth_more_or_less() -> None:
    core = Core()
    for priority in (0, 1, 2):
        core.submit(priority=priority)
        core.advance(1_000)
    core.apply(Reconfigure(aging_ms=1_500))
    core.apply(Reconfigure(aging_ms=500))
    core.join()
    assert order_of_starts(core) == ["1.1", "2.1", "3.1"]


def test_waiting_outweighs_priority_in_the_end() -> None:
    core = Core()
    core.submit(priority=0)
    core.advance(5 * 600_000 + 1)
    core.submit(priority=5)
    core.join()
    assert order_of_starts(core) == ["1.1", "2.1"]


def test_resources_labels_and_apps_decide_where() -> None:
    core = Core()
    plain = core.join("plain", slots=2, apps=("app", "other"))
    gpu = core.join("gpu", slots=2, capacity=GPU, labels=("cuda",))
    core.submit(StageDraft("a", "app", needs=GPU), StageDraft("b", "app", labels=("cuda",)))
    core.submit(StageDraft("c", "other"))
    where = {order.stage: core.orders[order.attempt_id].worker_id for order in core.held()}
    assert where == {"a": gpu.worker_id, "b": gpu.worker_id, "c": plain.worker_id}


def test_a_stage_is_bound_to_a_worker_by_the_label_of_its_name() -> None:
    core = Core()
    core.join("one", slots=2)
    core.submit(StageDraft("a", "app", over=Span(0, 3), labels=("worker:two",)))
    assert core.held() == []
    two = core.join("two", slots=2)
    assert {core.orders[order.attempt_id].worker_id for order in core.held()} == {two.worker_id}
    assert len(core.held()) == 2


def test_a_counted_resource_is_never_given_twice() -> None:
    core = Core()
    core.join(slots=4, capacity=GPU)
    core.submit(StageDraft("a", "app", over=Span(0, 3), needs=(("gpu", 500),)))
    assert len(core.held()) == 2


def test_small_tasks_do_not_starve_a_big_one() -> None:
    core = Core()
    joined = core.join(slots=2, capacity=(("cpu", 2_000),))
    small = StageDraft("small", "app", over=Span(0, 60), needs=(("cpu", 1_000),))
    core.submit(small, priority=1)
    core.submit(StageDraft("big", "app", needs=(("cpu", 2_000),)))
    core.submit(small)
    for _ in range(80):
        core.advance(5_000)
        core.beat(joined, *[order.attempt_id for order in core.held()])
        held = core.held()
        if any(order.stage == "big" for order in held):
            break
        core.report(held[0].attempt_id)
    else:
        raise AssertionError("the big task starved")
    assert core.now_ms - 1_000_000 < 400_000


def reasons(core: Core, subject: str = "last") -> list[str]:
    return [reason.code for reason in core.ask(Why(subject)).reasons]


def test_why_names_what_is_missing() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", needs=GPU, labels=("cuda",)))
    assert reasons(core) == ["no-worker"]
    core.join("w1", apps=("other",))
    assert reasons(core) == ["no-app"]
    core.join("w2")
    assert reasons(core) == ["no-label"]
    core.join("w3", labels=("cuda",))
    assert reasons(core) == ["too-small"]
    good = core.join("w4", labels=("cuda",), capacity=GPU)
    assert reasons(core) == ["starting"]
    core.submit(StageDraft("a", "app", needs=GPU, labels=("cuda",)))
    assert reasons(core) == ["busy"]
    core.apply(PauseWorker(good.worker_id, "x"))
    assert reasons(core) == ["workers-paused"]


def test_why_follows_a_task_through_its_life() -> None:
    core = Core()
    joined = core.join()
    core.submit(StageDraft("a", "app", retries=1), StageDraft("b", "app", after=("a",)))
    assert reasons(core, "1.2") == ["after"]
    attempt = core.held()[0].attempt_id
    core.report(attempt, Happening.RUNNING)
    assert reasons(core, "1.1") == ["running"]
    core.report(attempt, Happening.FAILED, message="no such file")
    assert reasons(core, "1.1") == ["backoff"]
    core.beat(joined)
    core.advance(1_000)
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no such file")
    assert reasons(core, "1.1") == ["error", "attempt-2", "attempt-1"]
    assert reasons(core, "1.2") == ["upstream"]
    told = core.ask(Why("1")).reasons
    assert any("no such file" in reason.text for reason in told)


def test_why_tells_a_paused_job_first() -> None:
    core = Core()
    job = core.submit()
    core.apply(PauseJob(job.job_id, "budget"))
    first = core.ask(Why("1.1")).reasons[0]
    assert (first.code, "budget" in first.text, first.remedy) == (
        "job-paused",
        True,
        "resume job 1",
    )


@given(
    needs=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    capacities=st.lists(st.integers(0, 3), max_size=4),
)
def test_why_names_a_reason_for_everything_that_waits_and_its_remedy_works(
    needs: list[int], capacities: list[int]
) -> None:
    core = Core()
    for number, capacity in enumerate(capacities):
        core.join(f"w{number}", capacity=(("cpu", capacity * 1_000),))
    for need in needs:
        core.submit(StageDraft("a", "app", needs=(("cpu", need * 1_000),)))
    for task in list(core.state.each(Task)):
        if task.status is TaskStatus.QUEUED:
            answered = core.ask(Why(task.id))
            assert answered.reasons
            assert answered.reasons[0].code in {"no-worker", "too-small", "busy", "queue"}
            assert any(reason.remedy for reason in answered.reasons)
    core.join("large", slots=20, capacity=(("cpu", 60_000),))
    waiting = [task for task in core.state.each(Task) if task.status is TaskStatus.QUEUED]
    assert not waiting
