"""Drives a dialect's session over an ASGI websocket: its actions become questions, watches and frames."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeAlias

import anyio
import anyio.abc

from orchestra.dialects.session import (
    TRY_AGAIN_LATER,
    Action,
    Close,
    Put,
    SendFrame,
    Session,
    Subscribe,
    Unsubscribe,
)
from orchestra.dialects.wire import Route
from orchestra.errors import Defect, Forbidden, OrchestraError
from orchestra.ports import Asker
from orchestra.transports.asking import put
from orchestra.transports.auth import Principal
from orchestra.transports.policy import allows

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

UNSENT_BYTES_MAX = 1024 * 1024
"""Answers and pushes that wait for a slow reader; with more it is cut off, and reads on from the store when it comes back."""

CLOSE_S = 1.0
"""A reader that does not take the closing frame within this is cut off without."""

LOG = logging.getLogger("orchestra.transports.websocket")


class _Outbox:
    """Frames on their way to one reader. A single frame may be longer than what may wait: pages of results are."""

    def __init__(self) -> None:
        self._frames: deque[str] = deque()
        self._size = 0
        self._wake = anyio.Event()

    def add(self, text: str) -> bool:
        """False when too much waits already: then it is not added."""
        if self._size > UNSENT_BYTES_MAX:
            return False
        self._frames.append(text)
        self._size += len(text)
        self._wake.set()
        return True

    async def take(self) -> str:
        """The next frame."""
        while not self._frames:
            self._wake = anyio.Event()
            await self._wake.wait()
        text = self._frames.popleft()
        self._size -= len(text)
        return text

    def left(self) -> list[str]:
        """What is still to be sent."""
        left = list(self._frames)
        self._frames.clear()
        return left


class ChannelServer:
    """
    One accepted connection.

    Args:
        session: The dialect's side of it.
        asker: The orchestrator, asked in the caller's name.
        routes: The dialect's routes by name: each message needs the role of its route.
        principal: Who is at the other end.
        receive: As ASGI has it.
        send: As ASGI has it.
    """

    def __init__(
        self,
        session: Session,
        asker: Asker,
        routes: Mapping[str, Route],
        principal: Principal,
        *,
        receive: Receive,
        send: Send,
    ) -> None:
        self._session = session
        self._asker = asker
        self._routes = routes
        self._principal = principal
        self._receive = receive
        self._send = send
        self._outbox = _Outbox()
        self._watches: dict[int, anyio.CancelScope] = {}
        self._group: anyio.abc.TaskGroup | None = None
        self._closing: Close | None = None
        self._gone = False

    async def run(self) -> None:
        """Serve until either side ends the connection."""
        async with anyio.create_task_group() as group:
            self._group = group
            group.start_soon(self._write)
            await self._read()
            group.cancel_scope.cancel()
        if self._closing is not None and not self._gone:
            await self._say_goodbye(self._closing)

    async def _read(self) -> None:
        while self._closing is None:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._gone = True
                return
            text = message.get("text")
            self._carry_out(self._session.received(message["bytes"] if text is None else text))

    async def _write(self) -> None:
        while True:
            text = await self._outbox.take()
            try:
                await self._send({"type": "websocket.send", "text": text})
            except OSError:
                # ASGI: nobody is there any more. `_read` learns it in its own way.
                self._gone = True
                return

    async def _say_goodbye(self, close: Close) -> None:
        with anyio.move_on_after(CLOSE_S):
            if close.code != TRY_AGAIN_LATER:
                for text in self._outbox.left():
                    await self._send({"type": "websocket.send", "text": text})
            await self._send(
                {
                    "type": "websocket.close",
                    "code": close.code,
                    "reason": close.reason,
                }
            )

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case SendFrame(text):
                    if not self._outbox.add(text):
                        self._close(Close(TRY_AGAIN_LATER, "the reader is too slow"))
                case Put() | Subscribe():
                    self._start(action)
                case Unsubscribe(tag):
                    watch = self._watches.get(tag)
                    if watch is not None:
                        watch.cancel()
                case Close():
                    self._close(action)

    def _close(self, close: Close) -> None:
        if self._closing is None and self._group is not None:
            self._closing = close
            self._group.cancel_scope.cancel()

    def _start(self, action: Put | Subscribe) -> None:
        route = self._routes.get(action.route)
        if self._group is None:
            raise Defect("the connection is not served yet")
        if route is None or not allows(self._principal.role, route.role):
            error = Forbidden(
                f"a {self._principal.role.value}'s token does not open {action.route!r}",
                where=action.route,
            )
            self._carry_out(self._session.refused(action.tag, error))
        elif isinstance(action, Put):
            self._group.start_soon(self._put, action)
        else:
            scope = anyio.CancelScope()
            self._watches[action.tag] = scope
            self._group.start_soon(self._watch, action, scope)

    async def _put(self, action: Put) -> None:
        try:
            answer = await put(self._asker, action.ask)
            actions = self._session.answered(action.tag, answer)
        except OrchestraError as error:
            if isinstance(error, Defect):
                LOG.exception("%s failed", action.route)
            actions = self._session.refused(action.tag, error)
        except Exception as bug:  # noqa: BLE001  # others are answered over the same connection
            actions = self._session.refused(action.tag, _told_as_bug(action.route, bug))
        self._carry_out(actions)

    async def _watch(self, action: Subscribe, scope: anyio.CancelScope) -> None:
        tag, session = action.tag, self._session
        try:
            with scope:
                async with self._asker.watch(action.watch) as pushes:
                    self._carry_out(session.watching(tag))
                    async for push in pushes:
                        self._carry_out(session.pushed(tag, push))
        except OrchestraError as error:
            del self._watches[tag]
            self._carry_out(session.refused(tag, error))
        else:
            del self._watches[tag]
            self._carry_out(session.ended(tag))


def _told_as_bug(route: str, bug: Exception) -> Defect:
    """Keep a bug's inside in the log; the caller learns that there is one."""
    LOG.error("%s failed", route, exc_info=bug)
    return Defect("a bug")
