"""One scenario, recorded, and cut after every operation."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import anyio
import attrs

from orchestra.ports import Store
from orchestra.storage.disk import Disk
from orchestra.storage.sqlite import SqliteStore
from orchestra.storage.sqlite_files import check_file
from orchestra.testing.power_loss.ledger import Promise
from orchestra.testing.power_loss.medium import FileSystem, Image, Medium, Way
from orchestra.testing.power_loss.operations import NOTES, Kind, Operation
from orchestra.testing.power_loss.play import NoServer, OpenStore, Play
from orchestra.testing.power_loss.recorder import SQLITE_SYNCS_NAMES, RecordingDisk
from orchestra.testing.power_loss.scenarios import SCENARIOS, Scenario
from orchestra.testing.power_loss.verdict import CheckFile, Inspector

SUBSETS = 6
"""Random subsets of the unflushed writes at each operation, beside the four other ways."""

BROKEN_MAX = 20
"""Broken images that are kept with their story; all are counted."""


async def open_sqlite(path: str, disk: Disk) -> Store:
    """The store of this project, as a server opens it."""
    return await SqliteStore.open(path, disk=disk)


@attrs.frozen(slots=True)
class Broken:
    """An image that broke the promise: where the power was cut, and what was wrong."""

    scenario: str
    seed: int
    system: FileSystem
    way: Way
    place: int
    operation: str
    why: str

    def __str__(self) -> str:
        return (
            f"{self.scenario}, seed {self.seed}, {self.system} names, {self.way}, cut after operation {self.place}"
            f" ({self.operation}): {self.why}"
        )


@attrs.frozen(slots=True)
class Tally:
    """
    What trials came to.

    ``operations`` were recorded and ``images`` made, of which ``distinct`` differed and were opened; ``lost`` of the images lacked
    something acknowledged, ``corrupt`` were damaged. Where nothing was left to chance all ways lead to one image, which counts once.
    """

    trials: int = 0
    operations: int = 0
    images: int = 0
    distinct: int = 0
    lost: int = 0
    corrupt: int = 0
    cpu_s: float = 0.0
    broken: tuple[Broken, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.trials + other.trials,
            self.operations + other.operations,
            self.images + other.images,
            self.distinct + other.distinct,
            self.lost + other.lost,
            self.corrupt + other.corrupt,
            self.cpu_s + other.cpu_s,
            (self.broken + other.broken)[:BROKEN_MAX],
        )


@contextmanager
def workshop() -> Generator[Path]:
    """A folder in memory where there is one: nothing here has to outlive the process."""
    memory = Path("/dev/shm")  # noqa: S108  a private folder is made in it
    place = str(memory) if memory.is_dir() else None
    with tempfile.TemporaryDirectory(
        prefix="power-loss-", dir=place, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


@attrs.frozen(slots=True)
class Recording:
    """What is left of a scenario: what was durable at its beginning, and the tape."""

    durable: Image
    tape: tuple[Operation, ...]


async def record(
    scenario: Scenario,
    seed: int,
    folder: Path,
    *,
    open_store: OpenStore = open_sqlite,
    sqlite_syncs_names: bool = SQLITE_SYNCS_NAMES,
    syncs_names: bool = True,
) -> Recording:
    """Play a scenario once and write down what it does to the disk. ``folder`` must be empty."""
    with RecordingDisk(
        folder, sqlite_syncs_names=sqlite_syncs_names, syncs_names=syncs_names
    ) as disk:
        play = Play(disk, open_store, seed)
        try:
            await scenario(play)
        except NoServer:
            raise AssertionError(f"the server did not start: {play.failures}") from None
        return Recording(dict(disk.durable), tuple(disk.tape))


@attrs.define(slots=True)
class Cutter:
    """
    Cuts the power after every operation of a recording.

    Args:
        name: The scenario, for the story of what broke.
        seed: Of the chance that decides what survives.
        inspector: Looks at the images.
        subsets: Random subsets at each operation.
        enough: End when so many images were broken; 0 goes on to the end.
    """

    name: str
    seed: int
    inspector: Inspector
    subsets: int = SUBSETS
    enough: int = 0
    images: int = 0
    lost: int = 0
    corrupt: int = 0
    broken: list[Broken] = attrs.field(factory=list[Broken])

    async def cut(
        self, recording: Recording, system: FileSystem, known: Promise | None = None
    ) -> None:
        """Make every image of a recording on one file system, and look at it. ``known`` was promised before it began."""
        rng = Random(f"cut {self.name} {self.seed} {system}")
        medium = Medium(system, recording.durable)
        promise = known.copy() if known is not None else Promise()
        ways = (Way.SYNCED, Way.ALL, Way.TORN, Way.SHUFFLED, *[Way.SUBSET] * self.subsets)
        for place, operation in enumerate(recording.tape):
            if self.enough and self.lost + self.corrupt >= self.enough:
                return
            medium.apply(operation)
            promise.apply(operation)
            if operation.kind in NOTES and operation.kind is not Kind.TOLD:
                continue
            for way in ways[:1] if medium.is_settled() else ways:
                image = medium.image(way, rng)
                self.images += 1
                problems = await self.inspector.problems(image, promise)
                if problems:
                    self._count(Broken(
                        self.name, self.seed, system, way, place, str(operation), problems[0]
                    ))  # fmt: skip

    def _count(self, broken: Broken) -> None:
        if broken.why.startswith("lost"):
            self.lost += 1
        else:
            self.corrupt += 1
        if len(self.broken) < BROKEN_MAX:
            self.broken.append(broken)


async def try_scenario(
    name: str,
    seed: int,
    *,
    subsets: int = SUBSETS,
    open_store: OpenStore = open_sqlite,
    open_again: OpenStore | None = None,
    check: CheckFile = check_file,
    scenario: Scenario | None = None,
    systems: tuple[FileSystem, ...] = tuple(FileSystem),
    sqlite_syncs_names: bool = SQLITE_SYNCS_NAMES,
    syncs_names: bool = True,
    enough: int = 0,
) -> Tally:
    """
    Play a scenario, cut the power after each of its operations, and look at what is left.

    Args:
        name: One of `SCENARIOS`; with ``scenario`` any name.
        seed: Of everything that is drawn.
        subsets: Random subsets of the unflushed writes at each operation.
        open_store: Opens the store that is tried.
        open_again: Opens what is left after a cut; by default ``open_store``.
        check: That store's own check of a closed file.
        scenario: What is played, instead of the one of this name.
        systems: The file systems.
        sqlite_syncs_names: As in `RecordingDisk`.
        syncs_names: As in `RecordingDisk`.
        enough: End when so many images were broken; 0 goes on to the end.
    """
    began_s = time.process_time()
    with workshop() as folder:
        disk, image = folder / "disk", folder / "image"
        disk.mkdir()
        recording = await record(
            scenario or SCENARIOS[name],
            seed,
            disk,
            open_store=open_store,
            sqlite_syncs_names=sqlite_syncs_names,
            syncs_names=syncs_names,
        )
        inspector = Inspector(image, open_again or open_store, check)
        cutter = Cutter(name, seed, inspector, subsets, enough)
        for system in systems:
            await cutter.cut(recording, system)
    operations = sum(operation.kind not in NOTES for operation in recording.tape)
    return Tally(
        1,
        operations,
        cutter.images,
        inspector.distinct,
        cutter.lost,
        cutter.corrupt,
        time.process_time() - began_s,
        tuple(cutter.broken),
    )


def chunk(name: str, seed: int, subsets: int = SUBSETS) -> Tally:
    """As `try_scenario`, in an event loop of its own: what one process of a campaign does."""
    return anyio.run(lambda: try_scenario(name, seed, subsets=subsets))
