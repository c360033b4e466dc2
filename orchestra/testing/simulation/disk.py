"""The server's disk: it outlives its processes, takes time, fills up, and fails with an outcome that nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

import anyio
import attrs

from orchestra.errors import StoreFailed
from orchestra.ports import Batch, Loaded, Log, LogRead, Moved, Rows, Store, Story
from orchestra.statemachine.records import Record
from orchestra.storage.memory import MemoryStore

COMMIT_S = 0.005
"""A commit takes up to so long."""


@attrs.frozen(slots=True)
class Wear:
    """What a simulated drive went through: writes, flushes and changes of names; operations that failed; cuts of the power."""

    operations: int = 0
    failed: int = 0
    cuts: int = 0


class Disk(Protocol):
    """What the machines of a simulation know of the server's disk."""

    commits: int
    """How many were tried, whatever came of them."""

    async def open(self) -> Store:
        """What a server process does when it starts. Raises `StoreFailed`."""
        ...

    def killed(self) -> None:
        """The server process is gone."""
        ...

    def crash_at_commit(self, after: int, *, stored: bool) -> None:
        """The server is killed at one of its next commits, before it or just after it."""
        ...

    def crash_at_operation(self, rng: Random) -> None:
        """The server loses its power at one of the next operations on the disk, which ``rng`` draws, with what survives."""
        ...

    def fail_commits(self, count: int, *, stored: bool) -> None:
        """The next commits fail, stored or not."""
        ...

    def fail_operation(self, rng: Random, *, forever: bool) -> Callable[[], None]:
        """An operation that ``rng`` draws fails, once or until what is returned is called."""
        ...

    def fill(self) -> Callable[[], None]:
        """There is no space, until what is returned is called."""
        ...

    def flip_bit(self, rng: Random) -> None:
        """One bit of a row of a job that has not ended flips. The server must not run."""
        ...

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        ...

    async def last_look(self) -> None:
        """When all is over: what was acknowledged must be there after one more cut of the power."""
        ...

    def shut(self) -> None:
        """The simulation is over: nothing that unwinds may store anything."""
        ...

    async def aclose(self) -> None:
        """Let go of what the real machine lent."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of all that was done to it."""
        ...

    @property
    def wear(self) -> Wear:
        """What its drive went through."""
        ...


class MemoryDisk:
    """
    What is stored, and what goes wrong with it: a store in memory that outlives its processes.

    Args:
        rng: Draws how long commits take.
        crash: Kills the server.
        committed: Told of each batch that is stored.
    """

    fingerprint = ""
    wear = Wear()

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

    async def open(self) -> Store:
        """As `Disk.open`."""
        return DiskStore(self)

    def killed(self) -> None:
        """As `Disk.killed`: what is stored stays."""

    def crash_at_commit(self, after: int, *, stored: bool) -> None:
        """As `Disk.crash_at_commit`."""
        self.crashes.append((self.commits + 1 + after, stored))

    def crash_at_operation(self, rng: Random) -> None:
        """As `Disk.crash_at_operation`; there is one operation, a commit."""
        self.crash_at_commit(rng.randrange(4), stored=rng.choice((True, False)))

    def fail_commits(self, count: int, *, stored: bool) -> None:
        """As `Disk.fail_commits`."""
        self.failures += [stored] * count

    def fail_operation(self, rng: Random, *, forever: bool) -> Callable[[], None]:
        """As `Disk.fail_operation`; there is one operation, a commit."""
        if forever and rng.choice((True, False)):
            return self.fill()
        self.fail_commits(1, stored=rng.choice((True, False)))
        return self._space

    def fill(self) -> Callable[[], None]:
        """As `Disk.fill`."""
        self.full = True
        return self._space

    def _space(self) -> None:
        self.full = False

    def flip_bit(self, rng: Random) -> None:
        """As `Disk.flip_bit`: there are no bits, so nothing happens."""

    def heal(self) -> None:
        """As `Disk.heal`."""
        self.full = False
        self.failures.clear()
        self.crashes.clear()

    async def last_look(self) -> None:
        """As `Disk.last_look`: memory loses nothing."""

    def shut(self) -> None:
        """As `Disk.shut`."""
        self.full = True

    async def aclose(self) -> None:
        """As `Disk.aclose`."""

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

    def __init__(self, disk: MemoryDisk) -> None:
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
