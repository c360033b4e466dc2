"""
A network in one process: connections whose bytes take simulated time, stall, and end with the process at the other end.

It behaves as TCP does: the bytes of a connection come in order and once, or the connection ends; a cut holds them back, and they come when
it has healed. How a stream is cut into pieces is drawn, as it is in no fixed relation to what was written. What a process sees of it is
made by `asyncio_wires` (transports of an event loop) and `trio_wires` (sockets).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from random import Random
from typing import Any

import anyio

from orchestra.testing.simulation.world import PROCESS, MachineProcess, Timeline

PATIENCE_S = 60.0
"""How long a connection attempt goes on into a cut before the system gives it up."""

IN_TWO_SHARE = 0.05
"""Of all writes that come in two pieces."""

PEOPLE = "people"

Address = tuple[str, int]


class Listener:
    """A port where somebody accepts: the process that runs now."""

    def __init__(self) -> None:
        self.process = PROCESS.get()
        self.open = True

    @property
    def place(self) -> str:
        """Where it is."""
        return self.process.name if self.process is not None else "server"


class Network:
    """
    Who listens where, and what is cut.

    Args:
        timeline: Delivers.
        rng: Draws latencies and where streams are cut into pieces.
        latency_s: The longest that bytes are on their way when nothing is wrong.
    """

    def __init__(self, timeline: Timeline, rng: Random, latency_s: float = 0.01) -> None:
        self.timeline = timeline
        self.rng = rng
        self.latency_s = latency_s
        self.ends: list[End] = []
        self._listeners: dict[Address, Any] = {}
        self._cuts: dict[tuple[str, str], float] = {}
        self._slow: dict[str, tuple[float, float]] = {}
        self._last_port = 50_000

    # what goes wrong ----------------------------------------------------------------------------------------------

    def cut(self, source: str, target: str, seconds: float) -> None:
        """Nothing gets from one place to the other for so long."""
        until_s = self.timeline.now_s + seconds
        self._cuts[source, target] = max(until_s, self._cuts.get((source, target), 0.0))

    def slow(self, place: str, latency_s: float, seconds: float) -> None:
        """Bytes to and from a place are up to so long on their way."""
        self._slow[place] = (latency_s, self.timeline.now_s + seconds)

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

    def died(self, process: MachineProcess, *, silent: bool) -> None:
        """A process is gone. Its peers are told by the system, unless the whole machine is gone: then ``silent``."""
        for listener in self._listeners.values():
            if listener.process is process:
                listener.open = False
        for end in list(self.ends):
            if end.process is process:
                end.vanish()
                if end.peer is not None and not silent:
                    end.peer.lose_later(end.place)

    # what processes ask for ---------------------------------------------------------------------------------------

    def listen(self, listener: Listener, address: Address) -> None:
        """Accept at an address."""
        self._listeners[address] = listener

    async def reach(self, host: str, port: int) -> Any:
        """The listener at an address, after the time that a connection takes. Raises as the system does."""
        here = place_of(PROCESS.get())
        listener: Listener | None = self._listeners.get((host, port))
        there = listener.place if listener is not None else "server"
        began_s = self.timeline.now_s
        for source, target in ((here, there), (there, here)):
            held_s = self._cuts.get((source, target), 0.0) - self.timeline.now_s
            await anyio.sleep(max(0.0, held_s))
            await anyio.sleep(self._latency(source, target))
        if self.timeline.now_s - began_s > PATIENCE_S:
            raise TimeoutError("the connection attempt took too long")
        listener = self._listeners.get((host, port))
        if listener is None or not listener.open:
            raise ConnectionRefusedError(f"nobody listens at {host}:{port}")
        return listener

    def free_port(self) -> int:
        """A port for the near end of a connection."""
        self._last_port += 1
        return self._last_port

    # how bytes travel --------------------------------------------------------------------------------------------

    def _latency(self, source: str, target: str) -> float:
        longest = self.latency_s
        for place in (source, target):
            latency_s, until_s = self._slow.get(place, (0.0, 0.0))
            if until_s > self.timeline.now_s:
                longest = max(longest, latency_s)
        return self.rng.uniform(0.0, longest)

    def arrival(self, source: str, target: str) -> float:
        """When something that is sent now arrives."""
        now_s = self.timeline.now_s
        return max(now_s, self._cuts.get((source, target), 0.0)) + self._latency(source, target)


def place_of(process: MachineProcess | None) -> str:
    """Where a process is; outside of all are the people."""
    return process.name if process is not None else PEOPLE


class End(ABC):
    """
    One end of a connection.

    Args:
        network: Of which it is a part.
        process: At this end.
        place: Where that is.
    """

    def __init__(self, network: Network, process: MachineProcess | None, place: str) -> None:
        self.place = place
        self.process = process
        self.peer: End | None = None
        self._network = network
        self._closing = False
        self._lost = False
        self._ended = False
        self._arrived_s = 0.0
        self._under_way: deque[bytes | None] = deque()
        self._unread: deque[bytes | None] = deque()
        network.ends.append(self)

    # sending -----------------------------------------------------------------------------------------------------

    def put(self, whole: bytes) -> None:
        """Bytes are written: from now on they are in the hands of the system."""
        if self._closing or self._lost or self._ended:
            return
        rng = self._network.rng
        if len(whole) > 1 and rng.random() < IN_TWO_SHARE:
            middle = rng.randrange(1, len(whole))
            self._send(whole[:middle])
            self._send(whole[middle:])
        elif whole:
            self._send(whole)

    def put_end(self) -> None:
        """Nothing more is written."""
        if not (self._ended or self._closing or self._lost):
            self._ended = True
            self._send(None)

    def _send(self, data: bytes | None) -> None:
        peer = self.peer
        if peer is not None:
            peer.receive(data, self._network.arrival(self.place, peer.place))

    # receiving ------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes | None, at_s: float) -> None:
        """Something comes, not before all that was sent earlier. None is the end of the stream."""
        self._arrived_s = max(at_s, self._arrived_s)
        self._under_way.append(data)
        # Outside of all processes: the system's own hands take it in, however frozen the process is.
        self._network.timeline.at(self._arrived_s, self._take)

    def _take(self) -> None:
        data = self._under_way.popleft()
        if not self._lost:
            self._unread.append(data)
            self.came()

    @abstractmethod
    def came(self) -> None:
        """Something more is there to be read."""

    # ending ------------------------------------------------------------------------------------------------------

    def lose(self) -> None:
        """The connection is broken."""
        if not self._lost:
            self._closing = True
            self.broke(ConnectionResetError("the connection was reset"))

    @abstractmethod
    def broke(self, error: OSError) -> None:
        """The process at this end is to learn that the connection is broken; `gone` says that it has."""

    def lose_later(self, other: str) -> None:
        """The news that the connection is broken comes from the other place."""
        at_s = max(self._network.arrival(other, self.place), self._arrived_s)
        self._network.timeline.at(at_s, self.lose)

    def vanish(self) -> None:
        """The process at this end is gone."""
        self._closing = True
        self.gone()

    def gone(self) -> None:
        """Nothing comes or goes any more."""
        self._lost = True
        if self in self._network.ends:
            self._network.ends.remove(self)
