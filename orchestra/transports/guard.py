"""
What the HTTP server lacks: bounds on time, bytes and connections, below the app. Runs on asyncio.

The protocols here are uvicorn's with a guard in front: HTTP bytes pass the strict scanner of `framing` before the parser sees
them, and `inspect`, called at every tick of the server, ends whoever is too slow. No timer is kept for a connection.
"""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from orchestra.transports.admission import CLOSE_S, LINGER_S, LOG, Guard, Outflow, descriptor_of
from orchestra.transports.door import problem
from orchestra.transports.framing import Framing, Phase, RefusedRequest
from orchestra.transports.guard_websocket import GuardedWebsocket

PIPELINED_BYTES_MAX = 65_536
"""Bytes of later requests that are held while one is answered."""


class GuardedHttp(H11Protocol):
    """One HTTP connection."""

    def __init__(self, guard: Guard, *, admitted: bool = False) -> None:
        super().__init__(guard.config, guard.state, guard.app_state)
        self.logger = LOG
        self.access_log = False
        self._guard = guard
        self._admitted = admitted
        self._address = ""
        self._framing = Framing(guard.limits.header_bytes_max, guard.limits.header_fields_max)
        self._held = b""
        self._connected = False
        self.lost = False
        self._fresh = True
        self._since = self.loop.time()
        self._window_bytes = 0
        self._window_paused = False
        self._refused_at: float | None = None
        self._outflow = Outflow(guard.limits.body_bytes_per_s, guard.limits.body_window_ms / 1_000)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer connected (with TLS: and shook hands)."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._connected = True
        self._since = self.loop.time()
        if not self._admitted:
            self._address = self.client[0] if self.client else ""
            descriptor = descriptor_of(transport)
            self._admitted = self._guard.admission.admit(self._address, descriptor)
        if not self._admitted:
            self._refuse(503, "too many connections")
            return
        self._guard.admission.unheard(self, self.transport.abort)
        if self._held:
            self._advance()

    def take_over(self, address: str) -> None:
        """The connection was admitted under this address before its TLS handshake."""
        self._address = address
        self._admitted = True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.lost = True
        self._held = b""
        self._guard.admission.heard(self)
        if self._admitted:
            self._admitted = False
            self._guard.admission.release(self._address)
        if self._connected:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer. What comes after a refusal is dropped."""
        if self._refused_at is not None:
            return
        self._held += data
        self._window_bytes += len(data)
        # Over TLS, the first bytes may come just before the handshake is reported.
        if self._connected:
            self._advance()

    def _advance(self) -> None:
        while self._held and self._refused_at is None and not self.transport.is_closing():
            before = self._framing.phase
            try:
                seen, self._held = self._framing.feed(self._held)
            except RefusedRequest as error:
                self._refuse(error.status, str(error))
                return
            phase = self._framing.phase
            if seen and self._fresh:
                # A header is let through whole.
                self._guard.admission.heard(self)
            if phase is not before:
                self._since = self.loop.time()
                self._window_bytes, self._window_paused = 0, False
            if before in (Phase.REST, Phase.HEAD) and seen and self._upgrading():
                self._upgrade(seen)
                return
            if seen:
                super().data_received(seen)
                self._renew()
            if self._framing.phase is Phase.DONE and self._held:
                if len(self._held) > PIPELINED_BYTES_MAX:
                    self._refuse(400, "too much came before the answer")
                self.flow.pause_reading()
                return

    def _renew(self) -> None:
        """Once the request was read and answered, the next may come."""
        idle = self.conn.our_state is h11.IDLE and self.conn.their_state is h11.IDLE
        if self._framing.phase is Phase.DONE and idle:
            self._framing.next_request()
            self._fresh = False
            self._since = self.loop.time()

    def on_response_complete(self) -> None:
        """The app has answered."""
        super().on_response_complete()
        self._renew()
        if self._framing.phase is Phase.REST:
            self._advance()

    def _last_cycle(self) -> RequestResponseCycle | None:
        """None before the first request, whatever the server's annotation says."""
        return self.cycle

    def _upgrading(self) -> bool:
        return self._framing.head is not None and self._framing.head.upgrade

    def _upgrade(self, head: bytes) -> None:
        """Hand the connection over to the websocket protocol, which reads the same header again."""
        if self._held:
            self._refuse(400, "bytes came before the upgrade was answered")
            return
        self.connections.discard(self)
        session = GuardedWebsocket(self._guard, self._address)
        self._admitted = False
        session.connection_made(self.transport)
        self.transport.set_protocol(session)
        session.data_received(head)

    def _refuse(self, status: int, detail: str) -> None:
        """Answer below the app, if no answer has begun, and end the connection."""
        self._refused_at = self.loop.time()
        self._held = b""
        begun = False
        cycle = self._last_cycle()
        if cycle is not None and not cycle.response_complete:
            begun = cycle.response_started
            cycle.disconnected = True
            cycle.message_event.set()
        if not begun:
            body = problem(status, detail)
            self.transport.write(
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
                "content-type: application/problem+json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
            )
            self.transport.write(body)
        self.flow.resume_reading()
        if not begun and self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """The parser refused what the scanner let through, such as the first byte of a wrong chunk's end."""
        self._refuse(400, msg)

    def shutdown(self) -> None:
        """The server stops: finish the answer in the making, then close."""
        if self._refused_at is not None or self._framing.phase in (Phase.REST, Phase.HEAD):
            self.transport.close()
        else:
            super().shutdown()

    def inspect(self, now: float) -> None:
        """End the connection when its peer is too slow."""
        limits = self._guard.limits
        if self._outflow.stalled(self.transport, now, paused=self.flow.write_paused):
            self.transport.abort()
            return
        waited_ms = (now - self._since) * 1_000
        if self.transport.is_closing():
            return
        if self._refused_at is not None:
            if now - self._refused_at > LINGER_S:
                self.transport.close()
        elif self._framing.phase is Phase.REST:
            if waited_ms > (limits.first_byte_ms if self._fresh else limits.idle_ms):
                self.transport.close()
        elif self._framing.phase is Phase.HEAD:
            if waited_ms > limits.headers_ms:
                self._refuse(408, f"the header was not complete after {limits.headers_ms} ms")
        elif self._framing.phase is Phase.BODY:
            self._inspect_body(now, waited_ms)

    def _inspect_body(self, now: float, waited_ms: float) -> None:
        limits = self._guard.limits
        # Who was told to wait is not slow: reading paused, or "100 Continue" not said yet.
        waits = self.flow.read_paused or self.conn.they_are_waiting_for_100_continue
        self._window_paused = self._window_paused or waits
        if waited_ms <= limits.body_window_ms:
            return
        least = limits.body_bytes_per_s * limits.body_window_ms / 1_000
        cycle = self._last_cycle()
        if cycle is not None and cycle.response_complete:
            # The answer is out; whoever goes on sending had a window's time to read it.
            self.transport.close()
        elif self._window_bytes < least and not self._window_paused:
            self._refuse(408, f"the body came slower than {limits.body_bytes_per_s} bytes/s")
        self._since, self._window_bytes, self._window_paused = now, 0, False


class TlsGate(asyncio.Protocol):
    """Counts a connection before its TLS handshake, bounds the handshake's time, then hands over to `GuardedHttp`."""

    def __init__(self, guard: Guard, context: ssl.SSLContext) -> None:
        self._guard = guard
        self._context = context

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer connected."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport is needed")
        transport.pause_reading()
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        if not self._guard.admission.admit(address, descriptor_of(transport)):
            transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._shake(transport, address))
        self._guard.handshakes[transport] = task
        self._guard.admission.unheard(transport, task.cancel)
        task.add_done_callback(lambda _: self._forget(transport))

    def _forget(self, transport: asyncio.Transport) -> None:
        self._guard.handshakes.pop(transport, None)
        self._guard.admission.heard(transport)

    async def _shake(self, transport: asyncio.Transport, address: str) -> None:
        protocol = GuardedHttp(self._guard)
        protocol.take_over(address)
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                protocol,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._guard.limits.first_byte_ms / 1_000,
                ssl_shutdown_timeout=CLOSE_S,
            )
        except (OSError, asyncio.CancelledError):
            # A peer that does not speak TLS, leaves, or is too slow: no answer can be sent to it.
            transport.abort()
            if not protocol.lost:
                protocol.connection_lost(None)
            return
        if secured is not None and not protocol.lost:
            protocol.connection_made(secured)
