"""
The engine of a member container: each attempt is a run there, which a Project Manager of TANGO starts, asks and stops.

The template of its stages is ``{"user_id": ..., "project_id": ...}``. What is asked and answered is the attempt's output. The rungs of a
stop all say ``/stop`` once more: there is nothing else that can be said to a container.

A run is the container's own process. It goes on when the manager ends, and the next attempt of its task finds it there.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import anyio.abc
import attrs

from orchestra.dialects.far_calls import FarLine, FarReply
from orchestra.dialects.tango_places import APP, Place
from orchestra.dialects.tango_words import Verb, target_of
from orchestra.engines.member_run import MemberRun
from orchestra.engines.roster import Roster
from orchestra.errors import ensure
from orchestra.ports import AttemptSink, Ended
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import Order

LEAVE_S = 10.0
"""Leaving waits so long for containers to say that what was stopped is over."""

_RUNGS = ("", "asked", "term", "kill")


@attrs.define(slots=True, eq=False)
class _Held:
    order: Order
    sink: AttemptSink
    run: MemberRun
    scope: anyio.CancelScope


async def _never_ran(_: Order) -> bool:
    return False


class MemberEngine:
    """
    Runs stages in a member container. ``apps`` is ``member``.

    Args:
        place: The container.
        line: The way there.
        ran_before: Whether an attempt before this one of the same task saw it run, and was lost without seeing its end. What the
            container says is then about the same run.
        clock: Monotonic seconds, for limits.
    """

    apps: tuple[str, ...] = (APP,)

    def __init__(
        self,
        place: Place,
        line: FarLine,
        ran_before: Callable[[Order], Awaitable[bool]] = _never_ran,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.place = place
        self._ran_before = ran_before
        self._clock = clock
        self._line = line
        self._roster: Roster[_Held] = Roster()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._handing_back = False

    async def __aenter__(self) -> MemberEngine:
        ensure(self._tasks is None, "an engine is entered once at a time")
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks, self._tasks = self._tasks, None  # whatever is started from now on is refused
        if tasks is None:
            return
        with anyio.CancelScope(shield=True):
            if not self._handing_back:
                for rung in _RUNGS[1:]:
                    for attempt_id in self._roster.ids():
                        await self.stop(attempt_id, rung)
                with anyio.move_on_after(LEAVE_S):
                    await self._roster.emptied()
            for held in self._roster.live():
                held.scope.cancel()
        await tasks.__aexit__(None, None, None)

    def hand_back(self) -> None:
        """
        From now on what runs is let go: its attempts end as handed back, and it goes on in its container.

        What is being stopped is not: it is over only when the container says so.
        """
        self._handing_back = True

    async def start(self, order: Order, sink: AttemptSink) -> None:
        """As `ports.Engine.start`."""
        id = order.attempt_id
        if id in self._roster:
            return
        if self._tasks is None or order.app not in self.apps:
            message = f"there is no app {order.app!r} here"
            if self._tasks is None:
                message = "the engine is not open"
            await sink.ended(id, Ended("failed", cause=Cause.UNSTARTABLE, message=message))
            return
        run = MemberRun(self.place, self._line, order, sink, self._clock)
        held = _Held(order, sink, run, anyio.CancelScope(shield=True))
        self._roster.add(id, held)
        self._tasks.start_soon(partial(self._conduct, held))

    async def stop(self, attempt_id: str, rung: str) -> None:
        """As `ports.Engine.stop`."""
        held = self._roster.find(attempt_id)
        if held is None or _RUNGS.index(rung) <= _RUNGS.index(held.run.rung):
            return
        if self._handing_back and not held.run.rung:
            held.scope.cancel()
        else:
            held.run.climb(rung)

    async def query(self) -> tuple[str, ...]:
        """As `ports.Engine.query`."""
        return self._roster.ids()

    def extend(self, until_s: float) -> None:
        """As `ports.Engine.extend`: the container does not depend on us, and no process of ours runs for it."""

    def nudge(self, ids: tuple[str, str]) -> bool:
        """Something was reported of a run of these ids: ask how it is now. Whether one is alive."""
        found = [held.run for held in self._roster.live() if held.run.ids == ids]
        for run in found:
            run.nudge()
        return bool(found)

    def at_work(self) -> bool:
        """Whether a run began that has not ended, as far as is known. One whose start reaches nobody did not begin."""
        return any(held.run.began for held in self._roster.live())

    async def problem(self) -> str:
        """What keeps the container from taking work, in a few words; empty when it answers, whatever it says."""
        answer = await self._line.call(target_of(Verb.STATUS_REQUEST, "", ""))
        return "" if isinstance(answer, FarReply) else str(answer)

    async def _conduct(self, held: _Held) -> None:
        id = held.order.attempt_id
        ended = Ended("failed", cause=Cause.LOST, message="its container did not confirm the stop")
        with held.scope:
            ran_before = held.order.number > 1 and await self._ran_before(held.order)
            ended = await held.run.conduct(ran_before=ran_before)
        if held.scope.cancelled_caught and self._handing_back and not held.run.rung:
            ended = Ended("stopped", message="its manager ends; it goes on in its container")
        self._roster.end(id)
        with anyio.CancelScope(shield=True):
            await held.sink.ended(id, ended)
