"""What the connections of one listener share: their bounds, their count, and the watch over slow readers. Runs on asyncio."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config as UvicornConfig
from uvicorn.server import ServerState

from orchestra.config import Limits

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None

CLOSE_S = 5.0
"""A closed connection whose peer does not take its last bytes is cut after this."""

LINGER_S = 1.0
"""After a refusal bytes are still read and dropped for so long: closing at once would reset the answer away."""

SPARE_DESCRIPTORS = 32
"""
So many of what the process may open stay free of connections: for the store's files, programs, and modules that are loaded late. Of a
small limit a quarter does.
"""

LOG = logging.getLogger("orchestra.transports.guard")
# The server's own lines below this level carry whole request targets, queries included; `door` writes the access log.
LOG.setLevel(logging.WARNING)


def _is_news(record: logging.LogRecord) -> bool:
    """That a stop cuts an answer short is no error of the app, and the server would print a traceback for each."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


LOG.addFilter(_is_news)


def scarce(descriptor: int) -> bool:
    """Whether a connection with this descriptor uses what is spared. The system gives out the lowest that is free."""
    if resource is None:
        return False
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most != resource.RLIM_INFINITY and descriptor >= most - min(SPARE_DESCRIPTORS, most // 4)


def descriptor_of(transport: asyncio.BaseTransport) -> int:
    """The descriptor of a connection; -1 when it has none (any more)."""
    opened = transport.get_extra_info("socket")
    return -1 if opened is None else int(opened.fileno())


class Admission:
    """
    How many connections are open, in all and for each client address, and which of them have not asked anything yet.

    Where there is no room the one that has kept its first request to itself for longest makes room for a newcomer: whoever only
    connects can not keep those out who ask, and they need not be told to come again, when they may find no room either.
    """

    def __init__(self, connections_max: int, per_address_max: int) -> None:
        self._connections_max = connections_max
        self._per_address_max = per_address_max
        self._by_address: Counter[str] = Counter()
        self._unheard: dict[object, Callable[[], object]] = {}
        self._fitting = connections_max
        """So many there are descriptors for, as far as is known. A low one does not tell that others are free: it was just given back."""
        self.count = 0

    def admit(self, address: str, descriptor: int = -1) -> bool:
        """Count a connection in, or refuse it. An admitted one is given back with `release`."""
        if self._by_address[address] >= self._per_address_max:
            return False
        is_scarce = scarce(descriptor)
        if is_scarce:
            self._fitting = min(self.count, self._connections_max)
        if self.count >= self._fitting and not self._make_room():
            if is_scarce or self.count >= self._connections_max:
                return False
            # Something else has given descriptors back.
            self._fitting = self.count + 1
        self.count += 1
        self._by_address[address] += 1
        return True

    def unheard(self, connection: object, end: Callable[[], object]) -> None:
        """An admitted connection has not asked anything yet; ``end`` ends it at once, and it is released when it is gone."""
        self._unheard[connection] = end

    def heard(self, connection: object) -> None:
        """A connection has asked, or is gone."""
        self._unheard.pop(connection, None)

    def _make_room(self) -> bool:
        oldest = next(iter(self._unheard), None)
        if oldest is None:
            return False
        end = self._unheard.pop(oldest)
        end()
        return True

    def release(self, address: str) -> None:
        """Count a connection out."""
        self.count -= 1
        if self.count <= self._fitting // 2:
            self._fitting = self._connections_max
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class Guard:
    """What all connections of one listener share."""

    def __init__(
        self,
        limits: Limits,
        config: UvicornConfig,
        app_state: dict[str, Any],
        *,
        per_address: bool,
    ) -> None:
        self.limits = limits
        self.config = config
        self.state = ServerState()
        self.app_state = app_state
        each = limits.connections_per_address_max if per_address else limits.connections_max
        self.admission = Admission(limits.connections_max, each)
        self.handshakes: dict[asyncio.Transport, asyncio.Task[None]] = {}


class Outflow:
    """Whether a peer takes what is sent to it, or at least the end of the connection."""

    def __init__(self, bytes_per_s: int, window_s: float) -> None:
        self._least = bytes_per_s * window_s
        self._window_s = window_s
        self._since = 0.0
        self._size = 0
        self._closed_at: float | None = None

    def stalled(self, transport: asyncio.Transport, now: float, *, paused: bool) -> bool:
        """True when the peer took less than the least rate for a window, or does not let the connection end."""
        if transport.is_closing():
            self._closed_at = now if self._closed_at is None else self._closed_at
            return now - self._closed_at > CLOSE_S
        size = transport.get_write_buffer_size()
        if not paused or not self._size:
            self._since, self._size = now, size if paused else 0
            return False
        if now - self._since < self._window_s:
            return False
        stalled = self._size - size < min(self._least, self._size)
        self._since, self._size = now, size
        return stalled
