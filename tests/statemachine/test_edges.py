"""Bounds, refusals and repairs: what hardly ever happens, and must go right when it does."""

from __future__ import annotations

import attrs
import pytest

from orchestra.errors import Conflict, Defect, LimitReached, Malformed
from orchestra.statemachine import ids, limits, load, next_deadline
from orchestra.statemachine.bounds import check_name
from orchestra.statemachine.commands import (
    CancelJob,
    CancelTask,
    JoinWorker,
    LeaveWorker,
    OpenProject,
    Reconfigure,
    StageDraft,
    SubmitJob,
    Tick,
)
from orchestra.statemachine.leases import due_at
from orchestra.statemachine.lifecycles import TABLES, AttemptStatus, TaskStatus, Verb
from orchestra.statemachine.queries import GetJob, GetTask, ListWorkers
from orchestra.statemachine.records import (
    Attempt,
    Cause,
    Job,
    Project,
    Record,
    Span,
    Stage,
    Task,
    evolve,
)
from orchestra.statemachine.reports import Happening
from orchestra.statemachine.state import State, recall
from orchestra.statemachine.transaction import Transaction
from orchestra.testing.core import Core
from orchestra.testing.invariants import snapshot


def rows_of(state: State) -> list[Record]:
    return [row for rows in state.rows.values() for row in rows.values()]


def job_id(core: Core, number: int = 1) -> str:
    return core.state.index.job_numbers[number]


@pytest.mark.parametrize("name", ["é", "日本"])
def test_names_may_be_in_any_script(name: str) -> None:
    check_name(name, "name")


@pytest.mark.parametrize("name", ["e\u0301", "a\u2028b", "a\nb", " ", "", "x" * 201])
def test_names_that_could_be_taken_for_others_are_refused(name: str) -> None:
    with pytest.raises(Malformed):
        check_name(name, "name")


def test_reasons_times_and_keys_have_bounds() -> None:
    core = Core()
    core.submit()
    task_id = ids.task_id(job_id(core), 1)
    for command in (
        CancelJob(job_id(core), "x" * (limits.REASON_CHARS_MAX + 1)),
        CancelJob(job_id(core), grace_ms=-1),
        CancelTask(task_id, grace_ms=limits.GRACE_MS_MAX + 1),
        JoinWorker("w", "s", 1, (), host={"": "x"}),
    ):
        with pytest.raises(Malformed):
            core.apply(command)
    with pytest.raises(Malformed, match="201 characters"):
        core.submit(key="k" * 201)


def test_what_a_host_says_of_itself_is_kept() -> None:
    core = Core()
    core.apply(JoinWorker("w", "s", 1, (), host={"system": "Linux"}))
    assert core.ask(ListWorkers()).items[0].host == {"system": "Linux"}


def test_workers_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core()
    core.join("w1")
    monkeypatch.setattr(limits, "WORKERS_MAX", 1)
    with pytest.raises(LimitReached):
        core.join("w2")


def test_a_process_that_was_replaced_is_refused() -> None:
    core = Core()
    core.apply(Reconfigure(retention_ms=0))
    core.join("w1", session="s1")
    core.submit()
    second = core.join("w1", session="s2")
    core.apply(LeaveWorker(second.worker_id, second.incarnation))
    core.advance(1)  # the newer one is forgotten, while the lease of the former one still runs
    with pytest.raises(Conflict, match="another process"):
        core.join("w1", session="s1")


def test_a_name_goes_back_to_whom_it_belonged_to() -> None:
    core = Core()
    first = core.join("w1", session="s1")
    second = core.join("w1", session="s2")
    core.apply(LeaveWorker(second.worker_id, second.incarnation))
    core.advance(limits.RETENTION_MS)
    assert core.state.index.worker_names == {"w1": first.worker_id}
    core.advance(limits.RETENTION_MS)
    assert core.state.index.worker_names == {}


def test_settings_that_change_nothing_store_nothing() -> None:
    core = Core()
    core.apply(Reconfigure())
    assert core.last is not None
    assert core.last.changes == {}


def test_a_result_that_is_too_long_fails_the_attempt() -> None:
    core = Core()
    core.join()
    core.submit()
    core.report(core.held()[0].attempt_id, result=b"x" * (limits.RESULT_BYTES_MAX + 1))
    task = core.ask(GetTask("1"))
    assert (task.status, task.cause) == ("failed", Cause.ERROR)
    assert "more than" in task.reason


def test_late_evidence_that_is_too_long_is_told_without_its_bytes() -> None:
    core = Core()
    core.join()
    core.submit()
    attempt = core.held()[0].attempt_id
    core.advance(6_001)
    core.report(attempt, result=b"x" * (limits.RESULT_BYTES_MAX + 1))
    evidence = core.state.find(Attempt, attempt)
    assert evidence is not None
    assert (evidence.late_outcome, evidence.late_result) == ("completed", None)


def test_progress_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core()
    core.join()
    core.submit()
    monkeypatch.setattr(limits, "PROGRESS_MAX", 0)
    assert "too many" in core.report(core.held()[0].attempt_id, Happening.PROGRESS)


def test_what_begins_or_fails_while_it_is_stopped_stays_stopped() -> None:
    core = Core()
    core.join()
    core.submit()
    attempt = core.held()[0].attempt_id
    core.apply(CancelJob(job_id(core)))
    core.report(attempt, Happening.RUNNING)
    assert core.ask(GetTask("1")).status == "cancelling"
    core.report(attempt, Happening.FAILED, message="no")
    assert core.ask(GetTask("1")).status == "cancelled"
    assert core.ask(GetJob("1")).status == "cancelled"


def test_ids_of_one_number_share_their_beginning() -> None:
    assert ids.new_id(17, 5).startswith(ids.prefix_of(17))


def test_finality_is_read_from_the_table() -> None:
    assert not TABLES["task"].is_final("failed")  # a retry revives it
    assert TABLES["attempt"].is_final("completed")
    assert not TABLES["attempt"].is_final("running")


def test_nothing_is_due_of_what_waits_for_no_time() -> None:
    core = Core()
    core.join()
    core.submit()
    assert due_at(core.state, "attempt", core.held()[0].attempt_id) is None
    assert due_at(core.state, "task", "gone") is None
    assert due_at(core.state, "receipt", "gone") is None


def test_a_count_that_belongs_to_no_job_is_a_defect() -> None:
    core = Core(checked=False)
    core.state.index.finished_tasks = limits.FINISHED_TASKS_MAX + 1
    with pytest.raises(Defect, match="belong to no job"):
        core.apply(Tick())


class TestUndo:
    """A step that is refused half-way leaves no trace, whatever it had put."""

    def test_rows_and_indexes_are_as_they_were(self) -> None:
        core = Core()
        core.join()
        core.submit(StageDraft("a", "app", over=Span(0, 2)))
        core.settle()
        before, index = snapshot(core.state), core.state.index
        names = dict(index.project_names)
        queues = {id: list(queue) for id, queue in index.queues.items()}
        tx = Transaction(core.state, core.now_ms, 1, "me")
        other = Core()
        for number in range(2):  # numbers are never given twice, so these have to be others
            other.apply(OpenProject(f"p{number}"))
            other.submit(StageDraft("none", "app", over=Span(0, 0)))
        other.advance(limits.RETENTION_MS)
        draft = StageDraft("a", "app", over=Span(0, 2))
        other.apply(SubmitJob("x", (draft,), project="new"), key="k")
        for kind in ("project", "job", "stage", "task", "receipt"):
            for row in other.state.rows[kind].values():
                if not isinstance(row, Project) or row.name not in names:
                    tx.put(row)
        job = tx.get(Job, job_id(core))
        tx.move(job, Verb.PAUSE)
        tx.undo()
        assert snapshot(core.state) == before
        assert index.project_names == names
        assert {id: list(queue) for id, queue in index.queues.items() if queue} == {
            id: queue for id, queue in queues.items() if queue
        }
        core.run_all()
        assert core.ask(GetJob("1")).status == "completed"

    def test_moves_that_the_table_does_not_have(self) -> None:
        core = Core()
        core.join()
        core.submit()
        tx = Transaction(core.state, core.now_ms, 1)
        attempt = tx.get(Attempt, core.held()[0].attempt_id)
        with pytest.raises(Conflict):
            tx.path("attempt", attempt.status, (Verb.RUN, Verb.RUN))
        with pytest.raises(Defect, match="can not begin"):
            tx.create(evolve(attempt, id="x", status=AttemptStatus.RUNNING), Verb.START)

    def test_randomness_is_one_stream_of_the_seed(self) -> None:
        first, second = (Transaction(State(), 0, 7) for _ in range(2))
        assert [first.rng.random() for _ in range(3)] == [second.rng.random() for _ in range(3)]


class TestReturnOfAFinishedJob:
    def test_rows_that_left_memory_come_back_once(self) -> None:
        core = Core()
        core.join()
        core.submit()
        core.report(core.held()[0].attempt_id, Happening.FAILED)
        rows = rows_of(core.state)
        core.advance(limits.RETENTION_MS + 1)
        assert not core.state.rows["job"]
        for _ in range(2):
            recall(
                core.state, [row for row in rows if isinstance(row, Job | Stage | Task | Attempt)]
            )
        assert core.ask(GetJob("1")).status == "failed"
        recall(
            core.state,
            [attrs.evolve(row, id="x", job_id="gone") for row in rows if isinstance(row, Task)],
        )
        assert len(core.state.rows["task"]) == 1


class TestLongJobs:
    """More tasks than one step makes: cut off anywhere, they go on."""

    def test_unfolding_goes_on_after_a_restart(self) -> None:
        core = Core(checked=False)
        core.submit(StageDraft("a", "app", over=Span(0, limits.UNFOLD_SLICE + 5)))
        assert core.state.unfolded(job_id(core)) == limits.UNFOLD_SLICE
        again = Core(checked=False)
        again.state = load(rows_of(core.state), core.now_ms)
        assert next_deadline(again.state) == 0
        again.settle()
        assert again.state.unfolded(job_id(core)) == limits.UNFOLD_SLICE + 5

    def test_what_comes_after_something_broken_is_skipped_as_it_is_made(self) -> None:
        core = Core(checked=False)
        core.join(slots=1)
        core.submit(
            StageDraft("a", "app"),
            StageDraft("b", "app", over=Span(0, limits.UNFOLD_SLICE + 5), after=("a",)),
        )
        core.report(core.held()[0].attempt_id, Happening.FAILED)
        core.settle()
        view = core.ask(GetJob("1"))
        assert dict(view.counts) == {"failed": 1, "skipped": limits.UNFOLD_SLICE + 5}
        assert view.status == "failed"

    def test_a_review_is_cut_into_slices(self) -> None:
        core = Core(checked=False)
        core.join(slots=1)
        size = limits.UNFOLD_SLICE + 5
        core.submit(
            StageDraft("a", "app"), StageDraft("b", "app", over=Span(0, size), after=("a",))
        )
        core.settle()
        core.report(core.held()[0].attempt_id)
        assert 0 < core.state.index.tallies[job_id(core)][TaskStatus.WAITING] < size
        core.settle()
        assert core.state.index.tallies[job_id(core)][TaskStatus.WAITING] == 0
