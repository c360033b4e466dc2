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
from orchestra.errors import Defect, Forbidden, OrchestraError, Unavailable, shortage
from orchestra.ports import Asker
from orchestra.statemachine.reports import Heartbeat
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
        self.idle = False
        """The writer waits for the next frame, and has none under way."""

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
        self.idle = not self._frames
        while not self._frames:
            self._wake = anyio.Event()
            await self._wake.wait()
        self.idle = False
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
            actions = self._session.received(message["bytes"] if text is None else text)
            if len(actions) == 1 and isinstance(beat := actions[0], Put) and _is_beat(beat):
                await self._take_beat(beat)
            else:
                self._carry_out(actions)

    async def _take_beat(self, beat: Put) -> None:
        """
        Answer a heartbeat before anything else is read. A worker waits for the answer before it beats again, so nothing is held up, and
        the tasks that questions get for themselves would cost more than all the rest of a beat: thousands come every second.
        """
        error = self._forbidden(beat)
        actions = await self._answer(beat) if error is None else self._refused(beat, error)
        match actions:
            case (SendFrame(text),) if self._outbox.idle and self._closing is None:
                await self._say(text)
            case _:
                self._carry_out(actions)

    async def _write(self) -> None:
        while not self._gone:
            await self._say(await self._outbox.take())

    async def _say(self, text: str) -> None:
        try:
            await self._send({"type": "websocket.send", "text": text})
        except OSError:
            # ASGI: nobody is there any more. `_read` learns it in its own way.
            self._gone = True

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
        if self._group is None:
            raise Defect("the connection is not served yet")
        error = self._forbidden(action)
        if error is not None:
            self._carry_out(self._refused(action, error))
        elif isinstance(action, Put):
            self._group.start_soon(self._put, action)
        else:
            scope = anyio.CancelScope()
            self._watches[action.tag] = scope
            self._group.start_soon(self._watch, action, scope)

    def _forbidden(self, action: Put | Subscribe) -> Forbidden | None:
        """Why the caller may not ask this; None when it may."""
        route = self._routes.get(action.route)
        if route is not None and allows(self._principal.role, route.role):
            return None
        told = f"a {self._principal.role.value}'s token does not open {action.route!r}"
        return Forbidden(told, where=action.route)

    def _refused(self, action: Put | Subscribe, error: OrchestraError) -> Sequence[Action]:
        return self._session.refused(action.tag, error)

    async def _put(self, action: Put) -> None:
        self._carry_out(await self._answer(action))

    async def _answer(self, action: Put) -> Sequence[Action]:
        """What the session says to the answer, or to the refusal."""
        try:
            answer = await put(self._asker, action.ask)
            return self._session.answered(action.tag, answer)
        except OrchestraError as error:
            if isinstance(error, Defect):
                LOG.exception("%s failed", action.route)
            return self._session.refused(action.tag, error)
        except Exception as error:  # noqa: BLE001  # others are answered over the same connection
            return self._session.refused(action.tag, _told(action.route, error))

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


def _is_beat(action: Put) -> bool:
    return isinstance(action.ask, Heartbeat)


def _told(route: str, error: Exception) -> Defect | Unavailable:
    """Keep a bug's inside in the log; the caller learns that there is one, or that memory was short."""
    scarce = shortage(error)
    if scarce is not None:
        LOG.warning("%s: %s", route, scarce)
        return scarce
    LOG.error("%s failed", route, exc_info=error)
    return Defect("a bug")
