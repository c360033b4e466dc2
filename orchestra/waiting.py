"""One task waiting for one thing, as cheaply as the event loop allows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import anyio


class Waiter(Protocol):
    """Waited for by one task, rung once; ringing again does nothing."""

    def ring(self) -> None: ...

    async def wait(self, seconds: float | None = None) -> None:
        """Return when it has rung, or after so many seconds."""
        ...


class _FutureWaiter:
    """On asyncio: a bare future, a quarter of the cost of an event."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def ring(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, seconds: float | None = None) -> None:
        if seconds is None:
            await self._future
            return
        alarm = self._future.get_loop().call_later(seconds, self.ring)
        try:
            await self._future
        finally:
            alarm.cancel()


class EventWaiter:
    """On any event loop that anyio knows."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, seconds: float | None = None) -> None:
        with anyio.move_on_after(seconds):
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


class Bell:
    """Wakes one task, again and again. A ring while nobody waits is kept for the next; several rings are one."""

    __slots__ = ("_kind", "_rung", "_waiter")

    def __init__(self) -> None:
        self._rung = False
        self._waiter: Waiter | None = None
        self._kind: Callable[[], Waiter] | None = None
        """Made when it is first waited for: a bell may be older than its event loop."""

    def ring(self) -> None:
        """Wake the waiter, now or when it comes."""
        self._rung = True
        if self._waiter is not None:
            self._waiter.ring()

    def hush(self) -> None:
        """Forget a ring: what it was rung for is being seen to."""
        self._rung = False

    async def wait(self, seconds: float | None = None) -> bool:
        """Return when it has rung since the last return, or after so many seconds. Whether it has rung."""
        if not self._rung:
            if self._kind is None:
                self._kind = waiter_kind()
            self._waiter = self._kind()
            try:
                await self._waiter.wait(seconds)
            finally:
                self._waiter = None
        rung, self._rung = self._rung, False
        return rung
