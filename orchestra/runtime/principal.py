"""The orchestrator as somebody asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import attrs

from orchestra.ports import Asker, Log, LogChunk, LogRead, Moved, Push, Story, Watch
from orchestra.statemachine.commands import Command
from orchestra.statemachine.queries import Query

R = TypeVar("R")


class Named(Asker, Protocol):
    """An `Asker` that is told in whose name it is asked, as `Orchestrator` is."""

    async def ask(self, command: Command[R], *, key: str = "", principal: str = "local") -> R: ...

    async def append_log(
        self, worker_id: str, incarnation: int, chunks: Sequence[LogChunk], *, principal: str = ""
    ) -> None: ...


@attrs.frozen
class Principal:
    """An `Asker` whose commands carry a name, for audit and for idempotency keys of its own."""

    orchestrator: Named
    name: str

    def for_principal(self, principal: str) -> Principal:
        """The same orchestrator, asked by somebody else."""
        return Principal(self.orchestrator, principal)

    async def ask(self, command: Command[R], *, key: str = "") -> R:
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
        await self.orchestrator.append_log(worker_id, incarnation, chunks, principal=self.name)

    async def backup(self, target: str) -> None:
        await self.orchestrator.backup(target)

    def watch(self, watch: Watch) -> AbstractAsyncContextManager[AsyncIterator[Push]]:
        return self.orchestrator.watch(watch)
