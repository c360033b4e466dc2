"""What a dialect asks by itself while it is served: its chores, round after round."""

from __future__ import annotations

import logging

import anyio

from orchestra.dialects.wire import Chore
from orchestra.errors import OrchestraError
from orchestra.ports import Asker
from orchestra.transports.asking import put

LOG = logging.getLogger("orchestra.transports.chores")


async def repeat(asker: Asker, name: str, chore: Chore, stop: anyio.Event) -> None:
    """
    Do a chore of the dialect ``name`` every ``chore.every_ms``, until ``stop`` is set. A round that is refused is told in the log, and
    is followed by the next.
    """
    while not stop.is_set():
        try:
            await put(asker, chore.begin())
        except OrchestraError as error:
            LOG.warning("dialect %s: a round of its chores was refused: %s", name, error)
        with anyio.move_on_after(chore.every_ms / 1_000):
            await stop.wait()
