"""
A small HTTP and websocket server for trio, on the protocol libraries that the real one uses too.

The real server runs on asyncio only. This one serves the same applications behind the same door, and is for simulations: it has no limits
but those of its libraries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import h11
import trio
from wsproto import WSConnection
from wsproto.connection import ConnectionType
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from orchestra.config import Config
from orchestra.transports.door import Door, Message, Scope

READ_BYTES = 65_536

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)

GONE = 1006
"""The close code of a connection that ended without one (RFC 6455, section 7.4.1)."""


class Gone(OSError):
    """What an application is told that sends to somebody who is not there any more, as the specification of ASGI says."""


async def serve(door: Door, config: Config) -> None:
    """Accept at the address of ``config``, for ever."""
    listening = trio.socket.socket()
    await listening.bind((config.listen.host, config.listen.port))
    listening.listen()

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await _Http(door, stream).run()

    await trio.serve_listeners(handle, [trio.SocketListener(listening)])


def _scope(request: h11.Request, stream: trio.SocketStream, kind: str) -> dict[str, Any]:
    raw, _, query = request.target.partition(b"?")
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode(),
        "scheme": kind.replace("websocket", "ws"),
        "method": request.method.decode(),
        "path": unquote(raw.decode()),
        "raw_path": raw,
        "query_string": query,
        "root_path": "",
        "headers": list(request.headers),
        "client": stream.socket.getpeername(),
        "server": stream.socket.getsockname(),
        "state": {},
    }


class _Http:
    """One connection, through one request after the other."""

    def __init__(self, door: Door, stream: trio.SocketStream) -> None:
        self._door = door
        self._stream = stream
        self._protocol = h11.Connection(h11.SERVER)
        self._gone = False

    async def run(self) -> None:
        """Serve until either side ends the connection."""
        while True:
            try:
                event = await self._next()
            except h11.RemoteProtocolError:
                return
            if not isinstance(event, h11.Request):
                return
            if _upgrades(event):
                early, _ = self._protocol.trailing_data
                await _Websocket(self._door, self._stream, event).run(early)
                return
            await self._door(_scope(event, self._stream, "http"), self._receive, self._send)
            if self._gone or self._protocol.our_state is not h11.DONE:
                return
            if self._protocol.their_state is not h11.DONE:
                return
            self._protocol.start_next_cycle()

    async def _next(self) -> Any:
        """The next event; None when nobody is there any more."""
        while True:
            event = self._protocol.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._protocol.they_are_waiting_for_100_continue:
                await self._put(h11.InformationalResponse(status_code=100, headers=[]))
            data = await self._read()
            if not data:
                return None
            self._protocol.receive_data(data)

    async def _read(self) -> bytes:
        try:
            data = await self._stream.receive_some(READ_BYTES)
        except BROKEN:
            data = b""
        self._gone |= not data
        return bytes(data)

    async def _receive(self) -> Message:
        if self._protocol.their_state is not h11.SEND_BODY:
            # The body is read: what is left to be told is that the reader went away.
            while not self._gone and (data := await self._read()):
                self._protocol.receive_data(data)
            return {"type": "http.disconnect"}
        event = await self._next()
        if isinstance(event, h11.Data):
            return {"type": "http.request", "body": bytes(event.data), "more_body": True}
        if isinstance(event, h11.EndOfMessage):
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message["headers"]
            await self._put(h11.Response(status_code=message["status"], headers=headers))
            return
        if message["body"]:
            await self._put(h11.Data(data=message["body"]))
        if not message.get("more_body"):
            await self._put(h11.EndOfMessage())

    async def _put(self, event: h11.Event) -> None:
        if self._gone:
            return
        data = self._protocol.send(event)
        try:
            await self._stream.send_all(data or b"")
        except BROKEN:
            self._gone = True


def _upgrades(request: h11.Request) -> bool:
    return any(
        name == b"upgrade" and value.lower() == b"websocket" for name, value in request.headers
    )


class _Websocket:
    """One websocket, from its handshake on."""

    def __init__(self, door: Door, stream: trio.SocketStream, request: h11.Request) -> None:
        self._door = door
        self._stream = stream
        self._scope: Scope = _scope(request, stream, "websocket") | {
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
        }
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._protocol.initiate_upgrade_connection(list(request.headers), request.target)
        self._told: deque[Message] = deque([{"type": "websocket.connect"}])
        self._more = trio.Event()
        self._text: list[str] = []
        self._sending = trio.Lock()
        self._rejected: Mapping[str, Any] = {}
        self._gone = False

    async def run(self, early: bytes) -> None:
        """Serve until either side ends it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, early)
            with suppress(Gone):
                await self._door(self._scope, self._receive, self._send)
            nursery.cancel_scope.cancel()

    async def _receive(self) -> Message:
        while not self._told:
            self._more = trio.Event()
            await self._more.wait()
        return self._told.popleft()

    def _tell(self, message: Message) -> None:
        self._told.append(message)
        self._more.set()

    async def _read(self, data: bytes) -> None:
        while not self._gone:
            try:
                if data:
                    self._protocol.receive_data(data)
                for event in self._protocol.events():
                    await self._happened(event)
                data = bytes(await self._stream.receive_some(READ_BYTES))
            except (*BROKEN, RemoteProtocolError, LocalProtocolError):
                data = b""
            if not data and not self._gone:
                self._leave(GONE)

    def _leave(self, code: int) -> None:
        self._gone = True
        self._tell({"type": "websocket.disconnect", "code": code})

    async def _happened(self, event: Event) -> None:
        match event:
            case TextMessage(data=text, message_finished=finished):
                self._text.append(text)
                if finished:
                    self._tell({"type": "websocket.receive", "text": "".join(self._text)})
                    self._text = []
            case BytesMessage(data=data):
                self._tell({"type": "websocket.receive", "bytes": bytes(data)})
            case Ping():
                await self._put(event.response())
            case CloseConnection(code=code):
                await self._put(event.response())
                self._leave(code)
            case _:
                pass

    async def _send(self, message: Message) -> None:
        if self._gone:
            raise Gone("nobody is there any more")
        match message["type"]:
            case "websocket.accept":
                await self._put(AcceptConnection())
            case "websocket.send":
                await self._put(TextMessage(data=message["text"]))
            case "websocket.close":
                await self._put(CloseConnection(code=message["code"], reason=message.get("reason")))
            case "websocket.http.response.start":
                self._rejected = message
            case _:
                headers = self._rejected["headers"]
                status = self._rejected["status"]
                await self._put(
                    RejectConnection(status_code=status, headers=headers, has_body=True)
                )
                await self._put(RejectData(data=message["body"], body_finished=True))

    async def _put(self, event: Event) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(self._protocol.send(event))
            except (*BROKEN, LocalProtocolError) as error:
                raise Gone("nobody is there any more") from error
