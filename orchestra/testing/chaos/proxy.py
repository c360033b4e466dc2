"""
A small TCP proxy that is in the way: it delays, resets, holds, dribbles and breaks off what goes through it, as it is told meanwhile.

What it holds is not thrown away: as after a partition of a real net, bytes arrive when it heals, or the connection ends. In no mode are the
bytes of one direction changed, left out or put in another order, which TCP does not do either.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import SocketAttribute, SocketStream

HOST = "127.0.0.1"

CHUNK_BYTES = 65_536

DELAY_S = 0.1
"""Of each chunk, one way; slower than any net that a farm is built on."""

DRIBBLE_S = 0.002
"""Between two bytes: some hundred of them take as long as a slow answer does."""

_LINGER_NOT = struct.pack("ii", 1, 0)
"""A socket that is closed with this sends RST, as a machine does that knows nothing of the connection."""

_GONE = (OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class Mode(enum.StrEnum):
    """What happens to connections, those that are open and those that come."""

    CLEAR = "clear"
    """Bytes go through as they come."""

    DELAY = "delay"
    """Each chunk waits."""

    RESET = "reset"
    """Connections are reset (RST)."""

    HALF_OPEN = "half-open"
    """Connections are taken, and nothing goes either way."""

    ONE_WAY = "one-way"
    """Questions go through; answers do not."""

    DRIBBLE = "dribble"
    """Bytes go one by one."""

    BREAK_OFF = "break-off"
    """A connection is closed in the middle of the next answer."""


CUTS = tuple(mode for mode in Mode if mode is not Mode.CLEAR)
"""Every mode that is a trouble."""


class _Link:
    """One connection from a client, and the one for it to the server."""

    def __init__(self, near: SocketStream, far: SocketStream) -> None:
        self.near = near
        self.far = far

    async def close(self) -> None:
        for stream in (self.near, self.far):
            with contextlib.suppress(*_GONE):
                await stream.aclose()

    async def reset(self) -> None:
        for stream in (self.near, self.far):
            await _reset(stream)


class Proxy:
    """
    Stands before one server on this machine.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        mode: What happens now; `turn` changes it.
        taken: How many connections it took.
    """

    def __init__(self, port: int, server_port: int) -> None:
        self.port = port
        self.mode = Mode.CLEAR
        self.taken = 0
        self._server_port = server_port
        self._turned = anyio.Event()
        self._links: set[_Link] = set()

    @property
    def url(self) -> str:
        """Where clients reach the server through it."""
        return f"http://{HOST}:{self.port}"

    async def turn(self, mode: Mode) -> None:
        """Go over to another mode; connections that are open feel it at once."""
        self.mode = mode
        self._turned.set()
        self._turned = anyio.Event()
        if mode is Mode.RESET:
            for link in tuple(self._links):
                await link.reset()

    async def carry(self, near: SocketStream) -> None:
        """Carry one connection until either side ends it."""
        self.taken += 1
        if self.mode is Mode.RESET:
            await _reset(near)
            return
        try:
            far = await anyio.connect_tcp(HOST, self._server_port)
        except OSError:
            await _reset(near)  # as the server's machine does when nobody listens there
            return
        link = _Link(near, far)
        self._links.add(link)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._pump, link, False)
                group.start_soon(self._pump, link, True)
        finally:
            self._links.discard(link)
            with anyio.CancelScope(shield=True):
                await link.close()

    async def _pump(self, link: _Link, answers: bool) -> None:
        """One direction: until its source ends, then its target is told; or until anything fails, then both are closed."""
        source, target = (link.far, link.near) if answers else (link.near, link.far)
        try:
            while True:
                try:
                    chunk = await source.receive(CHUNK_BYTES)
                except anyio.EndOfStream:
                    await self._held(answers)
                    await target.send_eof()
                    return
                await self._forward(link, target, chunk, answers)
        except _GONE:
            await link.close()

    async def _forward(
        self, link: _Link, target: SocketStream, chunk: bytes, answers: bool
    ) -> None:
        await self._held(answers)
        if self.mode is Mode.DELAY:
            await anyio.sleep(DELAY_S)
        elif self.mode is Mode.BREAK_OFF and answers:
            await target.send(chunk[: len(chunk) // 2])
            await link.close()
            return
        elif self.mode is Mode.DRIBBLE:
            chunk = await self._dribbled(target, chunk)
        await target.send(chunk)

    async def _held(self, answers: bool) -> None:
        while self.mode is Mode.HALF_OPEN or (self.mode is Mode.ONE_WAY and answers):
            await self._turned.wait()

    async def _dribbled(self, target: SocketStream, chunk: bytes) -> bytes:
        """Send byte by byte for as long as that is the mode; what is left."""
        sent = 0
        while self.mode is Mode.DRIBBLE and sent < len(chunk) - 1:
            await target.send(chunk[sent : sent + 1])
            sent += 1
            await anyio.sleep(DRIBBLE_S)
        return chunk[sent:]


async def _reset(stream: SocketStream) -> None:
    with contextlib.suppress(*_GONE):
        raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610  # anyio's, not Django's
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        await anyio.aclose_forcefully(stream)


@asynccontextmanager
async def open_proxy(server_port: int) -> AsyncGenerator[Proxy]:
    """
    A proxy before a port of this machine, listening on a port of its own; nothing of it is left at the end.

    Raises:
        OSError: It can not listen.
    """
    listener = await anyio.create_tcp_listener(local_host=HOST)
    own_port = listener.extra(SocketAttribute.local_port)  # noqa: S610  # anyio's, not Django's
    proxy = Proxy(own_port, server_port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, proxy.carry)
        yield proxy
        group.cancel_scope.cancel()
