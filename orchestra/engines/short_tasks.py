"""Many short coroutines, each in a task and a context of its own, for a fraction of what a task group asks for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import anyio
import anyio.abc

Work = Callable[[], Coroutine[Any, Any, None]]


class Spawner(Protocol):
    """Starts coroutines that catch what they expect; anything else that they raise ends the task group it was made for."""

    def start(self, work: Work) -> None: ...

    async def finished(self) -> None:
        """Wait until all that was started has ended."""
        ...


class _PlainTasks:
    """
    On asyncio: plain tasks. A task group's cost five times as much, more than all else that an attempt of a small function needs.

    They are in nobody's cancel scope: the scopes that they open themselves are all that ends them.
    """

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        """The loop itself keeps weak references only. By number: to ask for the running task is a system call on some versions."""
        self._number = 0

    def start(self, work: Work) -> None:
        self._number = number = self._number + 1
        self._tasks[number] = self._loop.create_task(self._whole(work, number))

    async def _whole(self, work: Work, number: int) -> None:
        # Not a callback at its end: that is one more turn of the event loop for each task.
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except BaseException as problem:  # noqa: BLE001 - raised where the group was entered
            self._group.start_soon(_raise, problem)
        finally:
            del self._tasks[number]

    async def finished(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks.values())


class _GroupTasks:
    """On any event loop that anyio knows. The group itself waits for them."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group

    def start(self, work: Work) -> None:
        self._group.start_soon(work)

    async def finished(self) -> None:
        """The task group waits for them at its end."""


async def _raise(problem: BaseException) -> None:
    raise problem


def spawner(group: anyio.abc.TaskGroup) -> Spawner:
    """The cheapest spawner of the event loop that is running."""
    try:
        return _PlainTasks(group)
    except RuntimeError:  # no asyncio loop
        return _GroupTasks(group)
