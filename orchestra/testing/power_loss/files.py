"""
Files that are kept beside the store: what jobs of other systems bring along, and logs and results that their workers send back.

The promise: a file whose keeping was acknowledged is there after a cut of the power, whole, with the content that was given last; before
that it is there as it was, or as it will be, or not yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType

import attrs

from orchestra.errors import Unavailable
from orchestra.storage.disk import Disk
from orchestra.storage.shelf import FolderShelf
from orchestra.testing.power_loss.medium import FileSystem, Image, Medium, Way
from orchestra.testing.power_loss.operations import Operation
from orchestra.testing.power_loss.recorder import Fails, Fault, RecordingDisk
from orchestra.testing.power_loss.trial import SUBSETS, Broken, Tally, workshop

SAVES = 6
NAMES = ("3f-log.txt", "3f-frame.png")
"""Each is kept again and again, with another content."""

BYTES = (0, 10, 700, 5_000)

Keep = Callable[[RecordingDisk, str, bytes], None]
"""Keeps a file on a disk under a name; raises `Unavailable` when it did not."""


def keep_on_shelf(disk: RecordingDisk, name: str, content: bytes) -> None:
    """As the product does."""
    FolderShelf(disk.folder, disk).save(name, content)


class _Sleepless(Disk):
    """Flushes no file."""

    def __init__(self, disk: RecordingDisk) -> None:
        self._disk = disk

    def write_new(self, path: str, content: bytes) -> None:
        self._disk.write_new(path, content)

    def replace(self, source: str, target: str) -> None:
        self._disk.replace(source, target)

    def sync_file(self, path: str) -> None:
        del path

    def sync_directory(self, path: str) -> None:
        self._disk.sync_directory(path)


def keep_without_flush(disk: RecordingDisk, name: str, content: bytes) -> None:
    """The file is moved to its place before its bytes were flushed."""
    FolderShelf(disk.folder, _Sleepless(disk)).save(name, content)


def keep_in_place(disk: RecordingDisk, name: str, content: bytes) -> None:
    """The file is written over itself."""
    path = str(disk.folder / name)
    disk.remove(path)
    disk.write_new(path, content)
    disk.sync_file(path)
    disk.sync_directory(path)


def keep_without_name(disk: RecordingDisk, name: str, content: bytes) -> None:
    """Nobody flushes the directory."""
    disk.syncs_names = False
    keep_on_shelf(disk, name, content)


WAYS_TO_LOSE: Mapping[str, Keep] = MappingProxyType(
    {keep.__name__: keep for keep in (keep_without_name, keep_without_flush, keep_in_place)}
)
"""By name. Each must be found to lose or to tear a file."""


class _Kept:
    """What each name may hold: the first is what was acknowledged, None for nothing; the others are under way."""

    def __init__(self) -> None:
        self.allowed: dict[str, list[bytes | None]] = {name: [None] for name in NAMES}

    def problems(self, image: Image) -> list[str]:
        """What is wrong with an image."""
        problems: list[str] = []
        for name, allowed in self.allowed.items():
            found = image.get(name)
            if found in allowed:
                continue
            what = (
                f"torn: {name} holds {len(found)} bytes" if found is not None else f"lost: {name}"
            )
            problems.append(what)
        return problems


def try_files(seed: int, keep: Keep = keep_on_shelf, fault: Fault | None = None) -> Tally:
    """Keep files, and cut the power after each operation; what could not be kept because of a fault is kept again."""
    began_s = time.process_time()
    rng = Random(f"files {seed}")
    tally = Tally(1)
    with workshop() as folder:
        place = folder / "disk"
        place.mkdir()
        with RecordingDisk(place, fault=fault) as disk:
            bench = _Bench(seed, rng)
            allowed = bench.kept.allowed
            for number in range(SAVES):
                name, content = NAMES[number % len(NAMES)], rng.randbytes(rng.choice(BYTES))
                allowed[name].append(content)
                try:
                    keep(disk, name, content)
                except Unavailable:
                    disk.fault = None
                    keep(disk, name, content)
                tally += bench.cut(disk.tape)
                allowed[name] = [content]
                tally += bench.look(len(disk.tape), "acknowledged")
                disk.tape.clear()
    return tally + Tally(cpu_s=time.process_time() - began_s)


@attrs.define(slots=True)
class _Bench:
    """What is on the disk on either file system, and what it must hold."""

    seed: int
    rng: Random
    media: Mapping[FileSystem, Medium] = attrs.field(
        factory=lambda: {system: Medium(system, {}) for system in FileSystem}
    )
    kept: _Kept = attrs.field(factory=_Kept)

    def cut(self, tape: list[Operation]) -> Tally:
        """Cut the power after each of the operations."""
        tally = Tally()
        for place, operation in enumerate(tape):
            for medium in self.media.values():
                medium.apply(operation)
            tally += Tally(operations=1) + self.look(place, str(operation))
        return tally

    def look(self, place: int, told: str) -> Tally:
        """What a cut leaves now."""
        tally = Tally()
        ways = (Way.SYNCED, Way.ALL, Way.TORN, Way.SHUFFLED, *[Way.SUBSET] * SUBSETS)
        for system, medium in self.media.items():
            for way in ways[:1] if medium.is_settled() else ways:
                problems = self.kept.problems(medium.image(way, self.rng))
                broken = tuple(
                    Broken("files", self.seed, system, way, place, told, each) for each in problems
                )
                lost = any(each.startswith("lost") for each in problems)
                torn = bool(problems) and not lost
                tally += Tally(images=1, distinct=1, lost=lost, corrupt=torn, broken=broken)
        return tally


FAILING = (Fails.NAMES, Fails.WRITE, Fails.FULL, Fails.SYNC)


def fail_files(seed: int) -> Tally:
    """Every operation of keeping files fails in turn: who asked is told, and nothing that was kept before is lost."""
    total = Tally()
    for fails in FAILING:
        for nth in range(1, 100):
            fault = Fault(fails, nth)
            total += try_files(seed, fault=fault)
            if not fault.met:
                break
    return total
