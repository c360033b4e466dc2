"""
Many short coroutines in few tasks, each with a context of its own, for a fraction of what a task group asks for each.

A coroutine that never waits needs no task for itself: it is over before anything else could run. So on asyncio one task runs what has been
started, one after the other, until one waits. That one keeps the task until it has ended, and the next gets a new one: nothing waits for
another's end, and no task that has waited is used again, so whatever a coroutine leaves behind with a timer can only meet itself.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol

import anyio
import anyio.abc

Work = Callable[[anyio.CancelScope], Coroutine[Any, Any, None]]
"""
Gets the shielded scope that is around it. While it runs, anybody may cancel that scope or set its deadline; what is left of it
afterwards has to be shielded by a scope of its own.
"""

TURN_S = 0.01
"""So long short coroutines run one after the other; then whatever else is ready has its turn. A heartbeat may be that much late."""


class Spawner(Protocol):
    """Starts coroutines that catch what they expect; anything else that they raise ends the task group it was made for."""

    def start(self, work: Work) -> None: ...

    async def finished(self) -> None:
        """Wait until all that was started has ended."""
        ...


class _FewTasks:
    """
    On asyncio. A task and a scope for each cost more than all else that an attempt of a small function needs.

    The tasks are in nobody's cancel scope: the scopes that they open themselves are all that ends them.
    """

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self._loop = asyncio.get_running_loop()
        # anyio looks for the running event loop at each scope that it makes; its kind of scope stays the same.
        self._scope = type(anyio.CancelScope())
        self._waiting: deque[tuple[Work, contextvars.Context]] = deque()
        self._is_taken = False
        """Whether a task is about to run what waits, or is doing so and has not come to one that waits itself."""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        """The loop itself keeps weak references only. By number: to ask for the running task is a system call on some versions."""
        self._number = 0

    def start(self, work: Work) -> None:
        self._waiting.append((work, contextvars.copy_context()))
        if not self._is_taken:
            self._take()

    def _take(self) -> None:
        """Have what waits run by a new task."""
        self._is_taken = True
        self._number = number = self._number + 1
        self._tasks[number] = self._loop.create_task(self._run(number))

    def _go_on(self) -> None:
        """The task that ran what waits does so no longer."""
        self._is_taken = False
        if self._waiting:
            self._take()

    async def _run(self, number: int) -> None:
        # Not a callback at its end: that is one more turn of the event loop for each task.
        try:
            await self._run_those_that_do_not_wait(self._tasks[number])
        except asyncio.CancelledError:
            raise
        except BaseException as problem:  # noqa: BLE001 - raised where the group was entered
            self._group.start_soon(_raise, problem)
        finally:
            del self._tasks[number]

    async def _run_those_that_do_not_wait(self, task: asyncio.Task[None]) -> None:
        """Run what waits, up to and with the first that waits itself, has the task or the scope cancelled, or uses up the turn."""
        over_s = self._loop.time() + TURN_S
        steps = None
        try:
            with self._scope(shield=True) as scope:
                while self._waiting:
                    work, context = self._waiting.popleft()
                    steps = _Steps(work(scope), context, self._go_on)
                    await steps
                    spent = scope.cancel_called or task.cancelling()
                    if steps.waited or spent or self._loop.time() > over_s:
                        return
        finally:
            if steps is None or not steps.waited:
                self._go_on()

    async def finished(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks.values())


class _Steps:
    """
    A coroutine whose every step runs in ``context``, in the task that awaits this. To be awaited once.

    Args:
        waits: Called before it waits for the first time.
    """

    __slots__ = ("_context", "_coroutine", "_waits", "waited")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        context: contextvars.Context,
        waits: Callable[[], None],
    ) -> None:
        self.waited = False
        self._coroutine = coroutine
        self._context = context
        self._waits = waits

    def __await__(self) -> Generator[Any, Any, None]:
        run, coroutine = self._context.run, self._coroutine
        try:
            awaited = run(coroutine.send, None)
        except StopIteration:
            return
        self.waited = True
        self._waits()
        while True:
            try:
                answer = yield awaited
            except BaseException as problem:  # noqa: BLE001 - the coroutine's own, whatever it is
                step, given = coroutine.throw, problem
            else:
                step, given = coroutine.send, answer
            try:
                awaited = run(step, given)
            except StopIteration:
                return


class _GroupTasks:
    """On any event loop that anyio knows. The group itself waits for them."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group

    def start(self, work: Work) -> None:
        self._group.start_soon(_in_scope, work)

    async def finished(self) -> None:
        """The task group waits for them at its end."""


async def _in_scope(work: Work) -> None:
    with anyio.CancelScope(shield=True) as scope:
        await work(scope)


async def _raise(problem: BaseException) -> None:
    raise problem


def spawner(group: anyio.abc.TaskGroup) -> Spawner:
    """The cheapest spawner of the event loop that is running."""
    try:
        return _FewTasks(group)
    except RuntimeError:  # no asyncio loop
        return _GroupTasks(group)
