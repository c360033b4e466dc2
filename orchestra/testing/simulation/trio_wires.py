"""The simulated network as trio shows it: sockets, so that all of the libraries above them is real."""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from orchestra.testing.simulation.network import Address, End, Listener, Network, place_of
from orchestra.testing.simulation.world import MachineProcess

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Protocol

    class Looped(Protocol):
        """A process with a loop of its own; what is done inside is done there."""

        def inside(self) -> AbstractContextManager[None]:
            """Enter its loop."""
            ...


ANYWHERE: Address = ("127.0.0.1", 0)


class Sockets(trio.abc.SocketFactory):
    """
    Gives sockets to one process.

    Args:
        network: On which they are.
        process: Whose they are.
    """

    def __init__(self, network: Network, process: Any) -> None:
        self._network = network
        self._process = process

    def socket(self, family: int = -1, type: int = -1, proto: int = -1) -> Socket:
        """As ``socket.socket``."""
        del family, type, proto  # there is one kind
        return Socket(self._network, self._process)


class _End(End):
    """What a socket holds of its connection."""

    def __init__(self, network: Network, process: Any, place: str) -> None:
        super().__init__(network, process, place)
        self._process: Looped = process
        self._lot = trio.lowlevel.ParkingLot()
        self._error: OSError | None = None

    def came(self) -> None:
        """As `End.came`."""
        self._wake()

    def broke(self, error: OSError) -> None:
        """As `End.broke`."""
        self._error = error
        self.gone()
        self._wake()

    def _wake(self) -> None:
        with self._process.inside():
            self._lot.unpark_all()

    def check(self) -> None:
        """Raise what broke the connection."""
        if self._error is not None:
            raise self._error

    @property
    def ended(self) -> bool:
        """Whether the end of what is written was said."""
        return self._ended

    @property
    def readable(self) -> bool:
        """Whether a read has something to tell at once."""
        return bool(self._unread) or self._error is not None or self._lost

    async def read(self, most: int) -> bytes:
        """Bytes, at most so many; none at the end of the stream."""
        while not self._unread:
            self.check()
            if self._lost:
                return b""
            await self._lot.park()
        data = self._unread[0]
        if data is None:  # the end stays the end
            return b""
        self._unread.popleft()
        if len(data) > most:
            self._unread.appendleft(data[most:])
        return data[:most]

    def close(self) -> None:
        """The process lets go of it; what was written is on its way."""
        self.put_end()
        self.vanish()
        self._wake()


class _Accepting(Listener):
    """A listening socket's connections that nobody has taken yet."""

    def __init__(self, process: Any) -> None:
        super().__init__()
        self._process: Looped = process
        self._lot = trio.lowlevel.ParkingLot()
        self._waiting: deque[Socket] = deque()

    def put(self, accepted: Socket) -> None:
        """One comes."""
        self._waiting.append(accepted)
        with self._process.inside():
            self._lot.unpark()

    async def take(self) -> Socket:
        """The next one."""
        while not self._waiting:
            await self._lot.park()
        return self._waiting.popleft()


class Socket(trio.socket.SocketType):
    """A TCP socket of one process. See `trio.socket.SocketType`: what the libraries above ask for."""

    def __init__(self, network: Network, process: Any) -> None:
        super().__init__()
        self._network = network
        self._process = process
        self._end: _End | None = None
        self._accepting: _Accepting | None = None
        self._own = ANYWHERE
        self._other = ANYWHERE
        self._closed = False

    family = socket.AF_INET  # type: ignore[assignment]  # trio's is a property
    type = socket.SOCK_STREAM  # type: ignore[assignment]  # trio's is a property
    proto = 0  # type: ignore[assignment]  # trio's is a property

    async def connect(self, address: Any) -> None:
        """As ``socket.connect``."""
        host, port = address[:2]
        listener: _Accepting = await self._network.reach(host, port)
        process: MachineProcess = self._process
        self._own, self._other = (host, self._network.free_port()), (host, port)
        far = Socket(self._network, listener.process)
        far._own, far._other = self._other, self._own  # its own class
        near_end = self._end = _End(self._network, process, place_of(process))
        far_end = far._end = _End(self._network, listener.process, listener.place)
        near_end.peer, far_end.peer = far_end, near_end
        listener.put(far)

    async def bind(self, address: Any) -> None:
        """As ``socket.bind``."""
        self._own = address

    def listen(self, backlog: int = 128) -> None:
        """As ``socket.listen``."""
        del backlog  # nobody is turned away
        self._accepting = _Accepting(self._process)
        self._network.listen(self._accepting, self._own)

    async def accept(self) -> tuple[Socket, Address]:
        """As ``socket.accept``."""
        if self._accepting is None:
            raise OSError("it does not listen")
        accepted = await self._accepting.take()
        return accepted, accepted.getpeername()

    def _there(self) -> _End:
        if self._closed:
            raise trio.ClosedResourceError
        if self._end is None:
            raise OSError("it is not connected")
        return self._end

    async def send(self, data: Any, flags: int = 0) -> int:
        """As ``socket.send``; the system takes everything at once."""
        del flags
        await trio.lowlevel.checkpoint()
        end = self._there()
        end.check()
        end.put(bytes(data))
        return len(data)

    async def recv(self, most: int, flags: int = 0) -> bytes:
        """As ``socket.recv``."""
        del flags
        await trio.lowlevel.checkpoint()
        data = await self._there().read(most)
        self._there()  # closed meanwhile
        return data

    def is_readable(self) -> bool:
        """Whether `recv` would not wait."""
        return self._closed or self._end is None or self._end.readable

    def shutdown(self, flag: int) -> None:
        """As ``socket.shutdown``, for what is written."""
        if flag in (socket.SHUT_WR, socket.SHUT_RDWR):
            self._there().put_end()

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802  trio's name
        """Whether nothing more is written."""
        return self._end is not None and self._end.ended

    def close(self) -> None:
        """As ``socket.close``."""
        if self._closed:
            return
        self._closed = True
        if self._accepting is not None:
            self._accepting.open = False
        if self._end is not None:
            self._end.close()

    def fileno(self) -> int:
        """Nothing of the real system is behind it."""
        return -1 if self._closed else 0

    def getsockname(self) -> Address:
        """As ``socket.getsockname``."""
        return self._own

    def getpeername(self) -> Address:
        """As ``socket.getpeername``."""
        return self._other

    def setsockopt(self, *_: Any) -> None:  # type: ignore[override]  # only what is used
        """Nothing of it matters here."""

    def getsockopt(self, *_: Any) -> int:  # type: ignore[override]  # only what is used
        """Whatever is asked for is on."""
        return 1
