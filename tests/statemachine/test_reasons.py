"""The answers of `why` for what waits, as people read them, whole: reason, what it is about, and what would change it."""

from __future__ import annotations

import pytest

from orchestra.statemachine.commands import (
    CancelJob,
    LeaveWorker,
    PauseJob,
    PauseWorker,
    Reconfigure,
    StageDraft,
)
from orchestra.statemachine.queries import GetTask, Why
from orchestra.statemachine.records import Amounts, Cause, Span
from orchestra.statemachine.replies import Reason
from orchestra.statemachine.reports import Happening
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


def test_subject_and_status_are_told_with_the_reasons() -> None:
    core, _ = running()
    told = core.ask(Why("1"))
    assert (told.subject, told.status) == ("1.1", "running")
    told = core.ask(Why("w1"))
    assert (told.subject, told.status) == ("w1", "online")
    core.submit(StageDraft("a", "app", over=Span(0, 2)))
    told = core.ask(Why("2"))
    assert (told.subject, told.status) == ("2", "queued")


def test_nobody_is_there() -> None:
    core = Core()
    core.submit()
    assert only(core) == Reason(
        "no-worker", "no worker is online", remedy="start one: python -m orchestra worker URL"
    )


def test_nobody_has_the_app() -> None:
    core = Core()
    core.join("w1", apps=("x",))
    core.join("w2", apps=("y",))
    core.submit()
    assert only(core) == Reason(
        "no-app",
        "none of 2 workers runs the app 'app'",
        remedy="start a worker that has the app 'app'",
    )


def test_nobody_has_the_labels() -> None:
    core = Core()
    core.join("w1", apps=("x",))
    core.join("w2", labels=("a",))
    core.submit(StageDraft("s", "app", labels=("a", "b")))
    assert only(core) == Reason(
        "no-label",
        "none of 1 worker with the app has the labels a, b",
        remedy="start a worker with these labels, or ask for fewer",
    )


@pytest.mark.parametrize(
    ("capacity", "needs", "told"),
    [
        ((("gpu", 1_500),), (("gpu", 2_000),), ("gpu=2", "gpu=1.5")),
        ((), (("gpu", 500),), ("gpu=0.5", "gpu=0")),
        ((("ram", 1),), (("ram", 10**9),), ("ram=1000000", "ram=0.001")),
        ((("ram", 10**9),), (("ram", 10**12 + 1),), ("ram=1000000000", "ram=1000000")),
    ],
)
def test_nobody_is_large_enough(capacity: Amounts, needs: Amounts, told: tuple[str, str]) -> None:
    core = Core()
    core.join("w1", capacity=capacity)
    core.submit(StageDraft("s", "app", needs=needs))
    wanted, best = told
    assert only(core) == Reason(
        "too-small",
        f"it needs {wanted}; the best worker has {best} in all",
        remedy=f"start a larger worker, or ask for {best} at most",
    )


def test_the_best_worker_is_the_one_that_lacks_fewest_things() -> None:
    core = Core()
    core.join("w1", capacity=(("a", 1_000),))
    core.join("w2", capacity=(("a", 1_000), ("b", 2_000)))
    core.join("w3", capacity=(("c", 9_000),))
    needs = (("a", 1_000), ("b", 2_000), ("c", 5_000))
    core.submit(StageDraft("s", "app", needs=needs))
    assert only(core).text == "it needs c=5; the best worker has c=0 in all"


def test_all_are_busy_and_with_what() -> None:
    core = Core()
    core.join("w1", slots=2, capacity=(("cpu", 2_000),))
    core.join("w2", capacity=(("cpu", 1_000),))
    core.submit(StageDraft("s", "app", over=Span(0, 4), needs=(("cpu", 1_000),)))
    assert asked(core, "1.4") == [
        Reason(
            "busy",
            "2 workers can run it and all are busy (no slots free): w1 (1.1, 1.3); w2 (1.2)",
            remedy="wait, or add a worker",
        )
    ]


def test_of_many_that_are_busy_five_are_named() -> None:
    core = Core()
    core.join("wide", slots=8, capacity=(("cpu", 6_000),))
    core.submit(StageDraft("s", "app", over=Span(0, 7), needs=(("cpu", 1_000),)))
    text = asked(core, "1.7")[0].text
    assert text.endswith("(no cpu free): wide (1.1, 1.2, 1.3, 1.4, 1.5)")
    core = Core()
    for number in range(6):
        core.join(f"w{number}")
    core.submit(StageDraft("s", "app", over=Span(0, 7)))
    text = asked(core, "1.7")[0].text
    assert text.count("; ") == 4
    assert "w4 (" in text
    assert "w5" not in text


def test_those_who_could_are_paused() -> None:
    core = Core()
    ids = [core.join(f"w{number}").worker_id for number in range(6)]
    for number, id in enumerate(ids):
        core.apply(PauseWorker(id, "" if number else "lunch"))
    core.submit()
    assert only(core) == Reason(
        "workers-paused",
        "every worker that can run it is paused: w0 (lunch), w1, w2, w3, w4, ...",
        remedy="resume one of them: w0, w1, w2, w3, w4, ...",
    )
    core.apply(LeaveWorker(ids[5], 1))
    assert only(core).text.endswith(": w0 (lunch), w1, w2, w3, w4")


def test_how_many_stand_before_it() -> None:
    core = Core()
    core.join()
    core.submit()
    core.submit(StageDraft("a", "app", over=Span(0, 3)))
    core.submit()
    assert asked(core, "2.3")[1] == Reason(
        "queue",
        "before it in the queue: 2 tasks of its own stage",
        remedy="wait, or add a worker; a priority is given when a job is submitted",
    )
    assert asked(core, "3")[1].text == (
        "before it in the queue: 1 stage of higher priority or earlier submission"
    )


def test_both_those_of_other_stages_and_of_its_own_stand_before_it() -> None:
    core = Core()
    core.join()
    core.submit()
    core.submit()
    core.submit(StageDraft("a", "app", over=Span(0, 2)))
    assert asked(core, "3.2")[1].text == (
        "before it in the queue: 1 stage of higher priority or earlier submission and 1 task of its own stage"
    )


def test_a_worker_with_room_is_reserved_for_what_waited_longer() -> None:
    core = Core()
    core.apply(Reconfigure(reserve_after_ms=1_000))
    core.join(slots=2, capacity=(("cpu", 2_000),))
    core.submit(StageDraft("small", "app", needs=(("cpu", 1_000),)))
    core.submit(StageDraft("big", "app", needs=(("cpu", 2_000),)))
    core.advance(1_000)
    core.submit(StageDraft("late", "app", needs=(("cpu", 1_000),)))
    assert asked(core, "3") == [
        Reason(
            "reserved",
            "the workers with room are reserved for work that waited longer: 2.1",
            remedy="wait, or add a worker",
        )
    ]
    assert asked(core, "2")[0].code == "busy"


def test_a_paused_job_and_one_that_is_being_cancelled_hold_their_tasks() -> None:
    core = Core()
    core.join()
    core.submit()
    core.submit()
    core.apply(PauseJob(job_id(core, 2), "lunch"))
    assert asked(core, "2.1")[0] == Reason(
        "job-paused", "job 2 is paused: lunch", remedy="resume job 2"
    )
    core.apply(CancelJob(job_id(core, 1), "enough"))
    assert asked(core, "1.1")[0] == Reason("job-cancelling", "job 1 is being cancelled: enough")


def test_what_comes_after_a_stage() -> None:
    core = Core()
    core.submit(
        StageDraft("a", "app", over=Span(0, 2)),
        StageDraft("b", "app", after=("a",)),
        StageDraft("c", "app", over=Span(0, 2), pairwise=("a",)),
    )
    assert only(core, "1.3") == Reason(
        "after",
        "it comes after stage 'a': 2 of 2 tasks are not completed",
        remedy="see why they wait: why 1.1",
    )
    assert only(core, "1.5") == Reason(
        "after-pair",
        "it comes after task 1.2 of 'a', which is queued",
        remedy="see why 1.2",
    )


def test_only_what_is_not_completed_yet_is_waited_for() -> None:
    core = Core()
    core.join()
    core.submit(
        StageDraft("a", "app"), StageDraft("b", "app"), StageDraft("c", "app", after=("a", "b"))
    )
    core.report(core.held()[0].attempt_id)
    assert only(core, "1.3").text == "it comes after stage 'b': 1 of 1 task is not completed"
    assert only(core, "1.3").remedy == "see why they wait: why 1.2"


def test_a_pause_after_a_failure() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", retries=2, backoff_ms=1_000, backoff_ms_max=1_000))
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no luck")
    until_ms = core.ask(GetTask("1")).retry_at_ms
    assert until_ms is not None
    left = (until_ms - core.now_ms) / 1000
    assert only(core) == Reason(
        "backoff", f"try 1 failed (no luck); the next one comes in {left:.1f} s", until_ms=until_ms
    )


def test_a_pause_that_is_over_is_not_told_as_less_than_nothing() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", retries=1, backoff_ms=4, backoff_ms_max=4))
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no luck")
    core.now_ms += 60_000
    assert only(core).text.endswith("comes in 0.0 s")


def test_what_completed_tells_why_it_was_tried_again() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", retries=9, backoff_ms=1, backoff_ms_max=1))
    assert core.report(core.held()[0].attempt_id) == ""
    assert asked(core, "1.1") == [Reason("completed", "completed in attempt 1")]
    core.submit(StageDraft("a", "app", retries=9, backoff_ms=1, backoff_ms_max=1))
    for number in range(1, 8):
        (order,) = core.held()
        if number < 7:
            core.report(order.attempt_id, Happening.FAILED, cause=Cause.EXIT, message="no luck")
            core.advance(10)
        else:
            core.report(order.attempt_id)
    assert asked(core, "2.1") == [
        Reason("completed", "completed in attempt 7"),
        *(
            Reason(f"attempt-{number}", f"attempt {number} on w1: failed, exit: no luck")
            for number in (6, 5, 4, 3, 2)
        ),
    ]
