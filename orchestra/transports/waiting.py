"""What a client's tasks wait for on a shared connection: one answer, or the pushes of a watch."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

import anyio

from orchestra.dialects.native_frames import Heard
from orchestra.errors import OrchestraError
from orchestra.ports import Lagged, Moved, Push, Watch, WatchStory
from orchestra.statemachine.limits import FEED_BUFFER


class Question:
    """Something that waits for its answer."""

    __slots__ = ("done", "heard")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.heard: Heard | OrchestraError | None = None

    def settle(self, heard: Heard | OrchestraError) -> None:
        """The answer came, or the error that takes its place."""
        self.heard = heard
        self.done.set()


class Mailbox:
    """Pushes of one watch, taken by iterating. At most ``limits.FEED_BUFFER`` wait; then it ends with `Lagged`."""

    def __init__(self, watch: Watch) -> None:
        self._waiting: deque[Push] = deque()
        self._wake = anyio.Event()
        self._last = max(watch.after, 0) if isinstance(watch, WatchStory) else 0
        self._over = False
        self._error: OrchestraError | None = None

    def put(self, push: Push) -> None:
        """Add a push; never waits."""
        if self._over:
            return
        if len(self._waiting) >= FEED_BUFFER:
            self._over = True
            push = Lagged(self._last)
        elif isinstance(push, Moved):
            self._last = push.number
        self._waiting.append(push)
        self._wake.set()

    def end(self, error: OrchestraError | None) -> None:
        """No more pushes come: after what is there the iteration ends, or raises ``error``."""
        if not self._over:
            self._over, self._error = True, error
        self._wake.set()

    def __aiter__(self) -> AsyncIterator[Push]:
        return self

    async def __anext__(self) -> Push:
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._over:
                raise StopAsyncIteration
            self._wake = anyio.Event()
            await self._wake.wait()
        return self._waiting.popleft()
