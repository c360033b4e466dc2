"""What the machines of a simulation ask of whatever runs them: asyncio's loop (`asyncio_world`) or trio's loops (`trio_world`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from orchestra.config import Config
from orchestra.testing.simulation.network import Network
from orchestra.testing.simulation.world import MachineProcess, Timeline
from orchestra.transports.door import Door

SPINS = 5
"""A program has to begin before it can be unwound, and so have those that it begins."""

UNWINDINGS_MAX = 20
"""How often what was killed is told to unwind at the end; some of it waits again on its way out."""

UNWINDING_S = 60.0
"""What waits on its way out is given so much simulated time each time."""

Program = Callable[[], Coroutine[Any, Any, None]]


class World(Timeline, Protocol):
    """All loops of a simulation together."""

    network: Network
    """By which processes reach one another; given once, before anything starts."""

    @property
    def callbacks(self) -> int:
        """How many steps the loops have made."""
        ...

    def time(self) -> float:
        """The time as the machine of the running process shows it, in seconds."""
        ...

    def process(self, name: str) -> MachineProcess:
        """A new process, in which nothing runs yet."""
        ...

    def start(self, process: Any, program: Program) -> None:
        """Begin the program of a process of this world."""
        ...

    def beside(self, process: Any, action: Program) -> None:
        """Let a process do something beside its program."""
        ...

    async def serve(self, door: Door, config: Config, stopping: Callable[[], None]) -> None:
        """Serve an app over HTTP and websocket at the address of ``config``, until it is cancelled or its process ends."""
        ...

    def play(self, test: Callable[[], Awaitable[None]]) -> None:
        """Let all run until the people have done what they do. Raises what they raise, and `world.Stuck`."""
        ...

    def unwind(self, processes: list[Any], last: Callable[[], Awaitable[None]]) -> None:
        """The simulation is over: let everything end, the killed included, then do one thing more, and be closed."""
        ...
