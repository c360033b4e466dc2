"""The simulated network as asyncio's loop shows it: transports and protocols."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

import attrs

from orchestra.testing.simulation.loop import SimulatedLoop
from orchestra.testing.simulation.network import Address, End, Listener, Network, place_of
from orchestra.testing.simulation.world import PROCESS, MachineProcess

Factory = Callable[[], asyncio.BaseProtocol]


class Port:
    """Stands for a listening socket."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)

    def getsockname(self) -> Address:
        """Where it listens."""
        return self.address

    def listen(self, backlog: int) -> None:
        """Nobody is turned away."""

    def close(self) -> None:
        """Nothing is held open."""


class FactoryListener(Listener):
    """A port whose connections are given to protocols of a factory, in the context that asked for it."""

    def __init__(self, factory: Factory) -> None:
        super().__init__()
        self.factory = factory
        self.context = copy_context()


def listen(network: Network, factory: Factory, port: Port) -> Listening:
    """What `create_server` does."""
    listener = FactoryListener(factory)
    network.listen(listener, port.address)
    return Listening(listener)


async def connect(
    loop: SimulatedLoop, network: Network, factory: Factory, host: str, port: int
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    """What `create_connection` does. Raises as the system does."""
    process = PROCESS.get()
    listener: FactoryListener = await network.reach(host, port)
    name = (host, network.free_port())
    near = Wire(
        loop, network, (process, place_of(process)), copy_context(), _Socket(name, (host, port))
    )
    context = listener.context.copy()
    far = Wire(
        loop, network, (listener.process, listener.place), context, _Socket((host, port), name)
    )
    near.peer, far.peer = far, near
    protocol = factory()
    near.begin(protocol)
    far.accept(listener.factory)
    return near, protocol


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

    own: Address
    other: Address
    family: int = socket.AF_INET

    def getsockname(self) -> Address:
        return self.own

    def getpeername(self) -> Address:
        return self.other

    def fileno(self) -> int:
        return -1


class Wire(End, asyncio.Transport):
    """
    One end of a connection.

    Args:
        loop: Of both ends.
        network: Of which it is a part.
        owner: The process at this end, and where it is.
        context: In which its protocol is called.
        own: What libraries ask about.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        network: Network,
        owner: tuple[MachineProcess | None, str],
        context: Context,
        own: _Socket,
    ) -> None:
        End.__init__(self, network, *owner)
        asyncio.Transport.__init__(self, {"socket": own})
        self._loop = loop
        self._context = context
        self._protocol: asyncio.BaseProtocol | None = None
        self._paused = False

    # beginning ------------------------------------------------------------------------------------------------------

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        """The connection stands at this end."""
        self._protocol = protocol
        protocol.connection_made(self)

    def accept(self, factory: Factory) -> None:
        """The process at this end takes the connection, when it comes to it."""
        self._soon(lambda: None if self._lost else self.begin(factory()))

    def _soon(self, action: Callable[[], None]) -> None:
        self._loop.call_soon(action, context=self._context)

    # sending -----------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As of any transport. What is written is in the hands of the system at once."""
        self.put(bytes(data))

    def can_write_eof(self) -> bool:
        """As of TCP."""
        return True

    def write_eof(self) -> None:
        """As of any transport."""
        self.put_end()

    def get_write_buffer_size(self) -> int:
        """The system takes everything at once."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The system takes everything at once."""

    # receiving ------------------------------------------------------------------------------------------------------

    def came(self) -> None:
        """As `End.came`."""
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

    def broke(self, error: OSError) -> None:
        """As `End.broke`."""
        self._soon(lambda: self._end(error))

    def _end(self, error: Exception | None) -> None:
        if self._lost:
            return
        self.gone()
        if self._protocol is not None:
            self._protocol.connection_lost(error)

    # what protocols ask -------------------------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Another protocol takes over."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The present protocol."""
        if self._protocol is None:
            raise RuntimeError("the connection has no protocol yet")
        return self._protocol
