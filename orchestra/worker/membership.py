"""How a worker becomes and stays a member: it joins, beats, and says goodbye, over a connection that may fail at any time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

import anyio
import anyio.to_thread

from orchestra.errors import Conflict, PeerClosed, Rejected, Unavailable
from orchestra.ports import Asker
from orchestra.statemachine.commands import Command
from orchestra.worker.detect import Vitals
from orchestra.worker.holdings import Action
from orchestra.worker.session import Standing, WorkerReplaced, WorkerSession

R = TypeVar("R")

log = logging.getLogger("orchestra.worker")

JOIN_S = 10.0
"""A join is answered after a commit; a thousand workers that come back at once may have to queue for it."""

GOODBYE_S = 2.0
"""A goodbye spares the others the end of a lease, but nobody waits for it at a shutdown."""

BEAT_PATIENCE_S_MIN = 0.25
"""With very short beats an answer still gets this long, so that a busy moment is not taken for a lost connection."""


class Membership:
    """
    The part of an agent that speaks of the worker itself.

    Args:
        session: Decides.
        clock: Monotonic seconds.
        vitals: Tells how busy the machine is; None tells nothing.
        act: Carries out what an answer asks for.
        renewed: Called when the lease was renewed.
    """

    def __init__(
        self,
        session: WorkerSession,
        clock: Callable[[], float],
        vitals: Callable[[], Vitals] | None,
        *,
        act: Callable[[Iterable[Action]], None],
        renewed: Callable[[], None],
    ) -> None:
        self.replaced: WorkerReplaced | None = None
        """Why this process has to stop; None while it is the one under its name."""
        self._session = session
        self._clock = clock
        self._look = vitals
        self._vitals = Vitals()
        self._act = act
        self._renewed = renewed

    async def present(self, asker: Asker) -> None:
        """
        Become a member, or a member again. Look at the session's standing afterwards.

        A process that was a member beats first: the answer tells whether its name was taken meanwhile. Joining at once would take it back
        from the process that has it now.

        Raises:
            Unavailable: The connection failed.
            Rejected: The orchestrator does not want this worker.
        """
        session = self._session
        if session.standing is not Standing.STRANGER:
            await self.beat(asker)
        drains = session.draining and session.standing is Standing.MEMBER
        if session.standing is Standing.STRANGER or drains:
            await self._join(asker, JOIN_S)

    async def _join(self, asker: Asker, patience_s: float) -> None:
        sent_s = self._clock()
        try:
            reply = await _ask(asker, self._session.joining(), patience_s)
        except Conflict as error:
            self._session.standing = Standing.REPLACED
            self.replaced = WorkerReplaced(error.message, where=error.where, remedy=error.remedy)
            return
        self._act(self._session.joined(reply, sent_s, self._clock()))
        self._renewed()

    async def beat(self, asker: Asker) -> None:
        """Say that the worker is alive and what it holds, and do what the answer asks for. Raises as `present`."""
        session, vitals = self._session, self._vitals
        message = session.beating(
            load=vitals.load,
            memory_free_bytes=vitals.memory_free_bytes,
            disk_free_bytes=vitals.disk_free_bytes,
        )
        sent_s = self._clock()
        # Half a beat: after a silent connection, what is left before the fence is enough for another one.
        patience_s = max(BEAT_PATIENCE_S_MIN, session.heartbeat_ms / 2_000)
        reply = await _ask(asker, message, patience_s)
        self._act(session.beaten(reply, sent_s, self._clock()))
        if session.standing is Standing.MEMBER:
            self._renewed()
        elif session.standing is Standing.REPLACED:
            name = session.introduction.name
            self.replaced = WorkerReplaced(
                f"another process joined under the name {name!r}",
                where="name",
                remedy="give each worker a name of its own",
            )

    async def beats(self, asker: Asker) -> None:
        """Beat until this process is replaced. Raises as `present`, and when it is unknown and has to join again."""
        session = self._session
        while session.standing is not Standing.REPLACED:
            await anyio.sleep(session.heartbeat_ms / 1_000)
            if session.must_join:
                await self._join(asker, JOIN_S)
                continue
            await self.beat(asker)
            if session.standing is Standing.STRANGER:
                raise PeerClosed("the orchestrator does not know this worker; it joins again")

    async def look(self) -> None:
        """Look at the machine now and then, from a thread: a disk that hangs must not hold up a heartbeat. Runs for ever."""
        if self._look is None:
            return
        while True:
            # Half a beat ahead, so that a beat carries something fresh.
            await anyio.sleep(self._session.heartbeat_ms / 2_000)
            self._vitals = await anyio.to_thread.run_sync(self._look, abandon_on_cancel=True)
            await anyio.sleep(self._session.heartbeat_ms / 2_000)

    async def offer_nothing(self, asker: Asker) -> None:
        """Keep what is held and be given nothing new. Without an answer, orders that still come are handed back."""
        try:
            await self._join(asker, GOODBYE_S)
        except (Unavailable, Rejected) as error:
            log.warning("orders may still come while this worker drains: %s", error)

    async def leave(self, asker: Asker) -> None:
        """Say goodbye, so that nobody waits for the end of the lease."""
        try:
            await _ask(asker, self._session.leaving(), GOODBYE_S)
        except (Unavailable, Rejected) as error:
            log.warning("left without a goodbye: %s", error)


async def _ask(asker: Asker, command: Command[R], patience_s: float) -> R:
    with anyio.move_on_after(patience_s):
        return await asker.ask(command)
    raise PeerClosed(f"no answer within {patience_s:g} s")
