"""What engines have to do, in order: an unknown app, and stops that meet an attempt whose input is still being read."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import anyio
import attrs
import pytest

from orchestra.errors import EngineFailed
from orchestra.ports import Asker, AttemptSink
from orchestra.statemachine.records import Cause, Rung
from orchestra.statemachine.replies import Order
from orchestra.statemachine.reports import Happening
from orchestra.worker.courier import Courier
from orchestra.worker.places import Places
from orchestra.worker.session import WorkerSession
from tests.worker.kit import ScriptedEngine, introduction, order

pytestmark = pytest.mark.anyio

REFERS = b'{"x": {"$results": "s"}}'


class Bench:
    """Places with everything that they need but a connection."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.session = WorkerSession(introduction())
        self.courier = Courier(self.session, time.monotonic)
        self.places = Places([engine], self.courier, self.never_connected)

    async def never_connected(self) -> Asker:
        await anyio.sleep_forever()
        raise AssertionError

    def ordered(self, *orders: Order) -> None:
        for each in orders:
            action = self.session.holdings.ordered(each)
            assert action is not None
            self.places.do((action,))

    async def act(self) -> None:
        """Until nothing is left to do."""
        async with AsyncExitStack() as stack:
            await self.places.enter(stack)
            async with anyio.create_task_group() as group:
                group.start_soon(self.places.act, group)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()


async def test_an_app_that_no_engine_has_is_unstartable() -> None:
    engine = ScriptedEngine()
    bench = Bench(engine)
    bench.ordered(attrs.evolve(order("a"), app="play"), order("b"))
    await bench.act()
    (report,) = bench.session.holdings.reporting(0.0)
    assert (report.attempt_id, report.cause) == ("a", Cause.UNSTARTABLE)
    assert "'play'" in report.message
    assert "work" in report.message
    assert [each.attempt_id for each in engine.started] == ["b"]


async def test_a_place_that_does_not_answer_is_unstartable() -> None:
    class Dead(ScriptedEngine):
        async def start(self, order: Order, sink: AttemptSink) -> None:
            del order, sink
            raise EngineFailed("no answer from the cluster")

    bench = Bench(Dead())
    bench.ordered(order("a"))
    await bench.act()
    (report,) = bench.session.holdings.reporting(0.0)
    assert (report.happening, report.message) == (Happening.FAILED, "no answer from the cluster")


async def test_a_stop_reaches_an_attempt_whose_input_is_being_read() -> None:
    engine = ScriptedEngine()
    bench = Bench(engine)
    bench.ordered(order("a", template=REFERS), order("b", template=REFERS))
    bench.ordered(order("a", Rung.ASKED))
    await bench.act()
    (report,) = bench.session.holdings.reporting(0.0)
    assert (report.attempt_id, report.happening) == ("a", Happening.STOPPED)
    assert engine.started == []
    assert bench.session.holdings.holding == ("a", "b")


async def test_a_stop_does_not_overtake_the_start_that_it_belongs_to() -> None:
    class Slow(ScriptedEngine):
        async def start(self, order: Order, sink: AttemptSink) -> None:
            await anyio.sleep(0.02)
            await super().start(order, sink)

    engine = Slow()
    bench = Bench(engine)
    bench.ordered(order("a"), order("a", Rung.KILL))
    async with AsyncExitStack() as stack:
        await bench.places.enter(stack)
        async with anyio.create_task_group() as group:
            group.start_soon(bench.places.act, group)
            with anyio.fail_after(30):
                await bench.courier.settled.wait()
            group.cancel_scope.cancel()
    reports = bench.session.holdings.reporting(0.0)
    assert [each.happening for each in reports] == [Happening.STOPPED]
