"""The orchestrator as somebody asks it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeVar

import attrs

from orchestra.dialects.asks import AppendLog
from orchestra.errors import Rejected
from orchestra.ports import ActingRule, Asker, Log, LogChunk, LogRead, Moved, Push, Story, Watch
from orchestra.runtime.acting import WORKER_OF
from orchestra.statemachine.commands import Command
from orchestra.statemachine.queries import Query

R = TypeVar("R")


class Named(Asker, Protocol):
    """An `Asker` that is told in whose name it is asked, as `Orchestrator` is."""

    async def ask(self, command: Command[R], *, key: str = "", principal: str = "local") -> R: ...

    async def append_log(
        self, worker_id: str, incarnation: int, chunks: Sequence[LogChunk], *, principal: str = ""
    ) -> None: ...

    def acted_as(self, asked: object) -> tuple[str, str]:
        """As `acting.acted_as`, by what is in memory now."""
        ...


@attrs.frozen
class Principal:
    """
    An `Asker` whose commands carry a name, for audit and for idempotency keys of its own.

    Args:
        acting: Says which workers it may act as; None for any. It is asked each time: what it knows may change.
    """

    orchestrator: Named
    name: str
    acting: ActingRule | None = None

    def for_principal(self, principal: str, acting: ActingRule | None = None) -> Principal:
        """The same orchestrator, asked by somebody else, who may not act as a worker that this one may not act as."""
        return Principal(self.orchestrator, principal, acting or self.acting)

    async def ask(self, command: Command[R], *, key: str = "") -> R:
        self._check(command)
        return await self.orchestrator.ask(command, key=key, principal=self.name)

    async def answer(self, query: Query[R]) -> R:
        return await self.orchestrator.answer(query)

    async def story(self, query: Story) -> tuple[Moved, ...]:
        return await self.orchestrator.story(query)

    async def log(self, query: Log) -> LogRead:
        return await self.orchestrator.log(query)

    async def append_log(
        self, worker_id: str, incarnation: int, chunks: Sequence[LogChunk]
    ) -> None:
        if self.acting is not None:
            self._check(AppendLog(worker_id, incarnation, tuple(chunks)))
        await self.orchestrator.append_log(worker_id, incarnation, chunks, principal=self.name)

    async def backup(self, target: str) -> None:
        await self.orchestrator.backup(target)

    def watch(self, watch: Watch) -> AbstractAsyncContextManager[AsyncIterator[Push]]:
        pushing = self.orchestrator.watch(watch)
        if self.acting is None or type(watch) not in WORKER_OF:
            return pushing
        return self._watch(watch, pushing)

    @asynccontextmanager
    async def _watch(
        self, watch: Watch, pushing: AbstractAsyncContextManager[AsyncIterator[Push]]
    ) -> AsyncGenerator[AsyncIterator[Push]]:
        self._check(watch)
        async with pushing as pushes:
            yield _Allowed(pushes, self, watch)

    def may(self, asked: object) -> bool:
        """Whether it may act as the worker that this is asked as."""
        try:
            self._check(asked)
        except Rejected:
            return False
        return True

    def _check(self, asked: object) -> None:
        """Raises `Forbidden` when this is asked as a worker that is somebody else's."""
        if self.acting is not None:
            name, where = self.orchestrator.acted_as(asked)
            if name:
                self.acting.check_worker(name, where)


@attrs.frozen
class _Allowed:
    """Pushes as long as they are for who watches: orders carry arguments and environments, and a stream may outlive a token."""

    pushes: AsyncIterator[Push]
    principal: Principal
    watch: Watch

    def __aiter__(self) -> AsyncIterator[Push]:
        return self

    async def __anext__(self) -> Push:
        push = await anext(self.pushes)
        if not self.principal.may(self.watch):
            raise StopAsyncIteration
        return push
