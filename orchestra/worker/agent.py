"""
The worker agent: it joins an orchestrator, starts and stops what it is told to, and reports. Decisions are in `session`.

It knows an orchestrator as an `Asker`, over whatever transport, and places that run work as `Engine` values.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import anyio
import anyio.to_thread
import attrs
from anyio.abc import TaskGroup, TaskStatus

from orchestra.errors import (
    Forbidden,
    LimitReached,
    Malformed,
    OrchestraError,
    PeerClosed,
    ProtocolViolation,
    Rejected,
    Unauthenticated,
    Unavailable,
)
from orchestra.ports import Asker, Engine, OrderSeen, Push, WatchOrders
from orchestra.statemachine.commands import JoinWorker
from orchestra.statemachine.records import Amounts, Cause, Rung
from orchestra.waiting import Bell
from orchestra.worker import detect
from orchestra.worker.courier import Courier
from orchestra.worker.holdings import Action
from orchestra.worker.membership import GOODBYE_S, Membership
from orchestra.worker.places import Places
from orchestra.worker.session import Fence, Standing, WorkerSession

log = logging.getLogger("orchestra.worker")

BACKOFF_S = 0.1
BACKOFF_BUSY_S_MAX = 0.5
BACKOFF_IDLE_S_MAX = 1.5
"""
Pauses between tries to reach the server double from the first to one of the others.

Work has to go on within 2 s of the server's return. While attempts run, every tenth of a second is taken from what is left
of their lease, so tries are closer together then.
"""

DRAIN_MS = 15_000
TERM_S = 5.0
KILL_S = 3.0
HAND_IN_S = 3.0
"""A drain gives the work 15 s to finish; with the rungs, the last reports and the goodbye a worker is gone in less than 30 s."""


class Agent:
    """
    One worker.

    Args:
        connect: Opens a connection to the orchestrator; called again after each loss. Raises `Unavailable` when there is none.
        engines: What runs attempts; each app belongs to the first engine that names it. Entered and left by `run`.
        name: The worker's name; another process that joins under it replaces this one.
        slots: How many attempts run at the same time.
        labels: What tasks may ask for.
        capacity: Counted resources, in thousandths; None detects them.
        host: Facts for people; None detects them.
        session: Tells a reconnect from a replacement; drawn at random.
        fence: ``strict`` ends attempts before an unrenewed lease ends; ``patient`` lets them run through any outage (see `session`).
        drain_ms: How long a drain waits for what runs before it stops it.
        clock: Monotonic seconds. Engines' guardians compare with ``time.monotonic``.
        vitals: Tells how busy the machine is, called from a thread at each heartbeat; None tells nothing.
        rng: Draws the jitter of pauses between connections.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Asker]],
        engines: Sequence[Engine],
        *,
        name: str,
        slots: int,
        labels: Iterable[str] = (),
        capacity: Amounts | None = None,
        host: dict[str, str] | None = None,
        session: str = "",
        fence: Fence = "strict",
        drain_ms: int = DRAIN_MS,
        clock: Callable[[], float] = time.monotonic,
        vitals: Callable[[], detect.Vitals] | None = detect.vitals,
        rng: random.Random | None = None,
    ) -> None:
        self._connect = connect
        self._capacity = capacity
        self._host = host
        self._drain_ms = drain_ms
        self._clock = clock
        introduction = JoinWorker(
            name=name,
            session=session or secrets.token_hex(16),
            slots=slots,
            apps=(),
            labels=tuple(labels),
        )
        self._session = WorkerSession(introduction, fence=fence)
        self._courier = Courier(self._session, clock)
        self._places = Places(engines, self._courier, self._connection)
        self._membership = Membership(
            self._session, clock, vitals, act=self._act, renewed=self._renewed
        )
        self._fencing = Bell()
        self._asker: Asker | None = None
        self._presenting = False
        """Whether a connection stands over which this worker introduces itself."""
        self._connected = anyio.Event()
        self._retiring = anyio.Event()
        self._finished = anyio.Event()
        self._failure: OrchestraError | None = None
        # Nothing depends on nobody guessing it.
        self._rng = rng or random.Random()
        self._tries = 0
        self._task_status: TaskStatus[str] | None = None
        """What `run` was given; None before it runs."""
        self._welcomed = False

    @property
    def worker_id(self) -> str:
        """The id that the orchestrator gave; empty before the first join."""
        return self._session.worker_id

    @property
    def holding(self) -> tuple[str, ...]:
        """Attempts that run here, or have ended and are not acknowledged."""
        return self._session.holdings.holding

    async def run(self, *, task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED) -> None:
        """
        Work until `drain` (then it returns), or until cancelled (then attempts are ended, and the lease runs out).

        ``task_status.started(worker_id)`` is called once it has joined and its subscription stands.

        Raises:
            WorkerReplaced: Another process joined under the name.
            Rejected: The orchestrator refuses this worker (a bad token, a bad field).
        """
        self._task_status = task_status
        try:
            async with AsyncExitStack() as stack:
                await self._introduce_self(await self._places.enter(stack))
                async with anyio.create_task_group() as group:
                    group.start_soon(self._places.act, group)
                    group.start_soon(self._guard_lease)
                    group.start_soon(self._courier.linger)
                    group.start_soon(self._retire, group)
                    group.start_soon(self._membership.look)
                    await self._attend()
                    group.cancel_scope.cancel()
        finally:
            self._finished.set()
        if self._failure is not None:
            raise self._failure
        if self._membership.replaced is not None:
            raise self._membership.replaced

    async def drain(self, drain_ms: int | None = None) -> None:
        """
        Take nothing new, give what runs ``drain_ms`` to finish, stop the rest, hand in, say goodbye. Returns when `run` is done.

        What had to be stopped, or came too late, is handed back and runs elsewhere. Takes less than 30 s with the default; 0 stops
        what runs at once.
        """
        if drain_ms is not None:
            self._drain_ms = drain_ms
        self._retiring.set()
        if self._task_status is not None:
            await self._finished.wait()

    async def _introduce_self(self, apps: tuple[str, ...]) -> None:
        capacity, host = self._capacity, self._host
        if capacity is None or host is None:
            machine = await anyio.to_thread.run_sync(detect.machine)
            capacity = machine.capacity() if capacity is None else capacity
            host = machine.host if host is None else host
        self._session.introduction = attrs.evolve(
            self._session.introduction, apps=apps, capacity=capacity, host=host
        )

    # Being connected

    async def _attend(self) -> None:
        """Be connected, again and again, until something final happens."""
        while True:
            problem = await self._connected_once()
            self._asker = None
            if self._connected.is_set():
                self._connected = anyio.Event()
            if isinstance(problem, Malformed | Unauthenticated | Forbidden):
                self._failure = problem
                return
            delay_s = self._pause_s(problem)
            log.warning(
                "no connection to the orchestrator, next try in %.1f s: %s", delay_s, problem
            )
            await anyio.sleep(delay_s)

    def _pause_s(self, problem: OrchestraError) -> float:
        longest = BACKOFF_BUSY_S_MAX if self._session.holdings.running else BACKOFF_IDLE_S_MAX
        delay_s = min(longest, BACKOFF_S * 2.0 ** min(self._tries, 10))
        self._tries += 1
        if isinstance(problem, LimitReached):
            delay_s = max(delay_s, problem.retry_after_ms / 1_000)
        return delay_s * self._rng.uniform(0.5, 1.0)

    async def _connected_once(self) -> OrchestraError:
        try:
            async with self._connect() as asker:
                self._presenting = True
                return await self._serve(asker)
        except Unavailable as error:
            return error
        except BaseExceptionGroup as group:
            # A transport with tasks of its own wraps what ended them.
            if group.split(Unavailable)[1] is not None:
                raise
            return PeerClosed(str(group.exceptions[0]))
        finally:
            self._presenting = False

    async def _serve(self, asker: Asker) -> OrchestraError:
        """Work over one connection until it fails; why it did."""
        try:
            await self._membership.present(asker)
            if self._session.standing is Standing.REPLACED:
                self._asker = asker
                self._retiring.set()
                return await self._work(asker, None)
            watch = WatchOrders(self._session.worker_id, self._session.incarnation)
            async with asker.watch(watch) as pushes:
                # Orders that were pushed before the subscription stood come with the answer.
                await self._membership.beat(asker)
                if self._session.standing is Standing.STRANGER:
                    return PeerClosed("the orchestrator forgot this worker just after it joined")
                self._settled_in(asker)
                return await self._work(asker, pushes)
        except (Unavailable, Rejected, ProtocolViolation) as error:
            return error

    def _settled_in(self, asker: Asker) -> None:
        self._asker, self._presenting = asker, False
        self._connected.set()
        self._tries = 0
        log.info("worker %s is connected", self._session.introduction.name)
        if self._task_status is not None and not self._welcomed:
            self._welcomed = True
            self._task_status.started(self._session.worker_id)

    async def _work(self, asker: Asker, pushes: AsyncIterator[Push] | None) -> OrchestraError:
        """Listen, beat, tell and store; the first that ends, ends all."""
        problems: list[OrchestraError] = []
        async with anyio.create_task_group() as group:

            async def one(loop: Callable[[], Awaitable[None]]) -> None:
                try:
                    await loop()
                    problems.append(PeerClosed("the orchestrator closed the subscription"))
                except (Unavailable, Rejected, ProtocolViolation) as error:
                    problems.append(error)
                group.cancel_scope.cancel()

            if pushes is not None:
                group.start_soon(one, lambda: self._listen(pushes))
                group.start_soon(one, lambda: self._beat(asker))
            group.start_soon(one, lambda: self._courier.tell(asker))
            group.start_soon(one, lambda: self._courier.store(asker))
        return problems[0]

    async def _listen(self, pushes: AsyncIterator[Push]) -> None:
        ordered = self._session.ordered
        async for push in pushes:
            if isinstance(push, OrderSeen):
                action = ordered(push.order, self._clock())
                if action is not None:
                    self._places.do((action,))
                else:
                    self._courier.ring()

    async def _beat(self, asker: Asker) -> None:
        await self._membership.beats(asker)
        self._retiring.set()
        await anyio.sleep_forever()

    def _act(self, actions: Iterable[Action]) -> None:
        self._places.do(actions)
        # A decision may have ended an attempt that was never started.
        self._courier.ring()

    def _renewed(self) -> None:
        self._fencing.ring()
        self._places.extend(self._session.guard_s)

    async def _connection(self) -> Asker:
        while self._asker is None:
            await self._connected.wait()
        return self._asker

    # Watching the time

    async def _guard_lease(self) -> None:
        """Kill what runs before a lease ends that was not renewed."""
        while True:
            fence_s = self._session.fence_s
            delay_s = None if fence_s is None else fence_s - self._clock()
            if delay_s is not None and delay_s <= 0:
                actions = self._session.fenced(self._clock())
                if actions:
                    log.error("the lease could not be renewed: %d attempts are ended", len(actions))
                    self._act(actions)
                delay_s = None
            await self._fencing.wait(delay_s)

    # Leaving

    async def _retire(self, group: TaskGroup) -> None:
        await self._retiring.wait()
        session = self._session
        session.draining = True
        if session.standing is not Standing.REPLACED:
            await self._offer_nothing()
            await self._until(lambda: not session.holdings.running, self._drain_ms / 1_000)
            reason = "its worker is shutting down"
            self._act(session.holdings.stopped_all(Rung.TERM, Cause.CANCELLED, reason))
            await self._until(lambda: not session.holdings.running, TERM_S)
        else:
            reason = "another process took its worker's name"
        self._act(session.holdings.stopped_all(Rung.KILL, Cause.CANCELLED, reason))
        await self._until(lambda: not session.holdings.running, KILL_S)
        await self._until(lambda: session.holdings.is_handed_in, HAND_IN_S)
        await self._say_goodbye()
        group.cancel_scope.cancel()

    async def _offer_nothing(self) -> None:
        """Be given no more work, also when none is here: what is on its way would be lost by a goodbye, and is handed back so."""
        with anyio.move_on_after(GOODBYE_S):
            await self._introduced()
            if self._asker is not None:
                await self._membership.offer_nothing(self._asker)

    async def _introduced(self) -> None:
        """The orchestrator may have taken it in without its knowing yet, and would give it work until the lease runs out."""
        if self._presenting:
            await self._connected.wait()

    async def _until(self, met: Callable[[], bool], seconds: float) -> None:
        with anyio.move_on_after(seconds):
            while not met():
                await self._courier.settled.wait()

    async def _say_goodbye(self) -> None:
        if self._session.holdings.running:
            # Saying that nothing is alive would be wrong; the lease runs out instead.
            log.error("%d attempts could not be ended in time", self._session.holdings.running)
            return
        with anyio.move_on_after(GOODBYE_S):
            await self._introduced()
        if self._asker is not None:
            await self._membership.leave(self._asker)
