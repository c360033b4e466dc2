"""
The engine for Python functions: coroutines in the event loop, plain functions in threads, either in processes that can be killed.

What a stop can do depends on the mode:

======= ======================================= ================================== ===================================
rung    ``async``                               ``thread``                         ``process``
======= ======================================= ================================== ===================================
asked   `Context.stopping`; ``track``, ``sleep`` the same, and ``wait``             the same, and ``wait``
        raise `Stopped`
term    the coroutine is cancelled              nothing more can be done           TERM to the process and its children
kill    the same again                          nothing more can be done           KILL until none is left
======= ======================================= ================================== ===================================

Nothing ends a thread from outside. One that does not listen to its context stays unconfirmed, after a stop and after its time limit
alike, until its function returns: its end is told then, and no earlier. Choose ``process`` for functions that have to be killable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import anyio
import anyio.abc
import anyio.to_thread
import attrs

from orchestra.engines.arguments import arguments, encoded, failure, read_item
from orchestra.engines.context import LoopContext, Stopped, ThreadContext
from orchestra.engines.pool import Call, Pool
from orchestra.engines.registered import Registered, register
from orchestra.engines.roster import Roster
from orchestra.engines.short_tasks import Spawner, spawner
from orchestra.errors import Malformed, ensure
from orchestra.ports import AttemptSink, Ended
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import Order

__all__ = ["CallablesEngine", "Registered", "register"]

FLUSH_S = 0.1
"""How often progress and log lines are taken over from running functions."""

LEAVE_S = 5.0
"""Leaving waits so long for threads to return; then they are left behind, and the attempt says so."""

_RUNGS = ("", "asked", "term", "kill")


@attrs.define(slots=True, eq=False)
class _Held:
    """An attempt that runs here. ``rung`` is how far a stop of it has climbed."""

    order: Order
    sink: AttemptSink
    entry: Registered
    rung: str = ""
    timed_out: bool = False
    scope: anyio.CancelScope | None = None
    context: LoopContext | ThreadContext | None = None
    flushing: anyio.Lock | None = None
    call: Call | None = None


class CallablesEngine:
    """
    Runs registered functions. ``apps`` are their names.

    Args:
        registry: The functions; names are unique.
    """

    def __init__(self, registry: Iterable[Registered]) -> None:
        self._registry = {entry.name: entry for entry in registry}
        self.apps: tuple[str, ...] = tuple(self._registry)
        self._roster: Roster[_Held] = Roster()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._attempts: Spawner | None = None
        self._pool: Pool | None = None
        self._told: dict[str, _Held] = {}
        self._telling: anyio.Event | None = None
        self._cancelled: type[BaseException] = BaseException
        """What a cancellation raises on the event loop that is running; known once the engine is entered."""
        self._threads = anyio.CapacityLimiter(float("inf"))  # slots bound them already
        self._until_s: float | None = None

    async def __aenter__(self) -> CallablesEngine:
        ensure(self._tasks is None, "an engine is entered once at a time")
        self._tasks = await anyio.create_task_group().__aenter__()
        self._attempts = spawner(self._tasks)
        self._cancelled = anyio.get_cancelled_exc_class()
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks, self._tasks = self._tasks, None  # whatever is started from now on is refused
        if tasks is None:
            return
        with anyio.CancelScope(shield=True):
            for rung in _RUNGS[1:]:
                for attempt_id in self._roster.ids():
                    await self.stop(attempt_id, rung)
            with anyio.move_on_after(LEAVE_S):
                await self._roster.emptied()
            for held in self._roster.live():
                if held.scope is not None:
                    held.scope.cancel()  # a thread that did not return is left behind
            if self._attempts is not None:
                await self._attempts.finished()
            if self._pool is not None:
                await self._pool.aclose()
        tasks.cancel_scope.cancel()  # the teller of progress; attempts are shielded, and waited for
        await tasks.__aexit__(None, None, None)
        self._pool = self._telling = self._attempts = None

    async def start(self, order: Order, sink: AttemptSink) -> None:
        """As `ports.Engine.start`."""
        id = order.attempt_id
        if id in self._roster:
            return
        entry = self._registry.get(order.app)
        if self._tasks is None or self._attempts is None or entry is None:
            message = f"no function is registered as {order.app!r}"
            if self._tasks is None:
                message = "the engine is not open"
            await sink.ended(id, Ended("failed", cause=Cause.UNSTARTABLE, message=message))
            return
        held = _Held(order, sink, entry)
        self._roster.add(id, held)
        self._attempts.start(partial(self._run, held))

    async def stop(self, attempt_id: str, rung: str) -> None:
        """As `ports.Engine.stop`."""
        held = self._roster.find(attempt_id)
        if held is None or _RUNGS.index(rung) <= _RUNGS.index(held.rung):
            return
        held.rung = rung
        if held.context is not None:
            held.context.ask_to_stop()
        if held.call is not None:
            held.call.climb(rung)
        elif rung != "asked" and held.scope is not None and held.entry.mode == "async":
            held.scope.cancel()

    async def query(self) -> tuple[str, ...]:
        """As `ports.Engine.query`."""
        return self._roster.ids()

    def extend(self, until_s: float) -> None:
        """As `ports.Engine.extend`: processes end when the lease passes. Coroutines and threads freeze with the worker itself."""
        self._until_s = until_s
        if self._pool is not None:
            self._pool.extend(until_s)

    # ---------------------------------------------------------------------------------------------------- one attempt

    async def _run(self, held: _Held, scope: anyio.CancelScope) -> None:
        entry = held.entry
        if held.rung:
            ended = Ended("stopped", cause=Cause.CANCELLED, message="stopped before it began")
        elif entry.mode == "process":
            ended = await self._run_process(held)
        else:
            ended = await self._run_here(held, scope)
        if held.context is None and not scope.cancel_called:
            await self._end(held, ended)
            return
        with anyio.CancelScope(shield=True):
            await self._end(held, ended)

    async def _end(self, held: _Held, ended: Ended) -> None:
        """Tell what is left to tell, and the end whatever becomes of that."""
        id, context = held.order.attempt_id, held.context
        try:
            if context is not None:
                self._told.pop(id, None)
                await self._flush(held)
                if context.has_folder:
                    await anyio.to_thread.run_sync(context.remove_folder)
        finally:
            self._roster.end(id)
            await held.sink.ended(id, ended)

    async def _run_here(self, held: _Held, scope: anyio.CancelScope) -> Ended:
        order, entry = held.order, held.entry
        try:
            args, kwargs = arguments(entry.plan, order.template, order.item, entry.param)
            item = read_item(order.item) if entry.wants_context else None
        except Malformed as problem:
            return Ended("failed", cause=Cause.ERROR, message=str(problem))
        if entry.wants_context:
            held.context = self._context(held, item)
            entry.plan.placed(args, kwargs, held.context)
        held.scope = scope
        finished, stopped, value = False, False, None
        raised_here: BaseException | None = None
        try:
            await held.sink.running(order.attempt_id)
            if entry.mode == "thread":
                value = await self._in_thread(held, args, kwargs)
            else:
                if order.run_ms_max is not None:
                    scope.deadline = anyio.current_time() + order.run_ms_max / 1000
                value = await entry.fn(*args, **kwargs)
            finished = True
        except Stopped:
            stopped = True
        except (Exception, SystemExit) as raised:  # noqa: BLE001 - whatever it is, it is the function's own
            raised_here = raised
        except self._cancelled as raised:
            # Ours, or of something that the function itself cancelled and then waited for.
            raised_here = None if scope.cancel_called else raised
        except BaseExceptionGroup as raised:
            # A `Stopped` that passed through a task group of the function's; anything else of that kind is not ours.
            rest: BaseException | None = raised.split(Stopped)[1]
            if rest is not None and not isinstance(rest, Exception):
                raise
            stopped, raised_here = rest is None, rest
        finally:
            held.scope = None
            if order.run_ms_max is not None:
                scope.deadline = math.inf
        held.timed_out |= scope.cancel_called and not held.rung and entry.mode == "async"
        if finished and not held.rung and not held.timed_out:
            return _completed(value)
        return _not_completed(held, raised_here, stopped=stopped, finished=finished)

    async def _in_thread(
        self, held: _Held, args: list[object], kwargs: dict[str, object]
    ) -> object:
        def call() -> object:
            return held.entry.fn(*args, **kwargs)

        limit_ms = held.order.run_ms_max
        if limit_ms is None:
            return await anyio.to_thread.run_sync(
                call, abandon_on_cancel=True, limiter=self._threads
            )
        # No task group: it would wrap what the function raises.
        timer = anyio.CancelScope()
        ensure(self._tasks is not None, "an attempt runs inside an entered engine")
        if self._tasks is not None:
            self._tasks.start_soon(_limit_time, held, timer, limit_ms / 1000)
        try:
            return await anyio.to_thread.run_sync(
                call, abandon_on_cancel=True, limiter=self._threads
            )
        finally:
            timer.cancel()

    async def _run_process(self, held: _Held) -> Ended:
        if self._pool is None and self._tasks is not None:
            self._pool = Pool(self._tasks)
            if self._until_s is not None:
                self._pool.extend(self._until_s)
        if self._pool is None:
            return Ended("failed", cause=Cause.UNSTARTABLE, message="the engine is not open")
        held.call = Call(held.order, held.entry, held.sink)
        return await self._pool.run(held.call)

    # ------------------------------------------------------------------------------------------- progress and logs

    def _context(self, held: _Held, item: object) -> LoopContext | ThreadContext:
        order = held.order
        kind = LoopContext if held.entry.mode == "async" else ThreadContext
        self._told[order.attempt_id] = held
        if self._telling is None and self._tasks is not None:
            self._telling = anyio.Event()
            self._tasks.start_soon(self._tell)
        elif self._telling is not None:
            self._telling.set()
        return kind(order.task_id, order.number, item)

    async def _tell(self) -> None:
        """Take over what functions told, as long as one with a context runs."""
        while True:
            if not self._told:
                self._telling = anyio.Event()
                await self._telling.wait()
            await anyio.sleep(FLUSH_S)
            for held in list(self._told.values()):
                await self._flush(held)

    async def _flush(self, held: _Held) -> None:
        context = held.context
        if context is None or (context.told is None and not context.unsent_bytes):
            return
        if held.flushing is None:
            held.flushing = anyio.Lock()
        async with held.flushing:
            told, context.told = context.told, None
            if told is not None:
                await held.sink.progress(held.order.attempt_id, *told)
            while data := context.take():
                await held.sink.output(held.order.attempt_id, "stdout", data)


async def _limit_time(held: _Held, timer: anyio.CancelScope, limit_s: float) -> None:
    with timer:
        await anyio.sleep(limit_s)
        held.timed_out = not held.rung
        if held.context is not None:
            held.context.ask_to_stop()


def _completed(value: object) -> Ended:
    try:
        return Ended("completed", result=encoded(value))
    except Malformed as problem:
        return Ended("failed", cause=Cause.ERROR, message=str(problem))


def _not_completed(
    held: _Held, problem: BaseException | None, *, stopped: bool, finished: bool
) -> Ended:
    """The end of a function that was stopped, ran too long, or raised."""
    if held.timed_out:
        limit_s = (held.order.run_ms_max or 0) / 1000
        message = f"ran longer than its limit of {limit_s:g} s"
        return Ended("failed", cause=Cause.TIMEOUT, message=message)
    if held.entry.mode == "thread" and not (finished or stopped or problem is not None):
        message = "its thread did not return when the worker left; nothing can end a thread"
        return Ended("failed", cause=Cause.LOST, message=message)
    if held.rung:
        return Ended("stopped", cause=Cause.CANCELLED, message=failure(problem) if problem else "")
    if problem is not None:
        return Ended("failed", cause=Cause.ERROR, message=failure(problem))
    return Ended(
        "failed", cause=Cause.ERROR, message="it raised Stopped, and nobody had asked for it"
    )
