"""Which attempts an engine has, and had a moment ago: a start that is told twice is done once."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import anyio

REMEMBERED_MAX = 10_000
"""Ended attempts whose repeated start is still recognised; a repetition comes within a few heartbeats."""

T = TypeVar("T")


class Roster(Generic[T]):
    """Attempts by id, as long as they run; their ids a good while longer."""

    __slots__ = ("_emptied", "_ended", "_live", "_order")

    def __init__(self) -> None:
        self._live: dict[str, T] = {}
        self._ended: set[str] = set()
        self._emptied: anyio.Event | None = None
        self._order: deque[str] = deque()

    def __contains__(self, attempt_id: str) -> bool:
        return attempt_id in self._live or attempt_id in self._ended

    def add(self, attempt_id: str, held: T) -> None:
        """It runs from now on."""
        self._live[attempt_id] = held

    def find(self, attempt_id: str) -> T | None:
        """The attempt, while it runs."""
        return self._live.get(attempt_id)

    def end(self, attempt_id: str) -> None:
        """It is over."""
        del self._live[attempt_id]
        if self._emptied is not None and not self._live:
            self._emptied.set()
        self._ended.add(attempt_id)
        self._order.append(attempt_id)
        if len(self._order) > REMEMBERED_MAX:
            self._ended.discard(self._order.popleft())

    async def emptied(self) -> None:
        """Return when none runs."""
        if self._live:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    def ids(self) -> tuple[str, ...]:
        """Those that run."""
        return tuple(self._live)

    def live(self) -> list[T]:
        """Those that run."""
        return list(self._live.values())
