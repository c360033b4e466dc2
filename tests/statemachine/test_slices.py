"""Long work is done in slices: what one step does has a bound, and where a slice ends nothing is left out, done twice, or told wrongly."""

from __future__ import annotations

import pytest

from orchestra.errors import Defect
from orchestra.statemachine import limits, load, next_deadline
from orchestra.statemachine.commands import (
    CancelJob,
    PauseWorker,
    ResumeWorker,
    RetryTask,
    StageDraft,
    SubmitJob,
    Tick,
)
from orchestra.statemachine.ids import task_id
from orchestra.statemachine.queries import GetJob, GetTask, ListResults, ListTasks, ListWorkers
from orchestra.statemachine.records import OnFailure, Record, Span
from orchestra.statemachine.replies import TaskView
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.testing.core import Core

SLICE = 20


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of a size at which every row can be looked at."""
    monkeypatch.setattr(limits, "UNFOLD_SLICE", SLICE)


def tasks(core: Core, job: str = "1") -> list[TaskView]:
    return list(core.ask(ListTasks(job, limit=limits.PAGE_MAX)).items)


def statuses(core: Core, job: str = "1") -> list[str]:
    return [str(task.status) for task in tasks(core, job)]


def counts(core: Core, job: str = "1") -> dict[str, int]:
    return dict(core.ask(GetJob(job)).counts)


def job_id(core: Core, number: int = 1) -> str:
    return core.state.index.job_numbers[number]


def restarted(core: Core) -> Core:
    rows: list[Record] = [row for rows in core.state.rows.values() for row in rows.values()]
    again = Core()
    again.state = load(rows, core.now_ms)
    again.now_ms, again.orders = core.now_ms, core.orders
    return again


def stopping_at_first_failure(core: Core, size: int) -> None:
    core.apply(
        SubmitJob("job", (StageDraft("a", "app", over=Span(0, size)),), on_failure=OnFailure.STOP)
    )


# a job that stops ------------------------------------------------------------------------------------------------


def test_a_job_that_stops_at_its_first_failure_stops_its_first_task_too() -> None:
    core = Core()
    core.join(slots=2)
    stopping_at_first_failure(core, 3)
    core.report(core.held()[1].attempt_id, Happening.FAILED, message="no")
    assert statuses(core) == ["cancelling", "failed", "cancelled"]
    assert tasks(core)[2].reason == "the job stops at its first failure"


@pytest.mark.usefixtures("short")
def test_tasks_that_were_to_come_when_their_job_was_cancelled_tell_its_reason() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, 2 * SLICE)))
    core.apply(CancelJob(job_id(core), "enough"))
    core.settle()
    assert {task.reason for task in tasks(core)} == {"enough"}
    assert counts(core) == {"cancelled": 2 * SLICE}


@pytest.mark.usefixtures("short")
def test_tasks_that_were_to_come_at_the_first_failure_tell_that_their_job_stops() -> None:
    core = Core()
    core.join()
    stages = (StageDraft("a", "app"), StageDraft("b", "rare", over=Span(0, 2 * SLICE)))
    core.apply(SubmitJob("job", stages, on_failure=OnFailure.STOP))
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    core.settle()
    first, *others = tasks(core)
    assert first.reason == "no"
    assert {task.reason for task in others} == {"the job stops at its first failure"}
    assert counts(core) == {"failed": 1, "cancelled": 2 * SLICE}


@pytest.mark.usefixtures("short")
def test_a_failure_that_is_tried_again_ends_the_stopping_of_its_job() -> None:
    core = Core()
    joined = core.join()
    stopping_at_first_failure(core, 2 * SLICE)
    core.settle()
    core.apply(PauseWorker(joined.worker_id))
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    assert counts(core)["queued"] == SLICE, "half of them are not cancelled yet"
    core.apply(RetryTask(task_id(job_id(core), 1)))
    core.apply(ResumeWorker(joined.worker_id))
    core.run_all()
    assert counts(core) == {"completed": SLICE + 1, "cancelled": SLICE - 1}


@pytest.mark.usefixtures("short")
def test_a_cancellation_that_a_restart_cuts_off_begins_with_the_first_task() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, 2 * SLICE)))
    core.apply(CancelJob(job_id(core), "enough"))
    assert statuses(core)[0] == "queued", "the slice was used up by what was to come"
    again = restarted(core)
    again.settle()
    assert again.ask(GetJob("1")).status == "cancelled"


# what comes after something --------------------------------------------------------------------------------------


def test_a_review_ends_with_the_last_task_of_its_stage() -> None:
    core = Core()
    core.join(slots=2)
    core.submit(
        StageDraft("a", "app"),
        StageDraft("b", "app", over=Span(0, 2), after=("a",)),
        StageDraft("c", "app", after=("z",)),
        StageDraft("z", "app"),
    )
    assert statuses(core) == ["leased", "waiting", "waiting", "waiting", "leased"]
    core.report(core.held()[0].attempt_id)
    assert statuses(core)[1:] == ["leased", "queued", "waiting", "leased"], "c comes after z"


@pytest.mark.usefixtures("short")
def test_a_review_that_a_restart_cuts_off_begins_with_the_first_task() -> None:
    core = Core()
    core.join()
    core.submit(
        StageDraft("a", "app"),
        StageDraft("b", "app", after=("a",)),
        StageDraft("c", "app", over=Span(0, 2 * SLICE), priority=-1),
    )
    core.report(core.held()[0].attempt_id)
    assert statuses(core)[1] == "waiting", "the slice was used up by what was to come"
    again = restarted(core)
    again.run_all()
    assert again.ask(GetJob("1")).status == "completed"


@pytest.mark.usefixtures("short")
def test_the_pair_of_a_failure_is_skipped_as_it_is_made() -> None:
    core = Core()
    core.join()
    core.submit(
        StageDraft("a", "app", over=Span(0, SLICE)),
        StageDraft("b", "app", over=Span(0, SLICE), pairwise=("a",)),
    )
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    pair = core.ask(GetTask(f"1.{SLICE + 1}"))
    assert (pair.status, pair.reason) == ("skipped", "it comes after a, which did not complete")
    core.run_all()
    assert counts(core) == {"completed": 2 * SLICE - 2, "failed": 1, "skipped": 1}


def test_what_is_skipped_is_not_skipped_again_by_the_next_failure() -> None:
    core = Core()
    core.join(slots=2)
    core.submit(
        StageDraft("a", "app", over=Span(0, 2)),
        StageDraft("b", "app", after=("a",)),
        StageDraft("c", "app"),
    )
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    skipped = core.ask(GetTask("1.3"))
    assert skipped.status == "skipped"
    core.advance(5)
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    assert core.last is not None
    assert skipped.id not in {move.id for move in core.last.story}
    assert core.ask(GetTask("1.3")) == skipped


def test_what_waits_again_after_it_was_skipped_has_no_reason_and_no_end() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app"), StageDraft("b", "app", after=("a",)))
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    assert core.ask(GetTask("1.2")).reason
    core.apply(RetryTask(task_id(job_id(core), 1)))
    view = core.ask(GetTask("1.2"))
    assert (view.status, view.reason, view.cause, view.ended_at_ms) == ("waiting", "", "", None)


@pytest.mark.usefixtures("short")
def test_a_page_of_results_ends_before_the_tasks_that_are_to_come() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, 2 * SLICE)))
    page = core.ask(ListResults("1"))
    assert (len(page.items), page.next, page.done) == (SLICE, str(SLICE), False)
    core.settle()
    page = core.ask(ListResults("1", after=page.next))
    assert (len(page.items), page.next) == (SLICE, "")


# the bound of one step -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_a_tick_fails_no_more_tasks_that_waited_too_long_than_a_slice() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, SLICE + 5), queue_ms_max=1_000))
    core.settle()
    core.now_ms += 1_000
    core.apply(Tick())
    assert counts(core)["failed"] <= SLICE
    due_ms = next_deadline(core.state)
    assert due_ms is not None
    assert due_ms <= core.now_ms, "the next tick goes on at once"
    core.settle()
    assert counts(core) == {"failed": SLICE + 5}


@pytest.mark.usefixtures("short")
def test_a_tick_loses_no_more_workers_than_come_to_a_slice_of_rows_and_the_next_goes_on() -> None:
    core = Core()
    for number in range(9):
        core.join(f"w{number}", slots=3)
    core.submit(StageDraft("a", "app", over=Span(0, 27)))
    core.settle()
    assert counts(core) == {"leased": 27}
    core.now_ms += limits.LEASE_MS
    core.apply(Tick())
    lost = sum(task.losses for task in tasks(core))
    assert 0 < 2 * lost < SLICE + 6, "an attempt and a task each, and a whole worker's at a time"
    core.settle()
    assert [(task.status, task.losses) for task in tasks(core)] == [("queued", 1)] * 27


def test_one_tick_may_lose_more_attempts_than_rules_may_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RULES_MAX", 20)
    core = Core()
    core.join(slots=15)
    core.submit(StageDraft("a", "app", over=Span(0, 15)))
    core.advance(limits.LEASE_MS)
    assert counts(core) == {"queued": 15}


def test_a_job_of_more_rows_than_rules_may_follow_leaves_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = Core()
    core.join(slots=15)
    core.submit(StageDraft("a", "app", over=Span(0, 15)))
    core.run_all()
    monkeypatch.setattr(limits, "RULES_MAX", 20)
    core.advance(limits.RETENTION_MS)
    assert not core.state.rows["job"]
    assert not core.state.rows["attempt"]


def test_rules_that_follow_without_end_are_a_defect_and_as_many_as_allowed_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = Core(checked=False)
    monkeypatch.setattr(limits, "RULES_MAX", 10)
    core.submit(StageDraft("a", "app", over=Span(0, 10)))
    monkeypatch.setattr(limits, "RULES_MAX", 9)
    with pytest.raises(Defect, match="the rules run in a circle"):
        core.submit(StageDraft("a", "app", over=Span(0, 10)))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("happening", [Happening.COMPLETED, Happening.FAILED])
def test_a_message_that_ends_tasks_with_many_pairs_is_followed_in_slices(
    monkeypatch: pytest.MonkeyPatch, happening: Happening
) -> None:
    core = Core()
    joined = core.join(slots=10)
    ten = Span(0, 10)
    pairs = [StageDraft(f"b{n}", "app", over=ten, pairwise=("a",)) for n in range(12)]
    theirs = [StageDraft(f"c{n}", "app", over=ten, pairwise=("b0",)) for n in range(12)]
    core.submit(StageDraft("a", "app", over=ten), *pairs, *theirs)
    core.settle()
    monkeypatch.setattr(limits, "RULES_MAX", 5 * SLICE)
    reports = tuple(
        AttemptReport(order.attempt_id, happening, None, message="no")
        for order in reversed(core.held())
    )
    core.apply(AttemptsReported(joined.worker_id, joined.incarnation, reports))
    assert counts(core)["waiting"] > 0
    core.run_all()
    completed = happening is Happening.COMPLETED
    assert counts(core) == ({"completed": 250} if completed else {"failed": 10, "skipped": 240})


@pytest.mark.usefixtures("short")
def test_of_a_farm_that_beats_a_slice_of_deadlines_is_put_off_at_a_time() -> None:
    core = Core()
    farm = [core.join(f"w{number}") for number in range(SLICE + 1)]
    first_ms = core.now_ms + limits.LEASE_MS
    assert next_deadline(core.state) == first_ms, "a new worker's lease is known from the beginning"
    core.now_ms += 1_000
    for joined in farm:
        core.apply(Heartbeat(joined.worker_id, joined.incarnation, ()))
    assert next_deadline(core.state) == first_ms, "one was not looked at"
    assert next_deadline(core.state) == first_ms + 1_000
    core.advance(limits.LEASE_MS - 1)
    assert {worker.status for worker in core.ask(ListWorkers()).items} == {"online"}
    core.advance(1)
    assert {worker.status for worker in core.ask(ListWorkers()).items} == {"lost"}
