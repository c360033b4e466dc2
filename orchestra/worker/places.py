"""Where a worker's attempts run: its engines, and the one queue of what they have to do."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack

import anyio
import attrs
from anyio.abc import TaskGroup

from orchestra.errors import EngineFailed, Rejected, Unavailable
from orchestra.ports import Asker, Ended, Engine
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import Order
from orchestra.statemachine.values import value
from orchestra.waiting import Bell
from orchestra.worker.courier import Courier
from orchestra.worker.holdings import Action, Stop
from orchestra.worker.references import Results, has_references

log = logging.getLogger("orchestra.worker")

READ_AGAIN_S = 0.5
"""After the orchestrator did not answer, the input of an attempt is read again so much later."""


@value
class _Filled:
    """An order whose references have been replaced: to be started as it is."""

    order: Order


@attrs.define(slots=True, eq=False)
class _Filling:
    """An attempt whose input is being read."""

    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    stopped: bool = False


class Places:
    """
    Engines, and the actions that wait for them.

    Args:
        engines: Each app belongs to the first engine that names it.
        courier: Takes what engines tell.
        connected: Waits for a connection, through which the results of earlier stages are read.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        courier: Courier,
        connected: Callable[[], Awaitable[Asker]],
    ) -> None:
        self._all = tuple(engines)
        self._courier = courier
        self._connected = connected
        self._engines: dict[str, Engine] = {}
        self._actions: deque[Action | _Filled] = deque()
        self._bell = Bell()
        self._filling: dict[str, _Filling] = {}
        self._results = Results()

    async def enter(self, stack: AsyncExitStack) -> tuple[str, ...]:
        """Enter every engine; ``stack`` leaves them, which ends whatever runs. The apps that can run here."""
        for engine in self._all:
            await stack.enter_async_context(engine)
            for app in engine.apps:
                self._engines.setdefault(app, engine)
        return tuple(self._engines)

    def extend(self, until_s: float) -> None:
        """The lease was renewed; see `Engine.extend`."""
        for engine in self._all:
            engine.extend(until_s)

    def do(self, actions: Iterable[Action]) -> None:
        """Have actions carried out, in order."""
        self._actions.extend(actions)
        self._bell.ring()

    async def act(self, group: TaskGroup) -> None:
        """
        Carry actions out, in order and apart from any connection: losing one must not interrupt a start half-way, and a stop
        must not overtake the start that it belongs to. Runs for ever.
        """
        while True:
            while self._actions:
                action = self._actions.popleft()
                if isinstance(action, Stop):
                    await self._stop(action)
                elif isinstance(action, _Filled):
                    await self._start_filled(action.order)
                elif has_references(action.order.template):
                    filling = self._filling[action.order.attempt_id] = _Filling()
                    group.start_soon(self._fill, action.order, filling)
                else:
                    await self._start(action.order)
            await self._bell.wait()

    async def _stop(self, action: Stop) -> None:
        if action.foreign:
            self._courier.discard(action.attempt_id)
        filling = self._filling.get(action.attempt_id)
        if filling is not None:
            filling.stopped = True
            filling.scope.cancel()
        elif action.app in self._engines:
            await self._engines[action.app].stop(action.attempt_id, action.rung)

    async def _start_filled(self, order: Order) -> None:
        # It counts as being filled until here, so that a stop in between is not lost on an engine that does not know it yet.
        if self._filling.pop(order.attempt_id).stopped:
            await self._courier.ended(order.attempt_id, Ended("stopped"))
        else:
            await self._start(order)

    async def _start(self, order: Order) -> None:
        engine = self._engines.get(order.app)
        if engine is None:
            known = ", ".join(sorted(self._engines)) or "none"
            message = f"this worker has no app {order.app!r} (it has: {known})"
            await self._unstartable(order, message)
            return
        try:
            await engine.start(order, self._courier)
        except EngineFailed as error:
            await self._unstartable(order, str(error))

    async def _unstartable(self, order: Order, message: str) -> None:
        ended = Ended("failed", cause=Cause.UNSTARTABLE, message=message)
        await self._courier.ended(order.attempt_id, ended)

    async def _fill(self, order: Order, filling: _Filling) -> None:
        """Replace the references in an order's template, then have it started."""
        filled = order
        with filling.scope:
            try:
                filled = attrs.evolve(order, template=await self._template(order))
            except Rejected as error:
                del self._filling[order.attempt_id]
                problem = f"its input could not be put together: {error}"
                await self._unstartable(order, problem)
                return
        self._actions.append(_Filled(filled))
        self._bell.ring()

    async def _template(self, order: Order) -> bytes:
        while True:
            asker = await self._connected()
            try:
                return await self._results.filled(order, asker)
            except Unavailable as error:
                log.info("the input of %s is read again: %s", order.attempt_id, error)
            await anyio.sleep(READ_AGAIN_S)
