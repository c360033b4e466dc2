"""Real servers on free loopback ports, and peers that say exactly what a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
from wsproto import ConnectionType, WSConnection, events

from orchestra.config import Address, Config, Limits
from orchestra.dialects.wire import Role
from orchestra.transports.auth import open_gate
from orchestra.transports.door import Door
from orchestra.transports.policy import Policy, http_row, websocket_row
from orchestra.transports.rate import Buckets
from orchestra.transports.serve import serve

PATIENCE_S = 30.0
"""Nothing that is waited for takes so long, even on a machine that is busy with other things."""

POLICY = Policy(
    [
        http_row("GET", "health", "/health", Role.ANYONE),
        http_row("GET", "read", "/read", Role.VIEWER),
        http_row("POST", "change", "/change", Role.OPERATOR),
        http_row("POST", "report", "/workers/{worker_id}/reports", Role.WORKER),
        http_row("GET", "stream", "/stream", Role.VIEWER),
        websocket_row("session", "/session"),
    ]
)

BRISK = Limits(
    first_byte_ms=200,
    headers_ms=300,
    idle_ms=300,
    body_window_ms=200,
    body_bytes_per_s=5_000,
    message_ms=300,
    stop_ms=1_000,
)
"""The time limits, scaled down by fifty or so."""


class Echo:
    """Answers with what it was sent, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.principals: list[Any] = []
        self.closed: list[int] = []
        self.release = anyio.Event()
        self.entered = anyio.Event()
        self.streamed = anyio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await self._talk(scope, receive, send)
        else:
            await self._reply(scope, receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _reply(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(f"{scope['method']} {scope['path']}")
        self.principals.append(scope["orchestra.principal"])
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.closed.append(len(body))
                return
            body += message["body"]
            if not message["more_body"]:
                break
        if scope["path"] == "/stream":
            await self._stream(send)
            return
        if scope["query_string"] == b"wait":
            self.entered.set()
            await self.release.wait()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.entered.set()
        for _ in range(4_000):
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self.streamed.set()

    async def _talk(self, scope: Any, receive: Any, send: Any) -> None:
        self.principals.append(scope["orchestra.principal"])
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.closed.append(message["code"])
                return
            if message.get("text") == "flood":
                self.entered.set()
                try:
                    for _ in range(4_000):
                        await send({"type": "websocket.send", "bytes": bytes(65_536)})
                except OSError:
                    self.closed.append(1006)
                    raise
            await send({"type": "websocket.send", "bytes": message.get("bytes") or b"text"})


@asynccontextmanager
async def served(
    app: Any,
    config: Config | None = None,
    *,
    policy: Policy = POLICY,
    buckets: Buckets | None = None,
) -> AsyncIterator[Address]:
    """Serve until the block ends; yields the real address."""
    config = config or Config(listen=Address("127.0.0.1", 0), limits=BRISK)
    door = Door(app, open_gate(config, policy), buckets=buckets)
    stop = anyio.Event()
    found: list[Address] = []
    up = anyio.Event()

    def ready(address: Address) -> None:
        found.append(address)
        up.set()

    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await serve(door, config, ready=ready, stop=stop)

        tasks.start_soon(run)
        try:
            with anyio.fail_after(PATIENCE_S):
                await up.wait()
            yield found[0]
        finally:
            stop.set()


async def read_answer(stream: anyio.abc.ByteReceiveStream) -> bytes:
    """One whole answer, or what came until the peer closed."""
    got = b""
    with anyio.fail_after(PATIENCE_S):
        while True:
            head, end, body = got.partition(b"\r\n\r\n")
            if end and len(body) >= _length(head):
                return got
            try:
                got += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return got


def _length(head: bytes) -> int:
    if head.startswith(b"HTTP/1.1 101"):
        return 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 1 << 40


async def ended(stream: anyio.abc.ByteReceiveStream, within_s: float) -> bool:
    """Whether the peer closes the connection in time; then this end is closed too. What came is dropped."""
    with anyio.move_on_after(within_s):
        try:
            while True:
                await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            await stream.aclose()
            return True
    return False


def status_of(answer: bytes) -> int:
    """0 when there was no answer."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


async def exchange(address: Address, payload: bytes) -> bytes:
    """Send bytes on a new connection and read one answer."""
    async with await anyio.connect_tcp(address.host, address.port) as stream:
        await stream.send(payload)
        return await read_answer(stream)


class WebsocketPeer:
    """A websocket client that can break the rules: `raw` sends any bytes."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self.stream = stream
        self.wire = WSConnection(ConnectionType.CLIENT)

    async def raw(self, data: bytes) -> None:
        await self.stream.send(data)

    async def send(self, event: Any) -> None:
        await self.stream.send(self.wire.send(event))

    async def event(self) -> Any:
        """The next event; a close of code 1006 when the connection was cut."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                for event in self.wire.events():
                    return event
                try:
                    self.wire.receive_data(await self.stream.receive())
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return events.CloseConnection(code=1006)


@asynccontextmanager
async def websocket(
    address: Address, *, host: str = "", headers: tuple[tuple[str, str], ...] = ()
) -> AsyncIterator[tuple[WebsocketPeer, Any]]:
    """Ask for a websocket; yields the peer and the first event (accepted or rejected)."""
    async with await anyio.connect_tcp(address.host, address.port) as stream:
        peer = WebsocketPeer(stream)
        extra = [(name.encode(), value.encode()) for name, value in headers]
        await peer.send(
            events.Request(host=host or str(address), target="/session", extra_headers=extra)
        )
        yield peer, await peer.event()
