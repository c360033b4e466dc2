"""What workers are sent: orders with all they need, stops on each rung; and what they say of themselves."""

from __future__ import annotations

import attrs
import pytest

from orchestra.errors import Malformed
from orchestra.statemachine import load
from orchestra.statemachine.commands import CancelJob, StageDraft, SubmitJob
from orchestra.statemachine.effects import StartAttempt, StopAttempt
from orchestra.statemachine.lifecycles import TaskStatus
from orchestra.statemachine.queries import GetJob, GetTask, ListResults, ListWorkers
from orchestra.statemachine.records import OnFailure, Record, Rung, Span, Task, Worker
from orchestra.statemachine.reports import Happening, Heartbeat
from orchestra.statemachine.scheduling import unable
from orchestra.statemachine.state import State
from orchestra.statemachine.table import Row, Table
from orchestra.testing.core import Core


def rows_of(state: State) -> list[Record]:
    return [row for rows in state.rows.values() for row in rows.values()]


def stops(core: Core) -> list[StopAttempt]:
    assert core.last is not None
    return [effect for effect in core.last.effects if isinstance(effect, StopAttempt)]


def test_an_order_has_all_that_its_work_needs() -> None:
    core = Core()
    joined = core.join(capacity=(("cpu", 1_000),))
    draft = StageDraft(
        "render", "app", b'{"a":1}', Span(5, 9, 2), needs=(("cpu", 500),), run_ms_max=77, grace_ms=9
    )
    job = core.apply(SubmitJob("shot", (draft,)))
    assert core.last is not None
    (effect,) = core.last.effects
    assert isinstance(effect, StartAttempt)
    assert (effect.worker_id, effect.incarnation) == (joined.worker_id, joined.incarnation)
    order = effect.order
    assert (order.job_id, order.job_number, order.job_name) == (job.job_id, 1, "shot")
    assert (order.stage, order.app, order.template) == ("render", "app", b'{"a":1}')
    assert (order.item, order.position, order.offset, order.number) == (b"5", 1, 0, 1)
    assert (order.needs, order.run_ms_max, order.grace_ms) == ((("cpu", 500),), 77, 9)
    assert (order.rung, order.reason) == (Rung.NONE, "")


def test_items_of_a_fan_out_are_given_in_order_and_without_one_there_is_none() -> None:
    core = Core()
    core.join(slots=9)
    core.submit(StageDraft("a", "app"), StageDraft("b", "app", over=(b'"x"', b'"y"')))
    core.submit(StageDraft("c", "app", over=Span(5, 9, 2)))
    assert [order.item for order in core.held()] == [b"", b'"x"', b'"y"', b"5", b"7"]
    assert [core.ask(GetTask(name)).item for name in ("1.1", "1.3", "2.2")] == [b"", b'"y"', b"7"]


def test_a_stop_is_sent_on_every_rung() -> None:
    core = Core()
    joined = core.join()
    job = core.submit()
    (order,) = core.held()
    core.apply(CancelJob(job.job_id, "enough", grace_ms=2_000))
    sent = stops(core)
    for _ in range(3):
        core.beat(joined, order.attempt_id)
        core.now_ms += 2_000
        core.settle()
        sent += stops(core)
    assert [(each.worker_id, each.incarnation) for each in sent] == [
        (joined.worker_id, joined.incarnation)
    ] * 4
    assert [each.order.rung for each in sent] == ["asked", "term", "kill", "kill"]
    assert {each.order.reason for each in sent} == {"enough"}
    assert {each.order.grace_ms for each in sent} == {2_000}


def test_a_job_that_stops_at_its_first_failure_stops_for_nothing_else() -> None:
    core = Core()
    core.join(slots=2)
    stage = StageDraft("a", "app", over=Span(0, 4))
    core.apply(SubmitJob("j", (stage,), on_failure=OnFailure.STOP))
    core.report(core.held()[0].attempt_id)
    assert len(core.held()) == 2
    assert stops(core) == []
    core.report(core.held()[0].attempt_id, Happening.FAILED, message="no")
    assert [stop.order.reason for stop in stops(core)] == ["the job stops at its first failure"]
    reasons = {task.status: task.reason for task in core.state.each(Task)}
    assert reasons[TaskStatus.CANCELLED] == "the job stops at its first failure"


def test_what_a_heartbeat_says_of_its_host_is_shown() -> None:
    core = Core()
    joined = core.join()
    before = core.ask(ListWorkers()).items[0]
    assert (before.load, before.memory_free_bytes, before.disk_free_bytes) == (0.0, 0, 0)
    assert before.seen_at_ms == core.now_ms
    core.advance(5)
    beat = Heartbeat(joined.worker_id, 1, (), load=0.5, memory_free_bytes=7, disk_free_bytes=8)
    core.apply(beat)
    after = core.ask(ListWorkers()).items[0]
    assert (after.load, after.memory_free_bytes, after.disk_free_bytes) == (0.5, 7, 8)
    assert after.seen_at_ms == core.now_ms


def test_who_lacks_nothing_is_told_so_with_no_word() -> None:
    core = Core()
    core.join()
    (worker,) = core.state.each(Worker)
    assert unable(worker, ("app", (), ())) == ""
    assert unable(worker, ("app", ("worker:w1",), ())) == ""
    assert unable(worker, ("app", (), (("cpu", 1),))) == "cpu"


@pytest.mark.parametrize("field", ["after", "pairwise"])
@pytest.mark.parametrize(("name", "told"), [("only", "circle"), ("other", "no stage 'other'")])
def test_a_stage_alone_can_not_come_after_itself_or_after_nothing(
    field: str, name: str, told: str
) -> None:
    core = Core()
    stage = attrs.evolve(StageDraft("only", "app"), **{field: (name,)})
    with pytest.raises(Malformed, match=told) as caught:
        core.submit(stage)
    assert caught.value.where == f"stages[0].{field}" or told == "circle"


def test_moves_one_after_the_other_are_told_with_their_ends() -> None:
    rows = (Row(None, "new", "a", ""), Row("a", "go", "b", ""), Row("b", "end", "c", ""))
    table = Table("t", rows)
    for _ in range(2):
        assert table.walk("a", ("go", "end")) == (("a", "go", "b"), ("b", "end", "c"))
        assert table.walk("", ("new",)) == (("", "new", "a"),)
        assert table.walk("a", ("end",)) is None
        assert table.walk("a", ()) == ()


def test_results_are_all_there_although_a_row_could_not_be_read() -> None:
    core = Core()
    core.join(slots=4)
    core.submit(StageDraft("a", "app", over=Span(0, 3)), StageDraft("b", "other"))
    gone = core.ask(GetTask("1.2")).id
    again = Core(checked=False)
    again.state = load([row for row in rows_of(core.state) if gone not in row.id], core.now_ms)
    again.now_ms, again.orders = core.now_ms, core.orders
    assert not again.ask(ListResults("1", "a")).done
    again.run_all()
    assert again.ask(ListResults("1", "a")).done
    assert again.ask(GetJob("1")).status == "running"
