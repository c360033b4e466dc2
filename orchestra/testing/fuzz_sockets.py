"""
A world that is fed bytes of websocket frames: the real server's protocols, door, application and session over the real core.

There is no socket: a transport in memory stands in its place, and the loop's time stands still unless it is told to go on.
"""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, TextMessage
from wsproto.utilities import RemoteProtocolError

from orchestra.config import Config
from orchestra.dialects.native import CHANNEL_PATH, native_dialect
from orchestra.errors import OrchestraError
from orchestra.statemachine.commands import Command
from orchestra.testing.fuzz import FuzzBroken
from orchestra.testing.fuzz_worlds import SERVER_ERROR, Small
from orchestra.testing.invariants import snapshot
from orchestra.transports.admission import Guard
from orchestra.transports.auth import LOCAL_HOSTS, Gate
from orchestra.transports.door import Door
from orchestra.transports.guard import GuardedHttp
from orchestra.transports.http import http_app
from orchestra.transports.policy import policy_for
from orchestra.transports.serve import guard_for

UPGRADE = (
    f"GET {CHANNEL_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
).encode()

WRITE_BYTES_HIGH = 65_536
"""asyncio's: with more that waits to be sent, the writer is told to pause."""

PIECES_MAX = 64
"""Bytes come in at most so many pieces."""

LATER_S = 3_700.0
"""Longer than any limit of time can be."""

ECHO_BYTES = 512
"""What a server that only listens may say beyond what it was told: an answer to the upgrade, and one close frame."""

CODES = frozenset({1_000, 1_001, 1_002, 1_003, 1_007, 1_008, 1_009, 1_013})
"""What a server closes with that knows what it does; 1011 would be a failure of ours."""

IN_PIECES, STALLED, LISTENING = 3, 4, 8
"""Bits of the first byte: in how many pieces; whether the peer reads; whether the application does nothing but listen."""


class StandingLoop(asyncio.SelectorEventLoop):
    """A loop whose time stands still, and which stops when there is nothing to do now."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        super().__init__(_Stopping(self))
        self.failures: list[BaseException] = []
        self.set_exception_handler(self._keep)

    def time(self) -> float:
        """The time, in seconds."""
        return self.now_s

    def settle(self) -> None:
        """Do everything that can be done now. Raises what a callback raised."""
        self.run_forever()
        if self.failures:
            raise self.failures[0]

    def later(self, seconds: float) -> None:
        """Time passes."""
        self.now_s += seconds
        self.settle()

    def _keep(self, _: object, told: dict[str, Any]) -> None:
        self.failures.append(told.get("exception") or FuzzBroken(str(told.get("message"))))


class _Stopping(selectors.SelectSelector):
    """Instead of waiting, the loop stops."""

    def __init__(self, loop: StandingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing comes from outside."""
        if timeout is None or timeout > 0:
            self._loop.stop()
        return []


class Line(asyncio.Transport):
    """
    The server's end of a connection.

    Args:
        loop: Where it tells that it is lost.
        stalled: The peer reads nothing.
    """

    def __init__(self, loop: StandingLoop, *, stalled: bool) -> None:
        super().__init__()
        self._loop = loop
        self._stalled = stalled
        self._protocol: asyncio.Protocol | None = None
        self._paused = False
        self.ends: dict[str, Any] = {
            "peername": ("127.0.0.1", 50_000),
            "sockname": ("127.0.0.1", 8_440),
        }
        self.sent = bytearray()
        self.reading = True
        self.closing = False
        self.aborted = False
        self.lost = False

    @property
    def protocol(self) -> asyncio.Protocol:
        """Who has the connection now."""
        if self._protocol is None:
            raise FuzzBroken("nobody has the connection")
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.ends.get(name, default)

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.lost:
            return
        self.sent += data
        if self.get_write_buffer_size() > WRITE_BYTES_HIGH and not self._paused:
            self._paused = True
            self.protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.sent) if self._stalled else 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Nothing more is sent."""

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self.get_write_buffer_size():
                self._loop.call_soon(self.lose)

    def abort(self) -> None:
        self.aborted = self.closing = True
        self._loop.call_soon(self.lose)

    def lose(self) -> None:
        """The connection is gone."""
        if not self.lost:
            self.lost = self.closing = True
            self.protocol.connection_lost(None)


class Asked(Small):
    """The small world as it is asked by a session: what was refused changed nothing, at every single ask."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[BaseException] = []
        self.accepted = 0

    async def ask(self, command: Command[Any], *, key: str = "") -> Any:
        """As `ports.Asker.ask`."""
        return self._told(lambda: self.core.apply(command, key=key))

    async def answer(self, query: Any) -> Any:
        """As `ports.Asker.answer`."""
        return self._told(lambda: self.core.ask(query))

    def _told(self, call: Any) -> Any:
        before = snapshot(self.core.state)
        try:
            reply = call()
            self.check(before, refused=False)
        except OrchestraError:
            try:
                self.check(before, refused=True)
            except FuzzBroken as broken:
                self.failures.append(broken)
            raise
        except Exception as error:
            self.failures.append(error)
            raise
        self.accepted += 1
        return reply

    @asynccontextmanager
    async def watch(self, watching: object) -> AsyncGenerator[AsyncGenerator[Any]]:
        """As `ports.Asker.watch`: nothing happens."""
        del watching
        self.accepted += 1

        async def nothing() -> AsyncGenerator[Any]:
            for each in ():
                yield each

        yield nothing()


class _Listener:
    """An application that takes every message and says nothing."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI has it."""
        del scope
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            text = message.get("text")
            self.messages.append(message["bytes"] if text is None else text)


class _Told:
    """What came of one connection."""

    def __init__(self, line: Line) -> None:
        self.aborted = line.aborted
        self.closed = line.closing
        head, _, frames = bytes(line.sent).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise FuzzBroken(f"the upgrade was answered with {head[:40]!r}")
        if b"permessage-deflate" in head:
            raise FuzzBroken("compression was agreed on")
        self.size = len(frames)
        self.texts: list[str] = []
        self.code: int | None = None
        reader = Connection(ConnectionType.CLIENT)
        try:
            reader.receive_data(frames)
            for event in reader.events():
                if self.code is not None:
                    raise FuzzBroken("the server goes on after its goodbye")
                if isinstance(event, TextMessage):
                    self.texts.append(event.data)
                elif isinstance(event, CloseConnection):
                    self.code = event.code
        except RemoteProtocolError as error:
            raise FuzzBroken(f"the server's own frames can not be read: {error}") from error


class FrameWorld:
    """Bytes of frames, once the upgrade was answered: parser, guard, application, session, core."""

    def __init__(self) -> None:
        self.loop = StandingLoop()
        self.small = Asked()
        self.listener = _Listener()
        dialect = native_dialect()
        policy = policy_for([dialect])
        app = http_app(self.small, [dialect], policy=policy)
        door = Door(app, Gate(policy, None, LOCAL_HOSTS), refuse=dialect.refuse)
        self.guard = guard_for(self._kept(door), Config())
        self.listening = guard_for(self._kept(self.listener), Config())

    def __del__(self) -> None:
        self.loop.close()

    def _kept(self, app: Any) -> Any:
        """The application; what it raises is kept."""

        async def kept(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except OSError:
                raise  # nobody is there any more: ASGI's word for it
            except Exception as error:
                self.loop.failures.append(error)
                raise

        return kept

    def feed(self, raw: bytes) -> bool:
        """
        As `fuzz.World.feed`: accepted is what the core did not refuse, or, of an application that only listens, what came whole.

        For the latter it must not matter in how many pieces bytes come.
        """
        way, frames = (raw[0] if raw else 0), self.small.filled(raw[1:])
        pieces = (1, 2, 7, PIECES_MAX)[way & IN_PIECES]
        if way & LISTENING:
            whole = self._listen(frames, 1)
            if self._listen(frames, max(2, pieces)) != whole:
                raise FuzzBroken("frames in pieces are read differently from frames at once")
            return bool(whole[0])
        before = self.small.accepted
        told = self._connected(self.guard, frames, pieces, stalled=bool(way & STALLED))
        for text in told.texts:
            problem = json.loads(text).get("problem")
            if problem is not None and problem["status"] >= SERVER_ERROR:
                raise FuzzBroken(f"a message was answered with {text[:300]}")
        if self.small.failures:
            raise self.small.failures[0]
        return self.small.accepted > before

    def _listen(self, frames: bytes, pieces: int) -> tuple[tuple[str | bytes, ...], int | None]:
        """The messages that an application sees, and the code that the connection is closed with."""
        self.listener.messages.clear()
        told = self._connected(self.listening, frames, pieces, stalled=False)
        if told.size > len(frames) + ECHO_BYTES:
            raise FuzzBroken(f"{len(frames)} bytes were answered with {told.size}")
        return tuple(self.listener.messages), told.code

    def _connected(self, guard: Guard, frames: bytes, pieces: int, *, stalled: bool) -> _Told:
        """One connection from the upgrade to its end."""
        line = Line(self.loop, stalled=stalled)
        self.loop.call_soon(self._open, guard, line)
        self._deliver(line, UPGRADE)
        size = max(1, -(-len(frames) // pieces))
        for at in range(0, len(frames), size):
            self._deliver(line, frames[at : at + size])
            if line.closing:
                break
            if not line.reading and not stalled:
                raise FuzzBroken("it reads no more, although it could")
        if not line.closing:
            # Whoever began a message and does not end it is gone in time; who is between two of them may stay.
            self.loop.later(LATER_S)
            inspect: Any = line.protocol
            self.loop.call_soon(inspect.inspect, self.loop.time())
            self.loop.settle()
        told = _Told(line)
        if told.closed and told.code is None and not (told.aborted and stalled):
            raise FuzzBroken("the connection was ended without a word")
        if told.code is not None and told.code not in CODES and told.code not in _codes(frames):
            raise FuzzBroken(f"the connection was ended with {told.code}")
        self.loop.call_soon(line.lose)
        self.loop.later(LATER_S)
        if guard.state.tasks or guard.state.connections or guard.admission.count:
            raise FuzzBroken("something is left of a connection that is gone")
        return told

    def _open(self, guard: Guard, line: Line) -> None:
        protocol = GuardedHttp(guard)
        line.set_protocol(protocol)
        protocol.connection_made(line)

    def _deliver(self, line: Line, piece: bytes) -> None:
        self.loop.call_soon(lambda: line.protocol.data_received(piece))
        self.loop.settle()


def _codes(frames: bytes) -> set[int]:
    """The codes that may stand in the peer's own close frames, and that of one without a code: the server repeats them."""
    found = {1_005}
    at = frames.find(b"\x88")
    while at >= 0:
        found.update(
            int.from_bytes(frames[at + skip : at + skip + 2], "big") for skip in (2, 4, 6, 8, 10)
        )
        mask, masked = frames[at + 2 : at + 4], frames[at + 6 : at + 8]
        found.add(int.from_bytes(bytes(a ^ b for a, b in zip(mask, masked, strict=False)), "big"))
        at = frames.find(b"\x88", at + 1)
    return found
