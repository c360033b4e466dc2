"""As which worker something is asked: every ask of workers has a rule, and no rule is guessed."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import attrs
import pytest

from orchestra.dialects.asks import AppendLog, Ask, Dialogue, Keyed
from orchestra.dialects.native_table import OPERATIONS, WATCHES
from orchestra.dialects.wire import Role
from orchestra.errors import Forbidden, NotFound
from orchestra.ports import LogChunk, WatchOrders
from orchestra.runtime.acting import WORKER_OF, acted_as
from orchestra.statemachine.commands import JoinWorker, LeaveWorker, PauseWorker, ResumeWorker
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.statemachine.step import HANDLERS
from orchestra.testing.core import Core
from orchestra.transports.asking import put
from orchestra.transports.memory import MemoryTransport
from tests.transports.far_ends import running

pytestmark = pytest.mark.anyio

OF_OPERATORS = {PauseWorker, ResumeWorker}
"""They name a worker, and are done to it: only an operator may ask them."""


def test_every_route_of_workers_has_a_rule() -> None:
    """A later one without is open to impostors."""
    roles = {each.input.cls: each.role for each in (*OPERATIONS, *WATCHES)}
    assert {cls for cls, role in roles.items() if role is Role.WORKER} == set(WORKER_OF)
    assert {roles[cls] for cls in OF_OPERATORS} == {Role.OPERATOR}


def names_a_worker(cls: type[Any]) -> bool:
    return "worker_id" in {field.name for field in attrs.fields(cls)} or cls is JoinWorker


def test_every_command_that_names_a_worker_is_a_workers_or_an_operators() -> None:
    """Also one that no route of the native dialect leads to: other dialects ask as well."""
    named = {cls for cls in (*HANDLERS, AppendLog, WatchOrders) if names_a_worker(cls)}
    assert named == set(WORKER_OF) | OF_OPERATORS


@pytest.mark.parametrize("cls", list(WORKER_OF))
def test_the_field_that_is_named_is_there(cls: type[Any]) -> None:
    where, _ = WORKER_OF[cls]
    assert where in {field.name for field in attrs.fields(cls)}


def asks_of(worker_id: str, attempt_id: str) -> list[Any]:
    return [
        Heartbeat(worker_id, 1),
        AttemptsReported(worker_id, 1, (AttemptReport(attempt_id, Happening.RUNNING),)),
        AppendLog(worker_id, 1, (LogChunk(attempt_id, "stdout", 0, b"x"),)),
        LeaveWorker(worker_id, 1),
        WatchOrders(worker_id, 1),
    ]


def test_a_worker_is_found_by_its_name_or_behind_its_id() -> None:
    core = Core()
    first, second = core.join("one"), core.join("two")
    assert acted_as(core.state, JoinWorker("three", "s", 1, ())) == ("three", "name")
    for asked in asks_of(first.worker_id, "none"):
        assert acted_as(core.state, asked) == ("one", "worker_id")
    for asked in asks_of(second.worker_id, "none"):
        assert acted_as(core.state, asked) == ("two", "worker_id")
    for asked in asks_of("nobody's", "none"):
        assert acted_as(core.state, asked) == ("", "worker_id")
    for asked in (PauseWorker(first.worker_id), ResumeWorker(first.worker_id)):
        assert acted_as(core.state, asked) == ("", "")


def test_an_id_of_a_former_incarnation_leads_to_the_same_name() -> None:
    core = Core()
    former, present = core.join("one", session="a"), core.join("one", session="b")
    assert former.worker_id != present.worker_id
    for each in (former, present):
        assert acted_as(core.state, Heartbeat(each.worker_id, 1)) == ("one", "worker_id")


def test_of_a_forgotten_worker_nothing_more_is_taken() -> None:
    """Its row may leave memory before its attempts do; a late report of them would be kept as evidence."""
    core = Core(checked=False)
    worker = core.join("one")
    core.submit()
    core.settle()
    (order,) = core.held()
    asks = asks_of(worker.worker_id, order.attempt_id)
    del core.state.rows["worker"][worker.worker_id]
    for asked in asks:
        if isinstance(asked, AttemptsReported | AppendLog):
            with pytest.raises(NotFound, match="no such worker any more"):
                acted_as(core.state, asked)
        else:
            # The core knows no such worker: it answers that it has to join again.
            assert acted_as(core.state, asked) == ("", "worker_id")


class AllButOne:
    """A rule: the worker ``one`` is somebody else's."""

    def check_worker(self, name: str, where: str) -> None:
        if name == "one":
            raise Forbidden("it is somebody else's", where=where)


ONE, TWO = JoinWorker("one", "s", 1, ()), JoinWorker("two", "s", 1, ())


def asks_in_turn() -> Generator[Ask, Any, object]:
    """As a dialect's wire may, whose one request is several asks."""
    yield TWO
    return (yield ONE)


@pytest.mark.parametrize("asked", [ONE, Keyed(ONE, "key"), Dialogue(asks_in_turn)])
async def test_however_it_is_asked_the_rule_is_asked_first(asked: Any) -> None:
    async with running() as orchestrator:
        ruled = orchestrator.for_principal("eve", AllButOne())
        for asker in (ruled, ruled.for_principal("adam")):
            with pytest.raises(Forbidden):
                await put(asker, asked)
        await put(orchestrator.for_principal("eve"), asked)


async def test_who_works_inside_the_server_is_asked_for_nothing() -> None:
    async with running() as orchestrator, MemoryTransport(orchestrator) as asker:
        joined = await asker.ask(ONE)
        assert (await asker.ask(Heartbeat(joined.worker_id, joined.incarnation))).known
