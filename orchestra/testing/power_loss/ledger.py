"""What was asked of a store and what it acknowledged: the measure of what a power cut may leave."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import attrs

from orchestra.ports import Batch, Loaded, Log, LogRead, Moved, Rows, Store, Story
from orchestra.statemachine import limits
from orchestra.statemachine.records import KIND_OF, KINDS, Record
from orchestra.storage.codec import RowCodec, encode_story
from orchestra.storage.memory import MemoryStore
from orchestra.testing.power_loss.operations import Kind, Operation

_CODEC = RowCodec()

Note = Callable[[Kind, str, int], None]
"""Puts a note on the tape: its kind, a name, a number."""


@attrs.frozen(slots=True)
class Standing:
    """All that a store holds: the number of its last batch, and one digest of every row, story entry and byte of output."""

    number: int
    digest: str


async def standing(store: Store, loaded: Loaded | None = None) -> Standing:
    """Read a whole store through its port."""
    loaded = loaded or await store.load()
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((loaded.number, loaded.story_number, loaded.at_ms)).encode())
    for row in sorted(loaded.rows, key=lambda row: (KIND_OF[type(row)], row.id)):
        digest.update(_CODEC.encode(row))
    attempts: list[str] = []
    for kind in KINDS:
        after, full = "", True
        while full:
            page = await store.rows(Rows(kind, after=after, limit=limits.PAGE_MAX))
            for row in page:
                digest.update(_CODEC.encode(row))
                if kind == "attempt":
                    attempts.append(row.id)
            full = len(page) == limits.PAGE_MAX
            after = page[-1].id if page else ""
    number, full = 0, True
    while full:
        told = await store.story(Story(number, limits.PAGE_MAX))
        digest.update(encode_story(told) if told else b"")
        full = len(told) == limits.PAGE_MAX
        number = told[-1].number if told else 0
    for attempt_id in attempts:
        for stream in ("stdout", "stderr"):
            log = await store.log(Log(attempt_id, stream, 0, limits.LOG_BYTES_MAX))
            digest.update(repr((attempt_id, stream, log.size)).encode() + log.data)
    return Standing(loaded.number, digest.hexdigest())


class Ledger:
    """Every batch that was tried, in order, and what a store holds after each: told by a store in memory, that can not lose anything."""

    def __init__(self) -> None:
        self._kept: list[Batch] = []
        self._memory = MemoryStore()
        self._standings: list[Standing] = []

    async def begin(self, batch: Batch, note: Note) -> None:
        """A batch is about to be committed. One with a number that was tried before takes the other's place: that one was not stored."""
        if not self._standings:
            self._standings.append(await standing(self._memory))
            note(Kind.TOLD, self._standings[0].digest, 0)
        if batch.number <= len(self._kept):
            del self._kept[batch.number - 1 :], self._standings[batch.number :]
            self._memory = MemoryStore()
            for kept in self._kept:
                await self._memory.commit(kept)
        await self._memory.commit(batch)
        self._kept.append(batch)
        self._standings.append(await standing(self._memory))
        note(Kind.BEGUN, self._standings[-1].digest, batch.number)

    def told(self, number: int, note: Note) -> None:
        """A batch was acknowledged."""
        note(Kind.TOLD, self._standings[number].digest, number)

    def latest(self) -> Standing | None:
        """What the store holds if everything that was begun is stored; None before the first batch."""
        return self._standings[-1] if self._standings else None


@attrs.define(slots=True)
class Promise:
    """
    What a cut at some moment of a tape must leave.

    Args:
        told: The last standing that was acknowledged; None before the store was first open.
        begun: Every standing whose batch was begun, the told ones included.
        copies: The copies that were acknowledged, by name, with the standings that they may hold.
        needed: Beginnings of names of which one must be a whole copy when the store is open again, likewise.
    """

    told: Standing | None = None
    begun: set[Standing] = attrs.field(factory=set[Standing])
    copies: dict[str, frozenset[Standing]] = attrs.field(factory=dict[str, frozenset[Standing]])
    needed: dict[str, frozenset[Standing]] = attrs.field(factory=dict[str, frozenset[Standing]])

    def apply(self, operation: Operation) -> None:
        """Take one note of the tape."""
        if operation.kind in (Kind.BEGUN, Kind.TOLD):
            standing = Standing(operation.offset, operation.name)
            self.begun.add(standing)
            if operation.kind is Kind.TOLD and (
                self.told is None or standing.number >= self.told.number
            ):
                self.told = standing
        elif operation.kind in (Kind.COPIED, Kind.NEEDED):
            kept = self.copies if operation.kind is Kind.COPIED else self.needed
            kept[operation.name] = frozenset(
                each for each in self.begun if each.number >= operation.offset
            )

    def copy(self) -> Promise:
        """One that goes on from here by itself."""
        return Promise(self.told, set(self.begun), dict(self.copies), dict(self.needed))

    def lost(self, found: Standing) -> str:
        """Why ``found`` breaks the promise; empty when it is kept."""
        told = self.told
        if told is not None and found.number < told.number:
            return f"lost: batch {told.number} was acknowledged, the store ends at {found.number}"
        if told is not None and found.number == told.number and found != told:
            return f"corrupt: the store ends at batch {found.number} and holds something else"
        if found.number and found not in self.begun:
            return f"corrupt: what the store holds at batch {found.number} was never asked of it"
        return ""


class Witness:
    """
    A store that tells the ledger of every batch before it passes it on, and of every acknowledgement.

    Args:
        store: The real one.
        ledger: Where it is kept.
        note: Puts a note on the tape of the disk.
    """

    def __init__(self, store: Store, ledger: Ledger, note: Note) -> None:
        self._store = store
        self._ledger = ledger
        self._note = note

    async def load(self) -> Loaded:
        """As `ports.Store.load`."""
        return await self._store.load()

    async def commit(self, batch: Batch) -> None:
        """As `ports.Store.commit`."""
        await self._ledger.begin(batch, self._note)
        await self._store.commit(batch)
        self._ledger.told(batch.number, self._note)

    async def rows(self, query: Rows) -> tuple[Record, ...]:
        """As `ports.Store.rows`."""
        return await self._store.rows(query)

    async def story(self, query: Story) -> tuple[Moved, ...]:
        """As `ports.Store.story`."""
        return await self._store.story(query)

    async def log(self, query: Log) -> LogRead:
        """As `ports.Store.log`."""
        return await self._store.log(query)

    async def backup(self, target: str) -> None:
        """As `ports.Store.backup`."""
        await self._store.backup(target)

    async def aclose(self) -> None:
        """As `ports.Store.aclose`."""
        await self._store.aclose()
