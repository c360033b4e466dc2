"""A transport without a wire: an `Asker` that stands in the same process as its orchestrator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from orchestra.errors import PeerClosed
from orchestra.ports import Asker, Log, LogChunk, LogRead, Moved, Push, Story, Watch
from orchestra.statemachine.commands import Command
from orchestra.statemachine.queries import Query
from orchestra.transports.asking import AskerSource

R = TypeVar("R")


class MemoryTransport:
    """
    A connection to an orchestrator in this process, as an asynchronous context manager that gives an `Asker`.

    After it is left, what goes through it raises `PeerClosed`, as with any other connection.

    Args:
        source: The running orchestrator.
        principal: In whose name it is asked.
    """

    def __init__(self, source: AskerSource, *, principal: str = "local") -> None:
        self._asker = source.for_principal(principal)
        self._open = True

    async def __aenter__(self) -> MemoryTransport:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._open = False

    def _there(self) -> Asker:
        if not self._open:
            raise PeerClosed("the connection is closed")
        return self._asker

    async def ask(self, command: Command[R], *, key: str = "") -> R:
        """As `ports.Asker.ask`."""
        return await self._there().ask(command, key=key)

    async def answer(self, query: Query[R]) -> R:
        """As `ports.Asker.answer`."""
        return await self._there().answer(query)

    async def story(self, query: Story) -> tuple[Moved, ...]:
        """As `ports.Asker.story`."""
        return await self._there().story(query)

    async def log(self, query: Log) -> LogRead:
        """As `ports.Asker.log`."""
        return await self._there().log(query)

    async def append_log(
        self, worker_id: str, incarnation: int, chunks: Sequence[LogChunk]
    ) -> None:
        """As `ports.Asker.append_log`."""
        await self._there().append_log(worker_id, incarnation, chunks)

    async def backup(self, target: str) -> None:
        """As `ports.Asker.backup`."""
        await self._there().backup(target)

    def watch(self, watch: Watch) -> AbstractAsyncContextManager[AsyncIterator[Push]]:
        """As `ports.Asker.watch`."""
        return self._there().watch(watch)
