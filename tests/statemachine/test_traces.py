"""What is over leaves nothing behind in memory, and what a restart builds is what was there."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from orchestra.statemachine import ids, limits, load
from orchestra.statemachine.commands import (
    ArchiveProject,
    CancelJob,
    PauseJob,
    Reconfigure,
    ResumeJob,
    StageDraft,
    SubmitJob,
    Tick,
)
from orchestra.statemachine.index import Index
from orchestra.statemachine.queries import GetJob, ListJobs
from orchestra.statemachine.records import OnFailure, Receipt, Record, Span, Task
from orchestra.statemachine.reports import Happening
from orchestra.statemachine.state import State
from orchestra.testing.core import Core

LAZY = {"deadlines", "finished", "ready", "free", "held", "used"}
"""What is cleared when it is next looked at, and what belongs to workers, who stay."""


def rows_of(state: State) -> list[Record]:
    return [row for rows in state.rows.values() for row in rows.values()]


def traces(index: Index, job_ids: Iterable[str]) -> dict[str, list[str]]:
    """By look-up: the entries that have the id of one of these jobs in them."""
    found: dict[str, list[str]] = {}
    for name, entries in vars(index).items():
        if name.startswith("_") or name in LAZY or not isinstance(entries, dict):
            continue
        told = [f"{key}: {entry}" for key, entry in entries.items()]
        found[name] = [each for each in told if any(id in each for id in job_ids)]
    return {name: entries for name, entries in found.items() if entries}


def stages() -> tuple[StageDraft, ...]:
    return (
        StageDraft("a", "app", over=Span(0, 3)),
        StageDraft("b", "app", over=Span(0, 3), pairwise=("a",)),
        StageDraft("c", "app", after=("a", "b")),
    )


@pytest.mark.parametrize("ends", ["completed", "cancelled", "failed", "restarted"])
def test_a_job_that_leaves_memory_leaves_no_trace(ends: str) -> None:
    core = Core()
    core.join(slots=2)
    job = core.submit(*stages())
    if ends == "cancelled":
        core.apply(CancelJob(job.job_id, "enough"))
        for order in core.held():
            core.report(order.attempt_id, Happening.STOPPED)
    elif ends == "failed":
        core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    elif ends == "restarted":
        core.state = load(rows_of(core.state), core.now_ms)
    core.run_all()
    assert core.ask(GetJob("1")).ended_at_ms is not None
    assert traces(core.state.index, [job.job_id])
    core.advance(limits.RETENTION_MS)
    assert core.ask(ListJobs()).items == ()
    assert traces(core.state.index, [job.job_id]) == {}
    assert core.state.index.finished_tasks == 0
    assert core.state.progress == {}
    for kind in ("job", "stage", "task", "attempt"):
        assert core.state.rows[kind] == {}


def test_a_job_that_was_never_begun_leaves_no_trace() -> None:
    core = Core()
    job = core.submit(*stages())
    core.apply(PauseJob(job.job_id, "later"))
    core.apply(CancelJob(job.job_id, "never"))
    core.settle()
    core.advance(limits.RETENTION_MS)
    assert traces(core.state.index, [job.job_id]) == {}


def test_a_finished_job_stays_for_its_retention_and_not_longer() -> None:
    core = Core()
    core.apply(Reconfigure(retention_ms=5_000))
    core.join()
    core.submit()
    core.run_all()
    core.advance(4_999)
    assert [job.number for job in core.ask(ListJobs()).items] == [1]
    core.advance(1)
    assert core.ask(ListJobs()).items == ()


def test_a_key_is_known_for_a_day_and_then_its_row_is_deleted() -> None:
    core = Core()
    first = core.submit(key="k")
    core.advance(limits.RECEIPT_MS - 1)
    again = core.submit(key="k")
    assert (again.job_id, again.repeated, first.repeated) == (first.job_id, True, False)
    (receipt,) = core.state.each(Receipt)
    core.advance(1)
    assert list(core.state.each(Receipt)) == []
    assert core.last is not None
    assert core.last.drops == (("receipt", receipt.id),)
    assert core.submit(key="k").job_id != first.job_id


def test_the_longest_key_is_taken() -> None:
    core = Core()
    key = "k" * limits.NAME_CHARS_MAX
    assert core.submit(key=key).job_id == core.submit(key=key).job_id


def test_settings_that_were_changed_are_those_after_a_restart() -> None:
    core = Core()
    core.apply(Reconfigure(aging_ms=7, losses_max=2))
    again = load(rows_of(core.state), core.now_ms)
    assert (again.settings.aging_ms, again.settings.losses_max) == (7, 2)


def test_numbers_go_on_after_a_restart() -> None:
    core = Core()
    core.submit()
    core.join("w1")
    core.state = load(rows_of(core.state), core.now_ms)
    assert core.submit().number == 2
    assert [job.number for job in core.ask(ListJobs()).items] == [2, 1]


def test_a_job_that_stops_at_its_first_failure_stops_after_a_restart_too() -> None:
    core = Core()
    core.join()
    command = SubmitJob("j", (StageDraft("a", "app", over=Span(0, 5)),), on_failure=OnFailure.STOP)
    core.apply(command)
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    core.state = load(rows_of(core.state), core.now_ms)
    core.apply(Tick())
    counts = {task.status for task in core.state.each(Task)}
    assert counts == {"failed", "cancelled"}


def test_a_job_that_was_being_cancelled_is_cancelled_after_a_restart() -> None:
    core = Core()
    joined = core.join()
    job = core.submit(StageDraft("a", "app", over=Span(0, limits.UNFOLD_SLICE + 10)))
    core.apply(CancelJob(job.job_id, "enough"))
    core.state = load(rows_of(core.state), core.now_ms)
    core.settle()
    (order,) = core.held()
    core.beat(joined, order.attempt_id)
    core.report(order.attempt_id, Happening.STOPPED)
    core.settle()
    assert core.ask(GetJob(job.job_id)).status == "cancelled"


def test_a_job_goes_back_to_where_it_was_when_it_is_resumed() -> None:
    core = Core()
    begun, waiting = core.submit(), core.submit()
    core.join()
    core.apply(PauseJob(begun.job_id, "lunch"))
    core.apply(PauseJob(waiting.job_id, "lunch"))
    assert core.apply(ResumeJob(begun.job_id)).status == "running"
    assert core.apply(ResumeJob(waiting.job_id)).status == "queued"


def test_a_project_is_named_after_a_restart() -> None:
    core = Core()
    core.apply(SubmitJob("j", (StageDraft("a", "app"),), project="p"))
    core.state = load(rows_of(core.state), core.now_ms)
    assert core.apply(ArchiveProject("p")).status == "archived"
    assert [job.project for job in core.ask(ListJobs("p")).items] == ["p"]


@pytest.mark.parametrize("number", [1, 31, 32, 1023, 1024, 32**4, 32**8 - 1])
def test_ids_hold_their_numbers(number: int) -> None:
    id = ids.new_id(number, 2**90 - 1)
    assert (len(id), ids.number_of(id)) == (ids.ROOT_CHARS, number)
    assert id.startswith(ids.prefix_of(number))
    assert id[8:] == "z" * 18
    assert ids.new_id(number, 2**90) == ids.prefix_of(number) + "0" * 18, "90 bits count"


def test_the_random_part_of_an_id_is_what_was_drawn() -> None:
    for drawn in (1, 2**10, 2**45 + 12_345, 2**89 + 77):
        id = ids.new_id(1, drawn)
        assert (ids.decode(id[8:17]) << 45) + ids.decode(id[17:]) == drawn


@pytest.mark.parametrize("position", [1, 1023, 1024, 1025, 2048, 1_000_000])
def test_positions_and_attempts_are_read_back(position: int) -> None:
    job = ids.new_id(7, 8)
    task = ids.task_id(job, position)
    assert (ids.position_of(task), ids.job_of(task)) == (position, job)
    attempt = ids.attempt_id(task, position)
    assert (ids.task_of(attempt), ids.position_of(attempt)) == (task, position)
    assert ids.attempt_number_of(attempt) == position
    assert attempt > ids.attempt_id(task, position - 1)
