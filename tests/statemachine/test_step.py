"""The reducer as a whole: total, complete, and the same every time."""

from __future__ import annotations

import inspect
from importlib import import_module

import attrs
import pytest

from orchestra.errors import Defect, NotFound
from orchestra.statemachine import Stimulus, answers, commands, jobs, load, queries, reports, step
from orchestra.statemachine.commands import CancelJob, Command, PauseJob, StageDraft, SubmitJob
from orchestra.statemachine.ids import (
    attempt_id,
    decode,
    encode,
    job_of,
    number_of,
    position_of,
    stage_id,
    task_id,
    task_of,
)
from orchestra.statemachine.lifecycles import AttemptStatus
from orchestra.statemachine.queries import GetJob
from orchestra.statemachine.records import Attempt, evolve
from orchestra.statemachine.step import HANDLERS
from orchestra.statemachine.story import Moved, Told
from orchestra.statemachine.table import Row, Table
from orchestra.statemachine.transaction import Transaction
from orchestra.testing.core import Core
from orchestra.testing.invariants import snapshot


def concrete(module: object, base: type) -> set[type]:
    return {
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, base) and value is not base and attrs.has(value)
    }


def test_every_command_and_report_has_one_handler() -> None:
    assert set(HANDLERS) == concrete(commands, Command) | concrete(reports, Command)


def test_every_query_has_one_answer() -> None:
    assert set(answers.ANSWERERS) == concrete(queries, queries.Query)


def test_a_refusal_is_a_value_and_leaves_no_trace() -> None:
    core = Core()
    core.submit()
    before = snapshot(core.state)
    outcome = step(core.state, Stimulus(CancelJob("no-such-job"), 5, 1))
    assert isinstance(outcome.reply, NotFound)
    assert (outcome.changes, outcome.effects, outcome.story) == ({}, (), ())
    assert snapshot(core.state) == before


def test_a_refusal_that_comes_half_way_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def pause_two(tx: Transaction, command: PauseJob) -> object:
        jobs.pause(tx, command)
        return jobs.pause(tx, PauseJob("no-such-job"))

    core = Core()
    accepted = core.submit()
    before = snapshot(core.state)
    module = import_module("orchestra.statemachine.step")  # the package exports its function
    with monkeypatch.context() as replaced:
        replaced.setattr(module, "HANDLERS", {PauseJob: pause_two})
        outcome = step(core.state, Stimulus(PauseJob(accepted.job_id), 5, 1))
    assert isinstance(outcome.reply, NotFound)
    assert snapshot(core.state) == before
    core.join()
    assert core.ask(GetJob("1")).status == "running", "nor does it look paused to the scheduler"


def test_an_edge_that_is_not_in_the_table_is_a_defect() -> None:
    core = Core()
    core.join()
    core.submit()
    attempt = next(core.state.each(Attempt))
    tx = Transaction(core.state, 0, 0)
    with pytest.raises(Defect, match="no edge started -> completed"):
        tx.put(evolve(attempt, status=AttemptStatus.COMPLETED))


def test_the_same_stimuli_make_the_same_rows() -> None:
    worlds = [load((), 0), load((), 0)]
    for number in range(5):
        stimulus = Stimulus(SubmitJob("j", (StageDraft("a", "app"),)), number, number, "me", "k")
        outcomes = [step(world, stimulus) for world in worlds]
        assert outcomes[0] == outcomes[1]
    assert snapshot(worlds[0]) == snapshot(worlds[1])


def test_evolve_is_attrs_evolve() -> None:
    core = Core()
    core.join()
    core.submit()
    for rows in core.state.rows.values():
        for row in rows.values():
            assert evolve(row) == row
            assert evolve(row, id="x") == attrs.evolve(row, id="x")


def test_ids_nest_and_sort() -> None:
    job = encode(17, 8) + "x" * 18
    task = task_id(job, 3)
    attempt = attempt_id(task, 2)
    assert (number_of(job), job_of(attempt), task_of(attempt), position_of(attempt)) == (
        17,
        job,
        task,
        3,
    )
    assert stage_id(job, 0) < stage_id(job, 33)
    assert [task_id(job, n) for n in (1, 9, 31, 32, 1023, 1024, 999_999)] == sorted(
        task_id(job, n) for n in (1, 9, 31, 32, 1023, 1024, 999_999)
    )
    for wrong in ("", "abc", "i" * 26):
        with pytest.raises(ValueError, match=r"too short|not a digit"):
            number_of(wrong)
    with pytest.raises(ValueError, match="more digits"):
        encode(32**2, 2)
    assert decode(encode(123_456, 6)) == 123_456


def test_a_table_finds_the_moves_that_an_observer_missed() -> None:
    table = Table(
        "t", (Row(None, "new", "a", ""), Row("a", "go", "b", ""), Row("b", "end", "c", ""))
    )
    path = table.path("a", "c")
    assert path is not None
    assert [row.verb for row in path] == ["go", "end"]
    assert table.path("c", "a") is None
    assert table.path("b", "b") == ()
    with pytest.raises(ValueError, match="two rows"):
        Table("t", (Row("a", "go", "b", ""), Row("a", "go", "c", "")))


class TestStory:
    def test_entries_in_a_row_are_a_sequence_of_moved(self) -> None:
        moved = [
            Moved(7 + n, 5, "task", f"t{n}", "queued", "lease", "leased", "") for n in range(3)
        ]
        told = Told.of(moved)
        assert Told.of(told) is told
        assert (list(told), len(told), told.first) == (moved, 3, 7)
        assert (told[0], told[-1]) == (moved[0], moved[2])
        assert told[1:] == tuple(moved[1:])
        assert (len(Told.of(())), Told.of(()).first) == (0, 0)
        with pytest.raises(IndexError):
            told[3]
