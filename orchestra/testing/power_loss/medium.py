"""
What is on a disk after a power cut: all that was flushed, and of the rest whatever chance kept.

Two file systems are known. On the strict one (POSIX as it is written) a name is durable only after a flush of its directory, and what was
not flushed survives in any combination, with garbage where a file had grown. On the other, which is like ext4 with ordered data, names
change in order, and a flush of any file takes the changes of names before it along.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from random import Random

import attrs

from orchestra.testing.power_loss.operations import Kind, Operation

SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""

STALE_SHM_BYTES = 32 * 1024
STALE_SHM_SHARE = 0.25
HALF = 0.5
KEEP_SHARES = (0.1, 0.5, 0.9)

Image = Mapping[str, bytes]
"""The files by name, as the machine finds them when power is back."""


class FileSystem(StrEnum):
    """Which promises hold for names."""

    STRICT = "strict"
    ORDERED = "ordered"


class Way(StrEnum):
    """How much of what was not flushed survives."""

    SYNCED = "synced"
    ALL = "all"
    TORN = "torn"
    SHUFFLED = "shuffled"
    SUBSET = "subset"


@attrs.define(slots=True, eq=False)
class _Change:
    """An operation on a file's content; ``sure`` when it was flushed, ``stuck`` when a flush of it failed: no later one helps."""

    operation: Operation
    sure: bool = False
    stuck: bool = False


@attrs.define(slots=True, eq=False)
class _File:
    """``durable`` is what every cut leaves, changed in place; ``changes`` came after it, in order."""

    durable: bytearray = attrs.field(factory=bytearray)
    changes: list[_Change] = attrs.field(factory=list[_Change])

    def sync(self) -> None:
        for change in self.changes:
            change.sure = change.sure or not change.stuck
        if all(change.sure for change in self.changes):
            for change in self.changes:
                _apply(self.durable, change.operation)
            self.changes.clear()

    def sync_failed(self) -> None:
        for change in self.changes:
            change.stuck = change.stuck or not change.sure

    def open_changes(self) -> int:
        return sum(not change.sure for change in self.changes)


def _write(content: bytearray, offset: int, new: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(new)] = new


def _apply(content: bytearray, operation: Operation) -> None:
    if operation.kind is Kind.WRITE:
        _write(content, operation.offset, operation.content)
    elif operation.offset <= len(content):
        del content[operation.offset :]
    else:
        content.extend(bytes(operation.offset - len(content)))


class Medium:
    """
    A disk at one moment of a recording.

    Args:
        system: Which file system is on it.
        image: What is durable at the beginning, by name; file numbers count from 1 in the order of names.
    """

    def __init__(self, system: FileSystem, image: Image) -> None:
        self.system = system
        self._files = {
            number: _File(bytearray(image[name])) for number, name in enumerate(sorted(image), 1)
        }
        self._names = {name: number for number, name in enumerate(sorted(image), 1)}
        self._renamings: list[Operation] = []

    def apply(self, operation: Operation) -> None:
        """Take one operation; notes change nothing."""
        kind = operation.kind
        if kind in (Kind.MAKE, Kind.REMOVE, Kind.RENAME):
            if kind is Kind.MAKE:
                self._files[operation.file] = _File()
            self._renamings.append(operation)
        elif kind in (Kind.WRITE, Kind.TRUNCATE):
            self._files[operation.file].changes.append(_Change(operation))
        elif kind is Kind.SYNC:
            self._files[operation.file].sync()
            if self.system is FileSystem.ORDERED:
                self._sync_names()
        elif kind is Kind.SYNC_FAILED:
            self._files[operation.file].sync_failed()
        elif kind is Kind.SYNC_NAMES:
            self._sync_names()

    def _sync_names(self) -> None:
        self._names = _renamed(self._names, self._renamings)
        self._renamings.clear()

    def is_settled(self) -> bool:
        """Whether everything was flushed, so that a cut leaves but one image."""
        return not self._renamings and not any(
            self._files[number].open_changes() for number in self._names.values()
        )

    def image(self, way: Way, rng: Random) -> Image:
        """What a cut at this moment leaves, if it goes ``way``; chance is drawn from ``rng``."""
        names = self._surviving_names(way, rng)
        files = {name: self._content(number, way, rng) for name, number in sorted(names.items())}
        if way is Way.TORN and rng.random() < STALE_SHM_SHARE:
            # Shared memory is never flushed, and may be there all the same: with anything in it.
            for name in [name for name in files if name.endswith("-wal")]:
                files[name.removesuffix("-wal") + "-shm"] = rng.randbytes(STALE_SHM_BYTES)
        return files

    def _surviving_names(self, way: Way, rng: Random) -> dict[str, int]:
        if way is Way.SYNCED:
            return dict(self._names)
        if way is Way.ALL:
            return _renamed(self._names, self._renamings)
        if self.system is FileSystem.ORDERED:
            kept = self._renamings[: rng.randint(0, len(self._renamings))]
        else:
            share = rng.choice(KEEP_SHARES)
            kept = [each for each in self._renamings if rng.random() < share]
        return _renamed(self._names, kept)

    def _content(self, number: int, way: Way, rng: Random) -> bytes:
        file = self._files[number]
        if not file.changes:
            return bytes(file.durable)
        kept = self._kept(file, way, rng)
        torn = -1
        if way is Way.TORN:
            writes = [
                place
                for place, change in enumerate(file.changes)
                if not change.sure and change.operation.kind is Kind.WRITE
            ]
            torn = rng.choice(writes) if writes else -1
        content = bytearray(file.durable)
        grown = 0
        for place, change in enumerate(file.changes):
            operation = change.operation
            end = operation.offset + len(operation.content)
            if place == torn:
                _tear(content, operation, rng)
            elif kept[place]:
                _apply(content, operation)
            elif operation.kind is Kind.WRITE:
                grown = max(grown, end)
        if way is Way.TORN and self.system is FileSystem.STRICT and rng.random() < HALF:
            # The new size came to the disk, what belongs there did not.
            content.extend(rng.randbytes(max(0, grown - len(content))))
        return bytes(content)

    @staticmethod
    def _kept(file: _File, way: Way, rng: Random) -> list[bool]:
        if way in (Way.SYNCED, Way.ALL):
            return [change.sure or way is Way.ALL for change in file.changes]
        if way is Way.SHUFFLED:
            # The disk works in any order and gets so far. Two writes of one place keep theirs: the cache has but one page for it.
            places = [place for place, change in enumerate(file.changes) if not change.sure]
            rng.shuffle(places)
            done = set(places[: rng.randint(0, len(places))])
            return [change.sure or place in done for place, change in enumerate(file.changes)]
        share = rng.choice(KEEP_SHARES)
        return [change.sure or rng.random() < share for change in file.changes]


def _tear(content: bytearray, operation: Operation, rng: Random) -> None:
    """Of one write some sectors arrive, the others stay as they were."""
    new, begin = operation.content, operation.offset
    end = begin + len(new)
    place = begin
    while place < end:
        stop = min(end, (place // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if rng.random() < HALF:
            _write(content, place, new[place - begin : stop - begin])
        place = stop


def _renamed(names: Mapping[str, int], renamings: list[Operation]) -> dict[str, int]:
    after = dict(names)
    for operation in renamings:
        if operation.kind is Kind.MAKE:
            after[operation.name] = operation.file
        else:
            after.pop(operation.name, None)
            if operation.kind is Kind.RENAME:
                after[operation.target] = operation.file
    return after
