"""How a worker process obeys the signals of whoever runs it."""

from __future__ import annotations

import logging
import signal

import anyio

from orchestra.errors import OrchestraError
from orchestra.worker.agent import Agent

log = logging.getLogger("orchestra.worker")


async def run_until_signalled(agent: Agent) -> None:
    """
    Run a worker until SIGTERM or SIGINT, which drain it; a second signal ends it at once. Raises as `Agent.run`.

    Only in the main thread.
    """
    failure: OrchestraError | None = None
    async with anyio.create_task_group() as group:

        async def obey() -> None:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                drains = False
                async for _ in signals:
                    if drains:
                        group.cancel_scope.cancel()
                        return
                    drains = True
                    log.warning("draining; once more ends it at once")
                    group.start_soon(agent.drain)

        group.start_soon(obey)
        try:
            await agent.run()
        except OrchestraError as error:
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
