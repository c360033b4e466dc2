"""Exhibits of the museum that lie around the core: in what answers, keeps and sends. The core's schedules do not have these parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from orchestra.errors import StoreFailed, Unavailable
from orchestra.ports import Asker, Batch
from orchestra.runtime.asks import Ask
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.testing.removed_rules import Replacement
from orchestra.worker.agent import Agent
from orchestra.worker.courier import Courier
from orchestra.worker.holdings import Holdings


def told_before_kept() -> Sequence[Replacement]:
    """Whoever asked is answered before the commit, which may never come."""
    original: Any = vars(Orchestrator)["_commit"]

    async def commit(self: Orchestrator, batch: Batch, asks: list[Ask]) -> bool:
        for ask in asks:
            if ask.query is None:
                ask.done.ring()
        kept: bool = await original(self, batch, asks)
        return kept

    return ((Orchestrator, "_commit", commit),)


def swallowed_failure() -> Sequence[Replacement]:
    """A commit that failed is passed over, and what was in it is told all the same."""

    async def commit(self: Any, batch: Batch, _: list[Ask]) -> bool:
        try:
            await self._store.commit(batch)
        except StoreFailed:
            return True
        self._number = batch.number
        self._story_number += len(batch.story)
        return True

    return ((Orchestrator, "_commit", commit),)


def never_back() -> Sequence[Replacement]:
    """A worker that loses its connection does not look for another one; what it runs goes on."""
    original: Any = vars(Agent)["_connected_once"]

    async def connected_once(self: Any) -> Any:
        problem = await original(self)
        if self.worker_id:
            await anyio.sleep_forever()
        return problem

    return ((Agent, "_connected_once", connected_once),)


class _HandedInOnce:
    """An asker to whom a report is told once, whether it arrives or not."""

    def __init__(self, asker: Asker, holdings: Holdings) -> None:
        self._asker = asker
        self._holdings = holdings

    async def ask(self, command: Any, *, key: str = "") -> Any:
        try:
            return await self._asker.ask(command, key=key)
        except Unavailable:
            self._holdings.reported(command.reports)
            raise


def dropped_result() -> Sequence[Replacement]:
    """A report that does not get through is taken for told."""
    original = Courier.tell

    async def tell(self: Any, asker: Asker) -> None:
        once: Any = _HandedInOnce(asker, self._holdings)
        await original(self, once)

    return ((Courier, "tell", tell),)
