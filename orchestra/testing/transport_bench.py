"""What the checks of a transport share: a far end that answers as it is told, and how to say that a transport is broken."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import attrs

from orchestra.dialects.asks import AppendLog, Backup
from orchestra.errors import NotFound, OrchestraError
from orchestra.ports import (
    ActingRule,
    Asker,
    Log,
    LogChunk,
    LogRead,
    Moved,
    Push,
    Story,
    Watch,
    WatchOrders,
    WatchStory,
)
from orchestra.statemachine.commands import Command
from orchestra.statemachine.queries import Query

R = TypeVar("R")

PATIENCE_S = 10.0
"""A check that waits for the far end waits no longer than this."""


_SILENT = frozenset({AppendLog, Backup, WatchOrders, WatchStory})
_NOTHING = NotFound("no answer is written for this")


class TransportBroken(AssertionError):
    """A transport does not keep the contract. The message begins with the law that it broke."""


def expect(condition: object, law: str) -> None:
    """Raise `TransportBroken` unless ``condition`` holds."""
    if not condition:
        raise TransportBroken(law)


@attrs.frozen(slots=True)
class Arrived:
    """What came through: in whose name, what, and with which key."""

    principal: str
    asked: object
    key: str = ""


class FarEnd:
    """
    An orchestrator that does nothing but remember what it was asked, and answer as it is told.

    It may be served in one thread and looked at from another: so a client on any event loop can be checked against
    a server on its own.
    """

    def __init__(self) -> None:
        self.arrived: list[Arrived] = []
        self.answers: dict[type[Any], object] = {}
        self.pushes: list[Push] = []
        self.stalled: set[type[Any]] = set()
        self.hold = False
        self.watching = 0
        self._changed = threading.Condition()

    def for_principal(self, principal: str, acting: ActingRule | None = None) -> Asker:
        """As `transports.asking.AskerSource` has it. It has no workers, so nobody can act as one."""
        del acting
        return _Named(self, principal)

    async def take(self, arrived: Arrived) -> Any:
        """Remember, and answer or raise what is written for the class of what was asked."""
        kind = type(arrived.asked)
        with self._changed:
            self.arrived.append(arrived)
            self._changed.notify_all()
        if kind in self.stalled:
            await anyio.sleep_forever()
        answer = self.answers.get(kind, None if kind in _SILENT else _NOTHING)
        if isinstance(answer, OrchestraError):
            raise answer
        return answer(arrived.asked) if callable(answer) else answer

    @asynccontextmanager
    async def watch(self, principal: str, watch: Watch) -> AsyncGenerator[AsyncIterator[Push]]:
        """The written pushes; then the end, or silence with `hold`."""
        await self.take(Arrived(principal, watch))
        pushes = self._pushes()
        self._count(1)
        try:
            yield pushes
        finally:
            self._count(-1)
            await pushes.aclose()

    async def _pushes(self) -> AsyncGenerator[Push]:
        for push in self.pushes:
            yield push
        if self.hold:
            await anyio.sleep_forever()

    def _count(self, step: int) -> None:
        with self._changed:
            self.watching += step
            self._changed.notify_all()

    async def until(self, met: Callable[[FarEnd], bool], law: str) -> None:
        """Wait until something is so here. Raises `TransportBroken` with the law when it does not come to be."""

        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(lambda: met(self), PATIENCE_S)

        expect(await anyio.to_thread.run_sync(wait), law)


@attrs.frozen(slots=True)
class _Named:
    """The far end, asked by somebody."""

    far: FarEnd
    principal: str

    async def ask(self, command: Command[R], *, key: str = "") -> R:
        found: R = await self.far.take(Arrived(self.principal, command, key))
        return found

    async def answer(self, query: Query[R]) -> R:
        found: R = await self.far.take(Arrived(self.principal, query))
        return found

    async def story(self, query: Story) -> tuple[Moved, ...]:
        found: tuple[Moved, ...] = await self.far.take(Arrived(self.principal, query))
        return found

    async def log(self, query: Log) -> LogRead:
        found: LogRead = await self.far.take(Arrived(self.principal, query))
        return found

    async def append_log(
        self, worker_id: str, incarnation: int, chunks: Sequence[LogChunk]
    ) -> None:
        asked = AppendLog(worker_id, incarnation, tuple(chunks))
        await self.far.take(Arrived(self.principal, asked))

    async def backup(self, target: str) -> None:
        await self.far.take(Arrived(self.principal, Backup(target)))

    def watch(self, watch: Watch) -> AbstractAsyncContextManager[AsyncIterator[Push]]:
        return self.far.watch(self.principal, watch)


@attrs.frozen(slots=True)
class Link:
    """
    A far end, seen through the transport that is checked.

    Args:
        asker: What a client uses.
        principal: In whose name it asks.
        cut: Ends the far end's service at once, in the middle of whatever it does.
    """

    asker: Asker
    principal: str
    cut: Callable[[], Awaitable[None]]


Serve = Callable[[FarEnd], AbstractAsyncContextManager[Link]]
"""Serves a far end over the transport that is checked, until the block is left."""

Check = Callable[[Serve], Awaitable[None]]
