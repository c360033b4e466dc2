"""Why: each thing that can hold work back is named, the one that counts first."""

from __future__ import annotations

from orchestra.statemachine import limits
from orchestra.statemachine.commands import (
    CancelJob,
    PauseJob,
    PauseWorker,
    ResumeWorker,
    StageDraft,
)
from orchestra.statemachine.queries import Why
from orchestra.statemachine.records import Cause, Span
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening
from orchestra.testing.core import Core


def codes(core: Core, subject: str) -> list[str]:
    return [reason.code for reason in core.ask(Why(subject)).reasons]


def text(core: Core, subject: str) -> str:
    return " | ".join(reason.text for reason in core.ask(Why(subject)).reasons)


def test_what_comes_after_a_pair_names_the_other_task() -> None:
    core = Core()
    core.join()
    core.submit(
        StageDraft("a", "app", over=Span(0, 2)),
        StageDraft("b", "app", over=Span(0, 2), pairwise=("a",)),
    )
    assert codes(core, "1.4") == ["after-pair"]
    assert "task 1.2 of 'a', which is queued" in text(core, "1.4")
    core.report(core.held()[0].attempt_id)
    assert codes(core, "1.3") == ["busy"]


def test_what_comes_after_a_stage_names_its_first_open_task() -> None:
    core = Core()
    core.join()
    core.submit(
        StageDraft("a", "app"),
        StageDraft("b", "app", over=Span(0, 3)),
        StageDraft("c", "app", after=("a", "b")),
    )
    core.report(core.held()[0].attempt_id)
    core.report(core.held()[0].attempt_id)
    (reason,) = core.ask(Why("1.5")).reasons
    assert "2 of 3 tasks are not completed" in reason.text
    assert "why 1.3" in reason.remedy


def test_a_pair_that_is_to_come_is_told_as_that() -> None:
    core = Core()
    many = limits.UNFOLD_SLICE
    core.submit(
        StageDraft("b", "app", over=Span(0, many), pairwise=("a",)),
        StageDraft("a", "app", over=Span(0, many)),
    )
    assert "not unfolded yet" in text(core, "1.1")


def test_the_first_open_task_is_looked_for_a_thousand_tasks_far() -> None:
    core = Core(checked=False)
    core.join(slots=1_000)
    core.submit(StageDraft("a", "app", over=Span(0, 1_001)), StageDraft("b", "app", after=("a",)))
    core.settle()
    for order in core.held():
        core.report(order.attempt_id)
    (reason,) = core.ask(Why("1.1002")).reasons
    assert reason.remedy == "see why they wait: list the tasks of stage 'a'"


def test_jobs_that_hold_their_tasks_say_so_first() -> None:
    core = Core()
    joined = core.join()
    core.submit()
    core.submit()
    core.apply(PauseJob(core.state.index.job_numbers[2], "lunch"))
    assert codes(core, "2")[0] == "job-paused"
    core.apply(CancelJob(core.state.index.job_numbers[1], "enough"))
    assert codes(core, "1")[:2] == ["job-cancelling", "cancelling"]
    assert "because enough" in text(core, "1")
    for _ in range(3):
        for _ in range(3):
            core.advance(2_000)
            core.beat(joined, core.held()[0].attempt_id)
    assert codes(core, "1")[:2] == ["job-cancelling", "cancel-unconfirmed"]


def test_a_paused_job_of_many_tasks_says_so() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, 3)))
    core.apply(PauseJob(core.state.index.job_numbers[1], "lunch"))
    assert codes(core, "1")[0] == "job-paused"


def test_places_in_the_queue() -> None:
    core = Core()
    core.join()
    core.submit()
    core.submit(StageDraft("a", "app", over=Span(0, 3)))
    core.submit()
    assert "1 stage of higher priority or earlier submission" in text(core, "3")
    assert "2 tasks of its own stage" in text(core, "2.3")
    assert codes(core, "2.1") == ["busy"]


def test_a_job_of_many_tasks_answers_with_its_first_that_waits() -> None:
    core = Core()
    core.join()
    core.submit()
    core.submit(StageDraft("a", "app", over=Span(0, 3)))
    assert codes(core, "2")[0] == "busy"


def test_a_job_finds_its_own_among_those_that_wait() -> None:
    core = Core()
    core.join()
    core.submit()
    for _ in range(3):
        core.submit(StageDraft("a", "app", over=Span(0, 3)))
    core.submit(
        StageDraft("b", "app", over=Span(0, 3), priority=-1, retries=1, needs=(("cpu", 0),))
    )
    assert "such as 4.1" in text(core, "4")
    assert "such as 5.1" in text(core, "5")
    core.apply(PauseJob(core.state.index.job_numbers[3]))
    assert codes(core, "3")[0] == "job-paused"


def test_only_the_open_ones_of_what_it_comes_after_are_named() -> None:
    core = Core()
    core.join()
    core.submit(
        StageDraft("a", "app", over=Span(0, 2)),
        StageDraft("b", "app"),
        StageDraft("c", "app", over=Span(0, 2), pairwise=("a",), after=("b",)),
    )
    core.report(core.held()[0].attempt_id)
    assert codes(core, "1.4") == ["after"]


def test_room_on_a_worker_is_no_reason() -> None:
    core = Core()
    core.join("w1", slots=2)
    core.submit()
    core.apply(PauseJob(core.state.index.job_numbers[1]))
    core.submit(StageDraft("a", "app"))
    paused = core.submit(StageDraft("a", "app", over=Span(0, 3)))
    core.apply(PauseJob(paused.job_id))
    core.report(core.held()[0].attempt_id)
    assert codes(core, "3.3") == ["job-paused", "queue"]


def test_an_end_whose_attempt_could_not_be_read() -> None:
    core = Core(checked=False)
    core.join()
    core.submit()
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    core.state.rows["attempt"].clear()
    assert codes(core, "1") == ["error"]


def test_what_is_reserved_for_others_is_named() -> None:
    core = Core()
    joined = core.join("w1", slots=4, capacity=(("cpu", 2_000),))
    core.submit(StageDraft("small", "app", over=Span(0, 2), needs=(("cpu", 1_000),)))
    core.submit(StageDraft("large", "app", needs=(("cpu", 2_000),)))
    for _ in range(40):
        core.advance(2_000)
        core.beat(joined, *(order.attempt_id for order in core.held()))
    core.report(core.held()[0].attempt_id)
    core.submit(StageDraft("late", "app", needs=(("cpu", 1_000),)))
    assert "reserved" in codes(core, "3")
    assert "2.1" in text(core, "3")


def test_what_is_free_and_first_is_next() -> None:
    core = Core()
    joined = core.join()
    core.apply(PauseWorker(joined.worker_id, "new disk"))
    core.submit()
    assert codes(core, "1") == ["workers-paused"]
    assert text(core, "1").endswith("is paused: w1 (new disk)")
    assert codes(core, "w1")[0] == "worker-paused"
    core.apply(PauseWorker(joined.worker_id))
    assert text(core, "1").endswith("is paused: w1")
    core.apply(ResumeWorker(joined.worker_id))
    assert codes(core, "1") == ["starting"]


def test_only_what_is_too_large_is_named() -> None:
    core = Core()
    core.join(capacity=(("cpu", 2_000), ("gpu", 1_000)))
    core.submit(StageDraft("a", "app", needs=(("cpu", 1_000), ("gpu", 2_000))))
    (reason,) = core.ask(Why("1")).reasons
    assert reason.text == "it needs gpu=2; the best worker has gpu=1 in all"


def test_workers_say_what_does_not_fit_them() -> None:
    core = Core()
    core.join("w1", apps=("other",))
    core.submit()
    assert codes(core, "w1") == ["online", "unfit"]
    assert "(1.1) does not fit it: app" in text(core, "w1")
    core.join("w2", apps=("app",))
    assert codes(core, "w2") == ["online"]
    core.state.pulses.clear()
    assert "not heard since the start" in text(core, "w2")


def test_ends_are_told_with_what_is_known_of_each_attempt() -> None:
    core = Core()
    core.join("w1")
    core.submit()
    core.report(core.held()[0].attempt_id)
    assert codes(core, "1") == ["completed"]
    core.submit()
    first = core.held()[0]
    effect = core.orders[first.attempt_id]
    ended = AttemptReport(
        first.attempt_id, Happening.FAILED, None, Cause.EXIT, "", exit_code=3, signal="SIGTERM"
    )
    core.apply(AttemptsReported(effect.worker_id, effect.incarnation, (ended,)))
    assert "failed, exit, exit code 3, SIGTERM" in text(core, "2")


def test_late_evidence_is_told() -> None:
    core = Core()
    core.join("w1")
    core.submit()
    first = core.held()[0].attempt_id
    core.advance(6_001)
    core.report(first)
    core.join("w2")
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    assert "a late report said completed; kept as evidence" in text(core, "1")
