"""Jobs: what is accepted, in which order it runs, how it ends, and how it is steered."""

from __future__ import annotations

import pytest

from orchestra.errors import Conflict, Malformed, NotFound
from orchestra.statemachine import limits, load, next_deadline
from orchestra.statemachine.commands import (
    ArchiveProject,
    CancelJob,
    CancelTask,
    OpenProject,
    PauseJob,
    ResumeJob,
    RetryTask,
    StageDraft,
    SubmitJob,
    Tick,
)
from orchestra.statemachine.ids import task_id
from orchestra.statemachine.queries import GetJob, GetTask, ListJobs, ListResults, ListTasks
from orchestra.statemachine.records import Cause, Job, OnFailure, Record, Span, Task
from orchestra.statemachine.reports import Happening
from orchestra.testing.core import Core


def statuses(core: Core, job: str = "last") -> list[str]:
    return [str(task.status) for task in core.ask(ListTasks(job)).items]


def test_a_chain_runs_in_order_and_completes() -> None:
    core = Core()
    core.join(slots=4)
    core.submit(StageDraft("a", "app"), StageDraft("b", "app", after=("a",)))
    assert statuses(core) == ["leased", "waiting"]
    core.report(core.held()[0].attempt_id, result=b'"a"')
    assert statuses(core) == ["completed", "leased"]
    core.report(core.held()[0].attempt_id, result=b'"b"')
    job = core.ask(GetJob("last"))
    assert (job.status, dict(job.counts)) == ("completed", {"completed": 2})
    assert [end.result for end in core.ask(ListResults("last")).items] == [b'"b"']
    assert [end.result for end in core.ask(ListResults("last", "a")).items] == [b'"a"']


def test_a_fan_out_gives_each_task_its_item() -> None:
    core = Core()
    core.join(slots=9)
    core.submit(
        StageDraft("a", "app", over=Span(10, 40, 10)), StageDraft("b", "app", over=(b'"x"', b"{}"))
    )
    assert [order.item for order in core.held()] == [b"10", b"20", b"30", b'"x"', b"{}"]
    assert [order.offset for order in core.held()] == [0, 1, 2, 0, 1]
    assert [order.position for order in core.held()] == [1, 2, 3, 4, 5]


def test_pairs_wait_for_their_own_item_only() -> None:
    core = Core()
    core.join(slots=9)
    core.submit(
        StageDraft("a", "app", over=Span(0, 3)),
        StageDraft("b", "app", over=Span(0, 3), pairwise=("a",)),
    )
    second = core.held()[1]
    core.report(second.attempt_id)
    assert statuses(core) == ["leased", "completed", "leased", "waiting", "leased", "waiting"]


def test_a_job_without_tasks_completes_at_once() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=()))
    assert core.ask(GetJob("last")).status == "completed"
    assert core.ask(ListResults("last")).items == ()


def test_what_comes_after_a_failure_is_skipped_and_the_rest_goes_on() -> None:
    core = Core()
    core.join(slots=9)
    core.submit(
        StageDraft("a", "app"), StageDraft("b", "app", after=("a",)), StageDraft("c", "app")
    )
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="Traceback\nboom")
    assert statuses(core) == ["failed", "skipped", "leased"]
    core.run_all()
    job = core.ask(GetJob("last"))
    assert (job.status, job.reason) == ("failed", "of 3 tasks 1 failed, 1 skipped")
    assert "comes after a" in core.ask(GetTask("last.2")).reason


def test_a_job_that_stops_at_its_first_failure_cancels_the_rest() -> None:
    core = Core()
    core.join(slots=1)
    core.apply(
        SubmitJob("j", (StageDraft("a", "app", over=Span(0, 3)),), on_failure=OnFailure.STOP)
    )
    core.report(core.held()[0].attempt_id, Happening.FAILED)
    assert statuses(core) == ["failed", "cancelled", "cancelled"]
    assert core.ask(GetJob("last")).status == "failed"


def test_retrying_a_failed_task_revives_what_was_skipped() -> None:
    core = Core()
    core.join(slots=9)
    core.submit(StageDraft("a", "app"), StageDraft("b", "app", after=("a",)))
    core.report(core.held()[0].attempt_id, Happening.FAILED)
    assert core.ask(GetJob("last")).status == "failed"
    core.apply(RetryTask(core.ask(GetTask("last.1")).id))
    assert statuses(core) == ["leased", "waiting"]
    core.run_all()
    assert core.ask(GetJob("last")).status == "completed"
    with pytest.raises(Conflict):
        core.apply(RetryTask(core.ask(GetTask("last.1")).id))


def test_pausing_holds_back_what_has_not_started() -> None:
    core = Core()
    core.join(slots=1)
    job = core.submit(StageDraft("a", "app", over=Span(0, 3)))
    core.apply(PauseJob(job.job_id, "disk is full"))
    core.run_all()
    assert statuses(core) == ["completed", "queued", "queued"]
    assert core.ask(GetJob("last")).reason == "disk is full"
    core.apply(PauseJob(job.job_id))
    core.apply(ResumeJob(job.job_id))
    core.run_all()
    assert core.ask(GetJob("last")).status == "completed"
    with pytest.raises(Conflict):
        core.apply(ResumeJob(job.job_id))


def test_cancelling_shows_cancelled_only_when_nothing_is_alive() -> None:
    core = Core()
    core.join(slots=1)
    job = core.submit(StageDraft("a", "app", over=Span(0, 2)))
    attempt = core.held()[0].attempt_id
    core.apply(CancelJob(job.job_id, "wrong camera"))
    assert statuses(core) == ["cancelling", "cancelled"]
    assert core.ask(GetJob("last")).status == "cancelling"
    core.report(attempt, Happening.STOPPED)
    assert statuses(core) == ["cancelled", "cancelled"]
    job_view = core.ask(GetJob("last"))
    assert (job_view.status, job_view.reason) == ("cancelled", "wrong camera")
    core.apply(CancelJob(job.job_id))
    assert core.ask(GetTask("last.1")).attempts[0].status == "stopped"


def test_the_ladder_climbs_and_says_when_nobody_confirms() -> None:
    core = Core()
    joined = core.join(slots=1)
    core.submit(StageDraft("a", "app", grace_ms=1_000))
    task = core.ask(GetTask("last.1"))
    core.apply(CancelTask(task.id, "enough"))
    rungs = []
    for _ in range(5):
        rungs.append(str(core.ask(GetTask("last.1")).attempts[0].rung))
        core.beat(joined, core.held()[0].attempt_id)
        core.advance(1_000)
    assert rungs == ["asked", "term", "kill", "unconfirmed", "unconfirmed"]
    assert core.ask(GetTask("last.1")).status == "cancelling"


def test_a_completion_that_crosses_a_cancel_does_not_undo_it() -> None:
    core = Core()
    core.join()
    core.submit()
    attempt = core.held()[0].attempt_id
    core.apply(CancelTask(core.ask(GetTask("last.1")).id))
    assert core.report(attempt, result=b"7") == ""
    task = core.ask(GetTask("last.1"))
    assert (task.status, task.attempts[0].status, task.attempts[0].result) == (
        "cancelled",
        "completed",
        b"7",
    )


def test_a_key_makes_a_repetition_harmless() -> None:
    core = Core()
    first = core.submit(key="k")
    again = core.submit(key="k")
    assert (again.job_id, again.repeated) == (first.job_id, True)
    assert len(core.state.rows["job"]) == 1
    with pytest.raises(Conflict, match="different"):
        core.submit(name="other", key="k")
    other = core.apply(SubmitJob("job", (StageDraft("only", "app"),)), principal="you", key="k")
    assert other.job_id != first.job_id
    core.advance(25 * 3_600_000)
    assert not core.submit(key="k").repeated


@pytest.mark.parametrize(
    ("stages", "where"),
    [
        ((), "stages"),
        ((StageDraft("", "app"),), "stages[0].name"),
        ((StageDraft("a" * 201, "app"),), "stages[0].name"),
        ((StageDraft("a\n", "app"),), "stages[0].name"),
        ((StageDraft("a", "app"), StageDraft("a", "app")), "stages[1].name"),
        ((StageDraft("a", "app", after=("b",)),), "stages[0].after"),
        ((StageDraft("a", "app", after=("a",)),), "stages[0].after"),
        ((StageDraft("a", "app", retries=-1),), "stages[0].retries"),
        ((StageDraft("a", "app", retries=1_001),), "stages[0].retries"),
        ((StageDraft("a", "app", needs=(("b", 1), ("a", 1))),), "stages[0].needs"),
        ((StageDraft("a", "app", needs=(("a", -1),)),), "stages[0].needs.a"),
        ((StageDraft("a", "app", over=Span(0, 5, 0)),), "stages[0].over.step"),
        ((StageDraft("a", "app", over=Span(0, 1_000_001)),), "stages[0].over"),
        ((StageDraft("a", "app", over=Span(0, 2**63)),), "stages[0].over"),
        ((StageDraft("a", "app", run_ms_max=0),), "stages[0].run_ms_max"),
        ((StageDraft("a", "app", grace_ms=3_600_001),), "stages[0].grace_ms"),
        ((StageDraft("a", "app", template=b"x" * 262_145),), "stages[0].template"),
        (
            (StageDraft("a", "app"), StageDraft("b", "app", over=Span(0, 2), pairwise=("a",))),
            "stages[1].pairwise",
        ),
    ],
)
def test_a_bad_job_is_refused_by_field_and_leaves_nothing(
    stages: tuple[StageDraft, ...], where: str
) -> None:
    core = Core()
    with pytest.raises(Malformed) as refusal:
        core.apply(SubmitJob("j", stages))
    assert refusal.value.where == where
    assert not core.state.rows["job"]
    assert not core.state.rows["project"]


def test_a_circle_is_named() -> None:
    core = Core()
    stages = (
        StageDraft("free", "app"),
        StageDraft("a", "app", after=("c", "free")),
        StageDraft("b", "app", after=("a",)),
        StageDraft("c", "app", after=("b",)),
    )
    with pytest.raises(Malformed, match=r"c -> a -> b -> c|a -> b -> c -> a|b -> c -> a -> b"):
        core.apply(SubmitJob("j", stages))


def test_unknown_jobs_and_selectors_are_told_apart() -> None:
    core = Core()
    core.submit()
    for selector in ("last", "1", core.ask(GetJob("1")).id):
        assert core.ask(GetJob(selector)).number == 1
    with pytest.raises(NotFound):
        core.ask(GetJob("2"))
    with pytest.raises(Malformed):
        core.ask(GetJob("banana"))
    with pytest.raises(Malformed):
        core.ask(GetTask("1.x"))
    with pytest.raises(NotFound):
        core.ask(GetTask("1.2"))


def test_pages_go_through_everything_once() -> None:
    core = Core(checked=False)
    for _ in range(7):
        core.submit()
    seen: list[int] = []
    after = ""
    while True:
        page = core.ask(ListJobs(after=after, limit=3))
        seen += [job.number for job in page.items]
        after = page.next
        if not after:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]


def test_an_archived_project_takes_no_jobs() -> None:
    core = Core()
    core.apply(SubmitJob("j", (StageDraft("a", "app"),), project="vlass"))
    core.apply(ArchiveProject("vlass"))
    with pytest.raises(Conflict, match="archived"):
        core.apply(SubmitJob("j", (StageDraft("a", "app"),), project="vlass"))
    core.apply(OpenProject("vlass"))
    core.apply(SubmitJob("j", (StageDraft("a", "app"),), project="vlass"))
    with pytest.raises(NotFound):
        core.apply(ArchiveProject("nobody"))


def test_a_large_fan_out_is_unfolded_and_cancelled_in_slices() -> None:
    core = Core(checked=False)
    job = core.submit(StageDraft("a", "app", over=Span(0, 2_500)))
    assert len(core.state.rows["task"]) == 1_000
    core.settle()
    assert len(core.state.rows["task"]) == 2_500
    core.apply(CancelJob(job.job_id))
    assert core.ask(GetJob("last")).status == "cancelling"
    core.settle()
    assert core.ask(GetJob("last")).status == "cancelled"


def test_cancelling_while_it_unfolds_leaves_no_task_behind() -> None:
    core = Core(checked=False)
    job = core.submit(StageDraft("a", "app", over=Span(0, 2_500)))
    core.apply(CancelJob(job.job_id))
    core.settle()
    view = core.ask(GetJob("last"))
    assert (view.status, dict(view.counts)) == ("cancelled", {"cancelled": 2_500})


def test_finished_jobs_leave_memory_after_their_retention() -> None:
    core = Core()
    core.join()
    core.submit()
    core.run_all()
    core.advance(600_001)
    assert not core.state.rows["job"]
    assert not list(core.state.each(Task))


@pytest.mark.parametrize(("bound", "left"), [(5, [1, 4, 5]), (8, [1, 2, 3, 4, 5])])
def test_the_oldest_finished_jobs_make_room_before_their_retention_ends(
    bound: int, left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FINISHED_TASKS_MAX", bound)
    core = Core()
    core.join(slots=9)
    open_job = core.submit(StageDraft("a", "app"), name="still open")
    (kept,) = core.held()
    for _ in range(4):
        core.submit(StageDraft("a", "app", over=Span(0, 2)))
        for order in core.held():
            if order.attempt_id != kept.attempt_id:
                core.report(order.attempt_id)
        core.settle()
        assert core.state.index.finished_tasks <= bound
    assert [job.number for job in core.state.each(Job)] == left
    assert core.ask(GetJob(open_job.job_id)).status == "running"
    assert len(core.state.index.finished) == len(left) - 1
    assert {task.job_id for task in core.state.each(Task)} == set(core.state.rows["job"])


def test_a_job_that_is_tried_again_is_not_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core()
    core.join()
    first = core.submit()
    core.report(core.held()[0].attempt_id, Happening.FAILED, cause=Cause.ERROR)
    core.submit(name="second")
    core.advance(5)
    core.report(core.held()[0].attempt_id)
    core.apply(RetryTask(task_id(first.job_id, 1)))
    monkeypatch.setattr(limits, "FINISHED_TASKS_MAX", 0)
    core.settle()
    assert [job.number for job in core.state.each(Job)] == [1]
    core.run_all()
    assert not core.state.rows["job"]
    assert not core.state.index.finished


def test_room_is_made_in_slices_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FINISHED_TASKS_MAX", 6)
    monkeypatch.setattr(limits, "UNFOLD_SLICE", 4)
    core = Core()
    core.join(slots=2)
    rows: list[Record] = []
    for _ in range(10):
        core.submit(StageDraft("a", "app", over=Span(0, 2)))
        for order in core.held():
            core.report(order.attempt_id)
        rows += [row for kind in core.state.rows.values() for row in kind.values()]
    stored = {(type(row), row.id): row for row in rows}
    core.state = load(stored.values(), core.now_ms)
    assert core.state.index.finished_tasks == 20
    left: list[int] = []
    while next_deadline(core.state) == 0 and len(left) < 9:
        core.apply(Tick())
        left.append(core.state.index.finished_tasks)
    assert left == [16, 12, 8, 6]
    assert [job.number for job in core.state.each(Job)] == [8, 9, 10]
