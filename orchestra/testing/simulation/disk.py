"""The server's disk: it outlives its processes, takes time, fills up, and fails with an outcome that nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import anyio

from orchestra.errors import StoreFailed
from orchestra.ports import Batch, Loaded, Log, LogRead, Moved, Rows, Story
from orchestra.statemachine.records import Record
from orchestra.storage.memory import MemoryStore

COMMIT_S = 0.005
"""A commit takes up to so long."""


class Disk:
    """
    What is stored, and what goes wrong with it.

    Args:
        rng: Draws how long commits take.
        crash: Kills the server.
        committed: Told of each batch that is stored.
    """

    def __init__(
        self, rng: Random, crash: Callable[[], None], committed: Callable[[Batch], None]
    ) -> None:
        self.medium = MemoryStore()
        self.rng = rng
        self.commits = 0
        self.full = False
        self.failures: list[bool] = []
        """For each of the next commits that fail, whether it is stored all the same."""
        self.crashes: list[tuple[int, bool]] = []
        """Numbers of commits at which the server is killed, and whether the commit is stored before."""
        self._crash = crash
        self._committed = committed

    async def commit(self, batch: Batch) -> None:
        """Store one batch, or fail, or be killed."""
        await anyio.sleep(self.rng.uniform(0.0, COMMIT_S))
        if self.full:
            raise StoreFailed("no space is left on the disk", full=True)
        self.commits += 1
        crashes = [stored for number, stored in self.crashes if number == self.commits]
        if crashes and not crashes[0]:
            self._crash()
            await anyio.sleep_forever()
        fails = bool(self.failures)
        stored = self.failures.pop(0) if fails else True
        if not stored:
            raise StoreFailed("the disk failed")
        await self.medium.commit(batch)
        self._committed(batch)
        if crashes:
            self._crash()
            await anyio.sleep_forever()
        if fails:
            raise StoreFailed("the disk failed")


class DiskStore:
    """A store on the disk, as one server process has it open. See `ports.Store`."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    async def load(self) -> Loaded:
        """As `ports.Store.load`."""
        return await self._disk.medium.load()

    async def commit(self, batch: Batch) -> None:
        """As `ports.Store.commit`."""
        await self._disk.commit(batch)

    async def rows(self, query: Rows) -> tuple[Record, ...]:
        """As `ports.Store.rows`."""
        return await self._disk.medium.rows(query)

    async def story(self, query: Story) -> tuple[Moved, ...]:
        """As `ports.Store.story`."""
        return await self._disk.medium.story(query)

    async def log(self, query: Log) -> LogRead:
        """As `ports.Store.log`."""
        return await self._disk.medium.log(query)

    async def backup(self, target: str) -> None:
        """As `ports.Store.backup`."""
        await self._disk.medium.backup(target)

    async def aclose(self) -> None:
        """As `ports.Store.aclose`: the disk stays."""
