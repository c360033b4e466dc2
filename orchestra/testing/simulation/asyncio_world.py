"""The machines of a simulation on asyncio: one loop for all, under the real HTTP and websocket server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any

from orchestra.config import Config
from orchestra.testing.simulation.asyncio_wires import Factory, connect, listen
from orchestra.testing.simulation.loop import Process, SimulatedLoop
from orchestra.testing.simulation.network import Network
from orchestra.testing.simulation.worlds import SPINS, UNWINDING_S, UNWINDINGS_MAX, Program
from orchestra.transports import serve as serving
from orchestra.transports.door import Door


class AsyncioWorld(SimulatedLoop):
    """See `worlds.World`: the loop, with its network."""

    network: Network

    # what libraries ask a loop for

    async def create_server(self, protocol_factory: Factory, **kwargs: Any) -> Any:  # type: ignore[override]  # only what is used
        """Accept at a simulated port."""
        return listen(self.network, protocol_factory, kwargs["sock"])

    async def create_connection(  # type: ignore[override]  # only what is used
        self, protocol_factory: Factory, host: str, port: int, **_: Any
    ) -> Any:
        """A connection to a simulated port."""
        return await connect(self, self.network, protocol_factory, host, port)

    # what the machines ask for

    def process(self, name: str) -> Process:
        """As `World.process`."""
        return Process(self, name)

    def start(self, process: Process, program: Program) -> None:
        """As `World.start`."""
        self.create_task(program(), context=process.context())

    def beside(self, process: Process, action: Program) -> None:
        """As `World.beside`."""
        self.create_task(action(), context=process.context())

    def at(self, when_s: float, action: Callable[[], object]) -> None:
        """As `World.at`."""
        self.call_at(when_s, action, context=Context())

    async def serve(self, door: Door, config: Config, stopping: Callable[[], None]) -> None:
        """As `World.serve`: the real server, at a simulated port (`outside_of_time`)."""
        await serving.serve(door, config, stopping=stopping)

    # beginning and end

    def play(self, test: Callable[[], Awaitable[None]]) -> None:
        """As `World.play`."""
        self.run_until_complete(test())

    def unwind(self, processes: list[Process], last: Callable[[], Awaitable[None]]) -> None:
        """As `World.unwind`."""
        self.set_exception_handler(_unheard)
        for process in processes:
            process.rise()
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            for _ in range(UNWINDINGS_MAX):
                for _ in range(SPINS):
                    self.run_until_complete(asyncio.sleep(0))
                tasks = self.unfinished()
                if not tasks:
                    break
                for task in tasks:
                    task.cancel()
                self.run_until_complete(asyncio.wait(tasks, timeout=UNWINDING_S))
            self.run_until_complete(self.shutdown_asyncgens())
            self.run_until_complete(last())
        finally:
            logging.disable(level)
            self.close()


def _unheard(_: asyncio.AbstractEventLoop, __: dict[str, Any]) -> None:
    """What is said by programs that are cut short is no news."""
