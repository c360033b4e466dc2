"""What is done for many tasks at once is what would be done for each by itself."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from unittest import mock

import attrs
import pytest

from orchestra.errors import Defect
from orchestra.statemachine import limits, load, scheduling
from orchestra.statemachine.commands import CancelTask, PauseWorker, RetryTask, StageDraft
from orchestra.statemachine.ids import position_of
from orchestra.statemachine.lifecycles import AttemptStatus, TaskStatus, Verb
from orchestra.statemachine.moved_rows import (
    attempt_completed,
    task_completed,
    task_leased,
    task_promoted,
)
from orchestra.statemachine.queries import GetOverview
from orchestra.statemachine.records import (
    Attempt,
    Cause,
    Rung,
    Span,
    Stage,
    Task,
    Worker,
    evolve,
)
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening
from orchestra.statemachine.transaction import Transaction
from orchestra.testing.core import Core

FULL_TASK = Task("t", "j", "s", 3, TaskStatus.QUEUED, 4, 5, 6, 7, "w", 8, 9, Cause.ERROR, "why")
FULL_ATTEMPT = Attempt(
    *("a", "t", "j", 2, "w", 3, AttemptStatus.RUNNING, 4, 5, 6, Cause.LOST, "told", 7, "TERM"),
    *(b"r", Rung.TERM, 8, "stop", Cause.TIMEOUT, 9, "completed", b"late", 10),
)


class TestWrittenOutCopies:
    """A field that is added to a row must not be lost in a copy that is written out by hand."""

    @pytest.mark.parametrize("record", [FULL_TASK, FULL_ATTEMPT])
    def test_the_samples_leave_no_field_at_its_default(self, record: Task | Attempt) -> None:
        for field in attrs.fields(type(record)):
            assert getattr(record, field.name) != field.default

    def test_each_copy_is_what_evolve_makes(self) -> None:
        assert task_leased(FULL_TASK, 6, "v") == evolve(
            FULL_TASK, status=TaskStatus.LEASED, attempts=6, worker_id="v", reason=""
        )
        assert task_promoted(FULL_TASK, 70) == evolve(
            FULL_TASK, status=TaskStatus.QUEUED, queued_at_ms=70, reason=""
        )
        assert task_completed(FULL_TASK, 70) == evolve(
            FULL_TASK,
            status=TaskStatus.COMPLETED,
            worker_id=None,
            ended_at_ms=70,
            cause=Cause.NONE,
            reason="",
        )
        ended = {"result": b"x", "exit_code": 0, "signal": "", "rung_until_ms": None}
        for started_at_ms, seen_at_ms in ((5, 5), (None, 70)):
            attempt = evolve(FULL_ATTEMPT, started_at_ms=started_at_ms)
            assert attempt_completed(attempt, 70, b"x", 0, "") == evolve(
                attempt,
                status=AttemptStatus.COMPLETED,
                started_at_ms=seen_at_ms,
                ended_at_ms=70,
                **ended,
            )


def stage(name: str, size: int, app: str = "app", **fields: Any) -> StageDraft:
    return StageDraft(name, app, over=Span(0, size), **fields)


def _limited(name: str) -> StageDraft:
    return stage(name, 7, queue_ms_max=60_000, run_ms_max=60_000)


WORLDS: dict[str, tuple[tuple[StageDraft, ...], ...]] = {
    "one job": ((stage("a", 12),),),
    "limits and a job after another": ((_limited("a"),), (_limited("b"),)),
    "stages of one rank": ((stage("a", 4), stage("b", 4), stage("c", 4, priority=1)),),
    "two shapes": ((stage("a", 6), stage("b", 6, app="other")), (stage("c", 6, app="other"),)),
    "resources": ((stage("a", 5, needs=(("cpu", 2_000), ("none", 0))), stage("b", 5)),),
    "after and pairwise": (
        (stage("a", 4), stage("b", 4, pairwise=("a",)), stage("c", 3, after=("a",))),
    ),
}


def told(
    drafts: tuple[tuple[StageDraft, ...], ...], workers: int, *, in_a_row: bool
) -> list[object]:
    """All orders and the whole story of these jobs, worked off with leases in a row or each chosen for itself."""
    core = Core()
    one_by_one = mock.patch.object(scheduling, "_in_a_row", return_value=1)
    with nullcontext() if in_a_row else one_by_one:
        for stages in drafts:
            core.submit(*stages)
        for number in range(workers):
            capacity = (("cpu", 7_000), ("none", 0))
            core.join(f"w{number}", slots=5, apps=("app", "other"), capacity=capacity)
        first = core.held()[0]
        core.report(first.attempt_id, Happening.STOPPED)  # handed back: it stands at the end
        core.run_all()
    assert core.ask(GetOverview()).jobs["completed"] == len(drafts)
    return [(id, effect.worker_id, effect.order) for id, effect in core.orders.items()]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("world", WORLDS)
def test_leases_in_a_row_are_those_that_would_be_chosen_one_by_one(
    world: str, workers: int
) -> None:
    drafts = WORLDS[world]
    assert told(drafts, workers, in_a_row=True) == told(drafts, workers, in_a_row=False)


def test_many_tasks_are_leased_in_one_pass() -> None:
    core = Core()
    core.submit(stage("a", 9))
    with mock.patch.object(scheduling, "lease", wraps=scheduling.lease) as leases:
        core.join(slots=6)
    assert [call.args[3] for call in leases.call_args_list] == [6]


def complete_together(core: Core, *attempt_ids: str) -> None:
    """One message tells of the ends of these attempts, in this order."""
    holder = core.orders[attempt_ids[0]]
    reports = tuple(AttemptReport(id, Happening.COMPLETED) for id in attempt_ids)
    core.apply(AttemptsReported(holder.worker_id, holder.incarnation, reports))


def promotions(core: Core) -> list[int]:
    """The positions of the tasks that the last step promoted, in the order in which it is told."""
    assert core.last is not None
    return [position_of(move.id) for move in core.last.story if move.verb == Verb.PROMOTE]


def test_tasks_that_are_let_go_together_are_queued_by_position() -> None:
    core = Core()
    core.submit(stage("a", 4), stage("b", 4, pairwise=("a",)))
    core.join(slots=4)
    first, second, third, fourth = (order.attempt_id for order in core.held())
    complete_together(core, third, first, fourth, second)
    assert promotions(core) == [5, 6, 7, 8]
    assert [order.position for order in core.held()] == [5, 6, 7, 8]


def test_a_task_that_follows_two_is_promoted_once_when_both_end_together() -> None:
    core = Core()
    core.submit(stage("a", 2), stage("b", 2), stage("c", 2, pairwise=("a", "b")))
    core.join(slots=4)
    complete_together(core, *(order.attempt_id for order in core.held()))
    assert promotions(core) == [5, 6]


def test_one_that_is_over_does_not_keep_those_behind_it_from_being_let_go() -> None:
    core = Core()
    core.submit(stage("a", 3), stage("b", 3, pairwise=("a",)))
    core.join(slots=3)
    over = next(task for task in core.state.each(Task) if task.position == 4)
    core.apply(CancelTask(over.id))
    complete_together(core, *(order.attempt_id for order in core.held()))
    assert promotions(core) == [5, 6]


def test_one_that_stays_skipped_does_not_keep_those_behind_it_from_being_revived() -> None:
    core = Core()
    core.submit(stage("a", 3), stage("b", 1), stage("c", 3, pairwise=("a",), after=("b",)))
    core.join(slots=4)
    *first, last = (order.attempt_id for order in core.held())
    core.report(first[0], Happening.FAILED)
    complete_together(core, *first[1:])
    core.report(last, Happening.FAILED)
    b = next(task for task in core.state.each(Task) if task.position == 4)
    core.apply(RetryTask(b.id))
    core.report(core.held()[-1].attempt_id)
    statuses = [task.status for task in core.state.each(Task) if task.position > 4]
    assert statuses == [TaskStatus.SKIPPED, TaskStatus.LEASED, TaskStatus.LEASED]


def test_what_comes_after_a_broken_stage_is_skipped_though_its_own_pair_still_runs() -> None:
    core = Core()
    core.submit(stage("a", 1), stage("b", 1), stage("c", 1, after=("a",), pairwise=("b",)))
    core.join(slots=2)
    core.report(core.held()[0].attempt_id, Happening.FAILED)
    assert [task.status for task in core.state.each(Task)][2] is TaskStatus.SKIPPED


def test_tasks_that_are_let_go_later_stand_before_those_behind_them() -> None:
    core = Core()
    core.submit(stage("a", 4), _limited("x"), stage("b", 4, pairwise=("a",), queue_ms_max=60_000))
    joined = core.join(slots=4)
    first, second, third, fourth = (order.attempt_id for order in core.held())
    complete_together(core, fourth)
    core.apply(PauseWorker(joined.worker_id))
    complete_together(core, third, first)
    complete_together(core, second)
    stage_b = next(each for each in core.state.each(Stage) if each.name == "b")
    assert [position_of(id) for id in core.state.index.queues[stage_b.id]] == [12, 13, 14, 15]


@pytest.mark.parametrize("missing", [Stage, Worker])
def test_a_task_completes_though_a_row_beside_it_could_not_be_read(
    missing: type[Stage | Worker],
) -> None:
    core = Core(checked=False)
    core.submit(stage("a", 2))
    core.join()
    rows = [row for kind in core.state.rows.values() for row in kind.values()]
    core.state = load([row for row in rows if not isinstance(row, missing)], core.now_ms)
    (order,) = core.held()
    assert core.report(order.attempt_id) == ""
    assert core.state.index.tallies[order.job_id][TaskStatus.COMPLETED] == 1
    assert core.held() == []


def test_what_it_comes_after_may_complete_before_a_task_is_made() -> None:
    core = Core()
    core.join(slots=9)
    with mock.patch.object(limits, "UNFOLD_SLICE", 2):
        core.submit(stage("a", 1), stage("b", 3), stage("c", 2, after=("a",)))
        first = core.held()[0]
        core.report(first.attempt_id)
        core.settle()
    assert [order.stage for order in core.held()] == ["b", "b", "b", "c", "c"]


def test_a_row_that_does_not_make_the_moves_is_a_defect() -> None:
    core = Core()
    core.submit()
    task = next(core.state.each(Task))
    tx = Transaction(core.state, core.now_ms, 1)
    path = tx.path("task", TaskStatus.QUEUED, (Verb.LEASE,))
    for old, new in ((None, task_leased(task, 1, "w")), (task, task)):
        with pytest.raises(Defect, match="does not make the moves"):
            tx.keep("task", [(old, new)], path)
    assert (tx.touched, tx.story) == ([], [])
