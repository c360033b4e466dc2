"""The people's side of a simulation: a client that asks again when it is not answered, as a careful program does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeVar

import anyio

from orchestra.errors import Unavailable
from orchestra.ports import Asker, Log, LogChunk, LogRead, Moved, Push, Story, Watch
from orchestra.statemachine.commands import Command, RetryTask
from orchestra.statemachine.queries import Query
from orchestra.testing.simulation.truth import Truth

R = TypeVar("R")

AGAIN_S = 0.5


class PatientAsker:
    """
    An `Asker` that repeats what was not answered, for ever. Everything that people ask for may be repeated; submissions need a key.

    Args:
        asker: Over the network.
        truth: Is told what was asked for.
    """

    def __init__(self, asker: Asker, truth: Truth) -> None:
        self._asker = asker
        self._truth = truth

    async def _insist(self, call: Callable[[], Awaitable[R]]) -> R:
        while True:
            try:
                return await call()
            except (Unavailable, OSError):
                if self._truth.first is not None:
                    # Such as a server that crashes at each start: nobody would ever be answered.
                    raise self._truth.first from None
                await anyio.sleep(AGAIN_S)

    async def ask(self, command: Command[R], *, key: str = "") -> R:
        """As `ports.Asker.ask`."""
        self._truth.tell("people", f"ask for {type(command).__name__}")
        self._truth.retried |= type(command) is RetryTask
        reply = await self._insist(lambda: self._asker.ask(command, key=key))
        self._truth.tell("people", f"are answered: {type(command).__name__}")
        return reply

    async def answer(self, query: Query[R]) -> R:
        """As `ports.Asker.answer`."""
        return await self._insist(lambda: self._asker.answer(query))

    async def story(self, query: Story) -> tuple[Moved, ...]:
        """As `ports.Asker.story`."""
        return await self._insist(lambda: self._asker.story(query))

    async def log(self, query: Log) -> LogRead:
        """As `ports.Asker.log`."""
        return await self._insist(lambda: self._asker.log(query))

    async def append_log(
        self, worker_id: str, incarnation: int, chunks: Sequence[LogChunk]
    ) -> None:
        """As `ports.Asker.append_log`."""
        await self._insist(lambda: self._asker.append_log(worker_id, incarnation, chunks))

    async def backup(self, target: str) -> None:
        """As `ports.Asker.backup`."""
        await self._insist(lambda: self._asker.backup(target))

    def watch(self, watch: Watch) -> AbstractAsyncContextManager[AsyncIterator[Push]]:
        """As `ports.Asker.watch`; entering waits until there is a connection, and the subscription ends with it."""
        return self._watched(watch)

    @asynccontextmanager
    async def _watched(self, watch: Watch) -> AsyncGenerator[AsyncIterator[Push]]:
        async with AsyncExitStack() as stack:
            yield await self._insist(lambda: stack.enter_async_context(self._asker.watch(watch)))
