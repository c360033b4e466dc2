"""One task waiting for one thing, as cheaply as the event loop allows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import anyio


class Waiter(Protocol):
    """Waited for by one task, rung once; ringing again does nothing."""

    def ring(self) -> None: ...

    async def wait(self) -> None: ...


class _FutureWaiter:
    """On asyncio: a bare future, a quarter of the cost of an event."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def ring(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        await self._future


class EventWaiter:
    """On any event loop that anyio knows."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


def waiter_kind() -> Callable[[], Waiter]:
    """What makes waiters for the event loop that is running."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return EventWaiter
    # Asked for once: each look for the running loop is a system call on some versions of Python.
    future: Callable[[], asyncio.Future[None]] = loop.create_future
    return lambda: _FutureWaiter(future())
