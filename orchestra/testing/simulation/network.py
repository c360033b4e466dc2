"""
A network in one process: transports of an event loop whose bytes take simulated time, stall, and end with the process at the other end.

It behaves as TCP does: the bytes of a connection come in order and once, or the connection ends; a cut holds them back, and they come when
it has healed. How a stream is cut into pieces is drawn, as it is in no fixed relation to what was written.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from random import Random
from typing import Any

import attrs

from orchestra.testing.simulation.loop import PROCESS, Process, SimulatedLoop

PATIENCE_S = 60.0
"""How long a connection attempt goes on into a cut before the system gives it up."""

Factory = Callable[[], asyncio.BaseProtocol]


@attrs.define(slots=True, eq=False)
class Listener:
    """A port where somebody accepts."""

    factory: Factory
    context: Context
    process: Process | None
    open: bool = True


class Port:
    """Stands for a listening socket."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)

    def getsockname(self) -> tuple[str, int]:
        """Where it listens."""
        return self.address

    def close(self) -> None:
        """Nothing is held open."""


class Network:
    """
    Who listens where, and what is cut.

    Args:
        loop: Delivers.
        rng: Draws latencies and where streams are cut into pieces.
        latency_s: The longest that bytes are on their way when nothing is wrong.
    """

    def __init__(self, loop: SimulatedLoop, rng: Random, latency_s: float = 0.01) -> None:
        self.loop = loop
        self.rng = rng
        self.latency_s = latency_s
        self.ends: list[End] = []
        self._listeners: dict[tuple[str, int], Listener] = {}
        self._cuts: dict[tuple[str, str], float] = {}
        self._slow: dict[str, tuple[float, float]] = {}
        self._last_port = 50_000

    # what goes wrong ----------------------------------------------------------------------------------------------

    def cut(self, source: str, target: str, seconds: float) -> None:
        """Nothing gets from one place to the other for so long."""
        until_s = self.loop.now_s + seconds
        self._cuts[source, target] = max(until_s, self._cuts.get((source, target), 0.0))

    def slow(self, place: str, latency_s: float, seconds: float) -> None:
        """Bytes to and from a place are up to so long on their way."""
        self._slow[place] = (latency_s, self.loop.now_s + seconds)

    def heal(self) -> None:
        """All is well from now on."""
        self._cuts.clear()
        self._slow.clear()

    def reset(self, place: str) -> None:
        """Every connection of a place ends, and bytes under way are lost."""
        for end in list(self.ends):
            if end.place == place:
                end.lose()
                if end.peer is not None:
                    end.peer.lose()

    def died(self, process: Process, *, silent: bool) -> None:
        """A process is gone. Its peers are told by the system, unless the whole machine is gone: then ``silent``."""
        for listener in self._listeners.values():
            if listener.process is process:
                listener.open = False
        for end in list(self.ends):
            if end.process is process:
                end.vanish()
                if end.peer is not None and not silent:
                    end.peer.lose_later(end.place)

    # what the loop asks for -----------------------------------------------------------------------------------------

    def listen(self, factory: Factory, port: Port) -> Listening:
        """Accept at a port."""
        listener = Listener(factory, copy_context(), PROCESS.get())
        self._listeners[port.address] = listener
        return Listening(listener)

    async def connect(
        self, factory: Factory, host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """A connection to a port. Raises as the system does."""
        process = PROCESS.get()
        here = process.name if process is not None else "people"
        listener = self._listeners.get((host, port))
        there = listener.process.name if listener is not None and listener.process else "server"
        began_s = self.loop.now_s
        for source, target in ((here, there), (there, here)):
            await asyncio.sleep(max(0.0, self._cuts.get((source, target), 0.0) - self.loop.now_s))
            await asyncio.sleep(self._latency(source, target))
        if self.loop.now_s - began_s > PATIENCE_S:
            raise TimeoutError("the connection attempt took too long")
        listener = self._listeners.get((host, port))
        if listener is None or not listener.open:
            raise ConnectionRefusedError(f"nobody listens at {host}:{port}")
        self._last_port += 1
        name = (host, self._last_port)
        near = End(self, here, process, copy_context(), _Socket(name, (host, port)))
        context = listener.context.copy()
        far = End(self, there, listener.process, context, _Socket((host, port), name))
        near.peer, far.peer = far, near
        protocol = factory()
        near.begin(protocol)
        far.accept(listener.factory)
        return near, protocol

    # how bytes travel --------------------------------------------------------------------------------------------

    def _latency(self, source: str, target: str) -> float:
        longest = self.latency_s
        for place in (source, target):
            latency_s, until_s = self._slow.get(place, (0.0, 0.0))
            if until_s > self.loop.now_s:
                longest = max(longest, latency_s)
        return self.rng.uniform(0.0, longest)

    def arrival(self, source: str, target: str) -> float:
        """When something that is sent now arrives."""
        now_s = self.loop.now_s
        return max(now_s, self._cuts.get((source, target), 0.0)) + self._latency(source, target)


class Listening(asyncio.AbstractServer):
    """What `create_server` gives."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def close(self) -> None:
        """Accept nothing more."""
        self._listener.open = False

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""

    def is_serving(self) -> bool:
        """Whether it accepts."""
        return self._listener.open


@attrs.frozen(slots=True)
class _Socket:
    """What libraries ask a connection's socket for."""

    own: tuple[str, int]
    other: tuple[str, int]
    family: int = socket.AF_INET

    def getsockname(self) -> tuple[str, int]:
        return self.own

    def getpeername(self) -> tuple[str, int]:
        return self.other

    def fileno(self) -> int:
        return -1


class End(asyncio.Transport):
    """One end of a connection."""

    def __init__(
        self, network: Network, place: str, process: Process | None, context: Context, own: _Socket
    ) -> None:
        super().__init__({"socket": own})
        self.place = place
        self.process = process
        self.peer: End | None = None
        self._network = network
        self._context = context
        self._protocol: asyncio.BaseProtocol | None = None
        self._closing = False
        self._lost = False
        self._ended = False
        self._paused = False
        self._arrived_s = 0.0
        self._under_way: deque[bytes | None] = deque()
        self._unread: deque[bytes | None] = deque()
        network.ends.append(self)

    # beginning ------------------------------------------------------------------------------------------------------

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        """The connection stands at this end."""
        self._protocol = protocol
        protocol.connection_made(self)

    def accept(self, factory: Factory) -> None:
        """The process at this end takes the connection, when it comes to it."""
        self._soon(lambda: None if self._lost else self.begin(factory()))

    def _soon(self, action: Callable[[], None]) -> None:
        self._network.loop.call_soon(action, context=self._context)

    # sending -----------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As of any transport. What is written is in the hands of the system at once."""
        if self._closing or self._lost or self._ended:
            return
        whole = bytes(data)
        rng = self._network.rng
        if len(whole) > 1 and rng.random() < 0.05:  # noqa: PLR2004 - a twentieth of all writes come in two pieces
            middle = rng.randrange(1, len(whole))
            self._send(whole[:middle])
            self._send(whole[middle:])
        elif whole:
            self._send(whole)

    def _send(self, data: bytes | None) -> None:
        peer = self.peer
        if peer is None:
            return
        peer.receive(data, self._network.arrival(self.place, peer.place))

    def can_write_eof(self) -> bool:
        """As of TCP."""
        return True

    def write_eof(self) -> None:
        """Nothing more is written."""
        if not (self._ended or self._closing or self._lost):
            self._ended = True
            self._send(None)

    def get_write_buffer_size(self) -> int:
        """The system takes everything at once."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The system takes everything at once."""

    # receiving ------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes | None, at_s: float) -> None:
        """Something comes, not before all that was sent earlier. None is the end of the stream."""
        self._arrived_s = max(at_s, self._arrived_s)
        self._under_way.append(data)
        # Outside of all processes: the system's own hands take it in, however frozen the process is.
        self._network.loop.call_at(self._arrived_s, self._take, context=Context())

    def _take(self) -> None:
        data = self._under_way.popleft()
        if self._lost:
            return
        self._unread.append(data)
        self._soon(self._read)

    def _read(self) -> None:
        while self._unread and not self._paused and not self._lost and self._protocol is not None:
            data = self._unread.popleft()
            protocol: Any = self._protocol
            if data is not None:
                if not self._closing:
                    protocol.data_received(data)
            elif not protocol.eof_received() or self._closing:
                self.close()

    def pause_reading(self) -> None:
        """As of any transport."""
        self._paused = True

    def resume_reading(self) -> None:
        """As of any transport."""
        self._paused = False
        if self._unread:
            self._soon(self._read)

    def is_reading(self) -> bool:
        """As of any transport."""
        return not self._paused

    # ending ------------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """As of any transport."""
        return self._closing

    def close(self) -> None:
        """Say goodbye after what was written."""
        if not self._closing:
            self.write_eof()
            self._closing = True
            self._soon(lambda: self._end(None))

    def abort(self) -> None:
        """As `close`: the system sends what it has taken."""
        self.close()

    def lose(self) -> None:
        """The connection is broken."""
        if not self._lost:
            self._closing = True
            self._soon(lambda: self._end(ConnectionResetError("the connection was reset")))

    def lose_later(self, other: str) -> None:
        """The news that the connection is broken comes from the other place."""
        at_s = max(self._network.arrival(other, self.place), self._arrived_s)
        self._network.loop.call_at(at_s, self.lose, context=Context())

    def vanish(self) -> None:
        """The process at this end is gone."""
        self._lost = self._closing = True
        self._forget()

    def _end(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        self._forget()
        if self._protocol is not None:
            self._protocol.connection_lost(error)

    def _forget(self) -> None:
        if self in self._network.ends:
            self._network.ends.remove(self)

    # what protocols ask -------------------------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Another protocol takes over."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The present protocol."""
        if self._protocol is None:
            raise RuntimeError("the connection has no protocol yet")
        return self._protocol
