"""
The worker agent: it joins an orchestrator, starts and stops what it is told to, and reports. Decisions are in `session`.

It knows an orchestrator as an `Asker`, over whatever transport, and places that run work as `Engine` values.
"""

from __future__ import annotations

import logging
import random
import secrets
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

import anyio
import anyio.to_thread
import attrs
from anyio.abc import TaskGroup, TaskStatus

from orchestra.errors import (
    Conflict,
    EngineFailed,
    LimitReached,
    NotFound,
    OrchestraError,
    PeerClosed,
    ProtocolViolation,
    Rejected,
    Unavailable,
)
from orchestra.ports import Asker, Ended, Engine, OrderSeen, Push, WatchOrders
from orchestra.statemachine.commands import Command, JoinWorker
from orchestra.statemachine.records import Amounts, Cause, Rung
from orchestra.statemachine.replies import Order
from orchestra.worker import detect
from orchestra.worker.courier import Bell, Courier
from orchestra.worker.references import Results, has_references
from orchestra.worker.session import (
    Action,
    Fence,
    Standing,
    Start,
    WorkerReplaced,
    WorkerSession,
)

R = TypeVar("R")

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
GOODBYE_S = 2.0
"""A drain gives the work 15 s to finish; with the rungs, the last reports and the goodbye a worker is gone in less than 30 s."""


@attrs.frozen(slots=True)
class _Filled:
    """An order whose references have been replaced: to be started as it is."""

    order: Order


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
    ) -> None:
        self._connect = connect
        self._places = tuple(engines)
        self._capacity = capacity
        self._host = host
        self._drain_ms = drain_ms
        self._clock = clock
        self._vitals_of = vitals
        self._vitals = detect.Vitals()
        self._engines: dict[str, Engine] = {}
        introduction = JoinWorker(
            name=name,
            session=session or secrets.token_hex(16),
            slots=slots,
            apps=(),
            labels=tuple(labels),
        )
        self._session = WorkerSession(introduction, fence=fence)
        self._courier = Courier(self._session, clock)
        self._actions: deque[Action | _Filled] = deque()
        self._acting = Bell()
        self._fencing = Bell()
        self._filling: dict[str, anyio.CancelScope] = {}
        self._results = Results()
        self._asker: Asker | None = None
        self._connected = anyio.Event()
        self._retiring = anyio.Event()
        self._finished = anyio.Event()
        self._failure: OrchestraError | None = None
        # Jitter only: nothing depends on nobody guessing it.
        self._rng = random.Random()
        self._tries = 0
        self._task_status: TaskStatus[str] | None = None

    @property
    def worker_id(self) -> str:
        """The id that the orchestrator gave; empty before the first join."""
        return self._session.worker_id

    @property
    def holding(self) -> tuple[str, ...]:
        """Attempts that run here, or have ended and are not acknowledged."""
        return self._session.holding

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
                for engine in self._places:
                    await stack.enter_async_context(engine)
                await self._introduce_self()
                async with anyio.create_task_group() as group:
                    group.start_soon(self._act, group)
                    group.start_soon(self._guard_lease)
                    group.start_soon(self._courier.linger)
                    group.start_soon(self._retire, group)
                    if self._vitals_of is not None:
                        group.start_soon(self._look, self._vitals_of)
                    await self._attend()
                    group.cancel_scope.cancel()
        finally:
            self._finished.set()
        if self._failure is not None:
            raise self._failure

    async def drain(self) -> None:
        """
        Take nothing new, give what runs ``drain_ms`` to finish, stop the rest, hand in, say goodbye. Returns when `run` is done.

        What had to be stopped, or came too late, is handed back and runs elsewhere. Takes less than 30 s with the default.
        """
        self._retiring.set()
        await self._finished.wait()

    async def _introduce_self(self) -> None:
        for engine in self._places:
            for app in engine.apps:
                self._engines.setdefault(app, engine)
        capacity, host = self._capacity, self._host
        if capacity is None or host is None:
            machine = await anyio.to_thread.run_sync(detect.machine)
            capacity = machine.capacity() if capacity is None else capacity
            host = machine.host if host is None else host
        self._session.introduction = attrs.evolve(
            self._session.introduction, apps=tuple(self._engines), capacity=capacity, host=host
        )

    # Being connected

    async def _attend(self) -> None:
        """Be connected, again and again, until something final happens."""
        while True:
            problem = await self._connected_once()
            self._asker = None
            if self._connected.is_set():
                self._connected = anyio.Event()
            if isinstance(problem, Rejected) and not isinstance(problem, NotFound | LimitReached):
                self._failure = problem
                return
            delay_s = self._pause_s(problem)
            log.warning(
                "no connection to the orchestrator, next try in %.1f s: %s", delay_s, problem
            )
            await anyio.sleep(delay_s)

    def _pause_s(self, problem: OrchestraError) -> float:
        longest = BACKOFF_BUSY_S_MAX if self._session.running else BACKOFF_IDLE_S_MAX
        delay_s = min(longest, BACKOFF_S * 2 ** min(self._tries, 10))
        self._tries += 1
        if isinstance(problem, LimitReached):
            delay_s = max(delay_s, problem.retry_after_ms / 1_000)
        return delay_s * self._rng.uniform(0.5, 1.0)

    async def _connected_once(self) -> OrchestraError:
        try:
            async with self._connect() as asker:
                return await self._serve(asker)
        except Unavailable as error:
            return error
        except BaseExceptionGroup as group:
            # A transport with tasks of its own wraps what ended them.
            if group.split(Unavailable)[1] is not None:
                raise
            return PeerClosed(str(group.exceptions[0]))

    async def _serve(self, asker: Asker) -> OrchestraError:
        """Work over one connection until it fails; why it did."""
        try:
            await self._present(asker)
            if self._session.standing is Standing.REPLACED:
                return await self._work(asker, None)
            watch = WatchOrders(self._session.worker_id, self._session.incarnation)
            async with asker.watch(watch) as pushes:
                # Orders that were pushed before the subscription stood come with the answer.
                await self._beat(asker)
                self._settled_in(asker)
                return await self._work(asker, pushes)
        except (Unavailable, Rejected, ProtocolViolation) as error:
            return error

    def _settled_in(self, asker: Asker) -> None:
        self._asker = asker
        self._connected.set()
        self._tries = 0
        log.info("worker %s is connected", self._session.introduction.name)
        if self._task_status is not None:
            self._task_status.started(self._session.worker_id)
            self._task_status = None

    async def _present(self, asker: Asker) -> None:
        """
        Become a member, or a member again.

        A process that was a member beats first: the answer tells whether its name was taken meanwhile. Joining at once would take it back
        from the process that has it now.
        """
        if self._session.standing is not Standing.STRANGER:
            await self._beat(asker)
        if self._session.standing is Standing.STRANGER:
            await self._join(asker)

    async def _join(self, asker: Asker) -> None:
        sent_s = self._clock()
        try:
            reply = await self._ask(asker, self._session.joining(), 10.0)
        except Conflict as error:
            self._session.standing = Standing.REPLACED
            self._failure = WorkerReplaced(error.message, where="name", remedy=error.remedy)
            self._retiring.set()
            return
        self._do(self._session.joined(reply, sent_s))
        self._renewed()

    async def _beat(self, asker: Asker) -> None:
        vitals = self._vitals
        beat = self._session.beating(
            load=vitals.load,
            memory_free_bytes=vitals.memory_free_bytes,
            disk_free_bytes=vitals.disk_free_bytes,
        )
        sent_s = self._clock()
        # Half a beat: what is left of the lease after a silent connection is enough for another.
        reply = await self._ask(asker, beat, self._session.heartbeat_ms / 2_000)
        self._do(self._session.beaten(reply, sent_s))
        if self._session.standing is Standing.MEMBER:
            self._renewed()
        elif self._session.standing is Standing.REPLACED:
            name = self._session.introduction.name
            self._failure = WorkerReplaced(
                f"another process joined under the name {name!r}",
                where="name",
                remedy="give each worker a name of its own",
            )
            self._retiring.set()

    async def _ask(self, asker: Asker, command: Command[R], patience_s: float) -> R:
        with anyio.move_on_after(patience_s):
            return await asker.ask(command)
        raise PeerClosed(f"no answer within {patience_s:g} s")

    def _renewed(self) -> None:
        self._fencing.ring()
        for engine in self._places:
            engine.extend(self._session.guard_s)

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
                group.start_soon(one, lambda: self._beats(asker))
            group.start_soon(one, lambda: self._courier.tell(asker))
            group.start_soon(one, lambda: self._courier.store(asker))
        return problems[0]

    async def _listen(self, pushes: AsyncIterator[Push]) -> None:
        ordered = self._session.ordered
        async for push in pushes:
            if isinstance(push, OrderSeen):
                action = ordered(push.order, self._clock())
                if action is not None:
                    self._actions.append(action)
                    self._acting.ring()
                else:
                    self._courier.ring()

    async def _beats(self, asker: Asker) -> None:
        while True:
            await anyio.sleep(self._session.heartbeat_ms / 1_000)
            await self._beat(asker)
            if self._session.standing is Standing.STRANGER:
                raise PeerClosed("the orchestrator does not know this worker; it joins again")
            if self._session.standing is Standing.REPLACED:
                await anyio.sleep_forever()

    # Doing

    def _do(self, actions: Iterable[Action]) -> None:
        self._actions.extend(actions)
        self._acting.ring()
        self._courier.ring()

    async def _act(self, group: TaskGroup) -> None:
        """
        Carry actions out, in order and apart from any connection: losing one must not interrupt a start half-way, and a stop
        must not overtake the start that it belongs to.
        """
        while True:
            while self._actions:
                action = self._actions.popleft()
                if isinstance(action, Start):
                    if has_references(action.order.template):
                        scope = self._filling[action.order.attempt_id] = anyio.CancelScope()
                        group.start_soon(self._fill, action.order, scope)
                    else:
                        await self._start(action.order)
                elif isinstance(action, _Filled):
                    await self._start(action.order)
                else:
                    if action.foreign:
                        self._courier.discard(action.attempt_id)
                    if action.attempt_id in self._filling:
                        self._filling[action.attempt_id].cancel()
                    elif action.app in self._engines:
                        await self._engines[action.app].stop(action.attempt_id, action.rung)
            await self._acting.wait()

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

    async def _fill(self, order: Order, scope: anyio.CancelScope) -> None:
        """Replace the references in an order's template, then have it started."""
        template = b""
        problem = ""
        with scope:
            try:
                template = await self._filled(order)
            except Rejected as error:
                problem = f"its input could not be put together: {error}"
        del self._filling[order.attempt_id]
        if scope.cancel_called:
            await self._courier.ended(order.attempt_id, Ended("stopped"))
        elif problem:
            await self._unstartable(order, problem)
        else:
            self._actions.append(_Filled(attrs.evolve(order, template=template)))
            self._acting.ring()

    async def _filled(self, order: Order) -> bytes:
        while True:
            await self._connected.wait()
            asker = self._asker
            try:
                if asker is not None:
                    return await self._results.filled(order, asker)
            except Unavailable as error:
                log.info("reading the input of %s again: %s", order.attempt_id, error)
            await anyio.sleep(BACKOFF_BUSY_S_MAX)

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
                    self._do(actions)
                delay_s = None
            with anyio.move_on_after(delay_s):
                await self._fencing.wait()

    async def _look(self, vitals: Callable[[], detect.Vitals]) -> None:
        """Look at the machine from a thread: a disk that hangs must not hold up a heartbeat."""
        while True:
            # Half a beat ahead, so that a beat carries something fresh.
            await anyio.sleep(self._session.heartbeat_ms / 2_000)
            self._vitals = await anyio.to_thread.run_sync(vitals, abandon_on_cancel=True)
            await anyio.sleep(self._session.heartbeat_ms / 2_000)

    # Leaving

    async def _retire(self, group: TaskGroup) -> None:
        await self._retiring.wait()
        session = self._session
        session.draining = True
        if session.standing is not Standing.REPLACED:
            await self._offer_nothing()
            await self._until(lambda: not session.running, self._drain_ms / 1_000)
            reason = "its worker is shutting down"
            self._do(session.stopped_all(Rung.TERM, Cause.CANCELLED, reason))
            await self._until(lambda: not session.running, TERM_S)
        else:
            reason = "another process took its worker's name"
        self._do(session.stopped_all(Rung.KILL, Cause.CANCELLED, reason))
        await self._until(lambda: not session.running, KILL_S)
        await self._until(lambda: session.is_handed_in, HAND_IN_S)
        await self._say_goodbye()
        group.cancel_scope.cancel()

    async def _until(self, met: Callable[[], bool], seconds: float) -> None:
        with anyio.move_on_after(seconds):
            while not met():
                await self._courier.settled.wait()

    async def _offer_nothing(self) -> None:
        if self._asker is None:
            return
        sent_s = self._clock()
        try:
            reply = await self._ask(self._asker, self._session.joining(), GOODBYE_S)
        except (Unavailable, Rejected) as error:
            log.warning("orders may still come while this worker drains: %s", error)
            return
        self._do(self._session.joined(reply, sent_s))
        self._renewed()

    async def _say_goodbye(self) -> None:
        if self._session.running:
            # Saying that nothing is alive would be wrong; the lease runs out instead.
            log.error("%d attempts could not be ended in time", self._session.running)
            return
        if self._asker is None:
            return
        try:
            await self._ask(self._asker, self._session.leaving(), GOODBYE_S)
        except (Unavailable, Rejected) as error:
            log.warning("left without a goodbye: %s", error)


async def run_until_signalled(agent: Agent) -> None:
    """
    Run a worker until SIGTERM or SIGINT, which drain it; a second signal ends it at once. Raises as `Agent.run`.

    Only in the main thread.
    """
    failure: OrchestraError | None = None
    async with anyio.create_task_group() as group:

        async def obey() -> None:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                drains = False
                async for _ in signals:
                    if drains:
                        group.cancel_scope.cancel()
                        return
                    drains = True
                    log.warning("draining; once more ends it at once")
                    group.start_soon(agent.drain)

        group.start_soon(obey)
        try:
            await agent.run()
        except OrchestraError as error:
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
