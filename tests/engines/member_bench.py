"""An engine of member containers at a program on a real socket, and one attempt of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import attrs

from orchestra.dialects.tango_places import Place
from orchestra.engines.member import MemberEngine
from orchestra.ports import Ended
from orchestra.testing.check_engine import Recorder, order_for
from orchestra.transports.far_line import HttpLine
from tests.engines.member_program import Program

BOUND_S = 30.0
TEMPLATE = b'{"user_id": "kyunghee", "project_id": "1"}'
IDS = ("kyunghee", "1")
HASTE: dict[str, Any] = {"heartbeat_ms": 30, "call_ms": 20_000}


class OwnLine(MemberEngine):
    """An engine that opens its line itself, for checks that make engines on their own."""

    def __init__(self, place: Place, **words: Any) -> None:
        self._own = HttpLine(place.host, place.port, place.headers, place.call_ms)
        super().__init__(place, self._own, **words)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> OwnLine:
        await self._stack.enter_async_context(self._own)
        await super().__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        with anyio.CancelScope(shield=True):
            await self._stack.aclose()


class Clock:
    """Time passes when the test says so: what takes long on a busy machine does not count."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """An engine, a sink, and one attempt."""

    def __init__(self, engine: MemberEngine, clock: Clock) -> None:
        self.clock = clock
        self.engine = engine
        self.sink = Recorder()
        self.order = order_for("member", TEMPLATE)

    async def begin(self, **fields: Any) -> None:
        self.order = attrs.evolve(self.order, **fields)
        await self.engine.start(self.order, self.sink)

    async def ended(self) -> Ended:
        return await self.sink.end_of(self.order.attempt_id, BOUND_S)

    async def running(self) -> None:
        await self.sink.start_of(self.order.attempt_id, BOUND_S)

    async def stop(self, rung: str = "asked") -> None:
        await self.engine.stop(self.order.attempt_id, rung)

    @property
    def output(self) -> str:
        return self.sink.written.get((self.order.attempt_id, "stdout"), b"").decode()

    @property
    def ran(self) -> bool:
        return ("running", self.order.attempt_id) in self.sink.calls


@asynccontextmanager
async def bench(port: int, ran_before: Any = None, **fields: Any) -> AsyncGenerator[Bench]:
    place = Place("code_gen", "127.0.0.1", port, **{**HASTE, **fields})
    words = {} if ran_before is None else {"ran_before": ran_before}
    clock = Clock()
    async with OwnLine(place, clock=clock, **words) as engine:
        yield Bench(engine, clock)


async def asked(member: Program, verb: str, times: int = 1) -> None:
    await anyio.to_thread.run_sync(partial(member.wait_for, verb, times))
