"""A websocket connection with bounds on its messages, fragments, pings and unread answers. Runs on asyncio."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.wsproto_impl import FrameTooLargeError, WSProtocol
from wsproto import events
from wsproto.connection import ConnectionState

from orchestra.transports.admission import LINGER_S, LOG, Guard, Outflow

SLICE_BYTES = 65_536
"""Bytes parsed at once: at most some ten thousand tiny messages wait for the app at a time."""

WAITING_MAX = 16
WAITING_BYTES_MAX = 65_536
"""Messages, and bytes of them, that wait for the app before no more is read; stopping for each single one costs two system calls."""

FRAGMENTS_FREE = 8
FRAGMENT_BYTES_MEAN = 64
"""Beyond the first eight, frames of a message carry 64 bytes each on average: less is only work for the reader."""


class GuardedWebsocket(WSProtocol):
    """One websocket connection."""

    def __init__(self, guard: Guard, address: str) -> None:
        super().__init__(guard.config, guard.state, guard.app_state)
        self.logger = LOG
        self._guard = guard
        self._address = address
        self._held = b""
        self._asked = False
        self._message_since: float | None = None
        self._message_bytes = 0
        self._waiting_bytes = 0
        self._frames = 0
        self._pings = 0
        self._pings_since = 0.0
        self._left = False
        """Goodbye was said for a violation: what still comes is dropped, until the peer closes too."""
        self._outflow = Outflow(guard.limits.body_bytes_per_s, guard.limits.body_window_ms / 1_000)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._held = b""
        self._guard.admission.release(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer: first the request for the upgrade, then, after its answer, frames."""
        if self._left:
            return
        if not self._asked:
            self._asked = True
            super().data_received(data)
        elif self.response_started or not self.handshake_complete:
            # Frames before the answer would pile up unread in the handshake.
            self.transport.abort()
        else:
            self._held += data
            self._advance()

    def _advance(self) -> None:
        while self._held and not self.read_paused and not self.transport.is_closing():
            piece, self._held = self._held[:SLICE_BYTES], self._held[SLICE_BYTES:]
            super().data_received(piece)

    async def receive(self) -> Any:
        """The next message for the app; when it has taken all, more is parsed."""
        message: Any = await self.queue.get()
        if self.queue.empty():
            self._waiting_bytes = 0
            if self.read_paused:
                self.read_paused = False
                self.transport.resume_reading()
        if self._held and not self.read_paused:
            self._advance()
        return message

    async def send(self, message: Any) -> None:
        """What the app says; nothing of it is sent once the guard, or the parser, has said goodbye."""
        await self.writable.wait()
        if self.close_sent and self.handshake_complete and not self.response_started:
            # As for a peer that is gone: the app was not at fault, and learns it at its next `receive`.
            raise ClientDisconnected
        await super().send(message)

    def handle_message(self, event: events.TextMessage | events.BytesMessage) -> None:
        """A frame, or a piece of one."""
        if self._message_since is None:
            self._message_since = self.loop.time()
        self._message_bytes += len(event.data)
        if event.frame_finished:
            self._frames += 1
        mean = self._message_bytes / max(1, self._frames)
        if self._frames > self._guard.limits.fragments_max:
            self._violate("too many fragments")
            return
        if self._frames > FRAGMENTS_FREE and mean < FRAGMENT_BYTES_MEAN:
            self._violate("fragments are too small")
            return
        size = self._message_bytes
        if event.message_finished:
            self._message_since, self._message_bytes, self._frames = None, 0, 0
        self._keep(event, size)

    def _keep(self, event: events.TextMessage | events.BytesMessage, size: int) -> None:
        """Put it with the rest of its message, and a whole message before the app."""
        try:
            self.buffer.extend(event)
        except FrameTooLargeError:
            self._violate(f"longer than {self.config.ws_max_size} bytes", 1009)
            return
        if not event.message_finished:
            return
        self.queue.put_nowait(self.buffer.to_message())
        self.buffer.clear()
        self._waiting_bytes += size
        much = self.queue.qsize() >= WAITING_MAX or self._waiting_bytes > WAITING_BYTES_MAX
        if much and not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def handle_ping(self, event: events.Ping) -> None:
        """A ping; answered, unless there are too many or the answers are not taken."""
        now = self.loop.time()
        if now - self._pings_since > 1:
            self._pings_since, self._pings = now, 0
        self._pings += 1
        if self._pings > self._guard.limits.pings_per_s:
            self._violate("too many pings")
        elif self.transport.get_write_buffer_size() > self._guard.limits.unsent_bytes_max:
            self.transport.abort()
        else:
            super().handle_ping(event)

    def handle_close(self, event: events.CloseConnection) -> None:
        """The peer closes, or broke the protocol: then it is told so, with the code that the parser found."""
        if self.conn.state is ConnectionState.OPEN and not self.close_sent:
            self._violate(event.reason or "protocol error", event.code)
        else:
            super().handle_close(event)

    def shutdown(self) -> None:
        """The server stops: say so, unless goodbye is said already."""
        if self.conn.state is ConnectionState.CLOSED or self._left:
            self.transport.close()
        else:
            super().shutdown()

    def _violate(self, reason: str, code: int = 1008) -> None:
        """Close with a code; 1008 is a reason of policy."""
        if self.close_sent or self.transport.is_closing():
            return
        self.close_sent = True
        self._held = b""
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(self.conn.send(events.CloseConnection(code=code, reason=reason)))
        # Closed with bytes unread, the system would reset the connection, and the peer's writes would fail before it reads why.
        self._left = True
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def inspect(self, now: float) -> None:
        """End the connection when its peer is too slow."""
        if self._outflow.stalled(self.transport, now, paused=not self.writable.is_set()):
            self.transport.abort()
        elif (
            self._message_since is not None
            and not self._left
            and not self.read_paused
            and (now - self._message_since) * 1_000 > self._guard.limits.message_ms
        ):
            self._violate("a message took too long")
