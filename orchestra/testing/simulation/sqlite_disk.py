"""The server's disk with the real SQLite store on it: a kill leaves what was written, a power cut what was flushed and some of the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import TypeVar

import anyio

from orchestra.errors import OrchestraError
from orchestra.ports import Batch, Loaded, Log, LogRead, Moved, Rows, Store, Story
from orchestra.statemachine.records import Record
from orchestra.storage.memory import MemoryStore
from orchestra.storage.sqlite_files import check_file
from orchestra.testing.power_loss.ledger import standing
from orchestra.testing.power_loss.medium import FileSystem, Way
from orchestra.testing.power_loss.play import STORE_NAME
from orchestra.testing.power_loss.recorder import Fails, Fault
from orchestra.testing.power_loss.trial import open_sqlite, workshop
from orchestra.testing.simulation.disk import COMMIT_S, Wear
from orchestra.testing.simulation.drive import Cut, Drive
from orchestra.testing.simulation.rot import Key, flip_bit, job_of, rows_of, unnamed
from orchestra.testing.simulation.truth import Truth

T = TypeVar("T")

CHECKPOINT_PAGES = (12, 60, 400)
"""After so many pages the log is moved into the file: a few commits, some dozens, or never in a simulation."""

ENTRIES_BEFORE = (10, 100, 1_000)
"""After so many rows and entries of the story the log is given its length."""

OPERATIONS_MAX = 120
"""A planned cut or fault comes within so many operations: some commits, or a start with its recovery."""

STARTING_SHARE = 0.3
"""Of the planned cuts that come with a second one soon after: while the server starts again."""


class SqliteDisk:
    """
    A `Disk` of a simulation: a drive of its own, and the real store on it, as long as a server process has it open.

    Args:
        seed: Of all that is drawn.
        crash: Kills the server.
        truth: Is told what is durable.
    """

    def __init__(self, seed: int, crash: Callable[[], None], truth: Truth) -> None:
        rng = self.rng = Random(f"sqlite {seed}")
        self.commits = 0
        self.checkpoint_pages = rng.choice(CHECKPOINT_PAGES)
        self.entries_before = Random(f"log {seed}").choice(ENTRIES_BEFORE)
        self.crashes: list[tuple[int, bool]] = []
        self.truth = truth
        self.accepted: list[Batch] = []
        """Every batch of which anybody was told that it is stored, or that was found stored at a start."""
        self.pending: Batch | None = None
        """One whose outcome nobody knows yet."""
        self.flipped: set[Key] = set()
        """Rows of which a bit flipped."""
        self._crash = crash
        self._stack = ExitStack()
        folder = self._stack.enter_context(workshop())
        system = rng.choice(tuple(FileSystem))
        self.drive = self._stack.enter_context(Drive(folder, system, rng, self._power_fails))
        self._opened: list[Store] = []
        self._memory = MemoryStore()
        self._remembered = 0

    @property
    def fingerprint(self) -> str:
        """As `Disk.fingerprint`: every operation on the drive with its bytes."""
        return self.drive.fingerprint

    @property
    def wear(self) -> Wear:
        """As `Disk.wear`."""
        return Wear(self.drive.operations, self.drive.failed, self.drive.powerless)

    @property
    def path(self) -> str:
        """Where the store is now."""
        return str(Path(self.drive.folder, STORE_NAME))

    async def open(self) -> Store:
        """As `Disk.open`."""
        self.drive.haunted = False
        life = self.drive.life
        return LivingStore(self, await self.awake(life, self._open), life)

    async def _open(self) -> Store:
        store = await open_sqlite(self.path, self.drive)
        self._opened.append(store)
        return store

    async def awake(self, life: int, call: Callable[[], Awaitable[T]]) -> T:
        """Call the real store; who lost its power meanwhile hears nothing of it, ever."""
        try:
            result = await call()
        except Exception:
            if self.drive.life != life:
                await anyio.sleep_forever()
            raise
        if self.drive.life != life:
            await anyio.sleep_forever()
        return result

    def killed(self) -> None:
        """As `Disk.killed`."""
        if not self.drive.haunted:
            self.drive.kill()

    async def lose_power(self) -> None:
        """The server's machine stops now. Does not return."""
        self.drive.lose_power(self.rng.choice(tuple(Way)))
        self._power_fails()
        await anyio.sleep_forever()

    def _power_fails(self) -> None:
        self.truth.tell("server", "loses its power")
        self._crash()

    def crash_at_commit(self, after: int, *, stored: bool) -> None:
        """As `Disk.crash_at_commit`; its machine loses its power."""
        self.crashes.append((self.commits + 1 + after, stored))

    def crash_at_operation(self, rng: Random) -> None:
        """As `Disk.crash_at_operation`. Some come in pairs."""
        at = self.drive.operations + rng.randint(1, OPERATIONS_MAX)
        self.drive.cuts.append(Cut(at, rng.choice(tuple(Way))))
        if rng.random() < STARTING_SHARE:
            again = at + rng.randint(1, OPERATIONS_MAX // 4)
            self.drive.cuts.append(Cut(again, rng.choice(tuple(Way))))

    def fail_commits(self, count: int, *, stored: bool) -> None:
        """As `Disk.fail_commits`: so many flushes fail (``stored``: what was written stays to be seen), or writes."""
        for _ in range(count):
            self.drive.faults.append(Fault(Fails.SYNC if stored else Fails.WRITE, 1))

    def fail_operation(self, rng: Random, *, forever: bool) -> Callable[[], None]:
        """As `Disk.fail_operation`: an input/output error, or a full disk."""
        fault = Fault(rng.choice(tuple(Fails)), rng.randint(1, OPERATIONS_MAX // 4), forever)
        return self._faulty(fault)

    def fill(self) -> Callable[[], None]:
        """As `Disk.fill`."""
        return self._faulty(Fault(Fails.FULL, 1, forever=True))

    def _faulty(self, fault: Fault) -> Callable[[], None]:
        self.drive.faults.append(fault)

        def mended() -> None:
            if fault in self.drive.faults:
                self.drive.faults.remove(fault)

        return mended

    def flip_bit(self, rng: Random) -> None:
        """As `Disk.flip_bit`."""
        drive = self.drive
        cuts, drive.cuts = drive.cuts, []
        faults, drive.faults = drive.faults, []
        drive.haunted = False
        key = flip_bit(self.path, drive.vfs, rng)
        drive.haunted = True
        drive.cuts, drive.faults = cuts, faults
        if key is not None:
            self.flipped.add(key)
            self.truth.damaged.add(job_of(key))
            self.truth.tell("server", f"has a damaged {key[0]}")

    def heal(self) -> None:
        """As `Disk.heal`."""
        self.crashes.clear()
        self.drive.cuts.clear()
        self.drive.faults.clear()

    # what is durable ----------------------------------------------------------------------------------------------

    def accept(self, batch: Batch) -> None:
        """A batch is durable from now on."""
        self.pending = None
        self.accepted.append(batch)
        self.truth.committed(batch)

    async def compare(self, store: Store, loaded: Loaded) -> None:
        """What a start finds must be what was accepted, and may be the one batch more whose outcome was unknown."""
        pending, self.pending = self.pending, None
        if pending is not None and loaded.number == pending.number:
            self.accept(pending)
        if loaded.number != len(self.accepted):
            told, found = len(self.accepted), loaded.number
            self.truth.violated(f"I1: batch {told} was acknowledged, and the disk ends at {found}")
            return
        while self._remembered < len(self.accepted):
            await self._memory.commit(self.accepted[self._remembered])
            self._remembered += 1
        if self.flipped:
            await self._compare_damaged(store, loaded)
        elif await standing(store, loaded) != await standing(self._memory):
            self.truth.violated(
                f"I1: the disk ends at batch {loaded.number} and holds something else"
            )

    async def _compare_damaged(self, store: Store, loaded: Loaded) -> None:
        for kind, id in unnamed(self.flipped, loaded):
            self.truth.violated(f"a damaged row was taken for a good one: {kind} {id}")
        self.truth.aside |= {each.id for each in loaded.quarantined if each.kind == "job"}
        found = await rows_of(store, self.flipped)
        if found != await rows_of(self._memory, self.flipped):
            self.truth.violated("I1: rows are lost or changed beside those that were damaged")

    async def last_look(self) -> None:
        """As `Disk.last_look`."""
        self.drive.lose_power(Way.SYNCED)
        self.drive.haunted = False
        try:
            store = await self._open()
            await self.compare(store, await store.load())
            await store.aclose()
            for problem in check_file(self.path) if not self.flipped else ():
                self.truth.violated(f"I1: after a last cut of the power: {problem}")
        except OrchestraError as error:
            self.truth.violated(f"I1: after a last cut of the power: {error}")

    def shut(self) -> None:
        """As `Disk.shut`."""
        self.heal()
        self.drive.kill()

    async def aclose(self) -> None:
        """As `Disk.aclose`."""
        for store in self._opened:
            await store.aclose()
        self._stack.close()


class LivingStore:
    """The real store as one server process has it open. See `ports.Store`; whoever is dead waits for ever."""

    def __init__(self, disk: SqliteDisk, store: Store, life: int) -> None:
        self._disk = disk
        self._store = store
        self._life = life

    async def _awake(self, call: Callable[[], Awaitable[T]]) -> T:
        return await self._disk.awake(self._life, call)

    async def load(self) -> Loaded:
        """As `ports.Store.load`; what is found is compared with what was acknowledged."""
        loaded = await self._awake(self._store.load)
        await self._awake(lambda: self._disk.compare(self._store, loaded))
        return loaded

    async def commit(self, batch: Batch) -> None:
        """As `ports.Store.commit`. Takes time before and after, in which the server may be killed."""
        disk = self._disk
        await anyio.sleep(disk.rng.uniform(0.0, COMMIT_S))
        disk.commits += 1
        crashes = [stored for number, stored in disk.crashes if number == disk.commits]
        if crashes and not crashes[0]:
            await disk.lose_power()
        disk.pending = batch
        await self._awake(lambda: self._store.commit(batch))
        disk.accept(batch)
        if crashes:
            await disk.lose_power()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(disk.rng.uniform(0.0, COMMIT_S))

    async def rows(self, query: Rows) -> tuple[Record, ...]:
        """As `ports.Store.rows`."""
        return await self._awake(lambda: self._store.rows(query))

    async def story(self, query: Story) -> tuple[Moved, ...]:
        """As `ports.Store.story`."""
        return await self._awake(lambda: self._store.story(query))

    async def log(self, query: Log) -> LogRead:
        """As `ports.Store.log`."""
        return await self._awake(lambda: self._store.log(query))

    async def backup(self, target: str) -> None:
        """As `ports.Store.backup`."""
        await self._awake(lambda: self._store.backup(target))

    async def aclose(self) -> None:
        """As `ports.Store.aclose`."""
        await self._awake(self._store.aclose)
