"""What a step says and leaves behind, whole: reply, story, rows that go and come back, and who is next."""

from __future__ import annotations

import pytest

from orchestra.statemachine import load
from orchestra.statemachine.commands import (
    ArchiveProject,
    CancelTask,
    LeaveWorker,
    OpenProject,
    PauseWorker,
    Reconfigure,
    ResumeWorker,
    StageDraft,
    SubmitJob,
)
from orchestra.statemachine.diagram import mermaid
from orchestra.statemachine.queries import GetJob, GetTask, ListJobs, ListWorkers, Why
from orchestra.statemachine.records import Job, Receipt, Record, Span, Task
from orchestra.statemachine.reports import Happening
from orchestra.statemachine.scheduling import reservations
from orchestra.statemachine.state import State
from orchestra.statemachine.table import Row, Table
from orchestra.statemachine.transaction import Transaction
from orchestra.statemachine.views import view_job, view_task
from orchestra.testing.core import Core

CPU_1, CPU_2 = (("cpu", 1_000),), (("cpu", 2_000),)


def rows_of(state: State) -> list[Record]:
    return [row for rows in state.rows.values() for row in rows.values()]


def told(core: Core) -> list[tuple[str, str, str, str]]:
    """The story of the last step: kind, from, verb, to."""
    assert core.last is not None
    return [(move.kind, move.source, move.verb, move.target) for move in core.last.story]


def test_the_story_begins_with_what_a_thing_begins_as() -> None:
    core = Core()
    core.apply(OpenProject("p"))
    assert told(core) == [("project", "", "create", "open")]
    core.join("w1")
    assert told(core) == [("worker", "", "create", "online")]
    core.apply(SubmitJob("j", (StageDraft("a", "app"),), "p"))
    assert told(core) == [
        ("job", "", "create", "queued"),
        ("task", "", "create", "queued"),
        ("job", "queued", "run", "running"),
        ("task", "queued", "lease", "leased"),
        ("attempt", "", "start", "started"),
    ]
    core.report(core.held()[0].attempt_id)
    assert told(core) == [
        ("attempt", "started", "run", "running"),
        ("attempt", "running", "complete", "completed"),
        ("task", "leased", "run", "running"),
        ("task", "running", "complete", "completed"),
        ("job", "running", "complete", "completed"),
    ]


def test_the_story_names_things_and_reasons() -> None:
    core = Core()
    joined = core.join("w1")
    job = core.submit(name="render")
    assert core.last is not None
    reasons = {(move.kind, move.id[:26], move.verb): move.reason for move in core.last.story}
    assert reasons["job", job.job_id, "create"] == "render"
    assert reasons["attempt", job.job_id, "start"] == "w1"
    core.apply(LeaveWorker(joined.worker_id, joined.incarnation))
    assert [move.reason for move in core.last.story if move.kind == "task"]


def test_changed_settings_are_the_reply() -> None:
    core = Core()
    settings = core.apply(Reconfigure(aging_ms=7)).settings
    assert settings == core.state.settings
    assert settings.aging_ms == 7


def test_every_change_answers_with_what_it_came_to() -> None:
    core = Core()
    joined = core.join()
    job = core.submit(StageDraft("a", "app", over=Span(0, 2)))
    paused = core.apply(PauseWorker(joined.worker_id, "lunch"))
    assert (paused.worker_id, paused.status, paused.paused) == (joined.worker_id, "online", True)
    assert core.ask(ListWorkers()).items[0].pause_reason == "lunch"
    resumed = core.apply(ResumeWorker(joined.worker_id))
    assert (resumed.worker_id, resumed.paused) == (joined.worker_id, False)
    assert core.ask(ListWorkers()).items[0].pause_reason == ""
    task_id = core.ask(GetTask("1.2")).id
    cancelled = core.apply(CancelTask(task_id, "no"))
    assert (cancelled.task_id, cancelled.status) == (task_id, "cancelled")
    left = core.apply(LeaveWorker(joined.worker_id, joined.incarnation))
    assert (left.worker_id, left.status) == (joined.worker_id, "left")
    project = core.apply(ArchiveProject("default"))
    assert (project.name, project.status) == ("default", "archived")
    assert core.ask(ListJobs()).items[0].id == job.job_id


def test_what_was_forgotten_comes_back_when_the_step_is_undone() -> None:
    core = Core()
    core.submit()
    job = next(core.state.each(Job))
    tx = Transaction(core.state, 0, 0)
    tx.forget(job)
    assert core.state.find(Job, job.id) is None
    assert job.number not in core.state.index.job_numbers
    tx.undo()
    assert core.state.find(Job, job.id) is job
    assert core.state.index.job_numbers[job.number] == job.id


def test_a_row_that_is_put_and_deleted_in_one_step_is_only_deleted() -> None:
    core = Core()
    core.submit(key="k")
    receipt = next(core.state.each(Receipt))
    tx = Transaction(core.state, 0, 0)
    tx.drop(tx.change(receipt, tasks=2))
    assert tx.changes == {}
    assert list(tx.drops) == [("receipt", receipt.id)]
    tx.undo()
    assert next(core.state.each(Receipt)) == receipt


def test_a_table_knows_what_nothing_leaves() -> None:
    rows = (Row(None, "new", "a", ""), Row("a", "go", "b-c", ""), Row("a", "stay", "a", ""))
    table = Table("t", rows)
    assert (table.is_final("a"), table.is_final("b-c")) == (False, True)
    assert Table("t", rows[::2]).is_final("a"), "what leads to itself leads nowhere"
    assert "s_b_c" in mermaid(table)


def test_a_job_is_told_by_its_row_when_its_tasks_are_not_in_memory() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", over=Span(0, 2)))
    core.run_all()
    job, task = next(core.state.each(Job)), next(core.state.each(Task))
    alone = load([job], core.now_ms)
    assert view_job(alone, job, stages=True).counts == {"completed": 2}
    nothing = load([], core.now_ms)
    assert view_task(nothing, task, attempts=True).selector == "1.1"


def test_a_missing_row_of_one_stage_is_not_counted_for_another() -> None:
    core = Core()
    core.join(slots=4)
    core.submit(
        StageDraft("a", "app", over=Span(0, 2)),
        StageDraft("b", "app", over=Span(0, 2)),
        StageDraft("c", "app", after=("b",)),
    )
    gone = core.ask(GetTask("1.1")).id
    again = Core(checked=False)
    again.state = load([row for row in rows_of(core.state) if gone not in row.id], core.now_ms)
    again.now_ms, again.orders = core.now_ms, core.orders
    again.run_all()
    assert again.ask(GetTask("1.5")).status == "completed"
    assert again.ask(GetJob("1")).status == "failed"


def test_stages_that_ask_for_the_same_are_warned_of_once() -> None:
    core = Core()
    assert core.submit(StageDraft("a", "rare")).warnings == (), "nobody is there to compare with"
    core.join()
    alike = [StageDraft("a", "rare"), StageDraft("b", "rare"), StageDraft("c", "app")]
    assert core.submit(*alike).warnings == ("stage 'a': no worker can run it now (ask why)",)
    mixed = [*alike[:2], StageDraft("d", "rarer")]
    assert [warning[:10] for warning in core.submit(*mixed).warnings] == [
        "stage 'a':",
        "stage 'd':",
    ]
    many = [StageDraft(f"s{number}", f"rare{number}") for number in range(11)]
    assert len(core.submit(*many).warnings) == 10


def crowded() -> Core:
    """w1 has room for a small task, and is reserved for a big one (2.1) that waited for a second."""
    core = Core()
    core.apply(Reconfigure(reserve_after_ms=1_000))
    core.join("w1", slots=2, capacity=CPU_2)
    core.submit(StageDraft("small", "app", needs=CPU_1))
    core.submit(StageDraft("big", "app", needs=CPU_2))
    core.advance(1_000)
    return core


def where(core: Core, selector: str) -> str:
    return core.ask(GetTask(selector)).worker


def test_what_fits_an_unreserved_worker_starts_past_all_that_wait() -> None:
    core = crowded()
    core.submit(StageDraft("late", "app", needs=CPU_1))
    core.join("w2", apps=("other",))
    core.submit(StageDraft("else", "other"))
    assert (where(core, "2"), where(core, "3"), where(core, "4")) == ("", "", "w2")


def test_nothing_is_reserved_before_the_time() -> None:
    core = Core()
    core.apply(Reconfigure(reserve_after_ms=1_000))
    core.join("w1", slots=2, capacity=CPU_2)
    core.submit(StageDraft("small", "app", needs=CPU_1))
    core.submit(StageDraft("big", "app", needs=CPU_2))
    core.advance(999)
    assert reservations(core.state, core.now_ms) == {}
    core.submit(StageDraft("late", "app", needs=CPU_1))
    assert where(core, "3") == "w1"


def test_who_waits_for_a_reserved_worker_reserves_no_other() -> None:
    core = crowded()
    core.join("w2", capacity=CPU_1, labels=("only",))
    core.submit(StageDraft("fills", "app", needs=CPU_1, labels=("only",)))
    assert where(core, "3") == "w2"
    core.submit(StageDraft("late", "app", needs=CPU_1))
    core.advance(1_000)
    big = core.ask(GetTask("2")).id
    w1 = core.ask(ListWorkers()).items[0].id
    assert reservations(core.state, core.now_ms) == {w1: big}


def test_two_that_wait_reserve_a_worker_each_the_idler_one_first() -> None:
    core = Core()
    core.apply(Reconfigure(reserve_after_ms=1_000))
    core.join("w1", slots=3, capacity=CPU_2)
    core.submit(StageDraft("a", "app", over=Span(0, 2)))
    core.join("w2", slots=3, capacity=CPU_2)
    core.submit(StageDraft("b", "app", needs=CPU_1, labels=("worker:w2",)))
    core.submit(StageDraft("c", "app", needs=CPU_1, labels=("worker:w1",)))
    core.submit(StageDraft("big", "app", needs=CPU_2))
    core.submit(StageDraft("large", "app", needs=(("cpu", 1_500),)))
    core.submit(StageDraft("third", "app", needs=(("cpu", 1_800),)))  # for which none is left
    core.advance(1_000)
    w1, w2 = (worker.id for worker in core.ask(ListWorkers()).items)
    big, large = core.ask(GetTask("4")).id, core.ask(GetTask("5")).id
    assert reservations(core.state, core.now_ms) == {w2: big, w1: large}


def test_priority_counts_when_it_is_told_how_many_stand_before() -> None:
    core = Core()
    core.join()
    core.submit()
    core.submit(priority=1)
    core.submit(priority=3)
    core.submit(StageDraft("a", "app", priority=2))
    assert [reason.code for reason in core.ask(Why("3")).reasons] == ["busy"]
    first = "before it in the queue: {} of higher priority or earlier submission"
    assert core.ask(Why("4")).reasons[1].text == first.format("1 stage")
    assert core.ask(Why("2")).reasons[1].text == first.format("2 stages")


@pytest.mark.parametrize("happening", [Happening.COMPLETED, Happening.FAILED])
def test_a_worker_shows_what_it_holds_and_uses(happening: Happening) -> None:
    core = Core()
    core.join(slots=2, capacity=CPU_2)
    core.submit(StageDraft("a", "app", over=Span(0, 2), needs=CPU_1))
    worker = core.ask(ListWorkers()).items[0]
    assert (worker.held, worker.used) == (2, CPU_2)
    core.report(core.held()[0].attempt_id, happening)
    worker = core.ask(ListWorkers()).items[0]
    assert (worker.held, worker.used) == (1, CPU_1)
    core.report(core.held()[0].attempt_id, happening)
    worker = core.ask(ListWorkers()).items[0]
    assert (worker.held, worker.used) == (0, ())
