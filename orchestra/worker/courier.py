"""
Brings what engines tell to the orchestrator: the sink of every attempt, and the loops that send.

There are no timers between an end and its report: whatever has accumulated goes out in one message while the next accumulates,
so an idle worker reports at once and a busy one reports hundreds at a time. The order is output first, then the end that
belongs to it, so that whoever sees an end finds all its output stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio

from orchestra.errors import Conflict, Forbidden, LimitReached, NotFound, Rejected, Unauthenticated
from orchestra.ports import Asker, Ended
from orchestra.waiting import Bell
from orchestra.worker.output import OutputSpool
from orchestra.worker.session import WorkerSession

SOFT_EVERY_S = 0.1
"""Progress that waits for its turn holds up a newer running report no longer than this."""


class Courier:
    """
    The `AttemptSink` of a worker's engines, and the two senders.

    `tell` and `store` run while there is a connection; what could not be sent waits for the next one.
    """

    def __init__(self, session: WorkerSession, clock: Callable[[], float]) -> None:
        self.settled = Bell()
        """Rings when an attempt has ended or an end was acknowledged."""
        self._session = session
        self._holdings = session.holdings
        self._clock = clock
        self._spool = OutputSpool()
        self._reports = Bell()
        self._output = Bell()
        self._soft = Bell()
        self._room: anyio.Event | None = None

    # What engines call

    async def running(self, attempt_id: str) -> None:
        """The work itself has begun."""
        self._holdings.began(attempt_id, self._clock())
        self._soft.ring()

    async def progress(self, attempt_id: str, fraction: float, message: str) -> None:
        """How far it is: 0 to 1."""
        self._holdings.progressed(attempt_id, fraction, message, self._clock())
        self._soft.ring()

    async def output(self, attempt_id: str, stream: str, data: bytes) -> None:
        """More output, in order. Waits while too much is unsent."""
        while data and self._holdings.takes_output(attempt_id):
            if not self._spool.is_full(attempt_id):
                self._spool.add(attempt_id, stream, data)
                self._output.ring()
                return
            if self._room is None:
                self._room = anyio.Event()
            await self._room.wait()

    async def ended(self, attempt_id: str, ended: Ended) -> None:
        """It is over. The first end of an attempt counts."""
        stored = self._spool.close(attempt_id)
        self._holdings.ended(attempt_id, ended, stored=stored)
        if stored:
            self._reports.ring()
        else:
            self._output.ring()
        self.settled.ring()

    # What the agent calls

    def discard(self, attempt_id: str) -> None:
        """Nobody takes an attempt's output any more; its end may be told."""
        self._holdings.muted(attempt_id)
        if self._spool.discard(attempt_id):
            self._holdings.output_stored(attempt_id)
            self._reports.ring()
        self._make_room()

    def ring(self) -> None:
        """The session has something to tell of its own."""
        self._reports.ring()
        self.settled.ring()

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    async def linger(self) -> None:
        """Wake `tell` when running and progress reports are due. Runs for ever."""
        while True:
            await self._soft.wait()
            due_s = self._holdings.soft_due_s
            if due_s is not None:
                await anyio.sleep(max(0.0, min(due_s - self._clock(), SOFT_EVERY_S)))
                self._reports.ring()

    async def tell(self, asker: Asker) -> None:
        """
        Send reports until the connection fails.

        Raises:
            Unavailable: The connection failed.
            Rejected: This worker is unknown or not allowed.
        """
        holdings = self._holdings
        while True:
            reports = holdings.reporting(self._clock())
            if not reports:
                if holdings.soft_due_s is not None:
                    self._soft.ring()
                await self._reports.wait()
                continue
            answered = False
            try:
                await asker.ask(self._session.telling(reports))
                answered = True
                holdings.reported(reports)
                self.settled.ring()
            except (Unauthenticated, Forbidden, NotFound, Conflict):
                raise
            except LimitReached as error:
                await anyio.sleep(error.retry_after_ms / 1_000)
            except Rejected as error:
                answered = True
                holdings.refused(reports, str(error))
            finally:
                if not answered:
                    holdings.unreported(reports)

    async def store(self, asker: Asker) -> None:
        """
        Send output until the connection fails. Raises as `tell`.

        A refusal means one attempt's output: the batch is sent again by attempt, and the one that is refused alone is not
        wanted, for the attempt is not this worker's any more.
        """
        suspects: deque[str] = deque()
        while True:
            chunks = self._spool.batch(suspects.popleft() if suspects else "")
            if not chunks:
                if not suspects:
                    await self._output.wait()
                continue
            attempts = dict.fromkeys(chunk.attempt_id for chunk in chunks)
            stored = False
            try:
                await asker.append_log(self._session.worker_id, self._session.incarnation, chunks)
                stored = True
            except (Unauthenticated, Forbidden):
                raise
            except LimitReached as error:
                await anyio.sleep(error.retry_after_ms / 1_000)
            except Rejected:
                if len(attempts) == 1:
                    self.discard(chunks[0].attempt_id)
                else:
                    suspects.extend(attempts)
            finally:
                if not stored:
                    self._spool.unstored(chunks)
            if stored:
                self._stored(self._spool.stored(chunks))

    def _stored(self, complete: tuple[str, ...]) -> None:
        for attempt_id in complete:
            self._holdings.output_stored(attempt_id)
        if complete:
            self._reports.ring()
        self._make_room()
