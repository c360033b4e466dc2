"""
One HTTP request and its answer: the ASGI side of a connection that `framing` reads. Runs on asyncio.

The scanner has read the header once and strictly, so nothing parses it again: its fields become the scope, its body pieces the messages,
and what the application says becomes the bytes of an answer (RFC 9112). The head of an answer leaves with its first body, in one write.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import unquote

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

from orchestra.transports.admission import LOG
from orchestra.transports.door import ASGIApp, Message, Scope
from orchestra.transports.framing import Head

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What no value of a field may have: an application that passes on what it was told must not split the answer."""

_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}
_BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class Connection(Protocol):
    """What an exchange needs of the connection that it is on."""

    transport: asyncio.Transport
    flow: FlowControl

    def default_fields(self) -> list[tuple[bytes, bytes]]:
        """What every answer carries, such as its date."""
        ...

    def answered(self) -> None:
        """The answer is complete."""
        ...


def scope_of(head: Head, connection: dict[str, Any]) -> Scope:
    """The ASGI scope of a request on a connection, whose own part of it is ``connection``."""
    raw_path, _, query = head.target.partition(b"?")
    path = raw_path.decode("ascii")
    return {
        **connection,
        "http_version": head.version.decode("ascii"),
        "method": head.method.decode("ascii"),
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "headers": head.fields,
    }


class Exchange:
    """
    One request, from its header to the last byte of its answer.

    Args:
        connection: Where it takes place.
        head: The request's header.
        keep_alive: Whether the connection is wanted for another request.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_connection",
        "_head",
        "_left",
        "_more",
        "_news",
        "_start",
        "_wake",
        "complete",
        "disconnected",
        "keep_alive",
        "started",
        "waits_to_send",
    )

    def __init__(self, connection: Connection, head: Head) -> None:
        self._connection = connection
        self._head = head
        self.keep_alive = head.keep_alive
        self.waits_to_send = head.expects_continue
        """The peer sends its body when it is told to go on, and not before."""
        self.disconnected = False
        self.started = False
        self.complete = False
        self._body = bytearray()
        self._more = True
        self._news = False
        self._wake: asyncio.Event | None = None
        self._start = b""
        self._chunked = False
        self._left = 0

    # what the connection tells

    def feed(self, body: bytes, *, more: bool) -> None:
        """A piece of the body came. After the answer nobody wants it."""
        if self.complete:
            return
        self._body += body
        self._more = more
        if len(self._body) > HIGH_WATER_LIMIT:
            self._connection.flow.pause_reading()
        self._ring()

    def disconnect(self) -> None:
        """The peer is gone, or is not listened to any more."""
        self.disconnected = True
        self._ring()

    def _ring(self) -> None:
        self._news = True
        if self._wake is not None:
            self._wake.set()

    # what the application calls

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Let the application answer. What it does wrong ends in the log and in a 500."""
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._connection.transport.close()
            raise
        except BaseException as error:  # noqa: BLE001  # whatever it is, the peer is answered and others are served
            LOG.error("the application failed", exc_info=error)
            await self._give_up()
        else:
            if not self.complete and not self.disconnected:
                LOG.error("the application returned without a complete answer")
                await self._give_up()

    async def _give_up(self) -> None:
        if self.started:
            self._connection.transport.close()
            return
        fields = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"21"),
            (b"connection", b"close"),
        ]
        await self.send({"type": "http.response.start", "status": 500, "headers": fields})
        await self.send({"type": "http.response.body", "body": b"Internal Server Error"})

    async def receive(self) -> Message:
        """As ASGI has it."""
        connection = self._connection
        if self.waits_to_send and not connection.transport.is_closing():
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waits_to_send = False
        if not (self.disconnected or self.complete):
            connection.flow.resume_reading()
            while not self._news:
                self._wake = self._wake or asyncio.Event()
                self._wake.clear()
                await self._wake.wait()
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        self._news = False
        body, self._body = bytes(self._body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self._more}

    async def send(self, message: Message) -> None:
        """As ASGI has it. Raises RuntimeError for what is no answer."""
        flow = self._connection.flow
        if flow.write_paused and not self.disconnected:
            await flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.started and kind == "http.response.start":
            self._begin(message["status"], message.get("headers", ()))
        elif self.started and not self.complete and kind == "http.response.body":
            self._go_on(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} does not come now")

    def _begin(self, status: int, fields: Any) -> None:
        self.waits_to_send = False
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        parts = [line]
        measured = closing = False
        self._chunked = False
        for name, value in (*self._connection.default_fields(), *fields):
            if _NAME.fullmatch(name) is None or _UNFIT.search(value) is not None:
                raise RuntimeError(f"{name!r} is no field of an answer")
            known = name.lower()
            if known == b"content-length":
                measured, self._left = True, int(value)
            elif known == b"transfer-encoding":
                continue  # how a body travels is this server's matter
            elif known == b"connection" and b"close" in value.lower():
                closing = True
            parts.append(b"%b: %b\r\n" % (known, value))
        silent = status in _BODILESS or self._head.method == b"HEAD"
        if not measured and not silent:
            self._chunked = self._head.version == b"1.1"
            if self._chunked:
                parts.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # the end of the connection is the end of the body
        if silent:
            self._left = 0
        if closing:
            self.keep_alive = False
        elif not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        self._start = b"".join(parts)
        self.started = True
        if not measured and not silent and not self._chunked:
            self._left = -1

    def _go_on(self, body: bytes, *, more: bool) -> None:
        start, self._start = self._start, b""
        if self._head.method == b"HEAD":
            body = b""
        elif self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (
                b"" if more else b"0\r\n\r\n"
            )
        elif self._left >= 0:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body is not as long as its Content-Length says")
        if start or body:
            self._connection.transport.write(start + body if start else body)
        if more:
            return
        self.complete = True
        self._ring()
        if not self.keep_alive:
            self._connection.transport.close()
        self._connection.answered()
